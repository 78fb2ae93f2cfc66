//! Families with a series a worker.

use prometheus::Error;
use southbound::WorkerCounter;

use super::families::{Families, level};
use super::snapshot::Snapshot;

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
    let polls = families.counters("worker_polls_total", "Rounds of the loop.", &["worker", "result"])?;
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
        polls
            .with_label_values(&[worker.as_str(), "full"])
            .inc_by(block.worker(WorkerCounter::Polls).saturating_sub(empty));
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
    Ok(())
}
