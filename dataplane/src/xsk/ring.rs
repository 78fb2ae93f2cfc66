//! One ring: a power of two of entries between exactly one producer and one consumer.
//!
//! The kernel is the other side of every ring of a socket; a second thread is the other side in tests. Both indices run
//! freely over `u32` and wrap; an entry's place is its index modulo the ring's size. The producer writes entries and
//! then publishes its index with release; the consumer reads that index with acquire and so sees the entries; it gives
//! the places back by publishing its own index with release.

use std::ptr::NonNull;

use super::sync::{AtomicU32, Ordering, UnsafeCell};

/// Where a ring lies in memory. `Copy`, because it carries no right by itself: [`Producer::new`] and [`Consumer::new`]
/// give rights, and are unsafe for it.
pub(super) struct RingMemory<T> {
    /// Index of the next entry the producer will write.
    pub(super) producer: NonNull<AtomicU32>,
    /// Index of the next entry the consumer will read.
    pub(super) consumer: NonNull<AtomicU32>,
    /// `XDP_RING_NEED_WAKEUP` or nothing.
    pub(super) flags: NonNull<AtomicU32>,
    /// The first of `mask + 1` entries.
    pub(super) entries: NonNull<UnsafeCell<T>>,
    /// The number of entries less one.
    pub(super) mask: u32,
}

impl<T> Clone for RingMemory<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RingMemory<T> {}

/// The flag of a fill or transmit ring by which a driver says that it sleeps (`linux/if_xdp.h`).
pub(super) const NEED_WAKEUP: u32 = 1;

impl<T: Copy> RingMemory<T> {
    fn size(&self) -> u32 {
        self.mask + 1
    }

    #[inline(always)]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: whoever made the Producer or Consumer that calls this promised that the pointer is valid.
        unsafe { self.producer.as_ref() }
    }

    #[inline(always)]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline(always)]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &UnsafeCell<T> {
        // SAFETY: the mask keeps the offset under the number of entries, all of which are valid by the same promise.
        unsafe { self.entries.add((index & self.mask) as usize).as_ref() }
    }
}

/// The writing end of a ring.
pub(super) struct Producer<T> {
    memory: RingMemory<T>,
    /// Next index to write; ahead of the published one by what is staged.
    next: u32,
    /// What is published.
    published: u32,
    /// The consumer's index when last looked at.
    consumer_seen: u32,
}

