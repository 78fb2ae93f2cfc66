//! The incoming label map: what is done with a label, found with one array access.
//!
//! ```text
//!  63   61 60      59    55 54   51 50          31 30             0
//! +-------+--------+-------+-------+--------------+----------------+
//! | kind  |uniform | class |   0   | label        | adjacency, VRF |
//! +-------+--------+-------+-------+--------------+----------------+
//! ```
//!
//! A space has a word for each of the 2^20 labels. The memory is the kernel's zero page until a label is written, so a
//! space costs what its labels take. The common entries, swap to a neighbour and pop into a table, are whole in their
//! word: no second table is looked at.

use std::sync::atomic::{AtomicU64, Ordering};

use southbound::{PopClass, TtlModel};
use wire::Label;

use super::publish::{prefetch, zeroed_words};
use super::{AdjacencyIndex, VrfIndex};

const KIND_SHIFT: u32 = 61;
const UNIFORM: u64 = 1 << 60;
const CLASS_SHIFT: u32 = 55;
const CLASS_MASK: u64 = 0x1f;
const LABEL_SHIFT: u32 = 31;
const ADJACENCY_MASK: u64 = (1 << 31) - 1;

const NONE: u64 = 0;
const LOOKUP: u64 = 1;
const POP: u64 = 2;
const SWAP: u64 = 3;
const HOPS: u64 = 4;
const HOST: u64 = 5;
const DISCARD: u64 = 6;

/// The class code of [`PopClass::Selector`]; below it are the maps' numbers.
const SELECTOR: u8 = 16;

/// What is done with a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelAction {
    /// Popped, and the IP packet routed.
    Lookup(VrfIndex),
    /// Popped, and the next label looked up.
    Pop,
    /// Another label in its place, or none where it is [`Label::IMPLICIT_NULL`], and out to a neighbour.
    Swap(Label, AdjacencyIndex),
    /// What the adjacency says in its place: a hop with labels, or several.
    Hops(AdjacencyIndex),
    /// Popped, and given to the host.
    Host,
    /// Dropped.
    Discard,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelEntry(u64);

impl LabelEntry {
    /// No entry.
    pub(crate) const NONE: Self = Self(NONE);

    pub(crate) fn new(action: LabelAction, ttl: TtlModel, class: PopClass) -> Self {
        let operand = match action {
            LabelAction::Lookup(vrf) => LOOKUP << KIND_SHIFT | u64::from(vrf.0),
            LabelAction::Pop => POP << KIND_SHIFT,
            LabelAction::Swap(label, adjacency) => {
                SWAP << KIND_SHIFT | u64::from(label.value()) << LABEL_SHIFT | u64::from(adjacency.to_bits())
            }
            LabelAction::Hops(adjacency) => HOPS << KIND_SHIFT | u64::from(adjacency.to_bits()),
            LabelAction::Host => HOST << KIND_SHIFT,
            LabelAction::Discard => DISCARD << KIND_SHIFT,
        };
        let uniform = if ttl == TtlModel::Uniform { UNIFORM } else { 0 };
        let class = match class {
            PopClass::Keep => 0,
            PopClass::Map(map) => map.0.min(SELECTOR - 1),
            PopClass::Selector => SELECTOR,
        };
        Self(operand | uniform | u64::from(class) << CLASS_SHIFT)
    }

    /// What is done; nothing where there is no entry.
    #[inline(always)]
    #[must_use]
    pub fn action(self) -> Option<LabelAction> {
        let operand = (self.0 & ADJACENCY_MASK) as u32;
        Some(match self.0 >> KIND_SHIFT {
            LOOKUP => LabelAction::Lookup(VrfIndex(operand)),
            POP => LabelAction::Pop,
            SWAP => LabelAction::Swap(
                Label::new((self.0 >> LABEL_SHIFT) as u32 & Label::MAX.value())?,
                AdjacencyIndex::from_bits(operand),
            ),
            HOPS => LabelAction::Hops(AdjacencyIndex::from_bits(operand)),
            HOST => LabelAction::Host,
            DISCARD => LabelAction::Discard,
            _ => return None,
        })
    }

    /// Whether the TTL passes from the label to what is beneath it.
    #[inline(always)]
    #[must_use]
    pub const fn is_uniform(self) -> bool {
        self.0 & UNIFORM != 0
    }

    /// What becomes of the DSCP where the last label is popped.
    #[inline(always)]
    #[must_use]
    pub fn class(self) -> PopClass {
        match (self.0 >> CLASS_SHIFT & CLASS_MASK) as u8 {
            0 => PopClass::Keep,
            SELECTOR => PopClass::Selector,
            map => PopClass::Map(southbound::ClassMapId(map)),
        }
    }
}

/// The entries of one label space.
pub(crate) struct Lfib {
    entries: Box<[AtomicU64]>,
}

impl Lfib {
    pub(crate) fn new() -> Self {
        Self {
            entries: zeroed_words(Label::MAX.value() as usize + 1),
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, label: Label) -> LabelEntry {
        match self.entries.get(label.value() as usize) {
            Some(entry) => LabelEntry(entry.load(Ordering::Acquire)),
            None => LabelEntry::NONE,
        }
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, label: Label) {
        if let Some(entry) = self.entries.get(label.value() as usize) {
            prefetch(entry);
        }
    }

    pub(crate) fn set(&self, label: Label, entry: LabelEntry) {
        if let Some(place) = self.entries.get(label.value() as usize) {
            place.store(entry.0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use southbound::ClassMapId;

    #[test]
    fn every_entry_is_what_was_written() {
        let lfib = Lfib::new();
        let label = |value| Label::new(value).unwrap();
        let most = AdjacencyIndex::multipath((1 << 28) - 1);
        let actions = [
            LabelAction::Lookup(VrfIndex(4095)),
            LabelAction::Pop,
            LabelAction::Swap(Label::MAX, AdjacencyIndex::link((1 << 28) - 1)),
            LabelAction::Swap(Label::IMPLICIT_NULL, AdjacencyIndex::link(0)),
            LabelAction::Hops(most),
            LabelAction::Host,
            LabelAction::Discard,
        ];
        let mut number = 16;
        for action in actions {
            for ttl in [TtlModel::Uniform, TtlModel::Pipe(255)] {
                for class in [PopClass::Keep, PopClass::Selector, PopClass::Map(ClassMapId(15))] {
                    lfib.set(label(number), LabelEntry::new(action, ttl, class));
                    let entry = lfib.get(label(number));
                    assert_eq!(entry.action(), Some(action));
                    assert_eq!(entry.is_uniform(), ttl == TtlModel::Uniform);
                    assert_eq!(entry.class(), class);
                    number += 1;
                }
            }
        }
        assert_eq!(lfib.get(Label::MAX).action(), None);
        lfib.set(label(16), LabelEntry::NONE);
        assert_eq!(lfib.get(label(16)).action(), None);
    }
}
