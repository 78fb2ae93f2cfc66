//! A whole table replaced while traffic flows: what both tables forward loses no packet.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane::tables::{Limits, Tables, Writer};
use southbound::{NextHop, RouteSpec, Update};
use walk::packets::Ip;
use walk::provider::{CUSTOMER_A, EAST, VRF_A, WEST, entries, forward, labelled, lookup, nhlfe, router};

const LABELS: u32 = 400;
const NETWORKS: u32 = 800;
const ROUNDS: u64 = 12;
const FIRST_LABEL: u32 = 1000;

/// The table of a generation: every label and network by another port, and under another label, than in the one before.
fn tell(writer: &mut Writer, generation: u64) {
    let port = if generation.is_multiple_of(2) { EAST } else { WEST };
    let shift = 10_000 * generation as u32;
    for number in 0..LABELS {
        let out = nhlfe(&[FIRST_LABEL + number + shift], port);
        writer
            .apply(generation, forward(FIRST_LABEL + number, out))
            .unwrap();
    }
    for number in 0..NETWORKS {
        let update = Update::PutRoute(RouteSpec {
            vrf: VRF_A,
            prefix: format!("10.{}.{}.0/24", number / 256, number % 256)
                .parse()
                .unwrap(),
            next_hops: vec![NextHop::Labelled(nhlfe(&[16 + number, 17 + shift], port))],
            weights: Vec::new(),
        });
        writer.apply(generation, update).unwrap();
    }
}

#[test]
fn fault_62_a_full_table_is_replaced_under_traffic_without_a_lost_packet() {
    let mut router = router();
    tell(&mut router.writer, 1);
    router.apply(lookup(500, VRF_A));
    let idle = Writer::new(Arc::new(Tables::new(Limits {
        sas: 16,
        tunnels: 16,
        routes: 16,
        ..Limits::default()
    })));
    let mut writer = std::mem::replace(&mut router.writer, idle);
    let (ended, generation) = (AtomicBool::new(false), AtomicU64::new(1));
    let packets: Vec<_> = (0..LABELS)
        .map(|number| {
            let far = format!("10.{}.{}.9", number * 2 / 256, number * 2 % 256);
            let plain = Ip::udp("192.168.101.5", &far, 80).bytes();
            let stack = entries(&[(FIRST_LABEL + number, 64), (77, 64)]);
            (labelled(&stack, &plain), plain)
        })
        .collect();
    let (mut sent, mut left, mut during) = (0u64, 0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for next in 2..2 + ROUNDS {
                tell(&mut writer, next);
                writer.settle();
                generation.store(next, Ordering::Release);
            }
            ended.store(true, Ordering::Release);
        });
        let mut place = 0;
        loop {
            let is_last = ended.load(Ordering::Acquire);
            for _ in 0..32 {
                let (labelled, plain) = &packets[place % packets.len()];
                router.deliver_labelled(WEST, labelled);
                router.deliver(CUSTOMER_A, plain);
                place += 1;
                sent += 2;
            }
            // Every turn also checks that frames and packets add up.
            router.turn();
            for port in [EAST, WEST] {
                for gone in router.left(port) {
                    assert_eq!(gone.entries.len(), 2);
                    left += 1;
                }
            }
            if generation.load(Ordering::Acquire) > 1 && !is_last {
                during += 1;
            }
            if is_last {
                break;
            }
        }
    });
    assert!(during > 0, "traffic while the table changed");
    assert_eq!(
        (sent, router.drops()),
        (left, vec![]),
        "{during} turns during the changes"
    );
    // All is of the last generation now, and what it does not name would go.
    router.writer = writer;
    let last = 1 + ROUNDS;
    let swept = router.writer.sweep(last);
    assert!(swept > 0);
    let port = if last.is_multiple_of(2) { EAST } else { WEST };
    assert_eq!(router.writer.label_status().len(), LABELS as usize);
    let _ = port;
}
