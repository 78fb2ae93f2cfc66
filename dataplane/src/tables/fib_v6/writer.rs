//! The writer's side of the IPv6 trie: painting a prefix over entries that belong to shorter ones, with a
//! node put in where a route leaves the path that others share.

use std::sync::atomic::Ordering;

use super::{
    CHILD, DEPTH_SHIFT, ENTRIES, FibV6, NUMBER_MASK, Node, NodesV6, STEP_BITS, depth_of, differ_before, step,
};
use crate::tables::AdjacencyIndex;
use crate::tables::publish::{Full, Guard, Numbers};

/// Where a node's `outside` stands among its depths.
const OUTSIDE: usize = ENTRIES;

/// One table as its writer keeps it.
#[derive(Debug, Default)]
pub(crate) struct TableV6 {
    // The length of the route behind the root entry.
    depth: u8,
}

/// The writer's side of all tables.
pub(crate) struct WriterV6 {
    // The length of the route behind each entry, and behind `outside`.
    depths: Vec<[u8; ENTRIES + 1]>,
    numbers: Numbers,
}

impl WriterV6 {
    pub(crate) fn new() -> Self {
        Self {
            depths: Vec::new(),
            numbers: Numbers::from(0),
        }
    }

    /// Bytes taken beside the nodes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.depths.capacity() * (ENTRIES + 1)
    }

    /// Leads `prefix` to `adjacency`, whether it is new or led elsewhere before.
    pub(crate) fn insert(
        &mut self,
        nodes: &NodesV6,
        (fib, table): (&FibV6, &mut TableV6),
        prefix: (u128, u8),
        adjacency: AdjacencyIndex,
        guard: &Guard,
    ) -> Result<(), Full> {
        let paint = Paint {
            bits: prefix.0,
            length: u32::from(prefix.1),
            entry: adjacency.to_bits(),
            depth: prefix.1,
            removes: false,
        };
        self.brush(nodes, fib, table, guard).paint(Place::Root, 0, &paint)
    }

    /// Takes `prefix` out; `parent` is the next shorter route that covers it, or no route and length 0.
    pub(crate) fn remove(
        &mut self,
        nodes: &NodesV6,
        (fib, table): (&FibV6, &mut TableV6),
        prefix: (u128, u8),
        parent: (AdjacencyIndex, u8),
        guard: &Guard,
    ) {
        let paint = Paint {
            bits: prefix.0,
            length: u32::from(prefix.1),
            entry: parent.0.to_bits(),
            depth: parent.1,
            removes: true,
        };
        // Taking out needs no room.
        let _ = self.brush(nodes, fib, table, guard).paint(Place::Root, 0, &paint);
    }

    fn brush<'a>(
        &'a mut self,
        nodes: &'a NodesV6,
        root: &'a FibV6,
        table: &'a mut TableV6,
        guard: &'a Guard,
    ) -> Brush<'a> {
        Brush {
            nodes,
            root,
            root_depth: &mut table.depth,
            writer: self,
            guard,
        }
    }
}

/// What is written over the entries of a prefix.
struct Paint {
    bits: u128,
    length: u32,
    entry: u32,
    depth: u8,
    removes: bool,
}

impl Paint {
    /// Whether an entry that belongs to a route of `depth` bits is written over.
    fn covers(&self, depth: u8) -> bool {
        let depth = u32::from(depth);
        if self.removes {
            depth == self.length
        } else {
            depth <= self.length
        }
    }
}

/// Where an entry stands.
#[derive(Clone, Copy)]
enum Place {
    Root,
    Of(u32, usize),
}

struct Brush<'a> {
    nodes: &'a NodesV6,
    root: &'a FibV6,
    root_depth: &'a mut u8,
    writer: &'a mut WriterV6,
    guard: &'a Guard,
}

impl<'a> Brush<'a> {
    /// Writes over the part of the prefix that lies under the entry at `place`, whose addresses share their
    /// first `end` bits. On an error nothing was written.
    fn paint(&mut self, place: Place, end: u32, paint: &Paint) -> Result<(), Full> {
        let (entry, depth) = self.load(place);
        if entry & CHILD == 0 {
            if paint.length <= end {
                if paint.covers(depth) {
                    self.store(place, paint.entry, paint.depth);
                }
            } else if !paint.removes {
                let made = self.make(
                    (paint.length - 1) / STEP_BITS * STEP_BITS,
                    paint.bits,
                    entry,
                    depth,
                )?;
                self.paint_entries(made, paint)?;
                self.store(place, made, 0);
            }
            return Ok(());
        }
        let number = entry & NUMBER_MASK;
        let node_depth = depth_of(entry);
        let path = self.node(entry).map_or(0, Node::path);
        if paint.length <= end {
            let outside = Place::Of(number, OUTSIDE);
            let (_, depth) = self.load(outside);
            if paint.covers(depth) {
                self.store(outside, paint.entry, paint.depth);
            }
            self.paint_entries(entry, paint)?;
        } else {
            let shared = (path ^ paint.bits)
                .leading_zeros()
                .min(paint.length)
                .min(node_depth);
            if shared < node_depth {
                return if paint.removes {
                    Ok(())
                } else {
                    self.split(place, entry, shared, paint)
                };
            }
            self.paint_entries(entry, paint)?;
        }
        if paint.removes {
            self.collapse(place, entry);
        }
        Ok(())
    }

