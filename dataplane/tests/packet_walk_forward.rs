//! Routing and what belongs to it: hops, ICMP errors, path MTU, fragments, waiting, rules, the host.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::DropReason::{self, *};
use southbound::{
    Encryption, Endpoint, Event, Mode, NextHop, PolicyAction, PolicyId, PolicySpec, PortId, ProtocolMatch,
    SelectorPair, Transform, TunnelId, Update, VrfId, WorkerCounter,
};
use walk::forge;
use walk::gateway::{Gateway, LAN, WAN, neighbour_mac};
use walk::packets::{Ip, syn, udp, upper_checksum_holds};
use walk::pair::Pair;

fn gcm() -> Transform {
    Transform::new(Encryption::AesGcm128, None).unwrap()
}

fn pair() -> Pair {
    Pair::new(gcm(), Mode::Tunnel, false, false, true)
}

/// One packet in at `port`; what left by it again, and the drops.
fn answered(gateway: &mut Gateway, port: u32, packet: &[u8]) -> (Vec<Vec<u8>>, Vec<DropReason>) {
    let before = gateway.drops();
    gateway.deliver(port, packet);
    gateway.turn();
    (gateway.collect(port), gateway.dropped_since(&before))
}

/// ICMP type, code and the word behind, of an IPv4 or IPv6 packet that must be ICMP and sound.
fn icmp(packet: &[u8]) -> (u8, u8, u32) {
    assert!(upper_checksum_holds(packet));
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let word = u32::from_be_bytes(*packet[at + 4..].first_chunk().unwrap());
    (packet[at], packet[at + 1], word)
}

#[test]
fn fault_59_ttl_runs_out_and_the_gateway_shows_itself() {
    let mut pair = pair();
    for (source, destination, expected, shown) in [
        ("10.1.0.5", "10.2.0.5", (11, 0, 0), vec![10, 1, 0, 1]),
        (
            "fd01::5",
            "fd02::5",
            (3, 0, 0),
            "fd01::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec(),
        ),
    ] {
        for hops in [0, 1] {
            let packet = Ip {
                hops,
                ..Ip::udp(source, destination, 100)
            };
            let (errors, reasons) = answered(&mut pair.one, LAN, &packet.bytes());
            assert_eq!((errors.len(), reasons), (1, vec![TtlExceeded]));
            assert_eq!(icmp(&errors[0]), expected);
            let source_at = if source.contains(':') { 8 } else { 12 };
            assert_eq!(errors[0][source_at..source_at + shown.len()], shown);
            let quote_at = if source.contains(':') { 48 } else { 28 };
            assert_eq!(errors[0][quote_at..], packet.bytes(), "quoted as it came");
        }
    }
    assert_eq!(pair.one.count(WorkerCounter::Generated), 4);
    // Two hops are enough for one gateway.
    let packet = Ip {
        hops: 2,
        ..Ip::udp("10.1.0.5", "10.2.0.5", 100)
    };
    assert_eq!(pair.one.pass(LAN, &packet.bytes()).len(), 1);
}

/// The error about a packet that came out of a tunnel goes back into the tunnel, never out in clear.
#[test]
fn fault_59_the_far_gateway_answers_through_the_tunnel() {
    let mut pair = pair();
    let packet = Ip {
        hops: 2,
        ..Ip::udp("10.1.0.5", "10.2.0.5", 100)
    };
    let outer = pair.one.pass(LAN, &packet.bytes()).remove(0);
    let (answers, reasons) = answered(&mut pair.two, WAN, &outer);
    assert_eq!((answers.len(), reasons), (1, vec![TtlExceeded]));
    assert_eq!(answers[0][9], 50, "ESP");
    let error = pair.one.pass(WAN, &answers[0]).remove(0);
    assert_eq!(icmp(&error), (11, 0, 0));
    assert_eq!(error[12..16], [10, 2, 0, 1], "the far gateway's inner address");
    assert_eq!(error[16..20], [10, 1, 0, 5]);
}

