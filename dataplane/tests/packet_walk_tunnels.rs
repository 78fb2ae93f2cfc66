//! GRE, IP and UDP tunnels, with labels and without, in clear and in ESP: two gateways, each packet in one turn.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::DropReason::{
    self, GreMalformed, LabelsRefused, MalformedUdp, TooBig, TunnelPayload, UnprotectedInbound,
};
use southbound::{
    Encapsulation, Encryption, Event, LabelSpaceId, LabelStack, LabelVia, Mode, NextHop, Nhlfe, PortId,
    PortRole, SaSpec, Transform, TunnelId, TunnelSpec, Update, VrfId, WorkerCounter,
};
use walk::gateway::{Gateway, LAN, WAN, neighbour_mac};
use walk::packets::{Ip, too_big};
use walk::provider::{CUSTOMER_B, VRF_A, VRF_B, label, lookup};
use walk::specs;

const TUNNEL: TunnelId = TunnelId(1);
const GRE: Encapsulation = Encapsulation::Gre {
    key: None,
    checksum: false,
};
const GRE_FULL: Encapsulation = Encapsulation::Gre {
    key: Some(77),
    checksum: true,
};

/// Whether the customers' packets go under labels, and how the tunnel's are sealed.
#[derive(Clone, Copy, Debug)]
struct Kind {
    encapsulation: Encapsulation,
    is_labelled: bool,
    sealed: Option<Mode>,
    outer_is_ipv6: bool,
}

fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for encapsulation in [Encapsulation::Ip, GRE, GRE_FULL, Encapsulation::Udp] {
        for is_labelled in [false, true] {
            for sealed in [None, Some(Mode::Transport), Some(Mode::Tunnel)] {
                for outer_is_ipv6 in [false, true] {
                    kinds.push(Kind {
                        encapsulation,
                        is_labelled,
                        sealed,
                        outer_is_ipv6,
                    });
                }
            }
        }
    }
    kinds.retain(|kind| kind.is_labelled || kind.encapsulation != Encapsulation::Udp);
    kinds
}

struct Sites {
    one: Gateway,
    two: Gateway,
}

fn inside(site: u8, family: usize) -> String {
    if family == 0 {
        format!("192.168.10{site}.5")
    } else {
        format!("fd00:10{site}::5")
    }
}

fn network(site: u8, family: usize) -> String {
    if family == 0 {
        format!("192.168.10{site}.0/24")
    } else {
        format!("fd00:10{site}::/64")
    }
}

fn site(number: u8, kind: Kind) -> (Gateway, TunnelSpec) {
    let mut gateway = Gateway::bare();
    let vrf = if kind.is_labelled { VRF_A } else { VrfId::MAIN };
    gateway.put_port(LAN, PortRole::Protected, vrf, None);
    gateway.add_port_in(CUSTOMER_B, PortRole::Protected, VRF_B, None);
    let me = usize::from(number) - 1;
    for is_ipv6 in [false, true] {
        let (mine, peer) = (specs::outer(is_ipv6)[me], specs::outer(is_ipv6)[1 - me]);
        gateway.local(WAN, mine);
        gateway.neighbour(WAN, peer, Some(neighbour_mac(WAN)));
        let length = if is_ipv6 { 64 } else { 24 };
        let link = NextHop::Port {
            port: PortId(WAN),
            gateway: None,
        };
        gateway.route(&format!("{peer}/{length}"), link);
    }
    let tunnel = TunnelSpec {
        encapsulation: kind.encapsulation,
        protected: kind.sealed.is_some(),
        labels: kind.is_labelled.then_some(LabelSpaceId::PLATFORM),
        ..specs::tunnel(kind.sealed.unwrap_or(Mode::Transport), kind.outer_is_ipv6)
    };
    let tunnel = if number == 1 {
        tunnel
    } else {
        specs::tunnel_back(&tunnel)
    };
    gateway.apply(Update::PutTunnel(tunnel.clone()));
    for (port, vrf, own) in [(LAN, vrf, 500), (CUSTOMER_B, VRF_B, 501)] {
        gateway.apply(lookup(own, vrf));
        for family in [0, 1] {
            gateway.local_in(vrf, port, &inside(number, family).replace('5', "1"));
            gateway.neighbour(port, &inside(number, family), Some(neighbour_mac(port)));
            let link = NextHop::Port {
                port: PortId(port),
                gateway: None,
            };
            gateway.route_in(vrf, &network(number, family), vec![link]);
            let stack = LabelStack::new(&[label(own)]).unwrap();
            let way = if kind.is_labelled {
                NextHop::Labelled(Nhlfe::new(stack, LabelVia::Tunnel(TUNNEL)))
            } else {
                NextHop::Tunnel(TUNNEL)
            };
            if kind.is_labelled || port == LAN {
                gateway.route_in(vrf, &network(3 - number, family), vec![way]);
            }
        }
    }
    (gateway, tunnel)
}

