//! Several Child SAs for the same traffic, one for each worker (RFC 9611).

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::collections::BTreeSet;
use std::time::Duration;

use ike::{Event, RekeyTime};
use network::{Network, pair};

fn resources(net: &Network, host: usize) -> BTreeSet<Option<u16>> {
    let sas = net.hosts[host].endpoint.ike_sas();
    sas[0].children.iter().map(|child| child.resource).collect()
}

#[test]
fn one_pair_for_each_worker() {
    let mut net = pair(21, |_, c| c.children[0].resources = 4);
    net.run(Duration::from_secs(3));
    net.assert_agreement(1);
    for host in [0, 1] {
        assert_eq!(net.hosts[host].endpoint.ike_sas()[0].children.len(), 4);
        assert_eq!(resources(&net, host), (0..4).map(Some).collect(), "host {host}");
    }
    // Nothing more is asked for later.
    net.run(Duration::from_secs(60));
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].children.len(), 4);
}

#[test]
fn renewed_pairs_stay_with_their_worker() {
    let mut net = pair(22, |host, c| {
        c.children[0].resources = 3;
        c.children[0].rekey = RekeyTime::seconds(if host == 0 { 20 } else { 23 });
        c.rekey = RekeyTime::seconds(50);
    });
    net.run(Duration::from_secs(3));
    net.run_lossless(Duration::from_secs(300));
    assert!(net.count(0, |e| matches!(e, Event::ChildRekeyed { .. })) > 20);
    assert_eq!(net.count(0, |e| matches!(e, Event::ChildDown { .. })), 0);
    for host in [0, 1] {
        assert_eq!(resources(&net, host), (0..3).map(Some).collect(), "host {host}");
    }
}

#[test]
fn a_peer_with_fewer_workers_says_so() {
    // The third request is answered TS_MAX_QUEUE.
    let mut net = pair(23, |host, c| {
        c.children[0].resources = if host == 0 { 8 } else { 2 }
    });
    net.run(Duration::from_secs(60));
    net.assert_agreement(1);
    assert_eq!(resources(&net, 0), [Some(0), Some(1)].into());
    assert_eq!(resources(&net, 1), [Some(0), Some(1)].into());
}

#[test]
fn a_peer_that_wants_one_pair_gets_one() {
    let mut net = pair(24, |host, c| {
        c.children[0].resources = if host == 0 { 4 } else { 1 }
    });
    net.run(Duration::from_secs(60));
    net.assert_agreement(1);
    assert_eq!(resources(&net, 0), [Some(0)].into());
    assert_eq!(resources(&net, 1), [None].into());
}
