//! The mirror: two sockets, the tables, and the order in which they are brought in step.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use southbound::{IpPrefix, PortId, VrfId};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::neighbour;
use super::projection::{InterfaceRole, Scope};
use super::socket::{Datagram, Frame, MIRROR_GROUPS, NLM_F_REPLACE, NLMSG_DONE, NLMSG_ERROR, Socket, frames};
use super::tables::{Change, RouteKey, Tables};
use crate::plane::Desired;

/// What the event socket may hold while a dump runs.
const EVENT_BUFFER_BYTES: usize = 32 * 1024 * 1024;
const REQUEST_BUFFER_BYTES: usize = 4 * 1024 * 1024;

const NLM_F_CREATE: u16 = 0x400;

fn host_prefixes(scope: &Scope) -> BTreeSet<IpPrefix> {
    scope.host_routes.iter().map(|route| route.prefix).collect()
}

/// How long doubts about routes gather before they are asked for, and the least pause between dumps.
const ROUTE_DOUBT_PAUSE: Duration = Duration::from_millis(50);
const DUMP_PAUSE: Duration = Duration::from_millis(100);
const DUMP_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Neighbours that the kernel is asked to keep resolved; beyond, it is asked each time.
const MAX_MANAGED: usize = 4096;

/// Most requests without an answer yet.
const MAX_PENDING: usize = 8192;

/// Pause between two looks over all host routes, so that thousands are not looked over at the answer to each.
const HOST_ROUTE_PAUSE: Duration = Duration::from_millis(100);

/// What the mirror went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Times the kernel could not queue an event.
    pub overruns: u64,
    /// Complete dumps that replaced the tables.
    pub resyncs: u64,
    /// Dumps of routes only.
    pub route_resyncs: u64,
    /// Messages that could not be read.
    pub undecodable: u64,
    /// How long the last dump took.
    pub last_resync_ms: u64,
    /// Dumps by how long they took, in the classes of [`RESYNC_BOUNDS_MS`] and one without a bound.
    pub resync_durations: [u64; RESYNC_BOUNDS_MS.len() + 1],
    /// How long all of them took together.
    pub resync_sum_ms: u64,
}

/// Upper bounds of the classes of dumps.
pub const RESYNC_BOUNDS_MS: [u64; 9] = [1, 5, 20, 100, 500, 2_000, 5_000, 20_000, 60_000];

impl Statistics {
    fn took(&mut self, duration_ms: u64) {
        let class = RESYNC_BOUNDS_MS.partition_point(|bound| *bound < duration_ms);
        self.resync_durations[class] += 1;
        self.resync_sum_ms = self.resync_sum_ms.saturating_add(duration_ms);
        self.last_resync_ms = duration_ms;
    }
}

/// A dump under way.
#[derive(Debug)]
struct Dump {
    tables: Tables,
    /// What is still to ask for, last first.
    stages: Vec<Stage>,
    sequence: u32,
    is_interrupted: bool,
    is_routes_only: bool,
    started: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Links,
    Addresses,
    Neighbours(AddressFamily),
    Routes(AddressFamily),
}

/// What is to be asked for, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    is_routes_only: bool,
}

/// What of the tables the dataplane was not told.
#[derive(Debug, Default)]
struct Untold {
    all: bool,
    addresses: bool,
    neighbours: BTreeSet<(u32, IpAddr)>,
    routes: BTreeSet<RouteKey>,
    host_routes: bool,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Neighbour(IpAddr),
    HostRoute,
}

/// The kernel's tables, kept in step.
#[derive(Debug)]
pub struct Mirror {
    events: Socket,
    requests: Socket,
    tables: Tables,
    scope: Scope,
    /// The prefixes of `scope.host_routes`.
    host_prefixes: BTreeSet<IpPrefix>,
    dump: Option<Dump>,
    due: Option<Due>,
    is_primed: bool,
    untold: Untold,
    /// Grows whenever interfaces may mean something else.
    meaning: u64,
    managed: BTreeSet<(u32, IpAddr)>,
    pending: BTreeMap<u32, Request>,
    host_routes_corrected: Option<Instant>,
    statistics: Statistics,
}