fn sites(kind: Kind) -> Sites {
    let (one, _) = site(1, kind);
    let (two, _) = site(2, kind);
    let mut sites = Sites { one, two };
    if let Some(mode) = kind.sealed {
        let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
        let forth = specs::sa(gcm, mode, kind.outer_is_ipv6, false, true);
        let back = specs::sa_back(&forth);
        for (gateway, out, into) in [(&mut sites.one, &forth, &back), (&mut sites.two, &back, &forth)] {
            gateway.apply(Update::InstallSa(admitting_ends(into)));
            gateway.apply(Update::InstallSa(out.clone()));
            gateway.apply(Update::SelectOutbound {
                tunnel: TUNNEL,
                sa: out.reference(),
            });
        }
    }
    sites
}

/// The SA as its receiver has it: for what the ends send to each other.
fn admitting_ends(out: &SaSpec) -> SaSpec {
    let transport = SaSpec {
        mode: Mode::Transport,
        ..out.clone()
    };
    SaSpec {
        mode: out.mode,
        ..specs::inbound(&transport)
    }
}

/// Protocol of the first header, of either family.
fn protocol(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[9] } else { packet[6] }
}

#[test]
fn every_tunnel_carries_both_families_both_ways_in_one_turn_each() {
    for kind in kinds() {
        let mut sites = sites(kind);
        for family in [0, 1] {
            for forth in [true, false] {
                let (from, to, sender, receiver) = if forth {
                    (1, 2, &mut sites.one, &mut sites.two)
                } else {
                    (2, 1, &mut sites.two, &mut sites.one)
                };
                let packet = Ip {
                    class: 0xb8,
                    ..Ip::udp(&inside(from, family), &inside(to, family), 300)
                };
                let outer = sender.pass(LAN, &packet.bytes());
                assert_eq!(outer.len(), 1, "{kind:?} {:?}", sender.drops());
                let expected = match (kind.sealed, kind.encapsulation) {
                    (Some(_), _) => 50,
                    (None, Encapsulation::Gre { .. }) => 47,
                    (None, Encapsulation::Udp) => 17,
                    (None, _) if kind.is_labelled => 137,
                    (None, _) => [4, 41][family],
                };
                assert_eq!(protocol(&outer[0]), expected, "{kind:?}");
                assert_eq!(outer[0][0] >> 4, if kind.outer_is_ipv6 { 6 } else { 4 });
                let inner = receiver.pass(WAN, &outer[0]);
                assert!(receiver.collect(WAN).is_empty(), "nothing turns back");
                assert_eq!(inner.len(), 1, "{kind:?} {:?}", receiver.drops());
                // A hop at each gateway.
                let expected = Ip { hops: 62, ..packet };
                assert_eq!(inner[0], expected.bytes(), "{kind:?}");
                assert!(receiver.collect(CUSTOMER_B).is_empty());
            }
        }
        assert_eq!(sites.one.count(WorkerCounter::TunnelOutPackets), 2);
        assert_eq!(sites.one.count(WorkerCounter::TunnelInPackets), 2);
        assert_eq!(
            (sites.one.drops(), sites.two.drops()),
            (vec![], vec![]),
            "{kind:?}"
        );
    }
}

#[test]
fn fault_63_two_customers_of_the_same_addresses_share_a_tunnel_and_never_meet() {
    for sealed in [None, Some(Mode::Transport), Some(Mode::Tunnel)] {
        let mut sites = sites(Kind {
            encapsulation: GRE,
            is_labelled: true,
            sealed,
            outer_is_ipv6: false,
        });
        let packet = Ip::udp(&inside(1, 0), &inside(2, 0), 300).bytes();
        for (own, other) in [(LAN, CUSTOMER_B), (CUSTOMER_B, LAN)] {
            sites.one.deliver(own, &packet);
            sites.one.turn();
            for outer in sites.one.collect(WAN) {
                sites.two.deliver(WAN, &outer);
            }
            sites.two.turn();
            assert_eq!(sites.two.collect(own).len(), 1);
            assert!(sites.two.collect(other).is_empty());
        }
    }
}

