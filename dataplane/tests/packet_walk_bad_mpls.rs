//! Labelled packets as they should not be: each goes with its reason, and the books balance.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use proptest::prelude::*;
use southbound::DropReason::{
    self, LabelDiscard, LabelNotBottom, LabelPayload, LabelReserved, LabelStackTooDeep, LabelStackTruncated,
    LabelTtlExceeded, LabelUnknown, LabelsRefused, MalformedIp, MartianSource, NotForwardable, Truncated,
};
use southbound::{LabelOperation, LabelSpaceId, NextHop, PortRole, Update, VrfId};
use walk::gateway::Gateway;
use walk::packets::Ip;
use walk::provider::{
    CUSTOMER_A, CUSTOMER_B, EAST, HERE, THERE, VRF_A, VRF_B, WEST, entries, forward, ilm, labelled, lookup,
    nhlfe, router,
};

/// A router with an entry of each kind.
fn busy_router() -> Gateway {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200], EAST)));
    router.apply(forward(101, nhlfe(&[], EAST)));
    router.apply(forward(102, nhlfe(&[300, 301, 302], EAST)));
    router.apply(Update::PutIlm(ilm(103, LabelOperation::Pop)));
    router.apply(Update::PutIlm(ilm(104, LabelOperation::Discard)));
    router.apply(Update::PutIlm(ilm(105, LabelOperation::Host)));
    router.apply(lookup(500, VRF_A));
    router.apply(lookup(501, VRF_B));
    router
}

/// The one reason of a packet of which nothing leaves.
fn reason(router: &mut Gateway, bytes: &[u8]) -> DropReason {
    let before = router.drops();
    router.deliver_labelled(WEST, bytes);
    router.turn();
    for port in 1..=4 {
        assert_eq!(router.left(port), [], "port {port}");
    }
    assert!(router.host_got().is_empty());
    let reasons = router.dropped_since(&before);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons[0]
}

fn packet() -> Vec<u8> {
    Ip::udp(THERE[0], HERE[0], 100).bytes()
}

#[test]
fn fault_60_a_stack_deeper_than_sixteen_is_dropped() {
    let mut router = busy_router();
    let deep = |depth: usize| labelled(&entries(&vec![(100, 64); depth]), &packet());
    for depth in [1, 2, 15, 16] {
        assert_eq!(router.pass_labelled(WEST, &deep(depth), EAST).len(), 1, "{depth}");
    }
    for depth in [17, 18, 300] {
        assert_eq!(reason(&mut router, &deep(depth)), LabelStackTooDeep, "{depth}");
    }
    assert_eq!(reason(&mut router, &[0; 64]), LabelStackTooDeep);
}

#[test]
fn fault_61_no_bottom_of_stack() {
    let mut router = busy_router();
    for depth in 1..16 {
        let mut stack = entries(&vec![(100, 64); depth]);
        for entry in &mut stack {
            entry.bottom = false;
        }
        assert_eq!(reason(&mut router, &labelled(&stack, &[])), LabelStackTruncated);
        // Half an entry is none.
        assert_eq!(
            reason(&mut router, &labelled(&stack, &[0, 0, 1])),
            LabelStackTruncated
        );
    }
}

#[test]
fn fault_61_reserved_labels_have_no_other_meaning() {
    let mut router = busy_router();
    for label in [3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
        let frame = labelled(&entries(&[(label, 64)]), &packet());
        assert_eq!(reason(&mut router, &frame), LabelReserved, "{label}");
        let frame = labelled(&entries(&[(103, 64), (label, 64), (500, 64)]), &packet());
        assert_eq!(reason(&mut router, &frame), LabelReserved, "{label}");
    }
    // An indicator without its entropy label.
    for stack in [vec![(7, 64)], vec![(103, 64), (7, 64)]] {
        assert_eq!(
            reason(&mut router, &labelled(&entries(&stack), &packet())),
            LabelReserved
        );
    }
    // A router alert above nothing that is for the host.
    assert_eq!(
        reason(&mut router, &labelled(&entries(&[(1, 64)]), &[])),
        LabelPayload
    );
}

#[test]
fn fault_61_a_label_ttl_of_zero_or_one_ends_here() {
    let mut router = busy_router();
    for label in [100, 101, 102, 103, 105, 500, 0] {
        for ttl in [0, 1] {
            // An error about an error is not sent, so nothing at all leaves.
            let icmp = Ip::new(THERE[0], HERE[0], 1, vec![11; 40]).bytes();
            let frame = labelled(&entries(&[(label, ttl)]), &icmp);
            assert_eq!(reason(&mut router, &frame), LabelTtlExceeded, "{label}");
        }
    }
}

