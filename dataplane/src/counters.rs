//! Worker counters.

use std::sync::atomic::{AtomicU64, Ordering};

use southbound::{CounterLayout, DropReason, PortCounter, WorkerCounter};

use crate::tables::PortSlot;

/// One worker's block.
#[derive(Debug)]
pub struct WorkerCounters {
    cells: Box<[AtomicU64]>,
}

impl WorkerCounters {
    /// A block in memory of its own.
    #[must_use]
    pub fn detached() -> Self {
        Self {
            cells: (0..CounterLayout::BLOCK_LENGTH)
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }

    #[inline]
    fn bump(&self, cell: usize, count: u64) {
        if let Some(cell) = self.cells.get(cell) {
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

    /// Sets a level.
    #[inline]
    pub fn set(&self, counter: WorkerCounter, value: u64) {
        if let Some(cell) = self.cells.get(CounterLayout::worker_cell(counter)) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Reads.
    #[must_use]
    pub fn get(&self, counter: WorkerCounter) -> u64 {
        self.cells
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
        self.cells
            .get(CounterLayout::drop_cell(reason))
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Adds to a port's.
    #[inline]
    pub fn add_port(&self, slot: PortSlot, counter: PortCounter, count: u64) {
        self.bump(CounterLayout::port_cell(slot.get(), counter), count);
    }

    /// Sets a port's.
    #[inline]
    pub fn set_port(&self, slot: PortSlot, counter: PortCounter, value: u64) {
        if let Some(cell) = self.cells.get(CounterLayout::port_cell(slot.get(), counter)) {
            cell.store(value, Ordering::Relaxed);
        }
    }
}
