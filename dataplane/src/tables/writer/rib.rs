//! What is known of each prefix of a table, and which of it counts.

use std::collections::HashMap;

use southbound::IpPrefix;

use crate::tables::AdjacencyIndex;

/// A route as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteRecord {
    /// Its next hops.
    pub(super) group: u32,
    /// Where they lead.
    pub(super) adjacency: AdjacencyIndex,
    pub(super) generation: u64,
}

/// A prefix. An address of ours counts before all; a neighbour, which is only noted where the route to it
/// is that of its link, before that route.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefix {
    pub(super) locals: u32,
    pub(super) route: Option<RouteRecord>,
    pub(super) neighbour: Option<AdjacencyIndex>,
    /// What the workers see.
    pub(super) painted: Option<AdjacencyIndex>,
}

impl Prefix {
    pub(super) fn wanted(&self) -> Option<AdjacencyIndex> {
        if self.locals > 0 {
            Some(AdjacencyIndex::LOCAL)
        } else {
            self.neighbour.or(self.route.map(|route| route.adjacency))
        }
    }

    fn is_empty(&self) -> bool {
        self.locals == 0 && self.route.is_none() && self.neighbour.is_none() && self.painted.is_none()
    }
}

/// The prefixes of one table.
#[derive(Debug)]
pub(super) struct Rib {
    prefixes: HashMap<IpPrefix, Prefix>,
    // How many painted prefixes have each length.
    lengths_v4: [u32; 33],
    lengths_v6: [u32; 129],
}

impl Default for Rib {
    fn default() -> Self {
        Self {
            prefixes: HashMap::new(),
            lengths_v4: [0; 33],
            lengths_v6: [0; 129],
        }
    }
}

impl Rib {
    pub(super) fn get(&self, prefix: &IpPrefix) -> Option<&Prefix> {
        self.prefixes.get(prefix)
    }

    /// Changes what is known of `prefix`; [`Self::tidy`] follows.
    pub(super) fn entry(&mut self, prefix: IpPrefix) -> &mut Prefix {
        self.prefixes.entry(prefix).or_default()
    }

    /// Forgets a prefix of which nothing is known.
    pub(super) fn tidy(&mut self, prefix: &IpPrefix) {
        if self.prefixes.get(prefix).is_some_and(Prefix::is_empty) {
            self.prefixes.remove(prefix);
        }
    }

    /// Notes what the workers see.
    pub(super) fn paint(&mut self, prefix: IpPrefix, adjacency: Option<AdjacencyIndex>) {
        let before = std::mem::replace(&mut self.entry(prefix).painted, adjacency);
        let counts: &mut [u32] = if prefix.network().is_ipv4() {
            &mut self.lengths_v4
        } else {
            &mut self.lengths_v6
        };
        let count = &mut counts[usize::from(prefix.length_bits())];
        match (before, adjacency) {
            (None, Some(_)) => *count += 1,
            (Some(_), None) => *count -= 1,
            _ => {}
        }
    }

    /// The longest painted prefix that covers `prefix` and is shorter.
    pub(super) fn parent(&self, prefix: &IpPrefix) -> (AdjacencyIndex, u8) {
        let counts: &[u32] = if prefix.network().is_ipv4() {
            &self.lengths_v4
        } else {
            &self.lengths_v6
        };
        (0..prefix.length_bits())
            .rev()
            .filter(|length| counts[usize::from(*length)] > 0)
            .find_map(|length| {
                let shorter = IpPrefix::new(prefix.network(), length).ok()?;
                let adjacency = self.prefixes.get(&shorter)?.painted?;
                Some((adjacency, length))
            })
            .unwrap_or((AdjacencyIndex::NO_ROUTE, 0))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&IpPrefix, &Prefix)> {
        self.prefixes.iter()
    }
}
