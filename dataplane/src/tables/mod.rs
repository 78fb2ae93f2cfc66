//! The tables: written by one thread, only read by workers.
//!
//! A worker asks [`Tables::reader`] for its [`Reader`] once, pins it once a batch, and asks the [`View`]:
//!
//! ```text
//!  reader.pin() -> view
//!    inbound:   view.inbound(spi) -> InboundSa -> sa.tunnel() -> view.tunnel(index)
//!    outbound:  view.route(vrf, destination) -> AdjacencyIndex -> view.adjacency(index, flow_hash)
//!                 Midchain(tunnel) -> view.tunnel -> view.outbound(tunnel) -> OutboundSa
//!                 then tunnel.egress() -> view.adjacency(..)
//!    rules:     view.policy_out(vrf, flow), view.policy_in(vrf, flow) -> Decision
//!  reader.park() before the worker sleeps
//! ```

mod adjacency;
mod fib_v4;
mod fib_v6;
mod label_hop;
mod label_view;
mod lfib;
mod port;
pub mod publish;
mod sad;
mod spd;
mod tally;
mod tunnel_map;
mod vrf;
mod writer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub use adjacency::{
    Adjacency, AdjacencyIndex, GleanAdjacency, IncompleteAdjacency, MAX_NEXT_HOPS, NeighbourAdjacency,
};
pub use label_hop::{LabelHop, MAX_PUSHED};
pub use lfib::{LabelAction, LabelEntry};
pub use port::{PortInfo, PortLink, PortSlot, VlanLink, VlanPort, Vlans};
pub use spd::Decision;
pub use tunnel_map::{TunnelEnds, TunnelHeader};
pub use vrf::VrfIndex;
pub use writer::{Memory, Writer};

use crate::sa::{Flow, InboundSa, OutboundSa, TUNNEL_LINES, Tunnel, TunnelIndex};
use adjacency::{Kind, Link, Multipath};
use fib_v4::{FibV4, NodesV4};
use fib_v6::NodesV6;
use label_hop::{CLASS_MAPS, ClassMap};
use lfib::Lfib;
use publish::{Always, Arena, Growing, Guard, Slot};
use sad::Sad;
use southbound::{LabelSpaceId, PORT_SLOTS};
use tally::{Tallies, Tally};
use tunnel_map::TunnelMap;
use vrf::Vrf;

/// How large the tables may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// SAs of each direction.
    pub sas: usize,
    /// Tunnels.
    pub tunnels: usize,
    /// Routes, of all tables together.
    pub routes: usize,
    /// Rules.
    pub policies: usize,
    /// Neighbours.
    pub neighbours: usize,
    /// Routing tables.
    pub vrfs: usize,
    /// Local addresses.
    pub local_addresses: usize,
    /// Labels, of all spaces together.
    pub labels: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sas: southbound::SAD_CAPACITY,
            tunnels: 1 << 20,
            routes: 1 << 21,
            policies: 1 << 17,
            neighbours: 1 << 17,
            vrfs: 1 << 12,
            local_addresses: 1 << 16,
            labels: 1 << 20,
        }
    }
}

/// One that looks and is no worker.
const NO_WORKER: u16 = u16::MAX;

/// Label spaces.
const LABEL_SPACES: usize = LabelSpaceId::MAX.0 as usize + 1;

/// Chunk of the small directories.
const CHUNK: usize = 256;

/// What workers share.
pub struct Tables {
    limits: Limits,
    sad: Arc<Sad>,
    outbound: Arena<OutboundSa>,
    tunnels: Growing<Slot<Tunnel>, CHUNK>,
    links: Growing<Slot<Link>, CHUNK>,
    multipaths: Growing<Slot<Multipath>, CHUNK>,
    vrfs: Growing<Slot<Vrf>, CHUNK>,
    /// Routing tables with rules: raised before the first worker sees one's, lowered after the last.
    ruled_vrfs: AtomicUsize,
    lfibs: [OnceLock<Lfib>; LABEL_SPACES],
    hops: Arena<LabelHop>,
    class_maps: [Slot<ClassMap>; CLASS_MAPS],
    tunnel_map: Always<TunnelMap>,
    tallies: Tallies,
    nodes_v4: NodesV4,
    nodes_v6: NodesV6,
    ports: [Slot<PortInfo>; PORT_SLOTS],
}

