//! The listener and its one session.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use southbound::{Query, Status};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::{info, warn};

use super::model::{Counts, Limits, Model};
use super::projection::{Projection, Rules};
use super::receiver::{Receiver, Statistics};
use crate::netlink::Mirror;
use crate::plane::Desired;

const READ_BYTES: usize = 64 * 1024;

/// Most reads before others get their turn.
const MAX_READS_A_TURN: usize = 16;

/// Where the listener is, and how long what a lost session told stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address that zebra connects to.
    pub listen: SocketAddr,
    /// How long what no session confirms stays, from the loss of the last one or the start of the next.
    pub stale: Duration,
}

#[derive(Debug)]
struct Session {
    stream: TcpStream,
    peer: SocketAddr,
    receiver: Receiver,
    since: Instant,
}

/// The listener, its session, and what all sessions told.
#[derive(Debug)]
pub struct Listener {
    settings: Option<Settings>,
    socket: Option<TcpListener>,
    session: Option<Session>,
    model: Model,
    projection: Projection,
    statistics: Statistics,
    /// When zebra last told anything.
    updated: Option<SystemTime>,
    sessions: u64,
    buffer: Vec<u8>,
    /// When what is stale goes.
    sweep_at: Option<Instant>,
    /// What was adopted and not told again is to go.
    is_reconciling: bool,
    last_fault: Option<String>,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Whether zebra is connected.
    pub is_connected: bool,
    /// Sessions so far.
    pub sessions: u64,
    /// What is held.
    pub counts: Counts,
    /// What came.
    pub statistics: Statistics,
    /// When something last came.
    pub updated: Option<SystemTime>,
}

impl Listener {
    /// Listens where `settings` says; within the runtime.
    ///
    /// # Errors
    /// Where the address is taken or not ours.
    pub fn open(settings: Option<Settings>) -> io::Result<Self> {
        let socket = match settings {
            None => None,
            Some(settings) => {
                let socket = std::net::TcpListener::bind(settings.listen)?;
                socket.set_nonblocking(true)?;
                Some(TcpListener::from_std(socket)?)
            }
        };
        Ok(Self {
            settings,
            socket,
            session: None,
            model: Model::new(Limits::default()),
            projection: Projection::default(),
            statistics: Statistics::default(),
            updated: None,
            sessions: 0,
            buffer: vec![0; if settings.is_some() { READ_BYTES } else { 0 }],
            sweep_at: None,
            is_reconciling: false,
            last_fault: None,
        })
    }

    /// Another configuration of what is taken over, or another state of what it decides itself.
    pub fn set_rules(&mut self, rules: Rules) {
        self.projection.set_rules(rules, &mut self.model);
    }

