//! What the kernel's tables mean to the dataplane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use southbound::{
    IpPrefix, LocalAddress, Neighbour, NeighbourState, NextHop, PortId, RouteSpec, Update, VrfId, VrfSpec,
};

use super::address::is_link_local_v6;
use super::host_route::{HostRoute, KernelHostRoute, METRIC};
use super::link::Link;
use super::route::{Kind, Route, TABLE_LOCAL, TABLE_MAIN};
use super::tables::Tables;
use super::{ROUTE_PROTOCOL, neighbour};
use crate::plane::{Desired, Object};

/// Most ways of one route that the dataplane takes.
const MAX_NEXT_HOPS: usize = 16;

/// What of the kernel's concerns us, from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Ports by interface name, with the routing table of their packets where the kernel has them in no VRF device.
    pub ports: BTreeMap<String, (PortId, VrfId)>,
    /// The tables besides the main one that are VRFs, with their names; those of the kernel's VRF devices are so, too.
    pub vrfs: BTreeMap<u32, String>,
    /// The interface of the host's own traffic.
    pub tap: String,
    /// What the host reaches through tunnels.
    pub host_routes: Vec<HostRoute>,
    /// Routes that the configuration decides, whatever the kernel has.
    pub configured: BTreeSet<(VrfId, IpPrefix)>,
}

/// What an interface is to the dataplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceRole {
    /// A port of this number, in this table.
    Port(PortId, VrfId),
    /// A VRF's device, or, where the kernel has none of that kind, an interface of its name.
    Vrf(VrfId),
    /// The host's: the loopback interface, and everything that is no port.
    Host,
    /// There is none.
    Absent,
}

fn state(entry: Option<&neighbour::Neighbour>) -> Option<NeighbourState> {
    entry?.state
}

impl Scope {
    /// The port that an interface is, and the routing table of its packets: that of the VRF device which it is enslaved
    /// to, or else the configured one.
    pub(super) fn port(&self, tables: &Tables, index: u32) -> Option<(PortId, VrfId)> {
        let link = tables.links.get(&index)?;
        let (port, configured) = *self.ports.get(&link.name)?;
        Some((port, tables.vrf_of(link).map_or(configured, VrfId)))
    }

    /// The interface that a port is.
    pub(super) fn interface(&self, tables: &Tables, port: PortId) -> Option<u32> {
        tables
            .links
            .values()
            .find(|link| self.ports.get(&link.name).is_some_and(|(id, _)| *id == port))
            .map(|link| link.index)
    }

    /// The interface of the host's own traffic, while it is up.
    pub(super) fn tap(&self, tables: &Tables) -> Option<u32> {
        tables
            .links
            .values()
            .find(|link| link.name == self.tap && link.is_up)
            .map(|link| link.index)
    }

    /// The VRF of a kernel table.
    pub(super) fn vrf(&self, tables: &Tables, table: u32) -> Option<VrfId> {
        match table {
            TABLE_MAIN | TABLE_LOCAL => Some(VrfId::MAIN),
            table => {
                let is_known = self.vrfs.contains_key(&table) || tables.vrf_devices.contains_key(&table);
                is_known.then_some(VrfId(table))
            }
        }
    }

    fn is_vrf(&self, tables: &Tables, vrf: VrfId) -> bool {
        vrf == VrfId::MAIN || self.vrf(tables, vrf.0).is_some()
    }

    /// Wants the VRFs of the kernel's devices beside the configured ones, and ports where the kernel has them.
    fn project_vrfs(&self, tables: &Tables, desired: &mut Desired) {
        let is_gone = |object: &Object| matches!(object, Object::Vrf(vrf) if !self.is_vrf(tables, *vrf));
        for object in desired.objects_where(is_gone) {
            desired.remove(object);
        }
        for (table, name) in tables.vrfs().filter(|(table, _)| !self.vrfs.contains_key(table)) {
            desired.put(Update::PutVrf(VrfSpec {
                id: VrfId(table),
                name: name.to_owned(),
            }));
        }
        let enslaved = tables.links.values().filter_map(|link| {
            let (port, _) = self.ports.get(&link.name)?;
            Some((*port, VrfId(tables.vrf_of(link)?)))
        });
        desired.follow_vrfs(enslaved.collect());
    }

