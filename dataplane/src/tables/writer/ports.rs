//! Ports, our addresses on them, and neighbours behind them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use southbound::{IpPrefix, LocalAddress, Neighbour, PortId, PortSpec, Rejection};

use super::links::LinkKey;
use super::{NeighbourRecord, PortState, Writer, table_full};
use crate::tables::adjacency::AdjacencyIndex;
use crate::tables::publish::{Full, Guard};
use crate::tables::{Kind, PortInfo, PortLink, PortSlot, VlanPort, Vlans, VrfIndex};

impl Writer {
    /// The place of a port.
    #[must_use]
    pub fn port_slot(&self, id: PortId) -> Option<PortSlot> {
        self.ports.get(&id).map(|port| port.slot)
    }

    /// The port at a place.
    #[must_use]
    pub fn port_at(&self, slot: PortSlot) -> Option<PortId> {
        self.slots[slot.get()]
    }

    /// Takes over what the kernel says of a port's interface: its neighbours' adjacencies and the tunnels
    /// behind it follow.
    pub fn set_port_link(&mut self, slot: PortSlot, link: PortLink) {
        let guard = &Guard::pin();
        let Some(id) = self.slots[slot.get()] else {
            return;
        };
        let before = match self.ports.get_mut(&id) {
            Some(port) if port.link != link => std::mem::replace(&mut port.link, link),
            _ => return,
        };
        self.publish_port(id, guard);
        if before.vlan != link.vlan {
            for vlan in [before.vlan, link.vlan].into_iter().flatten() {
                self.publish_port(vlan.parent, guard);
            }
        }
        self.refresh_links_of(id, guard);
        self.resolve_all_tunnels(guard);
    }

    pub(super) fn put_port(
        &mut self,
        generation: u64,
        spec: PortSpec,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        self.check_label_space(spec.mpls)?;
        let vrf = self.vrf(spec.vrf, guard)?;
        let id = spec.id;
        if let Some(port) = self.ports.get_mut(&id) {
            port.generation = generation;
            let moved = port.vrf != vrf;
            let before = std::mem::replace(&mut port.vrf, vrf);
            let relabelled = port.spec.mpls.is_some() != spec.mpls.is_some();
            port.spec = spec;
            self.publish_port(id, guard);
            if relabelled {
                self.refresh_links_of(id, guard);
            }
            if moved {
                if let Some(vlan) = self.ports.get(&id).and_then(|port| port.link.vlan) {
                    self.publish_port(vlan.parent, guard);
                }
                self.move_neighbours(id, before, vrf, guard);
            }
            return Ok(());
        }
        // The one that was free longest, so that what the last port there counted is not soon another's.
        let free = |slot: &PortSlot| self.slots[slot.get()].is_none();
        let Some(slot) = PortSlot::all()
            .skip(self.next_slot)
            .find(free)
            .or_else(|| PortSlot::all().find(free))
        else {
            return Err(table_full("ports", southbound::PORT_SLOTS));
        };
        self.next_slot = slot.get() + 1;
        self.slots[slot.get()] = Some(id);
        let port = PortState {
            slot,
            spec,
            vrf,
            link: PortLink::default(),
            generation,
        };
        self.ports.insert(id, port);
        self.publish_port(id, guard);
        // Routes and tunnels may still name a port of this name that went.
        self.refresh_links_of(id, guard);
        self.refresh_vlans_of(id, guard);
        Ok(())
    }

    pub(super) fn remove_port(&mut self, id: PortId, guard: &Guard) -> bool {
        let Some(port) = self.ports.remove(&id) else {
            return false;
        };
        self.slots[port.slot.get()] = None;
        self.tables.ports[port.slot.get()].replace(None, guard);
        let gone: Vec<_> = self
            .neighbours
            .keys()
            .filter(|(port, _)| *port == id)
            .copied()
            .collect();
        for (port_id, address) in gone {
            self.neighbours.remove(&(port_id, address));
            self.neighbour_places.remove(&(port.vrf, address, port_id));
            self.forget_neighbour(port.vrf, port_id, address, guard);
        }
        self.refresh_links_of(id, guard);
        self.refresh_vlans_of(id, guard);
        if let Some(vlan) = port.link.vlan {
            self.publish_port(vlan.parent, guard);
        }
        true
    }

    /// The VLANs of a port that came or went have another ring to leave by.
    fn refresh_vlans_of(&mut self, parent: PortId, guard: &Guard) {
        let carried = |port: &&PortState| port.link.vlan.is_some_and(|vlan| vlan.parent == parent);
        let vlans: Vec<_> = self
            .ports
            .values()
            .filter(carried)
            .map(|port| port.spec.id)
            .collect();
        for vlan in vlans {
            self.refresh_links_of(vlan, guard);
        }
    }

