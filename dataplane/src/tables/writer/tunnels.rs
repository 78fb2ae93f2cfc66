//! Tunnels: their rules, the SA in use, and the way out, which follows the routes.

use std::net::IpAddr;
use std::sync::Arc;

use southbound::{IpPrefix, MAX_WORKERS, Mode, Rejection, SaRef, TunnelId, TunnelSpec, TunnelTotals};

use super::links::LinkKey;
use super::{Writer, table_full};
use crate::sa::{Tunnel, TunnelIndex};
use crate::tables::adjacency::{Adjacency, AdjacencyIndex, Link};
use crate::tables::publish::{Guard, Slot};
use crate::tables::{Kind, VrfIndex};

/// How many tunnels may lie within each other before it is taken for a loop.
const MAX_NESTING: usize = 8;

/// A tunnel as the writer keeps it. One that was removed while routes or rules still name it keeps its
/// number, so that they lead nowhere rather than into another tunnel.
pub(super) struct TunnelState {
    pub(super) index: TunnelIndex,
    /// Next hops and rules that name it.
    pub(super) uses: u32,
    pub(super) generation: u64,
    pub(super) spec: Option<TunnelSpec>,
    pub(super) selected: Option<SaRef>,
    /// How many SAs it has.
    pub(super) sas: usize,
    /// What its SAs carried that were removed.
    pub(super) retired: TunnelTotals,
    outer_vrf: VrfIndex,
    /// The neighbour that the way out leads to, where the peer is on the link.
    neighbour: Option<LinkKey>,
}

impl Writer {
    /// The number of a tunnel.
    #[must_use]
    pub fn tunnel_index(&self, id: TunnelId) -> Option<TunnelIndex> {
        let state = self.tunnels.get(&id)?;
        state.spec.is_some().then_some(state.index)
    }

    pub(super) fn has_tunnel(&self, id: TunnelId) -> bool {
        self.tunnels.get(&id).is_some_and(|tunnel| tunnel.spec.is_some())
    }

    pub(super) fn put_tunnel(
        &mut self,
        generation: u64,
        spec: TunnelSpec,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        if spec.local.is_ipv4() != spec.remote.is_ipv4() {
            return Err(Rejection::Inconsistent(format!(
                "{} and {} are not of one family",
                spec.local, spec.remote
            )));
        }
        if let southbound::DscpPolicy::Set(value @ 64..) = spec.dscp {
            return Err(Rejection::Inconsistent(format!("DSCP {value} is beyond 63")));
        }
        if let southbound::TtlPolicy::Set(0) = spec.ttl {
            return Err(Rejection::Inconsistent(
                "an outer TTL of 0 leaves no host".to_owned(),
            ));
        }
        self.check_label_space(spec.labels)?;
        self.check_tunnel_ends(&spec)?;
        let id = spec.id;
        let inner_vrf = self.vrf(spec.inner_vrf, guard)?;
        let outer_vrf = self.vrf(spec.outer_vrf, guard)?;
        let limit = self.tables.limits.tunnels;
        let full = |_| table_full("tunnels", limit);
        let index = match self.tunnels.get_mut(&id) {
            Some(known) if known.spec.as_ref() == Some(&spec) => {
                known.generation = generation;
                return Ok(());
            }
            Some(known) => known.index,
            None => {
                let most = u32::try_from(limit).unwrap_or(u32::MAX);
                TunnelIndex(self.tunnel_numbers.take(most).map_err(full)?)
            }
        };
        let slot = self
            .tables
            .tunnels
            .get_or_grow(index.0, Slot::empty)
            .map_err(full)?;
        let tunnel = Tunnel::new(&spec, index, inner_vrf, outer_vrf);
        let tunnel = match slot.load(guard) {
            Some(before) => tunnel.succeeding(before),
            None => tunnel,
        };
        slot.replace(Some(Arc::new(tunnel)), guard);
        let remote = spec.remote;
        let state = self.tunnels.entry(id).or_insert_with(|| TunnelState {
            index,
            uses: 0,
            generation,
            spec: None,
            selected: None,
            sas: 0,
            retired: TunnelTotals::default(),
            outer_vrf,
            neighbour: None,
        });
        let before = state.spec.replace(spec);
        state.generation = generation;
        let before_vrf = std::mem::replace(&mut state.outer_vrf, outer_vrf);
        if let Some(before) = before {
            self.tunnel_remotes.remove(&(before_vrf, before.remote, id));
        }
        self.tunnel_remotes.insert((outer_vrf, remote, id));
        self.note_tunnel_ends(id);
        self.resolve_tunnel(id, guard);
        self.resolve_looped(guard);
        Ok(())
    }

