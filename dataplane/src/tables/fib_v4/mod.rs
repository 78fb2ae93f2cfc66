//! Longest-prefix match for IPv4: strides of 16, 8, 4 and 4 bits with leaves pushed down, so that most
//! routes take two loads and none more than four.
//!
//! A table with few routes has a root of 256 entries and one more step of 8 bits; it grows to the large
//! root, which shares all deeper nodes, when it has many. Entries are written in place: each address sees
//! the old route or the new one.

mod writer;

use std::sync::atomic::{AtomicU32, Ordering};

use super::AdjacencyIndex;
use super::publish::Growing;
pub(crate) use writer::{TableV4, WriterV4};

/// Set in an entry that leads to a node rather than to an adjacency.
const CHILD: u32 = 1 << 31;

const WIDE: usize = 256;
const NARROW: usize = 16;

/// The nodes of all tables.
pub(crate) struct NodesV4 {
    // Of bits 8 to 15 under a small root, and of bits 16 to 23.
    wide: Growing<[AtomicU32; WIDE], 64>,
    // Of bits 24 to 27 and 28 to 31.
    narrow: Growing<[AtomicU32; NARROW], 1024>,
}

impl NodesV4 {
    /// Room for what `routes` routes need unless they are spread at the worst.
    pub(crate) fn new(routes: usize) -> Self {
        Self {
            wide: Growing::new(routes / 2 + 1024),
            narrow: Growing::new(routes * 2 + 1024),
        }
    }

    /// Bytes taken.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.wide.memory_bytes() + self.narrow.memory_bytes()
    }

    #[inline]
    fn wide(&self, entry: u32, place: u32) -> u32 {
        match self.wide.get(entry & !CHILD) {
            Some(node) => node[place as usize % WIDE].load(Ordering::Acquire),
            None => AdjacencyIndex::NO_ROUTE.to_bits(),
        }
    }

    #[inline]
    fn narrow(&self, entry: u32, place: u32) -> u32 {
        match self.narrow.get(entry & !CHILD) {
            Some(node) => node[place as usize % NARROW].load(Ordering::Acquire),
            None => AdjacencyIndex::NO_ROUTE.to_bits(),
        }
    }
}

/// One table's root.
#[derive(Debug)]
pub(crate) struct FibV4 {
    root: Box<[AtomicU32]>,
    shift: u32,
}

impl FibV4 {
    fn with_bits(bits: u32) -> Self {
        Self {
            root: (0..1usize << bits)
                .map(|_| AtomicU32::new(AdjacencyIndex::NO_ROUTE.to_bits()))
                .collect(),
            shift: 32 - bits,
        }
    }

    /// An empty table for few routes.
    pub(crate) fn small() -> Self {
        Self::with_bits(8)
    }

    /// Where packets to `address` go.
    #[inline]
    pub(crate) fn lookup(&self, nodes: &NodesV4, address: u32) -> AdjacencyIndex {
        let at = (address >> self.shift) as usize;
        let mut entry = match self.root.get(at) {
            Some(entry) => entry.load(Ordering::Acquire),
            None => AdjacencyIndex::NO_ROUTE.to_bits(),
        };
        if entry & CHILD != 0 && self.shift == 24 {
            entry = nodes.wide(entry, address >> 16);
        }
        if entry & CHILD != 0 {
            entry = nodes.wide(entry, address >> 8);
            if entry & CHILD != 0 {
                entry = nodes.narrow(entry, address >> 4);
                if entry & CHILD != 0 {
                    entry = nodes.narrow(entry, address);
                }
            }
        }
        AdjacencyIndex::from_bits(entry)
    }
}