    /// Writes over the part of the prefix that lies in the node of `entry`, on whose path it is.
    fn paint_entries(&mut self, entry: u32, paint: &Paint) -> Result<(), Full> {
        let number = entry & NUMBER_MASK;
        let depth = depth_of(entry);
        let end = depth + STEP_BITS;
        let index = step(paint.bits, depth);
        if paint.length > end {
            return self.paint(Place::Of(number, index), end, paint);
        }
        let count = 1usize << (end - paint.length.max(depth));
        let first = if paint.length <= depth {
            0
        } else {
            index & !(count - 1)
        };
        for index in first..first + count {
            self.paint(Place::Of(number, index), end, paint)?;
        }
        Ok(())
    }

    /// Puts a node above that of `entry`, where the prefix leaves its path after `shared` bits or ends.
    fn split(&mut self, place: Place, entry: u32, shared: u32, paint: &Paint) -> Result<(), Full> {
        let path = self.node(entry).map_or(0, Node::path);
        let last = if shared == paint.length {
            shared - 1
        } else {
            shared
        };
        let depth = last / STEP_BITS * STEP_BITS;
        let (outside, outside_depth) = self.load(Place::Of(entry & NUMBER_MASK, OUTSIDE));
        let made = self.make(depth, path, outside, outside_depth)?;
        self.store(Place::Of(made & NUMBER_MASK, step(path, depth)), entry, 0);
        if let Err(full) = self.paint_entries(made, paint) {
            self.writer.numbers.give_back(made & NUMBER_MASK, self.guard);
            return Err(full);
        }
        self.store(place, made, 0);
        Ok(())
    }

    /// After a removal: a node without routes of its own, or with nothing but one node below, goes.
    fn collapse(&mut self, place: Place, entry: u32) {
        let number = entry & NUMBER_MASK;
        let (outside, outside_depth) = self.load(Place::Of(number, OUTSIDE));
        let mut only_child = None;
        for index in 0..ENTRIES {
            let (below, depth) = self.load(Place::Of(number, index));
            if below & CHILD != 0 {
                if only_child.replace(below).is_some() {
                    return;
                }
            } else if depth != outside_depth {
                return;
            }
        }
        match only_child {
            None => self.store(place, outside, outside_depth),
            Some(below) => {
                // What leaves the lower node's path now leaves this one's: it must lead to the same.
                if self.load(Place::Of(below & NUMBER_MASK, OUTSIDE)).1 != outside_depth {
                    return;
                }
                self.store(place, below, 0);
            }
        }
        self.writer.numbers.give_back(number, self.guard);
    }

    /// A node at `depth` on the path of `bits`, all of whose entries are `entry`.
    fn make(&mut self, depth: u32, bits: u128, entry: u32, route_depth: u8) -> Result<u32, Full> {
        let limit = u32::try_from(self.nodes.nodes.limit())
            .unwrap_or(u32::MAX)
            .min(NUMBER_MASK);
        let number = self.writer.numbers.take(limit)?;
        let node = self.nodes.nodes.get_or_grow(number, Node::new)?;
        if self.writer.depths.len() <= number as usize {
            self.writer.depths.resize(number as usize + 1, [0; ENTRIES + 1]);
        }
        for slot in &node.entries {
            slot.store(entry, Ordering::Relaxed);
        }
        node.outside.store(entry, Ordering::Relaxed);
        node.path[0].store((bits >> 64) as u64, Ordering::Relaxed);
        node.path[1].store(bits as u64, Ordering::Relaxed);
        self.writer.depths[number as usize].fill(route_depth);
        debug_assert!(!differ_before(node.path(), bits, depth));
        Ok(CHILD | (depth / STEP_BITS) << DEPTH_SHIFT | number)
    }

