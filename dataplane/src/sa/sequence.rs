//! Outbound sequence numbers (RFC 4303 section 3.3.3): runs of them, never one twice, never wrapped.

use crate::sync::{AtomicU64, Ordering};

/// Consecutive sequence numbers that one worker may use, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    next: u64,
    left: u32,
}

impl Run {
    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl Iterator for Run {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        // The last number may be the last of all; the run is then empty and this is never given out.
        self.next = number.wrapping_add(1);
        Some(number)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for Run {}

/// The counter of an outbound SA, shared by all workers.
#[derive(Debug)]
pub struct SequenceNumbers {
    // The last number given out.
    last: AtomicU64,
    limit: u64,
}

impl SequenceNumbers {
    /// Continues after `last`; the last number of all is 2^32 - 1, or 2^64 - 1 with extended numbers.
    #[must_use]
    pub fn new(last: u64, extended: bool) -> Self {
        let limit = if extended { u64::MAX } else { u64::from(u32::MAX) };
        Self::with_limit(last, limit)
    }

    /// Continues after `last` and ends with `limit`.
    #[must_use]
    pub fn with_limit(last: u64, limit: u64) -> Self {
        Self {
            last: AtomicU64::new(last.min(limit)),
            limit,
        }
    }

    /// Takes up to `count` numbers: fewer where the end is near, none once it is reached. Packets without a
    /// number are dropped as `SequenceExhausted`.
    #[inline]
    pub fn reserve(&self, count: u32) -> Run {
        // Compare-and-exchange rather than add: an add beyond the end of 64 bits would begin again at
        // numbers that were used.
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let left = u32::try_from(self.limit - last).unwrap_or(u32::MAX).min(count);
            if left == 0 {
                return Run { next: 0, left };
            }
            match self.last.compare_exchange_weak(
                last,
                last + u64::from(left),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Run { next: last + 1, left },
                Err(newer) => last = newer,
            }
        }
    }

    /// The last number given out.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// How many are left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.limit - self.last()
    }

    /// Whether so few are left that a successor is due: a sixteenth of all, at most 2^28.
    #[must_use]
    pub fn is_near_end(&self) -> bool {
        self.remaining() < (self.limit / 16).min(1 << 28)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fault_50_the_end_is_reached_and_never_passed() {
        for (extended, limit) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let numbers = SequenceNumbers::new(limit - 5, extended);
            assert!(numbers.is_near_end());
            assert_eq!(
                numbers.reserve(3).collect::<Vec<_>>(),
                [limit - 4, limit - 3, limit - 2]
            );
            assert_eq!(numbers.reserve(64).collect::<Vec<_>>(), [limit - 1, limit]);
            assert!(numbers.reserve(1).is_empty());
            assert!(numbers.reserve(64).is_empty());
            assert_eq!(numbers.last(), limit);
        }
    }

    #[test]
    fn the_first_number_is_one() {
        // RFC 4303 section 3.3.3: the first packet of an SA has number 1.
        let numbers = SequenceNumbers::new(0, false);
        assert_eq!(numbers.reserve(2).collect::<Vec<_>>(), [1, 2]);
        assert!(!numbers.is_near_end());
    }

    proptest! {
        #[test]
        fn runs_follow_each_other_without_gap(counts in proptest::collection::vec(0u32..100, 1..50), start in 0u64..u64::MAX) {
            let numbers = SequenceNumbers::new(start, true);
            let mut expected = start;
            for count in counts {
                for number in numbers.reserve(count) {
                    prop_assert_eq!(Some(number), expected.checked_add(1));
                    expected = number;
                }
            }
            prop_assert_eq!(numbers.last(), expected);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_runs_of_two_workers_are_disjoint() {
        loom::model(|| {
            let numbers = Arc::new(SequenceNumbers::with_limit(0, 5));
            let other = Arc::clone(&numbers);
            let worker = thread::spawn(move || {
                let mut taken: Vec<u64> = other.reserve(2).collect();
                taken.extend(other.reserve(2));
                taken
            });
            let mut taken: Vec<u64> = numbers.reserve(3).collect();
            taken.extend(worker.join().unwrap());
            taken.sort_unstable();
            assert_eq!(taken, [1, 2, 3, 4, 5], "each number once, none beyond the end");
        });
    }
}
