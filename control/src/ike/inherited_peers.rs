//! Tunnels of single peers that an earlier control process negotiated.
//!
//! Only the peer can bring such a tunnel up again, and it need not notice that the IKE SA is gone: what the dataplane
//! holds of it serves until the peer returns, the lifetime of its SAs is over, or its pattern goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use southbound::{NextHop, PolicyAction, RouteSpec, SaDirection, SaRef, SaStatus, Status, TunnelId, Update};

use super::books::{Plane, give_back};
use super::holdings::Holdings;
use crate::config::ChildTunnel;
use crate::install::FIRST_PEER_TUNNEL;
use crate::plane::Object;

/// What the configuration says of the tunnels of single peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern<'a> {
    pub(super) child: &'a ChildTunnel,
    /// How long SAs of it may live.
    pub(super) lifetime: Duration,
}

#[derive(Debug)]
struct Peer {
    pattern: String,
    name: String,
    until: Instant,
    /// The tunnel, and what leads into it.
    objects: BTreeSet<Object>,
}

impl Peer {
    fn routes(&self) -> impl Iterator<Item = &Object> {
        self.objects
            .iter()
            .filter(|object| matches!(object, Object::Route(..)))
    }
}

#[derive(Debug, Default)]
pub(super) struct InheritedPeers {
    peers: BTreeMap<TunnelId, Peer>,
    sas: Holdings,
    /// By route, whose it is.
    by_route: BTreeMap<Object, TunnelId>,
    /// By name, those without a route.
    by_name: HashMap<String, BTreeSet<TunnelId>>,
    /// When the next one may be over.
    look_at: Option<Instant>,
}

