//! What the dataplane should hold, and what of that it was not told yet.
//!
//! Changes of one object that follow each other before they were sent become one update. They leave in
//! waves: everything that a wave puts, in the order of [`Object`], and then everything that it removes, in
//! the reverse order, so that nothing ever names what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use southbound::{
    ClassMapId, ClassMapSpec, IlmSpec, IpPrefix, Label, LabelSpaceId, LocalAddress, Neighbour,
    NeighbourState, NextHop, PolicyDefault, PolicyId, PolicySpec, PortId, PortSpec, RouteSpec, SaRef, SaSpec,
    TunnelId, TunnelSpec, Update, VrfId, VrfSpec,
};

use super::object::Object;

/// The wanted state.
#[derive(Debug, Default)]
pub struct Desired {
    vrfs: BTreeMap<VrfId, VrfSpec>,
    class_maps: BTreeMap<ClassMapId, ClassMapSpec>,
    ports: BTreeMap<PortId, PortSpec>,
    /// Ports that the kernel has in a VRF device, which goes before their `PutPort`.
    followed: BTreeMap<PortId, VrfId>,
    locals: BTreeMap<(VrfId, IpAddr), Option<PortId>>,
    locals_version: u64,
    neighbours: BTreeMap<(PortId, IpAddr), NeighbourState>,
    tunnels: BTreeMap<TunnelId, TunnelSpec>,
    sas: BTreeMap<SaRef, SaSpec>,
    /// SAs that the dataplane has and nobody here knows the key of.
    kept: BTreeSet<SaRef>,
    /// Routes of others than the kernel: the kernel's own of that prefix give way.
    claimed: BTreeSet<(VrfId, IpPrefix)>,
    outbound: BTreeMap<TunnelId, SaRef>,
    worker_outbound: BTreeMap<(TunnelId, u16), SaRef>,
    routes: BTreeMap<(VrfId, IpPrefix), (Vec<NextHop>, Vec<u8>)>,
    labels: BTreeMap<(LabelSpaceId, Label), IlmSpec>,
    policy_defaults: BTreeMap<VrfId, PolicyDefault>,
    policies: BTreeMap<PolicyId, PolicySpec>,
    changed: BTreeSet<Object>,
    wave_puts: BTreeSet<Object>,
    wave_removals: BTreeSet<Object>,
}

/// Sets a value of a map; whether that changed anything.
fn set<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    match map.get_mut(&key) {
        Some(old) if *old == value => false,
        Some(old) => {
            *old = value;
            true
        }
        None => {
            map.insert(key, value);
            true
        }
    }
}