impl Mirror {
    /// Opens the sockets in the current network namespace; the first dump is due at once.
    ///
    /// # Errors
    /// Where the kernel grants no sockets.
    pub fn open(scope: Scope) -> io::Result<Self> {
        Self::with_buffer(scope, EVENT_BUFFER_BYTES)
    }

    /// The same with a receive buffer of `event_buffer_bytes` for events: a small one overruns early.
    ///
    /// # Errors
    /// Where the kernel grants no sockets.
    pub fn with_buffer(scope: Scope, event_buffer_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            // Events first, so that none is missed between the dump and the first of them.
            events: Socket::open(MIRROR_GROUPS, event_buffer_bytes)?,
            requests: Socket::open(0, REQUEST_BUFFER_BYTES)?,
            tables: Tables::default(),
            host_prefixes: host_prefixes(&scope),
            scope,
            dump: None,
            due: Some(Due {
                at: Instant::now(),
                is_routes_only: false,
            }),
            is_primed: false,
            untold: Untold::default(),
            meaning: 0,
            managed: BTreeSet::new(),
            pending: BTreeMap::new(),
            host_routes_corrected: None,
            statistics: Statistics::default(),
        })
    }

    /// What it went through.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Grows whenever interfaces may mean something else than before.
    #[must_use]
    pub fn meaning(&self) -> u64 {
        self.meaning
    }

    /// What an interface is to the dataplane.
    #[must_use]
    pub fn interface_role(&self, index: u32) -> InterfaceRole {
        self.scope.interface_role(&self.tables, index)
    }

    /// The VRF of a kernel table, where it is one.
    #[must_use]
    pub fn vrf(&self, table: u32) -> Option<VrfId> {
        self.scope.vrf(&self.tables, table)
    }

    /// Whether the configuration decides a route.
    #[must_use]
    pub fn is_configured(&self, vrf: VrfId, prefix: IpPrefix) -> bool {
        self.scope.configured.contains(&(vrf, prefix))
    }

    /// Wants the kernel's route of a prefix that another source gave back, where there is one.
    pub fn restore(&self, desired: &mut Desired, vrf: VrfId, prefix: IpPrefix) {
        self.scope.project_prefix(&self.tables, desired, vrf, prefix);
    }

    /// Whether the kernel's tables were read whole at least once.
    #[must_use]
    pub fn is_primed(&self) -> bool {
        self.is_primed
    }

    /// Another configuration.
    pub fn set_scope(&mut self, scope: Scope) {
        self.host_prefixes = host_prefixes(&scope);
        self.scope = scope;
        self.untold.all = true;
        self.untold.host_routes = true;
    }

    /// Waits for the kernel and takes one step; [`Self::flush`] tells what came of it. Safe to cancel.
    ///
    /// # Errors
    /// Where a socket fails for good.
    pub async fn step(&mut self) -> io::Result<()> {
        if let Some(due) = self.due
            && self.dump.is_none()
            && due.at <= Instant::now()
        {
            self.start_dump(due.is_routes_only)?;
        }
        if self.dump.is_some() {
            // Events wait in their socket until the dump is whole, and then follow it.
            let datagram = self.requests.receive().await?;
            let finished = match datagram {
                Datagram::Messages(bytes) => dumped(bytes, &mut self.dump, &mut self.statistics),
                Datagram::Overrun => Some(false),
                Datagram::Stranger => None,
            };
            match finished {
                Some(true) => self.next_stage()?,
                Some(false) => self.retry_dump(DUMP_RETRY_PAUSE),
                None => {}
            }
            return Ok(());
        }
        let deadline = self.due.map(|due| due.at);
        let until_due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let Self {
            events,
            requests,
            tables,
            untold,
            statistics,
            pending,
            due,
            scope,
            host_prefixes,
            ..
        } = self;
        tokio::select! {
            datagram = events.receive() => match datagram? {
                Datagram::Messages(bytes) => {
                    for frame in frames(bytes) {
                        apply(&frame, tables, scope, host_prefixes, untold, statistics, due);
                    }
                }
                Datagram::Overrun => {
                    statistics.overruns += 1;
                    schedule(due, DUMP_PAUSE, false);
                    info!(overruns = statistics.overruns, "the kernel dropped netlink events: reading its tables anew");
                }
                Datagram::Stranger => {}
            },
            datagram = requests.receive() => {
                if let Datagram::Messages(bytes) = datagram? {
                    for frame in frames(bytes).filter(|frame| frame.kind == NLMSG_ERROR) {
                        answered(&frame, pending);
                    }
                }
            }
            () = until_due => {}
        }
        Ok(())
    }

    /// Tells `desired` what changed, and corrects our own routes in the kernel.
    pub fn flush(&mut self, desired: &mut Desired) {
        if !self.is_primed {
            return;
        }
        let untold = std::mem::take(&mut self.untold);
        if untold.all {
            self.meaning += 1;
            let links = &self.tables.links;
            self.managed.retain(|(index, _)| links.contains_key(index));
            self.scope.project_all(&self.tables, desired);
        } else {
            if untold.addresses {
                self.scope.project_addresses(&self.tables, desired);
            }
            for key in untold.neighbours {
                self.scope.project_neighbour(&self.tables, desired, key);
            }
            for key in untold.routes {
                self.scope.project_route(&self.tables, desired, key);
            }
        }
        if untold.host_routes || untold.all || untold.addresses {
            if self
                .host_routes_corrected
                .is_some_and(|at| at.elapsed() < HOST_ROUTE_PAUSE)
            {
                self.untold.host_routes = true;
            } else {
                self.host_routes_corrected = Some(Instant::now());
                self.correct_host_routes();
            }
        }
    }

    /// Asks the kernel for the link-layer address of a neighbour.
    pub fn resolve(&mut self, port: PortId, address: IpAddr) {
        let Some(index) = self.scope.interface(&self.tables, port) else {
            return;
        };
        let managed = self.managed.contains(&(index, address)) || self.managed.len() < MAX_MANAGED;
        if managed {
            self.managed.insert((index, address));
        }
        self.request(
            neighbour::resolve(index, address, managed),
            NLM_F_CREATE,
            Request::Neighbour(address),
        );
    }

    fn correct_host_routes(&mut self) {
        let (stale, missing) = self.scope.host_route_changes(&self.tables);
        for route in stale {
            debug!(prefix = %route.prefix, table = route.table, "removing a stale route of ours");
            self.request(route.removal(), 0, Request::HostRoute);
        }
        for route in missing {
            debug!(prefix = %route.prefix, table = route.table, "adding the host's route into a tunnel");
            self.request(route.addition(), NLM_F_CREATE | NLM_F_REPLACE, Request::HostRoute);
        }
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16, request: Request) {
        if self.pending.len() >= MAX_PENDING {
            self.pending.clear();
        }
        match self.requests.request(message, flags) {
            Ok(sequence) => {
                self.pending.insert(sequence, request);
            }
            Err(error) => warn!(%error, "a netlink request could not be sent"),
        }
    }

    fn start_dump(&mut self, is_routes_only: bool) -> io::Result<()> {
        self.due = None;
        let routes = [
            Stage::Routes(AddressFamily::Inet6),
            Stage::Routes(AddressFamily::Inet),
        ];
        let rest = [
            Stage::Neighbours(AddressFamily::Inet6),
            Stage::Neighbours(AddressFamily::Inet),
            Stage::Addresses,
            Stage::Links,
        ];
        let mut stages = routes.to_vec();
        if !is_routes_only {
            stages.extend(rest);
        }
        self.dump = Some(Dump {
            tables: Tables::default(),
            stages,
            sequence: 0,
            is_interrupted: false,
            is_routes_only,
            started: Instant::now(),
        });
        self.next_stage()
    }

    fn next_stage(&mut self) -> io::Result<()> {
        let Some(dump) = &mut self.dump else {
            return Ok(());
        };
        if let Some(stage) = dump.stages.pop() {
            dump.sequence = self.requests.dump(question(stage))?;
            return Ok(());
        }
        if dump.is_interrupted {
            // The tables changed while they were read: what was read may have holes.
            self.retry_dump(DUMP_PAUSE);
            return Ok(());
        }
        let Some(dump) = self.dump.take() else {
            return Ok(());
        };
        if dump.is_routes_only {
            self.tables.routes = dump.tables.routes;
            self.statistics.route_resyncs += 1;
        } else {
            self.tables = dump.tables;
            self.statistics.resyncs += 1;
        }
        let duration_ms = u64::try_from(dump.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.statistics.took(duration_ms);
        self.is_primed = true;
        self.untold.all = true;
        self.untold.host_routes = true;
        Ok(())
    }

    fn retry_dump(&mut self, pause: Duration) {
        let is_routes_only = self.dump.take().is_some_and(|dump| dump.is_routes_only);
        schedule(&mut self.due, pause, is_routes_only);
    }
}

