//! Hundreds of seeds of two endpoints over a network that does its worst, both rekeying and deleting at random. Once
//! the network heals, both hold the same SAs, none is left over, and the tunnel works.
//!
//! `IKE_SIM_SEEDS=10000` runs as many seeds, `IKE_SIM_SEED=17` exactly that one; `IKE_TRACE=1` prints every datagram.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::time::Duration;

use ike::{Childless, Event, Fragmentation, Retransmission};
use network::{CLEAN, Faults, Network, child, pair};

fn retransmission() -> Retransmission {
    Retransmission {
        first: Duration::from_millis(400),
        base: 1.5,
        longest: Duration::from_secs(5),
        tries: 8,
    }
}

fn world(seed: u64) -> Network {
    let mut shape = network::Seeded(seed ^ 0x5eed);
    let hybrid = shape.chance(20);
    let two_children = shape.chance(40);
    let childless = shape.chance(20);
    let window = if shape.chance(20) { 4 } else { 1 };
    let both_start = shape.chance(20);
    let fragments = shape.chance(50);
    pair(seed, |host, c| {
        c.retransmission = retransmission();
        c.dpd_delay = Some(Duration::from_secs(7));
        c.window = window;
        if hybrid {
            c.proposals = vec!["aes256gcm16-prfsha256-x25519-ke1_mlkem512".parse().unwrap()];
        }
        if fragments {
            c.fragmentation = Fragmentation::Above { packet_bytes: 300 };
        }
        if childless {
            c.childless = Childless::Prefer;
        }
        if both_start {
            c.children[0].start = ike::StartAction::Start;
        }
        if two_children {
            let mut second = child(host, "second", 2);
            for side in second.local_ts.iter_mut().chain(&mut second.remote_ts) {
                if let ike::TsSide::Fixed(ts) = side {
                    ts.protocol = 6;
                    (ts.start_port, ts.end_port) = (80, 80);
                }
            }
            c.children.push(second);
        }
    })
}

fn disturb(net: &mut Network, shape: &mut network::Seeded) {
    let host = shape.below(2) as usize;
    let now = net.now;
    let endpoint = &mut net.hosts[host].endpoint;
    match shape.below(12) {
        0..4 => endpoint.rekey_child(now, "peer", "net"),
        4..8 => endpoint.rekey_ike(now, "peer"),
        8 => endpoint.rekey_child(now, "peer", "second"),
        9 => {
            // Both at the same moment.
            endpoint.rekey_ike(now, "peer");
            net.hosts[1 - host].endpoint.rekey_ike(now, "peer");
        }
        10 => {
            endpoint.rekey_child(now, "peer", "net");
            net.hosts[1 - host].endpoint.rekey_child(now, "peer", "net");
        }
        _ => {
            endpoint.rekey_child(now, "peer", "net");
            net.hosts[1 - host].endpoint.rekey_ike(now, "peer");
        }
    }
}

fn run(seed: u64) {
    let mut net = world(seed);
    let mut shape = network::Seeded(seed.wrapping_mul(31).wrapping_add(7));
    net.faults = Faults {
        drop: shape.below(30),
        duplicate: shape.below(20),
        corrupt: shape.below(10),
        delay_ms: 1 + shape.below(100),
        jitter_ms: shape.below(300),
    };
    let corrupts = net.faults.corrupt > 0;
    let outage = shape.chance(20);
    for round in 0..12 {
        net.run(Duration::from_millis(300 + shape.below(4000)));
        if outage && round == 6 {
            let before = net.faults;
            net.faults = Faults { drop: 100, ..before };
            net.run(Duration::from_secs(shape.below(60)));
            net.faults = before;
        }
        disturb(&mut net, &mut shape);
    }
    net.faults = CLEAN;
    net.run(Duration::from_secs(300));
    let expected = {
        // Every child that starts by itself is up again.
        let started = net.hosts[0]
            .endpoint
            .ike_sas()
            .into_iter()
            .flat_map(|sa| sa.children)
            .map(|c| c.tunnel.0);
        started.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!(expected >= 1, "no tunnel: {:#?}", net.hosts[0].endpoint.ike_sas());
    assert!(
        net.hosts[0].dataplane.selected.contains_key(&1),
        "the tunnel is not back"
    );
    net.assert_agreement(expected);
    assert_eq!(
        net.hosts[0].endpoint.ike_sas().len(),
        1,
        "{:#?}",
        net.hosts[0].endpoint.ike_sas()
    );
    for host in 0..2 {
        assert_eq!(net.hosts[host].endpoint.half_open(), 0, "half-open SAs leak");
        if corrupts {
            // IKE_SA_INIT is not protected: a bit flipped in it is found by AUTH, and the next attempt succeeds.
            continue;
        }
        for event in &net.hosts[host].events {
            if let Event::Failed { reason, .. } = event {
                assert!(
                    !reason.contains("does not match"),
                    "authentication failed: {reason}"
                );
            }
        }
    }
}

#[test]
fn every_seed_heals() {
    if let Ok(seed) = std::env::var("IKE_SIM_SEED") {
        run(seed.parse().unwrap());
        return;
    }
    let seeds: u64 = std::env::var("IKE_SIM_SEEDS").map_or(300, |n| n.parse().unwrap());
    let first: u64 = std::env::var("IKE_SIM_FIRST").map_or(0, |n| n.parse().unwrap());
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if outcome.is_err() {
            eprintln!("seed {seed} failed: IKE_SIM_SEED={seed} replays it");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed: {failed:?}",
        failed.len()
    );
}
