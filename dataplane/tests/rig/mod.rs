//! A gateway that only forwards: the port manager in a namespace, and workers that send what comes in by one port out by
//! the other.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod tap;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use dataplane::{
    link_watch::LinkWatch,
    ports::{PortManager, PortSettings, WorkerEnd},
    tables::PortSlot,
    worker::{Command, Report},
    xsk::{FramePool, PortQueue, Remedy, RingSizes, Sleeper, Umem, UmemConfig, Watch},
};
use netns::Namespace;
use southbound::{PortId, PortPhase, PortRole, PortSpec, PortStatus, VrfId, XdpPreference};
use tap::Tap;

/// The ports' MAC addresses, by number.
pub const MACS: [[u8; 6]; 3] = [[0; 6], [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Frames of each worker.
pub const FRAMES: u32 = 4096;

pub fn spec(port: u32) -> PortSpec {
    PortSpec {
        id: PortId(port),
        interface: format!("g{port}"),
        role: PortRole::Protected,
        vrf: VrfId::MAIN,
        xdp: XdpPreference::Auto,
        require_zero_copy: false,
        mpls: None,
    }
}

/// A namespace with no packets but the test's own.
fn quiet(stem: &str) -> Namespace {
    let namespace = Namespace::new(stem).unwrap();
    namespace
        .sysctl("net.ipv6.conf.default.disable_ipv6", "1")
        .unwrap();
    namespace
}

/// Runs a command line in a namespace.
pub fn run(namespace: &Namespace, line: &str) {
    namespace.run(line).unwrap();
}

/// The place of a port.
pub fn slot(port: u32) -> PortSlot {
    PortSlot::new(port as usize).unwrap()
}

/// A gateway namespace with `g1` and `g2`, and a namespace of hosts with their other ends `h1` and `h2`.
pub struct Links {
    pub gateway: Namespace,
    pub hosts: Namespace,
    pub queues: u32,
}

impl Links {
    pub fn new(stem: &str, queues: u32) -> Self {
        let links = Self {
            gateway: quiet(&format!("xsk-{stem}-g")),
            hosts: quiet(&format!("xsk-{stem}-h")),
            queues,
        };
        links.make(1);
        links.make(2);
        links
    }

    /// Those that another process made, and deletes.
    pub fn of(gateway: &str, hosts: &str, queues: u32) -> Self {
        Self {
            gateway: Namespace::of(gateway),
            hosts: Namespace::of(hosts),
            queues,
        }
    }

    /// Makes the pair of a port, up at both ends.
    pub fn make(&self, port: usize) {
        let (queues, hosts) = (self.queues, self.hosts.name());
        run(
            &self.gateway,
            &format!(
                "ip link add g{port} numrxqueues {queues} numtxqueues {queues} type veth \
                 peer name h{port} numrxqueues {queues} numtxqueues {queues} netns {hosts}"
            ),
        );
        let mac = MACS[port].map(|byte| format!("{byte:02x}")).join(":");
        run(&self.gateway, &format!("ip link set g{port} address {mac}"));
        if queues > 1 {
            // Made with so many, it still uses one.
            run(
                &self.gateway,
                &format!("ethtool -L g{port} rx {queues} tx {queues}"),
            );
            run(
                &self.hosts,
                &format!("ethtool -L h{port} rx {queues} tx {queues}"),
            );
        }
        run(&self.gateway, &format!("ip link set g{port} up"));
        run(&self.hosts, &format!("ip link set h{port} up"));
    }

    pub fn tap(&self, port: u32) -> Tap {
        Tap::open(&self.hosts, &format!("h{port}"))
    }
}

/// A UDP packet in transit through the gateway, to the address of a port. The flow chooses the queue.
pub fn frame(to_port: usize, flow: u16, number: u32) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    frame.extend(MACS[to_port]);
    frame.extend([2, 0, 0, 0, 9, 9]);
    frame.extend([0x08, 0x00]);
    frame.extend([
        0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1,
    ]);
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend((1024 + flow).to_be_bytes());
    frame.extend([0x12, 0x34, 0, 26, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.extend([0x5a; 14]);
    frame
}

/// The number in a frame made by [`frame`], if it is one.
pub fn number(frame: &[u8]) -> Option<u32> {
    (frame.len() == 60 && frame.ends_with(&[0x5a; 14]))
        .then(|| u32::from_be_bytes(frame[42..46].try_into().unwrap()))
}

/// What the workers did.
#[derive(Default)]
pub struct Work {
    stop: AtomicBool,
    pub forwarded: AtomicU64,
    pub dropped: AtomicU64,
    /// Bits of the queues that packets came in by.
    pub queues_seen: AtomicU64,
    /// Workers that had all their frames at the end.
    homes: AtomicU64,
}

/// The main thread of the gateway.
pub struct Gateway<'u, 'l> {
    pub manager: PortManager<'u>,
    pub watch: LinkWatch,
    pub links: &'l Links,
    pub work: &'l Work,
    start: Instant,
}

impl Gateway<'_, '_> {
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// One turn of the main loop.
    pub fn turn(&mut self) {
        let now = self.now_ms();
        let manager = &mut self.manager;
        self.watch.read(|event| manager.link_event(event, now)).unwrap();
        manager.read_reports(now);
        manager.tick(now);
        std::thread::sleep(Duration::from_millis(2));
    }

    /// Runs until the condition holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: {:#?}",
                self.manager.statuses()
            );
            self.turn();
        }
    }

    pub fn put(&mut self, port: u32) {
        let now = self.now_ms();
        self.manager.put(spec(port), slot(port), &self.watch, now);
    }

    pub fn remove(&mut self, port: u32) {
        let now = self.now_ms();
        self.manager.remove(PortId(port), now);
    }

    pub fn status(&self, port: u32) -> Option<PortStatus> {
        self.manager
            .statuses()
            .into_iter()
            .find(|status| status.port.0 == port)
    }

    pub fn is_up(&self, port: u32) -> bool {
        self.status(port)
            .is_some_and(|status| status.phase == PortPhase::Up)
    }

    pub fn both_up(&mut self) {
        self.until("both ports are up", |gateway| {
            gateway.is_up(1) && gateway.is_up(2)
        });
    }

    /// Sends frames in by one port until one comes out by the other: traffic flows. Which number it was is given.
    pub fn flows(&mut self, from: usize, taps: &[&Tap; 3], first_number: u32) {
        let mut count = first_number;
        taps[3 - from].seen();
        self.until("a packet comes through", |_| {
            count += 1;
            taps[from].send(&frame(from, count as u16 % 64, count));
            std::thread::sleep(Duration::from_millis(2));
            taps[3 - from]
                .seen()
                .iter()
                .filter_map(|frame| number(frame))
                .any(|number| number > first_number)
        });
    }
}