// SAFETY: the end owns its side of the ring, and the ring's memory is shared by atomics only.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T: Copy> Producer<T> {
    /// # Safety
    ///
    /// The pointers are valid for as long as the producer lives and nothing else writes to this ring's entries or to
    /// its producer index.
    pub(super) unsafe fn new(memory: RingMemory<T>) -> Self {
        let next = memory.producer().load(Ordering::Relaxed);
        let consumer_seen = memory.consumer().load(Ordering::Acquire);
        Self {
            memory,
            next,
            published: next,
            consumer_seen,
        }
    }

    #[inline(always)]
    fn occupied(&self) -> u32 {
        self.next.wrapping_sub(self.consumer_seen)
    }

    /// Places that can be written now.
    pub(super) fn free(&mut self) -> u32 {
        self.consumer_seen = self.memory.consumer().load(Ordering::Acquire);
        self.memory.size().saturating_sub(self.occupied())
    }

    /// Stages one entry; false when the ring is full. The other side sees it after [`Producer::publish`].
    #[inline]
    pub(super) fn stage(&mut self, value: T) -> bool {
        if self.occupied() >= self.memory.size() {
            // Acquire: the consumer has finished reading the places that it gives back.
            self.consumer_seen = self.memory.consumer().load(Ordering::Acquire);
            if self.occupied() >= self.memory.size() {
                return false;
            }
        }
        // SAFETY: this place is between the consumer's index and ours, so only this end touches it until published.
        self.memory
            .entry(self.next)
            .with_mut(|place| unsafe { place.write(value) });
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Entries the ring has.
    pub(super) fn size(&self) -> u32 {
        self.memory.size()
    }

    /// Entries staged and not published.
    pub(super) fn staged(&self) -> u32 {
        self.next.wrapping_sub(self.published)
    }

    /// Shows the staged entries to the other side and says how many they were.
    #[inline]
    pub(super) fn publish(&mut self) -> u32 {
        let staged = self.next.wrapping_sub(self.published);
        if staged != 0 {
            self.memory.producer().store(self.next, Ordering::Release);
            self.published = self.next;
        }
        staged
    }

    /// Entries published and not yet taken by the other side.
    #[inline]
    pub(super) fn pending(&self) -> u32 {
        self.published
            .wrapping_sub(self.memory.consumer().load(Ordering::Acquire))
    }

    /// Whether the other side asks to be woken.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.memory.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The reading end of a ring.
pub(super) struct Consumer<T> {
    memory: RingMemory<T>,
    /// Next index to read.
    next: u32,
    /// What the producer is known to have given back.
    released: u32,
    /// The producer's index when last looked at.
    producer_seen: u32,
}

// SAFETY: the end owns its side of the ring, and the ring's memory is shared by atomics only.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Copy> Consumer<T> {
    /// # Safety
    ///
    /// The pointers are valid for as long as the consumer lives and nothing else reads this ring's entries or writes
    /// its consumer index.
    pub(super) unsafe fn new(memory: RingMemory<T>) -> Self {
        let next = memory.consumer().load(Ordering::Relaxed);
        let producer_seen = memory.producer().load(Ordering::Acquire);
        Self {
            memory,
            next,
            released: next,
            producer_seen,
        }
    }

    /// Takes one entry. The place goes back to the producer with [`Consumer::release`].
    #[inline]
    pub(super) fn take(&mut self) -> Option<T> {
        if self.next == self.producer_seen {
            // Acquire: the entries before this index are written.
            self.producer_seen = self.memory.producer().load(Ordering::Acquire);
            if self.next == self.producer_seen {
                return None;
            }
        }
        // SAFETY: this place is between our index and the producer's, so the producer leaves it alone until released,
        // and has written it, as the acquire above saw its index. `T` has no invalid bit patterns (u64, descriptors).
        let value = self.memory.entry(self.next).with(|place| unsafe { place.read() });
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Gives the places of all entries taken back to the producer.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.released != self.next {
            self.memory.consumer().store(self.next, Ordering::Release);
            self.released = self.next;
        }
    }

    /// Entries that wait to be taken.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.memory
            .producer()
            .load(Ordering::Acquire)
            .wrapping_sub(self.next)
    }

    /// Asks the producer to wake this side, or stops asking.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn ask_wakeup(&self, ask: bool) {
        self.memory
            .flags()
            .store(if ask { NEED_WAKEUP } else { 0 }, Ordering::Relaxed);
    }
}

/// A ring in ordinary memory: what the kernel's mapping is to a socket, for tests.
#[cfg(any(test, feature = "testing"))]
pub(super) struct HeapRing<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: Box<[UnsafeCell<T>]>,
}

// SAFETY: the entries are reached only through one Producer and one Consumer, which hand each over by the indices.
#[cfg(any(test, feature = "testing"))]
unsafe impl<T: Send> Sync for HeapRing<T> {}

