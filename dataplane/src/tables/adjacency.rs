//! Adjacencies: what a route leads to.
//!
//! A route's result is an [`AdjacencyIndex`]. Most kinds are in the number itself; neighbours and groups of
//! next hops are objects that the writer replaces in place, so that a neighbour's new address is seen by
//! every route that uses it at once.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use southbound::PortId;

use super::{LabelHop, PortSlot, VrfIndex};
use crate::sa::TunnelIndex;

/// Most next hops of a route.
pub const MAX_NEXT_HOPS: usize = 16;

const KIND_SHIFT: u32 = 28;
const NUMBER_MASK: u32 = (1 << KIND_SHIFT) - 1;
const SPECIAL: u32 = 0;
const MIDCHAIN: u32 = 1;
const LINK: u32 = 2;
const LABELLED: u32 = 3;
const MULTIPATH: u32 = 4;
const VRF: u32 = 5;

/// What a route leads to, as a number of 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdjacencyIndex(u32);

impl AdjacencyIndex {
    /// No route.
    pub const NO_ROUTE: Self = Self(0);
    /// To this gateway itself.
    pub const LOCAL: Self = Self(1);
    /// Out of an interface that is not a port.
    pub const KERNEL: Self = Self(2);
    /// Dropped, and the sender told.
    pub const UNREACHABLE: Self = Self(3);
    /// Dropped in silence.
    pub const BLACKHOLE: Self = Self(4);
    /// A tunnel whose outer packets lead into itself.
    pub const TUNNEL_LOOP: Self = Self(5);

    /// Into a tunnel.
    #[must_use]
    pub const fn midchain(tunnel: TunnelIndex) -> Self {
        Self(MIDCHAIN << KIND_SHIFT | tunnel.0)
    }

    pub(crate) const fn link(number: u32) -> Self {
        Self(LINK << KIND_SHIFT | number)
    }

    pub(crate) const fn multipath(number: u32) -> Self {
        Self(MULTIPATH << KIND_SHIFT | number)
    }

    /// To a next hop with labels.
    pub(crate) const fn labelled(number: u32) -> Self {
        Self(LABELLED << KIND_SHIFT | number)
    }

    /// Into another routing table.
    pub(crate) const fn vrf(vrf: VrfIndex) -> Self {
        Self(VRF << KIND_SHIFT | vrf.0)
    }

    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The tunnel, where it is a midchain.
    #[inline]
    #[must_use]
    pub const fn tunnel(self) -> Option<TunnelIndex> {
        if self.0 >> KIND_SHIFT == MIDCHAIN {
            Some(TunnelIndex(self.0 & NUMBER_MASK))
        } else {
            None
        }
    }

    /// Whether it is a tunnel, a neighbour or link, or a next hop with labels: neither looked up once more nor chosen
    /// among several.
    #[inline(always)]
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(self.0 >> KIND_SHIFT, MIDCHAIN | LINK | LABELLED)
    }

    /// Whether it is one of the constants above: it leads out of no port and into no tunnel.
    #[inline]
    #[must_use]
    pub const fn is_special(self) -> bool {
        self.0 >> KIND_SHIFT == SPECIAL
    }

    /// Whether it is a group of next hops, so that a flow's hash is needed to choose.
    #[inline]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0 >> KIND_SHIFT == MULTIPATH
    }

    /// Whether it is a next hop with labels.
    #[inline]
    #[must_use]
    pub const fn is_labelled(self) -> bool {
        self.0 >> KIND_SHIFT == LABELLED
    }

    /// The table, where it leads into another one.
    #[inline]
    #[must_use]
    pub const fn other_vrf(self) -> Option<VrfIndex> {
        if self.0 >> KIND_SHIFT == VRF {
            Some(VrfIndex(self.0 & NUMBER_MASK))
        } else {
            None
        }
    }

    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        let number = self.0 & NUMBER_MASK;
        match self.0 >> KIND_SHIFT {
            MIDCHAIN => Kind::Midchain(TunnelIndex(number)),
            LINK => Kind::Link(number),
            MULTIPATH => Kind::Multipath(number),
            LABELLED => Kind::Labelled(number),
            VRF => Kind::Vrf(VrfIndex(number)),
            SPECIAL => Kind::Special(Self(number)),
            _ => Kind::Special(Self::NO_ROUTE),
        }
    }
}