#[test]
fn no_error_about_an_error_a_later_fragment_or_to_nobody() {
    let mut gateway = Gateway::numbered(1);
    gateway.route("203.0.113.0/24", NextHop::Unreachable);
    let to = "203.0.113.1";
    let error = Ip::new("10.1.0.5", to, 1, vec![3, 1, 0xfc, 0xfe, 0, 0, 0, 0]);
    let mut fragment = Ip::udp("10.1.0.5", to, 100).bytes();
    fragment[6..8].copy_from_slice(&[0, 10]);
    fragment[10..12].fill(0);
    let checksum = wire::checksum::Sum::new().bytes(&fragment[..20]).checksum();
    fragment[10..12].copy_from_slice(&checksum.to_be_bytes());
    for packet in [error.bytes(), fragment] {
        assert_eq!(answered(&mut gateway, LAN, &packet), (vec![], vec![Unreachable]));
    }
    let (errors, reasons) = answered(&mut gateway, LAN, &Ip::udp("10.1.0.5", to, 100).bytes());
    assert_eq!((icmp(&errors[0]), reasons), ((3, 1, 0), vec![Unreachable]));
}

#[test]
fn errors_are_limited_and_each_that_is_not_sent_is_counted() {
    let mut gateway = Gateway::numbered(1);
    let packet = Ip {
        hops: 1,
        ..Ip::udp("10.1.0.5", "198.51.100.7", 100)
    };
    let mut errors = 0;
    for _ in 0..30 {
        for _ in 0..40 {
            gateway.deliver(LAN, &packet.bytes());
        }
        gateway.turn();
        errors += gateway.collect(LAN).len();
    }
    assert_eq!(errors, 200);
    assert_eq!(gateway.drops(), [(TtlExceeded, 1200), (IcmpRateLimited, 1000)]);
}

#[test]
fn fault_58_too_big_for_the_tunnel_is_told_with_the_right_size() {
    let mut pair = pair();
    // 1500 less IP 20, ESP 8, IV 8, ICV 16, to a multiple of 4, less pad length and next header.
    let fits = 1446;
    let (errors, reasons) = answered(
        &mut pair.one,
        LAN,
        &Ip::udp("10.1.0.5", "10.2.0.5", fits + 1).bytes(),
    );
    assert_eq!((icmp(&errors[0]), reasons), ((3, 4, fits as u32), vec![TooBig]));
    let (errors, _) = answered(
        &mut pair.one,
        LAN,
        &Ip::udp("fd01::5", "fd02::5", fits + 1).bytes(),
    );
    assert_eq!(icmp(&errors[0]), (2, 0, fits as u32));
    let outer = pair
        .one
        .pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", fits).bytes())
        .remove(0);
    assert_eq!(outer.len(), 1500);
    assert_eq!(pair.two.pass(WAN, &outer).len(), 1);
}

#[test]
fn fault_58_without_df_the_packet_is_cut_before_it_is_sealed() {
    let mut pair = pair();
    let packet = Ip {
        dont_fragment: false,
        ..Ip::udp("10.1.0.5", "10.2.0.5", 3000)
    };
    let outer = pair.one.pass(LAN, &packet.bytes());
    assert_eq!(outer.len(), 3);
    assert!(outer.iter().all(|packet| packet.len() <= 1500));
    assert_eq!(pair.one.count(WorkerCounter::Fragmented), 1);
    assert_eq!(pair.one.count(WorkerCounter::Generated), 2);
    let mut joined = Vec::new();
    for packet in &outer {
        let fragment = pair.two.pass(WAN, packet).remove(0);
        let offset = usize::from(u16::from_be_bytes([fragment[6], fragment[7]]) & 0x1fff) * 8;
        assert_eq!(offset, joined.len());
        joined.extend_from_slice(&fragment[20..]);
    }
    assert_eq!(joined, packet.payload);
}

