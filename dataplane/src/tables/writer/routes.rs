//! Routes: groups of next hops, precedence within a prefix, and what follows from a change.

use std::collections::HashMap;
use std::sync::Arc;

use southbound::{IpPrefix, NextHop, Rejection, RouteSpec, VrfId};

use super::links::LinkKey;
use super::rib::RouteRecord;
use super::{Writer, table_full};
use crate::tables::adjacency::{AdjacencyIndex, MAX_NEXT_HOPS, Multipath};
use crate::tables::publish::{Full, Guard, Numbers, Slot};
use crate::tables::{Kind, VrfIndex};

/// Next hops and their weights; no weight where all are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Paths {
    next_hops: Arc<[NextHop]>,
    weights: Arc<[u8]>,
}

struct Group {
    paths: Paths,
    adjacency: AdjacencyIndex,
    count: u32,
}

/// The sets of next hops in use: routes that lead the same way share one.
pub(super) struct Groups {
    by_paths: HashMap<Paths, u32>,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    multipaths: Numbers,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            by_paths: HashMap::new(),
            groups: Vec::new(),
            free: Vec::new(),
            multipaths: Numbers::from(0),
        }
    }

    fn get(&self, group: u32) -> Option<&Group> {
        self.groups.get(group as usize)?.as_ref()
    }

    /// The next hops of a group.
    pub(super) fn next_hops(&self, group: u32) -> &[NextHop] {
        self.get(group).map_or(&[], |group| &group.paths.next_hops)
    }

    /// Their weights.
    pub(super) fn weights(&self, group: u32) -> &[u8] {
        self.get(group).map_or(&[], |group| &group.paths.weights)
    }

    /// Where a group leads.
    pub(super) fn adjacency(&self, group: u32) -> AdjacencyIndex {
        self.get(group)
            .map_or(AdjacencyIndex::NO_ROUTE, |group| group.adjacency)
    }
}

impl Writer {
    pub(super) fn put_route(
        &mut self,
        generation: u64,
        spec: RouteSpec,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        self.check_paths(&spec.next_hops, &spec.weights)?;
        let limit = self.tables.limits.routes;
        let vrf = self.vrf(spec.vrf, guard)?;
        let before = self.vrfs[vrf.0 as usize]
            .rib
            .get(&spec.prefix)
            .and_then(|known| known.route);
        if before.is_none() && self.routes >= limit {
            return Err(table_full("routes", limit));
        }
        let full = |_| table_full("route nodes", limit);
        let group = self
            .use_group(&spec.next_hops, &spec.weights, guard)
            .map_err(full)?;
        let route = RouteRecord {
            group,
            adjacency: self.groups.adjacency(group),
            generation,
        };
        self.vrfs[vrf.0 as usize].rib.entry(spec.prefix).route = Some(route);
        match self.repaint(vrf, spec.prefix, guard) {
            Ok(_) => {
                match before {
                    Some(before) => self.release_group(before.group, guard),
                    None => self.routes += 1,
                }
                // Whatever the workers see: a neighbour's entry may have hidden the change.
                if before.map(|before| before.adjacency) != Some(route.adjacency) {
                    self.follow_route(vrf, &spec.prefix, guard);
                }
                Ok(())
            }
            Err(Full) => {
                let rib = &mut self.vrfs[vrf.0 as usize].rib;
                rib.entry(spec.prefix).route = before;
                rib.tidy(&spec.prefix);
                self.release_group(group, guard);
                Err(full(Full))
            }
        }
    }

    pub(super) fn remove_route(&mut self, vrf: VrfId, prefix: IpPrefix, guard: &Guard) -> bool {
        let Some(vrf) = self.vrf_index(vrf) else {
            return false;
        };
        let rib = &mut self.vrfs[vrf.0 as usize].rib;
        let Some(route) = rib.get(&prefix).and_then(|known| known.route) else {
            return false;
        };
        rib.entry(prefix).route = None;
        self.routes -= 1;
        // A removal, or the return of something known before, needs no room.
        let _ = self.repaint(vrf, prefix, guard);
        self.release_group(route.group, guard);
        self.follow_route(vrf, &prefix, guard);
        true
    }