/// The kinds of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Special(AdjacencyIndex),
    Midchain(TunnelIndex),
    Link(u32),
    Multipath(u32),
    Labelled(u32),
    Vrf(VrfIndex),
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug)]
pub enum Adjacency<'g> {
    /// Out of a port to a known neighbour.
    Neighbour(&'g NeighbourAdjacency),
    /// Out of a port to a neighbour that is being asked for: the packet waits.
    Incomplete(&'g IncompleteAdjacency),
    /// The destination itself is on the link, and nobody asked for it yet: the packet waits.
    Glean(&'g GleanAdjacency),
    /// Into a tunnel.
    Midchain(TunnelIndex),
    /// Under labels.
    Labelled(&'g LabelHop),
    /// Looked up once more, in this table.
    Vrf(VrfIndex),
    /// To this gateway itself.
    Local,
    /// To the kernel, which routes it on.
    Kernel,
    /// Dropped, and the sender told.
    Unreachable,
    /// Dropped in silence.
    Blackhole,
    /// Dropped, and the sender told.
    NoRoute,
    /// Dropped.
    TunnelLoop,
}

/// A neighbour whose link-layer address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourAdjacency {
    /// The egress port.
    pub port: PortSlot,
    /// The device whose ring it leaves by: the port itself, or the one that carries the VLAN that the port is.
    pub device: PortSlot,
    /// Largest IP packet in bytes.
    pub mtu_bytes: u16,
    /// The VLAN's identifier; zero: no tag.
    pub vlan: u16,
    /// Whether its port carries labels.
    pub takes_labels: bool,
    /// Destination and source of the Ethernet header.
    pub rewrite: [u8; 12],
}

/// A neighbour whose link-layer address is not known.
#[derive(Debug)]
pub struct IncompleteAdjacency {
    /// The egress port.
    pub port: PortSlot,
    /// The egress port's name.
    pub port_id: PortId,
    /// Whom to ask for.
    pub address: IpAddr,
    /// The kernel asked in vain: packets are dropped, and it is asked again now and then.
    pub failed: bool,
    again_ms: AtomicU64,
}

/// How soon one neighbour may be asked for again.
const ASK_INTERVAL_MS: u64 = 1_000;

impl IncompleteAdjacency {
    /// Nobody asked yet; where the kernel `failed`, the next question is a while away.
    #[must_use]
    pub(crate) fn new(port: PortSlot, port_id: PortId, address: IpAddr, failed: bool) -> Self {
        Self {
            port,
            port_id,
            address,
            failed,
            again_ms: AtomicU64::new(0),
        }
    }

    /// Whether the caller should raise [`southbound::Event::NeighbourNeeded`].
    #[must_use]
    pub fn should_ask(&self, now_ms: u64) -> bool {
        may(&self.again_ms, now_ms)
    }
}

/// A connected prefix.
#[derive(Debug)]
pub struct GleanAdjacency {
    /// The egress port.
    pub port: PortSlot,
    /// The egress port's name.
    pub port_id: PortId,
    // Destinations asked for lately, by hash: a scan of the prefix raises a bounded number of questions.
    again_ms: [AtomicU64; 64],
}

impl GleanAdjacency {
    pub(crate) fn new(port: PortSlot, port_id: PortId) -> Self {
        Self {
            port,
            port_id,
            again_ms: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Whether the caller should raise [`southbound::Event::NeighbourNeeded`] for `destination`.
    #[must_use]
    pub fn should_ask(&self, destination: IpAddr, now_ms: u64) -> bool {
        let bits = match destination {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 ^ v6.to_bits() as u64,
        };
        let place = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        may(&self.again_ms[place as usize], now_ms)
    }
}

fn may(again_ms: &AtomicU64, now_ms: u64) -> bool {
    let again = again_ms.load(Ordering::Relaxed);
    now_ms >= again
        && again_ms
            .compare_exchange(
                again,
                now_ms + ASK_INTERVAL_MS,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
}

/// What a link number stands for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "read by every packet: no second pointer to follow"
)]
pub(crate) enum Link {
    Neighbour(NeighbourAdjacency),
    Incomplete(IncompleteAdjacency),
    Glean(GleanAdjacency),
}

/// Several next hops that share the traffic by flow, each by its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Multipath {
    members: [AdjacencyIndex; MAX_NEXT_HOPS],
    // Of the shares, which are numbered from 0, the first that is not the member's any more.
    ends: [u16; MAX_NEXT_HOPS],
    shares: u32,
    count: u8,
}

impl Multipath {
    /// Of `members`, at most [`MAX_NEXT_HOPS`], with a weight each, or none where all are alike.
    pub(crate) fn new(members: &[AdjacencyIndex], weights: &[u8]) -> Self {
        let mut all = [AdjacencyIndex::NO_ROUTE; MAX_NEXT_HOPS];
        let count = members.len().min(MAX_NEXT_HOPS);
        all[..count].copy_from_slice(&members[..count]);
        let mut ends = [u16::MAX; MAX_NEXT_HOPS];
        let mut shares = 0;
        for (place, end) in ends.iter_mut().take(count).enumerate() {
            shares += u16::from(weights.get(place).copied().unwrap_or(1).max(1));
            *end = shares;
        }
        Self {
            members: all,
            ends,
            shares: u32::from(shares),
            count: count as u8,
        }
    }

    /// The member of a flow.
    #[inline]
    pub(crate) fn pick(&self, flow_hash: u32) -> AdjacencyIndex {
        let share = ((u64::from(flow_hash) * u64::from(self.shares)) >> 32) as u16;
        let place: usize = self.ends.iter().map(|end| usize::from(*end <= share)).sum();
        self.members[place % MAX_NEXT_HOPS]
    }

    pub(crate) fn members(&self) -> &[AdjacencyIndex] {
        &self.members[..usize::from(self.count)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_kind() {
        assert_eq!(
            AdjacencyIndex::midchain(TunnelIndex(9)).tunnel(),
            Some(TunnelIndex(9))
        );
        assert_eq!(AdjacencyIndex::link(9).tunnel(), None);
        assert_eq!(AdjacencyIndex::link(9).kind(), Kind::Link(9));
        assert_eq!(AdjacencyIndex::LOCAL.kind(), Kind::Special(AdjacencyIndex::LOCAL));
        assert!(
            AdjacencyIndex::multipath(NUMBER_MASK).to_bits() < 1 << 31,
            "a bit is left for the FIB"
        );
    }

    #[test]
    fn flows_spread_over_all_members() {
        let members: Vec<_> = (0..3).map(AdjacencyIndex::link).collect();
        let group = Multipath::new(&members, &[]);
        let mut counts = [0; 3];
        for flow in 0..3000u32 {
            let picked = group.pick(flow.wrapping_mul(0x9e37_79b9));
            counts[members.iter().position(|member| *member == picked).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
        assert_eq!(group.members(), members);
    }

    #[test]
    fn flows_spread_by_weight_to_the_last_hash() {
        let members: Vec<_> = (0..3).map(AdjacencyIndex::link).collect();
        let group = Multipath::new(&members, &[1, 255, 64]);
        assert_eq!(group.pick(0), members[0]);
        assert_eq!(group.pick(u32::MAX), members[2]);
        let mut counts = [0u32; 3];
        for flow in 0..32_000u32 {
            let picked = group.pick(flow.wrapping_mul(0x9e37_79b9));
            counts[members.iter().position(|member| *member == picked).unwrap()] += 1;
        }
        assert!((50..200).contains(&counts[0]), "{counts:?}");
        assert!((24_500..26_500).contains(&counts[1]), "{counts:?}");
        let full = Multipath::new(&[AdjacencyIndex::LOCAL; MAX_NEXT_HOPS], &[255; MAX_NEXT_HOPS]);
        assert_eq!(full.pick(u32::MAX), AdjacencyIndex::LOCAL);
    }

    #[test]
    fn a_scan_of_a_connected_prefix_asks_a_bounded_number_of_times() {
        let glean = GleanAdjacency::new(PortSlot::FIRST, PortId(1));
        let asked = (0..100_000u32)
            .filter(|host| glean.should_ask(IpAddr::V4((0x0a00_0000 + host).into()), 10_000))
            .count();
        assert!(asked <= 64, "{asked}");
        assert!(glean.should_ask("10.0.0.1".parse().unwrap(), 11_000));
    }
}