impl Desired {
    /// Wants what a `Put`, `InstallSa` or `Select` says, and tells whether that is new. Removals come
    /// by [`Self::remove`].
    pub fn put(&mut self, update: Update) -> bool {
        let (object, changed) = match update {
            Update::PutVrf(vrf) => (Object::Vrf(vrf.id), set(&mut self.vrfs, vrf.id, vrf)),
            Update::PutClassMap(map) => (Object::ClassMap(map.id), set(&mut self.class_maps, map.id, map)),
            Update::PutIlm(ilm) => (
                Object::Label(ilm.space, ilm.label),
                set(&mut self.labels, (ilm.space, ilm.label), ilm),
            ),
            Update::PutPort(port) => (Object::Port(port.id), set(&mut self.ports, port.id, port)),
            Update::PutLocalAddress(LocalAddress { vrf, address, port }) => (
                Object::LocalAddress(vrf, address),
                set(&mut self.locals, (vrf, address), port),
            ),
            Update::PutNeighbour(Neighbour { port, address, state }) => (
                Object::Neighbour(port, address),
                set(&mut self.neighbours, (port, address), state),
            ),
            Update::PutTunnel(tunnel) => (
                Object::Tunnel(tunnel.id),
                set(&mut self.tunnels, tunnel.id, tunnel),
            ),
            Update::InstallSa(sa) => (Object::Sa(sa.reference()), set(&mut self.sas, sa.reference(), sa)),
            Update::SelectOutbound { tunnel, sa } => {
                (Object::Outbound(tunnel), set(&mut self.outbound, tunnel, sa))
            }
            Update::SelectForWorker { tunnel, worker, sa } => (
                Object::WorkerOutbound(tunnel, worker),
                set(&mut self.worker_outbound, (tunnel, worker), sa),
            ),
            Update::PutRoute(RouteSpec {
                vrf,
                prefix,
                next_hops,
                weights,
            }) => (
                Object::Route(vrf, prefix),
                set(&mut self.routes, (vrf, prefix), (next_hops, weights)),
            ),
            Update::PutPolicyDefault { vrf, default } => (
                Object::PolicyDefault(vrf),
                set(&mut self.policy_defaults, vrf, default),
            ),
            Update::PutPolicy(policy) => (
                Object::Policy(policy.id),
                set(&mut self.policies, policy.id, policy),
            ),
            Update::RemoveVrf(_)
            | Update::RemoveClassMap(_)
            | Update::RemoveIlm { .. }
            | Update::RemovePort(_)
            | Update::RemoveLocalAddress(_)
            | Update::RemoveNeighbour { .. }
            | Update::RemoveRoute { .. }
            | Update::RemoveTunnel(_)
            | Update::RemoveSa(_)
            | Update::RemovePolicyDefault { .. }
            | Update::KeepSa(_)
            | Update::RemovePolicy(_) => {
                debug_assert!(false, "removals go by their object, and keeping by its SA");
                return false;
            }
        };
        if changed {
            self.changed.insert(object);
            self.locals_version += u64::from(matches!(object, Object::LocalAddress(..)));
        }
        changed
    }

    /// Wants these ports in these VRFs, and all others in that of their `PutPort`.
    pub fn follow_vrfs(&mut self, followed: BTreeMap<PortId, VrfId>) {
        let before = std::mem::replace(&mut self.followed, followed);
        for port in self.ports.keys() {
            if before.get(port) != self.followed.get(port) {
                self.changed.insert(Object::Port(*port));
            }
        }
    }

    /// The VRF that the kernel has a port in, where it has it in one.
    #[must_use]
    pub fn followed_vrf(&self, port: PortId) -> Option<VrfId> {
        self.followed.get(&port).copied()
    }

    /// The name of a VRF.
    #[must_use]
    pub fn vrf_name(&self, vrf: VrfId) -> Option<&str> {
        self.vrfs.get(&vrf).map(|spec| spec.name.as_str())
    }

    /// Wants an SA to stay that the dataplane has and whose key is not known here.
    pub fn keep(&mut self, sa: SaRef) {
        if !self.sas.contains_key(&sa) && self.kept.insert(sa) {
            self.changed.insert(Object::Sa(sa));
        }
    }

    /// Lets no tunnel send with `sa` of `tunnel`, or with none of its SAs.
    pub fn deselect(&mut self, tunnel: TunnelId, sa: Option<SaRef>) {
        let is_meant = |selected: &SaRef| sa.is_none_or(|sa| sa == *selected);
        let of_workers = self.worker_outbound.range((tunnel, 0)..=(tunnel, u16::MAX));
        let mut gone: Vec<_> = of_workers
            .filter(|(_, selected)| is_meant(selected))
            .map(|((_, worker), _)| Object::WorkerOutbound(tunnel, *worker))
            .collect();
        if self.outbound.get(&tunnel).is_some_and(is_meant) {
            gone.push(Object::Outbound(tunnel));
        }
        for object in gone {
            self.remove(object);
        }
    }

    /// Takes a prefix out of the kernel's hands, or gives it back.
    pub fn claim(&mut self, vrf: VrfId, prefix: IpPrefix, is_claimed: bool) {
        if is_claimed {
            self.claimed.insert((vrf, prefix));
        } else {
            self.claimed.remove(&(vrf, prefix));
        }
    }

