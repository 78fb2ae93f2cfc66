//! What a queue counts, what the kernel counts for it, and where its chunks are.

/// What a queue did since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Packets given to the worker.
    pub received_packets: u64,
    /// Packets accepted for sending.
    pub transmitted_packets: u64,
    /// Frames that came back after sending.
    pub completed_packets: u64,
    /// Frames refused for want of a place in the transmit ring.
    pub transmit_full: u64,
    /// Packets in several chunks, dropped whole.
    pub fragmented_packets: u64,
    /// Descriptors from the kernel for chunks that this queue had not given out: always a bug of a driver.
    pub foreign_descriptors: u64,
    /// System calls made to wake the receive side.
    pub receive_wakeups: u64,
    /// System calls made to wake the transmit side.
    pub transmit_wakeups: u64,
    /// Those of them that failed for another reason than a busy device.
    pub failed_wakeups: u64,
}

/// `XDP_STATISTICS`: what the kernel counted at this socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStatistics {
    /// Packets dropped for another reason than a full ring (too long for a chunk, for instance).
    pub receive_dropped: u64,
    /// Fill descriptors that were wrong.
    pub receive_invalid_descriptors: u64,
    /// Transmit descriptors that were wrong.
    pub transmit_invalid_descriptors: u64,
    /// Packets dropped because the receive ring was full.
    pub receive_ring_full: u64,
    /// Times the fill ring was found empty.
    pub fill_ring_empty: u64,
    /// Times the transmit ring was found empty.
    pub transmit_ring_empty: u64,
}

/// Where a queue's chunks are. The kernel's part is what is in no ring: in the driver, or on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCensus {
    /// In the fill ring.
    pub fill: u32,
    /// Taken from the fill ring by the kernel.
    pub kernel_receiving: u32,
    /// In the receive ring.
    pub receive: u32,
    /// In the transmit ring.
    pub transmit: u32,
    /// Taken from the transmit ring by the kernel.
    pub kernel_sending: u32,
    /// In the completion ring.
    pub completion: u32,
}

impl QueueCensus {
    /// All chunks this queue has.
    pub fn sum(&self) -> u32 {
        self.fill
            + self.kernel_receiving
            + self.receive
            + self.transmit
            + self.kernel_sending
            + self.completion
    }
}
