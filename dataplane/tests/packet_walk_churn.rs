//! A worker under load, encrypted both ways, while SAs, routes and rules come, change and go 10,000 times a second for ten
//! seconds: no packet is lost, none is damaged, every one is accounted for.
//!
//! ```text
//!  LAN in: 10.1.0.5 -> 10.2.0.5  --tunnel 1--> WAN out --(outer addresses swapped)--> WAN in --tunnel 2, table 9--> LAN out
//! ```
//!
//! The worker has a thread of its own, as the dataplane gives it; the writer is this one. Both SAs of the way are replaced
//! all the time, make before break: the old inbound SA goes once the worker has been round twice since, as a drain time
//! would see to.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use crossbeam_queue::ArrayQueue;
use dataplane::bell::Bell;
use dataplane::config::Idle;
use dataplane::counters::WorkerCounters;
use dataplane::handoff::Handoff;
use dataplane::tables::{Limits, PortLink, PortSlot, Tables, Writer};
use dataplane::worker::{Command, Parts, Worker};
use dataplane::xsk::memory::{self, MemoryKernel};
use dataplane::xsk::{QueueId, RingSizes};
use southbound::{
    DropReason, Encryption, Endpoint, KeyMaterial, LocalAddress, Mode, Neighbour, NeighbourState, NextHop,
    PolicyAction, PolicyDefault, PolicyId, PolicySpec, PortId, PortRole, PortSpec, ProtocolMatch, RouteSpec,
    SaDirection, SaRef, SaSpec, SelectorPair, Transform, TunnelId, TunnelSpec, Update, VrfId, WorkerCounter,
    XdpPreference,
};
use walk::gateway::{LAN, START_NS, WAN, neighbour_mac, port_mac};
use walk::packets::{Ip, ethernet, inside};
use walk::specs;

const UPDATES: u64 = 100_000;
/// Updates of a message, and the time from one to the next: 10,000 a second.
const MESSAGE: u64 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// Packets under way at once.
const BURST: u64 = 48;

const FORTH: TunnelId = TunnelId(1);
const BACK: TunnelId = TunnelId(2);
const INNER: VrfId = VrfId(9);

fn forth(serial: u64) -> SaSpec {
    let transform = Transform::new(Encryption::AesGcm128, None).unwrap();
    SaSpec {
        spi: 0x1_0000 + serial as u32,
        key: KeyMaterial::new([&serial.to_be_bytes()[..], &[7; 12]].concat()),
        ..specs::sa(transform, Mode::Tunnel, false, false, true)
    }
}

/// The same SA as the other end of the way has it, which is this gateway too.
fn back(serial: u64) -> SaSpec {
    SaSpec {
        direction: SaDirection::Inbound,
        tunnel: BACK,
        replay_window: Some(southbound::ReplayWindow::DEFAULT),
        selectors: vec![SelectorPair {
            local: Endpoint::any_port("10.2.0.0/16".parse().unwrap()),
            remote: Endpoint::any_port("10.1.0.0/16".parse().unwrap()),
            protocol: ProtocolMatch::Any,
        }],
        ..forth(serial)
    }
}

fn tunnel(id: TunnelId, inner_vrf: VrfId) -> TunnelSpec {
    TunnelSpec {
        id,
        name: format!("tunnel{}", id.0),
        inner_vrf,
        ..specs::tunnel(Mode::Tunnel, false)
    }
}

fn route(vrf: VrfId, prefix: &str, next_hop: NextHop) -> Update {
    Update::PutRoute(RouteSpec {
        vrf,
        prefix: prefix.parse().unwrap(),
        next_hops: vec![next_hop],
        weights: Vec::new(),
    })
}

fn policy(id: u32, remote: String, action: PolicyAction) -> Update {
    Update::PutPolicy(PolicySpec {
        id: PolicyId(id),
        vrf: VrfId::MAIN,
        priority: id,
        selector: SelectorPair {
            local: Endpoint::any_port("10.1.0.0/16".parse().unwrap()),
            remote: Endpoint::any_port(remote.parse().unwrap()),
            protocol: ProtocolMatch::Any,
        },
        action,
    })
}

