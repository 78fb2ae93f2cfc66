//! What each worker counts by label and by routing table.
//!
//! A worker has cells of its own, written with plain stores; the writer makes the cells where it installs a label or a
//! table, so that no worker ever allocates, and sums them up for an answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use southbound::LabelSpaceId;
use wire::Label;

use super::VrfIndex;
use super::publish::{Full, Growing, prefetch};

const CHUNK: usize = 1024;
const LABELS: usize = (Label::MAX.value() as usize + 1) * (LabelSpaceId::MAX.0 as usize + 1);

/// Packets and bytes.
#[derive(Debug, Default)]
struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    #[inline(always)]
    fn add(&self, packets: u64, bytes: u64) {
        // One writer.
        let packets = self.packets.load(Ordering::Relaxed).wrapping_add(packets);
        self.packets.store(packets, Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed).wrapping_add(bytes);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// One worker's cells.
pub(crate) struct Tally {
    labels: Growing<Count, CHUNK>,
    vrfs: Growing<Count, CHUNK>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tally").finish_non_exhaustive()
    }
}

#[inline(always)]
fn place(space: LabelSpaceId, label: Label) -> u32 {
    space.0 << 20 | label.value()
}

impl Tally {
    fn new(vrfs: usize) -> Self {
        Self {
            labels: Growing::new(LABELS),
            vrfs: Growing::new(vrfs),
        }
    }

    #[inline(always)]
    pub(crate) fn prefetch_label(&self, space: LabelSpaceId, label: Label) {
        if let Some(count) = self.labels.get(place(space, label)) {
            prefetch(count);
        }
    }

    #[inline(always)]
    pub(crate) fn add_label(&self, space: LabelSpaceId, label: Label, packets: u64, bytes: u64) {
        if let Some(count) = self.labels.get(place(space, label)) {
            count.add(packets, bytes);
        }
    }

    #[inline(always)]
    pub(crate) fn add_vrf(&self, vrf: VrfIndex, packets: u64, bytes: u64) {
        if let Some(count) = self.vrfs.get(vrf.0) {
            count.add(packets, bytes);
        }
    }
}

/// The cells of all workers.
pub(crate) struct Tallies {
    vrfs: usize,
    all: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tallies: Vec<Arc<Tally>>,
    label_chunks: BTreeSet<u32>,
    vrf_chunks: BTreeSet<u32>,
}

impl Tallies {
    pub(crate) fn new(vrfs: usize) -> Self {
        Self {
            vrfs,
            all: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cells for one more worker, with room for every label and table so far.
    pub(crate) fn register(&self) -> Arc<Tally> {
        let mut known = self.known();
        let tally = Tally::new(self.vrfs);
        for chunk in &known.label_chunks {
            let _ = tally.labels.get_or_grow(*chunk * CHUNK as u32, Count::default);
        }
        for chunk in &known.vrf_chunks {
            let _ = tally.vrfs.get_or_grow(*chunk * CHUNK as u32, Count::default);
        }
        let tally = Arc::new(tally);
        known.tallies.push(Arc::clone(&tally));
        tally
    }

    /// Makes room for a label.
    pub(crate) fn make_label(&self, space: LabelSpaceId, label: Label) -> Result<(), Full> {
        let place = place(space, label);
        let mut known = self.known();
        if known.label_chunks.insert(place / CHUNK as u32) {
            for tally in &known.tallies {
                tally.labels.get_or_grow(place, Count::default)?;
            }
        }
        Ok(())
    }

    /// Makes room for a table.
    pub(crate) fn make_vrf(&self, vrf: VrfIndex) -> Result<(), Full> {
        let mut known = self.known();
        if known.vrf_chunks.insert(vrf.0 / CHUNK as u32) {
            for tally in &known.tallies {
                tally.vrfs.get_or_grow(vrf.0, Count::default)?;
            }
        }
        Ok(())
    }

    /// Packets and bytes of a label.
    pub(crate) fn label(&self, space: LabelSpaceId, label: Label) -> (u64, u64) {
        sum(&self.known(), |tally| tally.labels.get(place(space, label)))
    }

    /// Packets and bytes of a table.
    pub(crate) fn vrf(&self, vrf: VrfIndex) -> (u64, u64) {
        sum(&self.known(), |tally| tally.vrfs.get(vrf.0))
    }
}

fn sum(known: &Known, count: impl Fn(&Tally) -> Option<&Count>) -> (u64, u64) {
    known
        .tallies
        .iter()
        .filter_map(|tally| count(tally))
        .fold((0, 0), |(packets, bytes), count| {
            (
                packets + count.packets.load(Ordering::Relaxed),
                bytes + count.bytes.load(Ordering::Relaxed),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_come_before_and_after_a_label_count_it() {
        let tallies = Tallies::new(4096);
        let label = Label::new(100_000).unwrap();
        let space = LabelSpaceId(3);
        let early = tallies.register();
        early.add_label(space, label, 1, 1);
        tallies.make_label(space, label).unwrap();
        tallies.make_vrf(VrfIndex(4095)).unwrap();
        let late = tallies.register();
        for (worker, bytes) in [(&early, 100), (&late, 50)] {
            worker.add_label(space, label, 1, bytes);
            worker.add_vrf(VrfIndex(4095), 2, 10);
        }
        assert_eq!(tallies.label(space, label), (2, 150));
        assert_eq!(tallies.label(LabelSpaceId(2), label), (0, 0));
        assert_eq!(tallies.vrf(VrfIndex(4095)), (4, 20));
    }
}
