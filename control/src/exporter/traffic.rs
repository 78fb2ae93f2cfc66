//! Families about packets, over all workers.

use prometheus::Error;
use southbound::{DropReason, WorkerCounter};

use super::families::Families;
use crate::plane::WorkerBlock;

pub(super) fn families(families: &Families, blocks: &[WorkerBlock]) -> Result<(), Error> {
    let sum = |counter| blocks.iter().map(|block| block.worker(counter)).sum::<u64>();
    let packets = families.counters("esp_packets_total", "ESP packets.", &["direction"])?;
    let bytes = families.counters(
        "esp_bytes_total",
        "Bytes of the packets inside ESP packets.",
        &["direction"],
    )?;
    for (direction, of_packets, of_bytes) in [
        ("in", WorkerCounter::EspInPackets, WorkerCounter::EspInBytes),
        ("out", WorkerCounter::EspOutPackets, WorkerCounter::EspOutBytes),
    ] {
        packets.with_label_values(&[direction]).inc_by(sum(of_packets));
        bytes.with_label_values(&[direction]).inc_by(sum(of_bytes));
    }
    let drops = families.counters("drop_packets_total", "Packets dropped.", &["stage", "reason"])?;
    for reason in DropReason::ALL {
        drops
            .with_label_values(&[reason.stage().name(), reason.name()])
            .inc_by(blocks.iter().map(|block| block.drops(*reason)).sum());
    }
    families.counter(
        "policy_bypass_packets_total",
        "Packets that a rule let pass in clear.",
        sum(WorkerCounter::PolicyBypass),
    )?;
    families.counter(
        "policy_discard_packets_total",
        "Packets that a rule discarded.",
        blocks
            .iter()
            .map(|block| block.drops(DropReason::PolicyDiscard))
            .sum(),
    )?;
    let mpls = families.counters("mpls_packets_total", "Label operations.", &["operation"])?;
    for (operation, counter) in [
        ("push", WorkerCounter::MplsPush),
        ("swap", WorkerCounter::MplsSwap),
        ("pop", WorkerCounter::MplsPop),
    ] {
        mpls.with_label_values(&[operation]).inc_by(sum(counter));
    }
    families.counter(
        "mss_clamped_packets_total",
        "TCP SYNs whose maximum segment size was lowered.",
        sum(WorkerCounter::MssClamped),
    )?;
    families.counter(
        "fragmented_packets_total",
        "Packets that were fragmented before encryption.",
        sum(WorkerCounter::Fragmented),
    )
}