/// What stays: ports, addresses, neighbours, the tunnels and the routes of the way.
fn lasting() -> Vec<Update> {
    let port = |id: u32, role| {
        Update::PutPort(PortSpec {
            id: PortId(id),
            interface: format!("test{id}"),
            role,
            vrf: VrfId::MAIN,
            xdp: XdpPreference::Auto,
            require_zero_copy: false,
            mpls: None,
        })
    };
    let local = |id: u32, address: &str| {
        Update::PutLocalAddress(LocalAddress {
            vrf: VrfId::MAIN,
            address: address.parse().unwrap(),
            port: Some(PortId(id)),
        })
    };
    let neighbour = |id: u32, address: &str| {
        Update::PutNeighbour(Neighbour {
            port: PortId(id),
            address: address.parse().unwrap(),
            state: NeighbourState::Resolved(neighbour_mac(id)),
        })
    };
    let by = |id: u32, gateway: &str| NextHop::Port {
        port: PortId(id),
        gateway: Some(gateway.parse().unwrap()),
    };
    let mut updates = vec![
        port(LAN, PortRole::Protected),
        port(WAN, PortRole::Internet),
        local(LAN, "10.1.0.1"),
        local(WAN, "192.0.2.1"),
        neighbour(LAN, "10.1.0.5"),
        neighbour(WAN, "192.0.2.2"),
        route(VrfId::MAIN, "192.0.2.0/24", by(WAN, "192.0.2.2")),
        route(INNER, "10.2.0.0/16", by(LAN, "10.1.0.5")),
        Update::PutTunnel(tunnel(FORTH, VrfId::MAIN)),
        Update::PutTunnel(tunnel(BACK, INNER)),
        route(VrfId::MAIN, "10.2.0.0/16", NextHop::Tunnel(FORTH)),
        Update::PutPolicyDefault {
            vrf: VrfId::MAIN,
            default: PolicyDefault::Bypass,
        },
    ];
    updates.extend((3..8).map(|id| Update::PutTunnel(tunnel(TunnelId(id), VrfId::MAIN))));
    updates
}

/// The changes beside the rekeys, one after the other: of the way itself, always to what leads the same way, and of all
/// that is around it.
fn change(step: u64) -> Update {
    let number = (step / 12 % 200) as u32;
    let other = TunnelId(3 + number % 5);
    let aside = SaSpec {
        tunnel: other,
        spi: 0x100 + number,
        key: KeyMaterial::new([&step.to_be_bytes()[..], &[9; 12]].concat()),
        ..forth(0)
    };
    match step % 12 {
        // A longer prefix over the way, and none.
        0 => route(VrfId::MAIN, "10.2.0.0/24", NextHop::Tunnel(FORTH)),
        1 => policy(1, "10.2.0.0/16".to_owned(), PolicyAction::Protect(FORTH)),
        2 => Update::RemoveRoute {
            vrf: VrfId::MAIN,
            prefix: "10.2.0.0/24".parse().unwrap(),
        },
        3 => route(VrfId::MAIN, "10.2.0.0/16", NextHop::Tunnel(FORTH)),
        4 => Update::RemovePolicy(PolicyId(1)),
        // Around it.
        5 => route(
            VrfId::MAIN,
            &format!("10.{}.0.0/16", 3 + number),
            NextHop::Tunnel(other),
        ),
        6 => route(
            VrfId::MAIN,
            &format!("10.{}.0.0/16", 3 + number),
            NextHop::Blackhole,
        ),
        7 => Update::RemoveRoute {
            vrf: VrfId::MAIN,
            prefix: format!("10.{}.0.0/16", 3 + (number + 100) % 200).parse().unwrap(),
        },
        8 => Update::InstallSa(aside),
        9 => policy(
            2 + number,
            format!("10.{}.0.0/16", 3 + number),
            PolicyAction::Discard,
        ),
        10 => Update::RemovePolicy(PolicyId(2 + (number + 100) % 200)),
        _ => Update::RemoveSa(aside.reference()),
    }
}

