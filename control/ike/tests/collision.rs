//! The collisions of RFC 7296 sections 2.8.1, 2.8.2 and 2.25, each drawn as the exchange that it is. After each, both
//! ends hold one pair, the tunnel never stood still, and nothing is left over.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::time::Duration;

use ike::{Event, Transmit};
use network::{Network, pair};

const SOON: Duration = Duration::from_secs(3);
/// Long enough for pairs to drain and replaced IKE SAs to be gone.
const LATER: Duration = Duration::from_secs(150);

/// Two established hosts, 10 ms apart.
fn established(seed: u64) -> Network {
    let mut net = pair(seed, |_, _| {});
    net.run(SOON);
    net.assert_agreement(1);
    net
}

fn finish(mut net: Network, ike_sas: usize) -> Network {
    net.run_lossless(LATER);
    net.assert_agreement(1);
    for host in [0, 1] {
        assert_eq!(net.hosts[host].endpoint.ike_sas().len(), ike_sas);
        assert_eq!(net.hosts[host].endpoint.ike_sas()[0].children.len(), 1);
        assert_eq!(
            net.hosts[host].dataplane.installed.len(),
            2,
            "one pair and nothing else"
        );
        assert_eq!(
            net.count(host, |e| matches!(
                e,
                Event::IkeDown { .. } | Event::ChildDown { .. }
            )),
            0
        );
    }
    net
}

/// Exchange type, response flag: of a protected message on the wire.
fn kind(transmit: &Transmit) -> (u8, bool) {
    let offset = if transmit.local.port() == 4500 { 4 } else { 0 };
    (
        transmit.bytes[offset + 18],
        transmit.bytes[offset + 19] & 0x20 != 0,
    )
}

const CREATE_CHILD_SA: u8 = 36;
const INFORMATIONAL: u8 = 37;

/// Loses the first message of `from` of this kind.
fn lose_first(net: &mut Network, from: usize, exchange: u8, response: bool) {
    let mut lost = false;
    net.filter = Some(Box::new(move |sender, transmit| {
        if !lost && sender == from && kind(transmit) == (exchange, response) {
            lost = true;
            return false;
        }
        true
    }));
}

#[test]
fn fault_24_and_26_both_rekey_the_child() {
    // A: CREATE_CHILD_SA { N(REKEY_SA) } -->    <-- B: CREATE_CHILD_SA { N(REKEY_SA) }
    // A: response -->                           <-- B: response
    // The side whose exchange has the lowest nonce deletes its new pair, the other the old one.
    for seed in 0..40 {
        let mut net = established(seed);
        let now = net.now;
        net.hosts[0].endpoint.rekey_child(now, "peer", "net");
        net.hosts[1].endpoint.rekey_child(now, "peer", "net");
        finish(net, 1);
    }
}

#[test]
fn both_rekey_the_child_and_one_answer_is_late() {
    // A: CREATE_CHILD_SA -->          <-- B: CREATE_CHILD_SA
    // A: response -->   lost          <-- B: response
    // A deletes what it has to before B, which repeats its request, knows of the collision.
    for seed in 0..40 {
        for late in [0, 1] {
            let mut net = established(seed);
            lose_first(&mut net, late, CREATE_CHILD_SA, true);
            let now = net.now;
            net.hosts[0].endpoint.rekey_child(now, "peer", "net");
            net.hosts[1].endpoint.rekey_child(now, "peer", "net");
            finish(net, 1);
        }
    }
}

#[test]
fn one_request_to_rekey_the_child_is_lost_and_arrives_too_late() {
    // A: CREATE_CHILD_SA -->   lost   <-- B: CREATE_CHILD_SA, response, INFORMATIONAL { D }
    // A: CREATE_CHILD_SA (again), of a pair that is gone: CHILD_SA_NOT_FOUND or TEMPORARY_FAILURE
    for seed in 0..40 {
        let mut net = established(seed);
        lose_first(&mut net, 0, CREATE_CHILD_SA, false);
        let now = net.now;
        net.hosts[0].endpoint.rekey_child(now, "peer", "net");
        net.hosts[1].endpoint.rekey_child(now, "peer", "net");
        finish(net, 1);
    }
}

#[test]
fn the_deletion_of_a_rekeyed_child_is_lost() {
    // A: CREATE_CHILD_SA -->   <-- response   A: INFORMATIONAL { D } --> lost, then again
    for seed in 0..20 {
        for response in [false, true] {
            let mut net = established(seed);
            lose_first(&mut net, if response { 1 } else { 0 }, INFORMATIONAL, response);
            let now = net.now;
            net.hosts[0].endpoint.rekey_child(now, "peer", "net");
            finish(net, 1);
        }
    }
}

