//! The endpoint and its surroundings.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ike::{Endpoint, EndpointConfig, Event, SaId, SystemRandom, Transmit};
use southbound::{SaRef, TunnelId};
use tokio::sync::mpsc;
use tracing::{debug, error, info, trace, warn};

use super::address::{Answer, REFRESH, known_address};
use super::authentication::{Radius, Verdict};
use super::books::{Books, Plane};
use super::inherited_peers::Pattern;
use super::journal::Journal;
use super::key_log::KeyLog;
use super::leases::Leases;
use super::sockets::{Datagram, Sockets};
use super::waiting::Waiting;
use crate::admin::ExitCode;
use crate::config::{Connection, Gateway, IkeSettings};

/// The longest that an answer waits until the dataplane holds what it announces: on a busy machine both processes may
/// wait for a turn, and less than a peer waits before it asks again.
const INSTALL_LIMIT: Duration = Duration::from_secs(1);

/// Most datagrams that wait so.
pub(super) const MAX_HELD: usize = 4096;

/// What the driver woke for.
#[derive(Debug)]
pub(crate) enum Stimulus {
    /// A datagram, or why there was none.
    Datagram(io::Result<Datagram>),
    /// A name was looked up for a connection.
    Resolved(Answer),
    /// A RADIUS server answered, or none did.
    Authenticated(Box<Verdict>),
    /// Time.
    Timer,
}

/// A connection that is loaded, or waits for an address.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Connection,
    pub(super) engine: ike::Connection,
    pub(super) is_loaded: bool,
    /// What each remote resolves to.
    pub(super) found: Vec<Vec<SocketAddr>>,
    pub(super) asked_at: Option<Instant>,
    pub(super) open_questions: usize,
}

/// A datagram that waits for the dataplane.
#[derive(Debug)]
struct Held {
    transmit: Transmit,
    awaited: Vec<SaRef>,
    deadline: Instant,
}

/// The IKE daemon.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(super) endpoint: Endpoint,
    /// Open while there are connections: a gateway without any leaves the ports alone.
    sockets: Option<Sockets>,
    ports: (u16, u16),
    pub(super) loaded: BTreeMap<String, Loaded>,
    pub(super) books: Books,
    pub(super) journal: Journal,
    key_log: Option<KeyLog>,
    waiting: Vec<Waiting>,
    /// Who is behind an IKE SA.
    peers: HashMap<SaId, String>,
    held: VecDeque<Held>,
    pub(super) answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    pub(super) refresh_at: Instant,
    locals_version: u64,
    /// Tunnels that traffic waits for, and that no connection could bring up at that moment.
    pub(super) unserved: BTreeSet<TunnelId>,
    pub(super) radius: Radius,
    leases: Leases,
    /// Pairs to renew, by inbound SPI.
    pub(super) renewals: VecDeque<u32>,
    pub(super) renew_at: Option<Instant>,
    pub(super) restarts: (u32, Option<Instant>),
    /// Negotiations that failed.
    pub(super) failures: u64,
}

impl Driver {
    /// An endpoint without connections; within the runtime.
    ///
    /// # Errors
    /// Where the key log cannot be written.
    pub(crate) fn open(settings: &IkeSettings, state_folder: &Path) -> io::Result<Self> {
        let key_log = settings
            .key_log_directory
            .as_deref()
            .map(KeyLog::open)
            .transpose()?;
        let config = EndpointConfig {
            cookie_threshold: settings.cookie_threshold,
            half_open_limit: settings.half_open_limit,
            half_open_per_address: settings.half_open_per_address,
            ike_sa_limit: settings.sa_limit,
            key_log: key_log.is_some(),
            ..EndpointConfig::default()
        };
        let ports = (config.port, config.nat_t_port);
        let now = Instant::now();
        let random = Box::new(SystemRandom::new());
        let mut endpoint = Endpoint::new(config, ike::Credentials::new(), random, now, unix_seconds());
        let leases = Leases::open(state_folder, &mut endpoint);
        Ok(Self {
            endpoint,
            sockets: None,
            ports,
            loaded: BTreeMap::new(),
            books: Books::default(),
            journal: Journal::default(),
            key_log,
            waiting: Vec::new(),
            peers: HashMap::new(),
            held: VecDeque::new(),
            answers: mpsc::channel(64),
            refresh_at: now,
            locals_version: 0,
            unserved: BTreeSet::new(),
            radius: Radius::default(),
            leases,
            renewals: VecDeque::new(),
            renew_at: None,
            restarts: (0, None),
            failures: 0,
        })
    }