/// What both threads look at.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    rounds: AtomicU64,
}

struct Carried {
    packets: u64,
    drops: Vec<(DropReason, u64)>,
}

/// The worker with its two ports, driven until it is told to stop.
fn carry(tables: &Arc<Tables>, slots: [PortSlot; 2], shared: &Shared) -> Carried {
    let umem = specs::umem(1024);
    let (commands, commanded) = unbounded();
    let (reporting, _reports) = unbounded();
    let parts = Parts {
        reader: tables.reader(),
        counters: WorkerCounters::detached(),
        events: Arc::new(ArrayQueue::new(64)),
        paths: Arc::new(ArrayQueue::new(8)),
        commands: commanded,
        reports: reporting,
        bell: Bell::new().unwrap(),
        tap: None,
        tracer: std::sync::Arc::default(),
        reads_tap: false,
        idle: Idle::Spin,
        busy_poll: None,
        number: 0,
        handoff: Arc::new(Handoff::new(1)),
    };
    let (mut worker, _waker) = Worker::new(umem.pool().unwrap(), parts).unwrap();
    let sizes = RingSizes {
        fill: 256,
        receive: 128,
        transmit: 128,
        completion: 128,
    };
    let mut kernels: Vec<MemoryKernel<'static>> = [LAN, WAN]
        .into_iter()
        .zip(slots)
        .map(|(port, slot)| {
            let id = QueueId { port, queue: 0 };
            let (queue, kernel) = memory::pair(worker.pool().umem(), id, &sizes).unwrap();
            commands.send(Command::Add(slot, Box::new(queue))).unwrap();
            kernel
        })
        .collect();
    let (mut now_ns, mut packets) = (START_NS, 0u64);
    let mut turn = |worker: &mut Worker<'static>| {
        now_ns += 1_000;
        worker.turn(now_ns);
        if let Err(wrong) = worker.check_books() {
            panic!("{wrong}");
        }
    };
    turn(&mut worker);
    while !shared.stop.load(Ordering::Acquire) {
        let sent: Vec<Vec<u8>> = (0..BURST)
            .map(|index| {
                let mut packet = Ip::udp("10.1.0.5", "10.2.0.5", 120);
                packet.payload[8..16].copy_from_slice(&(packets + index).to_be_bytes());
                // No checksum: the number was put in afterwards.
                packet.payload[6..8].fill(0);
                packet.bytes()
            })
            .collect();
        for packet in &sent {
            kernels[0].deliver(&ethernet(port_mac(LAN), packet)).unwrap();
        }
        turn(&mut worker);
        let outer = kernels[1].collect();
        assert_eq!(outer.len(), sent.len(), "sealed; {:?}", drops(&worker));
        for frame in &outer {
            let mut packet = inside(frame).to_vec();
            assert_eq!((packet[9], packet.len()), (50, 20 + 8 + 8 + 124 + 16));
            // The ICV does not cover the outer header, and its checksum does not mind the order.
            let (source, destination) = packet[12..20].split_at_mut(4);
            source.swap_with_slice(destination);
            kernels[1].deliver(&ethernet(port_mac(WAN), &packet)).unwrap();
        }
        turn(&mut worker);
        let arrived = kernels[0].collect();
        assert_eq!(arrived.len(), sent.len(), "opened; {:?}", drops(&worker));
        for (frame, packet) in arrived.iter().zip(&sent) {
            assert_eq!(inside(frame)[20..], packet[20..], "as it was, and in order");
        }
        packets += BURST;
        shared.rounds.fetch_add(1, Ordering::Release);
    }
    let count = |counter| worker.counters().get(counter);
    assert_eq!(count(WorkerCounter::EspOutPackets), packets);
    assert_eq!(count(WorkerCounter::EspInPackets), packets);
    assert_eq!(count(WorkerCounter::Received), 2 * packets);
    assert_eq!(count(WorkerCounter::Transmitted), 2 * packets);
    Carried {
        packets,
        drops: drops(&worker),
    }
}

