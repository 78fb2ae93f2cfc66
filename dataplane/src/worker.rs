//! [`Worker`]: one thread, its memory, its queues: receive, walk, transmit, complete, refill, again.
//!
//! A turn visits every queue of the worker: frames that were sent come home, up to a batch of received packets walks the
//! stages, what leaves is put on the transmit rings of whichever ports it leaves by, and the kernel gets chunks to
//! receive into. The tables are looked at through one view a batch, the clock is read once a turn. Only the device's
//! wake-ups, the TAP and the sleep of an idle worker are system calls.

mod queues;
mod transmit;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::ArrayQueue;
use nix::time::{ClockId, clock_gettime};
use southbound::{DropReason, Event, Histogram, PORT_SLOTS, PortCounter, WorkerCounter};

use crate::batch::{BATCH_PACKETS, Batch, Ingress, Meta, Next, Slots};
use crate::bell::Bell;
use crate::config::{BusyPoll, Idle};
use crate::counters::WorkerCounters;
use crate::handoff::Handoff;
use crate::hold::Hold;
use crate::icmp_limit::IcmpLimit;
use crate::reassembly::{Limits, Reassembly};
use crate::sa::PathReport;
use crate::stage::{self, Backlog, Context};
use crate::tables::{PortSlot, Reader, VrfIndex};
use crate::tap::Tap;
use crate::trace::{Recorder, Tracer};
use crate::xsk::{ClosedQueue, FramePool, KernelStatistics, PortQueue, QueueId, Sleeper, Waker, Watch};

/// Packets beyond a batch that wait for the next: the pieces of a batch of packets cut in four.
const BACKLOG_PACKETS: usize = 4 * BATCH_PACKETS;
/// Ethernet with two tags.
const LONGEST_LINK_HEADER_BYTES: usize = 22;
/// How often the TAP is looked at while there is other traffic.
const TAP_INTERVAL_NS: u64 = 50_000;
/// How often queues are watched and levels are written down.
const CENSUS_INTERVAL_NS: u64 = 100_000_000;
/// How long an idle worker sleeps at most; shorter while frames are in flight or packets wait.
const SLEEP_MS: u16 = 100;
const SHORT_SLEEP_MS: u16 = 5;

/// What the main thread tells a worker.
#[derive(Debug)]
pub enum Command<'u> {
    /// Serve this queue of the port in this place; [`Report::Filled`] follows.
    Add(PortSlot, Box<PortQueue<'u>>),
    /// Serve this queue no more; [`Report::Removed`] follows.
    Remove(QueueId),
    /// Put what the kernel had of a closed queue into the pool.
    Reclaim(ClosedQueue<'u>),
    /// Close every queue, and end.
    Stop,
}

/// What a worker tells the main thread.
#[derive(Debug)]
pub enum Report<'u> {
    /// The kernel has chunks to receive into: packets may be steered to the queue.
    Filled(QueueId),
    /// The queue is served no more. Closing it is the main thread's, after the program is detached: closed under traffic,
    /// zero-copy sockets have hung NICs.
    Removed(Box<PortQueue<'u>>),
    /// The queue does not move any more, or has lost its device: remove it and bind it anew.
    Broken(QueueId),
}

/// What the main thread and other threads see of a worker.
#[derive(Debug, Default)]
pub struct Heartbeat {
    turns: AtomicU64,
    sleeps: AtomicBool,
}

impl Heartbeat {
    /// Turns so far: an awake worker whose number stands still is stuck.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether it sleeps in the kernel.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.sleeps.load(Ordering::Relaxed)
    }
}

