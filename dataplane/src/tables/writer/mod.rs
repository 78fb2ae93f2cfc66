//! The one writer of the tables: takes the contract's updates, keeps what they depend on in step, and
//! undoes what it began where one is refused.

mod hops;
mod labels;
mod links;
mod path;
mod policies;
mod ports;
mod rib;
mod routes;
mod sas;
mod status;
mod sweep;
mod tunnel_ends;
mod tunnels;
mod vrfs;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use southbound::{
    Event, LocalAddress, NeighbourState, PORT_SLOTS, PolicyDefault, PolicyId, PortId, PortSpec, Rejection,
    TunnelId, Update, VrfId,
};

use super::fib_v4::{TableV4, WriterV4};
use super::fib_v6::{TableV6, WriterV6};
use super::publish::{Guard, Numbers};
use super::{PortLink, PortSlot, Tables, VrfIndex};
use hops::Hops;
use labels::Labels;
use links::Links;
use policies::PolicyState;
use rib::Rib;
use routes::Groups;
use sas::Sas;
use tunnel_ends::TunnelEndsState;
use tunnels::TunnelState;
use vrfs::VrfName;

/// A routing table as the writer keeps it.
struct VrfState {
    id: VrfId,
    rib: Rib,
    v4: TableV4,
    v6: TableV6,
    policies: HashMap<PolicyId, PolicyState>,
    // What no rule matches, and the generation that said so.
    policy_default: Option<(PolicyDefault, u64)>,
    // Rules changed and were not compiled yet.
    stale_policies: bool,
}

/// A port as the writer keeps it.
struct PortState {
    slot: PortSlot,
    spec: PortSpec,
    vrf: VrfIndex,
    link: PortLink,
    generation: u64,
}

/// A neighbour as the writer keeps it.
struct NeighbourRecord {
    state: NeighbourState,
    generation: u64,
}

/// The writer. It lives on one thread; workers see each change at their next batch.
pub struct Writer {
    tables: Arc<Tables>,
    now_seconds: u64,
    generation: u64,
    v4: WriterV4,
    v6: WriterV6,
    vrf_indices: HashMap<VrfId, VrfIndex>,
    vrfs: Vec<VrfState>,
    ports: HashMap<PortId, PortState>,
    slots: [Option<PortId>; PORT_SLOTS],
    next_slot: usize,
    locals: HashMap<LocalAddress, u64>,
    // In the order told, for the choice of a source address.
    local_order: Vec<LocalAddress>,
    neighbours: HashMap<(PortId, IpAddr), NeighbourRecord>,
    neighbour_places: BTreeSet<(VrfIndex, IpAddr, PortId)>,
    links: Links,
    groups: Groups,
    routes: usize,
    tunnels: HashMap<TunnelId, TunnelState>,
    tunnel_numbers: Numbers,
    tunnel_remotes: BTreeSet<(VrfIndex, IpAddr, TunnelId)>,
    looped: BTreeSet<TunnelId>,
    sas: Sas,
    policy_vrfs: HashMap<PolicyId, VrfIndex>,
    hops: Hops,
    labels: Labels,
    vrf_names: HashMap<VrfId, VrfName>,
    tunnel_ends: TunnelEndsState,
}

