//! The main thread: makes everything, in the order that keeps frames and keys safe, serves the control process, and
//! takes everything down again.
//!
//! ```text
//!  ciphers tested - signals blocked - TAP, packet memory, socket - privileges given up - workers running -
//!  system calls restricted -- loop -- ports drained - workers stopped - memory unmapped
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded, unbounded};
use esp_aead::SelfTestError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use service::ServiceManager;
use southbound::WorkerStatus;
use thiserror::Error;

use crate::bell::Bell;
use crate::config::{Config, ConfigError};
use crate::counters::CounterSegment;
use crate::handle::{Handle, WorkerVoice};
use crate::handoff::Handoff;
use crate::link_watch::LinkWatch;
use crate::ports::{PortManager, PortSettings, WorkerEnd};
use crate::privileges::{self, PrivilegeError};
use crate::seccomp::{self, Mode, SeccompError};
use crate::server::{Server, Welcome};
use crate::tables::{Limits, Tables, Writer};
use crate::tap::Tap;
use crate::worker::{Command, Heartbeat, Parts, Worker, now_ns};
use crate::xsk::{Pages, Umem, UmemConfig, UmemError};

/// How long the main thread sleeps at most: what wakes it comes by descriptors, and what is due by the port manager's
/// deadline; retired objects are freed at least this often.
const LONGEST_SLEEP_MS: u64 = 200;
/// How often the end of the ports is looked at.
const DRAIN_INTERVAL_MS: u64 = 10;
/// How long ports may take to come down at the end: the slowest NIC settles in two seconds.
const DRAIN_LIMIT_MS: u64 = 8_000;

