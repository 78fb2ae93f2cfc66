//! Traffic of the last minutes, for the page's plots.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use southbound::{DropReason, WorkerCounter};

use crate::plane::WorkerBlock;

const INTERVAL: Duration = Duration::from_secs(2);

/// Five minutes.
const MAX_SAMPLES: usize = 150;

/// The sums over all workers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Milliseconds since the daemon started.
    pub at_ms: u64,
    /// Bytes opened.
    pub in_bytes: u64,
    /// Bytes sealed.
    pub out_bytes: u64,
    /// Packets opened.
    pub in_packets: u64,
    /// Packets sealed.
    pub out_packets: u64,
    /// Packets dropped for whatever reason.
    pub drop_packets: u64,
}

/// Samples two seconds apart.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    last: Option<Instant>,
}

impl History {
    /// Whether a sample is due.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= INTERVAL)
    }

    /// Takes a sample; the daemon started `age` ago.
    pub fn take(&mut self, now: Instant, age: Duration, blocks: &[WorkerBlock]) {
        let sum = |counter| blocks.iter().map(|block| block.worker(counter)).sum();
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.last = Some(now);
        self.samples.push_back(Sample {
            at_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            in_bytes: sum(WorkerCounter::EspInBytes),
            out_bytes: sum(WorkerCounter::EspOutBytes),
            in_packets: sum(WorkerCounter::EspInPackets),
            out_packets: sum(WorkerCounter::EspOutPackets),
            drop_packets: blocks
                .iter()
                .map(|block| {
                    DropReason::ALL
                        .iter()
                        .map(|reason| block.drops(*reason))
                        .sum::<u64>()
                })
                .sum(),
        });
    }

    /// All samples, oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_the_latest() {
        let mut history = History::default();
        let start = Instant::now();
        for second in 0..2 * MAX_SAMPLES as u64 {
            let now = start + Duration::from_secs(2 * second);
            assert!(history.is_due(now));
            history.take(now, Duration::from_secs(2 * second), &[]);
            assert!(!history.is_due(now + Duration::from_millis(1999)));
        }
        let samples = history.samples();
        assert_eq!(samples.len(), MAX_SAMPLES);
        assert_eq!(
            samples.last().unwrap().at_ms,
            2 * (2 * MAX_SAMPLES as u64 - 1) * 1000
        );
    }
}
