//! Forwards between the interfaces `g1` and `g2` of this namespace by AF_XDP, and says once a second what is granted and
//! what moves: to try a driver, by hand or in a virtual machine, before it is trusted with a gateway.
//!
//! `forward SECONDS`; packets in transit to the interfaces' MAC addresses are taken, and sent on as they are.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../tests/rig/mod.rs"]
mod rig;

use std::sync::atomic::Ordering;

fn main() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .init();
    let seconds: u64 = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(10);
    let links = rig::Links::of("", "", 1);
    rig::with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        let mut said = 0;
        while gateway.now_ms() < seconds * 1000 {
            gateway.turn();
            if gateway.now_ms() / 1000 == said {
                continue;
            }
            said += 1;
            let work = gateway.work;
            println!(
                "{said} s: forwarded {} dropped {} queues {:#b}",
                work.forwarded.load(Ordering::Relaxed),
                work.dropped.load(Ordering::Relaxed),
                work.queues_seen.load(Ordering::Relaxed),
            );
            for status in gateway.manager.statuses() {
                println!(
                    "  {}: {:?} {:?} {:?} rebinds {} {}",
                    status.interface,
                    status.phase,
                    status.xdp,
                    status.queues,
                    status.rebinds,
                    status.error.unwrap_or_default(),
                );
            }
        }
    });
    println!("all frames are home");
}
