//! The writer's side of the IPv4 trie: painting a prefix over entries that belong to shorter ones.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{CHILD, FibV4, NARROW, NodesV4, WIDE};
use crate::tables::AdjacencyIndex;
use crate::tables::publish::{Always, Full, Guard, Numbers};

/// Routes at which a table gets the large root.
const LARGE_ROUTES: usize = 512;

/// One table as its writer keeps it.
#[derive(Debug)]
pub(crate) struct TableV4 {
    // The length of the route behind each entry of the root.
    depths: Vec<u8>,
    routes: usize,
}

impl TableV4 {
    pub(crate) fn new() -> Self {
        Self {
            depths: vec![0; 256],
            routes: 0,
        }
    }
}

/// The writer's side of all tables.
pub(crate) struct WriterV4 {
    wide_depths: Vec<[u8; WIDE]>,
    narrow_depths: Vec<[u8; NARROW]>,
    wide: Numbers,
    narrow: Numbers,
}

impl WriterV4 {
    pub(crate) fn new() -> Self {
        Self {
            wide_depths: Vec::new(),
            narrow_depths: Vec::new(),
            wide: Numbers::from(0),
            narrow: Numbers::from(0),
        }
    }

    /// Bytes taken beside the nodes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.wide_depths.capacity() * WIDE + self.narrow_depths.capacity() * NARROW
    }

    /// Leads `prefix` to `adjacency`, whether it is new or led elsewhere before.
    pub(crate) fn insert(
        &mut self,
        nodes: &NodesV4,
        (fib, table): (&Always<FibV4>, &mut TableV4),
        prefix: (u32, u8),
        adjacency: AdjacencyIndex,
        is_new: bool,
        guard: &Guard,
    ) -> Result<(), Full> {
        let paint = Paint {
            bits: prefix.0,
            length: prefix.1,
            entry: adjacency.to_bits(),
            depth: prefix.1,
            removes: false,
        };
        self.brush(nodes, fib.load(guard), table, guard)
            .paint(At::Root, 0, &paint)?;
        table.routes += usize::from(is_new);
        if table.routes > LARGE_ROUTES && table.depths.len() == WIDE {
            self.enlarge(nodes, fib, table, guard);
        }
        Ok(())
    }

    /// Takes `prefix` out; `parent` is the next shorter route that covers it, or no route and length 0.
    pub(crate) fn remove(
        &mut self,
        nodes: &NodesV4,
        (fib, table): (&Always<FibV4>, &mut TableV4),
        prefix: (u32, u8),
        parent: (AdjacencyIndex, u8),
        guard: &Guard,
    ) {
        let paint = Paint {
            bits: prefix.0,
            length: prefix.1,
            entry: parent.0.to_bits(),
            depth: parent.1,
            removes: true,
        };
        // Taking out needs no room.
        let _ = self
            .brush(nodes, fib.load(guard), table, guard)
            .paint(At::Root, 0, &paint);
        table.routes -= 1;
        if table.routes == 0 && table.depths.len() > WIDE {
            *table = TableV4::new();
            fib.replace(FibV4::small(), guard);
        }
    }

    fn brush<'a>(
        &'a mut self,
        nodes: &'a NodesV4,
        root: &'a FibV4,
        table: &'a mut TableV4,
        guard: &'a Guard,
    ) -> Brush<'a> {
        Brush {
            nodes,
            root,
            root_depths: &mut table.depths,
            writer: self,
            guard,
        }
    }

    /// Gives a table the large root; everything below is shared.
    fn enlarge(&mut self, nodes: &NodesV4, fib: &Always<FibV4>, table: &mut TableV4, guard: &Guard) {
        let old = fib.load(guard);
        let new = FibV4::with_bits(16);
        let mut depths = vec![0u8; new.root.len()];
        for (at, (entry, depth)) in old.root.iter().zip(&table.depths).enumerate() {
            let entry = entry.load(Ordering::Relaxed);
            let node = (entry & CHILD != 0)
                .then(|| nodes.wide.get(entry & !CHILD))
                .flatten();
            for low in 0..WIDE {
                let (value, length) = match node {
                    Some(node) => (
                        node[low].load(Ordering::Relaxed),
                        self.wide_depths[(entry & !CHILD) as usize][low],
                    ),
                    None => (entry, *depth),
                };
                new.root[at * WIDE + low].store(value, Ordering::Relaxed);
                depths[at * WIDE + low] = length;
            }
            if node.is_some() {
                self.wide.give_back(entry & !CHILD, guard);
            }
        }
        table.depths = depths;
        fib.replace(new, guard);
    }
}