    /// Whether a prefix is out of the kernel's hands.
    #[must_use]
    pub fn is_claimed(&self, vrf: VrfId, prefix: IpPrefix) -> bool {
        self.claimed.contains(&(vrf, prefix))
    }

    /// Whether an address is this gateway's.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.locals.keys().any(|(_, local)| *local == address)
    }

    /// Grows with each change of this gateway's addresses.
    #[must_use]
    pub fn locals_version(&self) -> u64 {
        self.locals_version
    }

    /// Wants `object` no longer.
    pub fn remove(&mut self, object: Object) {
        let was_there = match object {
            Object::Vrf(id) => self.vrfs.remove(&id).is_some(),
            Object::ClassMap(id) => self.class_maps.remove(&id).is_some(),
            Object::Label(space, label) => self.labels.remove(&(space, label)).is_some(),
            Object::Port(id) => self.ports.remove(&id).is_some(),
            Object::LocalAddress(vrf, address) => self.locals.remove(&(vrf, address)).is_some(),
            Object::Neighbour(port, address) => self.neighbours.remove(&(port, address)).is_some(),
            Object::Tunnel(id) => self.tunnels.remove(&id).is_some(),
            Object::Sa(sa) => self.sas.remove(&sa).is_some() | self.kept.remove(&sa),
            Object::Outbound(tunnel) => self.outbound.remove(&tunnel).is_some(),
            Object::WorkerOutbound(tunnel, worker) => {
                self.worker_outbound.remove(&(tunnel, worker)).is_some()
            }
            Object::Route(vrf, prefix) => self.routes.remove(&(vrf, prefix)).is_some(),
            Object::PolicyDefault(vrf) => self.policy_defaults.remove(&vrf).is_some(),
            Object::Policy(id) => self.policies.remove(&id).is_some(),
        };
        if was_there {
            self.changed.insert(object);
            self.locals_version += u64::from(matches!(object, Object::LocalAddress(..)));
        }
    }

    /// The update that brings `object` about; `None` where it is not wanted.
    #[must_use]
    pub fn update(&self, object: &Object) -> Option<Update> {
        Some(match *object {
            Object::Vrf(id) => Update::PutVrf(self.vrfs.get(&id)?.clone()),
            Object::ClassMap(id) => Update::PutClassMap(self.class_maps.get(&id)?.clone()),
            Object::Label(space, label) => Update::PutIlm(self.labels.get(&(space, label))?.clone()),
            Object::Port(id) => {
                let mut port = self.ports.get(&id)?.clone();
                port.vrf = self.followed.get(&id).copied().unwrap_or(port.vrf);
                Update::PutPort(port)
            }
            Object::LocalAddress(vrf, address) => Update::PutLocalAddress(LocalAddress {
                vrf,
                address,
                port: *self.locals.get(&(vrf, address))?,
            }),
            Object::Neighbour(port, address) => Update::PutNeighbour(Neighbour {
                port,
                address,
                state: *self.neighbours.get(&(port, address))?,
            }),
            Object::Tunnel(id) => Update::PutTunnel(self.tunnels.get(&id)?.clone()),
            Object::Sa(sa) => match self.sas.get(&sa) {
                Some(spec) => Update::InstallSa(spec.clone()),
                None => Update::KeepSa(*self.kept.get(&sa)?),
            },
            Object::Outbound(tunnel) => Update::SelectOutbound {
                tunnel,
                sa: *self.outbound.get(&tunnel)?,
            },
            Object::WorkerOutbound(tunnel, worker) => Update::SelectForWorker {
                tunnel,
                worker,
                sa: *self.worker_outbound.get(&(tunnel, worker))?,
            },
            Object::Route(vrf, prefix) => {
                let (next_hops, weights) = self.routes.get(&(vrf, prefix))?.clone();
                Update::PutRoute(RouteSpec {
                    vrf,
                    prefix,
                    next_hops,
                    weights,
                })
            }
            Object::PolicyDefault(vrf) => Update::PutPolicyDefault {
                vrf,
                default: *self.policy_defaults.get(&vrf)?,
            },
            Object::Policy(id) => Update::PutPolicy(self.policies.get(&id)?.clone()),
        })
    }

    /// Every wanted object, in the order of installation.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let vrfs = self.vrfs.keys().map(|id| Object::Vrf(*id));
        let class_maps = self.class_maps.keys().map(|id| Object::ClassMap(*id));
        let labels = self
            .labels
            .keys()
            .map(|(space, label)| Object::Label(*space, *label));
        let ports = self.ports.keys().map(|id| Object::Port(*id));
        let locals = self
            .locals
            .keys()
            .map(|(vrf, address)| Object::LocalAddress(*vrf, *address));
        let neighbours = self
            .neighbours
            .keys()
            .map(|(port, address)| Object::Neighbour(*port, *address));
        let tunnels = self.tunnels.keys().map(|id| Object::Tunnel(*id));
        let sas = self.sas.keys().chain(&self.kept).map(|sa| Object::Sa(*sa));
        let outbound = self.outbound.keys().map(|tunnel| Object::Outbound(*tunnel));
        let worker_outbound = self
            .worker_outbound
            .keys()
            .map(|(tunnel, worker)| Object::WorkerOutbound(*tunnel, *worker));
        let routes = self
            .routes
            .keys()
            .map(|(vrf, prefix)| Object::Route(*vrf, *prefix));
        let defaults = self.policy_defaults.keys().map(|vrf| Object::PolicyDefault(*vrf));
        let policies = self.policies.keys().map(|id| Object::Policy(*id));
        vrfs.chain(class_maps)
            .chain(ports)
            .chain(locals)
            .chain(neighbours)
            .chain(tunnels)
            .chain(sas)
            .chain(outbound)
            .chain(worker_outbound)
            .chain(routes)
            .chain(labels)
            .chain(defaults)
            .chain(policies)
    }

    /// The wanted objects that fit, to be looked at while others change.
    pub(crate) fn objects_where(&self, fits: impl Fn(&Object) -> bool) -> Vec<Object> {
        self.objects().filter(fits).collect()
    }

    /// How many routes of IPv4 and of IPv6 are wanted.
    #[must_use]
    pub fn route_counts(&self) -> [u64; 2] {
        let v4 = self
            .routes
            .keys()
            .filter(|(_, prefix)| prefix.network().is_ipv4())
            .count();
        [v4 as u64, (self.routes.len() - v4) as u64]
    }

    /// How many labels are wanted.
    #[must_use]
    pub fn label_count(&self) -> u64 {
        self.labels.len() as u64
    }

    /// How many neighbours are wanted.
    #[must_use]
    pub fn neighbour_count(&self) -> u64 {
        self.neighbours.len() as u64
    }

    /// The wanted next hops of a route.
    #[must_use]
    pub fn next_hops(&self, vrf: VrfId, prefix: IpPrefix) -> Option<&[NextHop]> {
        self.routes
            .get(&(vrf, prefix))
            .map(|(next_hops, _)| next_hops.as_slice())
    }

    /// Marks everything untold, for a dataplane of which nothing is known; forgets removals, since a sweep
    /// does them.
    pub fn mark_all(&mut self) {
        self.wave_puts.clear();
        self.wave_removals.clear();
        self.changed = self.objects().collect();
    }

    /// Whether nothing is left to tell.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.changed.is_empty() && self.wave_puts.is_empty() && self.wave_removals.is_empty()
    }

    /// The next updates to send, at most `limit`, with the objects that they name.
    pub fn take(&mut self, limit: usize) -> Vec<(Object, Update)> {
        if self.wave_puts.is_empty() && self.wave_removals.is_empty() {
            for object in std::mem::take(&mut self.changed) {
                if self.update(&object).is_some() {
                    self.wave_puts.insert(object);
                } else {
                    self.wave_removals.insert(object);
                }
            }
        }
        let mut updates = Vec::new();
        while updates.len() < limit {
            if let Some(object) = self.wave_puts.pop_first() {
                // What was changed again since is told as it is now, and need not be told again.
                self.changed.remove(&object);
                match self.update(&object) {
                    Some(update) => updates.push((object, update)),
                    None => {
                        self.changed.insert(object);
                    }
                }
            } else if let Some(object) = self.wave_removals.pop_last() {
                if self.update(&object).is_some() {
                    self.changed.insert(object);
                } else if let Some(update) = object.removal() {
                    self.changed.remove(&object);
                    updates.push((object, update));
                }
            } else {
                break;
            }
        }
        updates
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use southbound::{ForwardingPlane, Recorder};

    use super::*;

    fn route(number: u8, hop: NextHop) -> Update {
        Update::PutRoute(RouteSpec {
            vrf: VrfId::MAIN,
            prefix: IpPrefix::new(IpAddr::from([10, number, 0, 0]), 16).unwrap(),
            next_hops: vec![hop],
            weights: Vec::new(),
        })
    }

    fn local(number: u8) -> Update {
        Update::PutLocalAddress(LocalAddress {
            vrf: VrfId::MAIN,
            address: IpAddr::from([10, 0, 0, number]),
            port: None,
        })
    }

    #[test]
    fn puts_go_in_order_and_removals_in_reverse() {
        let mut desired = Desired::default();
        desired.put(route(1, NextHop::Kernel));
        desired.put(local(1));
        let kinds: Vec<_> = desired.take(10).into_iter().map(|(object, _)| object).collect();
        assert!(matches!(kinds[..], [Object::LocalAddress(..), Object::Route(..)]));
        for object in kinds {
            desired.remove(object);
        }
        let kinds: Vec<_> = desired.take(10).into_iter().map(|(object, _)| object).collect();
        assert!(matches!(kinds[..], [Object::Route(..), Object::LocalAddress(..)]));
        assert!(desired.is_told());
    }

    #[test]
    fn what_does_not_change_is_not_told() {
        let mut desired = Desired::default();
        desired.put(local(1));
        assert_eq!(desired.take(10).len(), 1);
        desired.put(local(1));
        assert!(desired.is_told());
    }

    proptest! {
            /// Whatever the changes and the moments of sending, the dataplane ends with what is wanted.
            #[test]
            fn fault_76_churn_converges(steps in proptest::collection::vec((0u8..4, 0u8..6, 0u8..3, 0usize..4), 0..80)) {
                let mut desired = Desired::default();
                let mut recorder = Recorder::default();
                for (kind, number, value, send) in steps {
                    let hop = [NextHop::Kernel, NextHop::Blackhole, NextHop::Local][usize::from(value)];
                    match kind {
                        0 => {
     desired.put(route(number, hop));
    }
                        1 => {
     desired.put(local(number));
    }

                        2 => desired.remove(Object::Route(VrfId::MAIN, IpPrefix::new(IpAddr::from([10, number, 0, 0]), 16).unwrap())),
                        _ => desired.remove(Object::LocalAddress(VrfId::MAIN, IpAddr::from([10, 0, 0, number]))),
                    }
                    for (_, update) in desired.take(send) {
                        recorder.apply(1, update).unwrap();
                    }
                }
                while !desired.is_told() {
                    for (_, update) in desired.take(3) {
                        recorder.apply(1, update).unwrap();
                    }
                }
                let mut wanted: Vec<_> = desired.objects().filter_map(|object| desired.update(&object)).map(|u| format!("{u:?}")).collect();
                let mut held: Vec<_> = recorder.installed().map(|u| format!("{u:?}")).collect();
                wanted.sort();
                held.sort();
                prop_assert_eq!(wanted, held);
            }
        }
}
