//! Several Child SAs for the same traffic, one for each worker (RFC 9611).

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::collections::BTreeSet;
use std::time::Duration;

use ike::{Event, RekeyTime, StartAction};
use network::{Network, pair};

fn resources(net: &Network, host: usize) -> BTreeSet<Option<u16>> {
    let sas = net.hosts[host].endpoint.ike_sas();
    sas[0].children.iter().map(|child| child.resource).collect()
}

/// The workers that send with a pair of their own, each with another.
fn workers(net: &Network, host: usize) -> Vec<u16> {
    let dataplane = &net.hosts[host].dataplane;
    let own: BTreeSet<_> = dataplane
        .selected_for
        .values()
        .chain(dataplane.selected.values())
        .collect();
    assert_eq!(
        own.len(),
        dataplane.selected_for.len() + dataplane.selected.len(),
        "host {host}"
    );
    dataplane.selected_for.keys().map(|(_, worker)| *worker).collect()
}

/// A worker sends through the tunnel without an SA of its own.
fn acquire(net: &mut Network, host: usize, worker: u16) {
    let tunnel = net.hosts[host].endpoint.ike_sas()[0].children[0].tunnel;
    let now = net.now;
    net.hosts[host].endpoint.acquire_for_worker(now, tunnel, worker);
}

fn on_demand(seed: u64) -> Network {
    let mut net = pair(seed, |_, c| {
        c.children[0].resources = 65;
        c.children[0].resources_on_demand = true;
    });
    net.run(Duration::from_secs(3));
    net.assert_agreement(1);
    net
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
    // Nothing more is asked for later, and each worker sends with its own.
    net.run(Duration::from_secs(60));
    for host in [0, 1] {
        assert_eq!(workers(&net, host), [0, 1, 2]);
    }
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

#[test]
fn a_pair_is_made_for_the_worker_that_asks() {
    let mut net = on_demand(25);
    net.run(Duration::from_secs(60));
    assert_eq!(resources(&net, 0), [Some(0)].into(), "nobody asked");
    acquire(&mut net, 0, 5);
    net.run_lossless(Duration::from_secs(10));
    assert_eq!(workers(&net, 0), [5]);
    assert_eq!(workers(&net, 1), [0], "the peer's first worker has it");
    // Asked again, and by the peer for the worker that is served.
    acquire(&mut net, 0, 5);
    acquire(&mut net, 1, 0);
    net.run_lossless(Duration::from_secs(10));
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].children.len(), 2);
    // Both sides at once, for two workers each.
    for host in [0, 1] {
        for worker in [1, 2] {
            acquire(&mut net, host, worker);
        }
    }
    net.run_lossless(Duration::from_secs(30));
    // A pair that the peer asked for may serve a worker that was about to ask.
    assert!(net.hosts[0].endpoint.ike_sas()[0].children.len() <= 6);
    assert!([1, 2, 5].iter().all(|worker| workers(&net, 0).contains(worker)));
    assert!([0, 1, 2].iter().all(|worker| workers(&net, 1).contains(worker)));
    net.assert_agreement(1);
}

#[test]
fn a_workers_pair_is_renewed_and_deleted_by_itself() {
    let mut net = on_demand(26);
    acquire(&mut net, 0, 0);
    acquire(&mut net, 0, 1);
    net.run_lossless(Duration::from_secs(10));
    let before = net.hosts[0].dataplane.selected_for.clone();
    let (now, name) = (net.now, net.hosts[0].endpoint.ike_sas()[0].connection.clone());
    net.hosts[0].endpoint.rekey_child(now, &name, "net");
    net.run_lossless(Duration::from_secs(30));
    assert_eq!(net.count(0, |e| matches!(e, Event::ChildRekeyed { .. })), 3);
    let after = net.hosts[0].dataplane.selected_for.clone();
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    assert!(before.values().all(|old| !after.values().any(|new| new == old)));
    assert_eq!((workers(&net, 0), workers(&net, 1)), (vec![0, 1], vec![0, 1]));
    net.assert_agreement(1);
}

#[test]
fn a_peer_without_rfc_9611_is_asked_for_no_more() {
    let mut net = pair(27, |host, c| {
        c.children[0].resources = if host == 0 { 65 } else { 1 };
        c.children[0].resources_on_demand = host == 0;
    });
    net.run(Duration::from_secs(3));
    for _ in 0..3 {
        acquire(&mut net, 0, 1);
        net.run(Duration::from_secs(10));
    }
    net.assert_agreement(1);
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].children.len(), 1);
    assert_eq!(net.failures(0), Vec::<String>::new());
}

#[test]
fn a_peer_with_fewer_pairs_refuses_and_nothing_is_lost() {
    let mut net = pair(28, |host, c| {
        c.children[0].resources = if host == 0 { 65 } else { 2 };
        c.children[0].resources_on_demand = true;
        c.children[0].start = if host == 0 {
            StartAction::Start
        } else {
            StartAction::None
        };
    });
    net.run(Duration::from_secs(3));
    for worker in 0..3 {
        acquire(&mut net, 0, worker);
    }
    net.run_lossless(Duration::from_secs(60));
    net.assert_agreement(1);
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].children.len(), 2);
    assert_eq!(workers(&net, 0).len(), 1);
}