    /// What a dataplane is to be asked for when it is met: where nobody has told anything yet, what an earlier
    /// control process was told.
    #[must_use]
    pub fn wanted_of_the_past(&self) -> &'static [Query] {
        if self.settings.is_some() && self.sessions == 0 {
            &[Query::Labels, Query::Routes]
        } else {
            &[]
        }
    }

    /// Takes over what the dataplane has of what FRR told an earlier control process; it goes with the stale
    /// timer where it is not told again.
    pub fn adopt(&mut self, held: &[Status], desired: &mut Desired) {
        if self.settings.is_some() && self.sessions == 0 {
            self.projection.adopt(held, desired);
            self.start_sweep_timer();
        }
    }

    /// Waits for zebra and takes one step; [`Self::flush`] tells what came of it. Safe to cancel.
    pub async fn step(&mut self) {
        let Some(socket) = &self.socket else {
            return std::future::pending().await;
        };
        let readable = async {
            match &self.session {
                Some(session) => session.stream.readable().await,
                None => std::future::pending().await,
            }
        };
        let until_sweep = async {
            match self.sweep_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => self.begin(stream, peer),
                Err(error) => {
                    warn!(%error, "the FPM listener cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            ready = readable => {
                if let Err(fault) = ready.and_then(|()| self.read()) {
                    self.end(&fault.to_string());
                }
            }
            () = until_sweep => self.sweep(),
        }
    }

    /// A router that connects anew has lost the session before, whether that is known here or not.
    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.session.is_some() {
            self.end("another session took its place");
        }
        info!(%peer, "zebra connected");
        self.sessions += 1;
        self.model.begin_session();
        self.session = Some(Session {
            stream,
            peer,
            receiver: Receiver::default(),
            since: Instant::now(),
        });
        self.start_sweep_timer();
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        for _ in 0..MAX_READS_A_TURN {
            let count = match session.stream.try_read(&mut self.buffer) {
                Ok(0) => return Err(io::Error::other("zebra closed the connection")),
                Ok(count) => {
                    self.updated = Some(SystemTime::now());
                    count
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            session
                .receiver
                .receive(
                    self.buffer.get(..count).unwrap_or_default(),
                    &mut self.model,
                    &mut self.statistics,
                )
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn end(&mut self, reason: &str) {
        if let Some(session) = self.session.take() {
            let counts = self.model.counts();
            warn!(
                peer = %session.peer,
                reason,
                routes = counts.routes,
                labels = counts.labels,
                "the FPM session ended; what it told stays for the stale timer"
            );
            self.last_fault = Some(reason.to_owned());
            self.start_sweep_timer();
        }
    }

    fn start_sweep_timer(&mut self) {
        self.sweep_at = self.settings.map(|settings| Instant::now() + settings.stale);
    }

    fn sweep(&mut self) {
        self.sweep_at = None;
        self.is_reconciling = true;
        let before = self.model.counts();
        if self.session.is_some() {
            self.model.sweep();
        } else {
            self.model.clear();
        }
        let after = self.model.counts();
        info!(
            routes = before.routes - after.routes,
            labels = before.labels - after.labels,
            "the FPM stale timer ran out; what no session confirmed is removed"
        );
    }

    /// Tells `desired` what changed.
    pub fn flush(&mut self, mirror: &Mirror, desired: &mut Desired) {
        if self.settings.is_some() {
            self.projection.flush(&mut self.model, mirror, desired);
            if self.is_reconciling && mirror.is_primed() {
                self.is_reconciling = false;
                self.projection.reconcile(&self.model, mirror, desired);
            }
        }
    }

    /// How it stands.
    #[must_use]
    pub fn overview(&self) -> Option<Overview> {
        self.settings.map(|_| Overview {
            is_connected: self.session.is_some(),
            sessions: self.sessions,
            counts: self.model.counts(),
            statistics: self.statistics,
            updated: self.updated,
        })
    }

    /// The record of `penstock show fpm`; `None` where it is not configured.
    #[must_use]
    pub fn record(&self) -> Option<Value> {
        let settings = self.settings?;
        let counts = self.model.counts();
        let now = Instant::now();
        Some(json!({
            "listen": settings.listen.to_string(),
            "state": if self.session.is_some() { "connected" } else { "listening" },
            "peer": self.session.as_ref().map(|session| session.peer.to_string()),
            "connected_seconds": self.session.as_ref().map(|session| now.duration_since(session.since).as_secs()),
            "sessions": self.sessions,
            "routes": counts.routes,
            "labels": counts.labels,
            "next_hops": counts.next_hops,
            "stale": counts.stale,
            "stale_seconds_left": self.sweep_at.map(|at| at.saturating_duration_since(now).as_secs()),
            "refused": counts.refused,
            "bytes": self.statistics.bytes,
            "frames": self.statistics.frames,
            "messages": self.statistics.messages,
            "ignored": self.statistics.ignored,
            "malformed": self.statistics.malformed + self.statistics.foreign_frames,
            "bad_labels": self.statistics.bad_labels,
            "last_fault": self.last_fault,
        }))
    }
}