/// Why the dataplane does not run.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Packet memory.
    #[error("packet memory of worker {worker}: {source}")]
    Memory {
        /// The worker.
        worker: usize,
        /// Why.
        source: UmemError,
    },
    /// The pool of a UMEM is taken once.
    #[error("packet memory of worker {0} is in use")]
    MemoryTaken(usize),
    /// The TAP.
    #[error("the TAP device {name}: {source} (without a TAP: --no-tap)")]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The socket.
    #[error("the socket {path}: {source}")]
    Socket {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The ciphers.
    #[error("{0}: no packet is protected by it")]
    Cipher(#[from] SelfTestError),
    /// System calls.
    #[error("{0}")]
    Seccomp(#[from] SeccompError),
    /// Privileges.
    #[error("{0}")]
    Privileges(#[from] PrivilegeError),
    /// Anything else of the kernel's.
    #[error("{action}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

fn kernel<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> StartError {
    move |source| StartError::Kernel {
        action,
        source: source.into(),
    }
}

/// Runs the dataplane until SIGTERM or SIGINT.
///
/// # Errors
/// See [`StartError`]; nothing is left behind.
pub fn run(config: &Config, user: Option<&str>) -> Result<(), StartError> {
    config.validate()?;
    let engine = esp_aead::start()?;
    tracing::info!(engine = engine.name(), "the ciphers give their known answers");
    let service = ServiceManager::from_environment().map_err(kernel("reach the service manager"))?;
    let signals = block_signals().map_err(kernel("take signals"))?;
    privileges::hide_memory()?;
    let tap = open_tap(config)?;
    let umems = (0..config.workers())
        .map(|worker| map(config, worker))
        .collect::<Result<Vec<_>, _>>()?;
    let segment = CounterSegment::new(umems.len()).map_err(kernel("share the counters"))?;
    let mut server = listen(config, &segment, umems.len())?;
    let links = LinkWatch::open().map_err(kernel("watch links"))?;
    privileges::give_up(user)?;

    let tables = Arc::new(Tables::new(Limits::default()));
    let (reports, reported) = unbounded();
    let bell = Bell::new().map_err(kernel("make the bell of the workers"))?;
    let handoff = Arc::new(Handoff::new(umems.len()));
    thread::scope(|scope| {
        let mut ends = Vec::new();
        let mut voices = Vec::new();
        let mut heartbeats = Vec::new();
        let mut stops = Stops(Vec::new());
        for (number, umem) in umems.iter().enumerate() {
            let (commands, obeyed) = unbounded();
            let (ready, has_started) = bounded(1);
            let voice = WorkerVoice::default();
            voices.push(voice.clone());
            let pool = umem.pool().ok_or(StartError::MemoryTaken(number))?;
            let (tables, reports, tap) = (Arc::clone(&tables), Sender::clone(&reports), tap.clone());
            let (handoff, bell) = (Arc::clone(&handoff), bell.clone());
            let counters = segment.worker(number);
            let core = config.cores.get(number).copied();
            let (idle, busy_poll) = (config.idle, config.busy_poll);
            let body = move || {
                pin(core);
                // Made here: an epoch is its thread's own.
                let reader = tables.reader_of(number as u16);
                let parts = Parts {
                    reader,
                    counters,
                    events: voice.events,
                    paths: voice.paths,
                    tracer: voice.tracer,
                    commands: obeyed,
                    reports,
                    bell,
                    tap,
                    reads_tap: number == 0,
                    idle,
                    busy_poll,
                    number,
                    handoff,
                };
                let made = Worker::new(pool, parts).map(|(mut worker, waker)| {
                    let _ = ready.send(Ok((waker, worker.heartbeat())));
                    worker.run();
                });
                if let Err(error) = made {
                    let _ = ready.send(Err(error));
                }
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn_scoped(scope, body)
                .map_err(kernel("start a worker"))?;
            let (waker, heartbeat) = has_started
                .recv()
                .map_err(|_| io::ErrorKind::BrokenPipe.into())
                .flatten()
                .map_err(kernel("start a worker"))?;
            stops.0.push(Sender::clone(&commands));
            heartbeats.push(heartbeat);
            ends.push(WorkerEnd {
                umem,
                commands,
                waker,
            });
        }
        let ports = PortManager::new(ends, reported, PortSettings::default());
        let handle = Handle::new(
            Writer::new(Arc::clone(&tables)),
            ports,
            links,
            worker_statuses(config, &umems),
            voices,
        );
        restrict(config.seccomp)?;
        let watchdog = Watchdog::new(service, heartbeats);
        serve(handle, &mut server, &signals, &bell, watchdog)
    })
}

/// Stops the workers when the main thread is through with them, for whatever reason.
struct Stops<'u>(Vec<Sender<Command<'u>>>);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        for stop in &self.0 {
            // A worker that is gone needs no command to stop.
            let _ = stop.send(Command::Stop);
        }
    }
}

/// The loop, until a signal; then the ports come down.
fn serve(
    mut handle: Handle<'_>,
    server: &mut Server,
    signals: &SignalFd,
    bell: &Bell,
    mut watchdog: Watchdog,
) -> Result<(), StartError> {
    tracing::info!("ready");
    watchdog.service.ready();
    loop {
        bell.hear();
        let now_ms = now_ns() / 1_000_000;
        handle.turn(now_ms);
        watchdog.look(now_ms);
        server.serve(&mut handle);
        handle.settle();
        let mut waited: Vec<PollFd<'_>> = server.interests().collect();
        waited.push(PollFd::new(handle.links().as_fd(), PollFlags::POLLIN));
        waited.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        waited.push(PollFd::new(bell.as_fd(), PollFlags::POLLIN));
        // What came up while updates were applied is told at once.
        let sleep_ms = if server.is_connected() && handle.has_events() {
            0
        } else {
            let due_ms = handle.deadline_ms().unwrap_or(u64::MAX);
            due_ms.saturating_sub(now_ms).min(LONGEST_SLEEP_MS)
        };
        // At most `LONGEST_SLEEP_MS`.
        match poll(&mut waited, PollTimeout::from(sleep_ms as u16)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(kernel("wait")(error)),
        }
        if let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo == Signal::SIGHUP as u32 {
                // What can be changed comes over the socket: there is no file to read again.
                watchdog.service.reloading();
                watchdog.service.ready();
                continue;
            }
            watchdog.service.stopping();
            tracing::info!(signal = signal.ssi_signo, "ending: ports are drained");
            break;
        }
    }
    let started_ms = now_ns() / 1_000_000;
    handle.shut_down(started_ms);
    loop {
        let now_ms = now_ns() / 1_000_000;
        handle.turn(now_ms);
        if handle.is_idle() {
            return Ok(());
        }
        if now_ms >= started_ms + DRAIN_LIMIT_MS {
            tracing::warn!("ports did not drain in time");
            return Ok(());
        }
        thread::sleep(std::time::Duration::from_millis(DRAIN_INTERVAL_MS));
    }
}

/// Tells the service manager that the dataplane lives, while every worker makes turns.
struct Watchdog {
    service: ServiceManager,
    workers: Vec<(Arc<Heartbeat>, u64)>,
    next_ms: u64,
}

impl Watchdog {
    fn new(service: ServiceManager, workers: Vec<Arc<Heartbeat>>) -> Self {
        Self {
            service,
            workers: workers.into_iter().map(|worker| (worker, 0)).collect(),
            next_ms: 0,
        }
    }

    fn look(&mut self, now_ms: u64) {
        let Some(interval) = self.service.alive_interval() else {
            return;
        };
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + interval.as_millis() as u64;
        let mut are_alive = true;
        for (number, (worker, seen)) in self.workers.iter_mut().enumerate() {
            let turns = worker.turns();
            // It wakes of itself ten times a second.
            if turns == *seen {
                are_alive = false;
                tracing::error!(worker = number, turns, "the worker stands still");
            }
            *seen = turns;
        }
        if are_alive {
            self.service.alive();
        }
    }
}

/// Leaves every thread only the system calls that it needs.
fn restrict(mode: Mode) -> Result<(), SeccompError> {
    if mode == Mode::Off {
        tracing::warn!("system calls are not restricted");
    }
    seccomp::install(mode)
}

/// Blocks the signals that the main thread answers, for this thread and those that it will start.
fn block_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn open_tap(config: &Config) -> Result<Option<Arc<Tap>>, StartError> {
    let Some(name) = &config.tap_name else {
        return Ok(None);
    };
    match Tap::open(name) {
        Ok(tap) => Ok(Some(Arc::new(tap))),
        Err(source) => Err(StartError::Tap {
            name: name.clone(),
            source,
        }),
    }
}

fn map(config: &Config, worker: usize) -> Result<Umem, StartError> {
    Umem::new(&UmemConfig {
        frame_count: config.frames_per_worker,
        hugepages: config.hugepages,
        ..UmemConfig::default()
    })
    .map_err(|source| StartError::Memory { worker, source })
}

fn listen(config: &Config, segment: &CounterSegment, workers: usize) -> Result<Server, StartError> {
    let mut instance = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut instance))
        .map_err(kernel("read randomness"))?;
    let welcome = Welcome {
        instance: u64::from_ne_bytes(instance),
        // At most `MAX_WORKERS`.
        workers: workers as u16,
        counters: segment
            .memfd()
            .try_clone_to_owned()
            .map_err(kernel("share the counters"))?,
    };
    Server::bind(&config.socket, welcome).map_err(|source| StartError::Socket {
        path: config.socket.display().to_string(),
        source,
    })
}

fn pin(core: Option<usize>) {
    let Some(id) = core else { return };
    if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
        tracing::warn!(
            core = id,
            "the worker is not pinned: the kernel refuses this core"
        );
    }
}

fn worker_statuses(config: &Config, umems: &[Umem]) -> Vec<WorkerStatus> {
    (0u16..)
        .zip(umems)
        .map(|(worker, umem)| WorkerStatus {
            worker,
            cpu: config
                .cores
                .get(usize::from(worker))
                .map_or(u16::MAX, |core| *core as u16),
            frames: umem.frame_count(),
            huge_pages: umem.pages() == Pages::Huge,
        })
        .collect()
}
