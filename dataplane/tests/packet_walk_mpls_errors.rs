//! Label TTLs and MTUs that do not suffice: what the sender is told, and by which way.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::DropReason::{self, LabelTtlExceeded, TooBig, TtlExceeded};
use southbound::{IlmSpec, LabelOperation, NextHop, TtlModel, Update};
use walk::gateway::Gateway;
use walk::packets::{Ip, upper_checksum_holds};
use walk::provider::{
    CUSTOMER_A, EAST, HERE, Left, THERE, VRF_A, WEST, entries, forward, ilm, labelled, lookup, nhlfe, router,
};
use wire::icmp::ErrorMessage;
use wire::{Lse, ipv4, ipv6};

/// What left by every port, and the drops.
fn answered(router: &mut Gateway, from: u32, bytes: &[u8]) -> (Vec<(u32, Left)>, Vec<DropReason>) {
    let before = router.drops();
    router.deliver_labelled(from, bytes);
    router.turn();
    let left = (1..=4)
        .flat_map(|port| router.left(port).into_iter().map(move |left| (port, left)))
        .collect();
    (left, router.dropped_since(&before))
}

/// An ICMP error: type, the MTU in it, the labels that it shows, its source.
fn error(packet: &[u8]) -> (u8, Option<u32>, Vec<Lse>, String) {
    assert!(upper_checksum_holds(packet));
    let (message, kind, source) = if packet[0] >> 4 == 4 {
        let packet = ipv4::Packet::parse(packet).unwrap();
        packet.verify_checksum().unwrap();
        let kind = packet.payload[0];
        (
            ErrorMessage::parse_v4(packet.payload).unwrap(),
            kind,
            packet.header.source().to_string(),
        )
    } else {
        let parsed = ipv6::Packet::parse(packet).unwrap();
        let (source, destination) = (parsed.header.source(), parsed.header.destination());
        (
            ErrorMessage::parse_v6(&packet[40..], source, destination).unwrap(),
            packet[40],
            source.to_string(),
        )
    };
    let labels = message
        .extension
        .map(|structure| {
            wire::icmp::extension::find_label_stack(structure)
                .unwrap()
                .unwrap_or_default()
                .iter()
                .map(|bytes| Lse::from_bytes(*bytes))
                .collect()
        })
        .unwrap_or_default();
    (kind, message.mtu_bytes, labels, source)
}

const TIME_EXCEEDED: [u8; 2] = [11, 3];
const TOO_BIG: [u8; 2] = [3, 2];
const ROUTERS_WEST: [&str; 2] = ["172.16.2.1", "2001:db8:2::1"];

fn transit(family: usize) -> Ip {
    Ip::udp(THERE[family], HERE[family], 200)
}

#[test]
fn fault_59_in_the_core_the_error_goes_on_along_the_lsp_with_the_labels_shown() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200], EAST)));
    for family in [0, 1] {
        for ttl in [0, 1] {
            let stack = entries(&[(100, ttl), (5000, 40)]);
            let frame = labelled(&stack, &transit(family).bytes());
            let (left, reasons) = answered(&mut router, WEST, &frame);
            assert_eq!(reasons, [LabelTtlExceeded]);
            let [(EAST, left)] = &left[..] else {
                panic!("{left:?}");
            };
            // Its own TTLs are new, less this router's hop.
            assert_eq!(left.labels(), [(200, 254), (5000, 255)]);
            let (kind, _, shown, source) = error(&left.packet);
            assert_eq!(kind, TIME_EXCEEDED[family]);
            assert_eq!(shown, stack, "as they came (RFC 4950)");
            assert_eq!(source, ROUTERS_WEST[family]);
        }
    }
}

#[test]
fn fault_59_a_sender_that_is_known_here_is_told_directly() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200], EAST)));
    for (source, destination) in [("172.16.2.2", "172.16.3.2"), ("2001:db8:2::2", "2001:db8:3::2")] {
        let packet = Ip::udp(source, destination, 100).bytes();
        let (left, reasons) = answered(&mut router, WEST, &labelled(&entries(&[(100, 1)]), &packet));
        assert_eq!(reasons, [LabelTtlExceeded]);
        let [(WEST, left)] = &left[..] else {
            panic!("{left:?}");
        };
        assert!(left.entries.is_empty());
        assert_eq!(error(&left.packet).2, entries(&[(100, 1)]));
    }
}

