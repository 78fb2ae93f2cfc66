//! [`Batch`]: up to 64 packets, and which stage each goes to next.
//!
//! ```text
//!  slot        0      1      2   ...  63
//!  frames   | pkt  | pkt  | pkt  |
//!  metas    | meta | meta | meta |
//!  edges    Forward 0b..101   Encap 0b..010   (one bit a slot, one word a stage)
//! ```
//!
//! A packet stays in its slot from one end of the walk to the other; a stage takes the word of its edge, works on the
//! slots whose bits are set, and sets each one's bit in the word of the edge it leaves by. So a stage that no packet
//! goes to costs one comparison, whatever the batch holds, and nothing is moved or allocated on the way.

use southbound::{DropReason, LabelSpaceId};

use crate::sa::TunnelIndex;
use crate::tables::{AdjacencyIndex, PortSlot, VrfIndex};
use crate::xsk::Frame;

mod flags;

pub use flags::Flags;

/// Packets in a batch: one bit each in a word.
pub const BATCH_PACKETS: usize = 64;

/// The edges of the graph: where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Next {
    /// As received, Ethernet header first: which kind of packet is it?
    Classify,
    /// As the host sent it, an IP packet: the same question.
    FromHost,
    /// A fragment addressed to this gateway.
    Reassemble,
    /// ESP to this gateway, bare or in UDP.
    Decap,
    /// GRE, IP or UDP with a packet in it, to this gateway: which tunnel is it of?
    Untunnel,
    /// A label stack first: what does its top label say?
    Labels,
    /// An ICMP error to this gateway that may be about one of our ESP packets.
    Learn,
    /// A plain packet from the protected side or the host: what does the SPD say?
    PolicyOut,
    /// A packet out of a tunnel: may it come from there?
    PolicyIn,
    /// Look the destination up.
    Forward,
    /// Its route has labels: the next hop `meta.adjacency`.
    Impose,
    /// Into the tunnel `meta.into`: does it fit, may it?
    Midchain,
    /// Fits: the tunnel's GRE, IP or UDP header goes before it.
    Entunnel,
    /// Fits, has an SA: to be sealed.
    Encap,
    /// The same, but wider than its path: every IPv6 link carries it, so it is cut once it is sealed.
    EncapWide,
    /// Where `meta.adjacency` leads, out of a port.
    Egress,
    /// Must wait: for the neighbour of `meta.adjacency`, or the SA of the tunnel `meta.into`.
    Hold,
    /// Goes no further, and its sender is to be told why: `meta.error`.
    Error,
    /// To the host.
    Punt,
    /// Ready for the transmit ring of `meta.device`.
    Transmit,
    /// Goes no further: the reason is beside it.
    Drop,
}

impl Next {
    /// How many edges there are.
    pub const COUNT: usize = Self::Drop as usize + 1;

    /// Every edge.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Classify,
        Self::FromHost,
        Self::Reassemble,
        Self::Decap,
        Self::Untunnel,
        Self::Labels,
        Self::Learn,
        Self::PolicyOut,
        Self::PolicyIn,
        Self::Forward,
        Self::Impose,
        Self::Midchain,
        Self::Entunnel,
        Self::Encap,
        Self::EncapWide,
        Self::Egress,
        Self::Hold,
        Self::Error,
        Self::Punt,
        Self::Transmit,
        Self::Drop,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::FromHost => "from_host",
            Self::Reassemble => "reassemble",
            Self::Decap => "decap",
            Self::Untunnel => "untunnel",
            Self::Labels => "labels",
            Self::Learn => "learn",
            Self::PolicyOut => "policy_out",
            Self::PolicyIn => "policy_in",
            Self::Forward => "forward",
            Self::Impose => "impose",
            Self::Midchain => "midchain",
            Self::Entunnel => "entunnel",
            Self::Encap => "encap",
            Self::EncapWide => "encap_wide",
            Self::Egress => "egress",
            Self::Hold => "hold",
            Self::Error => "error",
            Self::Punt => "punt",
            Self::Transmit => "transmit",
            Self::Drop => "drop",
        }
    }
}

