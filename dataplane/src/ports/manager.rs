//! [`PortManager`]: brings ports up and takes them down, in the main thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crossbeam_channel::{Receiver, Sender};
use ebpf::maps::Role;
use southbound::{PortId, PortSpec, PortStatus, XdpPreference};
use wire::MacAddr;

use super::offloads;
use super::port::{BoundQueue, Phase, Port, PortView};
use crate::{
    attach::{AttachError, PortProgram},
    link_watch::{Link, LinkEvent, LinkWatch},
    tables::PortSlot,
    worker::{Command, Report},
    xsk::{
        AttachMode, BindError, BindRequest, ClosedQueue, CopyPolicy, PortQueue, QueueId, RingSizes, Umem,
        Waker, ethtool,
    },
};

/// How long a device may still write to the frames of a zero-copy socket after it was closed: the kernel's work item needs
/// the RTNL lock, and the driver a reset. igb takes 1.6 s at most.
const SETTLE_MS: u64 = 3_000;

/// How often a device is asked how many queues it has; the question takes the RTNL lock.
const COUNT_INTERVAL_MS: u64 = 1_000;

/// The main thread's end of a worker.
pub struct WorkerEnd<'u> {
    /// The worker's packet memory.
    pub umem: &'u Umem,
    /// Where it takes commands from.
    pub commands: Sender<Command<'u>>,
    /// Ends its sleep.
    pub waker: Waker,
}

impl<'u> WorkerEnd<'u> {
    fn tell(&self, command: Command<'u>) {
        if self.commands.send(command).is_err() {
            tracing::error!("a worker is gone: its queues cannot be changed");
        }
        self.waker.wake();
    }
}

/// What all ports have in common.
#[derive(Clone, Copy, Debug)]
pub struct PortSettings {
    /// Sizes of the rings of each queue.
    pub rings: RingSizes,
    /// Frames each queue gives the kernel to receive into.
    pub fill_target: u32,
    /// Switch offloads off that are in the way, instead of only saying so.
    pub fix_offloads: bool,
}

impl Default for PortSettings {
    fn default() -> Self {
        Self {
            rings: RingSizes::default(),
            fill_target: RingSizes::default().fill,
            fix_offloads: true,
        }
    }
}

/// Every port of the dataplane.
///
/// Nothing here blocks for long or waits: calls come from the main thread's loop, which reads the [`LinkWatch`] and the
/// workers' reports, and calls [`PortManager::tick`] when [`PortManager::deadline_ms`] is reached. Times are
/// milliseconds of one monotonic clock of the caller's.
pub struct PortManager<'u> {
    workers: Vec<WorkerEnd<'u>>,
    reports: Receiver<Report<'u>>,
    settings: PortSettings,
    pub(super) ports: BTreeMap<u32, Port<'u>>,
    local: BTreeSet<IpAddr>,
    tunnel_ends: BTreeSet<IpAddr>,
    /// Closed queues whose frames the device may still write to: until when, whose, what.
    settling: Vec<(u64, usize, ClosedQueue<'u>)>,
    pub(super) changed: BTreeSet<u32>,
    /// When the devices' queues are counted again.
    next_count_ms: u64,
}

impl<'u> PortManager<'u> {
    /// A manager of no ports yet. Queue `i` of every port goes to worker `i` modulo their number.
    pub fn new(workers: Vec<WorkerEnd<'u>>, reports: Receiver<Report<'u>>, settings: PortSettings) -> Self {
        Self {
            workers,
            reports,
            settings,
            ports: BTreeMap::new(),
            local: BTreeSet::new(),
            tunnel_ends: BTreeSet::new(),
            settling: Vec::new(),
            changed: BTreeSet::new(),
            next_count_ms: 0,
        }
    }

