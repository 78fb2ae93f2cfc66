//! The endpoint: every IKE SA of one gateway, and the way of a datagram to its own.
//!
//! The driver calls, in any order: [`Endpoint::handle_datagram`] for what its sockets receive,
//! [`Endpoint::handle_timeout`] once [`Endpoint::poll_timeout`] has come, and commands. After each call it sends what
//! [`Endpoint::poll_transmit`] yields, and does what [`Endpoint::poll_event`] says, until both yield nothing.

mod admission;
mod census;
mod command;
mod directory;
#[cfg(any(test, feature = "testing"))]
mod impair;
mod lifecycle;
mod report;
mod stateless;

pub(crate) use directory::Directory;
#[cfg(any(test, feature = "testing"))]
pub use impair::Impaired;
pub use report::IkeSummary;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::config::EndpointConfig;
use crate::cookie::Cookies;
use crate::credential::Credentials;
use crate::crypto::random::Random;
use crate::error::{Error, Result};
use crate::event::{Counters, Event, SaId, Transmit};
use crate::exchange::parts::Parts;
use crate::ike_sa::{Context, Effect, IkeSa};
use crate::message::{ExchangeType, HEADER_BYTES, Header};
use crate::payload::{Chain, parse_chain};
use crate::registry::Registry;

/// All peers together may have this much unfinished in fragments.
const FRAGMENT_BUDGET_BYTES: usize = 32 << 20;

/// What the endpoint knows of a connection beside its configuration.
#[derive(Debug, Default)]
struct ConnectionState {
    /// It should be up.
    wanted: bool,
    attempts: u32,
    retry_at: Option<Instant>,
    /// Which of the remote addresses is next.
    address_index: usize,
    /// Where the peer redirected us, and how often of late: two gateways may send us to and fro.
    redirect: Option<IpAddr>,
    redirects: (Option<Instant>, u32),
}

/// An IKEv2 endpoint.
pub struct Endpoint {
    config: EndpointConfig,
    credentials: Credentials,
    random: Box<dyn Random + Send>,
    connections: Directory,
    states: HashMap<String, ConnectionState>,
    /// When to bring which connection back.
    retries: BTreeSet<(Instant, String)>,
    sas: HashMap<SaId, Box<IkeSa>>,
    census: census::Census,
    registry: Registry,
    deadlines: BTreeSet<(Instant, SaId)>,
    deadline_of: HashMap<SaId, Instant>,
    admission: admission::Admission,
    cookies: Cookies,
    stateless_answers: stateless::RateLimit,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
    /// A moment and the seconds since 1970 at it, for certificates.
    wall_clock: (Instant, u64),
    fragment_bytes: usize,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Endpoint({} connections, {} IKE SAs)",
            self.connections.len(),
            self.sas.len()
        )
    }
}

impl Endpoint {
    /// An endpoint without connections. `unix_seconds` is the time of day at `now`, by which certificates are judged.
    pub fn new(
        config: EndpointConfig,
        credentials: Credentials,
        mut random: Box<dyn Random + Send>,
        now: Instant,
        unix_seconds: u64,
    ) -> Self {
        let cookies = Cookies::new(now, random.as_mut());
        Self {
            config,
            credentials,
            random,
            connections: Directory::default(),
            states: HashMap::new(),
            retries: BTreeSet::new(),
            sas: HashMap::new(),
            census: census::Census::default(),
            registry: Registry::default(),
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            admission: admission::Admission::default(),
            cookies,
            stateless_answers: stateless::RateLimit::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            wall_clock: (now, unix_seconds),
            fragment_bytes: 0,
        }
    }

