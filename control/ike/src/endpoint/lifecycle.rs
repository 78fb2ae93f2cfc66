//! What concerns more than one IKE SA: births, successions, duplicates, and connections that have to come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use southbound::{TunnelId, Update};

use crate::child_sa::ChildSa;
use crate::config::Connection;
use crate::crypto::random::Draw;
use crate::error::{Error, Result};
use crate::event::{Event, SaId};
use crate::ike_sa::{DRAIN, Effect, Estate, IkeSa, Task, child_down};

use super::Endpoint;

/// The longest wait between attempts to bring a connection back.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Redirects in a row that are followed, and what counts as in a row (RFC 5685 section 4).
const MAX_REDIRECTS: u32 = 5;
const REDIRECT_PERIOD: Duration = Duration::from_secs(300);

/// Two IKE SAs that come up within this time may have crossed on the way.
const CROSSING: Duration = Duration::from_secs(10);

/// How long an IKE SA stays after another took over its tunnels: packets under way in its pairs arrive before its delete.
const HANDOVER: Duration = Duration::from_secs(1);

/// An IKE SA with the peer of one that came up.
struct Sibling {
    id: SaId,
    ours: bool,
    spi_i: u64,
    /// It was heard of just now.
    is_fresh: bool,
    /// The other one was begun before this one was up.
    crossed: bool,
}

/// What an IKE SA of ours starts with beside its addresses.
#[derive(Debug, Default)]
struct Birth {
    redirected_from: Option<std::net::IpAddr>,
    /// Virtual addresses that we have already.
    wished: Vec<std::net::IpAddr>,
}

