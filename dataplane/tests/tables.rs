//! The tables through the contract: routes, neighbours and tunnels go in at the writer, workers see what follows.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod table_rig;

use table_rig::*;

#[test]
fn a_neighbour_is_asked_for_found_lost_and_found_elsewhere() {
    let mut writer = two_ports();
    apply(
        &mut writer,
        [
            route("10.1.0.0/24", connected(1)),
            route("0.0.0.0/0", via(1, "10.1.0.254")),
        ],
    );
    assert_eq!(way(&writer, "10.1.0.7"), "glean 1");
    assert_eq!(way(&writer, "8.8.8.8"), "ask 10.1.0.254");
    apply(
        &mut writer,
        [
            neighbour(1, "10.1.0.7", NeighbourState::Resolved(MAC)),
            neighbour(1, "10.1.0.254", NeighbourState::Resolved([4; 6])),
        ],
    );
    assert_eq!(way(&writer, "10.1.0.7"), format!("0:{MAC:x?}"));
    assert_eq!(way(&writer, "8.8.8.8"), format!("0:{:x?}", [4; 6]));
    see(&writer, |view| {
        let index = view.route(VrfIndex::MAIN, address("8.8.8.8"));
        let Adjacency::Neighbour(found) = view.adjacency(index, 0) else {
            panic!("no neighbour");
        };
        assert_eq!(found.rewrite[6..], OUR_MAC);
        assert_eq!(found.mtu_bytes, 1500);
    });
    apply(&mut writer, [neighbour(1, "10.1.0.254", NeighbourState::Failed)]);
    assert_eq!(way(&writer, "8.8.8.8"), "ask 10.1.0.254 again");
    apply(
        &mut writer,
        [
            neighbour(1, "10.1.0.254", NeighbourState::Resolved([5; 6])),
            Update::RemoveNeighbour {
                port: PortId(1),
                address: address("10.1.0.7"),
            },
        ],
    );
    assert_eq!(way(&writer, "8.8.8.8"), format!("0:{:x?}", [5; 6]));
    assert_eq!(way(&writer, "10.1.0.7"), "glean 1");
}

#[test]
fn a_neighbour_has_its_own_entry_only_while_the_route_to_it_is_its_links() {
    let mut writer = two_ports();
    apply(
        &mut writer,
        [neighbour(1, "10.1.0.200", NeighbourState::Resolved(MAC))],
    );
    assert_eq!(way(&writer, "10.1.0.200"), "NoRoute");
    apply(&mut writer, [route("10.1.0.0/24", connected(1))]);
    let direct = format!("0:{MAC:x?}");
    assert_eq!(way(&writer, "10.1.0.200"), direct);
    // A longer route elsewhere covers it.
    apply(&mut writer, [route("10.1.0.128/25", NextHop::Blackhole)]);
    assert_eq!(way(&writer, "10.1.0.200"), "Blackhole");
    apply(&mut writer, [no_route("10.1.0.128/25")]);
    assert_eq!(way(&writer, "10.1.0.200"), direct);
    // A host route onto the link changes nothing, one elsewhere does.
    apply(&mut writer, [route("10.1.0.200/32", connected(1))]);
    assert_eq!(way(&writer, "10.1.0.200"), direct);
    apply(&mut writer, [route("10.1.0.200/32", NextHop::Unreachable)]);
    assert_eq!(way(&writer, "10.1.0.200"), "Unreachable");
    apply(&mut writer, [no_route("10.1.0.200/32")]);
    assert_eq!(way(&writer, "10.1.0.200"), direct);
    // The link is another port's.
    apply(&mut writer, [route("10.1.0.0/24", connected(2))]);
    assert_eq!(way(&writer, "10.1.0.200"), "glean 2");
    apply(&mut writer, [no_route("10.1.0.0/24")]);
    assert_eq!(way(&writer, "10.1.0.200"), "NoRoute");
}

#[test]
fn an_address_of_ours_counts_before_any_route() {
    let mut writer = two_ports();
    let local = LocalAddress {
        vrf: VrfId::MAIN,
        address: address("10.1.0.1"),
        port: Some(PortId(1)),
    };
    apply(
        &mut writer,
        [
            route("10.1.0.0/24", connected(1)),
            route("10.1.0.1/32", NextHop::Blackhole),
            Update::PutLocalAddress(local),
            Update::PutLocalAddress(local),
            Update::PutLocalAddress(LocalAddress {
                address: address("fe80::1"),
                ..local
            }),
            Update::PutLocalAddress(LocalAddress {
                address: address("2001:db8::1"),
                ..local
            }),
        ],
    );
    see(&writer, |view| {
        assert!(view.is_local(VrfIndex::MAIN, address("10.1.0.1")));
        assert!(!view.is_local(VrfIndex::MAIN, address("10.1.0.2")));
        let port = view.port(PortSlot::FIRST).unwrap();
        assert_eq!(port.source_v4(), Some("10.1.0.1".parse().unwrap()));
        assert_eq!(port.source_v6(), Some("2001:db8::1".parse().unwrap()));
    });
    apply(&mut writer, [Update::RemoveLocalAddress(local)]);
    assert_eq!(way(&writer, "10.1.0.1"), "Blackhole");
}

