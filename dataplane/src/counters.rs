//! The counters that workers write and anybody with the memfd reads, laid out by [`southbound::CounterLayout`].
//!
//! The memory is shared with other processes, who may only read: the memfd is sealed against every other use before it
//! is given away. A worker stores with relaxed order into a block of its own, so that counting costs no locked
//! instruction and no cache line is written by two.

// The mapping of the segment is the one place here where memory has no owner that the compiler knows.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use southbound::{CounterLayout, DropReason, Histogram, PortCounter, WorkerCounter};

use crate::tables::PortSlot;

/// The segment and its memfd.
#[derive(Debug)]
pub struct CounterSegment {
    mapping: Arc<Mapping>,
    memfd: OwnedFd,
}

impl CounterSegment {
    /// A segment of zeros for `workers` workers, its header written.
    ///
    /// # Errors
    /// The kernel's: no memory, no descriptors.
    pub fn new(workers: usize) -> io::Result<Self> {
        let layout = CounterLayout::new(workers);
        let memfd = memfd_create(
            "penstock-counters",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&memfd, layout.segment_bytes() as u64)?;
        let mapping = Mapping::new(memfd.as_fd(), layout.segment_bytes())?;
        for (cell, value) in mapping.cells().iter().zip(layout.header()) {
            cell.store(value, Ordering::Relaxed);
        }
        // Our own mapping stays writable; nobody else can make one, or cut the memory from under a reader.
        fcntl_add_seals(
            &memfd,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )?;
        Ok(Self {
            mapping: Arc::new(mapping),
            memfd,
        })
    }

    /// The block of a worker, below the number of workers; each is to be taken by one thread.
    #[must_use]
    pub fn worker(&self, worker: usize) -> WorkerCounters {
        let start = CounterLayout::block_start_bytes(worker) / size_of::<u64>();
        WorkerCounters {
            mapping: Arc::clone(&self.mapping),
            start,
        }
    }

    /// The segment for readers.
    #[must_use]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

/// Mapped cells, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    length_bytes: usize,
}

// SAFETY: the mapping is only ever seen as atomics, which any thread may use, and unmapped by the last owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(memfd: BorrowedFd<'_>, length_bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length_bytes,
                protection,
                MapFlags::SHARED,
                memfd,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length_bytes })
    }

    fn cells(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, of at least this length, zeroed by the kernel, lives as long as `self`,
        // and cannot shrink: the memfd is sealed. Every access to it, here and elsewhere, is atomic or a read.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length_bytes / size_of::<u64>()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the pair came from `mmap`, and no slice of it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length_bytes) };
    }
}

/// One worker's block.
#[derive(Debug)]
pub struct WorkerCounters {
    mapping: Arc<Mapping>,
    /// First cell of the block.
    start: usize,
}

impl WorkerCounters {
    /// A block in a segment of its own, for tests and benchmarks.
    ///
    /// # Panics
    /// Where the kernel has no memory for it.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    #[expect(clippy::expect_used, reason = "tests only")]
    pub fn detached() -> Self {
        CounterSegment::new(1).expect("a memfd of some pages").worker(0)
    }

    #[inline]
    fn cells(&self) -> &[AtomicU64] {
        self.mapping.cells().get(self.start..).unwrap_or_default()
    }

    #[inline]
    fn bump(&self, cell: usize, count: u64) {
        if let Some(cell) = self.cells().get(cell) {
            cell.store(
                cell.load(Ordering::Relaxed).wrapping_add(count),
                Ordering::Relaxed,
            );
        }
    }

    /// Adds.
    #[inline]
    pub fn add(&self, counter: WorkerCounter, count: u64) {
        self.bump(CounterLayout::worker_cell(counter), count);
    }

    /// Observes `value`, `count` times.
    #[inline]
    pub fn observe(&self, histogram: Histogram, value: u64, count: u64) {
        let class = histogram.class(value);
        self.bump(CounterLayout::histogram_cell(histogram, class), count);
        let sum = value.wrapping_mul(count);
        self.bump(CounterLayout::histogram_sum_cell(histogram), sum);
    }

    /// Sets a level.
    #[inline]
    pub fn set(&self, counter: WorkerCounter, value: u64) {
        if let Some(cell) = self.cells().get(CounterLayout::worker_cell(counter)) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Reads.
    #[must_use]
    pub fn get(&self, counter: WorkerCounter) -> u64 {
        self.cells()
            .get(CounterLayout::worker_cell(counter))
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Counts drops.
    #[inline]
    pub fn drop_packets(&self, reason: DropReason, count: u64) {
        self.bump(CounterLayout::drop_cell(reason), count);
    }

    /// Reads drops.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.cells()
            .get(CounterLayout::drop_cell(reason))
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Packets that came less packets that went, waited or were dropped: 0 between batches.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        use WorkerCounter::{Absorbed, FromHost, Generated, Held, Received, ToHost, Transmitted};
        let sum = |counters: &[WorkerCounter]| counters.iter().map(|counter| self.get(*counter)).sum::<u64>();
        let came = sum(&[Received, FromHost, Generated]);
        let dropped: u64 = DropReason::ALL.iter().map(|reason| self.dropped(*reason)).sum();
        let went = sum(&[Transmitted, ToHost, Absorbed, Held]) + dropped;
        came.wrapping_sub(went).cast_signed()
    }

    /// Adds to a port's.
    #[inline]
    pub fn add_port(&self, slot: PortSlot, counter: PortCounter, count: u64) {
        self.bump(CounterLayout::port_cell(slot.get(), counter), count);
    }

    /// A port's.
    #[must_use]
    pub fn get_port(&self, slot: PortSlot, counter: PortCounter) -> u64 {
        self.cells()
            .get(CounterLayout::port_cell(slot.get(), counter))
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_reader_of_the_memfd_sees_what_each_worker_wrote() {
        let segment = CounterSegment::new(2).unwrap();
        segment.worker(0).add(WorkerCounter::Received, 3);
        segment.worker(1).add(WorkerCounter::Received, 4);
        segment.worker(1).drop_packets(DropReason::Replayed, 5);
        let reader = File::from(segment.memfd().try_clone_to_owned().unwrap());
        let cell = |worker, cell: usize| {
            let mut bytes = [0; 8];
            let at = CounterLayout::block_start_bytes(worker) + cell * 8;
            reader.read_exact_at(&mut bytes, at as u64).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!(cell(0, CounterLayout::worker_cell(WorkerCounter::Received)), 3);
        assert_eq!(cell(1, CounterLayout::worker_cell(WorkerCounter::Received)), 4);
        assert_eq!(cell(1, CounterLayout::drop_cell(DropReason::Replayed)), 5);
        let mut magic = [0; 8];
        reader.read_exact_at(&mut magic, 0).unwrap();
        assert_eq!(u64::from_le_bytes(magic), southbound::COUNTERS_MAGIC);
    }

    #[test]
    fn a_reader_can_neither_write_nor_shrink() {
        let segment = CounterSegment::new(1).unwrap();
        let reader = File::from(segment.memfd().try_clone_to_owned().unwrap());
        assert!(reader.write_at(&[1], 200).is_err());
        assert!(reader.set_len(0).is_err());
    }
}