impl Tables {
    /// Empty tables.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        // A route is of one neighbour or one group; connected prefixes and gateways add links.
        let links = limits.neighbours + limits.routes / 4 + 2 * PORT_SLOTS;
        Self {
            limits,
            sad: Arc::new(Sad::new(limits.sas)),
            outbound: Arena::new(limits.sas),
            tunnels: Growing::new(limits.tunnels),
            links: Growing::new(links),
            multipaths: Growing::new(limits.routes / 4),
            vrfs: Growing::new(limits.vrfs),
            ruled_vrfs: AtomicUsize::new(0),
            lfibs: [const { OnceLock::new() }; LABEL_SPACES],
            hops: Arena::new(limits.labels + limits.routes / 2),
            class_maps: std::array::from_fn(|_| Slot::empty()),
            tunnel_map: Always::new(TunnelMap::default()),
            tallies: Tallies::new(limits.vrfs),
            nodes_v4: NodesV4::new(limits.routes),
            nodes_v6: NodesV6::new(limits.routes),
            ports: std::array::from_fn(|_| Slot::empty()),
        }
    }

    /// A reader for the calling thread, which keeps it.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Reader {
        self.reader_of(NO_WORKER)
    }

    /// A reader for the worker of this number.
    #[must_use]
    pub fn reader_of(self: &Arc<Self>, worker: u16) -> Reader {
        Reader {
            worker,
            tables: Arc::clone(self),
            tally: self.tallies.register(),
            guard: None,
        }
    }

    /// How large the tables may grow.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The tables as they are under `guard`.
    #[must_use]
    pub fn view<'g>(&'g self, guard: &'g Guard) -> View<'g> {
        View {
            tables: self,
            guard,
            tally: None,
            worker: NO_WORKER,
        }
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tables").finish_non_exhaustive()
    }
}

/// A worker's access.
#[derive(Debug)]
pub struct Reader {
    worker: u16,
    tables: Arc<Tables>,
    tally: Arc<Tally>,
    guard: Option<Guard>,
}

impl Reader {
    /// The tables as they are now, for one batch. Frees nothing, waits for nobody.
    #[inline]
    pub fn pin(&mut self) -> View<'_> {
        if let Some(guard) = &mut self.guard {
            guard.repin();
        }
        View {
            tables: &self.tables,
            guard: self.guard.get_or_insert_with(Guard::pin),
            tally: Some(&self.tally),
            worker: self.worker,
        }
    }

    /// Lets go, so that the writer can free: before the worker sleeps.
    pub fn park(&mut self) {
        self.guard = None;
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }
}

/// The IPv4 routes of a table during one batch.
#[derive(Clone, Copy)]
pub struct RoutesV4<'g> {
    fib: &'g FibV4,
    nodes: &'g NodesV4,
}

impl RoutesV4<'_> {
    /// Where packets to `destination` go.
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: Ipv4Addr) -> AdjacencyIndex {
        self.fib.lookup(self.nodes, destination.to_bits())
    }
}

/// The tables during one batch.
#[derive(Clone, Copy, Debug)]
pub struct View<'g> {
    tables: &'g Tables,
    guard: &'g Guard,
    // The worker's own cells; the writer looks at the tables without any.
    tally: Option<&'g Tally>,
    // Whose own SAs count.
    worker: u16,
}