#[test]
fn fault_58_an_icmp_error_about_our_packet_lowers_the_mtu_and_a_forged_one_does_not() {
    let mut pair = pair();
    for _ in 0..10 {
        pair.one.pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 1400).bytes());
    }
    let outer = pair
        .one
        .pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 1400).bytes())
        .remove(0);
    let tell = |pair: &mut Pair, quoted: &[u8], mtu: u16| {
        let mut message = vec![3, 4, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(&quoted[..28]);
        let checksum = wire::checksum::Sum::new().bytes(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let error = Ip::new("198.51.100.1", "192.0.2.1", 1, message).bytes();
        pair.one.deliver(WAN, &error);
        pair.one.turn();
        assert_eq!(pair.one.host_got(), [error], "the host has its own use for it");
        pair.one.events()
    };
    // Forged: another SPI, a sequence number not sent yet, another pair of addresses.
    for (at, change) in [(20, 0xff), (24, 0x7f), (15, 9), (19, 9)] {
        let mut quoted = outer.clone();
        quoted[at] ^= change;
        assert_eq!(tell(&mut pair, &quoted, 1300), [], "byte {at}");
    }
    assert_eq!(
        pair.one
            .pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 1446).bytes())
            .len(),
        1
    );
    // Genuine.
    let changed = |outer_mtu_bytes| Event::PathMtuChanged {
        tunnel: TunnelId(1),
        outer_mtu_bytes,
    };
    assert_eq!(tell(&mut pair, &outer, 1400), [changed(1400)]);
    let (errors, _) = answered(&mut pair.one, LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 1400).bytes());
    assert_eq!(icmp(&errors[0]), (3, 4, 1346), "reflected to the inner sender");
    // Genuine by its look and absurd: the floor holds.
    assert_eq!(tell(&mut pair, &outer, 68), [changed(576)]);
    // It ends by itself.
    pair.one.pass_seconds(700);
    assert_eq!(
        pair.one
            .pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 1446).bytes())
            .len(),
        1
    );
}

#[test]
fn the_mss_of_a_syn_is_lowered_to_what_fits() {
    let mut pair = pair();
    for (source, destination, expected) in [("10.1.0.5", "10.2.0.5", 1406u16), ("fd01::5", "fd02::5", 1386)] {
        let mut packet = Ip::new(source, destination, 6, vec![]);
        packet.payload = syn(&packet, 1460);
        let outer = pair.one.pass(LAN, &packet.bytes()).remove(0);
        let inner = pair.two.pass(WAN, &outer).remove(0);
        assert!(upper_checksum_holds(&inner));
        assert_eq!(inner[inner.len() - 2..], expected.to_be_bytes());
    }
    assert_eq!(pair.one.count(WorkerCounter::MssClamped), 2);
}

/// Outer fragments of ESP, in any order, become whole again; what overlaps or never completes is dropped.
#[test]
fn fault_56_outer_fragments() {
    let mut pair = pair();
    let inner = Ip::udp("10.1.0.5", "10.2.0.5", 1400);
    let cut = |outer: &[u8]| -> Vec<Vec<u8>> {
        let fragmenter = dataplane::fragment::Fragmenter::new(outer, 576).unwrap();
        (0..fragmenter.count())
            .map(|index| {
                let mut piece = vec![0; 576];
                let length = fragmenter.write(index, &mut piece).unwrap();
                piece.truncate(length);
                piece
            })
            .collect()
    };
    let outer = |sequence: u64| {
        let esp = forge::esp(&pair.forth, sequence, &forge::text(&inner.bytes(), 4));
        Ip {
            dont_fragment: false,
            ..Ip::new("192.0.2.1", "192.0.2.2", 50, esp)
        }
        .bytes()
    };
    let (first, second, third) = (cut(&outer(1)), cut(&outer(2)), cut(&outer(3)));
    assert_eq!(first.len(), 3);
    for piece in first[1..].iter().rev() {
        assert_eq!(pair.two.pass(WAN, piece), Vec::<Vec<u8>>::new());
    }
    assert_eq!(pair.two.count(WorkerCounter::Held), 2);
    assert_eq!(
        pair.two.pass(WAN, &first[0]),
        [Ip {
            hops: 63,
            ..inner.clone()
        }
        .bytes()]
    );
    assert_eq!(
        (
            pair.two.count(WorkerCounter::Held),
            pair.two.count(WorkerCounter::Absorbed)
        ),
        (0, 2)
    );
    // An overlap spoils the whole datagram.
    let mut overlap = second[1].clone();
    overlap[7] -= 1;
    overlap[10..12].fill(0);
    let checksum = wire::checksum::Sum::new().bytes(&overlap[..20]).checksum();
    overlap[10..12].copy_from_slice(&checksum.to_be_bytes());
    for piece in [&second[0], &overlap, &second[1], &second[2]] {
        assert_eq!(pair.two.pass(WAN, piece), Vec::<Vec<u8>>::new());
    }
    assert_eq!(pair.two.drops(), [(FragmentInvalid, 4)]);
    // And what never completes goes with its time.
    pair.two.pass_seconds(5);
    assert_eq!(pair.two.pass(WAN, &third[0]), Vec::<Vec<u8>>::new());
    pair.two.pass_seconds(31);
    pair.two.turn();
    assert_eq!(pair.two.drops(), [(FragmentInvalid, 4), (FragmentTimeout, 1)]);
    assert_eq!(pair.two.count(WorkerCounter::Held), 0);
}