#[test]
fn fault_58_what_is_too_long_for_a_tunnel_is_told_or_cut_to_the_byte() {
    for kind in kinds() {
        let mut sites = sites(kind);
        let probe = Ip::udp(&inside(1, 0), &inside(2, 0), 1500);
        let before = sites.one.drops();
        sites.one.deliver(LAN, &probe.bytes());
        sites.one.turn();
        assert!(sites.one.collect(WAN).is_empty(), "{kind:?}");
        assert_eq!(sites.one.dropped_since(&before), [TooBig], "{kind:?}");
        let error = sites.one.collect(LAN).remove(0);
        let mtu_bytes = usize::from(u16::from_be_bytes([error[26], error[27]]));
        for (bytes, fits) in [(mtu_bytes, true), (mtu_bytes + 1, false)] {
            let packet = Ip::udp(&inside(1, 0), &inside(2, 0), bytes).bytes();
            let outer = sites.one.pass(LAN, &packet);
            assert_eq!(outer.len(), usize::from(fits), "{kind:?} {bytes}");
            sites.one.collect(LAN);
            for outer in outer {
                // ESP may leave up to three bytes of its alignment unused.
                let slack_bytes = if kind.sealed.is_some() { 4 } else { 1 };
                assert!(
                    outer.len() <= 1500 && outer.len() + slack_bytes > 1500,
                    "{kind:?} {}",
                    outer.len()
                );
                sites.two.deliver(WAN, &outer);
                sites.two.turn();
                assert_eq!(sites.two.collect(LAN).len(), 1, "{kind:?}");
            }
        }
        let long = Ip {
            dont_fragment: false,
            ..Ip::udp(&inside(1, 0), &inside(2, 0), 1500)
        };
        assert_eq!(sites.one.pass(LAN, &long.bytes()).len(), 2, "{kind:?}");
    }
}

#[test]
fn fault_58_a_tunnel_in_clear_learns_its_path_and_tells_the_senders() {
    for kind in kinds().into_iter().filter(|kind| kind.sealed.is_none()) {
        let mut site = sites(kind).one;
        let packet = Ip::udp(&inside(1, 0), &inside(2, 0), 1400).bytes();
        let outer = site.pass(LAN, &packet).remove(0);
        let added_bytes = outer.len() - packet.len();
        let tell = |site: &mut Gateway, quoted: &[u8], mtu_bytes: u16| {
            site.deliver(WAN, &too_big(quoted, mtu_bytes));
            site.turn();
            assert_eq!(site.host_got().len(), 1, "the host has its own use for it");
            site.events()
        };
        // Of other ends, and longer than anything that was sent.
        let last_of_ends = if kind.outer_is_ipv6 { 39 } else { 19 };
        let mut other_ends = outer.clone();
        other_ends[last_of_ends] ^= 9;
        let mut too_long = outer.clone();
        let length_at = if kind.outer_is_ipv6 { 4 } else { 2 };
        too_long[length_at..length_at + 2].copy_from_slice(&9000u16.to_be_bytes());
        for forged in [&other_ends, &too_long] {
            assert_eq!(tell(&mut site, forged, 1300), [], "{kind:?}");
        }
        if kind.encapsulation == GRE_FULL {
            let mut other_key = outer.clone();
            other_key[outer.len() - packet.len() - if kind.is_labelled { 5 } else { 1 }] ^= 1;
            assert_eq!(tell(&mut site, &other_key, 1300), [], "{kind:?}");
        }
        let changed = |outer_mtu_bytes| Event::PathMtuChanged {
            tunnel: TUNNEL,
            outer_mtu_bytes,
        };
        assert_eq!(tell(&mut site, &outer, 1300), [changed(1300)], "{kind:?}");
        // The sender is told what fits beneath labels and headers, and that much does.
        assert!(site.pass(LAN, &packet).is_empty(), "{kind:?}");
        let error = site.collect(LAN).remove(0);
        let fitting_bytes = usize::from(u16::from_be_bytes([error[26], error[27]]));
        assert_eq!(fitting_bytes, 1300 - added_bytes, "{kind:?}");
        let fitting = Ip::udp(&inside(1, 0), &inside(2, 0), fitting_bytes).bytes();
        let outer = site.pass(LAN, &fitting).remove(0);
        assert_eq!(outer.len(), 1300, "{kind:?}");
        // The floor holds, and all of it ends by itself.
        let floor_bytes = if kind.outer_is_ipv6 { 1280 } else { 576 };
        assert_eq!(tell(&mut site, &outer, 68), [changed(floor_bytes)], "{kind:?}");
        site.pass_seconds(700);
        assert_eq!(site.pass(LAN, &packet).len(), 1, "{kind:?}");
    }
}