    /// Wants the local addresses that the kernel has, and no others.
    pub(super) fn project_addresses(&self, tables: &Tables, desired: &mut Desired) {
        let mut wanted: BTreeMap<(VrfId, IpAddr), Option<PortId>> = BTreeMap::new();
        for entry in tables.addresses.iter().filter(|entry| entry.is_mirrored()) {
            let Some(link) = tables.links.get(&entry.index) else {
                continue;
            };
            let (vrf, port) = match self.port(tables, link.index) {
                Some((port, vrf)) => (Some(vrf), Some(port)),
                // Link-local addresses mean nothing away from their link.
                None if is_link_local_v6(entry.address) => continue,
                None => {
                    let table = tables.vrf_of(link);
                    (
                        table.map_or(Some(VrfId::MAIN), |table| self.vrf(tables, table)),
                        None,
                    )
                }
            };
            if let Some(vrf) = vrf {
                let known = wanted.entry((vrf, entry.address)).or_insert(port);
                *known = known.or(port);
            }
        }
        for object in desired.objects_where(|object| matches!(object, Object::LocalAddress(..))) {
            if let Object::LocalAddress(vrf, address) = object
                && !wanted.contains_key(&(vrf, address))
            {
                desired.remove(object);
            }
        }
        for ((vrf, address), port) in wanted {
            desired.put(Update::PutLocalAddress(LocalAddress { vrf, address, port }));
        }
    }

    /// Wants one neighbour as the kernel has it.
    pub(super) fn project_neighbour(
        &self,
        tables: &Tables,
        desired: &mut Desired,
        (index, address): (u32, IpAddr),
    ) {
        let Some((port, _)) = self.port(tables, index) else {
            return;
        };
        match state(tables.neighbours.get(&(index, address))) {
            Some(state) => {
                desired.put(Update::PutNeighbour(Neighbour { port, address, state }));
            }
            None => desired.remove(Object::Neighbour(port, address)),
        }
    }

    /// Wants one prefix as the kernel routes it.
    pub(super) fn project_route(
        &self,
        tables: &Tables,
        desired: &mut Desired,
        (table, prefix): (u32, IpPrefix),
    ) {
        let Some(vrf) = self.vrf(tables, table) else {
            return;
        };
        self.project_prefix(tables, desired, vrf, prefix);
        if vrf == VrfId::MAIN {
            for vrf in self.detached_vrfs(tables) {
                self.project_prefix(tables, desired, vrf, prefix);
            }
        }
    }

    /// Wants a route of the kernel's again, or no longer, after another source gave its prefix back.
    pub(super) fn project_prefix(
        &self,
        tables: &Tables,
        desired: &mut Desired,
        vrf: VrfId,
        prefix: IpPrefix,
    ) {
        if self.configured.contains(&(vrf, prefix)) || desired.is_claimed(vrf, prefix) {
            return;
        }
        match self.next_hops(tables, vrf, prefix) {
            Some(next_hops) => {
                desired.put(Update::PutRoute(RouteSpec {
                    vrf,
                    prefix,
                    next_hops,
                    weights: Vec::new(),
                }));
            }
            None => desired.remove(Object::Route(vrf, prefix)),
        }
    }

    /// Wants everything as the kernel has it, and nothing else.
    pub(super) fn project_all(&self, tables: &Tables, desired: &mut Desired) {
        self.project_vrfs(tables, desired);
        self.project_addresses(tables, desired);
        for object in
            desired.objects_where(|object| matches!(object, Object::Neighbour(..) | Object::Route(..)))
        {
            let is_wanted = match object {
                Object::Neighbour(port, address) => self
                    .interface(tables, port)
                    .is_some_and(|index| state(tables.neighbours.get(&(index, address))).is_some()),
                Object::Route(vrf, prefix) => {
                    self.configured.contains(&(vrf, prefix))
                        || desired.is_claimed(vrf, prefix)
                        || (self.is_vrf(tables, vrf) && self.next_hops(tables, vrf, prefix).is_some())
                }
                _ => true,
            };
            if !is_wanted {
                desired.remove(object);
            }
        }
        for key in tables.neighbours.keys() {
            self.project_neighbour(tables, desired, *key);
        }
        for key in tables.routes.keys() {
            self.project_route(tables, desired, *key);
        }
    }

    fn next_hops(&self, tables: &Tables, vrf: VrfId, prefix: IpPrefix) -> Option<Vec<NextHop>> {
        // The kernel looks at the local table before the main one.
        let kernel_tables: &[u32] = match vrf {
            VrfId::MAIN => &[TABLE_LOCAL, TABLE_MAIN],
            VrfId(table) => &[table, TABLE_LOCAL, TABLE_MAIN],
        };
        kernel_tables
            .iter()
            .filter_map(|table| Some((*table, tables.routes.get(&(*table, prefix))?)))
            .flat_map(|(table, routes)| routes.iter().map(move |route| (table, route)))
            .filter(|(table, route)| match table {
                &(TABLE_LOCAL | TABLE_MAIN) => self.main_table_vrf(tables, route) == vrf,
                _ => true,
            })
            .find_map(|(_, route)| self.route_next_hops(tables, prefix, route))
    }

