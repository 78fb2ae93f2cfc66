//! A million IPv4 and 200,000 IPv6 routes over a thousand tables: they fit, each table has its own, and all can go.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use dataplane::tables::{Adjacency, Limits, Tables, Writer};
use southbound::{
    Label, LabelSpaceId, LabelStack, LabelVia, NextHop, Nhlfe, PortId, PortRole, PortSpec, RouteSpec, Update,
    VrfId, XdpPreference,
};

const TABLES: u32 = 1000;
const ROUTES_V4: u32 = 1000;
const ROUTES_V6: u32 = 200;

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn network_v4(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number << 8))
}

fn network_v6(number: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number) << 64))
}

/// The VPN label of a table's routes: of a provider's other edge, per table.
fn next_hop(table: u32) -> NextHop {
    let labels = [Label::new(100).unwrap(), Label::new(1000 + table).unwrap()];
    let via = LabelVia::Port {
        port: PortId(1),
        gateway: IpAddr::from([172, 16, 0, 2]),
    };
    NextHop::Labelled(Nhlfe::new(LabelStack::new(&labels).unwrap(), via))
}

#[test]
fn a_million_routes_over_a_thousand_tables_fit() {
    let tables = Arc::new(Tables::new(Limits::default()));
    let mut writer = Writer::new(Arc::clone(&tables));
    writer
        .apply(
            1,
            Update::PutPort(PortSpec {
                id: PortId(1),
                interface: "core".to_owned(),
                role: PortRole::Internet,
                vrf: VrfId::MAIN,
                xdp: XdpPreference::Auto,
                require_zero_copy: false,
                mpls: Some(LabelSpaceId::PLATFORM),
            }),
        )
        .unwrap();
    let (before_bytes, start) = (resident_bytes(), Instant::now());
    for table in 1..=TABLES {
        let v4 = (0..ROUTES_V4).map(|number| (network_v4(number), 24));
        let v6 = (0..ROUTES_V6).map(|number| (network_v6(number), 64));
        for (network, length) in v4.chain(v6) {
            let update = Update::PutRoute(RouteSpec {
                vrf: VrfId(table),
                prefix: southbound::IpPrefix::new(network, length).unwrap(),
                next_hops: vec![next_hop(table)],
                weights: Vec::new(),
            });
            writer.apply(1, update).unwrap();
        }
    }
    writer.settle();
    let (took, taken_bytes) = (start.elapsed(), resident_bytes() - before_bytes);
    println!(
        "{} routes in {} tables: {:.1} s, {} MiB resident, {:?}",
        TABLES * (ROUTES_V4 + ROUTES_V6),
        TABLES,
        took.as_secs_f64(),
        taken_bytes >> 20,
        writer.memory(),
    );
    // On a machine of 24 GiB; a table of direct entries for each VRF would be 64 GiB.
    assert!(taken_bytes < 3 << 30, "{} MiB", taken_bytes >> 20);
    let mut reader = tables.reader();
    let view = reader.pin();
    for table in 1..=TABLES {
        let vrf = writer.vrf_index(VrfId(table)).unwrap();
        for number in [0, 77, ROUTES_V6 - 1] {
            for network in [network_v4(number), network_v6(number)] {
                let Adjacency::Labelled(hop) = view.adjacency(view.route(vrf, network), 0) else {
                    panic!("table {table}: {network}");
                };
                assert_eq!(hop.labels()[1].value(), 1000 + table);
            }
        }
        let absent = view.route(vrf, network_v4(ROUTES_V4));
        assert!(matches!(view.adjacency(absent, 0), Adjacency::NoRoute));
    }
    let start = Instant::now();
    let swept = writer.sweep(2);
    println!("swept in {:.1} s", start.elapsed().as_secs_f64());
    assert!(swept >= u64::from(TABLES * (ROUTES_V4 + ROUTES_V6)), "{swept}");
    assert!(writer.route_status().is_empty());
}