#[test]
fn one_rekeys_the_child_that_the_other_deletes() {
    // A: CREATE_CHILD_SA { N(REKEY_SA) } -->    <-- B: INFORMATIONAL { D }
    for seed in 0..20 {
        let mut net = established(seed);
        let now = net.now;
        net.hosts[0].endpoint.rekey_child(now, "peer", "net");
        net.hosts[1].endpoint.terminate_child(now, "peer", "net");
        net.run(LATER);
        // B held the pair down; A starts it by itself, so one pair is there at the end, and the same on both sides.
        net.assert_agreement(1);
    }
}

#[test]
fn fault_24_and_26_both_rekey_the_ike_sa() {
    // A: CREATE_CHILD_SA { SA(IKE) } -->    <-- B: CREATE_CHILD_SA { SA(IKE) }
    for seed in 0..40 {
        let mut net = established(seed);
        let now = net.now;
        net.hosts[0].endpoint.rekey_ike(now, "peer");
        net.hosts[1].endpoint.rekey_ike(now, "peer");
        let net = finish(net, 1);
        assert_eq!(net.count(0, |e| matches!(e, Event::IkeRekeyed { .. })), 1);
        assert_eq!(net.count(1, |e| matches!(e, Event::IkeRekeyed { .. })), 1);
    }
}

#[test]
fn both_rekey_the_ike_sa_and_messages_are_lost() {
    for seed in 0..40 {
        for (from, response) in [(0, false), (1, false), (0, true), (1, true)] {
            let mut net = established(seed);
            lose_first(&mut net, from, CREATE_CHILD_SA, response);
            let now = net.now;
            net.hosts[0].endpoint.rekey_ike(now, "peer");
            net.hosts[1].endpoint.rekey_ike(now, "peer");
            finish(net, 1);
        }
    }
}

#[test]
fn one_rekeys_the_ike_sa_and_the_other_a_child() {
    // A: CREATE_CHILD_SA { SA(IKE) } -->    <-- B: CREATE_CHILD_SA { N(REKEY_SA) }
    // Each answers TEMPORARY_FAILURE (section 2.25.2) and both try again later.
    for seed in 0..40 {
        let mut net = established(seed);
        let now = net.now;
        net.hosts[0].endpoint.rekey_ike(now, "peer");
        net.hosts[1].endpoint.rekey_child(now, "peer", "net");
        let net = finish(net, 1);
        assert!(net.count(1, |e| matches!(e, Event::ChildRekeyed { .. })) >= 1);
        assert!(net.count(0, |e| matches!(e, Event::IkeRekeyed { .. })) >= 1);
    }
}

#[test]
fn one_rekeys_the_ike_sa_that_the_other_closes() {
    // A: CREATE_CHILD_SA { SA(IKE) } -->    <-- B: INFORMATIONAL { D(IKE) }
    for seed in 0..20 {
        let mut net = established(seed);
        let now = net.now;
        net.hosts[0].endpoint.rekey_ike(now, "peer");
        net.hosts[1].endpoint.terminate(now, "peer");
        net.run(LATER);
        // A wants the tunnel and brings it back.
        net.assert_agreement(1);
    }
}

#[test]
fn both_initiate_at_once() {
    // A: IKE_SA_INIT -->    <-- B: IKE_SA_INIT: one of the two IKE SAs goes.
    for seed in 0..40 {
        let mut net = pair(seed, |_, c| c.children[0].start = ike::StartAction::Start);
        net.run(Duration::from_secs(120));
        net.assert_agreement(1);
        assert_eq!(net.hosts[0].endpoint.ike_sas().len(), 1);
        assert_eq!(net.hosts[0].dataplane.installed.len(), 2);
    }
}

#[test]
fn fault_25_a_peer_rekeys_a_child_twice_before_it_deletes() {
    // B: CREATE_CHILD_SA, CREATE_CHILD_SA of the new pair, and the deletions of both only then.
    for seed in 0..20 {
        let mut net = established(seed);
        // The deletions of B are held up for a while.
        let start = net.now;
        let mut held = 0;
        net.filter = Some(Box::new(move |from, transmit| {
            let hold = from == 1 && kind(transmit) == (INFORMATIONAL, false) && held < 3;
            held += u32::from(hold);
            !hold
        }));
        net.hosts[1].endpoint.rekey_child(start, "peer", "net");
        net.run_lossless(Duration::from_secs(1));
        let now = net.now;
        net.hosts[1].endpoint.rekey_child(now, "peer", "net");
        finish(net, 1);
    }
}