#[test]
fn fault_59_at_the_end_of_the_lsp_the_error_goes_back_by_the_customers_table() {
    let mut router = router();
    for (family, prefix) in ["192.168.102.0/24", "fd00:102::/64"].iter().enumerate() {
        router.route_in(VRF_A, prefix, vec![NextHop::Labelled(nhlfe(&[100, 700], WEST))]);
        for (ttl, label_ttl, hops, reason) in [
            // The label's TTL ends.
            (TtlModel::Uniform, 1, 64, LabelTtlExceeded),
            // The packet's own does, behind the label.
            (TtlModel::Pipe(255), 200, 1, TtlExceeded),
        ] {
            router.apply(Update::PutIlm(IlmSpec {
                ttl,
                ..ilm(500, LabelOperation::PopAndLookup(VRF_A))
            }));
            let packet = Ip {
                hops,
                ..transit(family)
            };
            let stack = entries(&[(500, label_ttl)]);
            let (left, reasons) = answered(&mut router, WEST, &labelled(&stack, &packet.bytes()));
            assert_eq!(reasons, [reason]);
            let [(WEST, left)] = &left[..] else {
                panic!("{left:?}");
            };
            let labels: Vec<_> = left.labels().iter().map(|(label, _)| *label).collect();
            assert_eq!(labels, [100, 700], "as the customer's routes say");
            let (kind, _, shown, _) = error(&left.packet);
            assert_eq!((kind, shown), (TIME_EXCEEDED[family], stack));
        }
    }
}

#[test]
fn fault_59_traceroute_sees_the_ingress_router_without_labels() {
    let mut router = router();
    router.route_in(
        VRF_A,
        "192.168.102.0/24",
        vec![NextHop::Labelled(nhlfe(&[100, 700], WEST))],
    );
    let packet = Ip {
        hops: 1,
        ..Ip::udp(HERE[0], THERE[0], 100)
    };
    let left = router.pass_to(CUSTOMER_A, &packet.bytes(), CUSTOMER_A);
    let (kind, _, shown, source) = error(&left[0].packet);
    assert_eq!((kind, shown, source.as_str()), (11, vec![], "192.168.101.1"));
}

#[test]
fn an_error_about_an_error_is_not_sent() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200], EAST)));
    let quoted = transit(0).bytes();
    let icmp = [&[11, 0, 0, 0, 0, 0, 0, 0], &quoted[..28]].concat();
    let packet = Ip::new(THERE[0], HERE[0], 1, icmp).bytes();
    let (left, reasons) = answered(&mut router, WEST, &labelled(&entries(&[(100, 1)]), &packet));
    assert!(left.is_empty());
    assert_eq!(reasons, [LabelTtlExceeded]);
}

#[test]
fn labels_count_for_the_mtu_where_they_are_pushed() {
    let mut router = router();
    for (family, prefix) in ["192.168.102.0/24", "fd00:102::/64"].iter().enumerate() {
        router.route_in(VRF_A, prefix, vec![NextHop::Labelled(nhlfe(&[100, 700], WEST))]);
        let fits = Ip::udp(HERE[family], THERE[family], 1492);
        assert_eq!(router.pass_to(CUSTOMER_A, &fits.bytes(), WEST).len(), 1);
        let long = Ip::udp(HERE[family], THERE[family], 1493);
        let before = router.drops();
        let left = router.pass_to(CUSTOMER_A, &long.bytes(), CUSTOMER_A);
        assert_eq!(router.dropped_since(&before), [TooBig]);
        let (kind, mtu_bytes, _, _) = error(&left[0].packet);
        assert_eq!((kind, mtu_bytes), (TOO_BIG[family], Some(1492)));
        assert!(router.left(WEST).is_empty());
    }
    // What may be fragmented is.
    let long = Ip {
        dont_fragment: false,
        ..Ip::udp(HERE[0], THERE[0], 1500)
    };
    router.deliver(CUSTOMER_A, &long.bytes());
    router.turn();
    let left = router.left(WEST);
    assert_eq!(left.len(), 2);
    assert_whole(&left, &long, &[(100, 63), (700, 63)]);
}

