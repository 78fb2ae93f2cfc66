//! The packet path without a NIC: batches of prepared frames through the real stages, tables and crypto, timed in TSC
//! cycles. What makes the frames, and takes them away, is left out of the time.

mod aead;
mod case;
mod labels;
mod report;
mod rig;
mod scaling;

pub use aead::bare_seal_cycles;
pub use case::{Case, Kind};
pub use report::{Record, markdown};
pub use rig::{Gateways, Rig, RigError};
pub use scaling::{Scaling, ScalingError, markdown_of_workers, measure_workers};

use std::time::Duration;

/// Packets of one batch, as a worker takes them.
pub const BATCH_PACKETS: usize = dataplane::batch::BATCH_PACKETS;

/// Median and least of samples; the samples are sorted on the way.
#[must_use]
pub fn median_and_least(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let middle = samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN);
    (middle, samples.first().copied().unwrap_or(f64::NAN))
}

/// Measures one case for about `budget`, and the bare AEAD on buffers of the same lengths in the same run.
///
/// # Errors
/// [`RigError`] where a packet did not come through: a wrong pipeline has no speed.
pub fn measure(case: &Case, budget: Duration) -> Result<Record, RigError> {
    let mut rig = Rig::new(case)?;
    let clock = quanta::Clock::new();
    for _ in 0..WARM_UP_BATCHES {
        rig.run_batch(&clock)?;
    }
    let (mut cycles, mut aead) = (Vec::new(), Vec::new());
    let until = std::time::Instant::now() + budget;
    while std::time::Instant::now() < until {
        for _ in 0..BATCHES_PER_LOOK {
            cycles.push(rig.run_batch(&clock)? as f64 / BATCH_PACKETS as f64);
        }
        if let Some(bare) = bare_seal_cycles(case, &clock) {
            aead.push(bare);
        }
    }
    let (median, least) = median_and_least(&mut cycles);
    Ok(Record {
        case: case.kind.name().to_owned(),
        algorithm: case.algorithm.map(|algorithm| algorithm.report_name.to_owned()),
        size_bytes: case.size_bytes,
        sas: case.sas,
        cycles_per_packet: median,
        cycles_per_packet_min: least,
        aead_cycles_per_packet: (!aead.is_empty()).then(|| median_and_least(&mut aead).0),
        packets: (cycles.len() * BATCH_PACKETS) as u64,
    })
}

/// Walks `batches` batches of a case.
///
/// # Errors
/// As [`measure`].
pub fn walk(case: &Case, batches: usize) -> Result<(), RigError> {
    let mut rig = Rig::new(case)?;
    let clock = quanta::Clock::new();
    for _ in 0..batches {
        rig.run_batch(&clock)?;
    }
    Ok(())
}

/// Batches before any that counts.
const WARM_UP_BATCHES: usize = 200;
/// Batches between two looks at the clock of the day.
const BATCHES_PER_LOOK: usize = 50;
