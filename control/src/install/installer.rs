//! What the configuration makes the dataplane hold, and what it must not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use southbound::{
    IpPrefix, NextHop, PolicyAction, PolicyId, PolicySpec, PortId, Rejection, RouteSpec, SaDirection, SaRef,
    SaSpec, SelectorPair, Status, TunnelId, Update, VrfId,
};
use tracing::warn;

use super::ledger::{Fingerprint, Ledger, LedgerError, Use};
use super::numbers::Numbers;
use crate::config::{Gateway, ManualSa, PolicyTarget, Tunnel};
use crate::netlink::{HostRoute, Scope};
use crate::plane::{Desired, Object};

mod labels;

/// What a configuration comes to. Nothing of it has taken effect.
#[derive(Debug)]
pub struct Plan {
    updates: Vec<Update>,
    uses: Vec<(Fingerprint, Use)>,
    /// SAs that are refused, with the reason, by the name of their tunnel.
    pub refusals: BTreeMap<String, Vec<String>>,
}

/// What a plan changed.
#[derive(Debug)]
pub struct Committed {
    /// What the configuration wanted before and no longer does: it is the caller's to remove.
    pub stale: Vec<Object>,
    /// What the dataplane has to be told.
    pub changed: BTreeSet<Object>,
}

/// Turns configurations into wanted objects, and remembers what it wanted.
#[derive(Debug)]
pub struct Installer {
    ports: Numbers,
    tunnels: Numbers,
    policies: Numbers,
    ledger: Ledger,
    instance: Option<u64>,
    /// SAs that the dataplane has: their sequence numbers are safe.
    present: BTreeSet<SaRef>,
    wanted: BTreeSet<Object>,
    refusals: BTreeMap<String, Vec<String>>,
    /// Where negotiated tunnels lead at the moment: ours, where known, and the peer's address.
    ends: BTreeMap<TunnelId, (Option<IpAddr>, IpAddr)>,
    /// Tunnels of single peers: their name, and that of their pattern.
    peers: BTreeMap<TunnelId, (String, String)>,
}

/// The first number of tunnels of single peers; the engine chooses among them.
pub(crate) const FIRST_PEER_TUNNEL: u32 = 0x8000_0000;