    pub(super) fn remove_tunnel(&mut self, id: TunnelId, guard: &Guard) -> bool {
        let Some(state) = self.tunnels.get_mut(&id) else {
            return false;
        };
        let Some(spec) = state.spec.take() else {
            return false;
        };
        let (index, outer_vrf) = (state.index, state.outer_vrf);
        let sas = std::mem::take(&mut state.sas);
        let neighbour = state.neighbour.take();
        state.selected = None;
        if let Some(tunnel) = self.tables.tunnels.get(index.0).and_then(|slot| slot.load(guard)) {
            tunnel.select(None);
        }
        if sas > 0 {
            for sa in self.sas.of_tunnel(index) {
                self.sas.forget(&self.tables, &sa, guard);
            }
        }
        if let Some(slot) = self.tables.tunnels.get(index.0) {
            slot.replace(None, guard);
        }
        self.tunnel_remotes.remove(&(outer_vrf, spec.remote, id));
        self.forget_tunnel_ends(id);
        self.looped.remove(&id);
        if let Some(key) = neighbour {
            self.release_link(&key, guard);
        }
        self.free_tunnel(id, guard);
        self.resolve_looped(guard);
        true
    }

    /// Ends a use by a next hop or a rule.
    pub(super) fn release_tunnel(&mut self, id: TunnelId, guard: &Guard) {
        if let Some(state) = self.tunnels.get_mut(&id) {
            state.uses = state.uses.saturating_sub(1);
        }
        self.free_tunnel(id, guard);
    }

    fn free_tunnel(&mut self, id: TunnelId, guard: &Guard) {
        if let Some(state) = self.tunnels.get(&id)
            && state.uses == 0
            && state.spec.is_none()
        {
            self.tunnel_numbers.give_back(state.index.0, guard);
            self.tunnels.remove(&id);
        }
    }

    pub(super) fn select_outbound(
        &mut self,
        generation: u64,
        tunnel: TunnelId,
        sa: &SaRef,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        let Some(state) = self.tunnels.get_mut(&tunnel).filter(|state| state.spec.is_some()) else {
            return Err(Rejection::UnknownTunnel(tunnel));
        };
        let place = self
            .sas
            .outbound_of(sa, state.index)
            .ok_or(Rejection::UnknownSa(*sa))?;
        state.selected = Some(*sa);
        self.sas.mark(sa, generation);
        if let Some(tunnel) = self
            .tables
            .tunnels
            .get(state.index.0)
            .and_then(|slot| slot.load(guard))
        {
            tunnel.select(Some(place));
        }
        Ok(())
    }

    pub(super) fn select_for_worker(
        &mut self,
        generation: u64,
        tunnel: TunnelId,
        worker: u16,
        sa: &SaRef,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        if usize::from(worker) >= MAX_WORKERS {
            return Err(Rejection::Inconsistent(format!(
                "worker {worker} is beyond {}",
                MAX_WORKERS - 1
            )));
        }
        let index = self
            .tunnel_index(tunnel)
            .ok_or(Rejection::UnknownTunnel(tunnel))?;
        let place = self.sas.outbound_of(sa, index).ok_or(Rejection::UnknownSa(*sa))?;
        self.sas.mark(sa, generation);
        if let Some(tunnel) = self.tables.view(guard).tunnel(index) {
            tunnel.select_for(worker, place);
        }
        Ok(())
    }

    /// Finds the ways out of the tunnels whose peer is within `prefix`.
    pub(super) fn resolve_tunnels_within(&mut self, vrf: VrfIndex, prefix: &IpPrefix, guard: &Guard) {
        let first = (vrf, prefix.network(), TunnelId(0));
        let last = (vrf, prefix.last(), TunnelId(u32::MAX));
        let within: Vec<_> = self
            .tunnel_remotes
            .range(first..=last)
            .map(|(_, _, id)| *id)
            .collect();
        for id in &within {
            self.resolve_tunnel(*id, guard);
        }
        if !within.is_empty() {
            self.resolve_looped(guard);
        }
    }

    pub(super) fn resolve_all_tunnels(&mut self, guard: &Guard) {
        let all: Vec<_> = self.tunnel_remotes.iter().map(|(_, _, id)| *id).collect();
        for id in all {
            self.resolve_tunnel(id, guard);
        }
        self.resolve_looped(guard);
    }

    /// A loop may be broken at any of its tunnels: those found in one are looked at again.
    fn resolve_looped(&mut self, guard: &Guard) {
        let looped: Vec<_> = self.looped.iter().copied().collect();
        for id in looped {
            self.resolve_tunnel(id, guard);
        }
    }