/// Many datagrams that never complete: bounded, and honest ones still pass.
#[test]
fn fault_56_a_flood_of_first_fragments_is_bounded() {
    let mut pair = pair();
    let mut piece = Ip {
        dont_fragment: false,
        ..Ip::new("203.0.113.1", "192.0.2.2", 50, vec![0; 64])
    }
    .bytes();
    piece[6] = 0x20;
    for identification in 0..500u16 {
        piece[4..6].copy_from_slice(&identification.to_be_bytes());
        piece[10..12].fill(0);
        let checksum = wire::checksum::Sum::new().bytes(&piece[..20]).checksum();
        piece[10..12].copy_from_slice(&checksum.to_be_bytes());
        pair.two.pass(WAN, &piece);
    }
    let held = pair.two.count(WorkerCounter::Held);
    assert!(held <= 64, "{held}");
    assert_eq!(pair.two.drops(), [(FragmentTableFull, 500 - held)]);
}

#[test]
fn a_packet_waits_for_its_neighbour_and_is_asked_for_once() {
    let mut gateway = Gateway::numbered(1);
    let packet = |index: usize| Ip::udp("192.0.2.2", "10.1.0.77", 100 + index);
    for index in 0..20 {
        gateway.deliver(WAN, &packet(index).bytes());
    }
    gateway.turn();
    assert_eq!(gateway.collect(LAN), Vec::<Vec<u8>>::new());
    assert_eq!(gateway.count(WorkerCounter::Held), 16);
    assert_eq!(gateway.drops(), [(NeighbourQueueFull, 4)]);
    let needed = Event::NeighbourNeeded {
        port: PortId(LAN),
        address: "10.1.0.77".parse().unwrap(),
    };
    assert_eq!(gateway.events(), [needed]);
    gateway.neighbour(LAN, "10.1.0.77", Some(neighbour_mac(LAN)));
    gateway.turn();
    let expected: Vec<_> = (0..16)
        .map(|index| {
            Ip {
                hops: 63,
                ..packet(index)
            }
            .bytes()
        })
        .collect();
    assert_eq!(gateway.collect(LAN), expected, "in order, and one hop older");
    assert_eq!(gateway.count(WorkerCounter::Held), 0);
}

#[test]
fn a_neighbour_that_does_not_answer_is_told_to_the_sender() {
    let mut gateway = Gateway::numbered(1);
    gateway.deliver(LAN, &Ip::udp("10.1.0.5", "192.0.2.9", 100).bytes());
    gateway.turn();
    gateway.pass_seconds(4);
    gateway.turn();
    let errors = gateway.collect(LAN);
    assert_eq!(icmp(&errors[0]), (3, 1, 0));
    assert_eq!(gateway.drops(), [(NeighbourUnresolved, 1)]);
    // The kernel gave up: at once.
    gateway.neighbour(WAN, "192.0.2.9", None);
    let (errors, reasons) = answered(&mut gateway, LAN, &Ip::udp("10.1.0.5", "192.0.2.9", 100).bytes());
    assert_eq!(
        (icmp(&errors[0]), reasons),
        ((3, 1, 0), vec![NeighbourUnresolved])
    );
}

