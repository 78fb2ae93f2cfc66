//! Families with a series a worker.

use prometheus::Error;
use southbound::{Histogram, WorkerCounter};

use super::families::{Distribution, Families, level};
use super::snapshot::Snapshot;

/// Bounds of rounds that count as partly filled: those above have more than half a batch.
const PARTIAL_PACKETS: u64 = 32;

pub(super) fn families(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    let info = families.gauges(
        "worker_info",
        "Always 1; the labels tell where the worker runs.",
        &["worker", "cpu", "huge_pages"],
    )?;
    for worker in &snapshot.workers {
        info.with_label_values(&[
            worker.worker.to_string().as_str(),
            worker.cpu.to_string().as_str(),
            if worker.huge_pages { "yes" } else { "no" },
        ])
        .set(1);
    }
    let busy = families.seconds_counters(
        "worker_busy_seconds_total",
        "Time in rounds that found work.",
        &["worker"],
    )?;
    let polls = families.counters(
        "worker_polls_total",
        "Rounds of the loop; full are those with more than 32 packets.",
        &["worker", "result"],
    )?;
    let sleeps = families.counters(
        "worker_sleeps_total",
        "Times the worker went to sleep in the kernel.",
        &["worker"],
    )?;
    let lost = families.counters(
        "worker_events_lost_total",
        "Events that found the queue to the main thread full.",
        &["worker"],
    )?;
    let packets = families.counters(
        "worker_packets_total",
        "Packets by where they came from or went.",
        &["worker", "way"],
    )?;
    let held = families.gauges(
        "worker_held_packets",
        "Packets that wait for fragments, a neighbour or an SA.",
        &["worker"],
    )?;
    let frames = families.gauges("umem_frames", "Frames by where they are.", &["worker", "state"])?;
    for (number, block) in snapshot.blocks.iter().enumerate() {
        let worker = number.to_string();
        busy.with_label_values(&[&worker])
            .inc_by(block.worker(WorkerCounter::BusyNanoseconds) as f64 / 1e9);
        let empty = block.worker(WorkerCounter::PollsEmpty);
        polls.with_label_values(&[worker.as_str(), "empty"]).inc_by(empty);
        let (classes, _) = block.histogram(Histogram::RoundPackets);
        for (class, rounds) in classes.into_iter().enumerate() {
            let is_partial = Histogram::RoundPackets
                .bound(class)
                .is_some_and(|bound| bound <= PARTIAL_PACKETS);
            let result = if is_partial { "partial" } else { "full" };
            polls.with_label_values(&[worker.as_str(), result]).inc_by(rounds);
        }
        sleeps
            .with_label_values(&[&worker])
            .inc_by(block.worker(WorkerCounter::Sleeps));
        lost.with_label_values(&[&worker])
            .inc_by(block.worker(WorkerCounter::EventsLost));
        held.with_label_values(&[&worker])
            .set(level(block.worker(WorkerCounter::Held)));
        for (way, counter) in [
            ("received", WorkerCounter::Received),
            ("transmitted", WorkerCounter::Transmitted),
            ("from_host", WorkerCounter::FromHost),
            ("to_host", WorkerCounter::ToHost),
            ("generated", WorkerCounter::Generated),
            ("absorbed", WorkerCounter::Absorbed),
        ] {
            packets
                .with_label_values(&[worker.as_str(), way])
                .inc_by(block.worker(counter));
        }
        for (state, counter) in [
            ("free", WorkerCounter::FramesFree),
            ("fill", WorkerCounter::FramesFill),
            ("transmit", WorkerCounter::FramesTransmit),
            ("held", WorkerCounter::FramesHeld),
        ] {
            frames
                .with_label_values(&[worker.as_str(), state])
                .set(level(block.worker(counter)));
        }
    }
    for (name, help, histogram, unit) in [
        (
            "worker_batch_packets",
            "Packets of a round that found any.",
            Histogram::RoundPackets,
            1.0,
        ),
        (
            "packet_latency_seconds",
            "Time of every packet in a worker: the whole round, from before the first is taken off a receive ring to after the last is on a transmit ring.",
            Histogram::LatencyNanoseconds,
            1e9,
        ),
    ] {
        let series = snapshot.blocks.iter().enumerate().map(|(worker, block)| {
            let (counts, sum) = block.histogram(histogram);
            Distribution {
                labels: vec![worker.to_string()],
                bounds: (0..)
                    .map_while(|class| histogram.bound(class))
                    .map(|bound| bound as f64 / unit)
                    .collect(),
                counts: counts.to_vec(),
                sum: sum as f64 / unit,
            }
        });
        families.histograms(name, help, &["worker"], series.collect());
    }
    Ok(())
}