#[test]
fn fault_63_tables_are_apart() {
    let mut writer = two_ports();
    apply(
        &mut writer,
        [
            port(3, VrfId(7)),
            route_in(VrfId(7), "10.0.0.0/8", vec![NextHop::Blackhole]),
            route_in(VrfId(8), "10.0.0.0/8", vec![NextHop::Kernel]),
        ],
    );
    assert_eq!(way(&writer, "10.0.0.1"), "NoRoute");
    let seven = writer.vrf_index(VrfId(7)).unwrap();
    let eight = writer.vrf_index(VrfId(8)).unwrap();
    see(&writer, |view| {
        assert_eq!(view.route(seven, address("10.0.0.1")), AdjacencyIndex::BLACKHOLE);
        assert_eq!(view.route(eight, address("10.0.0.1")), AdjacencyIndex::KERNEL);
    });
}

#[test]
fn several_next_hops_share_the_flows() {
    let mut writer = two_ports();
    let hops = vec![via(1, "10.1.0.254"), via(2, "10.2.0.254"), NextHop::Blackhole];
    apply(
        &mut writer,
        [
            route_in(VrfId::MAIN, "0.0.0.0/0", hops),
            neighbour(1, "10.1.0.254", NeighbourState::Resolved(MAC)),
        ],
    );
    let (mut first, mut second, mut third) = (0, 0, 0);
    see(&writer, |view| {
        let index = view.route(VrfIndex::MAIN, address("8.8.8.8"));
        for flow in 0..300u32 {
            match view.adjacency(index, flow.wrapping_mul(0x9e37_79b9)) {
                Adjacency::Neighbour(_) => first += 1,
                Adjacency::Incomplete(_) => second += 1,
                Adjacency::Blackhole => third += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(
        first > 50 && second > 50 && third > 50,
        "{first} {second} {third}"
    );
}

#[test]
fn a_tunnels_way_out_follows_routes_neighbours_and_mtu() {
    let mut writer = two_ports();
    apply(&mut writer, [Update::PutTunnel(tunnel(1, "198.51.100.1"))]);
    let egress = |writer: &Writer| {
        see(writer, |view| {
            let index = writer.tunnel_index(TunnelId(1)).unwrap();
            let tunnel = view.tunnel(index).unwrap();
            (describe(view, tunnel.egress()), tunnel.outer_mtu_bytes(0))
        })
    };
    assert_eq!(egress(&writer).0, "NoRoute");
    apply(&mut writer, [route("0.0.0.0/0", via(1, "10.1.0.254"))]);
    assert_eq!(egress(&writer), ("ask 10.1.0.254".to_owned(), 1500));
    // The peer on the link: it is asked for itself.
    apply(&mut writer, [route("198.51.100.0/24", connected(2))]);
    assert_eq!(egress(&writer).0, "ask 198.51.100.1");
    apply(
        &mut writer,
        [neighbour(2, "198.51.100.1", NeighbourState::Resolved(MAC))],
    );
    assert_eq!(egress(&writer).0, format!("1:{MAC:x?}"));
    let jumbo = PortLink {
        mtu_bytes: 9000,
        mac: OUR_MAC,
        up: true,
        vlan: None,
    };
    writer.set_port_link(PortSlot::new(1).unwrap(), jumbo);
    assert_eq!(egress(&writer), (format!("1:{MAC:x?}"), 9000));
    apply(&mut writer, [no_route("198.51.100.0/24")]);
    assert_eq!(egress(&writer), ("ask 10.1.0.254".to_owned(), 1500));
    // Another peer.
    apply(
        &mut writer,
        [
            Update::PutTunnel(tunnel(1, "203.0.113.1")),
            route("203.0.113.0/24", NextHop::Blackhole),
        ],
    );
    assert_eq!(egress(&writer).0, "Blackhole");
}

#[test]
fn a_tunnel_into_itself_is_a_loop_until_any_part_of_it_changes() {
    let mut writer = two_ports();
    apply(
        &mut writer,
        [
            route("0.0.0.0/0", NextHop::Blackhole),
            Update::PutTunnel(tunnel(1, "198.51.100.1")),
            Update::PutTunnel(tunnel(2, "203.0.113.1")),
        ],
    );
    let egress = |writer: &Writer, id: u32| {
        see(writer, |view| {
            let tunnel = view.tunnel(writer.tunnel_index(TunnelId(id)).unwrap()).unwrap();
            describe(view, tunnel.egress())
        })
    };
    // Each through the other.
    apply(
        &mut writer,
        [route("198.51.100.0/24", NextHop::Tunnel(TunnelId(2)))],
    );
    assert_eq!(egress(&writer, 1), "tunnel 2");
    apply(
        &mut writer,
        [route("203.0.113.0/24", NextHop::Tunnel(TunnelId(1)))],
    );
    assert_eq!(egress(&writer, 2), "TunnelLoop");
    // The other end of the loop opens.
    apply(&mut writer, [no_route("198.51.100.0/24")]);
    assert_eq!(egress(&writer, 1), "Blackhole");
    assert_eq!(egress(&writer, 2), "tunnel 1");
    // Straight into itself.
    apply(
        &mut writer,
        [route("198.51.100.0/24", NextHop::Tunnel(TunnelId(1)))],
    );
    assert_eq!(egress(&writer, 1), "TunnelLoop");
}

#[test]
fn a_removed_tunnel_leads_nowhere_and_its_number_is_not_anothers() {
    let mut writer = two_ports();
    apply(
        &mut writer,
        [
            Update::PutTunnel(tunnel(1, "198.51.100.1")),
            route("10.9.0.0/16", NextHop::Tunnel(TunnelId(1))),
            Update::InstallSa(sa(SaDirection::Inbound, 0x1000, 1)),
            Update::RemoveTunnel(TunnelId(1)),
            Update::PutTunnel(tunnel(2, "203.0.113.1")),
        ],
    );
    assert_eq!(way(&writer, "10.9.0.1"), "tunnel 0", "not tunnel 2");
    assert!(
        see(&writer, |view| view.inbound(0x1000).is_none()),
        "its SAs went with it"
    );
    assert_eq!(
        writer.apply(1, route("10.8.0.0/16", NextHop::Tunnel(TunnelId(1)))),
        Err(Rejection::UnknownTunnel(TunnelId(1)))
    );
    // It comes back: the route leads into it again.
    apply(&mut writer, [Update::PutTunnel(tunnel(1, "198.51.100.1"))]);
    assert_eq!(way(&writer, "10.9.0.1"), "tunnel 1");
}

#[test]
fn fault_78_what_a_resynchronisation_does_not_name_goes_and_the_rest_stays_as_it_is() {
    let mut writer = with_tunnel();
    let (kept, gone) = (
        sa(SaDirection::Inbound, 0x1000, 1),
        sa(SaDirection::Inbound, 0x1001, 2),
    );
    let local = |text| {
        Update::PutLocalAddress(LocalAddress {
            vrf: VrfId::MAIN,
            address: address(text),
            port: Some(PortId(1)),
        })
    };
    apply(
        &mut writer,
        [
            Update::PutTunnel(tunnel(2, "203.0.113.1")),
            Update::InstallSa(kept.clone()),
            Update::InstallSa(gone),
            route("10.0.0.0/8", NextHop::Tunnel(TunnelId(1))),
            route("10.1.0.0/16", NextHop::Tunnel(TunnelId(2))),
            policy(1, 1, "10.0.0.0/8", "10.0.0.0/8", PolicyAction::Bypass),
            policy(
                2,
                1,
                "10.0.0.0/8",
                "10.0.0.0/8",
                PolicyAction::Protect(TunnelId(2)),
            ),
            neighbour(1, "192.0.2.9", NeighbourState::Resolved(MAC)),
            neighbour(2, "192.0.2.9", NeighbourState::Resolved(MAC)),
            local("192.0.2.1"),
            local("192.0.2.2"),
        ],
    );
    see(&writer, |view| {
        view.inbound(0x1000).unwrap().replay().commit(77).unwrap()
    });
    for update in [
        port(1, VrfId::MAIN),
        Update::PutTunnel(tunnel(1, "198.51.100.1")),
        Update::InstallSa(kept),
        route("10.0.0.0/8", NextHop::Tunnel(TunnelId(1))),
        policy(1, 1, "10.0.0.0/8", "10.0.0.0/8", PolicyAction::Bypass),
        neighbour(1, "192.0.2.9", NeighbourState::Resolved(MAC)),
        local("192.0.2.1"),
    ] {
        writer.apply(2, update).unwrap();
    }
    // An SA, a rule, a route, a tunnel, a neighbour, an address, a port.
    assert_eq!(writer.sweep(2), 7);
    assert_eq!(writer.sweep(2), 0);
    assert_eq!(way(&writer, "10.1.0.1"), "tunnel 1");
    see(&writer, |view| {
        assert!(view.inbound(0x1000).unwrap().replay().check(77).is_err());
        assert!(view.inbound(0x1001).is_none());
        assert!(view.port(PortSlot::new(1).unwrap()).is_none());
        assert!(!view.is_local(VrfIndex::MAIN, address("192.0.2.2")));
    });
    assert_eq!(writer.generation(), 2);
    assert_eq!(writer.route_status().len(), 1);
    let [Status::Neighbour(known)] = &writer.neighbour_status()[..] else {
        panic!("one neighbour");
    };
    assert_eq!(known.port, PortId(1));
}

#[test]
fn routes_name_ports_and_tunnels_that_exist() {
    let mut writer = two_ports();
    assert_eq!(
        writer.apply(1, route("10.0.0.0/8", connected(9))),
        Err(Rejection::UnknownPort(PortId(9)))
    );
    assert!(matches!(
        writer.apply(1, route_in(VrfId::MAIN, "10.0.0.0/8", vec![])),
        Err(Rejection::Inconsistent(_))
    ));
    assert!(writer.route_status().is_empty());
    assert_eq!(way(&writer, "10.0.0.1"), "NoRoute");
    // A port that goes takes its links along; the routes stay and wait for it.
    apply(
        &mut writer,
        [route("10.0.0.0/8", connected(2)), Update::RemovePort(PortId(2))],
    );
    assert_eq!(way(&writer, "10.0.0.1"), "NoRoute");
    apply(&mut writer, [port(2, VrfId::MAIN)]);
    assert_eq!(way(&writer, "10.0.0.1"), "glean 2");
}

#[test]
fn full_tables_refuse_and_stay_as_they_are() {
    let limits = Limits {
        sas: 256,
        routes: 100,
        policies: 3,
        tunnels: 256,
        ..Limits::default()
    };
    let mut writer = Writer::new(Arc::new(Tables::new(limits)));
    let full = |result: Result<(), Rejection>| matches!(result, Err(Rejection::TableFull { .. }));
    for number in 0..100u32 {
        let prefix = IpPrefix::host(IpAddr::V4((0x0a00_0000 + number).into()));
        apply(&mut writer, [route(&prefix.to_string(), NextHop::Blackhole)]);
    }
    assert!(full(writer.apply(1, route("10.9.0.0/16", NextHop::Kernel))));
    apply(&mut writer, [route("10.0.0.1/32", NextHop::Kernel)]);
    assert_eq!(way(&writer, "10.0.0.1"), "Kernel");
    assert_eq!(way(&writer, "10.9.0.1"), "NoRoute");
    for id in 0..3 {
        apply(&mut writer, [policy(id, 1, "::/0", "::/0", PolicyAction::Bypass)]);
    }
    assert!(full(
        writer.apply(1, policy(3, 0, "::/0", "::/0", PolicyAction::Discard))
    ));
    apply(&mut writer, [Update::PutTunnel(tunnel(1, "198.51.100.1"))]);
    for number in 0..256u32 {
        let mut spec = sa(SaDirection::Inbound, 0x1000 + number, 0);
        spec.key = KeyMaterial::new([number.to_be_bytes().as_slice(), &[1; 16]].concat());
        apply(&mut writer, [Update::InstallSa(spec)]);
    }
    assert!(full(
        writer.apply(1, Update::InstallSa(sa(SaDirection::Inbound, 0x9000, 7)))
    ));
}

#[test]
fn the_inner_mtu_is_what_fits_into_the_outer_one() {
    let mut writer = with_tunnel();
    apply(&mut writer, [route("0.0.0.0/0", via(1, "10.1.0.254"))]);
    let index = writer.tunnel_index(TunnelId(1)).unwrap();
    // (transform, key bytes, inner MTU over 1500): IP 20, ESP 8, IV, ICV, trailer 2, alignment.
    for (number, (transform, key_bytes, expected)) in [
        ("aes128gcm16", 20, 1446),
        ("aes128-sha1", 36, 1438),
        ("null-sha256", 32, 1454),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = sa(SaDirection::Outbound, 0x2000 + number as u32, 1);
        spec.transform = transform.parse().unwrap();
        spec.key = KeyMaterial::new(vec![number as u8; key_bytes]);
        let select = Update::SelectOutbound {
            tunnel: TunnelId(1),
            sa: spec.reference(),
        };
        apply(&mut writer, [Update::InstallSa(spec), select]);
        see(&writer, |view| {
            let tunnel = view.tunnel(index).unwrap();
            let sa = view.outbound(tunnel).unwrap();
            assert_eq!(tunnel.inner_mtu_bytes(Some(sa), 0), expected, "{transform}");
        });
    }
    see(&writer, |view| {
        let tunnel = view.tunnel(index).unwrap();
        assert_eq!(tunnel.learn_path_mtu(1400, 1500, 10), Some(1400));
        assert_eq!(tunnel.outer_mtu_bytes(11), 1400);
        assert_eq!(tunnel.outer_mtu_bytes(611), 1500);
    });
}