    /// Wants a port, whose place in tables and counters is `slot` for as long as it is wanted. One that is there already stays as it is if nothing of it changed, and is bound anew otherwise.
    pub fn put(&mut self, spec: PortSpec, slot: PortSlot, links: &LinkWatch, now_ms: u64) {
        let id = spec.id.0;
        let link = links.find(&spec.interface).cloned();
        match self.ports.get_mut(&id) {
            Some(port) if port.spec == spec && port.slot == slot && !port.is_removed => {}
            Some(port) => {
                port.spec = spec;
                port.slot = slot;
                port.link = link;
                port.is_removed = false;
                self.drain(id);
            }
            None => {
                let mut port = Port::new(spec, slot);
                port.link = link;
                self.ports.insert(id, port);
            }
        }
        self.changed.insert(id);
        self.advance(id, now_ms);
    }

    /// Does not want a port any more. Its frames come home before it is forgotten.
    pub fn remove(&mut self, id: PortId, now_ms: u64) {
        let Some(port) = self.ports.get_mut(&id.0) else {
            return;
        };
        port.is_removed = true;
        self.changed.insert(id.0);
        self.drain(id.0);
        self.advance(id.0, now_ms);
    }

    /// The gateway's own addresses, which the programs of all ports must know.
    pub fn set_local(&mut self, addresses: BTreeSet<IpAddr>) {
        for program in self.ports.values_mut().filter_map(|port| port.program.as_mut()) {
            if let Err(error) = program.set_local(&addresses) {
                tracing::error!("{error}");
            }
        }
        self.local = addresses;
    }

    /// Our ends of GRE, IP and UDP tunnels, where the programs of all ports take such packets.
    pub fn set_tunnel_ends(&mut self, ends: BTreeSet<IpAddr>) {
        if self.tunnel_ends == ends {
            return;
        }
        for program in self.ports.values_mut().filter_map(|port| port.program.as_mut()) {
            if let Err(error) = program.set_tunnel_ends(&ends) {
                tracing::error!("{error}");
            }
        }
        self.tunnel_ends = ends;
    }

    /// An interface changed.
    pub fn link_event(&mut self, event: LinkEvent, now_ms: u64) {
        let (link, is_gone) = match event {
            LinkEvent::Changed(link) => (link, false),
            LinkEvent::Gone(link) => (link, true),
        };
        let ids: Vec<u32> = self.ports.keys().copied().collect();
        for id in ids {
            let Some(port) = self.ports.get_mut(&id) else {
                continue;
            };
            let was = port.link.as_ref();
            if !is_gone && port.spec.interface == link.name {
                if was == Some(&link) {
                    continue;
                }
                let is_moved = was.is_some_and(|was| was.mac != link.mac);
                let is_other =
                    was.is_none_or(|was| (was.mtu_bytes, was.is_up) != (link.mtu_bytes, link.is_up));
                if is_moved {
                    Self::steer(port, &link);
                }
                // What was refused may be right now. The carrier does not count: attaching the program takes it away on
                // some devices, and the next try would follow from the last.
                if is_other && let Phase::Refused { until_ms } = &mut port.phase {
                    *until_ms = now_ms;
                }
                port.link = Some(link.clone());
            } else if was.is_some_and(|was| was.index == link.index) {
                // Gone, or renamed, which to us is the same.
                port.link = None;
            } else {
                continue;
            }
            self.changed.insert(id);
            self.advance(id, now_ms);
        }
    }

    /// Tells the program the port's address and role, if it is up.
    fn steer(port: &mut Port<'u>, link: &Link) {
        let role = if matches!(port.phase, Phase::Up { .. }) {
            port.role()
        } else {
            Role::NONE
        };
        if let Some(program) = &mut port.program
            && let Err(error) = program.set_steering(role, MacAddr(link.mac))
        {
            tracing::error!("{error}");
        }
    }

