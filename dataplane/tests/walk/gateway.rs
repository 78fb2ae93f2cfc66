//! A gateway in this process: one worker, its ports on rings in memory, its tables written by updates.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use crossbeam_queue::ArrayQueue;
use dataplane::bell::Bell;
use dataplane::config::Idle;
use dataplane::counters::WorkerCounters;
use dataplane::handoff::Handoff;
use dataplane::sa::PathReport;
use dataplane::tables::{Limits, PortLink, Tables, Writer};
use dataplane::tap::Tap;
use dataplane::trace::Tracer;
use dataplane::worker::{Command, Parts, Report, Worker};
use dataplane::xsk::memory::{self, MemoryKernel};
use dataplane::xsk::{QueueId, RingSizes};
use southbound::{
    DropReason, Event, LabelSpaceId, LocalAddress, Neighbour, NeighbourState, NextHop, PortId, PortRole,
    PortSpec, RouteSpec, Update, VrfId, WorkerCounter, XdpPreference,
};

use super::packets::{ethernet, inside};
use super::specs;

/// The protected port.
pub const LAN: u32 = 1;
/// The internet port.
pub const WAN: u32 = 2;

/// The Ethernet address of a gateway's port.
pub fn port_mac(port: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, port as u8]
}

/// The Ethernet address of whoever is behind a port.
pub fn neighbour_mac(port: u32) -> [u8; 6] {
    [2, 0, 0, 0, 2, port as u8]
}

pub const START_NS: u64 = 1_000_000_000_000;

pub struct Gateway {
    pub worker: Worker<'static>,
    pub writer: Writer,
    pub events: Arc<ArrayQueue<Event>>,
    pub paths: Arc<ArrayQueue<PathReport>>,
    /// The host's end of the TAP.
    pub host: UnixDatagram,
    pub handoff: Arc<Handoff>,
    pub tracer: Arc<Tracer>,
    pub now_ns: u64,
    kernels: BTreeMap<u32, MemoryKernel<'static>>,
    pub commands: Sender<Command<'static>>,
    pub reports: Receiver<Report<'static>>,
}

impl Gateway {
    /// A gateway with a protected and an internet port and no addresses, routes or tunnels.
    pub fn bare() -> Self {
        let umem = specs::umem(1024);
        let (host, tap) = UnixDatagram::pair().unwrap();
        for socket in [&host, &tap] {
            socket.set_nonblocking(true).unwrap();
        }
        let writer = Writer::new(Arc::new(Tables::new(Limits {
            sas: 1 << 12,
            tunnels: 1 << 12,
            routes: 1 << 12,
            ..Limits::default()
        })));
        let (commands, commanded) = unbounded();
        let (reporting, reports) = unbounded();
        let events = Arc::new(ArrayQueue::new(64));
        let paths = Arc::new(ArrayQueue::new(8));
        let handoff = Arc::new(Handoff::new(2));
        let tracer: Arc<Tracer> = Arc::default();
        let parts = Parts {
            reader: writer.tables().reader_of(0),
            counters: WorkerCounters::detached(),
            events: Arc::clone(&events),
            paths: Arc::clone(&paths),
            commands: commanded,
            reports: reporting,
            bell: Bell::new().unwrap(),
            tap: Some(Arc::new(Tap::over(OwnedFd::from(tap)))),
            tracer: Arc::clone(&tracer),
            reads_tap: true,
            idle: Idle::Spin,
            busy_poll: None,
            number: 0,
            handoff: Arc::clone(&handoff),
        };
        let (worker, _waker) = Worker::new(umem.pool().unwrap(), parts).unwrap();
        let mut gateway = Self {
            worker,
            writer,
            events,
            paths,
            host,
            handoff,
            tracer,
            now_ns: START_NS,
            kernels: BTreeMap::new(),
            commands,
            reports,
        };
        for (port, role) in [(LAN, PortRole::Protected), (WAN, PortRole::Internet)] {
            gateway.add_port(port, role);
        }
        gateway
    }

    fn add_port(&mut self, port: u32, role: PortRole) {
        self.add_port_in(port, role, VrfId::MAIN, None);
    }

