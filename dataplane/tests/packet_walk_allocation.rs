//! No allocation per packet: a counting allocator watches the worker's thread while packets cross two gateways.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one only counts"
)]

mod walk;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use southbound::{Encryption, Integrity, Mode, Transform};
use walk::gateway::{LAN, WAN};
use walk::packets::Ip;
use walk::pair::Pair;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// Every engine of the cipher, both ways, ICMP errors, held packets and fragments included.
#[test]
fn packets_cost_no_allocation() {
    let watched = allocations_of(|| drop(std::hint::black_box(Box::new([0u8; 64]))));
    assert_eq!(watched, 1, "the counter counts");
    for transform in [
        Transform::new(Encryption::AesGcm128, None).unwrap(),
        Transform::new(Encryption::ChaCha20Poly1305, None).unwrap(),
        Transform::new(Encryption::AesCbc128, Some(Integrity::HmacSha256)).unwrap(),
        Transform::new(Encryption::AesCtr256, Some(Integrity::HmacSha512)).unwrap(),
    ] {
        let mut pair = Pair::new(transform, Mode::Tunnel, false, true, true);
        let kinds = [
            Ip::udp("10.1.0.5", "10.2.0.5", 100),
            Ip::udp("fd01::5", "fd02::5", 1200),
            Ip {
                hops: 1,
                ..Ip::udp("10.1.0.5", "10.2.0.5", 100)
            },
            Ip {
                dont_fragment: false,
                ..Ip::udp("10.1.0.5", "10.2.0.5", 2000)
            },
            Ip::udp("10.1.0.5", "10.2.0.5", 1500),
            Ip::udp("10.1.0.5", "192.0.2.99", 100),
        ];
        for round in 0..20 {
            for kind in &kinds {
                pair.one.deliver(LAN, &kind.bytes());
            }
            pair.one.now_ns += 1_000;
            let (worker, now_ns) = (&mut pair.one.worker, pair.one.now_ns);
            let cost = allocations_of(|| {
                worker.turn(now_ns);
            });
            // The first turns may fill thread-local and once-only state.
            assert!(
                round < 2 || cost == 0,
                "{transform}: round {round} out cost {cost}"
            );
            for packet in pair.one.collect(WAN) {
                pair.two.deliver(WAN, &packet);
            }
            pair.one.collect(LAN);
            pair.two.now_ns += 1_000;
            let (worker, now_ns) = (&mut pair.two.worker, pair.two.now_ns);
            let cost = allocations_of(|| {
                worker.turn(now_ns);
            });
            assert!(
                round < 2 || cost == 0,
                "{transform}: round {round} in cost {cost}"
            );
            assert_eq!(pair.two.collect(LAN).len(), 4);
        }
    }
}
