//! What FRR 8.4's zebra really sent over FPM, and what becomes of it.
//!
//! The captures are those of a PE (OSPF, LDP, iBGP VPNv4, VRF `red` with table 1010) whose only neighbour
//! 10.0.12.2 is the P router: start, labels, the loss of the link beyond the P router and its return, two
//! static routes and the removal of one. In the one capture next hops stand in the routes, in the other they are objects
//! (`fpm use-next-hop-groups`).
//!
//! A third one is of a router with three neighbours and routes over groups of them: static routes over two next hops, over two
//! and then three labelled ones, and of IPv6; the loss of the link to the first neighbour and its return; the removal of the
//! third labelled next hop, and of everything.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::IpAddr;

use control::fpm::{Item, Limits, Model, Receiver, Resolved, RouteKey, Statistics, TABLE_MAIN, Way};
use proptest::prelude::*;
use southbound::{Label, LabelStack};

const INLINE: &[u8] = include_bytes!("../fuzz/seeds/fpm/zebra-inline.fpm");
const NEXT_HOPS: &[u8] = include_bytes!("../fuzz/seeds/fpm/zebra-next-hops.fpm");

const GROUPS: &[u8] = include_bytes!("../fuzz/seeds/fpm/zebra-groups.fpm");

const VRF_RED: u32 = 1010;

fn receive(model: &mut Model, bytes: &[u8], piece_bytes: usize) -> Statistics {
    let mut statistics = Statistics::default();
    let mut receiver = Receiver::default();
    model.begin_session();
    for piece in bytes.chunks(piece_bytes) {
        receiver.receive(piece, model, &mut statistics).unwrap();
    }
    statistics
}

fn model(bytes: &[u8]) -> Model {
    let mut model = Model::new(Limits::default());
    receive(&mut model, bytes, bytes.len());
    model
}

fn label(value: u32) -> Label {
    Label::new(value).unwrap()
}

fn key(table: u32, prefix: &str) -> RouteKey {
    RouteKey {
        table,
        prefix: prefix.parse().unwrap(),
    }
}

/// A way by the P router, pushing `labels`.
fn by_p(labels: &[u32]) -> Way {
    let labels: Vec<_> = labels.iter().map(|value| label(*value)).collect();
    Way {
        interface: Some(2),
        gateway: Some(IpAddr::from([10, 0, 12, 2])),
        stack: LabelStack::new(&labels).unwrap(),
        weight: 1,
    }
}

/// Everything of a model, comparable.
fn contents(model: &Model) -> Vec<String> {
    let routes = model
        .routes()
        .map(|(key, stale)| format!("{key:?} {:?} {stale}", model.route_target(&key)));
    let labels = model
        .labels()
        .map(|(label, stale)| format!("{label} {:?} {stale}", model.label_ways(label)));
    routes.chain(labels).collect()
}

/// What both captures have in common: the labels that the others gave differ.
fn check(model: &Model, to_pe2: u32, vpn: u32) {
    let route = |table, prefix| model.route_target(&key(table, prefix));
    let ways = |labels: &[u32]| Some(Resolved::Ways(vec![by_p(labels)]));
    // The P router asked for no label: implicit null.
    assert_eq!(route(TABLE_MAIN, "2.2.2.2/32"), ways(&[]));
    assert_eq!(route(TABLE_MAIN, "3.3.3.3/32"), ways(&[to_pe2]));
    // The VPN route stands in the VRF's table, and its way lies in the main one.
    assert_eq!(route(VRF_RED, "10.50.3.0/24"), ways(&[to_pe2, vpn]));
    assert_eq!(route(TABLE_MAIN, "203.0.113.0/24"), Some(Resolved::Blackhole));
    assert_eq!(route(TABLE_MAIN, "2001:db8:1::/48"), Some(Resolved::Blackhole));
    assert_eq!(route(TABLE_MAIN, "198.51.100.0/24"), None, "it was removed");
    // What zebra has from the kernel is left to the kernel.
    assert_eq!(route(TABLE_MAIN, "1.1.1.1/32"), None);
    assert_eq!(route(VRF_RED, "10.50.1.0/24"), None);
    // The VPN label leads to the VRF's own device.
    let vpn = model.label_ways(label(80)).unwrap();
    assert_eq!(
        vpn,
        [Way {
            interface: Some(3),
            gateway: None,
            stack: LabelStack::EMPTY,
            weight: 1
        }]
    );
    // Penultimate-hop popping towards the P router, and a swap beyond it.
    let transits: Vec<_> = [16, 17, 18]
        .iter()
        .map(|value| model.label_ways(label(*value)).unwrap().to_vec())
        .collect();
    assert_eq!(transits.iter().filter(|ways| **ways == [by_p(&[])]).count(), 2);
    assert_eq!(
        transits.iter().filter(|ways| **ways == [by_p(&[to_pe2])]).count(),
        1
    );
}

