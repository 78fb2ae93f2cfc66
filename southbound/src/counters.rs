//! The layout of the shared counter segment.
//!
//! ```text
//!  0        64                    each worker's block, a multiple of 128 bytes
//!  +--------+----------------------------------------------------------------+ ...
//!  | header | WorkerCounter.. | Histogram.. | DropReason.. | PORT_SLOTS x PortCounter.. |
//!  +--------+----------------------------------------------------------------+ ...
//! ```
//!
//! Every cell is a little-endian `u64` at a multiple of 8 bytes. A worker's block has one writer, that
//! worker, which stores with relaxed order; readers see each cell whole, and cells of one block possibly
//! of slightly different moments. The header is magic, version, workers, bytes per block.

use crate::DropReason;

/// First cell of the segment: "PENSTOCK" in ASCII, big end first.
pub const COUNTERS_MAGIC: u64 = u64::from_be_bytes(*b"PENSTOCK");

/// Second cell: changes with every change of a counter's place.
pub const COUNTERS_VERSION: u64 = 3;

/// Ports, VLANs included: each has counters of its own in each worker's block, by its slot, 0 to 255.
pub const PORT_SLOTS: usize = 256;

/// Most workers of a dataplane: each has a block of counters and a core.
pub const MAX_WORKERS: usize = 64;

const HEADER_BYTES: usize = 64;
const BLOCK_ALIGN_BYTES: usize = 128;
const CELL_BYTES: usize = 8;

macro_rules! counters {
    ($(#[$outer:meta])* $name:ident { $( $(#[doc = $help:literal])+ $variant:ident = $label:literal, )+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $( $(#[doc = $help])+ $variant, )+
        }

        impl $name {
            /// Every counter, in the order of its cell.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help,)+),)+ }
            }
        }
    };
}

counters! {
    /// What a worker counts besides drops.
    ///
    /// The books balance: `Received + FromHost + Generated = Transmitted + ToHost + Absorbed + Held +`
    /// all drops, at any moment when the worker is between batches. `Held`, `FramesFree`, `FramesFill`,
    /// `FramesTransmit` and `FramesHeld` are levels, the others only grow.
    WorkerCounter {
        /// Packets taken from receive rings.
        Received = "received_packets",
        /// Packets read from the TAP.
        FromHost = "from_host_packets",
        /// Packets of our own making: ICMP errors, and fragments beyond the first of a packet.
        Generated = "generated_packets",
        /// Packets given to transmit rings.
        Transmitted = "transmitted_packets",
        /// Packets written to the TAP.
        ToHost = "to_host_packets",
        /// Fragments that went into a whole datagram, less the datagram.
        Absorbed = "absorbed_packets",
        /// Packets that wait for fragments, a neighbour or an SA, at this moment.
        Held = "held_packets",
        /// ESP packets sealed.
        EspOutPackets = "esp_out_packets",
        /// Bytes of inner packets sealed.
        EspOutBytes = "esp_out_bytes",
        /// ESP packets opened and accepted.
        EspInPackets = "esp_in_packets",
        /// Bytes of inner packets opened and accepted.
        EspInBytes = "esp_in_bytes",
        /// Packets that a rule let pass in clear.
        PolicyBypass = "policy_bypass_packets",
        /// Labels pushed.
        MplsPush = "mpls_push_packets",
        /// Labels swapped.
        MplsSwap = "mpls_swap_packets",
        /// Labels popped.
        MplsPop = "mpls_pop_packets",
        /// Packets that were put into a GRE, IP or UDP tunnel.
        TunnelOutPackets = "tunnel_out_packets",
        /// Packets that were taken out of a GRE, IP or UDP tunnel.
        TunnelInPackets = "tunnel_in_packets",
        /// TCP SYNs whose maximum segment size was lowered.
        MssClamped = "mss_clamped_packets",
        /// Packets that were fragmented before encryption.
        Fragmented = "fragmented_packets",
        /// Rounds of the worker's loop.
        Polls = "polls",
        /// Rounds that found nothing.
        PollsEmpty = "polls_empty",
        /// Nanoseconds in rounds that found something.
        BusyNanoseconds = "busy_nanoseconds",
        /// Times the worker went to sleep in the kernel.
        Sleeps = "sleeps",
        /// Events that found the queue to the main thread full.
        EventsLost = "events_lost",
        /// Frames in the free pool.
        FramesFree = "frames_free",
        /// Frames in fill rings.
        FramesFill = "frames_fill",
        /// Frames in transmit and completion rings.
        FramesTransmit = "frames_transmit",
        /// Frames that the worker holds: batches, hold queues.
        FramesHeld = "frames_held",
    }
}