    /// Takes a datagram as a socket received it at `local` from `remote`; on the NAT traversal port with its non-ESP
    /// marker. Anything may be in it.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let message = if local.port() == self.config.nat_t_port {
            match bytes.split_at_checked(4) {
                Some(([0, 0, 0, 0], message)) => message,
                // A keepalive (RFC 3948 section 2.3), or ESP, which is not for us.
                _ => return,
            }
        } else {
            bytes
        };
        match self.dispatch(now, local, remote, message) {
            Ok(()) => {}
            Err(Error::UnsupportedCriticalPayload(_)) => self.counters.unknown_critical += 1,
            Err(_) => self.counters.malformed += 1,
        }
    }

    fn dispatch(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
    ) -> Result<()> {
        let header = match Header::parse(message) {
            Err(error @ Error::UnsupportedVersion(_)) => {
                self.refuse_version(now, local, remote, message);
                return Err(error);
            }
            parsed => parsed?,
        };
        let body = message
            .get(HEADER_BYTES..)
            .ok_or(Error::Malformed("IKE header"))?;
        if header.exchange == ExchangeType::IKE_SA_INIT {
            if header.message_id != 0 || header.is_response == header.from_initiator {
                return Err(Error::Malformed("IKE_SA_INIT header"));
            }
            if !header.is_response {
                return self.take_first_request(now, local, remote, &header, message, body);
            }
            let Some(id) = self.registry.by_spi.get(&header.initiator_spi).copied() else {
                self.counters.unknown_spi += 1;
                return Ok(());
            };
            let parts = Parts::sort(parse_chain(header.next_payload, body)?.payloads)?;
            self.with_sa(now, id, |sa, ctx| {
                if sa.initiator && sa.is_half_open() && remote.ip() == sa.remote.ip() {
                    sa.take_init(ctx, &header, message, &parts);
                }
            });
            return Ok(());
        }
        let local_spi = if header.from_initiator {
            header.responder_spi
        } else {
            header.initiator_spi
        };
        let remote_spi = if header.from_initiator {
            header.initiator_spi
        } else {
            header.responder_spi
        };
        let chain: Chain = parse_chain(header.next_payload, body)?;
        let Some(part) = chain.encrypted else {
            let parts = Parts::sort(chain.payloads)?;
            self.take_hint(now, remote, &header, &parts);
            return Ok(());
        };
        let id = self.registry.by_spi.get(&local_spi).copied();
        let Some(id) = id.filter(|id| self.sas.get(id).is_some_and(|sa| sa.remote_spi == remote_spi)) else {
            self.refuse_spi(now, local, remote, &header);
            return Ok(());
        };
        self.with_sa(now, id, |sa, ctx| {
            sa.receive(ctx, local, remote, &header, part, message)
        });
        Ok(())
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.retry_connections(now);
        // Each is handled once a call: one that stays due for ever would hang a loop.
        let due: Vec<SaId> = self
            .deadlines
            .iter()
            .take_while(|(when, _)| *when <= now)
            .map(|(_, id)| *id)
            .collect();
        for id in due {
            self.with_sa(now, id, |sa, ctx| sa.handle_timeout(ctx));
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When [`Self::handle_timeout`] has to be called, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.retries.first().map(|(when, _)| *when);
        let due = self.deadlines.first().map(|(when, _)| *when);
        retry.into_iter().chain(due).min()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn with_context<R>(&mut self, now: Instant, act: impl FnOnce(&mut Context<'_>) -> R) -> (R, Vec<Effect>) {
        let elapsed = now.saturating_duration_since(self.wall_clock.0).as_secs();
        let mut context = Context {
            now,
            unix_seconds: self.wall_clock.1.saturating_add(elapsed),
            random: self.random.as_mut(),
            config: &self.config,
            credentials: &self.credentials,
            connections: &self.connections,
            registry: &mut self.registry,
            transmits: &mut self.transmits,
            events: &mut self.events,
            counters: &mut self.counters,
            fragment_budget_bytes: FRAGMENT_BUDGET_BYTES.saturating_sub(self.fragment_bytes),
            effects: Vec::new(),
        };
        let result = act(&mut context);
        (result, context.effects)
    }

    /// Lets an IKE SA act, then brings the endpoint's books in line with what it became.
    fn with_sa(&mut self, now: Instant, id: SaId, act: impl FnOnce(&mut IkeSa, &mut Context<'_>)) {
        let Some(mut sa) = self.sas.remove(&id) else {
            return;
        };
        let held_before = sa.fragment_bytes();
        let was_half_open = sa.is_half_open();
        let ((), effects) = self.with_context(now, |ctx| act(&mut sa, ctx));
        self.fragment_bytes = (self.fragment_bytes + sa.fragment_bytes()).saturating_sub(held_before);
        self.settle(now, sa, was_half_open);
        self.perform(now, id, effects);
        self.adopt_orphans(now);
    }

    /// Puts an SA (back) into the tables, or takes it out of all of them.
    fn settle(&mut self, now: Instant, sa: Box<IkeSa>, was_half_open: bool) {
        let id = sa.id;
        if let Some(before) = self.deadline_of.remove(&id) {
            self.deadlines.remove(&(before, id));
        }
        if !sa.initiator && was_half_open && (!sa.is_half_open() || sa.is_closed()) {
            self.admission.finished(id);
        }
        if sa.is_closed() {
            self.census.forget(id);
            self.registry.by_spi.remove(&sa.local_spi);
            self.admission.forget(id);
            self.fragment_bytes = self.fragment_bytes.saturating_sub(sa.fragment_bytes());
            self.closed(now, &sa, was_half_open);
            return;
        }
        if let Some(deadline) = sa.deadline() {
            self.deadline_of.insert(id, deadline);
            self.deadlines.insert((deadline, id));
        }
        self.census.note(&sa);
        self.sas.insert(id, sa);
    }
}