    /// Puts a port's specification; a new port has no queue yet.
    pub fn put_port(&mut self, port: u32, role: PortRole, vrf: VrfId, mpls: Option<LabelSpaceId>) {
        self.apply(Update::PutPort(PortSpec {
            id: PortId(port),
            interface: format!("test{port}"),
            role,
            vrf,
            xdp: XdpPreference::Auto,
            require_zero_copy: false,
            mpls,
        }));
    }

    /// A port of a table, with a space of labels or none.
    pub fn add_port_in(&mut self, port: u32, role: PortRole, vrf: VrfId, mpls: Option<LabelSpaceId>) {
        self.put_port(port, role, vrf, mpls);
        let slot = self.writer.port_slot(PortId(port)).unwrap();
        let link = PortLink {
            mtu_bytes: 1500,
            mac: port_mac(port),
            up: true,
            vlan: None,
        };
        self.writer.set_port_link(slot, link);
        let sizes = RingSizes {
            fill: 256,
            receive: 128,
            transmit: 128,
            completion: 128,
        };
        let id = QueueId { port, queue: 0 };
        let (queue, kernel) = memory::pair(self.worker.pool().umem(), id, &sizes).unwrap();
        self.kernels.insert(port, kernel);
        self.commands.send(Command::Add(slot, Box::new(queue))).unwrap();
        self.turn();
    }

