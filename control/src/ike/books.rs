//! What IKE made the dataplane hold: SAs, the tunnels of single peers, and what an earlier process left.
//!
//! Two rules stand above all others. A key that was given to one dataplane is never given to another: when the
//! dataplane was restarted, every pair is negotiated anew (RFC 4106 section 9). And SAs that an earlier control
//! process negotiated go on until their tunnel has new ones.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ike::{ChildSummary, TrafficSelector};
use southbound::{
    Endpoint, IpPrefix, NextHop, ProtocolMatch, RouteSpec, SaDirection, SaRef, SaSpec, SelectorPair, Status,
    TunnelId, Update, ValueRange,
};

use super::holdings::Holdings;
use super::inherited_peers::{InheritedPeers, Pattern};
use crate::config::{ChildTunnel, Tunnel};
use crate::install::Installer;
use crate::plane::{Desired, Object};

/// How long an inherited inbound SA outlives its successor, for packets under way.
const DRAIN: Duration = Duration::from_secs(5);

/// The side of the dataplane.
pub(crate) struct Plane<'a> {
    /// What it should hold.
    pub(crate) desired: &'a mut Desired,
    /// Numbers of names.
    pub(crate) installer: &'a mut Installer,
    /// Whether it takes updates now.
    pub(crate) is_live: bool,
}

/// What came of learning which dataplane is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The one that was there before, or the first: its SAs and ours agree.
    Known,
    /// Another one: all pairs have to be renewed.
    Restarted,
    /// The first that this process meets, with SAs of an earlier process in these tunnels, those of single peers too.
    Inherited(Vec<TunnelId>),
}

#[derive(Debug, Default)]
pub(super) struct Books {
    instance: Option<u64>,
    /// Our SAs in the dataplane.
    held: Holdings,
    /// Our SAs whose dataplane is gone: their keys are spent.
    spent: HashSet<(SaDirection, u32)>,
    /// SAs of an earlier process.
    inherited: Holdings,
    inherited_peers: InheritedPeers,
    /// Each for [`DRAIN`]: the first is the first to end.
    draining: VecDeque<(Instant, SaRef)>,
    /// What was put beside the SAs for tunnels that the configuration alone does not describe.
    beside: BTreeMap<TunnelId, BTreeSet<Object>>,
}

impl Books {
    /// Whether no dataplane was met yet.
    pub(super) fn is_first(&self) -> bool {
        self.instance.is_none()
    }

    /// A dataplane is there and holds this.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        instance: u64,
        held: &[Status],
        negotiated: &BTreeSet<TunnelId>,
        patterns: &[Pattern<'_>],
        plane: &mut Plane<'_>,
    ) -> Finding {
        match self.instance.replace(instance) {
            Some(before) if before == instance => Finding::Known,
            Some(_) => {
                for (sa, tunnel) in std::mem::take(&mut self.held).iter() {
                    self.spent.insert((sa.direction, sa.spi));
                    plane.desired.remove(Object::Sa(sa));
                    plane.desired.deselect(tunnel, None);
                }
                let inherited = std::mem::take(&mut self.inherited);
                let inherited = inherited.iter().map(|(sa, _)| sa);
                for sa in inherited.chain(self.draining.drain(..).map(|(_, sa)| sa)) {
                    plane.desired.remove(Object::Sa(sa));
                }
                self.inherited_peers.clear(plane);
                Finding::Restarted
            }
            None => {
                for status in held {
                    let Status::Sa(sa) = status else { continue };
                    if sa.expired || self.held.contains(&sa.sa) || !negotiated.contains(&sa.tunnel) {
                        continue;
                    }
                    self.inherited.insert(sa.sa, sa.tunnel);
                    plane.desired.keep(sa.sa);
                    if sa.selected {
                        // The tunnel leads where its SA does, until a new one says otherwise.
                        let remote = sa.sa.destination;
                        plane.installer.set_ends(sa.tunnel, None, remote);
                    }
                }
                let peers = self.inherited_peers.adopt(now, held, patterns, plane);
                Finding::Inherited(self.inherited.tunnels().chain(peers).collect())
            }
        }
    }