impl Endpoint {
    pub(super) fn perform(&mut self, now: Instant, from: SaId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Spawn(sa) => {
                    self.settle(now, sa, false);
                }
                Effect::HandOver { to, estate } => self.hand_over(now, from, to, estate),
                Effect::Bury { connection, children } => self.bury(now, from, &connection, children),
                Effect::Abandon { sa } => self.with_sa(now, sa, |sa, ctx| sa.abandon(ctx.now)),
                Effect::Close { sa } => {
                    self.with_sa(now, sa, |sa, ctx| {
                        sa.close(ctx, "the IKE SA that it renewed ended")
                    });
                }
                Effect::Established { sa, initial_contact } => self.established(now, sa, initial_contact),
                Effect::Reauthenticate { sa } => self.reauthenticate(now, sa),
                Effect::Redirected { connection, to } => {
                    if let Some(state) = self.states.get_mut(&connection) {
                        let (since, count) = &mut state.redirects;
                        if since.is_none_or(|s| now.saturating_duration_since(s) > REDIRECT_PERIOD) {
                            (*since, *count) = (Some(now), 0);
                        }
                        *count += 1;
                        // RFC 5685 section 4: a loop is left by starting over where the configuration says.
                        state.redirect = (*count <= MAX_REDIRECTS).then_some(to);
                        let when = if state.redirect.is_some() {
                            now
                        } else {
                            now + LONGEST_RETRY
                        };
                        self.set_retry(&connection, Some(when));
                    }
                }
            }
        }
    }

    fn hand_over(&mut self, now: Instant, from: SaId, to: SaId, estate: Estate) {
        for child in &estate.children {
            self.registry.leave(from, child.spi_in());
            self.registry.leave(from, child.spi_out());
        }
        if self.sas.contains_key(&to) {
            self.with_sa(now, to, |sa, ctx| {
                sa.inherit(ctx, estate);
                sa.run_tasks(ctx);
            });
            return;
        }
        // The heir died first: what it would have carried goes with it.
        let children = estate
            .children
            .iter()
            .flat_map(|child| [child.outbound.reference(), child.inbound.reference()]);
        let references: Vec<_> = children
            .chain(estate.draining.iter().map(|(_, reference)| *reference))
            .collect();
        for reference in references {
            self.registry.release_child_spi(reference.spi);
            self.events
                .push_back(Event::Dataplane(Update::RemoveSa(reference)));
        }
        for child in &estate.children {
            self.events.push_back(child_down(from, "", child));
        }
    }

    /// Removes the pairs of an IKE SA that ended. Where another IKE SA carries a tunnel on, its pair takes over first, and
    /// what is under way in the old one is still received for a while.
    fn bury(&mut self, now: Instant, from: SaId, connection: &Connection, children: Vec<ChildSa>) {
        self.adopt_orphans(now);
        for child in children {
            let (tunnel, inbound) = (child.tunnel(), child.inbound.reference());
            self.events
                .push_back(Event::Dataplane(Update::RemoveSa(child.outbound.reference())));
            match self.carrier(tunnel) {
                Some(heir) => self.with_sa(now, heir, |sa, ctx| sa.draining.push((ctx.now + DRAIN, inbound))),
                None => {
                    self.events.push_back(Event::Dataplane(Update::RemoveSa(inbound)));
                    self.registry.release_child_spi(inbound.spi);
                }
            }
            let config = connection.child(&child.name);
            if config.is_none_or(|config| config.tunnel.is_none()) {
                self.registry.release_tunnel(&self.config, tunnel);
            }
            self.events.push_back(child_down(from, &connection.name, &child));
        }
    }

    /// The IKE SA with the pair that the tunnel sends by.
    fn carrier(&self, tunnel: TunnelId) -> Option<SaId> {
        let spi_in = self.registry.selection(tunnel)?;
        self.registry.homes(spi_in).find(|id| {
            let sa = self.sas.get(id);
            sa.is_some_and(|sa| sa.child_by_spi_in(spi_in).is_some())
        })
    }

    /// Deals with older IKE SAs of the same peer.
    fn established(&mut self, now: Instant, id: SaId, initial_contact: bool) {
        let Some(sa) = self.sas.get(&id) else { return };
        let (connection, remote_id) = (sa.connection.clone(), sa.remote_id.clone());
        let (ours, spi_i, created_at) = (sa.initiator, sa.spis().0, sa.created_at);
        if let Some(state) = self.states.get_mut(&connection.name) {
            state.attempts = 0;
        }
        self.set_retry(&connection.name, None);
        let of_peer: Vec<SaId> = match &remote_id {
            Some(peer) => self.census.of_peer(&connection.name, peer).collect(),
            None => Vec::new(),
        };
        let others: Vec<Sibling> = of_peer
            .iter()
            .filter_map(|id| self.sas.get(id))
            .filter(|other| {
                other.id != id
                    && other.is_established()
                    && !other.dormant
                    && other.connection.name == connection.name
                    && other.remote_id == remote_id
            })
            .map(|other| Sibling {
                id: other.id,
                ours: other.initiator,
                spi_i: other.spis().0,
                is_fresh: now.saturating_duration_since(other.last_heard) < CROSSING,
                crossed: other.established_at.is_some_and(|when| created_at <= when),
            })
            .collect();
        for other in others {
            // An SA of ours that answered just now crossed the peer's: the peer could not know of it.
            if initial_contact && connection.unique && !(other.is_fresh && other.ours && !ours) {
                self.with_sa(now, other.id, |sa, ctx| sa.close(ctx, "the peer started over"));
            } else if ours != other.ours && other.crossed && connection.unique {
                // Both ends initiated at once. Both see both SAs, and the one with the higher initiator SPI goes.
                let loser = if spi_i > other.spi_i { id } else { other.id };
                self.supersede(now, loser, "duplicate", Duration::ZERO);
            } else if ours && (other.ours || connection.unique) {
                // Reauthentication, made before the old SA is broken: what is under way in its pairs arrives first.
                self.supersede(now, other.id, "reauthenticated", HANDOVER);
            } else if ours != other.ours && connection.unique {
                // Reauthentication by the peer, which deletes the old SA; or it forgot that one, and does not answer there.
                self.with_sa(now, other.id, |sa, ctx| {
                    sa.enqueue(ctx.now, Task::Liveness);
                    sa.run_tasks(ctx);
                });
            }
        }
    }

    /// Deletes an IKE SA beside which another carries on, after this time; its tunnels change over first.
    fn supersede(&mut self, now: Instant, id: SaId, reason: &str, after: Duration) {
        let delete = Task::DeleteIke {
            reason: reason.to_owned(),
        };
        self.with_sa(now, id, |sa, ctx| {
            sa.superseded = true;
            for child in &sa.children {
                ctx.registry
                    .orphan(child.tunnel(), child.worker(), child.spi_in());
            }
            sa.enqueue_at(ctx.now + after, delete);
        });
        self.with_sa(now, id, |sa, ctx| sa.run_tasks(ctx));
    }

    /// Tunnels whose pair in use went: another IKE SA of the same peer may carry them.
    pub(super) fn adopt_orphans(&mut self, now: Instant) {
        for tunnel in self.registry.take_orphans() {
            let Some(connection) = self.connections.of_tunnel(tunnel) else {
                // A dynamic tunnel is one peer's alone.
                continue;
            };
            let heir = self
                .census
                .of_connection(&connection.name)
                .filter_map(|id| self.sas.get(&id))
                .filter(|sa| sa.is_established() && !sa.superseded && !sa.dormant)
                .find_map(|sa| {
                    let usable = |child: &&crate::child_sa::ChildSa| {
                        child.tunnel() == tunnel && child.state != crate::child_sa::ChildState::Deleting
                    };
                    Some((sa.id, sa.children.iter().rfind(usable)?.spi_in()))
                });
            if let Some((id, spi_in)) = heir {
                self.with_sa(now, id, |sa, ctx| sa.select_for(ctx, spi_in, None));
            }
        }
    }

    fn reauthenticate(&mut self, now: Instant, id: SaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        let connection = sa.connection.clone();
        if connection.remote_addresses.is_empty() {
            return;
        }
        let mut names: Vec<String> = sa.children.iter().map(|child| child.name.clone()).collect();
        names.dedup();
        let remote = SocketAddr::new(sa.remote.ip(), self.config.port);
        let local = sa.local.ip();
        let birth = Birth {
            redirected_from: None,
            wished: sa.own_addresses.clone(),
        };
        if let Err(error) = self.launch(
            now,
            &connection,
            SocketAddr::new(local, self.config.port),
            remote,
            names,
            birth,
        ) {
            let (connection, reason) = (Some(connection.name.clone()), error.to_string());
            self.events.push_back(Event::Failed {
                connection,
                remote,
                reason,
            });
        }
    }

    /// An IKE SA ended: its connection comes back where it should be up.
    pub(super) fn closed(&mut self, now: Instant, sa: &IkeSa, was_half_open: bool) {
        let name = sa.connection.name.clone();
        if sa.superseded || sa.connection.remote_addresses.is_empty() || self.live_sa(&name).is_some() {
            return;
        }
        let waits = self.retry_of(&name).is_some();
        let Some(state) = self.states.get_mut(&name).filter(|state| state.wanted) else {
            return;
        };
        if was_half_open && sa.initiator {
            state.address_index = state.address_index.wrapping_add(1);
            state.redirect = None;
        }
        if waits {
            return;
        }
        let doubled = Duration::from_millis(500)
            .saturating_mul(1 << state.attempts.min(10))
            .min(LONGEST_RETRY);
        state.attempts = state.attempts.saturating_add(1);
        let jitter = Duration::from_millis(self.random.below(500));
        self.set_retry(&name, Some(now + doubled + jitter));
    }

    fn retry_of(&self, name: &str) -> Option<Instant> {
        self.states.get(name)?.retry_at
    }

    /// When to bring a connection back.
    pub(super) fn set_retry(&mut self, name: &str, when: Option<Instant>) {
        let Some(state) = self.states.get_mut(name) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut state.retry_at, when) {
            self.retries.remove(&(before, name.to_owned()));
        }
        if let Some(when) = when {
            self.retries.insert((when, name.to_owned()));
        }
    }

    /// An IKE SA of the connection that is up or coming up.
    pub(super) fn live_sa(&self, connection: &str) -> Option<SaId> {
        let mut candidates: Vec<_> = self
            .census
            .of_connection(connection)
            .filter_map(|id| self.sas.get(&id))
            .filter(|sa| {
                !sa.superseded && !sa.dormant && (sa.is_established() || (sa.is_half_open() && sa.initiator))
            })
            .map(|sa| (!sa.is_established(), sa.id))
            .collect();
        candidates.sort_unstable();
        candidates.first().map(|(_, id)| *id)
    }

    pub(super) fn retry_connections(&mut self, now: Instant) {
        let due: Vec<String> = self
            .retries
            .iter()
            .take_while(|(when, _)| *when <= now)
            .map(|(_, name)| name.clone())
            .collect();
        for name in due {
            self.set_retry(&name, None);
            if self.live_sa(&name).is_none() {
                // What fails here was reported, and is tried again when its IKE SA is closed.
                let _ = self.initiate(now, &name, None);
            }
        }
    }

    /// Starts an IKE SA to the connection's next address.
    pub(super) fn launch_next(
        &mut self,
        now: Instant,
        connection: &Arc<Connection>,
        children: Vec<String>,
    ) -> Result<()> {
        let state = self.states.entry(connection.name.clone()).or_default();
        let index = state.address_index % connection.remote_addresses.len().max(1);
        let mut remote = *connection
            .remote_addresses
            .get(index)
            .ok_or_else(|| Error::Local(format!("connection {:?} has no remote address", connection.name)))?;
        let mut redirected_from = None;
        if let Some(redirect) = state.redirect {
            redirected_from = Some(remote.ip());
            remote.set_ip(redirect);
        }
        let same_family = |address: &&std::net::IpAddr| address.is_ipv4() == remote.is_ipv4();
        let local = connection
            .local_addresses
            .iter()
            .chain(&connection.source_addresses)
            .find(same_family)
            .copied()
            .ok_or_else(|| {
                Error::Local(format!(
                    "connection {:?} has no local address to reach {remote} from",
                    connection.name
                ))
            })?;
        let port = if remote.port() == self.config.nat_t_port {
            self.config.nat_t_port
        } else {
            self.config.port
        };
        let birth = Birth {
            redirected_from,
            wished: Vec::new(),
        };
        self.launch(
            now,
            connection,
            SocketAddr::new(local, port),
            remote,
            children,
            birth,
        )
    }

    fn launch(
        &mut self,
        now: Instant,
        connection: &Arc<Connection>,
        local: SocketAddr,
        remote: SocketAddr,
        children: Vec<String>,
        birth: Birth,
    ) -> Result<()> {
        let first = self.live_sa(&connection.name).is_none();
        let (outcome, effects) = self.with_context(now, |ctx| {
            let id = ctx.registry.new_sa();
            let spi = ctx.registry.new_ike_spi(id, ctx.random);
            let mut sa = IkeSa::new(id, connection.clone(), true, spi, 0, local, remote, now);
            sa.initial_contact = first && sa.connection.unique;
            sa.redirected_from = birth.redirected_from;
            sa.wished_addresses = birth.wished;
            for name in children {
                sa.enqueue(now, Task::CreateChild { name });
            }
            let started = sa.start_init(ctx);
            if started.is_err() {
                ctx.registry.by_spi.remove(&spi);
            }
            started.map(|()| Box::new(sa))
        });
        let sa = outcome?;
        let id = sa.id;
        self.settle(now, sa, true);
        self.perform(now, id, effects);
        Ok(())
    }
}