#[cfg(any(test, feature = "testing"))]
impl<T: Copy> HeapRing<T> {
    /// An empty ring of `size` entries, a power of two, whose indices start at `start`; `blank` fills the places.
    pub(super) fn new(size: u32, start: u32, blank: T) -> Self {
        assert!(size.is_power_of_two(), "ring sizes are powers of two");
        Self {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size).map(|_| UnsafeCell::new(blank)).collect(),
        }
    }

    /// The ring's place, valid while `self` is neither moved out of its heap block nor dropped.
    pub(super) fn memory(&self) -> RingMemory<T> {
        RingMemory {
            producer: NonNull::from(&self.producer),
            consumer: NonNull::from(&self.consumer),
            flags: NonNull::from(&self.flags),
            entries: NonNull::from(&self.entries[0]),
            mask: self.entries.len() as u32 - 1,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(ring: &HeapRing<u64>) -> (Producer<u64>, Consumer<u64>) {
        // SAFETY: the ring outlives both ends in every test, and these are its only ends.
        unsafe { (Producer::new(ring.memory()), Consumer::new(ring.memory())) }
    }

    #[test]
    fn entries_are_unseen_until_published_and_places_unfree_until_released() {
        let ring = HeapRing::new(2, 0, 0);
        let (mut producer, mut consumer) = ends(&ring);
        assert!(producer.stage(1) && producer.stage(2));
        assert!(!producer.stage(3), "full");
        assert_eq!(consumer.take(), None, "staged only");
        assert_eq!(producer.publish(), 2);
        assert_eq!(producer.pending(), 2);
        assert_eq!(
            (consumer.take(), consumer.take(), consumer.take()),
            (Some(1), Some(2), None)
        );
        assert!(!producer.stage(3), "taken, not released");
        consumer.release();
        assert_eq!((producer.pending(), producer.free()), (0, 2));
        assert!(producer.stage(3));
    }

    #[test]
    fn indices_wrap_at_the_end_of_u32() {
        let ring = HeapRing::new(4, u32::MAX - 1, 0);
        let (mut producer, mut consumer) = ends(&ring);
        for round in 0..8u64 {
            for n in 0..4 {
                assert!(producer.stage(round * 4 + n));
            }
            assert!(!producer.stage(99));
            assert_eq!(producer.publish(), 4);
            assert_eq!(consumer.waiting(), 4);
            for n in 0..4 {
                assert_eq!(consumer.take(), Some(round * 4 + n));
            }
            consumer.release();
        }
    }

    #[test]
    fn the_wakeup_flag_goes_from_consumer_to_producer() {
        let ring = HeapRing::new(4, 0, 0);
        let (producer, consumer) = ends(&ring);
        assert!(!producer.needs_wakeup());
        consumer.ask_wakeup(true);
        assert!(producer.needs_wakeup());
    }

    proptest! {
        /// Against a queue of the standard library: any order of operations gives the same entries.
        #[test]
        fn behaves_as_a_bounded_queue(
            start in prop_oneof![Just(0u32), (u32::MAX - 20)..=u32::MAX],
            log_size in 0u32..4,
            operations in proptest::collection::vec(0u8..4, 0..200),
        ) {
            let size = 1usize << log_size;
            let ring = HeapRing::new(size as u32, start, 0);
            let (mut producer, mut consumer) = ends(&ring);
            let mut model: std::collections::VecDeque<u64> = Default::default();
            let (mut staged, mut unreleased, mut number) = (Vec::new(), 0usize, 0u64);
            for operation in operations {
                match operation {
                    0 => {
                        let fits = model.len() + staged.len() + unreleased < size;
                        prop_assert_eq!(producer.stage(number), fits);
                        if fits { staged.push(number); }
                        number += 1;
                    }
                    1 => {
                        prop_assert_eq!(producer.publish() as usize, staged.len());
                        model.extend(staged.drain(..));
                    }
                    2 => {
                        let expected = model.pop_front();
                        unreleased += usize::from(expected.is_some());
                        prop_assert_eq!(consumer.take(), expected);
                    }
                    _ => { consumer.release(); unreleased = 0; }
                }
                prop_assert_eq!(consumer.waiting() as usize, model.len());
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Three entries through a ring of two, from one thread to the other: loom checks every interleaving for a read of
    /// an entry that is being written, and the assertion for order and loss.
    #[test]
    fn loom_entries_arrive_whole_and_in_order() {
        loom::model(|| {
            let ring = Arc::new(HeapRing::<u64>::new(2, u32::MAX, 0));
            // SAFETY: the only producer of the ring, which the Arc held by its thread keeps alive.
            let mut producer = unsafe { Producer::new(ring.memory()) };
            // SAFETY: the only consumer of the ring, kept alive by the Arc here.
            let mut consumer = unsafe { Consumer::new(ring.memory()) };
            let kept = ring.clone();
            let writer = thread::spawn(move || {
                for number in 1..=3 {
                    while !producer.stage(number) {
                        thread::yield_now();
                    }
                    producer.publish();
                }
                drop(kept);
            });
            for expected in 1..=3 {
                loop {
                    if let Some(number) = consumer.take() {
                        assert_eq!(number, expected);
                        consumer.release();
                        break;
                    }
                    thread::yield_now();
                }
            }
            writer.join().expect("the writer ends");
        });
    }
}