    /// Takes an update of the engine over; `pattern` finds the tunnel of a child by its name.
    pub(super) fn apply<'a>(
        &mut self,
        now: Instant,
        update: Update,
        pattern: impl Fn(&str) -> Option<&'a Tunnel>,
        plane: &mut Plane<'_>,
    ) -> Option<SaRef> {
        match update {
            Update::InstallSa(spec) => {
                let reference = spec.reference();
                if self.spent.contains(&(spec.direction, spec.spi)) {
                    return None;
                }
                self.lead(&spec, pattern, plane);
                self.held.insert(reference, spec.tunnel);
                plane.desired.put(Update::InstallSa(spec));
                (reference.direction == SaDirection::Inbound).then_some(reference)
            }
            Update::SelectOutbound { tunnel, sa } => {
                if self.held.contains(&sa) {
                    plane.desired.put(Update::SelectOutbound { tunnel, sa });
                    self.replace_inherited(now, tunnel, plane);
                }
                None
            }
            Update::SelectForWorker { sa, .. } => {
                if self.held.contains(&sa) {
                    plane.desired.put(update);
                }
                None
            }
            Update::RemoveSa(sa) => {
                self.spent.remove(&(sa.direction, sa.spi));
                if let Some(tunnel) = self.held.remove(&sa) {
                    plane.desired.deselect(tunnel, Some(sa));
                    plane.desired.remove(Object::Sa(sa));
                }
                None
            }
            other => {
                plane.desired.put(other);
                None
            }
        }
    }

    /// Lets the tunnel lead where this SA does.
    fn lead<'a>(
        &mut self,
        spec: &SaSpec,
        pattern: impl Fn(&str) -> Option<&'a Tunnel>,
        plane: &mut Plane<'_>,
    ) {
        plane
            .installer
            .set_ends(spec.tunnel, Some(spec.local), spec.remote);
        let known = plane.desired.update(&Object::Tunnel(spec.tunnel));
        let put = match known {
            Some(Update::PutTunnel(mut tunnel)) => {
                (tunnel.local, tunnel.remote, tunnel.mode) = (spec.local, spec.remote, spec.mode);
                tunnel
            }
            _ => {
                let Some(found) = plane.installer.peer_pattern(spec.tunnel).and_then(pattern) else {
                    return;
                };
                let mut tunnel = found.spec(spec.tunnel);
                tunnel.name = plane
                    .installer
                    .tunnel_name(spec.tunnel)
                    .unwrap_or_default()
                    .to_owned();
                (tunnel.local, tunnel.remote, tunnel.mode) = (spec.local, spec.remote, spec.mode);
                self.beside
                    .entry(spec.tunnel)
                    .or_default()
                    .insert(Object::Tunnel(spec.tunnel));
                tunnel
            }
        };
        plane.desired.put(Update::PutTunnel(put));
    }

    fn replace_inherited(&mut self, now: Instant, tunnel: TunnelId, plane: &mut Plane<'_>) {
        for sa in self.inherited.remove_tunnel(tunnel) {
            match sa.direction {
                SaDirection::Outbound => plane.desired.remove(Object::Sa(sa)),
                SaDirection::Inbound => self.draining.push_back((now + DRAIN, sa)),
            }
        }
    }

    /// The dataplane no longer uses this SA, or never had it.
    pub(super) fn forget_inherited(&mut self, sa: &SaRef, plane: &mut Plane<'_>) {
        let gone: Vec<SaRef> = self.inherited.of_spi(sa).collect();
        for sa in gone {
            self.inherited.remove(&sa);
        }
        self.inherited_peers.forget(sa, plane);
        plane.desired.remove(Object::Sa(*sa));
    }

    /// SAs of an earlier process whose tunnels went with the configuration.
    pub(super) fn keep_only(
        &mut self,
        negotiated: &BTreeSet<TunnelId>,
        patterns: &[Pattern<'_>],
        plane: &mut Plane<'_>,
    ) {
        self.inherited_peers.keep_only(patterns, plane);
        let stale: Vec<TunnelId> = self
            .inherited
            .tunnels()
            .filter(|id| !negotiated.contains(id))
            .collect();
        for tunnel in stale {
            for sa in self.inherited.remove_tunnel(tunnel) {
                plane.desired.remove(Object::Sa(sa));
            }
        }
    }

    /// How many SAs of an earlier process are at work.
    pub(super) fn inherited(&self) -> usize {
        self.inherited.len() + self.inherited_peers.sas()
    }

    /// Whether a tunnel lives on SAs of an earlier process.
    pub(super) fn has_inherited(&self, tunnel: TunnelId) -> bool {
        self.inherited.has_tunnel(tunnel)
    }

    /// Whether the SA is one of ours.
    pub(super) fn holds(&self, sa: &SaRef) -> bool {
        // An inbound SA is known by its SPI alone.
        self.held.contains(sa)
            || (sa.direction == SaDirection::Inbound && self.held.of_spi(sa).next().is_some())
    }

    /// A pair is there: the routes and rules that only its selectors tell.
    pub(super) fn child_up(&mut self, child: &ChildSummary, pattern: &ChildTunnel, plane: &mut Plane<'_>) {
        if !pattern.is_per_peer && !pattern.follows_selectors {
            return;
        }
        let tunnel = &pattern.tunnel;
        let selectors = selector_pairs(&child.local_ts, &child.remote_ts);
        let mut wanted: BTreeSet<Object> = BTreeSet::new();
        if pattern.is_per_peer {
            wanted.insert(Object::Tunnel(child.tunnel));
        }
        let policies = tunnel
            .policy_priority
            .map(|priority| {
                plane
                    .installer
                    .protect(tunnel.inner_vrf, priority, &selectors, child.tunnel)
            })
            .unwrap_or_default();
        let routes = destinations(&child.remote_ts)
            .into_iter()
            .filter(|_| tunnel.policy_priority.is_none())
            .map(|prefix| {
                Update::PutRoute(RouteSpec {
                    vrf: tunnel.inner_vrf,
                    prefix,
                    next_hops: vec![NextHop::Tunnel(child.tunnel)],
                    weights: Vec::new(),
                })
            });
        for update in routes.chain(policies) {
            let Some(object) = Object::of(&update) else {
                continue;
            };
            // The operator's own routes win.
            if plane.installer.wants(&object) {
                continue;
            }
            wanted.insert(object);
            if let Object::Route(vrf, prefix) = object {
                plane.desired.claim(vrf, prefix, true);
            }
            plane.desired.put(update);
        }
        if pattern.is_per_peer {
            let name = plane.installer.tunnel_name(child.tunnel).map(str::to_owned);
            self.inherited_peers
                .returned(&name.unwrap_or_default(), &wanted, plane);
        }
        let before = self.beside.insert(child.tunnel, wanted).unwrap_or_default();
        let now = self.beside.get(&child.tunnel);
        for stale in before
            .iter()
            .filter(|object| now.is_none_or(|now| !now.contains(object)))
        {
            give_back(*stale, plane);
        }
    }

    /// A pair went. Where the tunnel was its peer's alone, the tunnel goes as well; else what leads into it stays, so
    /// that nothing leaves in clear.
    pub(super) fn child_down(&mut self, tunnel: TunnelId, plane: &mut Plane<'_>) {
        let is_peers = plane.installer.peer_pattern(tunnel).is_some();
        if !is_peers || self.held.has_tunnel(tunnel) {
            return;
        }
        for object in self.beside.remove(&tunnel).unwrap_or_default().into_iter().rev() {
            give_back(object, plane);
        }
        plane.installer.forget_peer(tunnel);
    }

    /// Ends what has drained.
    pub(super) fn tick(&mut self, now: Instant, plane: &mut Plane<'_>) {
        while let Some((_, sa)) = self.draining.pop_front_if(|(when, _)| *when <= now) {
            plane.desired.remove(Object::Sa(sa));
        }
        self.inherited_peers.tick(now, plane);
    }
}