#[test]
fn a_session_with_next_hops_in_the_routes_is_understood() {
    let mut model = Model::new(Limits::default());
    let statistics = receive(&mut model, INLINE, INLINE.len());
    check(&model, 17, 16);
    assert_eq!((statistics.malformed, statistics.bad_labels), (0, 0));
    assert!(
        statistics.messages > statistics.frames,
        "replacements come as two messages in one frame: {statistics:?}"
    );
}

#[test]
fn a_session_with_next_hop_objects_is_understood() {
    let mut model = Model::new(Limits::default());
    let statistics = receive(&mut model, NEXT_HOPS, NEXT_HOPS.len());
    check(&model, 17, 80);
    assert_eq!((statistics.malformed, statistics.bad_labels), (0, 0));
    assert!(model.counts().next_hops > 4);
}

#[test]
fn fault_75_a_second_session_that_tells_the_same_changes_nothing() {
    for capture in [INLINE, NEXT_HOPS] {
        let mut model = model(capture);
        let before = contents(&model);
        model.take_changed();
        model.begin_session();
        assert!(model.counts().stale > 0);
        assert_eq!(
            contents(&model).len(),
            before.len(),
            "a lost session takes nothing away"
        );
        receive(&mut model, capture, 100);
        // Routes that only came and went during the capture aside, nothing is another.
        model.sweep();
        assert_eq!(contents(&model), before);
        assert_eq!(model.counts().stale, 0);
    }
}

#[test]
fn fault_75_what_the_new_session_does_not_tell_goes_with_the_sweep_only() {
    let mut model = model(NEXT_HOPS);
    model.take_changed();
    model.begin_session();
    let routes = model.routes().count();
    let labels = model.labels().count();
    assert!(model.take_changed().is_empty());
    model.sweep();
    assert_eq!(model.take_changed().len(), routes + labels);
    assert_eq!(model.counts(), control::fpm::Counts::default());
}

/// A zebra that was started anew gives number 26, that of the VPN route's next hop, to something else.
#[test]
fn fault_75_a_stale_route_keeps_its_next_hop_though_the_number_is_given_anew() {
    let mut model = model(NEXT_HOPS);
    model.take_changed();
    let vpn = key(VRF_RED, "10.50.3.0/24");
    let before = model.route_target(&vpn);
    model.begin_session();
    let mut statistics = Statistics::default();
    let other = vpn_next_hop_moved();
    Receiver::default()
        .receive(&other, &mut model, &mut statistics)
        .unwrap();
    assert_eq!(model.counts().next_hops, 1);
    assert_eq!(model.route_target(&vpn), before);
    assert!(model.take_changed().is_empty());
}

#[test]
fn tables_are_bounded() {
    let mut model = Model::new(Limits {
        routes: 2,
        labels: 1,
        next_hops: 3,
    });
    receive(&mut model, NEXT_HOPS, 50);
    let counts = model.counts();
    assert!(counts.routes <= 2 && counts.labels <= 1 && counts.next_hops <= 3);
    assert!(counts.refused > 0);
    // A refused route is not there at all, rather than half.
    for (key, _) in model.routes() {
        assert!(key.table == TABLE_MAIN || key.table == VRF_RED);
    }
}