impl Installer {
    /// With the record of keys used before.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ports: Numbers::default(),
            tunnels: Numbers::default(),
            policies: Numbers::default(),
            ledger,
            instance: None,
            present: BTreeSet::new(),
            wanted: BTreeSet::new(),
            refusals: BTreeMap::new(),
            ends: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }

    /// A dataplane is there, and this is what it holds.
    pub fn learn(&mut self, instance: u64, held: &[Status]) {
        self.instance = Some(instance);
        self.present.clear();
        for status in held {
            match status {
                Status::Port(port) => self.ports.adopt(&port.interface, port.port.0),
                Status::Tunnel(tunnel) if tunnel.tunnel.0 >= FIRST_PEER_TUNNEL => {}
                Status::Tunnel(tunnel) => self.tunnels.adopt(&tunnel.name, tunnel.tunnel.0),
                Status::Sa(sa) => {
                    self.present.insert(sa.sa);
                }
                Status::Policy(policy) => self
                    .policies
                    .adopt(&policy_name(&policy.policy), policy.policy.id.0),
                _ => {}
            }
        }
    }

    /// Whether a dataplane was ever met: before, names have no numbers.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        self.instance.is_some()
    }

    /// Why SAs are not installed, by the name of their tunnel.
    #[must_use]
    pub fn refusals(&self) -> &BTreeMap<String, Vec<String>> {
        &self.refusals
    }

    /// The name of a tunnel.
    #[must_use]
    pub fn tunnel_name(&self, id: TunnelId) -> Option<&str> {
        self.tunnels
            .name(id.0)
            .or_else(|| self.peers.get(&id).map(|(name, _)| name.as_str()))
    }

    /// The number of a tunnel of the configuration, a new one where it has none.
    pub fn number_tunnel(&mut self, name: &str) -> TunnelId {
        TunnelId(self.tunnels.number(name))
    }

    /// The engine gave a tunnel to a single peer.
    pub fn name_peer(&mut self, id: TunnelId, pattern: &str, peer: &str) {
        if id.0 >= FIRST_PEER_TUNNEL {
            let names = (format!("{pattern} {peer}"), pattern.to_owned());
            self.peers.insert(id, names);
        }
    }

    /// The pattern of a single peer's tunnel; `None` for one of the configuration's.
    #[must_use]
    pub fn peer_pattern(&self, id: TunnelId) -> Option<&str> {
        self.peers.get(&id).map(|(_, pattern)| pattern.as_str())
    }

    /// A single peer's tunnel went.
    pub fn forget_peer(&mut self, id: TunnelId) {
        self.peers.remove(&id);
        self.ends.remove(&id);
    }

    /// A negotiated tunnel leads elsewhere.
    pub fn set_ends(&mut self, id: TunnelId, local: Option<IpAddr>, remote: IpAddr) {
        self.ends.insert(id, (local, remote));
    }

    /// Where a negotiated tunnel leads at the moment: ours, where known, and the peer's address.
    #[must_use]
    pub fn ends(&self, id: TunnelId) -> Option<(Option<IpAddr>, IpAddr)> {
        self.ends.get(&id).copied()
    }

    /// The rules that lead `selectors` into a tunnel.
    pub fn protect(
        &mut self,
        vrf: VrfId,
        priority: u32,
        selectors: &[SelectorPair],
        tunnel: TunnelId,
    ) -> Vec<Update> {
        let mut plan = Plan {
            updates: Vec::new(),
            uses: Vec::new(),
            refusals: BTreeMap::new(),
        };
        self.plan_policies(vrf, priority, selectors, PolicyAction::Protect(tunnel), &mut plan);
        plan.updates
    }

    /// The interface of a port.
    #[must_use]
    pub fn port_name(&self, id: PortId) -> Option<&str> {
        self.ports.name(id.0)
    }

    /// The number of a port.
    #[must_use]
    pub fn port_id(&self, interface: &str) -> Option<PortId> {
        self.ports.find(interface).map(PortId)
    }

    /// The number of a tunnel.
    #[must_use]
    pub fn tunnel_id(&self, name: &str) -> Option<TunnelId> {
        self.tunnels.find(name).map(TunnelId)
    }

    /// What of the kernel's concerns this configuration. Ports are in it once a dataplane was met.
    pub fn scope(&mut self, gateway: &Gateway) -> Scope {
        let has_learned = self.has_learned();
        Scope {
            ports: gateway
                .ports
                .iter()
                .filter(|_| has_learned)
                .map(|port| {
                    let id = PortId(self.ports.number(&port.interface));
                    (port.interface.clone(), (id, port.vrf))
                })
                .collect(),
            vrfs: gateway
                .vrfs
                .iter()
                .map(|(name, vrf)| (vrf.0, name.clone()))
                .collect(),
            tap: gateway.tap.clone(),
            host_routes: gateway
                .tunnels
                .iter()
                .flat_map(|tunnel| {
                    tunnel.host_routes.iter().map(|prefix| HostRoute {
                        vrf: tunnel.inner_vrf,
                        prefix: *prefix,
                        sources: tunnel.selectors.iter().map(|pair| pair.local.addresses).collect(),
                    })
                })
                .chain(pools(gateway).map(|(vrf, prefix)| HostRoute {
                    vrf,
                    prefix,
                    sources: Vec::new(),
                }))
                .collect(),
            configured: gateway
                .tunnels
                .iter()
                .flat_map(|tunnel| tunnel.routes.iter().map(|prefix| (tunnel.inner_vrf, *prefix)))
                .chain(gateway.routes.iter().map(|route| (route.vrf, route.prefix)))
                .chain(pools(gateway))
                .collect(),
        }
    }

    /// What `gateway` comes to with the dataplane last learned of.
    pub fn plan(&mut self, gateway: &Gateway) -> Plan {
        let mut plan = Plan {
            updates: Vec::new(),
            uses: Vec::new(),
            refusals: BTreeMap::new(),
        };
        for port in &gateway.ports {
            let id = PortId(self.ports.number(&port.interface));
            plan.updates.push(Update::PutPort(port.spec(id)));
        }
        for tunnel in &gateway.tunnels {
            self.plan_tunnel(tunnel, &mut plan);
        }
        for (vrf, default) in &gateway.policy_defaults {
            plan.updates.push(Update::PutPolicyDefault {
                vrf: *vrf,
                default: *default,
            });
        }
        // What is meant for a peer that is away must not leave in clear.
        for (vrf, prefix) in pools(gateway) {
            plan.updates.push(Update::PutRoute(RouteSpec {
                vrf,
                prefix,
                next_hops: vec![NextHop::Unreachable],
                weights: Vec::new(),
            }));
        }
        for policy in &gateway.policies {
            let action = match &policy.target {
                PolicyTarget::Protect(name) => PolicyAction::Protect(TunnelId(self.tunnels.number(name))),
                PolicyTarget::Bypass => PolicyAction::Bypass,
                PolicyTarget::Discard => PolicyAction::Discard,
            };
            self.plan_policies(policy.vrf, policy.priority, &policy.selectors, action, &mut plan);
        }
        self.plan_labels(gateway, &mut plan);
        plan
    }

    fn plan_tunnel(&mut self, tunnel: &Tunnel, plan: &mut Plan) {
        let id = TunnelId(self.tunnels.number(&tunnel.name));
        let mut spec = tunnel.spec(id);
        if let Some((local, remote)) = self.ends.get(&id).filter(|_| tunnel.is_negotiated) {
            let unspecified = match remote {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let fits = Some(spec.local).filter(|local| local.is_ipv4() == remote.is_ipv4());
            (spec.local, spec.remote) = (local.or(fits).unwrap_or(unspecified), *remote);
        }
        plan.updates.push(Update::PutTunnel(spec));
        let mut sender = None;
        for sa in &tunnel.sas {
            match self.admit(tunnel, id, sa) {
                Ok((specs, uses)) => {
                    sender = sender.or(Some(tunnel.reference(sa, SaDirection::Outbound)));
                    plan.updates.extend(specs.into_iter().map(Update::InstallSa));
                    plan.uses.extend(uses);
                }
                Err(reason) => plan.refusals.entry(tunnel.name.clone()).or_default().push(reason),
            }
        }
        if let Some(sa) = sender {
            plan.updates.push(Update::SelectOutbound { tunnel: id, sa });
        }
        for prefix in &tunnel.routes {
            plan.updates.push(Update::PutRoute(RouteSpec {
                vrf: tunnel.inner_vrf,
                prefix: *prefix,
                next_hops: vec![NextHop::Tunnel(id)],
                weights: Vec::new(),
            }));
        }
        if let Some(priority) = tunnel.policy_priority {
            self.plan_policies(
                tunnel.inner_vrf,
                priority,
                &tunnel.selectors,
                PolicyAction::Protect(id),
                plan,
            );
        }
    }

    fn plan_policies(
        &mut self,
        vrf: VrfId,
        priority: u32,
        selectors: &[SelectorPair],
        action: PolicyAction,
        plan: &mut Plan,
    ) {
        for selector in selectors {
            let mut spec = PolicySpec {
                id: PolicyId(0),
                vrf,
                priority,
                selector: *selector,
                action,
            };
            // Named by what it says, so that a changed rule is another one: it comes before the old one
            // goes, and no moment is without either.
            spec.id = PolicyId(self.policies.number(&policy_name(&spec)));
            plan.updates.push(Update::PutPolicy(spec));
        }
    }

    /// Both SAs of a pair, or why not.
    #[allow(clippy::type_complexity)]
    fn admit(
        &self,
        tunnel: &Tunnel,
        id: TunnelId,
        sa: &ManualSa,
    ) -> Result<([SaSpec; 2], Vec<(Fingerprint, Use)>), String> {
        let spec = |direction| {
            tunnel
                .sa_spec(id, sa, direction)
                .ok_or_else(|| format!("the keys of SPI {:#010x} were not read", sa.spi_in))
        };
        let specs = [spec(SaDirection::Inbound)?, spec(SaDirection::Outbound)?];
        let mut uses = Vec::new();
        if !sa.transform.encryption().is_counter_mode() {
            return Ok((specs, uses));
        }
        let instance = self.instance.unwrap_or_default();
        for spec in &specs {
            let name = spec.reference();
            let key = Fingerprint::new(spec);
            match self.ledger.find(&key) {
                Some(known)
                    if known.instance == instance && known.sa == name && self.present.contains(&name) =>
                {
                    continue;
                }
                Some(known) if !sa.accept_nonce_reuse_risk => {
                    return Err(refusal(spec, known, instance));
                }
                Some(_) => warn!(
                    tunnel = tunnel.name,
                    spi = format!("{:#010x}", spec.spi),
                    "a counter-mode key is installed again although its sequence numbers were lost: \
                     accept_nonce_reuse_risk is set, and traffic under this key may be revealed"
                ),
                None => {}
            }
            uses.push((key, Use { instance, sa: name }));
        }
        Ok((specs, uses))
    }

    /// Makes `desired` hold what `plan` says, after the use of its keys was recorded.
    ///
    /// # Errors
    /// Where the record could not be written: nothing of the plan was taken over.
    pub fn commit(&mut self, plan: Plan, desired: &mut Desired) -> Result<Committed, LedgerError> {
        self.ledger.record(plan.uses)?;
        let before = std::mem::take(&mut self.wanted);
        let mut changed = BTreeSet::new();
        for update in plan.updates {
            let object = Object::of(&update);
            let is_changed = desired.put(update);
            if let Some(object) = object {
                self.wanted.insert(object);
                if is_changed {
                    changed.insert(object);
                }
            }
        }
        self.refusals = plan.refusals;
        Ok(Committed {
            stale: before.difference(&self.wanted).copied().collect(),
            changed,
        })
    }

    /// How many inbound and outbound SAs the dataplane has.
    #[must_use]
    pub fn sa_counts(&self) -> [u64; 2] {
        let inbound = self
            .present
            .iter()
            .filter(|sa| sa.direction == SaDirection::Inbound)
            .count();
        [inbound as u64, (self.present.len() - inbound) as u64]
    }

    /// Whether the dataplane has an SA.
    #[must_use]
    pub fn has_sa(&self, sa: &SaRef) -> bool {
        self.present.contains(sa)
    }

    /// Whether an object comes from the configuration.
    #[must_use]
    pub fn wants(&self, object: &Object) -> bool {
        self.wanted.contains(object)
    }

    /// The dataplane took an update of `object`.
    pub fn applied(&mut self, object: &Object, desired: &Desired) {
        if let Object::Sa(sa) = object {
            if desired.update(object).is_some() {
                self.present.insert(*sa);
            } else {
                self.present.remove(sa);
            }
        }
    }

    /// The dataplane swept what is not wanted.
    pub fn swept(&mut self, desired: &Desired) {
        self.present
            .retain(|sa| desired.update(&Object::Sa(*sa)).is_some());
    }

    /// The dataplane refused `object`. A pair of SAs is installed whole or not at all, and a key that never
    /// was in use is free again.
    pub fn rejected(
        &mut self,
        gateway: &Gateway,
        object: &Object,
        rejection: &Rejection,
        desired: &mut Desired,
    ) {
        let Object::Sa(sa) = object else { return };
        let is_new = !self.present.contains(sa);
        if is_new
            && let Some(Update::InstallSa(spec)) = desired.update(object)
            && let Err(error) = self.ledger.forget(&Fingerprint::new(&spec))
        {
            warn!(%error, "an unused key stays recorded as used");
        }
        for tunnel in &gateway.tunnels {
            for pair in &tunnel.sas {
                let ends = [SaDirection::Inbound, SaDirection::Outbound]
                    .map(|direction| tunnel.reference(pair, direction));
                if !ends.contains(sa) {
                    continue;
                }
                self.refusals
                    .entry(tunnel.name.clone())
                    .or_default()
                    .push(format!("{object}: {rejection}"));
                // What was at work under this name goes on as it was.
                if !is_new {
                    continue;
                }
                let mut half: Vec<_> = ends.map(Object::Sa).to_vec();
                if let Some(id) = self.tunnel_id(&tunnel.name)
                    && let Some(Update::SelectOutbound { sa, .. }) = desired.update(&Object::Outbound(id))
                    && ends.contains(&sa)
                {
                    half.push(Object::Outbound(id));
                }
                for object in half {
                    desired.remove(object);
                    self.wanted.remove(&object);
                }
            }
        }
    }
}