    pub(super) fn put_local(
        &mut self,
        generation: u64,
        local: LocalAddress,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        if let Some(known) = self.locals.get_mut(&local) {
            *known = generation;
            return Ok(());
        }
        if let Some(port) = local.port
            && !self.ports.contains_key(&port)
        {
            return Err(Rejection::UnknownPort(port));
        }
        let limit = self.tables.limits.local_addresses;
        if self.locals.len() >= limit {
            return Err(table_full("local addresses", limit));
        }
        let vrf = self.vrf(local.vrf, guard)?;
        let prefix = IpPrefix::host(local.address);
        self.vrfs[vrf.0 as usize].rib.entry(prefix).locals += 1;
        match self.repaint(vrf, prefix, guard) {
            Ok(changed) => {
                self.locals.insert(local, generation);
                self.local_order.push(local);
                if let Some(port) = local.port {
                    self.publish_port(port, guard);
                }
                if changed {
                    self.resolve_tunnels_within(vrf, &prefix, guard);
                }
                Ok(())
            }
            Err(Full) => {
                let rib = &mut self.vrfs[vrf.0 as usize].rib;
                rib.entry(prefix).locals -= 1;
                rib.tidy(&prefix);
                Err(table_full("route nodes", self.tables.limits.routes))
            }
        }
    }

    pub(super) fn remove_local(&mut self, local: &LocalAddress, guard: &Guard) -> bool {
        if self.locals.remove(local).is_none() {
            return false;
        }
        self.local_order.retain(|known| known != local);
        if let Some(vrf) = self.vrf_index(local.vrf) {
            let prefix = IpPrefix::host(local.address);
            let entry = self.vrfs[vrf.0 as usize].rib.entry(prefix);
            entry.locals = entry.locals.saturating_sub(1);
            if self.repaint(vrf, prefix, guard).unwrap_or(true) {
                self.resolve_tunnels_within(vrf, &prefix, guard);
            }
        }
        if let Some(port) = local.port {
            self.publish_port(port, guard);
        }
        true
    }

    pub(super) fn put_neighbour(
        &mut self,
        generation: u64,
        neighbour: Neighbour,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        let Some(vrf) = self.ports.get(&neighbour.port).map(|port| port.vrf) else {
            return Err(Rejection::UnknownPort(neighbour.port));
        };
        let name = (neighbour.port, neighbour.address);
        let record = NeighbourRecord {
            state: neighbour.state,
            generation,
        };
        let limit = self.tables.limits.neighbours;
        if !self.neighbours.contains_key(&name) && self.neighbours.len() >= limit {
            return Err(table_full("neighbours", limit));
        }
        let before = self.neighbours.insert(name, record);
        if before.is_some_and(|before| before.state == neighbour.state) {
            return Ok(());
        }
        self.neighbour_places
            .insert((vrf, neighbour.address, neighbour.port));
        self.refresh_link(&LinkKey::Host(neighbour.port, neighbour.address), guard);
        let prefix = IpPrefix::host(neighbour.address);
        if self.settle_neighbours(vrf, &prefix, guard) {
            self.resolve_tunnels_within(vrf, &prefix, guard);
        }
        Ok(())
    }

    pub(super) fn remove_neighbour(&mut self, port: PortId, address: IpAddr, guard: &Guard) -> bool {
        if self.neighbours.remove(&(port, address)).is_none() {
            return false;
        }
        if let Some(vrf) = self.ports.get(&port).map(|port| port.vrf) {
            self.neighbour_places.remove(&(vrf, address, port));
            self.forget_neighbour(vrf, port, address, guard);
        }
        self.refresh_link(&LinkKey::Host(port, address), guard);
        true
    }

