//! [`WorkerSlots`]: the outbound SAs of a tunnel that are one worker's alone (RFC 9611).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use southbound::MAX_WORKERS;

const NO_SA: u32 = u32::MAX;

/// How soon a worker without an SA of its own may ask again: a peer that refused is asked now and then.
const ACQUIRE_INTERVAL_MS: u64 = 10_000;

/// One cache line a worker: its acquires disturb no other.
#[repr(align(64))]
#[derive(Debug)]
struct WorkerSlot {
    /// A place in the arena of outbound SAs.
    outbound: AtomicU32,
    acquire_again_ms: AtomicU64,
}

impl Default for WorkerSlot {
    fn default() -> Self {
        Self {
            outbound: AtomicU32::new(NO_SA),
            acquire_again_ms: AtomicU64::new(0),
        }
    }
}

/// A slot for each worker, taken with the first use: most tunnels have none.
#[derive(Debug, Default)]
pub(super) struct WorkerSlots(OnceLock<Box<[WorkerSlot]>>);

impl WorkerSlots {
    /// The place of the SA of `worker`.
    #[inline]
    pub(super) fn place(&self, worker: u16) -> Option<u32> {
        let place = self
            .0
            .get()?
            .get(usize::from(worker))?
            .outbound
            .load(Ordering::Acquire);
        (place != NO_SA).then_some(place)
    }

    /// The worker whose SA is at `place`.
    pub(super) fn worker_of(&self, place: u32) -> Option<u16> {
        let slots = self.0.get()?;
        let worker = slots
            .iter()
            .position(|slot| slot.outbound.load(Ordering::Relaxed) == place)?;
        u16::try_from(worker).ok()
    }

    /// Gives `worker` an SA of its own. Workers beyond [`MAX_WORKERS`] are not there.
    pub(super) fn select(&self, worker: u16, place: u32) {
        if let Some(slot) = self.slots().get(usize::from(worker)) {
            slot.outbound.store(place, Ordering::Release);
        }
    }

    /// Takes the SA at `place` from whoever has it, who may ask for another at once.
    pub(super) fn forget(&self, place: u32) {
        for slot in self.0.get().into_iter().flatten() {
            // Writer and worker may both be at it: what was selected meanwhile stays.
            let taken = slot
                .outbound
                .compare_exchange(place, NO_SA, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                slot.acquire_again_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Whether `worker`, which has no SA of its own, should ask for one now.
    pub(super) fn should_acquire(&self, worker: u16, now_ms: u64) -> bool {
        let Some(slot) = self.slots().get(usize::from(worker)) else {
            return false;
        };
        let is_due = now_ms >= slot.acquire_again_ms.load(Ordering::Relaxed);
        if is_due {
            // The worker alone asks for itself.
            slot.acquire_again_ms
                .store(now_ms + ACQUIRE_INTERVAL_MS, Ordering::Relaxed);
        }
        is_due
    }

    /// The same for a tunnel that takes the place of this one.
    pub(super) fn carry_over(&self) -> Self {
        let Some(before) = self.0.get() else {
            return Self::default();
        };
        let slots = before.iter().map(|slot| WorkerSlot {
            outbound: AtomicU32::new(slot.outbound.load(Ordering::Relaxed)),
            acquire_again_ms: AtomicU64::new(slot.acquire_again_ms.load(Ordering::Relaxed)),
        });
        Self(OnceLock::from(slots.collect::<Box<[_]>>()))
    }

    fn slots(&self) -> &[WorkerSlot] {
        self.0
            .get_or_init(|| (0..MAX_WORKERS).map(|_| WorkerSlot::default()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_its_own_until_it_goes() {
        let slots = WorkerSlots::default();
        assert_eq!(slots.place(0), None);
        slots.select(1, 70);
        assert_eq!(
            (slots.place(0), slots.place(1), slots.worker_of(70)),
            (None, Some(70), Some(1))
        );
        let successor = slots.carry_over();
        assert_eq!(successor.place(1), Some(70));
        successor.forget(70);
        assert_eq!((successor.place(1), successor.worker_of(70)), (None, None));
        // Nobody's, and no room is taken.
        slots.select(u16::MAX, 7);
        assert_eq!(slots.place(u16::MAX), None);
    }

    #[test]
    fn it_asks_now_and_then_and_at_once_after_a_loss() {
        let slots = WorkerSlots::default();
        assert!(slots.should_acquire(1, 5));
        assert!(!slots.should_acquire(1, 6));
        assert!(slots.should_acquire(0, 6), "each for itself");
        assert!(slots.should_acquire(1, 5 + ACQUIRE_INTERVAL_MS));
        slots.select(1, 70);
        slots.forget(70);
        assert!(slots.should_acquire(1, 6 + ACQUIRE_INTERVAL_MS));
        assert!(!slots.should_acquire(u16::MAX, 1 << 40));
    }
}
