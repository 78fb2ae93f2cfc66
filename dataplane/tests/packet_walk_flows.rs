//! Flows over several next hops, with entropy labels and without.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use std::collections::BTreeSet;

use southbound::{LabelOperation, NextHop, Nhlfe, RouteSpec, Update};
use walk::gateway::Gateway;
use walk::packets::Ip;
use walk::provider::{
    CUSTOMER_A, EAST, HERE, THERE, VRF_A, WEST, entries, forward, ilm, labelled, lookup, nhlfe, router,
};

const FLOWS: u8 = 200;

fn flow(family: usize, number: u8) -> Vec<u8> {
    let mut packet = Ip::udp(HERE[family], THERE[family], 100);
    packet.payload[1] = number;
    packet.bytes()
}

/// How many flows took each way; every flow is sent twice and must take one.
fn ways(router: &mut Gateway, ports: [u32; 2], mut send: impl FnMut(&mut Gateway, u8)) -> [usize; 2] {
    let mut counts = [0; 2];
    for number in 0..FLOWS {
        for _ in 0..2 {
            send(router, number);
            router.turn();
        }
        let left = ports.map(|port| router.left(port).len());
        assert!(matches!(left, [2, 0] | [0, 2]), "{left:?}");
        counts[usize::from(left[1] == 2)] += 1;
    }
    counts
}

#[test]
fn flows_of_a_route_are_shared_by_weight_over_labelled_next_hops() {
    let mut router = router();
    for (weights, least) in [
        (vec![], [70, 70]),
        (vec![1, 3], [25, 110]),
        (vec![9, 9], [70, 70]),
    ] {
        for prefix in ["192.168.102.0/24", "fd00:102::/64"] {
            router.apply(Update::PutRoute(RouteSpec {
                vrf: VRF_A,
                prefix: prefix.parse().unwrap(),
                next_hops: vec![
                    NextHop::Labelled(nhlfe(&[100, 700], WEST)),
                    NextHop::Labelled(nhlfe(&[101, 700], EAST)),
                ],
                weights: weights.clone(),
            }));
        }
        for family in [0, 1] {
            let counts = ways(&mut router, [WEST, EAST], |router, number| {
                router.deliver(CUSTOMER_A, &flow(family, number));
            });
            assert!(
                counts[0] >= least[0] && counts[1] >= least[1],
                "{weights:?} {counts:?}"
            );
        }
    }
}

fn two_ways(router: &mut Gateway) {
    router.apply(Update::PutIlm(ilm(
        100,
        LabelOperation::Forward {
            next_hops: vec![nhlfe(&[200], WEST), nhlfe(&[201], EAST)],
            weights: vec![],
        },
    )));
}

#[test]
fn flows_beneath_a_label_stack_are_told_apart_by_their_ports() {
    let mut router = router();
    two_ways(&mut router);
    for family in [0, 1] {
        for stack in [vec![(100, 64)], vec![(100, 64), (700, 64), (701, 64)]] {
            let counts = ways(&mut router, [WEST, EAST], |router, number| {
                router.deliver_labelled(WEST, &labelled(&entries(&stack), &flow(family, number)));
            });
            assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
        }
    }
}

#[test]
fn an_entropy_label_is_all_that_is_looked_at() {
    let mut router = router();
    two_ways(&mut router);
    // What is beneath changes with each packet and is no IP at all.
    let mut salt = 0u8;
    let counts = ways(&mut router, [WEST, EAST], |router, number| {
        salt = salt.wrapping_add(1);
        let stack = entries(&[(100, 64), (7, 64), (5000 + u32::from(number), 0)]);
        router.deliver_labelled(WEST, &labelled(&stack, &[salt; 40]));
    });
    assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
}

#[test]
fn an_entropy_label_is_pushed_beneath_the_transport_label_and_taken_off_at_its_end() {
    let mut router = router();
    let hop = Nhlfe {
        entropy_beneath: Some(1),
        ..nhlfe(&[100, 700], WEST)
    };
    router.route_in(VRF_A, "192.168.102.0/24", vec![NextHop::Labelled(hop)]);
    let mut seen = BTreeSet::new();
    for number in 0..FLOWS {
        let packet = flow(0, number);
        let left = router.pass_to(CUSTOMER_A, &packet, WEST).remove(0);
        let labels: Vec<_> = left.labels().iter().map(|(label, _)| *label).collect();
        assert_eq!((labels.len(), labels[0], labels[1], labels[3]), (4, 100, 7, 700));
        assert!(labels[2] >= 16);
        assert_eq!(
            left.entries[2].ttl, 0,
            "it is never on top (RFC 6790 section 4.2)"
        );
        assert_eq!(
            left.entries.iter().map(|entry| entry.bottom).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        seen.insert(labels[2]);
        let again = router.pass_to(CUSTOMER_A, &packet, WEST).remove(0);
        assert_eq!(again.entries[2].label.value(), labels[2], "one flow, one label");
    }
    assert!(seen.len() > usize::from(FLOWS) - 5, "{}", seen.len());
    // The other end: transport label, indicator and entropy label go, the VPN label decides.
    router.apply(lookup(500, VRF_A));
    router.apply(Update::PutIlm(ilm(102, LabelOperation::Pop)));
    let packet = Ip::udp(THERE[0], HERE[0], 100);
    for stack in [
        vec![(102, 40), (7, 40), (4711, 0), (500, 50)],
        // The router before popped the transport label and left the rest.
        vec![(7, 40), (4711, 0), (500, 40)],
        vec![(500, 40), (7, 40), (4711, 0)],
    ] {
        let left = router.pass_labelled(WEST, &labelled(&entries(&stack), &packet.bytes()), CUSTOMER_A);
        assert_eq!(left.len(), 1, "{stack:?} {:?}", router.drops());
        let expected = Ip {
            hops: 39,
            ..packet.clone()
        };
        assert_eq!(left[0].packet, expected.bytes());
    }
}

#[test]
fn a_router_on_the_way_adds_an_entropy_label_only_where_there_is_none() {
    let mut router = router();
    let hop = Nhlfe {
        entropy_beneath: Some(2),
        ..nhlfe(&[200, 201], EAST)
    };
    router.apply(forward(100, hop));
    let packet = flow(0, 1);
    let left = router
        .pass_labelled(WEST, &labelled(&entries(&[(100, 64)]), &packet), EAST)
        .remove(0);
    let labels: Vec<_> = left.labels().iter().map(|(label, _)| *label).collect();
    assert_eq!((labels.len(), &labels[..3]), (4, &[200, 201, 7][..]));
    assert!(left.entries[3].bottom && !left.entries[1].bottom);
    assert_eq!(left.packet, packet);
    let stack = entries(&[(100, 64), (7, 64), (4711, 0), (700, 64)]);
    let left = router
        .pass_labelled(WEST, &labelled(&stack, &packet), EAST)
        .remove(0);
    let labels: Vec<_> = left.labels().iter().map(|(label, _)| *label).collect();
    assert_eq!(labels, [200, 201, 7, 4711, 700]);
}