    fn node(&self, entry: u32) -> Option<&'a Node> {
        self.nodes.nodes.get(entry & NUMBER_MASK)
    }

    fn load(&self, place: Place) -> (u32, u8) {
        match place {
            Place::Root => (self.root.root.load(Ordering::Relaxed), *self.root_depth),
            Place::Of(number, index) => {
                let depth = self.writer.depths[number as usize][index];
                let entry = self.node(number).map_or(0, |node| {
                    let slot = node.entries.get(index).unwrap_or(&node.outside);
                    slot.load(Ordering::Relaxed)
                });
                (entry, depth)
            }
        }
    }

    fn store(&mut self, place: Place, entry: u32, depth: u8) {
        match place {
            Place::Root => {
                *self.root_depth = depth;
                self.root.root.store(entry, Ordering::Release);
            }
            Place::Of(number, index) => {
                self.writer.depths[number as usize][index] = depth;
                if let Some(node) = self.node(number) {
                    node.entries
                        .get(index)
                        .unwrap_or(&node.outside)
                        .store(entry, Ordering::Release);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn mask(length: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
    }

    struct Bench {
        nodes: NodesV6,
        fib: FibV6,
        table: TableV6,
        writer: WriterV6,
        model: BTreeMap<(u8, u128), AdjacencyIndex>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                nodes: NodesV6::new(100_000),
                fib: FibV6::new(),
                table: TableV6::default(),
                writer: WriterV6::new(),
                model: BTreeMap::new(),
            }
        }

        fn longest(&self, address: u128, below: u8) -> (AdjacencyIndex, u8) {
            self.model
                .iter()
                .rev()
                .find(|((length, prefix), _)| *length < below && address & mask(*length) == *prefix)
                .map_or((AdjacencyIndex::NO_ROUTE, 0), |((length, _), adjacency)| {
                    (*adjacency, *length)
                })
        }

        fn insert(&mut self, prefix: u128, length: u8, value: u32, guard: &Guard) {
            let prefix = prefix & mask(length);
            let adjacency = AdjacencyIndex::link(value);
            self.model.insert((length, prefix), adjacency);
            self.writer
                .insert(
                    &self.nodes,
                    (&self.fib, &mut self.table),
                    (prefix, length),
                    adjacency,
                    guard,
                )
                .unwrap();
        }

        fn remove(&mut self, prefix: u128, length: u8, guard: &Guard) {
            let prefix = prefix & mask(length);
            if self.model.remove(&(length, prefix)).is_some() {
                let parent = self.longest(prefix, length);
                self.writer.remove(
                    &self.nodes,
                    (&self.fib, &mut self.table),
                    (prefix, length),
                    parent,
                    guard,
                );
            }
        }

        fn agree(&self, address: u128) {
            assert_eq!(
                self.fib.lookup(&self.nodes, address),
                self.longest(address, 129).0,
                "{}",
                std::net::Ipv6Addr::from(address)
            );
        }
    }

    /// Few distinct bits, so that prefixes nest and part at many depths.
    fn spread(seed: u32) -> u128 {
        let seed = u128::from(seed);
        0x2001_0db8 << 96 | (seed & 3) << 94 | (seed >> 2 & 7) << 77 | (seed >> 5 & 3) << 61 | (seed >> 7 & 3)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(120))]
        #[test]
        fn every_address_agrees_with_a_list_of_routes(
            steps in proptest::collection::vec((0u8..3, 0u32..512, prop_oneof![0u8..=128, Just(64u8), Just(48), Just(32), Just(128)], 0u32..100), 1..150),
        ) {
            let guard = Guard::pin();
            let mut bench = Bench::new();
            for (kind, seed, length, value) in &steps {
                if *kind < 2 {
                    bench.insert(spread(*seed), *length, *value, &guard);
                } else {
                    bench.remove(spread(*seed), *length, &guard);
                }
            }
            for seed in 0..512 {
                let prefix = spread(seed);
                for bit in [0, 3, 50, 62, 79, 90, 127] {
                    bench.agree(prefix ^ 1 << bit);
                }
                bench.agree(prefix);
            }
            bench.agree(0);
            // Take everything out in another order: nothing may be left.
            let all: Vec<_> = bench.model.keys().copied().collect();
            for (length, prefix) in all {
                bench.remove(prefix, length, &guard);
                bench.agree(prefix);
            }
            prop_assert_eq!(bench.fib.root.load(Ordering::Relaxed), AdjacencyIndex::NO_ROUTE.to_bits());
        }
    }

    #[test]
    fn a_route_adds_at_most_two_nodes() {
        let guard = Guard::pin();
        let mut bench = Bench::new();
        for number in 0..4096u64 {
            let bits = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64;
            bench.insert(bits, 33 + (number % 32) as u8, number as u32, &guard);
        }
        assert!(
            bench.writer.depths.len() <= 2 * 4096,
            "{}",
            bench.writer.depths.len()
        );
    }
}