    /// Waits for the next stimulus; safe to cancel.
    pub(crate) async fn next(&mut self) -> Stimulus {
        let timers = [
            self.endpoint.poll_timeout(),
            Some(self.refresh_at),
            self.renew_at,
            self.leases.due(),
            // Each waits equally long: the first is the oldest.
            self.held.front().map(|held| held.deadline),
            self.waiting.iter().map(|waiting| waiting.deadline).min(),
        ];
        let due = timers.into_iter().flatten().min().unwrap_or(self.refresh_at);
        tokio::select! {
            datagram = receive(self.sockets.as_ref()) => Stimulus::Datagram(datagram),
            Some(answer) = self.answers.1.recv() => Stimulus::Resolved(answer),
            Some(verdict) = self.radius.verdicts() => Stimulus::Authenticated(Box::new(verdict)),
            () = tokio::time::sleep_until(due.into()) => Stimulus::Timer,
        }
    }

    /// Takes a stimulus; [`Self::turn`] does what follows from it.
    pub(crate) fn take(&mut self, stimulus: Stimulus) {
        match stimulus {
            Stimulus::Datagram(Ok(datagram)) => {
                trace!(local = %datagram.local, remote = %datagram.remote, bytes = datagram.bytes.len(), "received");
                self.endpoint.handle_datagram(
                    Instant::now(),
                    datagram.local,
                    datagram.remote,
                    &datagram.bytes,
                );
            }
            Stimulus::Datagram(Err(error)) => debug!(%error, "a datagram was not received"),
            Stimulus::Resolved(answer) => self.resolved(answer),
            Stimulus::Authenticated(verdict) => self.authenticated(*verdict),
            Stimulus::Timer => {}
        }
    }

    /// Takes a configuration over: what is as before stays untouched.
    pub(crate) fn apply(&mut self, gateway: &Gateway, plane: &mut Plane<'_>) {
        let now = Instant::now();
        self.endpoint.set_wall_clock(now, unix_seconds());
        self.endpoint.set_credentials(gateway.credentials.clone());
        self.radius.configure(&gateway.name, &gateway.radius);
        if let Some(log) = &self.key_log {
            log.warn();
        }
        let mut before = std::mem::take(&mut self.loaded);
        let mut negotiated = BTreeSet::new();
        for config in &gateway.connections {
            let name = config.engine.name.clone();
            let mut engine = config.engine.clone();
            for (child, known) in engine.children.iter_mut().zip(&config.tunnels) {
                child.tunnel =
                    (!known.is_per_peer).then(|| plane.installer.number_tunnel(&known.tunnel.name));
                negotiated.extend(child.tunnel);
            }
            let loaded = match before.remove(&name) {
                Some(known) if known.config == *config => known,
                Some(known) if known.is_loaded && same_but_children(&known.config, config) => {
                    engine.remote_addresses = known.engine.remote_addresses.clone();
                    engine.source_addresses = known.engine.source_addresses.clone();
                    self.endpoint.update_children(now, engine.clone());
                    Loaded {
                        config: config.clone(),
                        engine,
                        ..known
                    }
                }
                known => {
                    if known.is_some() {
                        self.endpoint.remove_connection(now, &name);
                    }
                    Loaded {
                        config: config.clone(),
                        engine,
                        is_loaded: false,
                        found: config.remotes.iter().map(known_address).collect(),
                        asked_at: None,
                        open_questions: 0,
                    }
                }
            };
            self.loaded.insert(name, loaded);
        }
        for name in before.into_keys() {
            self.endpoint.remove_connection(now, &name);
        }
        self.books.keep_only(&negotiated, &patterns(&self.loaded), plane);
        self.open_sockets();
        self.refresh_at = now;
    }

    /// Binds the ports, which may be in use by somebody who is about to stop.
    pub(super) fn open_sockets(&mut self) {
        if self.loaded.is_empty() || self.sockets.is_some() {
            return;
        }
        match Sockets::open(self.ports.0, self.ports.1) {
            Ok(sockets) => self.sockets = Some(sockets),
            Err(error) => {
                let text = format!("the UDP ports of IKE cannot be opened: {error}; it is tried again");
                error!("{text}");
                self.journal.fail(None, text);
            }
        }
    }

