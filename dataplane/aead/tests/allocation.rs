//! Nothing is allocated per packet.

#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use esp_aead::{Algorithm, Engine, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything through to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn sealing_and_opening_allocate_nothing() {
    for engine in Engine::ALL.into_iter().filter(|engine| engine.is_usable()) {
        for algorithm in Algorithm::ALL {
            let transform = Transform::new(algorithm, true);
            let keymat = vec![0x35; algorithm.key_bytes()];
            let seal_key = SealKey::with_engine(engine, transform, &keymat).unwrap();
            let open_key = OpenKey::with_engine(engine, transform, &keymat).unwrap();
            let mut packets = vec![vec![0; algorithm.overhead_bytes() + 1424]; 40];
            let mut seals: Vec<_> = packets
                .iter_mut()
                .map(|p| SealJob::new(&seal_key, p, 5))
                .collect();
            let before = ALLOCATIONS.with(Cell::get);
            seal(&mut seals);
            let after = ALLOCATIONS.with(Cell::get);
            assert_eq!(before, after, "seal {engine:?} {algorithm:?}");
            assert!(seals.iter().all(|job| job.verdict == Verdict::Done));
            drop(seals);
            packets[3][60] ^= 1;
            let mut opens: Vec<_> = packets
                .iter_mut()
                .map(|p| OpenJob::new(&open_key, p, 5))
                .collect();
            let before = ALLOCATIONS.with(Cell::get);
            open(&mut opens);
            let after = ALLOCATIONS.with(Cell::get);
            assert_eq!(before, after, "open {engine:?} {algorithm:?}");
            assert_eq!(
                opens.iter().filter(|job| job.verdict == Verdict::Done).count(),
                39
            );
        }
    }
}