    /// Gives every known neighbour within `prefix` its own entry where the route to it is that of its link,
    /// and takes the entry away where it no longer is. Tells whether anything changed.
    pub(super) fn settle_neighbours(&mut self, vrf: VrfIndex, prefix: &IpPrefix, guard: &Guard) -> bool {
        let within = places_within(&self.neighbour_places, vrf, prefix);
        let mut changed = false;
        for (address, port) in within {
            let host = IpPrefix::host(address);
            let key = LinkKey::Host(port, address);
            let rib = &self.vrfs[vrf.0 as usize].rib;
            let known = rib.get(&host).copied().unwrap_or_default();
            let covering = match known.route {
                Some(route) => route.adjacency,
                None => rib.parent(&host).0,
            };
            let on_link = self.leads_to_link(covering, port, guard);
            let own = self.links.find(&key);
            let has = known.neighbour.is_some() && known.neighbour == own;
            if on_link && known.neighbour.is_none() {
                // Without room the connected route goes on asking for it.
                let Ok(link) = self.use_link(key, guard) else {
                    continue;
                };
                self.vrfs[vrf.0 as usize].rib.entry(host).neighbour = Some(link);
                if self.repaint(vrf, host, guard).is_err() {
                    let rib = &mut self.vrfs[vrf.0 as usize].rib;
                    rib.entry(host).neighbour = None;
                    rib.tidy(&host);
                    self.release_link(&key, guard);
                    continue;
                }
                changed = true;
            } else if !on_link && has {
                self.drop_neighbour_entry(vrf, host, &key, guard);
                changed = true;
            }
        }
        changed
    }

    /// Takes away the entry of a neighbour of `port` that is no longer known.
    fn forget_neighbour(&mut self, vrf: VrfIndex, port: PortId, address: IpAddr, guard: &Guard) {
        let host = IpPrefix::host(address);
        let key = LinkKey::Host(port, address);
        let known = self.vrfs[vrf.0 as usize]
            .rib
            .get(&host)
            .and_then(|known| known.neighbour);
        if known.is_some() && known == self.links.find(&key) {
            self.drop_neighbour_entry(vrf, host, &key, guard);
            // Another port may have a neighbour of this address.
            self.settle_neighbours(vrf, &host, guard);
            self.resolve_tunnels_within(vrf, &host, guard);
        }
    }

    fn drop_neighbour_entry(&mut self, vrf: VrfIndex, host: IpPrefix, key: &LinkKey, guard: &Guard) {
        self.vrfs[vrf.0 as usize].rib.entry(host).neighbour = None;
        // What was known before needs no room.
        let _ = self.repaint(vrf, host, guard);
        self.release_link(key, guard);
    }

    /// Whether `adjacency` is that of a port's link, alone or among others.
    fn leads_to_link(&self, adjacency: AdjacencyIndex, port: PortId, guard: &Guard) -> bool {
        let Some(glean) = self.links.find(&LinkKey::Glean(port)) else {
            return false;
        };
        match adjacency.kind() {
            Kind::Multipath(number) => self
                .tables
                .multipaths
                .get(number)
                .and_then(|group| group.load(guard))
                .is_some_and(|group| group.members().contains(&glean)),
            _ => adjacency == glean,
        }
    }

    fn move_neighbours(&mut self, port: PortId, from: VrfIndex, to: VrfIndex, guard: &Guard) {
        let moved: Vec<_> = self
            .neighbours
            .keys()
            .filter(|(id, _)| *id == port)
            .copied()
            .collect();
        for (port, address) in moved {
            self.neighbour_places.remove(&(from, address, port));
            let host = IpPrefix::host(address);
            self.forget_neighbour(from, port, address, guard);
            self.neighbour_places.insert((to, address, port));
            if self.settle_neighbours(to, &host, guard) {
                self.resolve_tunnels_within(to, &host, guard);
            }
        }
    }

    fn publish_port(&mut self, id: PortId, guard: &Guard) {
        let Some(port) = self.ports.get(&id) else {
            return;
        };
        let addresses = self
            .local_order
            .iter()
            .filter(|local| local.port == Some(id))
            .map(|local| local.address)
            .collect();
        let vlans = self.ports.values().filter_map(|other| {
            let vlan = other.link.vlan.filter(|vlan| vlan.parent == id)?;
            Some(VlanPort {
                id: vlan.id,
                slot: other.slot,
                vrf: other.vrf,
            })
        });
        let info = PortInfo {
            slot: port.slot,
            id,
            role: port.spec.role,
            vrf: port.vrf,
            mpls: port.spec.mpls,
            link: port.link,
            vlans: Vlans::new(vlans.collect()),
            addresses,
        };
        self.tables.ports[port.slot.get()].replace(Some(Arc::new(info)), guard);
    }
}

fn places_within(
    places: &BTreeSet<(VrfIndex, IpAddr, PortId)>,
    vrf: VrfIndex,
    prefix: &IpPrefix,
) -> Vec<(IpAddr, PortId)> {
    let first = (vrf, prefix.network(), PortId(0));
    let last = (vrf, prefix.last(), PortId(u32::MAX));
    places
        .range((Bound::Included(first), Bound::Included(last)))
        .map(|(_, address, port)| (*address, *port))
        .collect()
}