/// Fragments under equal labels make up the packet.
fn assert_whole(left: &[Left], packet: &Ip, labels: &[(u32, u8)]) {
    let mut payload = Vec::<u8>::new();
    for piece in left {
        assert_eq!(piece.labels(), labels);
        let parsed = ipv4::Packet::parse(&piece.packet).unwrap();
        parsed.verify_checksum().unwrap();
        assert!(piece.packet.len() + piece.entries.len() * 4 <= 1500);
        assert_eq!(usize::from(parsed.header.fragment_offset_bytes()), payload.len());
        payload.extend(parsed.payload);
    }
    assert_eq!(payload, packet.payload);
}

#[test]
fn in_the_core_fragmentation_needed_goes_along_the_lsp() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200, 201, 202], EAST)));
    let stack = entries(&[(100, 64), (5000, 40)]);
    for family in [0, 1] {
        let long = Ip::udp(THERE[family], HERE[family], 1485);
        let (left, reasons) = answered(&mut router, WEST, &labelled(&stack, &long.bytes()));
        assert_eq!(reasons, [TooBig]);
        let [(EAST, left)] = &left[..] else {
            panic!("{left:?}");
        };
        assert_eq!(left.labels(), [(200, 254), (201, 254), (202, 254), (5000, 255)]);
        let (kind, mtu_bytes, ..) = error(&left.packet);
        // Four labels of the way on.
        assert_eq!((kind, mtu_bytes), (TOO_BIG[family], Some(1484)));
    }
    let long = Ip {
        dont_fragment: false,
        ..Ip::udp(THERE[0], HERE[0], 1490)
    };
    let left = router.pass_labelled(WEST, &labelled(&stack, &long.bytes()), EAST);
    assert_eq!(left.len(), 2);
    assert_whole(&left, &long, &[(200, 63), (201, 63), (202, 63), (5000, 40)]);
}

#[test]
fn a_swap_that_no_longer_fits_and_a_pop_that_does() {
    let mut router = router();
    router.set_mtu(EAST, 1400);
    router.apply(forward(100, nhlfe(&[200], EAST)));
    router.apply(forward(101, nhlfe(&[], EAST)));
    let packet = Ip::udp("172.16.2.2", "172.16.3.2", 1400).bytes();
    let (left, reasons) = answered(&mut router, WEST, &labelled(&entries(&[(100, 64)]), &packet));
    assert_eq!((left.len(), reasons), (1, vec![TooBig]));
    assert_eq!(error(&left[0].1.packet).1, Some(1396));
    let left = router.pass_labelled(WEST, &labelled(&entries(&[(101, 64)]), &packet), EAST);
    assert_eq!(left.len(), 1);
}

#[test]
fn a_packet_too_long_for_the_customers_link_is_answered_from_there() {
    let mut router = router();
    router.set_mtu(CUSTOMER_A, 1000);
    router.apply(lookup(500, VRF_A));
    router.route_in(
        VRF_A,
        "192.168.102.0/24",
        vec![NextHop::Labelled(nhlfe(&[100, 700], WEST))],
    );
    let packet = Ip::udp(THERE[0], HERE[0], 1001).bytes();
    let stack = entries(&[(500, 64)]);
    let (left, reasons) = answered(&mut router, WEST, &labelled(&stack, &packet));
    assert_eq!(reasons, [TooBig]);
    let [(WEST, left)] = &left[..] else {
        panic!("{left:?}");
    };
    let (kind, mtu_bytes, shown, _) = error(&left.packet);
    assert_eq!((kind, mtu_bytes, shown), (3, Some(1000), stack));
}