    /// Shows the workers what counts for `prefix` now; tells whether that changed.
    pub(super) fn repaint(&mut self, vrf: VrfIndex, prefix: IpPrefix, guard: &Guard) -> Result<bool, Full> {
        let Self {
            tables, vrfs, v4, v6, ..
        } = self;
        let state = &mut vrfs[vrf.0 as usize];
        let known = *state.rib.entry(prefix);
        let (wanted, painted) = (known.wanted(), known.painted);
        if wanted == painted {
            state.rib.tidy(&prefix);
            return Ok(false);
        }
        let Some(shared) = tables.vrfs.get(vrf.0).and_then(|slot| slot.load(guard)) else {
            return Err(Full);
        };
        let length = prefix.length_bits();
        match (wanted, prefix.network()) {
            (Some(adjacency), std::net::IpAddr::V4(network)) => {
                let table = (&shared.fib_v4, &mut state.v4);
                let prefix = (network.to_bits(), length);
                v4.insert(
                    &tables.nodes_v4,
                    table,
                    prefix,
                    adjacency,
                    painted.is_none(),
                    guard,
                )?;
            }
            (Some(adjacency), std::net::IpAddr::V6(network)) => {
                let table = (&shared.fib_v6, &mut state.v6);
                v6.insert(
                    &tables.nodes_v6,
                    table,
                    (network.to_bits(), length),
                    adjacency,
                    guard,
                )?;
            }
            (None, std::net::IpAddr::V4(network)) => {
                let parent = state.rib.parent(&prefix);
                let table = (&shared.fib_v4, &mut state.v4);
                v4.remove(
                    &tables.nodes_v4,
                    table,
                    (network.to_bits(), length),
                    parent,
                    guard,
                );
            }
            (None, std::net::IpAddr::V6(network)) => {
                let parent = state.rib.parent(&prefix);
                let table = (&shared.fib_v6, &mut state.v6);
                v6.remove(
                    &tables.nodes_v6,
                    table,
                    (network.to_bits(), length),
                    parent,
                    guard,
                );
            }
        }
        state.rib.paint(prefix, wanted);
        state.rib.tidy(&prefix);
        Ok(true)
    }

    /// After a change of `prefix`: neighbours within it, and tunnels to a peer within it.
    fn follow_route(&mut self, vrf: VrfIndex, prefix: &IpPrefix, guard: &Guard) {
        self.settle_neighbours(vrf, prefix, guard);
        self.resolve_tunnels_within(vrf, prefix, guard);
    }

