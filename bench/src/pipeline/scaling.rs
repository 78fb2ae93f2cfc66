//! Several workers at once: what each packet costs while the others work too.

use std::fmt::Write as _;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use thiserror::Error;

use super::{
    BATCH_PACKETS, BATCHES_PER_LOOK, Case, Gateways, Rig, RigError, WARM_UP_BATCHES, median_and_least,
};

/// Looks alone and together in turn, so that what else the machine does falls on both.
const ROUNDS: u32 = 8;

/// Why there is nothing to measure.
#[derive(Debug, Error)]
pub enum ScalingError {
    /// A worker's gateway.
    #[error("{0}")]
    Rig(#[from] RigError),
    /// A worker's thread.
    #[error("a worker: {0}")]
    Thread(#[from] io::Error),
}

/// One case with several workers, each on a CPU of its own.
#[derive(Clone, Debug, Serialize)]
pub struct Scaling {
    /// The case.
    pub case: String,
    /// Workers.
    pub workers: u16,
    /// TSC cycles a packet of one worker while the others rest, median.
    pub alone_cycles_per_packet: f64,
    /// The same while all work, mean of the workers' medians.
    pub together_cycles_per_packet: f64,
    /// Packets a second of all workers together over those of one alone.
    pub speed_up: f64,
}

/// Measures `case` for about `budget` with `workers` workers that share the gateway's tables: with one SA they share it,
/// with as many SAs as workers each has one.
///
/// # Errors
/// See [`ScalingError`].
pub fn measure_workers(case: &Case, workers: u16, budget: Duration) -> Result<Scaling, ScalingError> {
    let share = budget / (2 * ROUNDS);
    let turns = Turns {
        workers,
        gate: Barrier::new(usize::from(workers)),
        is_broken: AtomicBool::new(false),
        share,
    };
    let gateways = Gateways::new(case)?;
    let samples: Vec<Result<Samples, ScalingError>> = std::thread::scope(|threads| {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                let (gateways, turns) = (&gateways, &turns);
                threads.spawn(move || turns.take(gateways, worker))
            })
            .collect();
        handles.into_iter().map(joined).collect()
    });
    let mut samples = samples.into_iter().collect::<Result<Vec<_>, _>>()?;
    let alone = samples
        .first_mut()
        .map_or(f64::NAN, |first| median_and_least(&mut first.alone).0);
    let together: Vec<f64> = samples
        .iter_mut()
        .map(|samples| median_and_least(&mut samples.together).0)
        .collect();
    Ok(Scaling {
        case: case.name(),
        workers,
        alone_cycles_per_packet: alone,
        together_cycles_per_packet: together.iter().sum::<f64>() / f64::from(workers),
        speed_up: together.iter().map(|cycles| alone / cycles).sum(),
    })
}

fn joined(
    handle: std::thread::ScopedJoinHandle<'_, Result<Samples, ScalingError>>,
) -> Result<Samples, ScalingError> {
    handle
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("its thread panicked").into()))
}

/// Cycles a packet, a sample a batch.
#[derive(Default)]
struct Samples {
    alone: Vec<f64>,
    together: Vec<f64>,
}

/// Who works when.
struct Turns {
    workers: u16,
    gate: Barrier,
    /// One failed: the others end with it instead of waiting for ever.
    is_broken: AtomicBool,
    share: Duration,
}

impl Turns {
    fn take(&self, gateways: &Gateways, worker: u16) -> Result<Samples, ScalingError> {
        let mut samples = Samples::default();
        let mut rig = self.prepare(gateways, worker);
        for _ in 0..ROUNDS {
            self.gate.wait();
            if worker == 0 {
                rig = rig.and_then(|rig| self.work(rig, &mut samples.alone));
            }
            self.gate.wait();
            rig = rig.and_then(|rig| self.work(rig, &mut samples.together));
            if rig.is_err() {
                self.is_broken.store(true, Ordering::Relaxed);
            }
            self.gate.wait();
            // Everybody sees the same here.
            if self.is_broken.load(Ordering::Relaxed) {
                break;
            }
        }
        rig.map(|_| samples)
    }

    /// A warm worker on its own CPU.
    fn prepare(&self, gateways: &Gateways, worker: u16) -> Result<Rig, ScalingError> {
        let mut cpus = CpuSet::new();
        cpus.set(usize::from(worker)).map_err(io::Error::from)?;
        sched_setaffinity(Pid::from_raw(0), &cpus).map_err(io::Error::from)?;
        let mut rig = gateways.worker(worker, self.workers)?;
        let clock = quanta::Clock::new();
        for _ in 0..WARM_UP_BATCHES {
            rig.run_batch(&clock)?;
        }
        Ok(rig)
    }

    /// Works for one share of the time.
    fn work(&self, mut rig: Rig, cycles: &mut Vec<f64>) -> Result<Rig, ScalingError> {
        let clock = quanta::Clock::new();
        let until = Instant::now() + self.share;
        while Instant::now() < until {
            for _ in 0..BATCHES_PER_LOOK {
                cycles.push(rig.run_batch(&clock)? as f64 / BATCH_PACKETS as f64);
            }
        }
        Ok(rig)
    }
}

/// A Markdown table.
#[must_use]
pub fn markdown_of_workers(rows: &[Scaling]) -> String {
    let mut text = String::from(
        "| case | workers | one alone, cycles/packet | each together | all together / one |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.2} |",
            row.case, row.workers, row.alone_cycles_per_packet, row.together_cycles_per_packet, row.speed_up
        );
    }
    text
}