/// How long doubts about routes gather: with a large table longer, so that a storm of them is not one long
/// dump.
fn doubt_pause(statistics: &Statistics) -> Duration {
    ROUTE_DOUBT_PAUSE.max(Duration::from_millis(statistics.last_resync_ms.saturating_mul(2)))
}

/// Brings the next dump forward, or widens it.
fn schedule(due: &mut Option<Due>, pause: Duration, is_routes_only: bool) {
    let at = Instant::now() + pause;
    *due = Some(match *due {
        Some(before) => Due {
            at: before.at.min(at),
            is_routes_only: before.is_routes_only && is_routes_only,
        },
        None => Due { at, is_routes_only },
    });
}

/// Takes a datagram of a dump: `Some(true)` where its stage ended well, `Some(false)` where it failed.
fn dumped(bytes: &[u8], dump: &mut Option<Dump>, statistics: &mut Statistics) -> Option<bool> {
    let dump = dump.as_mut()?;
    for frame in frames(bytes).filter(|frame| frame.sequence == dump.sequence) {
        dump.is_interrupted |= frame.is_interrupted();
        match frame.kind {
            NLMSG_DONE if frame.error_code() == 0 => return Some(true),
            NLMSG_DONE | NLMSG_ERROR => {
                warn!(error = %io::Error::from_raw_os_error(frame.error_code()), "the kernel broke off a dump");
                return Some(false);
            }
            _ => {
                if dump.tables.apply(&frame) == Change::Undecodable {
                    statistics.undecodable += 1;
                }
            }
        }
    }
    None
}