    /// Which VRF a route of the kernel's main table belongs to: where the kernel has no VRF devices, the
    /// routes of a customer's port stand there, and those of two customers may be of one prefix.
    fn main_table_vrf(&self, tables: &Tables, route: &Route) -> VrfId {
        let mut vrfs = route.hops.iter().map(|hop| {
            let link = tables.links.get(&hop.index);
            link.and_then(|link| self.detached_vrf(tables, link))
                .unwrap_or(VrfId::MAIN)
        });
        match vrfs.next() {
            Some(first) if vrfs.all(|vrf| vrf == first) => first,
            _ => VrfId::MAIN,
        }
    }

    /// The configured VRF of a port that the kernel has in its main table.
    fn detached_vrf(&self, tables: &Tables, link: &Link) -> Option<VrfId> {
        let (_, vrf) = self.ports.get(&link.name)?;
        (tables.vrf_of(link).is_none() && *vrf != VrfId::MAIN).then_some(*vrf)
    }

    /// All of them.
    fn detached_vrfs(&self, tables: &Tables) -> BTreeSet<VrfId> {
        let links = tables.links.values();
        links.filter_map(|link| self.detached_vrf(tables, link)).collect()
    }

    /// What an interface is to the dataplane.
    pub(super) fn interface_role(&self, tables: &Tables, index: u32) -> InterfaceRole {
        let Some(link) = tables.links.get(&index) else {
            return InterfaceRole::Absent;
        };
        if let Some((port, vrf)) = self.port(tables, index) {
            return InterfaceRole::Port(port, vrf);
        }
        let by_table = link.vrf_table.and_then(|table| self.vrf(tables, table));
        let by_name = self
            .vrfs
            .iter()
            .find(|(_, name)| **name == link.name)
            .map(|(table, _)| VrfId(*table));
        by_table
            .or(by_name)
            .map_or(InterfaceRole::Host, InterfaceRole::Vrf)
    }

    /// Where a route leads; `None` for a route that is none to the dataplane.
    fn route_next_hops(&self, tables: &Tables, prefix: IpPrefix, route: &Route) -> Option<Vec<NextHop>> {
        if route.protocol == ROUTE_PROTOCOL {
            return None;
        }
        let is_host = prefix.length_bits() == if prefix.network().is_ipv4() { 32 } else { 128 };
        match route.kind {
            Kind::Blackhole => return Some(vec![NextHop::Blackhole]),
            Kind::Unreachable => return Some(vec![NextHop::Unreachable]),
            // The host's own addresses are told as such.
            Kind::Local if is_host => return None,
            Kind::Local => return Some(vec![NextHop::Local]),
            Kind::Broadcast => return Some(vec![NextHop::Kernel]),
            Kind::Unicast => {}
        }
        let tap = tables
            .links
            .values()
            .find(|link| link.name == self.tap)
            .map(|link| link.index);
        let mut next_hops = Vec::new();
        for hop in &route.hops {
            if Some(hop.index) == tap {
                continue;
            }
            let next_hop = match self.port(tables, hop.index) {
                Some((port, _)) if !route.is_encapsulated => NextHop::Port {
                    port,
                    gateway: hop.gateway,
                },
                _ => NextHop::Kernel,
            };
            if !next_hops.contains(&next_hop) && next_hops.len() < MAX_NEXT_HOPS {
                next_hops.push(next_hop);
            }
        }
        (!next_hops.is_empty()).then_some(next_hops)
    }

    /// Our routes in the kernel that should go, and those that should come.
    pub(super) fn host_route_changes(&self, tables: &Tables) -> (Vec<KernelHostRoute>, Vec<KernelHostRoute>) {
        let mut wanted = BTreeMap::new();
        if let Some(interface) = self.tap(tables) {
            for route in &self.host_routes {
                let addresses = tables
                    .addresses
                    .iter()
                    .filter(|entry| entry.is_mirrored() && !is_link_local_v6(entry.address))
                    .map(|entry| entry.address);
                wanted.insert(
                    (route.table(), route.prefix),
                    KernelHostRoute {
                        table: route.table(),
                        prefix: route.prefix,
                        priority: METRIC,
                        interface,
                        source: route.source(addresses),
                    },
                );
            }
        }
        let mut stale = Vec::new();
        for ((table, prefix), routes) in &tables.routes {
            for route in routes.iter().filter(|route| route.protocol == ROUTE_PROTOCOL) {
                let found = KernelHostRoute {
                    table: *table,
                    prefix: *prefix,
                    priority: route.priority,
                    interface: route.hops.first().map_or(0, |hop| hop.index),
                    source: route.source,
                };
                if wanted.get(&(*table, *prefix)) == Some(&found) {
                    wanted.remove(&(*table, *prefix));
                } else {
                    stale.push(found);
                }
            }
        }
        (stale, wanted.into_values().collect())
    }
}
