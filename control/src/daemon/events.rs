//! What the dataplane reports unasked, and what it refuses.

use std::time::Instant;

use serde_json::{Value, json};
use southbound::{Event, LifetimeKind, Query, Rejection, SaRef};
use tracing::{debug, error, info, warn};

use super::answers::{Purpose, Question};
use super::supervisor::Daemon;
use crate::plane::Object;

impl Daemon {
    pub(super) fn event(&mut self, event: Event) {
        *self.raised.entry(kind(&event)).or_default() += 1;
        if !matches!(event, Event::NeighbourNeeded { .. }) {
            let fields = self.describe(&event);
            self.announce(kind(&event), fields);
        }
        match event {
            Event::NeighbourNeeded { port, address } => self.mirror.resolve(port, address),
            Event::PortChanged { .. } => self.ask(Query::Ports, Purpose::LogPorts),
            Event::EventsLost { count } => {
                warn!(count, "events of the dataplane were lost");
                self.ask(Query::Ports, Purpose::LogPorts);
                self.ask(Query::Neighbours, Purpose::ResolveNeighbours);
            }
            Event::LifetimeReached { sa, kind } if self.limit_reached(&sa, kind) => {
                debug!(sa = %Object::Sa(sa), ?kind, "lifetime reached: the pair is renewed");
            }
            Event::SequenceNearEnd { sa, remaining } if self.limit_reached(&sa, LifetimeKind::Soft) => {
                debug!(sa = %Object::Sa(sa), remaining, "few sequence numbers are left: the pair is renewed");
            }
            Event::PeerMoved { sa, address, port } if self.ike.peer_moved(&sa, address, port) => {}
            Event::Acquire { tunnel, .. } if self.ike.acquire(tunnel) => {}
            Event::WorkerAcquire { tunnel, worker } => self.ike.acquire_for_worker(tunnel, worker),
            Event::LifetimeReached {
                sa,
                kind: LifetimeKind::Soft,
            } => {
                warn!(sa = %Object::Sa(sa), "soft lifetime reached: put a new key into both gateways");
            }
            Event::LifetimeReached {
                sa,
                kind: LifetimeKind::Hard,
            } => {
                error!(sa = %Object::Sa(sa), "hard lifetime reached: the SA has stopped");
            }
            Event::SequenceNearEnd { sa, remaining } => {
                warn!(sa = %Object::Sa(sa), remaining, "few sequence numbers are left: put a new key into both gateways");
            }
            Event::PathMtuChanged {
                tunnel,
                outer_mtu_bytes,
            } => {
                let name = self.installer.tunnel_name(tunnel).unwrap_or("?");
                info!(tunnel = name, outer_mtu_bytes, "path MTU changed");
            }
            Event::PeerMoved { sa, address, port } => {
                if let Some(suppressed) = self.strangers.take(Instant::now()) {
                    info!(sa = %Object::Sa(sa), %address, ?port, suppressed, "the peer sends from elsewhere; a manual SA does not follow");
                }
            }
            Event::Acquire { tunnel, .. } => {
                if let Some(suppressed) = self.strangers.take(Instant::now()) {
                    let name = self.installer.tunnel_name(tunnel).unwrap_or("?");
                    warn!(
                        tunnel = name,
                        suppressed, "traffic waits for a tunnel without an SA to send with"
                    );
                }
            }
        }
    }

    fn limit_reached(&mut self, sa: &SaRef, kind: LifetimeKind) -> bool {
        let (ike, mut plane) = self.ike();
        ike.limit_reached(sa, kind, &mut plane)
    }

    /// What an event tells, names in place of numbers.
    fn describe(&self, event: &Event) -> Value {
        let tunnel = |id| self.installer.tunnel_name(id).unwrap_or("?");
        match event {
            Event::Acquire {
                tunnel: id,
                source,
                destination,
                ..
            } => json!({ "tunnel": tunnel(*id), "source": source, "destination": destination }),
            Event::WorkerAcquire { tunnel: id, worker } => {
                json!({ "tunnel": tunnel(*id), "worker": worker })
            }
            Event::LifetimeReached { sa, .. } => json!({ "sa": Object::Sa(*sa).to_string() }),
            Event::SequenceNearEnd { sa, remaining } => {
                json!({ "sa": Object::Sa(*sa).to_string(), "remaining": remaining })
            }
            Event::PathMtuChanged {
                tunnel: id,
                outer_mtu_bytes,
            } => json!({ "tunnel": tunnel(*id), "outer_mtu_bytes": outer_mtu_bytes }),
            Event::PeerMoved { sa, address, port } => {
                json!({ "sa": Object::Sa(*sa).to_string(), "address": address, "port": port })
            }
            Event::PortChanged { port } => json!({ "interface": self.installer.port_name(*port) }),
            Event::EventsLost { count } => json!({ "count": count }),
            Event::NeighbourNeeded { address, .. } => json!({ "address": address }),
        }
    }

    pub(super) fn rejected(&mut self, object: Object, rejection: &Rejection) {
        if let Object::Sa(sa) = &object
            && !self.installer.wants(&object)
        {
            let (ike, mut plane) = self.ike();
            ike.refused(sa, &rejection.to_string(), &mut plane);
        }
        let is_configured = self.installer.wants(&object);
        if let Some(suppressed) = self.rejections.take(Instant::now()) {
            warn!(%object, reason = %rejection, suppressed, "the dataplane refused an update");
        } else {
            debug!(%object, reason = %rejection, "the dataplane refused an update");
        }
        if !is_configured {
            return;
        }
        match &mut self.reload {
            Some(reload) => reload.failures.push(format!("{object}: {rejection}")),
            None => self
                .installer
                .rejected(&self.gateway, &object, rejection, &mut self.desired),
        }
    }

    /// Asks the dataplane where it can be asked now.
    pub(super) fn ask(&mut self, query: Query, purpose: Purpose) {
        let _ = self.try_ask(query, purpose);
    }

    /// Asks the dataplane; `false` where it cannot be asked now.
    pub(super) fn try_ask(&mut self, query: Query, purpose: Purpose) -> bool {
        if let Some(link) = &mut self.link
            && let Some(number) = link.session.ask(query)
        {
            self.questions.insert(number, Question::new(purpose));
            return true;
        }
        false
    }
}

/// The label of an event in metrics.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Acquire { .. } => "acquire",
        Event::WorkerAcquire { .. } => "worker_acquire",
        Event::LifetimeReached {
            kind: LifetimeKind::Soft,
            ..
        } => "lifetime_soft",
        Event::LifetimeReached {
            kind: LifetimeKind::Hard,
            ..
        } => "lifetime_hard",
        Event::SequenceNearEnd { .. } => "sequence_near_end",
        Event::NeighbourNeeded { .. } => "neighbour_needed",
        Event::PathMtuChanged { .. } => "path_mtu_changed",
        Event::PeerMoved { .. } => "peer_moved",
        Event::PortChanged { .. } => "port_changed",
        Event::EventsLost { .. } => "events_lost",
    }
}