/// What a worker is made of besides its memory.
#[derive(Debug)]
pub struct Parts<'u> {
    /// The tables.
    pub reader: Reader,
    /// Its block of counters.
    pub counters: WorkerCounters,
    /// To the main thread.
    pub events: Arc<ArrayQueue<Event>>,
    /// To the main thread, for the writer.
    pub paths: Arc<ArrayQueue<PathReport>>,
    /// Packets that the main thread wants watched.
    pub tracer: Arc<Tracer>,
    /// From the main thread.
    pub commands: Receiver<Command<'u>>,
    /// To the main thread.
    pub reports: Sender<Report<'u>>,
    /// Rung when the main thread was told something.
    pub bell: Bell,
    /// The host's side.
    pub tap: Option<Arc<Tap>>,
    /// Whether this worker reads the TAP; one of them does.
    pub reads_tap: bool,
    /// Between packets.
    pub idle: Idle,
    /// How devices are polled, if they are.
    pub busy_poll: Option<BusyPoll>,
    /// Its number among the workers.
    pub number: usize,
    /// To the other workers.
    pub handoff: Arc<Handoff>,
}

struct Served<'u> {
    slot: PortSlot,
    queue: PortQueue<'u>,
    watch: Watch,
    /// What the kernel had counted when it was last asked.
    kernel: KernelStatistics,
    is_broken: bool,
    busy_polls: bool,
}

/// One worker. See the module's text.
pub struct Worker<'u> {
    parts: Parts<'u>,
    pool: FramePool<'u>,
    queues: Vec<Served<'u>>,
    /// Which of `queues` a packet leaves by, for each place of a port.
    egress: [Option<usize>; PORT_SLOTS],
    batch: Box<Batch<'u>>,
    hold: Hold<'u>,
    limit: IcmpLimit,
    reassembly: Reassembly,
    backlog: Backlog<'u>,
    recorder: Option<Box<Recorder>>,
    sleeper: Sleeper,
    heartbeat: Arc<Heartbeat>,
    next_tap_ns: u64,
    next_census_ns: u64,
    is_stopping: bool,
    /// Said once.
    books_are_wrong: bool,
    /// Chunks of queues that the main thread has.
    chunks_away: u32,
}

impl<'u> Worker<'u> {
    /// A worker without queues, and what wakes it from its sleep.
    ///
    /// # Errors
    /// The kernel's, for the descriptor that wakes it.
    pub fn new(pool: FramePool<'u>, parts: Parts<'u>) -> io::Result<(Self, Waker)> {
        let (sleeper, waker) = Sleeper::new(parts.idle == Idle::Spin, 2 * PORT_SLOTS)?;
        parts.handoff.register(parts.number, waker.clone());
        // What does not fit a frame behind its headroom is refused while it is put together.
        let datagram_bytes = pool.umem().packet_capacity_bytes() - LONGEST_LINK_HEADER_BYTES;
        let recorder = Recorder::new(Arc::clone(&parts.tracer), parts.number);
        let worker = Self {
            parts,
            pool,
            queues: Vec::with_capacity(2 * PORT_SLOTS),
            egress: [None; PORT_SLOTS],
            batch: Box::default(),
            hold: Hold::new(),
            limit: IcmpLimit::new(),
            reassembly: Reassembly::new(Limits {
                datagram_bytes,
                ..Limits::default()
            }),
            backlog: Backlog::with_capacity(BACKLOG_PACKETS),
            recorder: Some(Box::new(recorder)),
            sleeper,
            heartbeat: Arc::default(),
            next_tap_ns: 0,
            next_census_ns: 0,
            is_stopping: false,
            books_are_wrong: false,
            chunks_away: 0,
        };
        Ok((worker, waker))
    }

    /// What others may look at.
    #[must_use]
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> &WorkerCounters {
        &self.parts.counters
    }

