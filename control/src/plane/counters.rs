//! The dataplane's counters, read from the memory it shares.
//!
//! The segment is read as a file: no mapping, hence nothing unsafe, and a reader never touches a worker's
//! cache lines longer than one copy takes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use southbound::{
    COUNTERS_MAGIC, COUNTERS_VERSION, CounterLayout, DropReason, Histogram, PortCounter, WorkerCounter,
};

/// Most workers that a header is believed.
const MAX_WORKERS: u64 = 1024;

/// The shared segment.
#[derive(Debug)]
pub struct Counters {
    file: File,
    workers: usize,
}

/// One worker's counters at about one moment.
#[derive(Clone, Debug)]
pub struct WorkerBlock(Vec<u64>);

impl Counters {
    /// Takes the descriptor over that came with the welcome.
    ///
    /// # Errors
    /// Where it holds no counters of this version.
    pub fn open(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let mut header = [0u8; 32];
        file.read_exact_at(&mut header, 0)?;
        let [magic, version, workers, block_bytes] = [0, 8, 16, 24].map(|at| cell(&header[at..at + 8]));
        if magic != COUNTERS_MAGIC
            || version != COUNTERS_VERSION
            || workers > MAX_WORKERS
            || block_bytes != CounterLayout::BLOCK_BYTES as u64
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a counter segment of this version",
            ));
        }
        Ok(Self {
            file,
            workers: workers as usize,
        })
    }

    /// Every worker's counters.
    ///
    /// # Errors
    /// Where the segment is shorter than its header says.
    pub fn read(&self) -> io::Result<Vec<WorkerBlock>> {
        (0..self.workers)
            .map(|worker| {
                let mut bytes = vec![0u8; CounterLayout::BLOCK_BYTES];
                self.file
                    .read_exact_at(&mut bytes, CounterLayout::block_start_bytes(worker) as u64)?;
                Ok(WorkerBlock(bytes.chunks_exact(8).map(cell).collect()))
            })
            .collect()
    }
}

impl WorkerBlock {
    /// A counter of the worker itself.
    #[must_use]
    pub fn worker(&self, counter: WorkerCounter) -> u64 {
        self.0[CounterLayout::worker_cell(counter)]
    }

    /// Observations of a histogram, by class; and the sum of what was observed.
    #[must_use]
    pub fn histogram(&self, histogram: Histogram) -> ([u64; Histogram::CLASSES], u64) {
        let classes = std::array::from_fn(|class| self.0[CounterLayout::histogram_cell(histogram, class)]);
        (classes, self.0[CounterLayout::histogram_sum_cell(histogram)])
    }

    /// A drop reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.0[CounterLayout::drop_cell(reason)]
    }

    /// A port's counter; `slot` is below [`southbound::PORT_SLOTS`].
    #[must_use]
    pub fn port(&self, slot: usize, counter: PortCounter) -> u64 {
        self.0[CounterLayout::port_cell(slot, counter)]
    }
}

fn cell(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn segment(workers: usize) -> File {
        let layout = CounterLayout::new(workers);
        let mut bytes = vec![0u8; layout.segment_bytes()];
        for (index, value) in layout.header().into_iter().enumerate() {
            bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        for worker in 0..workers {
            let at =
                CounterLayout::block_start_bytes(worker) + 8 * CounterLayout::drop_cell(DropReason::NoRoute);
            bytes[at..at + 8].copy_from_slice(&(worker as u64 + 1000).to_le_bytes());
        }
        let mut file = File::from(memfd_create("counters", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn each_worker_is_read_from_its_own_block() {
        let blocks = Counters::open(segment(3).into()).unwrap().read().unwrap();
        let drops: Vec<_> = blocks
            .iter()
            .map(|block| block.drops(DropReason::NoRoute))
            .collect();
        assert_eq!(drops, [1000, 1001, 1002]);
        assert_eq!(blocks[0].worker(WorkerCounter::Received), 0);
    }

    #[test]
    fn fault_87_what_is_no_segment_is_refused() {
        let short = File::from(memfd_create("short", MFdFlags::MFD_CLOEXEC).unwrap());
        assert!(Counters::open(short.into()).is_err());
        let lying = segment(1);
        lying.write_all_at(&7u64.to_le_bytes(), 16).unwrap();
        assert!(Counters::open(lying.into()).unwrap().read().is_err());
        let wrong = segment(1);
        wrong.write_all_at(&[0], 0).unwrap();
        assert!(Counters::open(wrong.into()).is_err());
    }
}