/// Site two, what site one sends to it for a customer's packet, and where the tunnel's header begins.
fn received(kind: Kind) -> (Gateway, Vec<u8>) {
    let mut sites = sites(kind);
    let packet = Ip::udp(&inside(1, 0), &inside(2, 0), 100).bytes();
    let outer = sites.one.pass(LAN, &packet).remove(0);
    (sites.two, outer)
}

fn clear(encapsulation: Encapsulation, is_labelled: bool) -> Kind {
    Kind {
        encapsulation,
        is_labelled,
        sealed: None,
        outer_is_ipv6: false,
    }
}

/// The same packet with another payload behind the outer header.
fn with_payload(outer: &[u8], payload: &[u8]) -> Vec<u8> {
    let packet = wire::ipv4::Packet::parse(outer).unwrap();
    let ip = Ip {
        source: packet.header.source().into(),
        destination: packet.header.destination().into(),
        protocol: packet.header.protocol().0,
        class: 0,
        hops: 64,
        dont_fragment: true,
        payload: payload.to_vec(),
    };
    ip.bytes()
}

fn reasons(gateway: &mut Gateway, packet: &[u8]) -> Vec<DropReason> {
    let before = gateway.drops();
    gateway.deliver(WAN, packet);
    gateway.turn();
    assert!(gateway.collect(LAN).is_empty() && gateway.collect(CUSTOMER_B).is_empty());
    gateway.dropped_since(&before)
}

#[test]
fn a_protected_tunnel_takes_nothing_in_clear() {
    for sealed in [Mode::Transport, Mode::Tunnel] {
        for encapsulation in [Encapsulation::Ip, GRE, Encapsulation::Udp] {
            let (_, outer) = received(clear(encapsulation, true));
            let (mut two, _) = received(Kind {
                sealed: Some(sealed),
                ..clear(encapsulation, true)
            });
            assert_eq!(reasons(&mut two, &outer), [UnprotectedInbound]);
        }
    }
}

#[test]
fn an_sa_of_one_tunnel_brings_no_packet_of_another_kind() {
    let sealed = Some(Mode::Transport);
    let (_, outer) = received(Kind {
        sealed,
        ..clear(GRE, true)
    });
    let (mut two, _) = received(Kind {
        sealed,
        ..clear(Encapsulation::Udp, true)
    });
    assert_eq!(reasons(&mut two, &outer), [TunnelPayload]);
}

#[test]
fn a_tunnel_without_labels_takes_and_sends_none() {
    let (_, outer) = received(clear(GRE, true));
    let (mut two, _) = received(clear(GRE, false));
    assert_eq!(reasons(&mut two, &outer), [LabelsRefused]);
}

#[test]
fn what_is_of_no_tunnel_here_is_the_hosts() {
    let (mut two, outer) = received(clear(GRE, false));
    let strangers = [
        // Another key, another sender, PPTP's version, an Ethernet frame in GRE.
        with_payload(&outer, &[&[0x20, 0, 8, 0, 0, 0, 0, 9], &outer[24..]].concat()),
        Ip::new("192.0.2.77", "192.0.2.2", 47, outer[20..].to_vec()).bytes(),
        with_payload(&outer, &[&[0x20, 1, 0x88, 0x0b], &[0; 20][..]].concat()),
        with_payload(&outer, &[&[0, 0, 0x65, 0x58], &[0; 20][..]].concat()),
    ];
    for packet in strangers {
        assert_eq!(reasons(&mut two, &packet), []);
        assert_eq!(two.host_got(), [packet]);
    }
}

#[test]
fn a_damaged_header_is_dropped_by_reason() {
    let (mut two, outer) = received(clear(GRE_FULL, false));
    let mut damaged = outer[20..].to_vec();
    damaged[30] ^= 1;
    assert_eq!(reasons(&mut two, &with_payload(&outer, &damaged)), [GreMalformed]);
    let mut routing = outer[20..].to_vec();
    routing[0] |= 0x40;
    assert_eq!(reasons(&mut two, &with_payload(&outer, &routing)), [GreMalformed]);
    for length in 0..12 {
        let cut = with_payload(&outer, &outer[20..20 + length]);
        assert_eq!(reasons(&mut two, &cut), [GreMalformed], "{length}");
    }
    let (mut two, outer) = received(clear(Encapsulation::Udp, true));
    let mut checked = outer[20..].to_vec();
    checked[6..8].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(reasons(&mut two, &with_payload(&outer, &checked)), [MalformedUdp]);
    let mut short = outer[20..].to_vec();
    short[5] -= 1;
    assert_eq!(reasons(&mut two, &with_payload(&outer, &short)), [MalformedUdp]);
}