    /// Its free frames.
    #[must_use]
    pub fn pool(&self) -> &FramePool<'u> {
        &self.pool
    }

    /// Whether every frame is where the table of owners says, and every packet is accounted for; between turns both
    /// always hold. What is wrong is the error.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_books(&self) -> Result<(), String> {
        let imbalance = self.parts.counters.imbalance();
        if imbalance != 0 {
            return Err(format!("{imbalance} packets came and went nowhere"));
        }
        let tally = self.pool.umem().tally();
        let queues: u32 = self.queues.iter().map(|served| served.queue.census().sum()).sum();
        let away = self.chunks_away;
        let (free, held) = (self.pool.len(), self.hold.len());
        let is_conserved = tally.free as usize == free
            && tally.held as usize == held
            && tally.receiving + tally.sending == queues + away;
        if is_conserved {
            Ok(())
        } else {
            Err(format!(
                "{tally:?}, but {free} free, {held} held, {queues} in queues, {away} away"
            ))
        }
    }

    /// Works until [`Command::Stop`] came; then every queue is closed.
    pub fn run(&mut self) {
        while !self.is_stopping {
            let now_ns = now_ns();
            let worked = self.turn(now_ns);
            if self.sleeper.should_sleep(worked) {
                self.sleep();
            }
        }
        self.close_all();
    }

    /// One turn; false where there was nothing to do.
    pub fn turn(&mut self, now_ns: u64) -> bool {
        self.heartbeat.turns.store(
            self.heartbeat.turns.load(Ordering::Relaxed) + 1,
            Ordering::Relaxed,
        );
        self.parts.counters.add(WorkerCounter::Polls, 1);
        self.obey();
        let mut packets = 0;
        for index in 0..self.queues.len() {
            packets += self.receive(index, now_ns);
        }
        if self.parts.reads_tap && (packets == 0 || now_ns >= self.next_tap_ns) {
            self.next_tap_ns = now_ns + TAP_INTERVAL_NS;
            packets += self.read_tap(now_ns);
        }
        if !self.parts.handoff.is_empty(self.parts.number) {
            packets += self.take_parcels();
        }
        if !self.hold.is_empty() {
            packets += self.release(now_ns);
        }
        for served in &mut self.queues {
            served.queue.refill(&mut self.pool);
            if served.busy_polls {
                // No interrupt comes: the call is what makes the device work.
                served.queue.nudge();
            } else {
                served.queue.wake();
            }
        }
        if now_ns >= self.next_census_ns {
            self.next_census_ns = now_ns + CENSUS_INTERVAL_NS;
            self.take_census(now_ns);
        }
        if !(self.parts.events.is_empty() && self.parts.paths.is_empty()) {
            self.parts.bell.ring();
        }
        if packets == 0 {
            self.parts.counters.add(WorkerCounter::PollsEmpty, 1);
        } else {
            let busy_ns = self::now_ns().saturating_sub(now_ns);
            let counters = &self.parts.counters;
            counters.add(WorkerCounter::BusyNanoseconds, busy_ns);
            counters.observe(Histogram::RoundPackets, packets as u64, 1);
            counters.observe(Histogram::LatencyNanoseconds, busy_ns, packets as u64);
        }
        packets != 0
    }

    /// Takes up to a batch from one queue and walks it.
    fn receive(&mut self, index: usize, now_ns: u64) -> usize {
        let Some(served) = self.queues.get_mut(index) else {
            return 0;
        };
        served.queue.complete(&mut self.pool);
        if served.queue.waiting() == 0 {
            return 0;
        }
        let view = self.parts.reader.pin();
        let (slot, vrf) = (
            served.slot,
            view.port(served.slot).map_or(VrfIndex::MAIN, |port| port.vrf),
        );
        let meta = Meta::new(Ingress::Port(slot), vrf);
        let (batch, mut bytes) = (&mut self.batch, 0);
        debug_assert!(batch.is_empty());
        let count = served.queue.receive(BATCH_PACKETS, |frame| {
            bytes += frame.len() as u64;
            if let Err(frame) = batch.push(frame, meta, Next::Classify) {
                debug_assert!(false, "an empty batch takes a batch");
                drop(frame);
            }
        });
        let counters = &self.parts.counters;
        counters.add(WorkerCounter::Received, count as u64);
        counters.add_port(slot, PortCounter::ReceivedPackets, count as u64);
        counters.add_port(slot, PortCounter::ReceivedBytes, bytes);
        self.walk(now_ns);
        count
    }

    /// Reads up to a batch from the host and walks it.
    fn read_tap(&mut self, now_ns: u64) -> usize {
        let Some(tap) = self.parts.tap.clone() else {
            return 0;
        };
        let mut count = 0;
        while count < BATCH_PACKETS {
            let Some(mut frame) = self.pool.take() else { break };
            if !tap.read(&mut frame) {
                self.pool.put(frame);
                break;
            }
            let meta = Meta::new(Ingress::Host, VrfIndex::MAIN);
            if let Err(frame) = self.batch.push(frame, meta, Next::FromHost) {
                self.pool.put(frame);
                break;
            }
            count += 1;
        }
        if count != 0 {
            self.parts.counters.add(WorkerCounter::FromHost, count as u64);
            self.walk(now_ns);
        }
        count
    }

    /// Walks the packets whose wait is over.
    fn release(&mut self, now_ns: u64) -> usize {
        let (batch, mut context) = self.context(now_ns);
        stage::hold::release(batch, &mut context);
        let count = self.batch.len();
        if count != 0 {
            self.walk(now_ns);
        }
        count
    }

    /// Walks the batch, and then what the walk itself brought about, and hands everything on.
    fn walk(&mut self, now_ns: u64) {
        loop {
            // Out of its place while it looks on.
            let mut recorder = self.recorder.take_if(|recorder| recorder.is_armed());
            let (batch, mut context) = self.context(now_ns);
            match &mut recorder {
                None => stage::run(batch, &mut context),
                Some(recorder) => stage::run_observed(batch, &mut context, recorder.as_mut()),
            }
            if recorder.is_some() {
                self.recorder = recorder;
            }
            self.transmit();
            self.punt();
            if self.backlog.is_empty() {
                break;
            }
            let room = self.backlog.len().min(BATCH_PACKETS);
            for (frame, meta, next) in self.backlog.drain(..room) {
                if let Err(frame) = self.batch.push(frame, meta, next) {
                    self.pool.put(frame);
                }
            }
        }
        self.state_held();
        debug_assert!(self.batch.is_empty());
        debug_assert_eq!(
            self.parts.counters.imbalance(),
            0,
            "every packet is accounted for"
        );
    }

    /// The batch, and what its stages work with.
    fn context(&mut self, now_ns: u64) -> (&mut Batch<'u>, Context<'_, 'u>) {
        let context = Context {
            view: self.parts.reader.pin(),
            now_ns,
            counters: &self.parts.counters,
            events: &self.parts.events,
            paths: &self.parts.paths,
            pool: &mut self.pool,
            hold: &mut self.hold,
            limit: &mut self.limit,
            reassembly: &mut self.reassembly,
            backlog: &mut self.backlog,
        };
        (&mut self.batch, context)
    }

    fn state_held(&self) {
        let held = self.hold.len() as u64 + self.reassembly.held_packets();
        self.parts.counters.set(WorkerCounter::Held, held);
    }

    /// Gives to the host what is for it.
    fn punt(&mut self) {
        for slot in Slots::of(self.batch.take(Next::Punt)) {
            let Some(frame) = self.batch.remove(slot) else {
                continue;
            };
            if self
                .parts
                .tap
                .as_ref()
                .is_some_and(|tap| tap.write(frame.bytes()))
            {
                self.parts.counters.add(WorkerCounter::ToHost, 1);
            } else {
                self.parts.counters.drop_packets(DropReason::PuntFull, 1);
            }
            self.pool.put(frame);
        }
    }

    fn sleep(&mut self) {
        // The writer may free what this worker looked at.
        self.parts.reader.park();
        self.parts.counters.add(WorkerCounter::Sleeps, 1);
        let in_flight = self.queues.iter().any(|served| served.queue.in_flight() != 0);
        let timeout_ms = if in_flight || !self.hold.is_empty() {
            SHORT_SLEEP_MS
        } else {
            SLEEP_MS
        };
        let tap = if self.parts.reads_tap {
            self.parts.tap.as_deref()
        } else {
            None
        };
        let descriptors = self
            .queues
            .iter()
            .map(|served| served.queue.as_fd())
            .chain(tap.map(AsFd::as_fd));
        self.heartbeat.sleeps.store(true, Ordering::Relaxed);
        self.sleeper.sleep(descriptors, timeout_ms);
        self.heartbeat.sleeps.store(false, Ordering::Relaxed);
    }
}

/// Nanoseconds of the monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    // The call cannot fail for this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let (seconds, nanoseconds) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
        seconds * 1_000_000_000 + nanoseconds
    })
}