    /// Takes the workers' reports.
    pub fn read_reports(&mut self, now_ms: u64) {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                Report::Filled(id) => self.filled(id),
                Report::Removed(queue) => self.returned(*queue, now_ms),
                Report::Broken(id) => {
                    tracing::warn!(
                        port = id.port,
                        queue = id.queue,
                        "queue lost: the port is bound anew"
                    );
                    self.drain(id.port);
                }
            }
        }
    }

    /// When [`PortManager::tick`] has something to do.
    pub fn deadline_ms(&self) -> Option<u64> {
        let ports = self.ports.values().filter_map(Port::deadline_ms);
        ports.chain(self.settling.iter().map(|&(at, ..)| at)).min()
    }

    /// Tries again what is due, and looks whether devices still have the queues they had: ethtool tells nobody when it
    /// changes them.
    pub fn tick(&mut self, now_ms: u64) {
        let mut index = 0;
        while let Some(&(at, worker, _)) = self.settling.get(index) {
            if at > now_ms {
                index += 1;
                continue;
            }
            let (_, _, closed) = self.settling.swap_remove(index);
            self.workers[worker].tell(Command::Reclaim(closed));
        }
        let counts = now_ms >= self.next_count_ms;
        if counts {
            self.next_count_ms = now_ms + COUNT_INTERVAL_MS;
        }
        let ids: Vec<u32> = self.ports.keys().copied().collect();
        for id in ids {
            let Some(port) = self.ports.get(&id) else { continue };
            if port.deadline_ms().is_some_and(|at| at <= now_ms) {
                self.advance(id, now_ms);
            } else if counts
                && let Phase::Up { bound, .. } = &port.phase
                && let Ok(Some(queues)) = ethtool::receive_queues(&port.spec.interface)
                && queues as usize != bound.len()
            {
                let (interface, was) = (&port.spec.interface, bound.len());
                tracing::warn!(
                    interface,
                    was,
                    now = queues,
                    "queues changed: the port is bound anew"
                );
                self.drain(id);
            }
        }
    }

    /// Ports of which something changed since the last call.
    pub fn take_changed(&mut self) -> Vec<PortId> {
        if !self.changed.is_empty() {
            self.follow_devices();
        }
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(PortId)
            .collect()
    }

    /// What others need to know of a port.
    pub fn view(&self, id: PortId) -> Option<PortView> {
        self.ports.get(&id.0).map(Port::view)
    }

    /// What a port's XDP program made of its frames: one row a queue (see [`PortProgram::verdicts`]).
    pub fn verdicts(&self, id: PortId) -> Option<Result<Vec<ebpf::maps::Counters>, AttachError>> {
        self.ports.get(&id.0)?.program.as_ref().map(PortProgram::verdicts)
    }

    /// Every port, as it is.
    pub fn statuses(&self) -> Vec<PortStatus> {
        self.ports.values().map(Port::status).collect()
    }

    /// Takes every port down, for the end of the process. Done when [`PortManager::is_idle`].
    pub fn shut_down(&mut self, now_ms: u64) {
        let ids: Vec<u32> = self.ports.keys().copied().collect();
        ids.into_iter().for_each(|id| self.remove(PortId(id), now_ms));
    }

    /// Whether no port is left and every frame is on its way home.
    pub fn is_idle(&self) -> bool {
        self.ports.is_empty() && self.settling.is_empty()
    }

    /// Takes the step that is due, if one is.
    fn advance(&mut self, id: u32, now_ms: u64) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        if let Some(bound) = port.bound_ifindex() {
            if port.link.as_ref().is_none_or(|link| link.index != bound) {
                self.drain(id);
            } else {
                // An MTU that is too large is said, not acted upon: what fits goes on.
                port.error = self
                    .workers
                    .first()
                    .and_then(|worker| port.mtu_problem(worker.umem));
            }
            return;
        }
        if matches!(port.phase, Phase::Draining { .. }) {
            return;
        }
        if port.is_removed {
            self.ports.remove(&id);
            return;
        }
        match &port.link {
            None => {
                port.program = None;
                port.error = None;
                port.phase = Phase::Absent;
            }
            // It has no queues: what becomes of it is told with the changes.
            Some(link) if link.vlan.is_some() => port.program = None,
            // A device that is down does not bind; the program stays where it is.
            Some(link) if !link.is_up => port.phase = Phase::LinkDown,
            Some(link) => {
                let link = link.clone();
                let is_due = port.deadline_ms().is_none_or(|at| at <= now_ms);
                if is_due {
                    self.bind(id, &link, now_ms);
                }
            }
        }
        self.changed.insert(id);
    }

    fn bind(&mut self, id: u32, link: &Link, now_ms: u64) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let queues = match ethtool::receive_queues(&link.name) {
            Ok(queues) => queues.unwrap_or(link.receive_queues),
            Err(errno) => return port.wait(format!("{}: {errno}", link.name), now_ms),
        };
        let attached = Self::attach(port, link, queues, (&self.local, &self.tunnel_ends));
        let mode = match attached {
            Ok(mode) => mode,
            Err(AttachError::Device { source, .. }) => return port.wait(source.to_string(), now_ms),
            Err(error) => return port.refuse(error.to_string(), now_ms),
        };
        port.hides_tags = offloads::check(&link.name, mode, self.settings.fix_offloads);
        if let Some(problem) = self
            .workers
            .first()
            .and_then(|worker| port.mtu_problem(worker.umem))
        {
            return port.refuse(problem, now_ms);
        }
        let policy = match (port.spec.require_zero_copy, mode) {
            (true, AttachMode::Driver) => CopyPolicy::RequireZeroCopy,
            (true, AttachMode::Generic) => {
                let error = "zero-copy is required, but the XDP program runs in generic mode only";
                return port.refuse(error.to_owned(), now_ms);
            }
            (false, AttachMode::Driver) => CopyPolicy::BestFirst,
            (false, AttachMode::Generic) => CopyPolicy::ForceCopy,
        };
        let mut bound = Vec::new();
        let mut made = Vec::new();
        for queue in 0..queues {
            let worker = queue as usize % self.workers.len().max(1);
            let Some(end) = self.workers.get(worker) else {
                break;
            };
            let request = BindRequest {
                id: QueueId { port: id, queue },
                ifindex: link.index,
                policy,
                rings: self.settings.rings,
                fill_target: self.settings.fill_target.min(end.umem.frame_count() / 4),
            };
            let result = PortQueue::bind(end.umem, &request).and_then(|queue| {
                let socket = queue.as_fd().try_clone_to_owned().map_err(|error| {
                    let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default());
                    BindError::Call(crate::xsk::CallError { call: "dup", errno })
                })?;
                Ok((queue, socket))
            });
            match result {
                Ok((queue, socket)) => {
                    bound.push(BoundQueue {
                        worker,
                        copy: queue.copy_mode(),
                        socket: Some(socket),
                    });
                    made.push(queue);
                }
                Err(error) => {
                    // What is bound already has no frames yet: closing is all.
                    drop(bound);
                    made.into_iter().for_each(|queue| drop(queue.close()));
                    return if error.is_passing() {
                        port.wait(error.to_string(), now_ms);
                    } else {
                        port.refuse(error.to_string(), now_ms);
                    };
                }
            }
        }
        let slot = port.slot;
        port.error = None;
        port.phase = Phase::Binding {
            ifindex: link.index,
            unfilled: bound.len(),
            bound,
        };
        for queue in made {
            let worker = queue.id().queue as usize % self.workers.len().max(1);
            self.workers[worker].tell(Command::Add(slot, Box::new(queue)));
        }
    }

    /// Attaches the port's program if it is not attached to this device already. It steers nothing yet.
    fn attach(
        port: &mut Port<'u>,
        link: &Link,
        queues: u32,
        (local, tunnel_ends): (&BTreeSet<IpAddr>, &BTreeSet<IpAddr>),
    ) -> Result<AttachMode, AttachError> {
        if let Some((index, mode)) = port.program.as_ref().and_then(PortProgram::attached)
            && index == link.index
        {
            return Ok(mode);
        }
        let mut program = PortProgram::load(&port.spec.interface, queues)?;
        program.set_tunnel_ends(tunnel_ends)?;
        program.set_local(local)?;
        program.set_steering(Role::NONE, MacAddr(link.mac))?;
        let mode = match port.spec.xdp {
            XdpPreference::Generic => {
                program.attach(link.index, AttachMode::Generic)?;
                AttachMode::Generic
            }
            XdpPreference::Driver => {
                program.attach(link.index, AttachMode::Driver)?;
                AttachMode::Driver
            }
            XdpPreference::Auto => match program.attach(link.index, AttachMode::Driver) {
                Ok(()) => AttachMode::Driver,
                Err(AttachError::Mode { source, .. }) => {
                    tracing::warn!(interface = link.name, %source, "no XDP in the driver: generic mode is used");
                    program.attach(link.index, AttachMode::Generic)?;
                    AttachMode::Generic
                }
                Err(error) => return Err(error),
            },
        };
        port.program = Some(program);
        Ok(mode)
    }

    /// A worker has filled a queue; with the last one the port goes up.
    fn filled(&mut self, id: QueueId) {
        let Some(port) = self.ports.get_mut(&id.port) else {
            return;
        };
        let Phase::Binding {
            ifindex,
            bound,
            unfilled,
        } = &mut port.phase
        else {
            return;
        };
        *unfilled = unfilled.saturating_sub(1);
        if *unfilled != 0 {
            return;
        }
        let (ifindex, mut bound) = (*ifindex, std::mem::take(bound));
        let mut failure = None;
        for (queue, bound) in bound.iter_mut().enumerate() {
            if let (Some(program), Some(socket)) = (&mut port.program, bound.socket.take()) {
                use std::os::fd::AsFd;
                if let Err(error) = program.set_socket(queue as u32, socket.as_fd()) {
                    failure = Some(error.to_string());
                }
            }
        }
        let zero_copy = bound
            .iter()
            .filter(|queue| queue.copy == crate::xsk::CopyMode::ZeroCopy)
            .count();
        let (interface, queues) = (port.spec.interface.clone(), bound.len());
        let attach = port.attach_mode();
        port.phase = Phase::Up { ifindex, bound };
        if let Some(link) = port.link.clone() {
            Self::steer(port, &link);
        }
        tracing::info!(interface, queues, zero_copy, ?attach, "port is up");
        port.error.clone_from(&failure);
        self.changed.insert(id.port);
        if failure.is_some() {
            // The device went while its sockets were being put in the map; start over.
            self.drain(id.port);
        }
    }

    /// Asks the workers for the port's queues back.
    fn drain(&mut self, id: u32) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let (Phase::Binding { bound, .. } | Phase::Up { bound, .. }) = &mut port.phase else {
            return;
        };
        let bound = std::mem::take(bound);
        port.phase = Phase::Draining {
            outstanding: bound.len(),
            returned: Vec::new(),
        };
        port.rebinds += u64::from(!port.is_removed);
        self.changed.insert(id);
        for (queue, bound) in bound.iter().enumerate() {
            self.workers[bound.worker].tell(Command::Remove(QueueId {
                port: id,
                queue: queue as u32,
            }));
        }
    }

    /// A worker gave a queue back; with the last one the program is detached and the sockets are closed, in that order:
    /// closing a zero-copy socket under traffic has hung NICs.
    fn returned(&mut self, queue: PortQueue<'u>, now_ms: u64) {
        let id = queue.id();
        let worker = id.queue as usize % self.workers.len().max(1);
        let Some(port) = self.ports.get_mut(&id.port) else {
            return;
        };
        let Phase::Draining {
            outstanding,
            returned,
        } = &mut port.phase
        else {
            return;
        };
        returned.push((worker, queue));
        if returned.len() < *outstanding {
            return;
        }
        let returned = std::mem::take(returned);
        port.program = None;
        port.phase = Phase::Absent;
        for (worker, queue) in returned {
            let closed = queue.close();
            if closed.settles_slowly() {
                self.settling.push((now_ms + SETTLE_MS, worker, closed));
            } else {
                self.workers[worker].tell(Command::Reclaim(closed));
            }
        }
        self.changed.insert(id.port);
        self.advance(id.port, now_ms);
    }
}