#[test]
fn packets_for_a_tunnel_without_an_sa_wait_and_never_leave_in_clear() {
    let mut pair = Pair::without_sas(gcm(), Mode::Tunnel, false, false, true);
    let packet = Ip::udp("10.1.0.5", "10.2.0.5", 100);
    for _ in 0..20 {
        pair.one.deliver(LAN, &packet.bytes());
    }
    pair.one.turn();
    assert_eq!(pair.one.collect(WAN), Vec::<Vec<u8>>::new());
    assert_eq!(pair.one.drops(), [(NoOutboundSa, 4)]);
    let acquire = Event::Acquire {
        tunnel: TunnelId(1),
        source: "10.1.0.5".parse().unwrap(),
        destination: "10.2.0.5".parse().unwrap(),
        protocol: 17,
        ports: Some((1000, 2000)),
    };
    assert_eq!(pair.one.events(), [acquire]);
    pair.install();
    pair.one.turn();
    let outer = pair.one.collect(WAN);
    assert_eq!(outer.len(), 16);
    for packet in &outer {
        pair.two.deliver(WAN, packet);
    }
    pair.two.turn();
    assert_eq!(pair.two.collect(LAN), vec![Ip { hops: 62, ..packet }.bytes(); 16]);
    // In vain: dropped after a while.
    let mut lonely = Pair::without_sas(gcm(), Mode::Tunnel, false, false, true);
    lonely
        .one
        .pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes());
    lonely.one.pass_seconds(6);
    lonely.one.turn();
    assert_eq!(lonely.one.collect(WAN), Vec::<Vec<u8>>::new());
    assert_eq!(lonely.one.drops(), [(NoOutboundSa, 1)]);
}

fn rule(id: u32, local: &str, remote: &str, action: PolicyAction) -> Update {
    let any = |prefix: &str| Endpoint::any_port(prefix.parse().unwrap());
    Update::PutPolicy(PolicySpec {
        id: PolicyId(id),
        vrf: VrfId::MAIN,
        priority: id,
        selector: SelectorPair {
            local: any(local),
            remote: any(remote),
            protocol: ProtocolMatch::Any,
        },
        action,
    })
}

#[test]
fn rules_protect_discard_and_let_pass() {
    let mut pair = pair();
    pair.one.apply(Update::RemoveRoute {
        vrf: VrfId::MAIN,
        prefix: "10.2.0.0/16".parse().unwrap(),
    });
    pair.one
        .apply(rule(1, "10.1.0.0/16", "10.2.9.0/24", PolicyAction::Discard));
    pair.one
        .apply(rule(2, "10.1.0.0/16", "10.2.8.0/24", PolicyAction::Bypass));
    pair.one.apply(rule(
        3,
        "10.1.0.0/16",
        "10.2.0.0/16",
        PolicyAction::Protect(TunnelId(1)),
    ));
    let outer = pair.one.pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes());
    assert_eq!(outer[0][9], 50, "protected without a route");
    assert_eq!(
        pair.two.pass(WAN, &outer[0]),
        [Ip {
            hops: 62,
            ..Ip::udp("10.1.0.5", "10.2.0.5", 100)
        }
        .bytes()]
    );
    let (errors, reasons) = answered(&mut pair.one, LAN, &Ip::udp("10.1.0.5", "10.2.9.5", 100).bytes());
    assert_eq!((icmp(&errors[0]), reasons), ((3, 13, 0), vec![PolicyDiscard]));
    let clear = Ip::udp("10.1.0.5", "10.2.8.5", 100);
    assert_eq!(
        pair.one.pass(LAN, &clear.bytes()),
        [Ip { hops: 63, ..clear }.bytes()]
    );
    assert_eq!(pair.one.count(WorkerCounter::PolicyBypass), 1);
    // What should have come through the tunnel came in clear.
    let (_, reasons) = answered(&mut pair.one, LAN, &Ip::udp("10.2.0.5", "10.1.0.5", 100).bytes());
    assert_eq!(reasons, [UnprotectedInbound]);
    // What came through the tunnel passes the same rule.
    let back = pair
        .two
        .pass(LAN, &Ip::udp("10.2.0.5", "10.1.0.5", 100).bytes())
        .remove(0);
    assert_eq!(pair.one.pass(WAN, &back).len(), 1);
}

#[test]
fn the_host_reaches_through_the_tunnel_and_is_reached() {
    let mut pair = pair();
    let packet = Ip::udp("10.1.0.1", "10.2.0.1", 120);
    pair.one.host_sends(&packet.bytes());
    let outer = pair.one.collect(WAN).remove(0);
    pair.two.deliver(WAN, &outer);
    pair.two.turn();
    assert_eq!(
        pair.two.host_got(),
        [packet.bytes()],
        "no router between the two hosts takes a hop"
    );
    let ospf = Ip::new("10.2.0.1", "224.0.0.5", 89, vec![2; 44]);
    let mut selectors = walk::specs::inbound(&pair.back);
    selectors.selectors[0].local = Endpoint::any_port("0.0.0.0/0".parse().unwrap());
    pair.one.apply(Update::InstallSa(selectors));
    let packet = forge::packet(&pair.back, 1, &forge::text(&ospf.bytes(), 4));
    pair.one.deliver(WAN, &packet);
    pair.one.turn();
    assert_eq!(
        pair.one.host_got(),
        [ospf.bytes()],
        "multicast out of a tunnel is the host's"
    );
}