    fn resolve_tunnel(&mut self, id: TunnelId, guard: &Guard) {
        let Some(state) = self.tunnels.get(&id) else {
            return;
        };
        let Some(spec) = &state.spec else {
            return;
        };
        let (index, vrf, remote, before) = (state.index, state.outer_vrf, spec.remote, state.neighbour);
        let route = self.tables.view(guard).route(vrf, remote);
        // A peer on the link without an entry of its own: its neighbour adjacency, so that it is asked for.
        let neighbour = match self.tables.view(guard).adjacency(route, 0) {
            Adjacency::Glean(glean) => Some(LinkKey::Host(glean.port_id, remote)),
            _ => None,
        };
        let mut egress = route;
        if let Some(key) = neighbour {
            egress = self.use_link(key, guard).unwrap_or(AdjacencyIndex::UNREACHABLE);
        }
        if let Some(key) = before {
            self.release_link(&key, guard);
        }
        if let Some(state) = self.tunnels.get_mut(&id) {
            state.neighbour = neighbour.filter(|_| egress != AdjacencyIndex::UNREACHABLE);
        }
        if self.leads_into(egress, index, guard) {
            egress = AdjacencyIndex::TUNNEL_LOOP;
            self.looped.insert(id);
        } else {
            self.looped.remove(&id);
        }
        let mtu_bytes = self.mtu_of(egress, guard);
        if let Some(tunnel) = self.tables.tunnels.get(index.0).and_then(|slot| slot.load(guard)) {
            tunnel.set_egress(egress, mtu_bytes);
        }
    }

    /// Whether packets given to `adjacency` can come to the tunnel `index`.
    fn leads_into(&self, adjacency: AdjacencyIndex, index: TunnelIndex, guard: &Guard) -> bool {
        let mut ahead = vec![(adjacency, 0)];
        while let Some((adjacency, nesting)) = ahead.pop() {
            match adjacency.kind() {
                Kind::Midchain(next) if next == index || nesting >= MAX_NESTING => return true,
                Kind::Midchain(next) => {
                    if let Some(tunnel) = self.tables.tunnels.get(next.0).and_then(|slot| slot.load(guard)) {
                        ahead.push((tunnel.egress(), nesting + 1));
                    }
                }
                Kind::Multipath(number) => {
                    if let Some(group) = self
                        .tables
                        .multipaths
                        .get(number)
                        .and_then(|group| group.load(guard))
                    {
                        ahead.extend(group.members().iter().map(|member| (*member, nesting)));
                    }
                }
                Kind::Labelled(number) => {
                    if let Some(hop) = self.tables.hops.get(number, guard) {
                        ahead.push((hop.adjacency, nesting));
                    }
                }
                Kind::Vrf(_) | Kind::Special(_) | Kind::Link(_) => {}
            }
        }
        false
    }

    /// The largest packet that an adjacency takes: of the least of several.
    fn mtu_of(&self, adjacency: AdjacencyIndex, guard: &Guard) -> Option<u16> {
        match adjacency.kind() {
            Kind::Link(number) => {
                let slot = match self.tables.links.get(number).and_then(|link| link.load(guard))? {
                    Link::Neighbour(neighbour) => neighbour.port,
                    Link::Incomplete(incomplete) => incomplete.port,
                    Link::Glean(glean) => glean.port,
                };
                let port = self.tables.ports[slot.get()].load(guard)?;
                Some(port.link.mtu_bytes)
            }
            Kind::Multipath(number) => {
                let group = self
                    .tables
                    .multipaths
                    .get(number)
                    .and_then(|group| group.load(guard))?;
                group
                    .members()
                    .iter()
                    .filter_map(|member| self.mtu_of(*member, guard))
                    .min()
            }
            Kind::Midchain(next) => {
                let view = self.tables.view(guard);
                let tunnel = view.tunnel(next)?;
                let sa = view.outbound(tunnel);
                (sa.is_some() || !tunnel.protected).then(|| tunnel.inner_mtu_bytes(sa, self.now_seconds))
            }
            Kind::Labelled(number) => {
                let hop = self.tables.hops.get(number, guard)?;
                let mtu_bytes = self.mtu_of(hop.adjacency, guard)?;
                Some(mtu_bytes.saturating_sub(hop.pushed_bytes() as u16))
            }
            Kind::Vrf(_) | Kind::Special(_) => None,
        }
    }
}

/// Whether an SA of these ends may be of the tunnel: one family, and in transport mode the very ends.
pub(super) fn ends_fit(spec: &TunnelSpec, mode: Mode, local: IpAddr, remote: IpAddr) -> bool {
    local.is_ipv4() == remote.is_ipv4() && (mode == Mode::Tunnel || spec.mode == Mode::Transport)
}