#[test]
fn a_label_without_entry_is_dropped() {
    let mut router = busy_router();
    for label in [16, 99, 106, (1 << 20) - 1] {
        assert_eq!(
            reason(&mut router, &labelled(&entries(&[(label, 64)]), &packet())),
            LabelUnknown
        );
        let frame = labelled(&entries(&[(103, 64), (label, 64)]), &packet());
        assert_eq!(reason(&mut router, &frame), LabelUnknown);
    }
    assert_eq!(
        reason(&mut router, &labelled(&entries(&[(104, 64)]), &packet())),
        LabelDiscard
    );
}

#[test]
fn what_is_beneath_must_be_an_ip_packet_that_may_be_forwarded() {
    let mut router = busy_router();
    let mut check = |label: u32, packet: &[u8], expected: DropReason| {
        let frame = labelled(&entries(&[(label, 64)]), packet);
        assert_eq!(reason(&mut router, &frame), expected, "label {label}");
    };
    for label in [101, 103, 105, 500] {
        for version in (0..16).filter(|version| ![4, 6].contains(version)) {
            let mut packet = packet();
            packet[0] = version << 4 | 5;
            check(label, &packet, LabelPayload);
        }
        check(label, &[], LabelPayload);
        check(label, &Ip::udp("127.0.0.1", HERE[0], 100).bytes(), MartianSource);
        check(label, &Ip::udp("::1", HERE[1], 100).bytes(), MartianSource);
        check(
            label,
            &Ip::udp(THERE[0], "224.0.0.5", 100).bytes(),
            NotForwardable,
        );
        check(label, &Ip::udp(THERE[1], "fe80::5", 100).bytes(), NotForwardable);
        let mut packet = packet();
        packet[3] = 101;
        check(label, &packet, Truncated);
        packet[0] = 0x44;
        check(label, &packet, MalformedIp);
    }
    check(0, &Ip::udp(THERE[1], HERE[1], 100).bytes(), LabelPayload);
    check(2, &Ip::udp(THERE[0], HERE[0], 100).bytes(), LabelPayload);
}

#[test]
fn fault_61_truncated_at_every_byte() {
    let mut router = busy_router();
    for family in [0, 1] {
        let packet = Ip::udp(THERE[family], HERE[family], 60).bytes();
        for stack in [
            vec![(500, 64)],
            vec![(103, 64), (500, 64)],
            vec![(0, 64), (7, 0), (99, 0), (500, 64)],
        ] {
            let whole = labelled(&entries(&stack), &packet);
            let end = stack.len() * 4;
            for length in 0..whole.len() {
                let reason = reason(&mut router, &whole[..length]);
                let expected: &[DropReason] = match length {
                    length if length < end => &[LabelStackTruncated],
                    length if length == end => &[LabelPayload],
                    _ => &[Truncated, MalformedIp],
                };
                assert!(expected.contains(&reason), "{stack:?} at {length}: {reason}");
            }
        }
    }
}

#[test]
fn fault_63_the_label_of_a_table_is_the_last() {
    let mut router = busy_router();
    for beneath in [501, 500, 100, 103, 0, 16] {
        let frame = labelled(&entries(&[(500, 64), (beneath, 64)]), &packet());
        assert_eq!(reason(&mut router, &frame), LabelNotBottom);
    }
    // But an entropy label may be beneath it.
    let frame = labelled(&entries(&[(500, 64), (7, 64), (4711, 0)]), &packet());
    assert_eq!(router.pass_labelled(WEST, &frame, CUSTOMER_A).len(), 1);
}

#[test]
fn fault_63_a_port_without_labels_takes_and_sends_none() {
    let mut router = busy_router();
    for port in [CUSTOMER_A, CUSTOMER_B] {
        let before = router.drops();
        router.deliver_labelled(port, &labelled(&entries(&[(500, 64)]), &packet()));
        router.turn();
        assert_eq!(router.dropped_since(&before), [LabelsRefused]);
    }
    // A label that names a customer's host as next hop: the labels beneath it do not reach that host.
    let via = southbound::LabelVia::Port {
        port: southbound::PortId(CUSTOMER_A),
        gateway: HERE[0].parse().unwrap(),
    };
    router.apply(forward(
        600,
        southbound::Nhlfe::new(southbound::LabelStack::EMPTY, via),
    ));
    let frame = labelled(&entries(&[(600, 64), (501, 64)]), &packet());
    assert_eq!(reason(&mut router, &frame), LabelsRefused);
}