counters! {
    /// What a worker counts for each port slot.
    PortCounter {
        /// Packets received.
        ReceivedPackets = "received_packets",
        /// Bytes received, Ethernet header included.
        ReceivedBytes = "received_bytes",
        /// Packets transmitted.
        TransmittedPackets = "transmitted_packets",
        /// Bytes transmitted, Ethernet header included.
        TransmittedBytes = "transmitted_bytes",
        /// `XDP_STATISTICS`: dropped by the kernel for another reason.
        KernelDropped = "kernel_dropped",
        /// `XDP_STATISTICS`: the receive ring was full.
        ReceiveRingFull = "receive_ring_full",
        /// `XDP_STATISTICS`: the fill ring was empty.
        FillRingEmpty = "fill_ring_empty",
        /// `XDP_STATISTICS`: invalid receive descriptors.
        ReceiveInvalid = "receive_invalid_descriptors",
        /// `XDP_STATISTICS`: invalid transmit descriptors.
        TransmitInvalid = "transmit_invalid_descriptors",
        /// `XDP_STATISTICS`: the transmit ring was empty.
        TransmitRingEmpty = "transmit_ring_empty",
    }
}

/// What a worker keeps a distribution of: cells by class, then the sum of what was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Histogram {
    /// Packets of a round that found any.
    RoundPackets,
    /// Nanoseconds of the round that a packet was worked on in, from before the first was taken off a receive ring to
    /// after the last was given to a transmit ring; each packet counts.
    LatencyNanoseconds,
}

impl Histogram {
    /// Classes of each, the last without a bound.
    pub const CLASSES: usize = 16;

    /// Both.
    pub const ALL: [Self; 2] = [Self::RoundPackets, Self::LatencyNanoseconds];

    const CELLS: usize = Self::CLASSES + 1;

    /// The bound of a class, which it includes: powers of two, from 1 packet, from 1000 ns; `None` for the last class.
    #[must_use]
    pub const fn bound(self, class: usize) -> Option<u64> {
        if class + 1 >= Self::CLASSES {
            return None;
        }
        Some(self.unit() << class)
    }

    /// The class of a value.
    #[inline]
    #[must_use]
    pub const fn class(self, value: u64) -> usize {
        let units = value.div_ceil(self.unit());
        let class = match units {
            0 | 1 => 0,
            more => (u64::BITS - (more - 1).leading_zeros()) as usize,
        };
        if class < Self::CLASSES {
            class
        } else {
            Self::CLASSES - 1
        }
    }

    const fn unit(self) -> u64 {
        match self {
            Self::RoundPackets => 1,
            Self::LatencyNanoseconds => 1000,
        }
    }
}

/// Where each cell lies in a segment of a given number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterLayout {
    workers: usize,
}

impl CounterLayout {
    const HISTOGRAM_CELL: usize = WorkerCounter::COUNT;
    const DROP_CELL: usize = Self::HISTOGRAM_CELL + Histogram::ALL.len() * Histogram::CELLS;
    const PORT_CELL: usize = Self::DROP_CELL + DropReason::COUNT;
    const BLOCK_CELLS: usize = Self::PORT_CELL + PORT_SLOTS * PortCounter::COUNT;

    /// Bytes of each worker's block.
    pub const BLOCK_BYTES: usize = (Self::BLOCK_CELLS * CELL_BYTES).next_multiple_of(BLOCK_ALIGN_BYTES);