#[test]
fn a_next_hop_object_that_changes_changes_its_routes() {
    let mut model = model(NEXT_HOPS);
    model.take_changed();
    let mut receiver = Receiver::default();
    let mut statistics = Statistics::default();
    let moved = vpn_next_hop_moved();
    receiver.receive(&moved, &mut model, &mut statistics).unwrap();
    let vpn = key(VRF_RED, "10.50.3.0/24");
    assert_eq!(model.take_changed(), [Item::Route(vpn)].into());
    let Some(Resolved::Ways(ways)) = model.route_target(&vpn) else {
        panic!("no way")
    };
    assert_eq!(ways[0].gateway, Some(IpAddr::from([10, 0, 12, 9])));
    assert_eq!(ways[0].stack.labels(), [label(17), label(80)]);
}

/// The last frame that says `RTM_NEWNEXTHOP` with labels, that of the VPN route, by another gateway: 10.0.12.2 becomes
/// 10.0.12.9.
fn vpn_next_hop_moved() -> Vec<u8> {
    let mut frame = frames(NEXT_HOPS)
        .into_iter()
        .rfind(|frame| frame[8..10] == [104, 0] && frame.len() > 70)
        .unwrap()
        .to_vec();
    let at = frame
        .windows(4)
        .position(|bytes| bytes == [10, 0, 12, 2])
        .unwrap();
    frame[at + 3] = 9;
    frame
}

fn frames(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let [_, _, high, low, ..] = stream {
        let (frame, rest) = stream.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.push(frame);
        stream = rest;
    }
    found
}