/// Runs a gateway over `links` with so many workers; `body` is the main thread, inside the namespace. At the end every
/// port is taken down, and every frame must be in its pool again.
pub fn with_gateway(links: &Links, workers: usize, body: impl FnOnce(&mut Gateway<'_, '_>) + Send) {
    let umems: Vec<Umem> = (0..workers)
        .map(|_| {
            Umem::new(&UmemConfig {
                frame_count: FRAMES,
                ..UmemConfig::default()
            })
            .unwrap()
        })
        .collect();
    let work = Work::default();
    let (replies, from_workers) = crossbeam_channel::unbounded();
    std::thread::scope(|scope| {
        let mut ends = Vec::new();
        for umem in &umems {
            let (commands, at_worker) = crossbeam_channel::unbounded::<Command<'_>>();
            let (sleeper, waker) = Sleeper::new(false, 16).unwrap();
            let reports = replies.clone();
            ends.push(WorkerEnd {
                umem,
                commands,
                waker,
            });
            let work = &work;
            let forwarder = Forwarder {
                queues: Vec::new(),
                pool: umem.pool().unwrap(),
                closing: 0,
                commands: at_worker,
                reports,
                work,
            };
            scope.spawn(move || forwarder.run(sleeper));
        }
        let work = &work;
        scope
            .spawn(move || {
                links.gateway.enter().unwrap();
                let _stop = StopOnDrop(work);
                let mut gateway = main_thread(ends, from_workers, links, work);
                body(&mut gateway);
                let now = gateway.now_ms();
                gateway.manager.shut_down(now);
                gateway.until("everything is closed", |gateway| gateway.manager.is_idle());
            })
            .join()
            .map_err(|panic| std::panic::resume_unwind(panic))
            .unwrap();
    });
    assert_eq!(work.homes.load(Ordering::Relaxed), workers as u64);
}

/// Ends the workers also when the test fails, for the scope waits for them.
struct StopOnDrop<'w>(&'w Work);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