impl InheritedPeers {
    /// Takes over what the dataplane holds of tunnels that are nobody's in this process; which they are.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        held: &[Status],
        patterns: &[Pattern<'_>],
        plane: &mut Plane<'_>,
    ) -> Vec<TunnelId> {
        let mut sas: BTreeMap<TunnelId, Vec<&SaStatus>> = BTreeMap::new();
        let mut ways: BTreeMap<TunnelId, Vec<Update>> = BTreeMap::new();
        for status in held {
            match status {
                Status::Sa(sa) if !sa.expired => sas.entry(sa.tunnel).or_default().push(sa),
                Status::Route(route) => {
                    if let [NextHop::Tunnel(tunnel)] = route.next_hops[..] {
                        ways.entry(tunnel).or_default().push(Update::PutRoute(RouteSpec {
                            vrf: route.vrf,
                            prefix: route.prefix,
                            next_hops: route.next_hops.clone(),
                            weights: route.weights.clone(),
                        }));
                    }
                }
                Status::Policy(policy) => {
                    if let PolicyAction::Protect(tunnel) = policy.policy.action {
                        ways.entry(tunnel)
                            .or_default()
                            .push(Update::PutPolicy(policy.policy.clone()));
                    }
                }
                _ => {}
            }
        }
        for status in held {
            let Status::Tunnel(tunnel) = status else { continue };
            let id = tunnel.tunnel;
            if id.0 < FIRST_PEER_TUNNEL || plane.installer.peer_pattern(id).is_some() {
                continue;
            }
            let rest = |pattern: &Pattern<'_>| {
                let rest = tunnel.name.strip_prefix(pattern.child.tunnel.name.as_str())?;
                rest.strip_prefix(' ').map(str::to_owned)
            };
            // The longest name that fits: one pattern's may be the beginning of another's.
            let found = patterns
                .iter()
                .filter_map(|pattern| Some((pattern, rest(pattern)?)))
                .max_by_key(|(pattern, _)| pattern.child.tunnel.name.len());
            let own = sas.remove(&id).unwrap_or_default();
            let end = |direction: SaDirection| {
                own.iter()
                    .find(|sa| {
                        sa.sa.direction == direction && (sa.selected || direction == SaDirection::Inbound)
                    })
                    .map(|sa| sa.sa.destination)
            };
            let (Some((pattern, peer)), Some(local), Some(remote)) =
                (found, end(SaDirection::Inbound), end(SaDirection::Outbound))
            else {
                continue;
            };
            plane.installer.name_peer(id, &pattern.child.tunnel.name, &peer);
            plane.installer.set_ends(id, Some(local), remote);
            let mut spec = pattern.child.tunnel.spec(id);
            spec.name.clone_from(&tunnel.name);
            (spec.local, spec.remote) = (local, remote);
            let mut objects = BTreeSet::new();
            let ways = ways.remove(&id).unwrap_or_default();
            for update in std::iter::once(Update::PutTunnel(spec)).chain(ways) {
                let Some(object) = Object::of(&update) else {
                    continue;
                };
                // What the configuration wants is not the peer's.
                if plane.installer.wants(&object) {
                    continue;
                }
                if let Object::Route(vrf, prefix) = object {
                    plane.desired.claim(vrf, prefix, true);
                }
                objects.insert(object);
                plane.desired.put(update);
            }
            for sa in &own {
                plane.desired.keep(sa.sa);
                self.sas.insert(sa.sa, id);
            }
            let peer = Peer {
                pattern: pattern.child.tunnel.name.clone(),
                name: tunnel.name.clone(),
                until: now + pattern.lifetime,
                objects,
            };
            if peer.routes().next().is_none() {
                self.by_name.entry(peer.name.clone()).or_default().insert(id);
            }
            self.by_route.extend(peer.routes().map(|route| (*route, id)));
            self.look_at = Some(self.look_at.map_or(peer.until, |when| when.min(peer.until)));
            self.peers.insert(id, peer);
        }
        self.peers.keys().copied().collect()
    }

    /// How many SAs are at work.
    pub(super) fn sas(&self) -> usize {
        self.sas.len()
    }

    /// A peer is back, in a tunnel of this name that these objects lead into: its former tunnel goes, which it is by
    /// its routes, or by its name where it has none.
    pub(super) fn returned(&mut self, name: &str, wanted: &BTreeSet<Object>, plane: &mut Plane<'_>) {
        let by_route = wanted
            .iter()
            .filter_map(|object| self.by_route.get(object))
            .copied();
        let by_name = self.by_name.get(name).into_iter().flatten().copied();
        let former: BTreeSet<TunnelId> = by_route.chain(by_name).collect();
        for id in former {
            self.end(id, wanted, plane);
        }
    }

    /// An SA is no longer in the dataplane.
    pub(super) fn forget(&mut self, sa: &SaRef, plane: &mut Plane<'_>) {
        let gone: Vec<SaRef> = self.sas.of_spi(sa).collect();
        for sa in gone {
            plane.desired.remove(Object::Sa(sa));
            if let Some(tunnel) = self.sas.remove(&sa)
                && !self.sas.has_tunnel(tunnel)
            {
                self.end(tunnel, &BTreeSet::new(), plane);
            }
        }
    }

    /// These patterns are left.
    pub(super) fn keep_only(&mut self, patterns: &[Pattern<'_>], plane: &mut Plane<'_>) {
        let left: BTreeSet<&str> = patterns
            .iter()
            .map(|pattern| pattern.child.tunnel.name.as_str())
            .collect();
        self.end_where(|peer| !left.contains(peer.pattern.as_str()), plane);
    }

    /// Ends those whose SAs have lived long enough.
    pub(super) fn tick(&mut self, now: Instant, plane: &mut Plane<'_>) {
        if self.look_at.is_some_and(|when| when <= now) {
            self.end_where(|peer| peer.until <= now, plane);
            self.look_at = self.peers.values().map(|peer| peer.until).min();
        }
    }

    /// The dataplane that held them is gone.
    pub(super) fn clear(&mut self, plane: &mut Plane<'_>) {
        self.end_where(|_| true, plane);
    }

    fn end_where(&mut self, is_over: impl Fn(&Peer) -> bool, plane: &mut Plane<'_>) {
        let over: Vec<TunnelId> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_over(peer))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.end(id, &BTreeSet::new(), plane);
        }
    }

    /// Ends a tunnel, but for what others want of it.
    fn end(&mut self, id: TunnelId, wanted: &BTreeSet<Object>, plane: &mut Plane<'_>) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        for sa in self.sas.remove_tunnel(id) {
            plane.desired.remove(Object::Sa(sa));
        }
        if let Some(namesakes) = self.by_name.get_mut(&peer.name) {
            namesakes.remove(&id);
            if namesakes.is_empty() {
                self.by_name.remove(&peer.name);
            }
        }
        for object in peer.objects.into_iter().rev() {
            self.by_route.remove(&object);
            if !wanted.contains(&object) && !plane.installer.wants(&object) {
                give_back(object, plane);
            }
        }
        plane.installer.forget_peer(id);
    }
}
