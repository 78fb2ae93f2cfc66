//! Next hops under labels: the entries to write, and how their TTLs and classes come about.

use southbound::{ClassMapId, ClassMapSpec, Nhlfe, PushClass, TtlModel};

use super::AdjacencyIndex;

/// Most labels that one hop writes: its stack, and an entropy label with its indicator.
pub const MAX_PUSHED: usize = southbound::LabelStack::MAX + 2;

/// A next hop with labels (an NHLFE): one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct LabelHop {
    /// Labels, outermost first.
    labels: [wire::Label; southbound::LabelStack::MAX],
    depth: u8,
    /// Where the packet goes under them: a neighbour's link, or a tunnel.
    pub adjacency: AdjacencyIndex,
    /// The TTL of pushed labels.
    pub ttl: TtlModel,
    /// The TC of pushed labels.
    pub class: PushClass,
    /// How many labels stand above the entropy label's indicator, where one is pushed.
    pub entropy_beneath: Option<u8>,
}

const _: () = assert!(size_of::<LabelHop>() == 64, "a hop costs one cache miss");

impl LabelHop {
    pub(crate) fn new(nhlfe: &Nhlfe, adjacency: AdjacencyIndex) -> Self {
        let mut labels = [wire::Label::IMPLICIT_NULL; southbound::LabelStack::MAX];
        let given = nhlfe.stack.labels();
        for (place, label) in labels.iter_mut().zip(given) {
            // A label of the contract has no more than 20 bits.
            *place = wire::Label::new(label.value()).unwrap_or(wire::Label::IMPLICIT_NULL);
        }
        Self {
            labels,
            depth: given.len() as u8,
            adjacency,
            ttl: nhlfe.ttl,
            class: nhlfe.class,
            entropy_beneath: nhlfe
                .entropy_beneath
                .filter(|above| *above != 0 && usize::from(*above) <= given.len()),
        }
    }

    /// The labels, outermost first.
    #[inline]
    #[must_use]
    pub fn labels(&self) -> &[wire::Label] {
        self.labels.get(..usize::from(self.depth)).unwrap_or(&self.labels)
    }

    /// Bytes that it writes before an IP packet.
    #[inline]
    #[must_use]
    pub fn pushed_bytes(&self) -> usize {
        let entropy = if self.entropy_beneath.is_some() { 2 } else { 0 };
        (usize::from(self.depth) + entropy) * wire::mpls::LSE_BYTES
    }
}

/// A mapping between traffic classes and DSCPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassMap {
    dscp_to_tc: [u8; 64],
    tc_to_dscp: [Option<u8>; 8],
}

impl ClassMap {
    /// The map of `spec`, whose values were checked.
    pub(crate) fn new(spec: &ClassMapSpec) -> Self {
        let mut dscp_to_tc = [0; 64];
        for (place, value) in dscp_to_tc.iter_mut().zip(&spec.dscp_to_tc) {
            *place = value & 7;
        }
        Self {
            dscp_to_tc,
            tc_to_dscp: spec.tc_to_dscp,
        }
    }

    #[inline]
    pub(crate) fn tc(&self, dscp: u8) -> u8 {
        self.dscp_to_tc[usize::from(dscp & 63)]
    }

    #[inline]
    pub(crate) fn dscp(&self, tc: u8) -> Option<u8> {
        self.tc_to_dscp[usize::from(tc & 7)]
    }
}

/// How many maps there may be, with number 0, which none has.
pub(crate) const CLASS_MAPS: usize = ClassMapId::MAX.0 as usize + 1;