pub(super) fn give_back(object: Object, plane: &mut Plane<'_>) {
    if let Object::Route(vrf, prefix) = object {
        plane.desired.claim(vrf, prefix, false);
    }
    plane.desired.remove(object);
}

fn destinations(remote_ts: &[TrafficSelector]) -> Vec<IpPrefix> {
    let mut out: Vec<IpPrefix> = Vec::new();
    for ts in remote_ts {
        for prefix in IpPrefix::covering(ts.start, ts.end) {
            if !out.contains(&prefix) {
                out.push(prefix);
            }
        }
    }
    out
}

fn selector_pairs(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Vec<SelectorPair> {
    let side = |ts: &TrafficSelector| Endpoint {
        addresses: ValueRange::<IpAddr> {
            first: ts.start,
            last: ts.end,
        },
        ports: ValueRange {
            first: ts.start_port,
            last: ts.end_port.max(ts.start_port),
        },
    };
    let mut pairs = Vec::new();
    for l in local {
        for r in remote.iter().filter(|r| r.start.is_ipv4() == l.start.is_ipv4()) {
            let protocol = match (l.protocol, r.protocol) {
                (0, 0) => ProtocolMatch::Any,
                (0, protocol) | (protocol, 0) => ProtocolMatch::Only(protocol),
                (one, other) if one == other => ProtocolMatch::Only(one),
                _ => continue,
            };
            pairs.push(SelectorPair {
                local: side(l),
                remote: side(r),
                protocol,
            });
        }
    }
    pairs
}
