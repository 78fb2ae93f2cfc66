//! The daemon's state and its loop.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use southbound::{ChannelError, PortStatus, Query, Status, ToControl, ToDataplane, WorkerStatus};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::allowance::Allowance;
use super::answers::{Purpose, Question};
use super::endpoint::MetricsEndpoint;
use super::gather::Gathering;
use super::pulse::Pulse;
use super::reload::PendingReload;
use super::watch::ActiveTrace;
use crate::admin::{Command, Replies, Server};
use crate::config::{Gateway, KeyAccess, Problems};
use crate::exporter::{History, Scrape};
use crate::fpm;
use crate::ike::{Driver, Plane, Stimulus};
use crate::install::{Installer, Ledger, LedgerError};
use crate::netlink::Mirror;
use crate::plane::{Backoff, Connection, Counters, Desired, Notice, Phase, Session, Welcome};

/// Most admin requests that wait for the loop.
const MAX_WAITING_COMMANDS: usize = 16;

/// Most messages of the dataplane that are sent before others get their turn.
const MAX_MESSAGES_A_TURN: usize = 64;

const TICK: Duration = Duration::from_millis(200);

/// Changes what is logged; the error is for the operator.
pub type LogLevel = fn(&str) -> Result<(), String>;

/// What the command line of the daemon says; it overrides the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Changes what is logged.
    pub log_level: LogLevel,
    /// The main configuration file.
    pub config: PathBuf,
    /// The dataplane's socket.
    pub dataplane_socket: Option<PathBuf>,
    /// The socket behind `penstock`.
    pub admin_socket: Option<PathBuf>,
    /// The folder of what must survive.
    pub state: Option<PathBuf>,
}