/// Where a packet entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ingress {
    /// A port, by its slot.
    Port(PortSlot),
    /// The TAP.
    Host,
    /// This gateway made it.
    Own,
}

/// What a sender is told about its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenderError {
    /// TTL or hop limit ran out.
    TimeExceeded,
    /// No route, or a route that says unreachable.
    NoRoute,
    /// The neighbour does not answer.
    HostUnreachable,
    /// Larger than `mtu_bytes` and not to be fragmented.
    TooBig {
        /// The largest packet that goes through, in bytes.
        mtu_bytes: u16,
    },
    /// A rule forbids it.
    Prohibited,
}

/// What the stages know of a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Where it entered.
    pub ingress: Ingress,
    /// Facts.
    pub flags: Flags,
    /// Bytes between the packet's first and its ESP or upper header, where a stage has looked.
    pub upper_bytes: u16,
    /// The table that it is routed in.
    pub vrf: VrfIndex,
    /// The space that its labels are of.
    pub space: LabelSpaceId,
    /// Bytes of the label stack that it came under, which still stand before it.
    pub labels_bytes: u8,
    /// What its route leads to.
    pub adjacency: AdjacencyIndex,
    /// The tunnel that it came out of.
    pub out_of: Option<TunnelIndex>,
    /// The tunnel that it is sent into.
    pub into: Option<TunnelIndex>,
    /// The port that it leaves by.
    pub egress: PortSlot,
    /// The device whose ring that is: the port itself, or the one that carries it as a VLAN.
    pub device: PortSlot,
    /// What its sender is told, on the edge [`Next::Error`].
    pub error: SenderError,
}

impl Meta {
    /// A packet that just entered, to be routed in `vrf`.
    #[inline(always)]
    #[must_use]
    pub const fn new(ingress: Ingress, vrf: VrfIndex) -> Self {
        Self {
            ingress,
            flags: Flags::NONE,
            upper_bytes: 0,
            vrf,
            space: LabelSpaceId::PLATFORM,
            labels_bytes: 0,
            adjacency: AdjacencyIndex::NO_ROUTE,
            out_of: None,
            into: None,
            egress: PortSlot::FIRST,
            device: PortSlot::FIRST,
            error: SenderError::NoRoute,
        }
    }
}

/// The slots whose bits are set in a word, lowest first.
#[derive(Clone, Copy, Debug)]
pub struct Slots(u64);

impl Slots {
    /// The slots of `word`.
    #[inline(always)]
    #[must_use]
    pub const fn of(word: u64) -> Self {
        Self(word)
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        // Says nothing new, but spares the bounds checks of arrays of 64.
        Some(slot % BATCH_PACKETS)
    }
}

/// Up to [`BATCH_PACKETS`] packets on their way. See the module's text.
#[derive(Debug)]
pub struct Batch<'u> {
    frames: [Option<Frame<'u>>; BATCH_PACKETS],
    metas: [Meta; BATCH_PACKETS],
    reasons: [DropReason; BATCH_PACKETS],
    edges: [u64; Next::COUNT],
    occupied: u64,
}