impl<'g> View<'g> {
    /// The proof that this view holds, for the parts of an SA that may change.
    #[inline]
    #[must_use]
    pub fn guard(&self) -> &'g Guard {
        self.guard
    }

    /// The inbound SA of `spi`.
    #[inline]
    #[must_use]
    pub fn inbound(&self, spi: u32) -> Option<&'g InboundSa> {
        self.tables.sad.get(spi, self.guard)
    }

    /// Starts to load the SAD's entry of `spi`: a batch's first pass.
    #[inline]
    pub fn prefetch_entry(&self, spi: u32) {
        self.tables.sad.prefetch_entry(spi, self.guard);
    }

    /// Starts to load the inbound SA of `spi`: a batch's second pass.
    #[inline]
    pub fn prefetch_inbound(&self, spi: u32) {
        self.tables.sad.prefetch_sa(spi, self.guard);
    }

    /// A tunnel.
    #[inline]
    #[must_use]
    pub fn tunnel(&self, index: TunnelIndex) -> Option<&'g Tunnel> {
        self.tables.tunnels.get(index.0)?.load(self.guard)
    }

    /// Starts to load where a tunnel is found: a batch's first pass.
    #[inline]
    pub fn prefetch_tunnel_place(&self, index: TunnelIndex) {
        if let Some(slot) = self.tables.tunnels.get(index.0) {
            publish::prefetch(slot);
        }
    }

    /// Starts to load a tunnel: a batch's second pass.
    #[inline]
    pub fn prefetch_tunnel(&self, index: TunnelIndex) {
        if let Some(tunnel) = self.tunnel(index) {
            publish::prefetch_front(tunnel, TUNNEL_LINES);
        }
    }

    /// The worker that looks.
    #[inline]
    #[must_use]
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// The outbound SA that this worker uses for `tunnel` now: its own, or else that of all.
    #[inline]
    #[must_use]
    pub fn outbound(&self, tunnel: &Tunnel) -> Option<&'g OutboundSa> {
        self.tables
            .outbound
            .get(tunnel.outbound_place(self.worker)?, self.guard)
    }

    /// Starts to load the outbound SA that `tunnel` uses now, key and all.
    #[inline]
    pub fn prefetch_outbound(&self, tunnel: &Tunnel) {
        if let Some(place) = tunnel.outbound_place(self.worker) {
            self.tables.outbound.prefetch(place, size_of::<OutboundSa>() / 64);
        }
    }

    /// Where packets to `destination` go.
    #[inline]
    #[must_use]
    pub fn route(&self, vrf: VrfIndex, destination: IpAddr) -> AdjacencyIndex {
        match destination {
            IpAddr::V4(v4) => self.route_v4(vrf, v4),
            IpAddr::V6(v6) => self.route_v6(vrf, v6),
        }
    }

    /// Where IPv4 packets to `destination` go.
    #[inline]
    #[must_use]
    pub fn route_v4(&self, vrf: VrfIndex, destination: Ipv4Addr) -> AdjacencyIndex {
        match self.routes_v4(vrf) {
            Some(routes) => routes.lookup(destination),
            None => AdjacencyIndex::NO_ROUTE,
        }
    }

    /// The IPv4 routes of a table, for several lookups.
    #[inline]
    #[must_use]
    pub fn routes_v4(&self, vrf: VrfIndex) -> Option<RoutesV4<'g>> {
        Some(RoutesV4 {
            fib: self.vrf(vrf)?.fib_v4.load(self.guard),
            nodes: &self.tables.nodes_v4,
        })
    }

    /// Where IPv6 packets to `destination` go.
    #[inline]
    #[must_use]
    pub fn route_v6(&self, vrf: VrfIndex, destination: Ipv6Addr) -> AdjacencyIndex {
        let Some(vrf) = self.vrf(vrf) else {
            return AdjacencyIndex::NO_ROUTE;
        };
        vrf.fib_v6.lookup(&self.tables.nodes_v6, destination.to_bits())
    }

    /// Whether `address` is one of this gateway's.
    #[inline]
    #[must_use]
    pub fn is_local(&self, vrf: VrfIndex, address: IpAddr) -> bool {
        self.route(vrf, address) == AdjacencyIndex::LOCAL
    }

    /// What an index stands for; `flow_hash` chooses among several next hops.
    #[inline]
    #[must_use]
    pub fn adjacency(&self, index: AdjacencyIndex, flow_hash: u32) -> Adjacency<'g> {
        match index.kind() {
            Kind::Multipath(number) => match self
                .tables
                .multipaths
                .get(number)
                .and_then(|group| group.load(self.guard))
            {
                // A group never holds a group.
                Some(group) => self.single(group.pick(flow_hash)),
                None => Adjacency::NoRoute,
            },
            _ => self.single(index),
        }
    }

    /// The first rule for a packet that is about to leave in clear: from our side to the peer's.
    #[inline]
    #[must_use]
    pub fn policy_out(&self, vrf: VrfIndex, flow: &Flow) -> Decision {
        match self.vrf(vrf).and_then(|vrf| vrf.spd.load(self.guard)) {
            Some(rules) => rules.decide(flow.source, flow.destination, flow.protocol, flow.ports),
            None => Decision::NoRule,
        }
    }

    /// The first rule for a packet that arrived in clear, or came out of a tunnel: from the peer's side to
    /// ours.
    #[inline]
    #[must_use]
    pub fn policy_in(&self, vrf: VrfIndex, flow: &Flow) -> Decision {
        match self.vrf(vrf).and_then(|vrf| vrf.spd.load(self.guard)) {
            Some(rules) => {
                let mirrored = flow.mirrored();
                rules.decide(
                    mirrored.source,
                    mirrored.destination,
                    mirrored.protocol,
                    mirrored.ports,
                )
            }
            None => Decision::NoRule,
        }
    }

    /// Whether any table has rules.
    #[inline]
    #[must_use]
    pub fn any_policies(&self) -> bool {
        self.tables.ruled_vrfs.load(Ordering::Acquire) != 0
    }

    /// Whether a table has any rule at all, so that a batch can skip the question.
    #[inline]
    #[must_use]
    pub fn has_policies(&self, vrf: VrfIndex) -> bool {
        self.vrf(vrf)
            .is_some_and(|vrf| vrf.spd.load(self.guard).is_some())
    }

    /// A port.
    #[inline]
    #[must_use]
    pub fn port(&self, slot: PortSlot) -> Option<&'g PortInfo> {
        self.tables.ports[slot.get()].load(self.guard)
    }

    #[inline]
    fn vrf(&self, index: VrfIndex) -> Option<&'g Vrf> {
        self.tables.vrfs.get(index.0)?.load(self.guard)
    }

    #[inline]
    fn single(&self, index: AdjacencyIndex) -> Adjacency<'g> {
        match index.kind() {
            Kind::Link(number) => match self
                .tables
                .links
                .get(number)
                .and_then(|link| link.load(self.guard))
            {
                Some(Link::Neighbour(neighbour)) => Adjacency::Neighbour(neighbour),
                Some(Link::Incomplete(incomplete)) => Adjacency::Incomplete(incomplete),
                Some(Link::Glean(glean)) => Adjacency::Glean(glean),
                None => Adjacency::NoRoute,
            },
            Kind::Midchain(tunnel) => Adjacency::Midchain(tunnel),
            Kind::Labelled(_) => self.hop(index).map_or(Adjacency::NoRoute, Adjacency::Labelled),
            Kind::Vrf(vrf) => Adjacency::Vrf(vrf),
            Kind::Special(AdjacencyIndex::LOCAL) => Adjacency::Local,
            Kind::Special(AdjacencyIndex::KERNEL) => Adjacency::Kernel,
            Kind::Special(AdjacencyIndex::UNREACHABLE) => Adjacency::Unreachable,
            Kind::Special(AdjacencyIndex::BLACKHOLE) => Adjacency::Blackhole,
            Kind::Special(AdjacencyIndex::TUNNEL_LOOP) => Adjacency::TunnelLoop,
            Kind::Special(_) | Kind::Multipath(_) => Adjacency::NoRoute,
        }
    }
}