    /// Whether next hops name what is there, and their weights are theirs.
    pub(super) fn check_paths(&self, next_hops: &[NextHop], weights: &[u8]) -> Result<(), Rejection> {
        if next_hops.is_empty() || next_hops.len() > MAX_NEXT_HOPS {
            return Err(Rejection::Inconsistent(format!(
                "1 to {MAX_NEXT_HOPS} next hops, not {}",
                next_hops.len()
            )));
        }
        if !weights.is_empty() && (weights.len() != next_hops.len() || weights.contains(&0)) {
            return Err(Rejection::Inconsistent(
                "a weight of 1 to 255 for each next hop, or none".to_owned(),
            ));
        }
        for next_hop in next_hops {
            match next_hop {
                NextHop::Port { port, .. } if !self.ports.contains_key(port) => {
                    return Err(Rejection::UnknownPort(*port));
                }
                NextHop::Tunnel(tunnel) if !self.has_tunnel(*tunnel) => {
                    return Err(Rejection::UnknownTunnel(*tunnel));
                }
                NextHop::Labelled(nhlfe) => self.check_nhlfe(nhlfe)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Uses the group of these next hops, made where it is new; [`Self::release_group`] ends the use.
    pub(super) fn use_group(
        &mut self,
        next_hops: &[NextHop],
        weights: &[u8],
        guard: &Guard,
    ) -> Result<u32, Full> {
        // Equal weights are none.
        let weights = if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            &[]
        } else {
            weights
        };
        let paths = Paths {
            next_hops: next_hops.into(),
            weights: weights.into(),
        };
        if let Some(group) = self.groups.by_paths.get(&paths).copied() {
            if let Some(Some(known)) = self.groups.groups.get_mut(group as usize) {
                known.count += 1;
            }
            return Ok(group);
        }
        let mut members = Vec::with_capacity(next_hops.len());
        for next_hop in next_hops {
            match self.use_next_hop(next_hop, guard) {
                Ok(adjacency) => members.push(adjacency),
                Err(Full) => {
                    for next_hop in &next_hops[..members.len()] {
                        self.release_next_hop(next_hop, guard);
                    }
                    return Err(Full);
                }
            }
        }
        let adjacency = match members[..] {
            [single] => Ok(single),
            _ => self.make_multipath(&members, weights, guard),
        };
        let adjacency = match adjacency {
            Ok(adjacency) => adjacency,
            Err(Full) => {
                for next_hop in next_hops {
                    self.release_next_hop(next_hop, guard);
                }
                return Err(Full);
            }
        };
        let group = Some(Group {
            paths: paths.clone(),
            adjacency,
            count: 1,
        });
        let number = match self.groups.free.pop() {
            Some(number) => {
                self.groups.groups[number as usize] = group;
                number
            }
            None => {
                self.groups.groups.push(group);
                self.groups.groups.len() as u32 - 1
            }
        };
        self.groups.by_paths.insert(paths, number);
        Ok(number)
    }

    pub(super) fn release_group(&mut self, group: u32, guard: &Guard) {
        let Some(Some(known)) = self.groups.groups.get_mut(group as usize) else {
            return;
        };
        known.count -= 1;
        if known.count > 0 {
            return;
        }
        let (paths, adjacency) = (known.paths.clone(), known.adjacency);
        self.groups.by_paths.remove(&paths);
        self.groups.groups[group as usize] = None;
        self.groups.free.push(group);
        if let Kind::Multipath(number) = adjacency.kind() {
            // As a link's: what a worker has looked up it still finds.
            self.groups.multipaths.give_back(number, guard);
        }
        for next_hop in paths.next_hops.iter() {
            self.release_next_hop(next_hop, guard);
        }
    }

    fn make_multipath(
        &mut self,
        members: &[AdjacencyIndex],
        weights: &[u8],
        guard: &Guard,
    ) -> Result<AdjacencyIndex, Full> {
        let limit = u32::try_from(self.tables.multipaths.limit()).unwrap_or(u32::MAX);
        let number = self.groups.multipaths.take(limit)?;
        let slot = self.tables.multipaths.get_or_grow(number, Slot::empty)?;
        slot.replace(Some(Arc::new(Multipath::new(members, weights))), guard);
        Ok(AdjacencyIndex::multipath(number))
    }

    pub(super) fn use_next_hop(&mut self, next_hop: &NextHop, guard: &Guard) -> Result<AdjacencyIndex, Full> {
        Ok(match next_hop {
            NextHop::Port { .. } => return self.use_link(link_of(next_hop).ok_or(Full)?, guard),
            NextHop::Tunnel(id) => match self.tunnels.get_mut(id) {
                Some(tunnel) => {
                    tunnel.uses += 1;
                    AdjacencyIndex::midchain(tunnel.index)
                }
                None => AdjacencyIndex::UNREACHABLE,
            },
            NextHop::Labelled(nhlfe) => return self.use_hop(nhlfe, guard),
            NextHop::Vrf(id) => match self.vrf(*id, guard) {
                Ok(vrf) => AdjacencyIndex::vrf(vrf),
                Err(_) => return Err(Full),
            },
            NextHop::Local => AdjacencyIndex::LOCAL,
            NextHop::Kernel => AdjacencyIndex::KERNEL,
            NextHop::Unreachable => AdjacencyIndex::UNREACHABLE,
            NextHop::Blackhole => AdjacencyIndex::BLACKHOLE,
        })
    }

    pub(super) fn release_next_hop(&mut self, next_hop: &NextHop, guard: &Guard) {
        match next_hop {
            NextHop::Port { .. } => {
                if let Some(key) = link_of(next_hop) {
                    self.release_link(&key, guard);
                }
            }
            NextHop::Tunnel(id) => self.release_tunnel(*id, guard),
            NextHop::Labelled(nhlfe) => self.release_hop(nhlfe, guard),
            _ => {}
        }
    }
}

fn link_of(next_hop: &NextHop) -> Option<LinkKey> {
    match next_hop {
        NextHop::Port {
            port,
            gateway: Some(gateway),
        } => Some(LinkKey::Host(*port, *gateway)),
        NextHop::Port { port, gateway: None } => Some(LinkKey::Glean(*port)),
        _ => None,
    }
}
