//! Longest-prefix match for IPv6: a trie of 4-bit steps whose nodes skip the bits that all routes below
//! share.
//!
//! ```text
//!  entry: | child | depth / 4 | node number |   or the adjacency of a leaf
//!  node:  path (the bits above depth), outside (for addresses that leave the path), 16 entries
//! ```

mod writer;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::AdjacencyIndex;
use super::publish::Growing;
pub(crate) use writer::{TableV6, WriterV6};

/// Set in an entry that leads to a node rather than to an adjacency.
const CHILD: u32 = 1 << 31;
const DEPTH_SHIFT: u32 = 26;
const NUMBER_MASK: u32 = (1 << DEPTH_SHIFT) - 1;
const STEP_BITS: u32 = 4;
const ENTRIES: usize = 16;

/// A node; path and depth never change while it can be reached.
struct Node {
    entries: [AtomicU32; ENTRIES],
    path: [AtomicU64; 2],
    outside: AtomicU32,
}

impl Node {
    fn new() -> Self {
        Self {
            entries: std::array::from_fn(|_| AtomicU32::new(0)),
            path: [AtomicU64::new(0), AtomicU64::new(0)],
            outside: AtomicU32::new(0),
        }
    }

    #[inline]
    fn path(&self) -> u128 {
        u128::from(self.path[0].load(Ordering::Relaxed)) << 64
            | u128::from(self.path[1].load(Ordering::Relaxed))
    }
}

/// The nodes of all tables.
pub(crate) struct NodesV6 {
    nodes: Growing<Node, 256>,
}

impl NodesV6 {
    /// Room for what `routes` routes need.
    pub(crate) fn new(routes: usize) -> Self {
        // A route adds at most two nodes: its own, and one where it leaves another's path.
        Self {
            nodes: Growing::new((routes * 2 + 1024).min(1 << DEPTH_SHIFT)),
        }
    }

    /// Bytes taken.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.nodes.memory_bytes()
    }
}

/// One table's root.
#[derive(Debug)]
pub(crate) struct FibV6 {
    root: AtomicU32,
}

impl FibV6 {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            root: AtomicU32::new(AdjacencyIndex::NO_ROUTE.to_bits()),
        }
    }

    /// Where packets to `address` go.
    #[inline]
    pub(crate) fn lookup(&self, nodes: &NodesV6, address: u128) -> AdjacencyIndex {
        let mut entry = self.root.load(Ordering::Acquire);
        while entry & CHILD != 0 {
            let Some(node) = nodes.nodes.get(entry & NUMBER_MASK) else {
                return AdjacencyIndex::NO_ROUTE;
            };
            let depth = depth_of(entry);
            if differ_before(node.path(), address, depth) {
                entry = node.outside.load(Ordering::Acquire);
                break;
            }
            entry = node.entries[step(address, depth)].load(Ordering::Acquire);
        }
        AdjacencyIndex::from_bits(entry)
    }
}

#[inline]
fn depth_of(entry: u32) -> u32 {
    (entry >> DEPTH_SHIFT & 0x1f) * STEP_BITS
}

#[inline]
fn step(address: u128, depth: u32) -> usize {
    (address >> (128 - STEP_BITS - depth)) as usize & (ENTRIES - 1)
}

#[inline]
fn differ_before(left: u128, right: u128, depth: u32) -> bool {
    // `depth` is below 128, so a shift by 127 - depth and one more leaves the bits before it.
    ((left ^ right) >> (127 - depth)) >> 1 != 0
}