#[test]
fn next_hop_groups_follow_their_members() {
    let captured = frames(GROUPS);
    let mut model = Model::new(Limits::default());
    model.begin_session();
    let (mut receiver, mut statistics) = (Receiver::default(), Statistics::default());
    let plain = |neighbours: &[u8]| ways_by(neighbours, &[&[], &[], &[]]);
    let labelled = |neighbours: &[u8]| ways_by(neighbours, &[&[17, 80], &[18, 80], &[19, 80]]);
    // Frames of the capture, and which neighbours each route leads by after them.
    for (count, v4, labels, v6) in [
        (24, Some(plain(&[2, 3])), Some(labelled(&[2, 3])), None),
        (31, Some(plain(&[2, 3])), Some(labelled(&[2, 3, 4])), Some(2)),
        // The link is lost.
        (38, Some(plain(&[3])), Some(labelled(&[3, 4])), Some(1)),
        // It is back.
        (50, Some(plain(&[2, 3])), Some(labelled(&[2, 3, 4])), Some(2)),
        (51, Some(plain(&[2, 3])), Some(labelled(&[2, 3])), Some(2)),
        (54, None, None, None),
    ] {
        let before = usize::try_from(statistics.frames).unwrap();
        for frame in &captured[before..count] {
            receiver.receive(frame, &mut model, &mut statistics).unwrap();
        }
        let route = |prefix| model.route_target(&key(TABLE_MAIN, prefix));
        assert_eq!(route("198.51.100.0/24"), v4.map(Resolved::Ways), "{count} frames");
        assert_eq!(
            route("203.0.113.0/24"),
            labels.map(Resolved::Ways),
            "{count} frames"
        );
        let ways_v6 = route("2001:db8:100::/48").map(|target| match target {
            Resolved::Ways(ways) => ways.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(ways_v6, v6, "{count} frames");
    }
    assert_eq!((statistics.malformed, statistics.bad_labels), (0, 0));
    assert_eq!(captured.len(), 54);
}

/// Ways by the neighbours 10.0.12.2, 10.0.13.2, 10.0.14.2 of the interfaces 2, 3, 4, each with its labels.
fn ways_by(interfaces: &[u8], stacks: &[&[u32]; 3]) -> Vec<Way> {
    interfaces
        .iter()
        .map(|number| {
            let labels = stacks[usize::from(number - 2)];
            let labels: Vec<_> = labels.iter().map(|value| label(*value)).collect();
            Way {
                interface: Some(u32::from(*number)),
                gateway: Some(IpAddr::from([10, 0, 10 + number, 2])),
                stack: LabelStack::new(&labels).unwrap(),
                weight: 1,
            }
        })
        .collect()
}

/// The deletion of a label says protocol 0, whoever bound it.
#[test]
fn a_label_is_unbound_whatever_protocol_the_deletion_names() {
    let bodies: Vec<_> = frames(INLINE)
        .into_iter()
        .filter(|frame| frame[8..10] == [25, 0] && frame[20] == 28)
        .collect();
    assert!(
        bodies.len() == 2 && bodies.iter().all(|frame| frame[25] == 0),
        "{bodies:02x?}"
    );
    let mut model = model(INLINE);
    let before = model.labels().count();
    let mut statistics = Statistics::default();
    for frame in bodies {
        Receiver::default()
            .receive(frame, &mut model, &mut statistics)
            .unwrap();
    }
    assert_eq!(model.labels().count(), before - 2);
}

/// zebra fills frames under load: as many messages as a frame can hold, and frames as fast as they come.
#[test]
fn a_batch_of_a_hundred_thousand_routes_is_taken() {
    let frame = frames(NEXT_HOPS)
        .into_iter()
        .rfind(|frame| frame.len() == 56 && frame[8..10] == [24, 0] && frame[20] == 2)
        .unwrap();
    let at = frame
        .windows(4)
        .position(|bytes| bytes[..3] == [198, 51, 100])
        .unwrap();
    let messages: Vec<u8> = (0..100_000u32)
        .flat_map(|number| {
            let mut frame = frame.to_vec();
            frame[at..at + 4].copy_from_slice(&(0x0b00_0000 + (number << 8)).to_be_bytes());
            frame.split_off(4)
        })
        .collect();
    let message_bytes = frame.len() - 4;
    let full_bytes = (usize::from(u16::MAX) - 4) / message_bytes * message_bytes;
    let stream: Vec<u8> = messages
        .chunks(full_bytes)
        .flat_map(|body| {
            let length = u16::try_from(body.len() + 4).unwrap().to_be_bytes();
            [&[1, 1], &length[..], body].concat()
        })
        .collect();
    let mut model = model(NEXT_HOPS);
    let before = model.routes().count();
    let mut receiver = Receiver::default();
    let mut statistics = Statistics::default();
    for piece in stream.chunks(64 * 1024) {
        receiver.receive(piece, &mut model, &mut statistics).unwrap();
    }
    assert_eq!((statistics.messages, statistics.malformed), (100_000, 0));
    assert!(statistics.frames < 100);
    assert_eq!(model.routes().count(), before + 100_000);
    let last = model.route_target(&key(TABLE_MAIN, "12.134.159.0/24"));
    assert!(matches!(last, Some(Resolved::Ways(ways)) if ways.len() == 1));
}

proptest! {
    #[test]
    fn the_pieces_of_the_stream_do_not_matter(piece_bytes in 1usize..700, groups in any::<bool>()) {
        let capture = if groups { NEXT_HOPS } else { INLINE };
        let mut pieces = Model::new(Limits::default());
        receive(&mut pieces, capture, piece_bytes);
        prop_assert_eq!(contents(&pieces), contents(&model(capture)));
    }

    /// Whatever happens to the bytes, the session ends or goes on, and the tables stay within their bounds.
    #[test]
    fn damaged_sessions_do_no_harm(
        groups in any::<bool>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        piece_bytes in 1usize..3000,
    ) {
        let mut bytes = if groups { NEXT_HOPS } else { INLINE }.to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut model = Model::new(Limits { routes: 5, labels: 2, next_hops: 4 });
        let mut receiver = Receiver::default();
        let mut statistics = Statistics::default();
        for piece in bytes.chunks(piece_bytes) {
            if receiver.receive(piece, &mut model, &mut statistics).is_err() {
                break;
            }
        }
        let counts = model.counts();
        prop_assert!(counts.routes <= 5 && counts.labels <= 2 && counts.next_hops <= 4);
        for (key, _) in model.routes() {
            let _ = model.route_target(&key);
        }
        model.clear();
        prop_assert_eq!(model.counts().routes + model.counts().labels + model.counts().next_hops, 0);
        prop_assert_eq!(model.counts().stale, 0);
    }
}