/// What is written over the entries of a prefix.
struct Paint {
    bits: u32,
    length: u8,
    entry: u32,
    depth: u8,
    removes: bool,
}

impl Paint {
    /// Whether an entry that belongs to a route of `depth` bits is written over.
    fn covers(&self, depth: u8) -> bool {
        if self.removes {
            depth == self.length
        } else {
            depth <= self.length
        }
    }
}

/// A node of the trie.
#[derive(Clone, Copy)]
enum At {
    Root,
    Wide(u32),
    Narrow(u32),
}

struct Brush<'a> {
    nodes: &'a NodesV4,
    root: &'a FibV4,
    root_depths: &'a mut Vec<u8>,
    writer: &'a mut WriterV4,
    guard: &'a Guard,
}

impl<'a> Brush<'a> {
    /// Writes over the part of the prefix that lies in the node `at`, which starts behind `start` bits. On an
    /// error nothing was written.
    fn paint(&mut self, at: At, start: u32, paint: &Paint) -> Result<(), Full> {
        let entries = self.entries(at);
        let bits = entries.len().trailing_zeros();
        let end = start + bits;
        let length = u32::from(paint.length);
        let index = (paint.bits.checked_shr(32 - end).unwrap_or(0)) as usize & (entries.len() - 1);
        if length > end {
            return self.paint_below(at, index, end, paint);
        }
        let count = 1usize << (end - length.max(start));
        let first = if length <= start { 0 } else { index & !(count - 1) };
        for (index, place) in entries.iter().enumerate().skip(first).take(count) {
            let entry = place.load(Ordering::Relaxed);
            if entry & CHILD != 0 {
                self.paint(child(entry, end), end, paint)?;
                self.collapse(at, index, end, paint);
            } else if paint.covers(self.depths(at)[index]) {
                self.depths(at)[index] = paint.depth;
                place.store(paint.entry, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The prefix lies within one entry.
    fn paint_below(&mut self, at: At, index: usize, end: u32, paint: &Paint) -> Result<(), Full> {
        let slot = &self.entries(at)[index];
        let entry = slot.load(Ordering::Relaxed);
        if entry & CHILD != 0 {
            self.paint(child(entry, end), end, paint)?;
            self.collapse(at, index, end, paint);
        } else if !paint.removes {
            let depth = self.depths(at)[index];
            let made = self.make(end, entry, depth)?;
            // Complete before anybody can see it.
            if let Err(full) = self.paint(child(made, end), end, paint) {
                self.give_back(made, end);
                return Err(full);
            }
            slot.store(made, Ordering::Release);
        }
        Ok(())
    }

    /// After a removal: a node that holds nothing of its own becomes a leaf again.
    fn collapse(&mut self, at: At, index: usize, end: u32, paint: &Paint) {
        let slot = &self.entries(at)[index];
        let entry = slot.load(Ordering::Relaxed);
        if !paint.removes {
            return;
        }
        let below = child(entry, end);
        let entries = self.entries(below);
        let has_own = entries
            .iter()
            .any(|entry| entry.load(Ordering::Relaxed) & CHILD != 0)
            || self.depths(below).iter().any(|depth| u32::from(*depth) > end);
        if has_own {
            return;
        }
        self.depths(at)[index] = self.depths(below)[0];
        slot.store(entries[0].load(Ordering::Relaxed), Ordering::Release);
        self.give_back(entry, end);
    }

    /// A node behind `start` bits, all of whose entries are `entry`.
    fn make(&mut self, start: u32, entry: u32, depth: u8) -> Result<u32, Full> {
        let number = if start < 24 {
            let number = self.writer.wide.take(limit(self.nodes.wide.limit()))?;
            self.nodes
                .wide
                .get_or_grow(number, || [const { AtomicU32::new(0) }; WIDE])?;
            fit(&mut self.writer.wide_depths, number, [0; WIDE]);
            number
        } else {
            let number = self.writer.narrow.take(limit(self.nodes.narrow.limit()))?;
            self.nodes
                .narrow
                .get_or_grow(number, || [const { AtomicU32::new(0) }; NARROW])?;
            fit(&mut self.writer.narrow_depths, number, [0; NARROW]);
            number
        };
        let at = child(CHILD | number, start);
        for slot in self.entries(at) {
            slot.store(entry, Ordering::Relaxed);
        }
        self.depths(at).fill(depth);
        Ok(CHILD | number)
    }

    fn give_back(&mut self, entry: u32, start: u32) {
        match child(entry, start) {
            At::Wide(number) => self.writer.wide.give_back(number, self.guard),
            At::Narrow(number) => self.writer.narrow.give_back(number, self.guard),
            At::Root => {}
        }
    }

    fn entries(&self, at: At) -> &'a [AtomicU32] {
        match at {
            At::Root => &self.root.root,
            At::Wide(number) => self.nodes.wide.get(number).map_or(&[], |node| node),
            At::Narrow(number) => self.nodes.narrow.get(number).map_or(&[], |node| node),
        }
    }

    fn depths(&mut self, at: At) -> &mut [u8] {
        match at {
            At::Root => self.root_depths,
            At::Wide(number) => &mut self.writer.wide_depths[number as usize],
            At::Narrow(number) => &mut self.writer.narrow_depths[number as usize],
        }
    }
}

/// The node that an entry behind `start` bits leads to.
fn child(entry: u32, start: u32) -> At {
    if start < 24 {
        At::Wide(entry & !CHILD)
    } else {
        At::Narrow(entry & !CHILD)
    }
}

fn limit(elements: usize) -> u32 {
    u32::try_from(elements).unwrap_or(u32::MAX).min(CHILD)
}

fn fit<T: Clone>(all: &mut Vec<T>, number: u32, value: T) {
    if all.len() <= number as usize {
        all.resize(number as usize + 1, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn mask(length: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }

    /// Routes in a list, looked through whole.
    #[derive(Default)]
    struct Model(BTreeMap<(u8, u32), AdjacencyIndex>);

    impl Model {
        fn longest(&self, address: u32, below: u8) -> (AdjacencyIndex, u8) {
            self.0
                .iter()
                .rev()
                .find(|((length, prefix), _)| *length < below && address & mask(*length) == *prefix)
                .map_or((AdjacencyIndex::NO_ROUTE, 0), |((length, _), adjacency)| {
                    (*adjacency, *length)
                })
        }
    }

    struct Bench {
        nodes: NodesV4,
        fib: Always<FibV4>,
        table: TableV4,
        writer: WriterV4,
        model: Model,
    }

    impl Bench {
        fn new(routes: usize) -> Self {
            Self {
                nodes: NodesV4::new(routes),
                fib: Always::new(FibV4::small()),
                table: TableV4::new(),
                writer: WriterV4::new(),
                model: Model::default(),
            }
        }

        fn insert(&mut self, prefix: u32, length: u8, value: u32, guard: &Guard) {
            let prefix = prefix & mask(length);
            let adjacency = AdjacencyIndex::link(value);
            let is_new = self.model.0.insert((length, prefix), adjacency).is_none();
            self.writer
                .insert(
                    &self.nodes,
                    (&self.fib, &mut self.table),
                    (prefix, length),
                    adjacency,
                    is_new,
                    guard,
                )
                .unwrap();
        }

        fn remove(&mut self, prefix: u32, length: u8, guard: &Guard) {
            let prefix = prefix & mask(length);
            if self.model.0.remove(&(length, prefix)).is_some() {
                let parent = self.model.longest(prefix, length);
                self.writer.remove(
                    &self.nodes,
                    (&self.fib, &mut self.table),
                    (prefix, length),
                    parent,
                    guard,
                );
            }
        }

        fn agree(&self, address: u32, guard: &Guard) {
            assert_eq!(
                self.fib.load(guard).lookup(&self.nodes, address),
                self.model.longest(address, 33).0,
                "{}",
                std::net::Ipv4Addr::from(address)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_address_agrees_with_a_list_of_routes(
            steps in proptest::collection::vec((any::<bool>(), 0u32..64, 0u8..=32, 0u32..100), 1..120),
            many in any::<bool>(),
        ) {
            let guard = Guard::pin();
            let mut bench = Bench::new(1024);
            if many {
                for number in 0..=LARGE_ROUTES as u32 {
                    bench.insert(0xc000_0000 + (number << 8), 24, number, &guard);
                }
            }
            // Few distinct bits, so that prefixes nest.
            let spread = |seed: u32| (seed & 3) << 30 | (seed >> 2 & 3) << 15 | (seed >> 4 & 3) << 3 | (seed & 1);
            for (inserts, seed, length, value) in &steps {
                if *inserts {
                    bench.insert(spread(*seed), *length, *value, &guard);
                } else {
                    bench.remove(spread(*seed), *length, &guard);
                }
            }
            for seed in 0..64 {
                let prefix = spread(seed);
                for address in [prefix, prefix ^ 1, prefix ^ 8, prefix ^ 0x80, prefix ^ 0x8000, prefix ^ 0x80_0000] {
                    bench.agree(address, &guard);
                }
            }
            for address in [0, u32::MAX, 0xc000_0000, 0xc000_ff01] {
                bench.agree(address, &guard);
            }
        }
    }

    #[test]
    fn what_was_removed_gives_its_nodes_back() {
        let mut guard = Guard::pin();
        let mut bench = Bench::new(4096);
        for round in 0..5u32 {
            for number in 0..600u32 {
                bench.insert(
                    number.wrapping_mul(0x9e37_79b9),
                    20 + (number % 13) as u8,
                    round,
                    &guard,
                );
            }
            bench.agree(0x9e37_79b9, &guard);
            assert!(bench.writer.wide.out() > 0 && bench.writer.narrow.out() > 0);
            for number in 0..600u32 {
                bench.remove(number.wrapping_mul(0x9e37_79b9), 20 + (number % 13) as u8, &guard);
            }
            assert_eq!(bench.table.routes, 0);
            assert_eq!(bench.table.depths.len(), WIDE, "small again");
            // Other tests of this process hold the epoch now and then.
            for _ in 0..5000 {
                guard.collect();
                if bench.writer.wide.out() + bench.writer.narrow.out() == 0 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert_eq!(
                bench.writer.wide.out() + bench.writer.narrow.out(),
                0,
                "round {round}"
            );
        }
    }

    #[test]
    fn without_room_nothing_changes() {
        let guard = Guard::pin();
        let mut bench = Bench::new(0);
        let mut refused = 0;
        for number in 0..5000u32 {
            let prefix = number << 16;
            let result = bench.writer.insert(
                &bench.nodes,
                (&bench.fib, &mut bench.table),
                (prefix, 32),
                AdjacencyIndex::link(number),
                true,
                &guard,
            );
            match result {
                Ok(()) => {
                    bench.model.0.insert((32, prefix), AdjacencyIndex::link(number));
                }
                Err(Full) => refused += 1,
            }
        }
        assert!(refused > 0);
        for number in 0..5000u32 {
            let expected = bench
                .model
                .0
                .get(&(32, number << 16))
                .copied()
                .unwrap_or(AdjacencyIndex::NO_ROUTE);
            assert_eq!(
                bench.fib.load(&guard).lookup(&bench.nodes, number << 16),
                expected
            );
        }
    }
}