    /// Does what is due and carries out what the endpoint decided.
    pub(crate) fn turn(&mut self, plane: &mut Plane<'_>) {
        let now = Instant::now();
        if self.refresh_at <= now {
            self.refresh_at = now + REFRESH;
            self.refresh(now);
        }
        if self.locals_version != plane.desired.locals_version() {
            self.locals_version = plane.desired.locals_version();
            self.follow_addresses(now, plane);
        }
        self.renew_some(now);
        if self.endpoint.poll_timeout().is_some_and(|when| when <= now) {
            self.endpoint.handle_timeout(now);
        }
        self.books.tick(now, plane);
        let mut announced = Vec::new();
        while let Some(event) = self.endpoint.poll_event() {
            self.event(now, event, plane, &mut announced);
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            // The peer may use an inbound SA as soon as it is told of it.
            if plane.is_live && !announced.is_empty() && self.held.len() < MAX_HELD {
                self.held.push_back(Held {
                    transmit,
                    awaited: announced.clone(),
                    deadline: now + INSTALL_LIMIT,
                });
            } else {
                self.send(&transmit);
            }
        }
        while let Some(held) = self.held.front()
            && (held.deadline <= now
                || !plane.is_live
                || held.awaited.iter().all(|sa| plane.installer.has_sa(sa)))
        {
            if let Some(held) = self.held.pop_front() {
                self.send(&held.transmit);
            }
        }
        self.leases.tick(now, &self.endpoint);
        self.time_out(now);
    }

    fn send(&self, transmit: &Transmit) {
        trace!(local = %transmit.local, remote = %transmit.remote, bytes = transmit.bytes.len(), "sent");
        if let Some(sockets) = &self.sockets
            && let Err(error) = sockets.send(transmit)
        {
            debug!(remote = %transmit.remote, %error, "a datagram could not be sent");
        }
    }

    fn event(&mut self, now: Instant, event: Event, plane: &mut Plane<'_>, announced: &mut Vec<SaRef>) {
        // The key log's lines alone have keys in them, and the packets of EAP what is as good.
        if !matches!(event, Event::KeyLog(_) | Event::EapRequest { .. }) {
            trace!(?event, "decided");
        }
        self.waiting.retain_mut(|waiting| !waiting.hears(&event));
        match event {
            Event::Dataplane(update) => {
                if let (Some(log), southbound::Update::InstallSa(spec)) = (&mut self.key_log, &update) {
                    log.esp(spec);
                }
                // Asked for only once for each caller: thousands of connections are not gone through for each SA.
                let pattern = |name: &str| {
                    let mut children = self.loaded.values().flat_map(|loaded| &loaded.config.tunnels);
                    children
                        .find(|child| child.tunnel.name == name)
                        .map(|child| &child.tunnel)
                };
                announced.extend(self.books.apply(now, update, pattern, plane));
            }
            Event::EapRequest {
                sa,
                local,
                remote,
                user,
                packet,
                ..
            } => self.ask_radius(now, sa, (local.ip(), remote.ip()), user, packet),
            Event::KeyLog(line) => {
                if let Some(log) = &mut self.key_log {
                    log.ike(&line);
                }
            }
            Event::IkeUp {
                sa,
                connection,
                remote_id,
                remote,
                suite,
                virtual_addresses,
            } => {
                if !virtual_addresses.is_empty() {
                    self.leases.changed();
                }
                self.radius.forget(sa);
                self.peers.insert(sa, remote_id.to_string());
                self.journal.succeeded(&connection);
                let given = match virtual_addresses.as_slice() {
                    [] => String::new(),
                    list => format!(", addresses {list:?}"),
                };
                self.tell(
                    &connection,
                    format!("IKE SA up with {remote_id} at {remote}: {suite}{given}"),
                );
            }
            Event::IkeRekeyed { old, new, connection } => {
                if let Some(peer) = self.peers.remove(&old) {
                    self.peers.insert(new, peer);
                }
                self.tell(&connection, "IKE SA renewed".to_owned());
            }
            Event::IkeDown {
                sa,
                connection,
                reason,
            } => {
                self.peers.remove(&sa);
                self.ask_again(&connection);
                self.tell(&connection, format!("IKE SA down: {reason}"));
            }
            Event::ChildUp {
                sa,
                connection,
                child,
            } => {
                let text = format!(
                    "{} up: {}, {:?} to {:?}",
                    child.name, child.suite, child.local_ts, child.remote_ts
                );
                self.child_up(sa, &connection, &child, plane);
                self.tell(&connection, text);
            }
            Event::ChildRekeyed {
                sa,
                connection,
                child,
                ..
            } => {
                let text = format!(
                    "{} renewed: {}, SPI {:08x} in, {:08x} out",
                    child.name, child.suite, child.spi_in, child.spi_out
                );
                self.child_up(sa, &connection, &child, plane);
                self.tell(&connection, text);
            }
            Event::ChildDown {
                connection,
                child,
                tunnel,
                ..
            } => {
                self.books.child_down(tunnel, plane);
                self.tell(&connection, format!("{child} down"));
            }
            Event::Failed {
                connection,
                remote,
                reason,
            } => {
                self.failures += 1;
                let text = format!("with {remote}: {reason}");
                match &connection {
                    Some(name) => {
                        warn!(connection = name, %remote, "negotiation failed: {reason}");
                        self.ask_again(name);
                    }
                    None => warn!(%remote, "negotiation failed: {reason}"),
                }
                self.journal.fail(connection.as_deref(), text);
            }
            Event::PeerMoved { sa, remote } => {
                let peer = self.peers.get(&sa).cloned().unwrap_or_default();
                info!(%remote, "{peer} moved");
                self.journal.note(None, format!("{peer} moved to {remote}"));
            }
        }
    }