#[test]
fn a_tunnel_into_itself_and_routes_to_nowhere() {
    let mut pair = pair();
    pair.one.route("203.0.113.0/25", NextHop::Blackhole);
    let before = pair.one.drops();
    assert_eq!(
        pair.one
            .pass(LAN, &Ip::udp("10.1.0.5", "203.0.113.1", 100).bytes()),
        Vec::<Vec<u8>>::new()
    );
    assert_eq!(pair.one.dropped_since(&before), [Blackhole]);
    pair.one.apply(Update::RemoveNeighbour {
        port: PortId(WAN),
        address: "192.0.2.2".parse().unwrap(),
    });
    pair.one.route("192.0.2.2/32", NextHop::Tunnel(TunnelId(1)));
    let before = pair.one.drops();
    pair.one.pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes());
    assert_eq!(pair.one.dropped_since(&before), [TunnelLoop]);
}

#[test]
fn what_no_router_forwards_is_dropped_by_name() {
    let mut gateway = Gateway::numbered(1);
    let mut broken = Ip::udp("10.1.0.5", "198.51.100.7", 100).bytes();
    broken[10] ^= 1;
    let mut lying = Ip::udp("10.1.0.5", "198.51.100.7", 100).bytes();
    lying[2..4].copy_from_slice(&101u16.to_be_bytes());
    let cases = [
        (Ip::udp("127.0.0.1", "198.51.100.7", 100).bytes(), MartianSource),
        (
            Ip::udp("255.255.255.255", "198.51.100.7", 100).bytes(),
            MartianSource,
        ),
        (Ip::udp("10.1.0.5", "127.0.0.1", 100).bytes(), NotForwardable),
        (Ip::udp("10.1.0.5", "0.0.0.0", 100).bytes(), NotForwardable),
        (Ip::udp("fe80::1", "2001:db8:9::1", 100).bytes(), NotForwardable),
        (Ip::udp("::1", "2001:db8:9::1", 100).bytes(), MartianSource),
        (broken, IpChecksum),
        (lying, Truncated),
    ];
    for (packet, expected) in cases {
        let (_, reasons) = answered(&mut gateway, LAN, &packet);
        assert_eq!(reasons, [expected]);
    }
    let before = gateway.drops();
    gateway.deliver_frame(LAN, &[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1, 0x88, 0xcc, 1, 2, 3]);
    gateway.turn();
    assert_eq!(gateway.dropped_since(&before), [UnknownEtherType]);
    // Ethernet padding behind a short packet is no part of it.
    let short = Ip::new(
        "10.1.0.5",
        "198.51.100.7",
        17,
        udp(&Ip::new("10.1.0.5", "198.51.100.7", 17, vec![]), 1, 2, &[]),
    );
    let mut padded = short.bytes();
    padded.resize(46, 0xee);
    assert_eq!(gateway.pass(LAN, &padded), [Ip { hops: 63, ..short }.bytes()]);
}

/// A full transmit ring loses packets by name, and nothing else.
#[test]
fn a_transmit_ring_that_stays_full_drops_by_name() {
    let mut gateway = Gateway::numbered(1);
    gateway.kernel(WAN).hold_transmit(true);
    for _ in 0..4 {
        for _ in 0..50 {
            gateway.deliver(LAN, &Ip::udp("10.1.0.5", "198.51.100.7", 100).bytes());
        }
        gateway.turn();
        gateway.turn();
    }
    assert_eq!(gateway.drops(), [(TransmitRingFull, 200 - 128)]);
    gateway.kernel(WAN).hold_transmit(false);
    assert_eq!(gateway.collect(WAN).len(), 128);
    gateway.turn();
    assert_eq!(
        gateway
            .pass(LAN, &Ip::udp("10.1.0.5", "198.51.100.7", 100).bytes())
            .len(),
        1
    );
}