#[test]
fn truncated_at_every_byte_nothing_comes_out_of_a_tunnel() {
    for encapsulation in [Encapsulation::Ip, GRE, GRE_FULL, Encapsulation::Udp] {
        for is_labelled in [false, true] {
            if encapsulation == Encapsulation::Udp && !is_labelled {
                continue;
            }
            let (mut two, outer) = received(clear(encapsulation, is_labelled));
            for length in 20..outer.len() {
                let cut = with_payload(&outer, &outer[20..length]);
                let reasons = reasons(&mut two, &cut);
                let to_host = two.host_got().len();
                assert_eq!(
                    reasons.len() + to_host,
                    1,
                    "{encapsulation:?} at {length}: {reasons:?}"
                );
            }
        }
    }
}

#[test]
fn udp_ports_show_the_flow_and_nothing_else_of_it() {
    let mut sites = sites(clear(Encapsulation::Udp, true));
    let mut ports = std::collections::BTreeSet::new();
    for port in 0..32u16 {
        let mut packet = Ip::udp(&inside(1, 0), &inside(2, 0), 100);
        packet.payload[1] = port as u8;
        packet.payload[6..8].fill(0);
        let first = sites.one.pass(LAN, &packet.bytes()).remove(0);
        packet.payload[20] ^= 0xff;
        let second = sites.one.pass(LAN, &packet.bytes()).remove(0);
        assert_eq!(first[20..24], second[20..24], "one flow, one port");
        assert_eq!(first[22..24], 6635u16.to_be_bytes());
        let source = u16::from_be_bytes([first[20], first[21]]);
        assert!(source >= 49152);
        ports.insert(source);
    }
    assert!(ports.len() > 24, "{}", ports.len());
}

#[test]
fn without_its_sa_a_tunnels_packets_wait_under_their_labels() {
    for is_labelled in [false, true] {
        let kind = Kind {
            sealed: Some(Mode::Transport),
            ..clear(GRE, is_labelled)
        };
        let (mut one, _) = site(1, kind);
        let packet = Ip::udp(&inside(1, 0), &inside(2, 0), 100);
        assert!(one.pass(LAN, &packet.bytes()).is_empty());
        let acquires = one.events();
        assert!(
            matches!(
                acquires[..],
                [southbound::Event::Acquire {
                    tunnel: TUNNEL,
                    protocol: 47,
                    ..
                }]
            ),
            "{acquires:?}"
        );
        let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
        let forth = specs::sa(gcm, Mode::Transport, false, false, true);
        one.apply(Update::InstallSa(forth.clone()));
        one.apply(Update::SelectOutbound {
            tunnel: TUNNEL,
            sa: forth.reference(),
        });
        one.turn();
        let sent = one.collect(WAN);
        assert_eq!(sent.len(), 1);
        let mut two = sites(kind).two;
        two.deliver(WAN, &sent[0]);
        two.turn();
        assert_eq!(
            two.collect(LAN),
            [Ip { hops: 62, ..packet }.bytes()],
            "{:?}",
            two.drops()
        );
    }
}

#[test]
fn fragments_of_a_tunnels_packet_are_put_together() {
    let (mut two, outer) = received(clear(GRE, true));
    let mut whole = outer.clone();
    whole[6] = 0;
    whole[10..12].fill(0);
    let checksum = wire::checksum::Sum::new().bytes(&whole[..20]).checksum();
    whole[10..12].copy_from_slice(&checksum.to_be_bytes());
    let fragmenter = dataplane::fragment::Fragmenter::new(&whole, 100).unwrap();
    assert_eq!(fragmenter.count(), 2);
    for index in [1, 0] {
        let mut piece = vec![0; fragmenter.length_bytes(index)];
        fragmenter.write(index, &mut piece).unwrap();
        two.deliver(WAN, &piece);
    }
    two.turn();
    assert_eq!(two.collect(LAN).len(), 1, "{:?}", two.drops());
}