impl Default for Batch<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'u> Batch<'u> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frames: [const { None }; BATCH_PACKETS],
            metas: [Meta::new(Ingress::Own, VrfIndex::MAIN); BATCH_PACKETS],
            reasons: [DropReason::Truncated; BATCH_PACKETS],
            edges: [0; Next::COUNT],
            occupied: 0,
        }
    }

    /// Packets in the batch.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.occupied.count_ones() as usize
    }

    /// Whether the batch has none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Free slots.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        BATCH_PACKETS - self.len()
    }

    /// Puts a packet into a free slot and on an edge.
    ///
    /// # Errors
    /// The frame comes back where the batch is full.
    #[inline]
    pub fn push(&mut self, frame: Frame<'u>, meta: Meta, next: Next) -> Result<usize, Frame<'u>> {
        let slot = (!self.occupied).trailing_zeros() as usize;
        let (Some(place), Some(its_meta)) = (self.frames.get_mut(slot), self.metas.get_mut(slot)) else {
            return Err(frame);
        };
        debug_assert!(place.is_none());
        *place = Some(frame);
        *its_meta = meta;
        self.occupied |= 1 << slot;
        self.edges[next as usize] |= 1 << slot;
        Ok(slot)
    }

    /// Takes a packet out of the batch; it must be on no edge any more.
    #[inline]
    pub fn remove(&mut self, slot: usize) -> Option<Frame<'u>> {
        debug_assert!(self.edges.iter().all(|edge| edge & (1 << slot) == 0));
        let frame = self.frames.get_mut(slot)?.take();
        self.occupied &= !(1 << slot);
        frame
    }

    /// The slots on an edge, which is empty afterwards: the stage puts each packet on another.
    #[inline(always)]
    #[must_use]
    pub fn take(&mut self, next: Next) -> u64 {
        std::mem::take(&mut self.edges[next as usize])
    }

    /// The slots on an edge.
    #[inline(always)]
    #[must_use]
    pub fn on(&self, next: Next) -> u64 {
        self.edges[next as usize]
    }

    /// Puts a packet on an edge; the stage that calls has taken it off its own.
    #[inline(always)]
    pub fn send(&mut self, slot: usize, next: Next) {
        self.edges[next as usize] |= 1 << slot;
    }

    /// Puts all packets of a word on an edge.
    #[inline(always)]
    pub fn send_all(&mut self, slots: u64, next: Next) {
        self.edges[next as usize] |= slots;
    }

    /// Ends a packet's way for a reason.
    #[inline]
    pub fn discard(&mut self, slot: usize, reason: DropReason) {
        self.reasons[slot] = reason;
        self.send(slot, Next::Drop);
    }

    /// Ends a packet's way for a reason, and has its sender told.
    #[inline]
    pub fn refuse(&mut self, slot: usize, reason: DropReason, error: SenderError) {
        self.reasons[slot] = reason;
        self.metas[slot].error = error;
        self.send(slot, Next::Error);
    }

    /// States why a packet goes no further; it is on [`Next::Drop`] or [`Next::Error`], or will be if its wait is vain.
    #[inline]
    pub fn set_reason(&mut self, slot: usize, reason: DropReason) {
        self.reasons[slot] = reason;
    }

    /// Whether every packet is on one of `edges`.
    #[inline]
    #[must_use]
    pub fn is_settled(&self, edges: &[Next]) -> bool {
        edges.iter().fold(0, |slots, next| slots | self.on(*next)) == self.occupied
    }

    /// Ends the way of every packet that is on none of `edges`.
    pub fn discard_unsettled(&mut self, edges: &[Next], reason: DropReason) {
        let settled = edges.iter().fold(0, |slots, next| slots | self.on(*next));
        let unsettled = self.occupied & !settled;
        if unsettled == 0 {
            return;
        }
        for edge in &mut self.edges {
            *edge &= settled;
        }
        for slot in Slots::of(unsettled) {
            self.discard(slot, reason);
        }
    }

    /// Why a packet on [`Next::Drop`] or [`Next::Error`] goes no further.
    #[inline]
    #[must_use]
    pub fn reason(&self, slot: usize) -> DropReason {
        self.reasons[slot]
    }

    /// A packet and what is known of it. `None` only for an empty slot, which is on no edge.
    #[inline(always)]
    pub fn packet_mut(&mut self, slot: usize) -> Option<(&mut Frame<'u>, &mut Meta)> {
        match (self.frames.get_mut(slot), self.metas.get_mut(slot)) {
            (Some(Some(frame)), Some(meta)) => Some((frame, meta)),
            _ => None,
        }
    }

    /// A packet's bytes; none for an empty slot.
    #[inline(always)]
    #[must_use]
    pub fn bytes(&self, slot: usize) -> &[u8] {
        match self.frames.get(slot) {
            Some(Some(frame)) => frame.bytes(),
            _ => &[],
        }
    }

    /// What is known of a packet.
    #[inline(always)]
    #[must_use]
    pub fn meta(&self, slot: usize) -> &Meta {
        &self.metas[slot]
    }

    /// What is known of a packet, to be changed.
    #[inline(always)]
    pub fn meta_mut(&mut self, slot: usize) -> &mut Meta {
        &mut self.metas[slot]
    }

    /// The packets of a word, lowest slot first, all at once: what a batch of cipher jobs is made of. Beside them, where
    /// they go on.
    #[inline]
    pub fn packets_mut(
        &mut self,
        slots: u64,
    ) -> (
        impl Iterator<Item = (usize, &mut Frame<'u>, &mut Meta)>,
        Exits<'_>,
    ) {
        let packets = self
            .frames
            .iter_mut()
            .zip(self.metas.iter_mut())
            .enumerate()
            .filter(move |(slot, _)| slots & (1 << slot) != 0)
            .filter_map(|(slot, (frame, meta))| frame.as_mut().map(|frame| (slot, frame, meta)));
        let exits = Exits {
            reasons: &mut self.reasons,
            edges: &mut self.edges,
        };
        (packets, exits)
    }
}