impl Options {
    /// Reads the configuration and puts these options over it.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn load(&self) -> Result<Gateway, Problems> {
        let mut gateway = Gateway::load(&self.config, KeyAccess::Required)?.gateway;
        if let Some(path) = &self.dataplane_socket {
            gateway.dataplane_socket.clone_from(path);
        }
        if let Some(path) = &self.admin_socket {
            gateway.admin.socket.clone_from(path);
        }
        if let Some(path) = &self.state {
            gateway.state_directory.clone_from(path);
        }
        Ok(gateway)
    }
}

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is faulty.
    #[error("{0}")]
    Config(#[from] Problems),
    /// Without the record of used keys none may be installed.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// A socket or signal handler was not granted.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) session: Session,
    pub(super) counters: Option<Counters>,
    pub(super) welcome: Option<Welcome>,
    /// What the dataplane holds is known, and the kernel's tables are waited for.
    sync_waits: bool,
    /// The socket had no room.
    is_blocked: bool,
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    pub(super) options: Options,
    pub(super) gateway: Gateway,
    pub(super) installer: Installer,
    pub(super) desired: Desired,
    pub(super) mirror: Mirror,
    pub(super) fpm: fpm::Listener,
    pub(super) endpoint: MetricsEndpoint,
    pub(super) ike: Driver,
    pub(super) link: Option<Link>,
    pub(super) questions: HashMap<u64, Question>,
    pub(super) reload: Option<PendingReload>,
    pub(super) started: Instant,
    pub(super) last_reload: Option<Result<(), String>>,
    pub(super) config_taken: SystemTime,
    /// The ports as last reported, by interface.
    pub(super) ports: BTreeMap<String, PortStatus>,
    /// The workers as last reported.
    pub(super) workers: Vec<WorkerStatus>,
    pub(super) rejections: Allowance,
    pub(super) strangers: Allowance,
    /// Requests of the HTTP endpoint that wait for answers of the dataplane.
    pub(super) gatherings: HashMap<u64, Gathering>,
    pub(super) next_gathering: u64,
    pub(super) history: History,
    /// What the dataplane raised, by event.
    pub(super) raised: BTreeMap<&'static str, u64>,
    /// Connections to a dataplane, and those that found another instance.
    pub(super) connections: [u64; 2],
    last_instance: Option<u64>,
    /// Clients that look on at events.
    pub(super) monitors: Vec<Replies>,
    /// The client that follows packets.
    pub(super) trace: Option<ActiveTrace>,
    backoff: Backoff,
    next_attempt: tokio::time::Instant,
    commands: mpsc::Receiver<Command>,
    scrapes: mpsc::Receiver<Scrape>,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What the loop woke for.
enum Wake {
    Received(Result<(ToControl, Option<std::os::fd::OwnedFd>), ChannelError>),
    Writable(io::Result<()>),
    Connect,
    Kernel(io::Result<()>),
    Fpm,
    Ike(Stimulus),
    Command(Command),
    Scrape(Scrape),
    Reload,
    Stop,
    Tick,
}

impl Daemon {
    /// Reads the configuration and the record of used keys and opens the sockets; within the runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: Options) -> Result<Self, StartError> {
        let fault = |what| move |source| StartError::Io { what, source };
        let gateway = options.load()?;
        let mut installer = Installer::new(Ledger::open(&gateway.state_directory)?);
        let mirror = Mirror::open(installer.scope(&gateway)).map_err(fault("netlink"))?;
        let mut fpm =
            fpm::Listener::open(super::routing::settings(&gateway)).map_err(fault("the FPM listener"))?;
        fpm.set_rules(super::routing::rules(&gateway));
        let ike = Driver::open(&gateway.ike, &gateway.state_directory).map_err(fault("the key log"))?;
        let server = Server::open(&gateway.admin).map_err(fault("the admin socket"))?;
        let (sender, commands) = mpsc::channel(MAX_WAITING_COMMANDS);
        tokio::spawn(server.serve(sender));
        let (sender, scrapes) = mpsc::channel(MAX_WAITING_COMMANDS);
        let endpoint =
            MetricsEndpoint::open(gateway.metrics.as_ref(), sender).map_err(fault("the metrics endpoint"))?;
        Ok(Self {
            options,
            gateway,
            installer,
            desired: Desired::default(),
            mirror,
            fpm,
            endpoint,
            ike,
            link: None,
            questions: HashMap::new(),
            reload: None,
            started: Instant::now(),
            last_reload: None,
            config_taken: SystemTime::now(),
            ports: BTreeMap::new(),
            workers: Vec::new(),
            gatherings: HashMap::new(),
            next_gathering: 0,
            history: History::default(),
            raised: BTreeMap::new(),
            connections: [0; 2],
            last_instance: None,
            monitors: Vec::new(),
            trace: None,
            rejections: Allowance::new(20, Duration::from_secs(10)),
            strangers: Allowance::new(10, Duration::from_secs(10)),
            backoff: Backoff::default(),
            next_attempt: tokio::time::Instant::now(),
            commands,
            scrapes,
            hangup: signal(SignalKind::hangup()).map_err(fault("SIGHUP"))?,
            terminate: signal(SignalKind::terminate()).map_err(fault("SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(fault("SIGINT"))?,
        })
    }

    /// Runs until told to stop; the dataplane keeps what it holds.
    pub async fn run(mut self) {
        info!(
            name = self.gateway.name,
            ports = self.gateway.ports.len(),
            tunnels = self.gateway.tunnels.len(),
            "started"
        );
        let mut pulse = Pulse::start();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            self.mirror.flush(&mut self.desired);
            self.fpm.flush(&self.mirror, &mut self.desired);
            let (ike, mut plane) = self.ike();
            ike.turn(&mut plane);
            self.begin_sync();
            self.transmit();
            self.settle_reload();
            match self.wake(&mut tick).await {
                Wake::Received(Ok((message, descriptor))) => self.received(message, descriptor),
                Wake::Received(Err(fault)) => self.disconnected(&fault.to_string()),
                Wake::Writable(Ok(())) => {
                    if let Some(link) = &mut self.link {
                        link.is_blocked = false;
                    }
                }
                Wake::Writable(Err(fault)) => self.disconnected(&fault.to_string()),
                Wake::Connect => self.connect(),
                Wake::Kernel(Ok(())) => {}
                Wake::Kernel(Err(fault)) => {
                    error!(error = %fault, "netlink failed: opening it anew");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    match Mirror::open(self.installer.scope(&self.gateway)) {
                        Ok(mirror) => self.mirror = mirror,
                        Err(fault) => error!(error = %fault, "netlink cannot be opened"),
                    }
                }
                // What it brought is told by the flush.
                Wake::Fpm => {}
                Wake::Ike(stimulus) => self.ike.take(stimulus),
                Wake::Command(command) => self.command(command),
                Wake::Scrape(scrape) => self.gather(scrape),
                Wake::Reload => pulse.reload(|| self.hang_up()),
                Wake::Stop => break,
                Wake::Tick => {
                    self.reload_deadline();
                    self.remember_traffic();
                    self.follow_trace();
                    self.announce_negotiations();
                    pulse.beat();
                }
            }
        }
        pulse.stop();
        info!("stopped; the dataplane goes on with what it holds");
    }

    async fn wake(&mut self, tick: &mut tokio::time::Interval) -> Wake {
        let connection = self.link.as_ref().map(|link| &link.connection);
        let is_blocked = self.link.as_ref().is_some_and(|link| link.is_blocked);
        let receive = async {
            match connection {
                Some(connection) => connection.receive().await,
                None => std::future::pending().await,
            }
        };
        let writable = async {
            match connection {
                Some(connection) if is_blocked => connection.writable().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            result = receive => Wake::Received(result),
            result = writable => Wake::Writable(result),
            () = tokio::time::sleep_until(self.next_attempt), if connection.is_none() => Wake::Connect,
            result = self.mirror.step() => Wake::Kernel(result),
            () = self.fpm.step() => Wake::Fpm,
            stimulus = self.ike.next() => Wake::Ike(stimulus),
            Some(command) = self.commands.recv() => Wake::Command(command),
            Some(reply) = self.scrapes.recv() => Wake::Scrape(reply),
            _ = self.hangup.recv() => Wake::Reload,
            _ = self.terminate.recv() => Wake::Stop,
            _ = self.interrupt.recv() => Wake::Stop,
            _ = tick.tick() => Wake::Tick,
        }
    }

    /// IKE, and the dataplane as it sees it.
    pub(super) fn ike(&mut self) -> (&mut Driver, Plane<'_>) {
        let is_live = self
            .link
            .as_ref()
            .is_some_and(|link| matches!(link.session.phase(), Phase::Syncing | Phase::Live));
        let plane = Plane {
            desired: &mut self.desired,
            installer: &mut self.installer,
            is_live,
        };
        (&mut self.ike, plane)
    }

    /// Lets IKE take the running configuration over.
    pub(super) fn configure_ike(&mut self) {
        let plane = &mut Plane {
            desired: &mut self.desired,
            installer: &mut self.installer,
            is_live: false,
        };
        self.ike.apply(&self.gateway, plane);
    }

    fn connect(&mut self) {
        match Connection::open(&self.gateway.dataplane_socket) {
            Ok(connection) => {
                let mut past = self.fpm.wanted_of_the_past().to_vec();
                for query in self.ike.wanted_of_the_past(&self.gateway) {
                    if !past.contains(query) {
                        past.push(*query);
                    }
                }
                self.link = Some(Link {
                    connection,
                    session: Session::new().learning(&past),
                    counters: None,
                    welcome: None,
                    sync_waits: false,
                    is_blocked: false,
                });
            }
            Err(fault) => {
                let pause = self.backoff.pause();
                if let Some(suppressed) = self.strangers.take(Instant::now()) {
                    warn!(
                        socket = %self.gateway.dataplane_socket.display(),
                        error = %fault,
                        suppressed,
                        "the dataplane does not answer"
                    );
                }
                self.next_attempt = tokio::time::Instant::now() + pause;
            }
        }
    }

    pub(super) fn disconnected(&mut self, reason: &str) {
        warn!(reason, "the connection to the dataplane ended");
        self.link = None;
        self.next_attempt = tokio::time::Instant::now() + self.backoff.pause();
        self.abandon_questions();
        self.abandon_gatherings();
        self.end_trace(Some("the dataplane went away"));
        self.announce("dataplane_down", json!({ "reason": reason }));
    }

    /// Sends a message that is no update; `false` where nobody listens.
    pub(super) fn tell_plane(&mut self, message: ToDataplane) -> bool {
        match &mut self.link {
            Some(link) if link.welcome.is_some() => {
                link.session.tell(message);
                true
            }
            _ => false,
        }
    }

    fn received(&mut self, message: ToControl, descriptor: Option<std::os::fd::OwnedFd>) {
        let Some(link) = &mut self.link else { return };
        if let (ToControl::Welcome { .. }, Some(descriptor)) = (&message, descriptor) {
            match Counters::open(descriptor) {
                Ok(counters) => link.counters = Some(counters),
                Err(fault) => warn!(error = %fault, "the dataplane's counters cannot be read"),
            }
        }
        if let Err(fault) = link.session.handle(message) {
            self.disconnected(&fault.to_string());
            return;
        }
        for notice in link.session.take_notices() {
            self.notice(notice);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Welcome(welcome) => {
                self.backoff.reset();
                info!(
                    instance = format!("{:016x}", welcome.instance),
                    workers = welcome.workers,
                    "connected to the dataplane"
                );
                self.connections[0] += 1;
                self.announce(
                    "dataplane_connected",
                    json!({ "instance": format!("{:016x}", welcome.instance), "workers": welcome.workers }),
                );
                if self.last_instance.replace(welcome.instance) != Some(welcome.instance) {
                    self.connections[1] += 1;
                }
                if let Some(link) = &mut self.link {
                    link.welcome = Some(welcome);
                }
            }
            Notice::Learned(held) => self.learned(&held),
            Notice::Applied(object) => {
                self.installer.applied(&object, &self.desired);
                if let Some(reload) = &mut self.reload {
                    reload.awaited.remove(&object);
                }
            }
            Notice::Rejected(object, rejection) => self.rejected(object, &rejection),
            Notice::Synced(removed) => {
                self.installer.swept(&self.desired);
                self.ask(Query::Ports, Purpose::LogPorts);
                self.ask(Query::Workers, Purpose::NoteWorkers);
                info!(removed, "the dataplane holds what it should");
                self.announce("dataplane_up", json!({ "removed": removed }));
            }
            Notice::Event(event) => self.event(event),
            Notice::Answer {
                question,
                records,
                last,
            } => self.answer(question, &records, last),
        }
    }

    fn learned(&mut self, held: &[Status]) {
        let Some(welcome) = self.link.as_ref().and_then(|link| link.welcome) else {
            return;
        };
        self.installer.learn(welcome.instance, held);
        self.fpm.adopt(held, &mut self.desired);
        // Tunnels have numbers from here on, and IKE needs them. What is loaded stays as it is.
        self.configure_ike();
        let (ike, mut plane) = self.ike();
        ike.learn(welcome.instance, held, &mut plane);
        let plan = self.installer.plan(&self.gateway);
        for (tunnel, reasons) in &plan.refusals {
            for reason in reasons {
                error!(tunnel, "refused: {reason}");
            }
        }
        match self.installer.commit(plan, &mut self.desired) {
            Ok(committed) => {
                for object in committed.stale {
                    self.desired.remove(object);
                }
            }
            Err(fault) => {
                // Without its record no key may be installed; the dataplane keeps what it holds.
                self.disconnected(&fault.to_string());
                return;
            }
        }
        self.mirror.set_scope(self.installer.scope(&self.gateway));
        if let Some(link) = &mut self.link {
            link.sync_waits = true;
        }
    }

    /// Tells the dataplane everything, but not before the kernel's tables are known: a sweep without them
    /// would take live routes away.
    fn begin_sync(&mut self) {
        if let Some(link) = &mut self.link
            && link.sync_waits
            && self.mirror.is_primed()
        {
            link.sync_waits = false;
            link.session.begin_sync(&mut self.desired);
        }
    }

    fn transmit(&mut self) {
        let Some(link) = &mut self.link else { return };
        for _ in 0..MAX_MESSAGES_A_TURN {
            if link.is_blocked {
                return;
            }
            let Some(message) = link.session.poll_transmit(&mut self.desired) else {
                return;
            };
            match link.connection.try_send(&message) {
                Ok(()) => {}
                Err(ChannelError::WouldBlock) => {
                    link.session.unsent(message);
                    link.is_blocked = true;
                }
                Err(fault) => {
                    self.disconnected(&fault.to_string());
                    return;
                }
            }
        }
    }

    /// Whether the dataplane has acknowledged everything.
    pub(super) fn is_settled(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| link.session.is_settled(&self.desired))
    }

    /// How the conversation with the dataplane stands, for people.
    pub(super) fn plane_state(&self) -> &'static str {
        match self.link.as_ref().map(|link| link.session.phase()) {
            None => "down",
            Some(Phase::Greeting | Phase::Learning) => "connecting",
            Some(Phase::Syncing) => "synchronising",
            Some(Phase::Live) => "up",
        }
    }
}