    fn tell(&mut self, connection: &str, text: String) {
        info!(connection, "{text}");
        self.journal.note(Some(connection), text);
    }

    fn child_up(&mut self, sa: SaId, connection: &str, child: &ike::ChildSummary, plane: &mut Plane<'_>) {
        let Some(loaded) = self.loaded.get(connection) else {
            return;
        };
        let configured = loaded.config.engine.children.iter().zip(&loaded.config.tunnels);
        let Some((_, pattern)) = configured.into_iter().find(|(known, _)| known.name == child.name) else {
            return;
        };
        if pattern.is_per_peer {
            let peer = self.peers.get(&sa).map_or("", String::as_str);
            plane
                .installer
                .name_peer(child.tunnel, &pattern.tunnel.name, peer);
        }
        self.books.child_up(child, pattern, plane);
    }

    /// Remembers a command until it is answered.
    pub(crate) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    fn time_out(&mut self, now: Instant) {
        let journal = &self.journal;
        self.waiting.retain(|waiting| {
            if waiting.deadline > now {
                return true;
            }
            waiting.give_up(journal.failure(&waiting.connection));
            false
        });
    }

    /// What happened since it was last called.
    pub(crate) fn news(&mut self) -> Vec<serde_json::Value> {
        self.journal.news()
    }

    /// Answers a request for the journal.
    pub(crate) fn log(
        &self,
        connection: Option<&str>,
        limit: usize,
    ) -> Result<Vec<serde_json::Value>, (ExitCode, String)> {
        match connection {
            Some(name) if !self.loaded.contains_key(name) => {
                Err((ExitCode::NotFound, format!("no connection {name:?}")))
            }
            _ => Ok(self.journal.records(connection, limit)),
        }
    }
}

async fn receive(sockets: Option<&Sockets>) -> io::Result<Datagram> {
    match sockets {
        Some(sockets) => sockets.receive().await,
        None => std::future::pending().await,
    }
}

/// Whether two configurations of a connection differ in their children only.
fn same_but_children(one: &Connection, other: &Connection) -> bool {
    let bare = |connection: &Connection| {
        let mut engine = connection.engine.clone();
        engine.children.clear();
        engine
    };
    one.remotes == other.remotes && bare(one) == bare(other)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
/// The tunnels that each peer has of its own.
pub(super) fn patterns(loaded: &BTreeMap<String, Loaded>) -> Vec<Pattern<'_>> {
    loaded
        .values()
        .flat_map(|loaded| loaded.config.engine.children.iter().zip(&loaded.config.tunnels))
        .filter(|(_, child)| child.is_per_peer)
        .map(|(config, child)| Pattern {
            child,
            lifetime: config.rekey.give_up_after,
        })
        .collect()
}