pub fn main_thread<'u, 'l>(
    ends: Vec<WorkerEnd<'u>>,
    replies: crossbeam_channel::Receiver<Report<'u>>,
    links: &'l Links,
    work: &'l Work,
) -> Gateway<'u, 'l> {
    let settings = PortSettings {
        rings: RingSizes {
            fill: 512,
            receive: 256,
            transmit: 256,
            completion: 256,
        },
        fill_target: 512,
        fix_offloads: true,
    };
    let mut watch = LinkWatch::open().unwrap();
    // The dump comes with the first read.
    watch.read(|_| {}).unwrap();
    Gateway {
        manager: PortManager::new(ends, replies, settings),
        watch,
        links,
        work,
        start: Instant::now(),
    }
}

/// A worker: what comes in by port 1 goes out by port 2, and the other way round, in the very same chunk.
struct Forwarder<'u, 'w> {
    queues: Vec<(PortQueue<'u>, Watch)>,
    pool: FramePool<'u>,
    /// Chunks of queues that were given back and are not reclaimed yet.
    closing: u32,
    commands: crossbeam_channel::Receiver<Command<'u>>,
    reports: crossbeam_channel::Sender<Report<'u>>,
    work: &'w Work,
}

impl Forwarder<'_, '_> {
    fn run(mut self, mut sleeper: Sleeper) {
        let start = Instant::now();
        let mut next_look_ms = 0;
        while !self.work.stop.load(Ordering::Acquire) {
            self.obey();
            let worked = self.turn();
            let now_ms = start.elapsed().as_millis() as u64;
            if now_ms >= next_look_ms {
                next_look_ms = now_ms + 100;
                self.look(now_ms);
            }
            if sleeper.should_sleep(worked != 0) {
                let in_flight = self.queues.iter().any(|(queue, _)| queue.in_flight() != 0);
                sleeper.sleep(
                    self.queues.iter().map(|(queue, _)| queue.as_fd()),
                    if in_flight { 1 } else { 50 },
                );
            }
        }
        // The last commands may have come after the last turn.
        self.obey();
        if self.queues.is_empty() {
            assert_eq!(self.pool.len(), FRAMES as usize, "frames are lost");
            self.work.homes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add(_, mut queue) => {
                    assert_ne!(queue.refill(&mut self.pool), 0);
                    queue.wake();
                    self.reports.send(Report::Filled(queue.id())).unwrap();
                    self.queues.push((*queue, Watch::default()));
                }
                Command::Remove(id) => {
                    let index = self
                        .queues
                        .iter()
                        .position(|(queue, _)| queue.id() == id)
                        .unwrap();
                    let (queue, _) = self.queues.swap_remove(index);
                    self.closing += queue.census().sum();
                    self.reports.send(Report::Removed(Box::new(queue))).unwrap();
                }
                Command::Reclaim(closed) => {
                    self.closing -= closed.chunks();
                    closed.reclaim(&mut self.pool);
                }
                Command::Stop => {}
            }
        }
    }

    fn turn(&mut self) -> usize {
        let mut worked = 0;
        let mut batch = Vec::with_capacity(64);
        for index in 0..self.queues.len() {
            let (queue, _) = &mut self.queues[index];
            worked += queue.complete(&mut self.pool);
            worked += queue.receive(64, |frame| batch.push(frame));
            let id = queue.id();
            if !batch.is_empty() {
                self.work.queues_seen.fetch_or(1 << id.queue, Ordering::Relaxed);
            }
            for frame in batch.drain(..) {
                let egress = self
                    .queues
                    .iter_mut()
                    .find(|(queue, _)| queue.id().port == 3 - id.port);
                let outcome = match egress {
                    Some((queue, _)) => queue.push(frame),
                    None => Err(frame),
                };
                match outcome {
                    Ok(()) => self.work.forwarded.fetch_add(1, Ordering::Relaxed),
                    Err(frame) => {
                        self.pool.put(frame);
                        self.work.dropped.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        }
        for (queue, _) in &mut self.queues {
            queue.refill(&mut self.pool);
            queue.wake();
        }
        worked
    }

    /// Helps queues that stand still, and checks that every frame is in exactly one place.
    fn look(&mut self, now_ms: u64) {
        let mut kernel = self.closing;
        for (queue, watch) in &mut self.queues {
            match watch.look(queue, true, now_ms) {
                Some(Remedy::Nudge | Remedy::LeaveBusyPoll) => queue.nudge(),
                Some(Remedy::Rebind) => drop(self.reports.send(Report::Broken(queue.id()))),
                None => {}
            }
            kernel += queue.census().sum();
        }
        let tally = self.pool.umem().tally();
        assert_eq!((tally.free as usize, tally.held), (self.pool.len(), 0));
        assert_eq!(tally.receiving + tally.sending, kernel);
        assert_eq!(tally.free + kernel, FRAMES);
    }
}