    /// One more queue of a port for the same worker; what is behind it is the caller's.
    pub fn add_queue(&mut self, port: u32, queue: u32) -> MemoryKernel<'static> {
        let slot = self.writer.port_slot(PortId(port)).unwrap();
        let sizes = RingSizes {
            fill: 128,
            receive: 64,
            transmit: 64,
            completion: 64,
        };
        let id = QueueId { port, queue };
        let (queue, kernel) = memory::pair(self.worker.pool().umem(), id, &sizes).unwrap();
        self.commands.send(Command::Add(slot, Box::new(queue))).unwrap();
        self.turn();
        kernel
    }

    pub fn set_mtu(&mut self, port: u32, mtu_bytes: u16) {
        let slot = self.writer.port_slot(PortId(port)).unwrap();
        self.writer.set_port_link(
            slot,
            PortLink {
                mtu_bytes,
                mac: port_mac(port),
                up: true,
                vlan: None,
            },
        );
    }

    /// Gateway 1 or 2 of the walks: 10.N.0.0/16 and fdNN::/16 on the LAN, its outer addresses on the WAN, the other
    /// gateway as neighbour there and as the way to everything else.
    pub fn numbered(number: u8) -> Self {
        let mut gateway = Self::bare();
        let other = 3 - number;
        let me = usize::from(number) - 1;
        for is_ipv6 in [false, true] {
            let (mine, peer) = (specs::outer(is_ipv6)[me], specs::outer(is_ipv6)[1 - me]);
            gateway.local(WAN, mine);
            gateway.neighbour(WAN, peer, Some(neighbour_mac(WAN)));
            gateway.route(
                &format!("{peer}/{}", if is_ipv6 { 64 } else { 24 }),
                NextHop::Port {
                    port: PortId(WAN),
                    gateway: None,
                },
            );
            let default = if is_ipv6 { "::/0" } else { "0.0.0.0/0" };
            gateway.route(
                default,
                NextHop::Port {
                    port: PortId(WAN),
                    gateway: Some(peer.parse().unwrap()),
                },
            );
            let inside = |host: &str| {
                if is_ipv6 {
                    format!("fd{number:02}::{host}")
                } else {
                    format!("10.{number}.0.{host}")
                }
            };
            gateway.local(LAN, &inside("1"));
            gateway.neighbour(LAN, &inside("5"), Some(neighbour_mac(LAN)));
            gateway.route(
                &format!("{}/16", inside("0")),
                NextHop::Port {
                    port: PortId(LAN),
                    gateway: None,
                },
            );
        }
        let _ = other;
        gateway
    }

    pub fn apply(&mut self, update: Update) {
        let text = format!("{update:?}");
        if let Err(rejection) = self.writer.apply(1, update) {
            panic!("{rejection}: {text}");
        }
        self.writer.settle();
    }

    pub fn local(&mut self, port: u32, address: &str) {
        self.apply(Update::PutLocalAddress(LocalAddress {
            vrf: VrfId::MAIN,
            address: address.parse().unwrap(),
            port: Some(PortId(port)),
        }));
    }

    pub fn neighbour(&mut self, port: u32, address: &str, mac: Option<[u8; 6]>) {
        self.apply(Update::PutNeighbour(Neighbour {
            port: PortId(port),
            address: address.parse().unwrap(),
            state: mac.map_or(NeighbourState::Failed, NeighbourState::Resolved),
        }));
    }

    pub fn route_in(&mut self, vrf: VrfId, prefix: &str, next_hops: Vec<NextHop>) {
        self.apply(Update::PutRoute(RouteSpec {
            vrf,
            prefix: prefix.parse().unwrap(),
            next_hops,
            weights: Vec::new(),
        }));
    }

    pub fn local_in(&mut self, vrf: VrfId, port: u32, address: &str) {
        self.apply(Update::PutLocalAddress(LocalAddress {
            vrf,
            address: address.parse().unwrap(),
            port: Some(PortId(port)),
        }));
    }

    pub fn route(&mut self, prefix: &str, next_hop: NextHop) {
        self.apply(Update::PutRoute(RouteSpec {
            vrf: VrfId::MAIN,
            prefix: prefix.parse().unwrap(),
            next_hops: vec![next_hop],
            weights: Vec::new(),
        }));
    }

    /// A packet arrives at a port; nothing walks yet.
    pub fn deliver(&mut self, port: u32, packet: &[u8]) {
        self.deliver_frame(port, &ethernet(port_mac(port), packet));
    }

    pub fn deliver_frame(&mut self, port: u32, frame: &[u8]) {
        self.kernels.get_mut(&port).unwrap().deliver(frame).unwrap();
    }

    pub fn kernel(&mut self, port: u32) -> &mut MemoryKernel<'static> {
        self.kernels.get_mut(&port).unwrap()
    }

    /// One turn of the worker, a microsecond later, after which the books must be right.
    pub fn turn(&mut self) {
        self.now_ns += 1_000;
        self.worker.turn(self.now_ns);
        self.check();
    }

    pub fn check(&self) {
        if let Err(wrong) = self.worker.check_books() {
            panic!("{wrong}");
        }
    }

    pub fn pass_seconds(&mut self, seconds: u64) {
        self.now_ns += seconds * 1_000_000_000;
    }

    /// What left by a port, Ethernet header included.
    pub fn collect_frames(&mut self, port: u32) -> Vec<Vec<u8>> {
        self.kernels.get_mut(&port).unwrap().collect()
    }

    /// The IP packets that left by a port.
    pub fn collect(&mut self, port: u32) -> Vec<Vec<u8>> {
        self.collect_frames(port)
            .iter()
            .map(|frame| inside(frame).to_vec())
            .collect()
    }

    /// Delivers one packet, walks, and gives what left by the other port.
    pub fn pass(&mut self, from: u32, packet: &[u8]) -> Vec<Vec<u8>> {
        self.deliver(from, packet);
        self.turn();
        let to = if from == LAN { WAN } else { LAN };
        self.collect(to)
    }

    /// What the host got.
    pub fn host_got(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.host.recv(&mut buffer) {
            packets.push(buffer[..length].to_vec());
        }
        packets
    }

    /// The host sends a packet, and the worker looks at once.
    pub fn host_sends(&mut self, packet: &[u8]) {
        self.host.send(packet).unwrap();
        self.now_ns += 1_000_000;
        self.turn();
    }

    pub fn count(&self, counter: WorkerCounter) -> u64 {
        self.worker.counters().get(counter)
    }

    /// Every drop so far, by reason.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.worker.counters().dropped(*reason)))
            .filter(|(_, count)| *count != 0)
            .collect()
    }

    /// The one reason of the one drop since `before`.
    pub fn dropped_since(&self, before: &[(DropReason, u64)]) -> Vec<DropReason> {
        let earlier: BTreeMap<_, _> = before.iter().copied().collect();
        self.drops()
            .into_iter()
            .flat_map(|(reason, count)| {
                let fresh = count - earlier.get(&reason).copied().unwrap_or(0);
                std::iter::repeat_n(reason, fresh as usize)
            })
            .collect()
    }

    /// What the worker raised, and what the writer made of its path reports.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events: Vec<_> = std::iter::from_fn(|| self.events.pop()).collect();
        while let Some(report) = self.paths.pop() {
            events.extend(self.writer.hear(&report, self.now_ns / 1_000_000_000));
        }
        events
    }
}