/// The networks that peers get their addresses from, in the tables of their tunnels.
fn pools(gateway: &Gateway) -> impl Iterator<Item = (VrfId, IpPrefix)> + '_ {
    gateway.connections.iter().flat_map(|connection| {
        let vrf = connection
            .tunnels
            .first()
            .map_or(VrfId::MAIN, |child| child.tunnel.inner_vrf);
        connection.engine.pools.iter().map(move |prefix| (vrf, *prefix))
    })
}

fn policy_name(policy: &PolicySpec) -> String {
    format!(
        "{} {} {:?} {:?}",
        policy.vrf.0, policy.priority, policy.selector, policy.action
    )
}

fn refusal(spec: &SaSpec, known: &Use, instance: u64) -> String {
    let name = Object::Sa(spec.reference());
    let how = if known.instance != instance {
        "was in use before the dataplane was restarted".to_owned()
    } else if known.sa == spec.reference() {
        "was in use, and its SA was removed".to_owned()
    } else {
        format!("is that of the {}", Object::Sa(known.sa))
    };
    format!(
        "the {} key of the {name} {how}: its sequence numbers are lost, and repeated nonces would reveal \
         plaintext. Put a new key into both gateways, or set accept_nonce_reuse_risk = true",
        spec.transform
    )
}