/// Takes an event.
fn apply(
    frame: &Frame<'_>,
    tables: &mut Tables,
    scope: &Scope,
    host_prefixes: &BTreeSet<IpPrefix>,
    untold: &mut Untold,
    statistics: &mut Statistics,
    due: &mut Option<Due>,
) {
    match tables.apply(frame) {
        Change::None => {}
        Change::Undecodable => statistics.undecodable += 1,
        Change::Meaning => {
            untold.all = true;
            untold.host_routes = true;
            schedule(due, doubt_pause(statistics), true);
        }
        Change::SilentRoutes => {
            untold.host_routes = true;
            schedule(due, doubt_pause(statistics), true);
        }
        Change::Addresses(is_gone) => {
            untold.addresses = true;
            if is_gone {
                schedule(due, doubt_pause(statistics), true);
            }
        }
        Change::Neighbour(index, address) => {
            if scope.port(tables, index).is_some() {
                untold.neighbours.insert((index, address));
            }
        }
        Change::Route(key, is_doubtful) => {
            untold.routes.insert(key);
            untold.host_routes |= host_prefixes.contains(&key.1);
            if is_doubtful {
                schedule(due, doubt_pause(statistics), true);
            }
        }
    }
}

/// Takes the answer to a request.
fn answered(frame: &Frame<'_>, pending: &mut BTreeMap<u32, Request>) {
    let Some(request) = pending.remove(&frame.sequence) else {
        return;
    };
    let code = frame.error_code();
    let error = io::Error::from_raw_os_error(code);
    match request {
        _ if code == 0 => {}
        // Gone already, or with its interface.
        Request::HostRoute if code == Errno::ESRCH as i32 || code == Errno::ENODEV as i32 => {}
        Request::HostRoute => warn!(%error, "the kernel refused a route of the host into a tunnel"),
        Request::Neighbour(address) => debug!(%error, %address, "the kernel refused to resolve a neighbour"),
    }
}

fn question(stage: Stage) -> RouteNetlinkMessage {
    match stage {
        Stage::Links => RouteNetlinkMessage::GetLink(LinkMessage::default()),
        Stage::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        Stage::Neighbours(family) => {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            RouteNetlinkMessage::GetNeighbour(message)
        }
        Stage::Routes(family) => {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            RouteNetlinkMessage::GetRoute(message)
        }
    }
}