    /// Cells of each worker's block.
    pub const BLOCK_LENGTH: usize = Self::BLOCK_BYTES / CELL_BYTES;

    /// The layout for `workers` workers.
    #[must_use]
    pub const fn new(workers: usize) -> Self {
        Self { workers }
    }

    /// Bytes of the whole segment.
    #[must_use]
    pub const fn segment_bytes(&self) -> usize {
        Self::block_start_bytes(self.workers)
    }

    /// The header's cells.
    #[must_use]
    pub const fn header(&self) -> [u64; 4] {
        [
            COUNTERS_MAGIC,
            COUNTERS_VERSION,
            self.workers as u64,
            Self::BLOCK_BYTES as u64,
        ]
    }

    /// Offset of a worker's block in the segment, in bytes.
    #[must_use]
    pub const fn block_start_bytes(worker: usize) -> usize {
        // The header takes a whole alignment unit, so that blocks start on lines of their own.
        HEADER_BYTES.next_multiple_of(BLOCK_ALIGN_BYTES) + worker * Self::BLOCK_BYTES
    }

    /// Cell of a counter within a block.
    #[must_use]
    pub const fn worker_cell(counter: WorkerCounter) -> usize {
        counter as usize
    }

    /// Cell of a class of a histogram within a block; `class` is below [`Histogram::CLASSES`].
    #[must_use]
    pub const fn histogram_cell(histogram: Histogram, class: usize) -> usize {
        Self::HISTOGRAM_CELL + histogram as usize * Histogram::CELLS + class
    }

    /// Cell of the sum of what a histogram observed.
    #[must_use]
    pub const fn histogram_sum_cell(histogram: Histogram) -> usize {
        Self::histogram_cell(histogram, Histogram::CLASSES)
    }

    /// Cell of a drop reason within a block.
    #[must_use]
    pub const fn drop_cell(reason: DropReason) -> usize {
        Self::DROP_CELL + reason as usize
    }

    /// Cell of a port's counter within a block; `slot` is below [`PORT_SLOTS`].
    #[must_use]
    pub const fn port_cell(slot: usize, counter: PortCounter) -> usize {
        Self::PORT_CELL + slot * PortCounter::COUNT + counter as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_counters_share_a_cell_and_all_lie_in_the_block() {
        let mut cells = HashSet::new();
        let all = WorkerCounter::ALL
            .iter()
            .map(|counter| CounterLayout::worker_cell(*counter))
            .chain(
                DropReason::ALL
                    .iter()
                    .map(|reason| CounterLayout::drop_cell(*reason)),
            )
            .chain(Histogram::ALL.into_iter().flat_map(|histogram| {
                (0..=Histogram::CLASSES).map(move |class| CounterLayout::histogram_cell(histogram, class))
            }))
            .chain((0..PORT_SLOTS).flat_map(|slot| {
                PortCounter::ALL
                    .iter()
                    .map(move |counter| CounterLayout::port_cell(slot, *counter))
            }));
        for cell in all {
            assert!(cell < CounterLayout::BLOCK_LENGTH);
            assert!(cells.insert(cell), "cell {cell} is used twice");
        }
    }

    #[test]
    fn a_value_is_in_the_class_whose_bounds_hold_it() {
        for histogram in Histogram::ALL {
            for value in (0..3000).chain([1 << 20, (1 << 20) + 1, u64::MAX]) {
                let class = histogram.class(value);
                assert!(histogram.bound(class).is_none_or(|bound| value <= bound));
                let below = class.checked_sub(1).and_then(|class| histogram.bound(class));
                assert!(below.is_none_or(|bound| value > bound), "{histogram:?} {value}");
            }
        }
    }

    #[test]
    fn blocks_are_apart_by_two_cache_lines() {
        let layout = CounterLayout::new(3);
        assert_eq!(CounterLayout::block_start_bytes(0) % 128, 0);
        assert_eq!(CounterLayout::BLOCK_BYTES % 128, 0);
        assert_eq!(
            layout.segment_bytes(),
            CounterLayout::block_start_bytes(2) + CounterLayout::BLOCK_BYTES
        );
    }
}
