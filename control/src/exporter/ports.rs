//! Families with a series a port, or a port and worker: worker *i* owns the queues *i* modulo workers.

use prometheus::{Error, IntCounterVec};
use southbound::{CopyMode, PortCounter, PortPhase, PortStatus, XdpMode};

use super::families::{Families, level};
use super::snapshot::Snapshot;
use crate::plane::WorkerBlock;

/// Families of port counters: name, help.
const COUNTERS: [(PortCounter, &str, &str); 10] = [
    (
        PortCounter::ReceivedPackets,
        "nic_rx_packets_total",
        "Packets received by AF_XDP.",
    ),
    (
        PortCounter::ReceivedBytes,
        "nic_rx_bytes_total",
        "Bytes received, Ethernet header included.",
    ),
    (
        PortCounter::TransmittedPackets,
        "nic_tx_packets_total",
        "Packets transmitted by AF_XDP.",
    ),
    (
        PortCounter::TransmittedBytes,
        "nic_tx_bytes_total",
        "Bytes transmitted, Ethernet header included.",
    ),
    (
        PortCounter::KernelDropped,
        "xsk_rx_dropped_total",
        "XDP_STATISTICS: dropped by the kernel for another reason.",
    ),
    (
        PortCounter::ReceiveRingFull,
        "xsk_rx_ring_full_total",
        "XDP_STATISTICS: the receive ring was full.",
    ),
    (
        PortCounter::FillRingEmpty,
        "xsk_fill_ring_empty_total",
        "XDP_STATISTICS: the fill ring was empty.",
    ),
    (
        PortCounter::ReceiveInvalid,
        "xsk_rx_invalid_descs_total",
        "XDP_STATISTICS: invalid receive descriptors.",
    ),
    (
        PortCounter::TransmitInvalid,
        "xsk_tx_invalid_descs_total",
        "XDP_STATISTICS: invalid transmit descriptors.",
    ),
    (
        PortCounter::TransmitRingEmpty,
        "xsk_tx_ring_empty_total",
        "XDP_STATISTICS: the transmit ring was empty.",
    ),
];

pub(super) fn families(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    let up = families.gauges("device_link_up", "Whether the port carries traffic.", &["device"])?;
    let mtu = families.gauges("device_mtu_bytes", "The port's MTU.", &["device"])?;
    let rebinds = families.counters(
        "device_rebinds_total",
        "Times the port was bound anew.",
        &["device"],
    )?;
    let driver = families.gauges(
        "xdp_driver_mode",
        "Whether the XDP program runs in the driver.",
        &["device"],
    )?;
    let zero_copy = families.gauges(
        "xsk_zero_copy",
        "Whether the queue was granted zero-copy.",
        &["device", "queue"],
    )?;
    let counters: Vec<(PortCounter, IntCounterVec)> = COUNTERS
        .iter()
        .map(|(counter, name, help)| Ok((*counter, families.counters(name, help, &["device", "worker"])?)))
        .collect::<Result<_, Error>>()?;
    for port in &snapshot.ports {
        let device = port.interface.as_str();
        up.with_label_values(&[device])
            .set((port.phase == PortPhase::Up).into());
        mtu.with_label_values(&[device]).set(level(port.mtu_bytes.into()));
        rebinds.with_label_values(&[device]).inc_by(port.rebinds);
        driver
            .with_label_values(&[device])
            .set((port.xdp == Some(XdpMode::Driver)).into());
        for (queue, mode) in port.queues.iter().enumerate() {
            zero_copy
                .with_label_values(&[device, &queue.to_string()])
                .set((*mode == CopyMode::ZeroCopy).into());
        }
        for (worker, block) in snapshot.blocks.iter().enumerate() {
            for (counter, family) in &counters {
                if let Some(value) = value(port, block, *counter) {
                    family
                        .with_label_values(&[device, &worker.to_string()])
                        .inc_by(value);
                }
            }
        }
    }
    Ok(())
}

/// A port's counter of one worker.
pub(super) fn value(port: &PortStatus, block: &WorkerBlock, counter: PortCounter) -> Option<u64> {
    let slot = usize::from(port.slot);
    (slot < southbound::PORT_SLOTS).then(|| block.port(slot, counter))
}