fn drops(worker: &Worker<'_>) -> Vec<(DropReason, u64)> {
    DropReason::ALL
        .iter()
        .map(|reason| (*reason, worker.counters().dropped(*reason)))
        .filter(|(_, count)| *count != 0)
        .collect()
}

struct Churn {
    writer: Writer,
    applied: u64,
    serial: u64,
    /// Replaced SAs, and the round that the worker was in then.
    old: Vec<(u64, [SaRef; 2])>,
}

impl Churn {
    fn apply(&mut self, update: Update) {
        let text = format!("{update:?}");
        if let Err(rejection) = self.writer.apply(1, update) {
            panic!("{rejection}: {text}");
        }
        self.applied += 1;
    }

    /// The next pair of SAs: received before it is sent by; the pair before goes later.
    fn rekey(&mut self, shared: &Shared) {
        let before = [forth(self.serial).reference(), back(self.serial).reference()];
        self.serial += 1;
        self.apply(Update::InstallSa(back(self.serial)));
        self.apply(Update::InstallSa(forth(self.serial)));
        self.apply(Update::SelectOutbound {
            tunnel: FORTH,
            sa: forth(self.serial).reference(),
        });
        self.old.push((shared.rounds.load(Ordering::Acquire), before));
    }

    fn drop_old(&mut self, shared: &Shared) {
        let round = shared.rounds.load(Ordering::Acquire);
        while let Some((then, sas)) = self.old.first().copied() {
            if round < then + 2 {
                break;
            }
            self.old.remove(0);
            sas.into_iter().for_each(|sa| self.apply(Update::RemoveSa(sa)));
        }
    }
}

#[test]
fn a_worker_under_load_loses_nothing_through_a_hundred_thousand_updates() {
    let writer = Writer::new(Arc::new(Tables::new(Limits {
        sas: 1 << 12,
        tunnels: 1 << 12,
        routes: 1 << 12,
        ..Limits::default()
    })));
    let tables = Arc::clone(writer.tables());
    let mut churn = Churn {
        writer,
        applied: 0,
        serial: 0,
        old: Vec::new(),
    };
    lasting().into_iter().for_each(|update| churn.apply(update));
    let slots = [LAN, WAN].map(|port| {
        let slot = churn.writer.port_slot(PortId(port)).unwrap();
        let link = PortLink {
            mtu_bytes: 1500,
            mac: port_mac(port),
            up: true,
            vlan: None,
        };
        churn.writer.set_port_link(slot, link);
        slot
    });
    let shared = Shared::default();
    churn.rekey(&shared);
    churn.writer.settle();
    churn.old.clear();
    churn.applied = 0;
    let memory_before = churn.writer.memory();
    let carried = thread::scope(|scope| {
        let worker = scope.spawn(|| carry(&tables, slots, &shared));
        let (mut step, mut next) = (0, Instant::now());
        while churn.applied < UPDATES && !worker.is_finished() {
            churn.rekey(&shared);
            churn.drop_old(&shared);
            for _ in 0..MESSAGE - 5 {
                churn.apply(change(step));
                step += 1;
            }
            churn.writer.settle();
            next += PAUSE;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        shared.stop.store(true, Ordering::Release);
        worker.join().unwrap()
    });
    let rounds = shared.rounds.load(Ordering::Acquire);
    eprintln!(
        "{} packets each way in {rounds} rounds, {} updates, {} rekeys",
        carried.packets, churn.applied, churn.serial
    );
    assert!(churn.applied >= UPDATES);
    assert_eq!(carried.drops, []);
    assert!(rounds > churn.serial, "the worker went on between the rekeys");
    // What was replaced was given back.
    churn.drop_old(&Shared::default());
    let memory = churn.writer.memory();
    assert!(
        memory.outbound_bytes <= 2 * memory_before.outbound_bytes + (1 << 20),
        "{memory_before:?} {memory:?}"
    );
}