#[test]
fn fault_63_a_neighbour_uses_the_labels_of_its_own_space_only() {
    let mut router = busy_router();
    let space = LabelSpaceId(5);
    router.put_port(EAST, PortRole::Internet, VrfId::MAIN, Some(space));
    let mut own = ilm(700, LabelOperation::PopAndLookup(VRF_B));
    own.space = space;
    router.apply(Update::PutIlm(own));
    // The platform's labels are not the neighbour's, nor the reverse.
    let before = router.drops();
    router.deliver_labelled(EAST, &labelled(&entries(&[(500, 64)]), &packet()));
    router.turn();
    assert_eq!(router.dropped_since(&before), [LabelUnknown]);
    assert_eq!(
        reason(&mut router, &labelled(&entries(&[(700, 64)]), &packet())),
        LabelUnknown
    );
    let frame = labelled(&entries(&[(700, 64)]), &packet());
    assert_eq!(router.pass_labelled(EAST, &frame, CUSTOMER_B).len(), 1);
}

#[test]
fn fault_63_two_tables_with_the_same_addresses_never_meet() {
    let mut router = busy_router();
    for (vrf, label) in [(VRF_A, 700), (VRF_B, 701)] {
        router.route_in(
            vrf,
            "192.168.102.0/24",
            vec![NextHop::Labelled(nhlfe(&[100, label], WEST))],
        );
    }
    let (forth, back) = (
        Ip::udp(HERE[0], THERE[0], 100).bytes(),
        Ip::udp(THERE[0], HERE[0], 100).bytes(),
    );
    for (own, other, out, into) in [
        (CUSTOMER_A, CUSTOMER_B, 700, 500),
        (CUSTOMER_B, CUSTOMER_A, 701, 501),
    ] {
        let left = router.pass_to(own, &forth, WEST);
        assert_eq!(left[0].labels()[1].0, out);
        let left = router.pass_labelled(WEST, &labelled(&entries(&[(into, 64)]), &back), own);
        assert_eq!(left.len(), 1);
        assert!(router.left(other).is_empty());
        // Nor the core's own table.
        router.deliver(own, &Ip::udp(HERE[0], "172.16.3.2", 100).bytes());
        router.turn();
        assert!(router.left(EAST).is_empty() && router.left(other).is_empty());
        router.left(own);
    }
    assert_eq!(router.drops(), [(DropReason::NoRoute, 2)]);
}

#[test]
fn routes_leak_where_they_are_told_to_and_once() {
    let mut router = router();
    let packet = Ip::udp(HERE[0], "172.16.3.2", 100);
    router.route_in(VRF_A, "172.16.3.0/24", vec![NextHop::Vrf(VrfId::MAIN)]);
    assert_eq!(router.pass_to(CUSTOMER_A, &packet.bytes(), EAST).len(), 1);
    assert!(router.pass_to(CUSTOMER_B, &packet.bytes(), EAST).is_empty());
    router.route_in(VRF_B, "172.16.3.0/24", vec![NextHop::Vrf(VRF_A)]);
    let before = router.drops();
    assert!(router.pass_to(CUSTOMER_B, &packet.bytes(), EAST).is_empty());
    assert_eq!(router.dropped_since(&before), [DropReason::VrfLoop]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    /// Whatever comes, every packet is accounted for: the books are checked after each turn.
    #[test]
    fn arbitrary_labelled_packets_are_accounted_for(
        stack in proptest::collection::vec(
            (prop_oneof![0u32..16, 100u32..106, 500u32..502, 0u32..1 << 20], any::<u8>(), any::<bool>()), 0..20),
        payload in proptest::collection::vec(any::<u8>(), 0..80), well_formed in any::<bool>(),
    ) {
        thread_local! {
            static ROUTER: std::cell::RefCell<Option<Gateway>> = const { std::cell::RefCell::new(None) };
        }
        let labels: Vec<_> = stack.iter().map(|(label, ttl, _)| (*label, *ttl)).collect();
        let mut entries = entries(&labels);
        for (entry, (_, _, bottom)) in entries.iter_mut().zip(&stack) {
            entry.bottom |= *bottom;
        }
        let packet = if well_formed { packet() } else { payload };
        ROUTER.with_borrow_mut(|router| {
            let router = router.get_or_insert_with(busy_router);
            router.deliver_labelled(WEST, &labelled(&entries, &packet));
            router.turn();
            for port in 1..=4 {
                router.collect_frames(port);
            }
            router.host_got();
        });
    }
}