/// The edges of a batch whose packets somebody holds.
#[derive(Debug)]
pub struct Exits<'b> {
    reasons: &'b mut [DropReason; BATCH_PACKETS],
    edges: &'b mut [u64; Next::COUNT],
}

impl Exits<'_> {
    /// As [`Batch::send`].
    #[inline(always)]
    pub fn send(&mut self, slot: usize, next: Next) {
        self.edges[next as usize] |= 1 << slot;
    }

    /// As [`Batch::send_all`].
    #[inline(always)]
    pub fn send_all(&mut self, slots: u64, next: Next) {
        self.edges[next as usize] |= slots;
    }

    /// As [`Batch::discard`].
    #[inline]
    pub fn discard(&mut self, slot: usize, reason: DropReason) {
        self.reasons[slot] = reason;
        self.send(slot, Next::Drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::{Umem, UmemConfig};

    #[test]
    fn a_packet_is_on_one_edge_until_it_leaves() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 65,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut pool = umem.pool().unwrap();
        let mut batch = Batch::new();
        for slot in 0..BATCH_PACKETS {
            let frame = pool.take().unwrap();
            assert_eq!(
                batch
                    .push(frame, Meta::new(Ingress::Host, VrfIndex::MAIN), Next::Classify)
                    .unwrap(),
                slot
            );
        }
        let refused = batch
            .push(
                pool.take().unwrap(),
                Meta::new(Ingress::Own, VrfIndex::MAIN),
                Next::Forward,
            )
            .unwrap_err();
        pool.put(refused);
        assert_eq!(
            (batch.len(), batch.room(), batch.on(Next::Classify)),
            (64, 0, u64::MAX)
        );
        let slots = batch.take(Next::Classify);
        for slot in Slots::of(slots) {
            if slot % 2 == 0 {
                batch.send(slot, Next::Forward);
            } else {
                batch.discard(slot, DropReason::NoRoute);
            }
        }
        assert_eq!(batch.on(Next::Forward), 0x5555_5555_5555_5555);
        assert_eq!(
            batch
                .packets_mut(0b101)
                .0
                .map(|(slot, ..)| slot)
                .collect::<Vec<_>>(),
            [0, 2]
        );
        for slot in Slots::of(batch.take(Next::Drop)) {
            assert_eq!(batch.reason(slot), DropReason::NoRoute);
            pool.put(batch.remove(slot).unwrap());
        }
        assert_eq!(batch.len(), 32);
        // A freed slot is used again.
        assert_eq!(
            batch
                .push(
                    pool.take().unwrap(),
                    Meta::new(Ingress::Own, VrfIndex::MAIN),
                    Next::Punt
                )
                .unwrap(),
            1
        );
        let rest = batch.take(Next::Forward) | batch.take(Next::Punt);
        for slot in Slots::of(rest) {
            pool.put(batch.remove(slot).unwrap());
        }
        assert!(batch.is_empty());
        assert_eq!(pool.len(), 65);
    }

    #[test]
    fn slots_of_a_word_come_in_order() {
        assert_eq!(Slots::of(1 | 1 << 5 | 1 << 63).collect::<Vec<_>>(), [0, 5, 63]);
        assert_eq!(Slots::of(0).count(), 0);
        assert_eq!(Slots::of(u64::MAX).count(), 64);
    }
}