impl Writer {
    /// The writer of `tables`, which are empty and have no other.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Self {
        let sad = Arc::clone(&tables.sad);
        let mut writer = Self {
            tables,
            now_seconds: 0,
            generation: 0,
            v4: WriterV4::new(),
            v6: WriterV6::new(),
            vrf_indices: HashMap::new(),
            vrfs: Vec::new(),
            ports: HashMap::new(),
            slots: [None; PORT_SLOTS],
            next_slot: 0,
            locals: HashMap::new(),
            local_order: Vec::new(),
            neighbours: HashMap::new(),
            neighbour_places: BTreeSet::new(),
            links: Links::new(),
            groups: Groups::new(),
            routes: 0,
            tunnels: HashMap::new(),
            tunnel_numbers: Numbers::from(0),
            tunnel_remotes: BTreeSet::new(),
            looped: BTreeSet::new(),
            sas: Sas::new(sad),
            policy_vrfs: HashMap::new(),
            hops: Hops::new(),
            labels: Labels::default(),
            vrf_names: HashMap::new(),
            tunnel_ends: TunnelEndsState::default(),
        };
        // The main table is always there, under number 0.
        let _ = writer.vrf(VrfId::MAIN, &Guard::pin());
        writer
    }

    /// The tables, for starting workers.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The highest generation applied.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Applies one update and marks what it names with `generation`.
    ///
    /// # Errors
    /// The update is refused whole; nothing of it has taken effect.
    pub fn apply(&mut self, generation: u64, update: Update) -> Result<(), Rejection> {
        let guard = &Guard::pin();
        self.generation = self.generation.max(generation);
        if !matches!(update, Update::PutPolicy(_) | Update::RemovePolicy(_)) {
            // Only rules that follow each other are compiled together: whatever comes after them, a route into
            // the clear say, must find them in force.
            self.compile_policies(guard);
        }
        match update {
            Update::PutPort(spec) => self.put_port(generation, spec, guard),
            Update::RemovePort(id) => {
                self.remove_port(id, guard);
                Ok(())
            }
            Update::PutLocalAddress(local) => self.put_local(generation, local, guard),
            Update::RemoveLocalAddress(local) => {
                self.remove_local(&local, guard);
                Ok(())
            }
            Update::PutNeighbour(neighbour) => self.put_neighbour(generation, neighbour, guard),
            Update::RemoveNeighbour { port, address } => {
                self.remove_neighbour(port, address, guard);
                Ok(())
            }
            Update::PutRoute(spec) => self.put_route(generation, spec, guard),
            Update::RemoveRoute { vrf, prefix } => {
                self.remove_route(vrf, prefix, guard);
                Ok(())
            }
            Update::PutTunnel(spec) => self.put_tunnel(generation, spec, guard),
            Update::RemoveTunnel(id) => {
                self.remove_tunnel(id, guard);
                Ok(())
            }
            Update::InstallSa(spec) => self.install_sa(generation, &spec, guard),
            Update::RemoveSa(sa) => {
                self.remove_sa(&sa, guard);
                Ok(())
            }
            Update::KeepSa(sa) => self.keep_sa(generation, &sa),
            Update::SelectForWorker { tunnel, worker, sa } => {
                self.select_for_worker(generation, tunnel, worker, &sa, guard)
            }
            Update::SelectOutbound { tunnel, sa } => self.select_outbound(generation, tunnel, &sa, guard),
            Update::PutPolicy(spec) => self.put_policy(generation, spec),
            Update::RemovePolicy(id) => {
                self.remove_policy(id);
                Ok(())
            }
            Update::PutVrf(spec) => self.put_vrf(generation, spec, guard),
            Update::RemoveVrf(id) => {
                self.remove_vrf(id, guard);
                Ok(())
            }
            Update::PutIlm(spec) => self.put_ilm(generation, spec, guard),
            Update::RemoveIlm { space, label } => {
                self.remove_ilm(space, label, guard);
                Ok(())
            }
            Update::PutClassMap(spec) => self.put_class_map(generation, &spec, guard),
            Update::RemoveClassMap(id) => {
                self.remove_class_map(id, guard);
                Ok(())
            }
            Update::PutPolicyDefault { vrf, default } => self.put_policy_default(generation, vrf, default),
            Update::RemovePolicyDefault { vrf } => {
                self.remove_policy_default(vrf);
                Ok(())
            }
        }?;
        self.compile_small_policies(guard);
        self.publish_few_tunnel_ends(guard);
        Ok(())
    }

    /// Completes what was put off until the end of a message, and frees what no worker sees any more.
    pub fn settle(&mut self) {
        let mut guard = Guard::pin();
        self.compile_policies(&guard);
        self.publish_tunnel_ends(&guard);
        guard.collect();
    }

    /// Tells the time, in seconds since the dataplane started, and collects the lifetimes that ended.
    pub fn tick(&mut self, now_seconds: u64, events: &mut Vec<Event>) {
        self.now_seconds = now_seconds;
        let guard = Guard::pin();
        self.sas
            .look_at_deadlines(&self.tables, now_seconds, events, &guard);
    }

    /// Bytes of routes, nodes and SAs, for reports.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let guard = Guard::pin();
        Memory {
            fib_v4_bytes: self.tables.nodes_v4.memory_bytes() + self.v4.memory_bytes(),
            fib_v6_bytes: self.tables.nodes_v6.memory_bytes() + self.v6.memory_bytes(),
            inbound_bytes: self.tables.sad.memory_bytes(&guard),
            outbound_bytes: self.tables.outbound.memory_bytes(),
        }
    }
}

/// What the tables take, in bytes, without what the writer remembers beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Nodes of IPv4 routes.
    pub fib_v4_bytes: usize,
    /// Nodes of IPv6 routes.
    pub fib_v6_bytes: usize,
    /// Inbound SAs and their table, without windows and terms.
    pub inbound_bytes: usize,
    /// Outbound SAs, without terms.
    pub outbound_bytes: usize,
}

fn table_full(table: &str, limit: usize) -> Rejection {
    Rejection::TableFull {
        table: table.to_owned(),
        limit: limit as u64,
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writer").finish_non_exhaustive()
    }
}
