//! What workers ask of labels and of tunnels that are not ESP alone.

use southbound::{ClassMapId, LabelSpaceId};
use wire::Label;

use super::adjacency::Kind;
use super::{AdjacencyIndex, LabelEntry, LabelHop, TunnelEnds, View, VrfIndex};
use crate::sa::TunnelIndex;

impl<'g> View<'g> {
    /// What is done with a label; [`LabelEntry::action`] is `None` where nothing is.
    #[inline(always)]
    #[must_use]
    pub fn label(&self, space: LabelSpaceId, label: Label) -> LabelEntry {
        match self
            .tables
            .lfibs
            .get(space.0 as usize)
            .and_then(|lfib| lfib.get())
        {
            Some(lfib) => lfib.get(label),
            None => LabelEntry::NONE,
        }
    }

    /// Starts to load what a label's packet will need.
    #[inline(always)]
    pub fn prefetch_label(&self, space: LabelSpaceId, label: Label) {
        if let Some(lfib) = self
            .tables
            .lfibs
            .get(space.0 as usize)
            .and_then(|lfib| lfib.get())
        {
            lfib.prefetch(label);
        }
        if let Some(tally) = self.tally {
            tally.prefetch_label(space, label);
        }
    }

    /// The member of a group that a flow takes; anything else is its own.
    #[inline]
    #[must_use]
    pub fn member(&self, index: AdjacencyIndex, flow_hash: u32) -> AdjacencyIndex {
        match index.kind() {
            Kind::Multipath(number) => self
                .tables
                .multipaths
                .get(number)
                .and_then(|group| group.load(self.guard))
                .map_or(AdjacencyIndex::NO_ROUTE, |group| group.pick(flow_hash)),
            _ => index,
        }
    }

    /// The next hop with labels that an adjacency is.
    #[inline]
    #[must_use]
    pub fn hop(&self, index: AdjacencyIndex) -> Option<&'g LabelHop> {
        match index.kind() {
            Kind::Labelled(number) => self.tables.hops.get(number, self.guard),
            _ => None,
        }
    }

    /// Starts to load the next hop with labels that an adjacency may be.
    #[inline(always)]
    pub fn prefetch_hop(&self, index: AdjacencyIndex) {
        if let Kind::Labelled(number) = index.kind() {
            self.tables.hops.prefetch(number, 1);
        }
    }

    /// The TC of a DSCP by a map; `None` where there is no such map.
    #[must_use]
    pub fn tc_of(&self, map: ClassMapId, dscp: u8) -> Option<u8> {
        let map = self.tables.class_maps.get(usize::from(map.0))?.load(self.guard)?;
        Some(map.tc(dscp))
    }

    /// The DSCP of a TC by a map; `None` where there is no such map, or it leaves the packet's.
    #[must_use]
    pub fn dscp_of(&self, map: ClassMapId, tc: u8) -> Option<u8> {
        let map = self.tables.class_maps.get(usize::from(map.0))?.load(self.guard)?;
        map.dscp(tc)
    }

    /// The tunnel of these ends.
    #[inline]
    #[must_use]
    pub fn tunnel_of(&self, ends: &TunnelEnds) -> Option<TunnelIndex> {
        self.tables.tunnel_map.load(self.guard).find(ends)
    }

    /// Counts packets under their label.
    #[inline(always)]
    pub fn count_label(&self, space: LabelSpaceId, label: Label, packets: u64, bytes: u64) {
        if let Some(tally) = self.tally {
            tally.add_label(space, label, packets, bytes);
        }
    }

    /// Counts packets that are routed in a table.
    #[inline(always)]
    pub fn count_vrf(&self, vrf: VrfIndex, packets: u64, bytes: u64) {
        if let Some(tally) = self.tally {
            tally.add_vrf(vrf, packets, bytes);
        }
    }
}
