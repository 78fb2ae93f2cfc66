//! Watching single packets on their way through the stages.
//!
//! Off, it costs a worker one relaxed load a batch. Armed, the walk of a batch is looked at after each stage, and
//! what became of the packets that fit the filter goes to the main thread through a bounded queue: a packet that
//! finds it full is counted, and never waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use nix::time::{ClockId, clock_gettime};
use southbound::{
    IpPrefix, MAX_SNAP_BYTES, TraceEnd, TraceFilter, TracePoint, TraceRecord, TraceSpec, TraceStep,
};
use wire::ethernet::{HEADER_BYTES, TAG_BYTES};
use wire::flow::{Tuple, UpperSelector};

use crate::batch::{Batch, Ingress, Next, Slots};
use crate::tables::View;

/// Records on their way from one worker.
const QUEUED_RECORDS: usize = 512;

/// Steps that are kept of one packet: every stage a few rounds.
const MAX_STEPS: usize = 64;

/// What a worker and the main thread share.
#[derive(Debug)]
pub struct Tracer {
    /// Changes with every change of `spec`.
    changes: AtomicU64,
    spec: Mutex<Option<Arc<TraceSpec>>>,
    records: ArrayQueue<TraceRecord>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self {
            changes: AtomicU64::new(0),
            spec: Mutex::new(None),
            records: ArrayQueue::new(QUEUED_RECORDS),
        }
    }
}

impl Tracer {
    /// Says what is watched from the next batch on; records that nobody took are forgotten.
    pub fn arm(&self, spec: Option<TraceSpec>) {
        while self.records.pop().is_some() {}
        *self.spec.lock().unwrap_or_else(PoisonError::into_inner) = spec.map(Arc::new);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The next record.
    pub fn take(&self) -> Option<TraceRecord> {
        self.records.pop()
    }
}

/// Looks at a batch between its stages.
pub trait Observer {
    /// The walk begins.
    fn begin(&mut self, batch: &Batch<'_>);
    /// A stage has worked on the batch.
    fn after(&mut self, stage: &'static str, batch: &Batch<'_>);
    /// The walk is over, and what is dropped is still there.
    fn end(&mut self, batch: &Batch<'_>, view: &View<'_>);
}

/// Nobody looks.
impl Observer for () {
    #[inline(always)]
    fn begin(&mut self, _: &Batch<'_>) {}
    #[inline(always)]
    fn after(&mut self, _: &'static str, _: &Batch<'_>) {}
    #[inline(always)]
    fn end(&mut self, _: &Batch<'_>, _: &View<'_>) {}
}

/// What is known of a packet of the batch at hand.
#[derive(Debug)]
struct Draft {
    entry: TraceEnd,
    fits: bool,
    at: Option<Next>,
    steps: Vec<TraceStep>,
}

/// A worker's end of a [`Tracer`].
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Tracer>,
    worker: u16,
    seen: u64,
    spec: Option<Arc<TraceSpec>>,
    left: u32,
    lost: u64,
    drafts: HashMap<usize, Draft>,
}

impl Recorder {
    /// That of `worker`, unarmed.
    #[must_use]
    pub fn new(shared: Arc<Tracer>, worker: usize) -> Self {
        Self {
            shared,
            worker: u16::try_from(worker).unwrap_or(u16::MAX),
            seen: 0,
            spec: None,
            left: 0,
            lost: 0,
            drafts: HashMap::new(),
        }
    }

    /// Whether the next batch is to be looked at.
    #[inline]
    pub fn is_armed(&mut self) -> bool {
        let changes = self.shared.changes.load(Ordering::Acquire);
        if changes != self.seen {
            self.refresh(changes);
        }
        self.spec.is_some()
    }

    #[cold]
    fn refresh(&mut self, changes: u64) {
        // The main thread holds it for an assignment only; where it does just now, the next batch is looked at.
        let Ok(spec) = self.shared.spec.try_lock() else {
            return;
        };
        self.seen = changes;
        self.spec.clone_from(&spec);
        self.left = self.spec.as_ref().map_or(0, |spec| spec.packets);
        self.lost = 0;
    }

    fn snap_bytes(&self) -> usize {
        let wanted = self.spec.as_ref().map_or(0, |spec| spec.snap_bytes);
        usize::from(wanted.min(MAX_SNAP_BYTES))
    }

    /// Notes where every packet is now, and those that are new.
    fn look(&mut self, stage: &'static str, batch: &Batch<'_>) {
        let mut edges = [None; crate::batch::BATCH_PACKETS];
        for next in Next::ALL {
            for slot in Slots::of(batch.on(next)) {
                edges[slot] = Some(next);
            }
        }
        let snap_bytes = self.snap_bytes();
        for (slot, edge) in edges.iter().enumerate() {
            if edge.is_some() && !self.drafts.contains_key(&slot) {
                let point = match batch.meta(slot).ingress {
                    Ingress::Port(port) if *edge == Some(Next::Classify) => {
                        TracePoint::Port(port.get() as u16)
                    }
                    Ingress::Host if *edge == Some(Next::FromHost) => TracePoint::Host,
                    _ => TracePoint::Gateway,
                };
                let draft = Draft {
                    entry: end(point, batch.bytes(slot), snap_bytes),
                    fits: false,
                    at: None,
                    steps: Vec::new(),
                };
                self.drafts.insert(slot, draft);
            }
            let Some(draft) = self.drafts.get_mut(&slot) else {
                continue;
            };
            if draft.at == *edge {
                continue;
            }
            let next = match edge {
                Some(Next::Drop | Next::Error) => batch.reason(slot).name().to_owned(),
                Some(next) => next.name().to_owned(),
                // Taken out of the batch: it waits, or is part of another packet now.
                None => "waits or absorbed".to_owned(),
            };
            draft.at = *edge;
            if let (Some(spec), Some(next)) = (&self.spec, edge)
                && !draft.fits
            {
                draft.fits = fits(&spec.filter, batch.bytes(slot), *next);
            }
            if draft.steps.len() < MAX_STEPS {
                draft.steps.push(TraceStep {
                    stage: stage.to_owned(),
                    next,
                });
            }
        }
    }
}

impl Observer for Recorder {
    fn begin(&mut self, batch: &Batch<'_>) {
        self.drafts.clear();
        self.look("receive", batch);
    }

    fn after(&mut self, stage: &'static str, batch: &Batch<'_>) {
        self.look(stage, batch);
    }

    fn end(&mut self, batch: &Batch<'_>, view: &View<'_>) {
        self.look("end", batch);
        let Some(spec) = self.spec.clone() else { return };
        let at_ns = realtime_ns();
        let snap_bytes = self.snap_bytes();
        let mut slots: Vec<usize> = self.drafts.keys().copied().collect();
        slots.sort_unstable();
        for slot in slots {
            let Some(draft) = self.drafts.remove(&slot) else {
                continue;
            };
            let is_dropped = draft.at == Some(Next::Drop);
            if !draft.fits || spec.filter.drops_only && !is_dropped {
                continue;
            }
            if self.left == 0 {
                self.spec = None;
                return;
            }
            self.left -= 1;
            let meta = batch.meta(slot);
            let name = |index: Option<_>| index.and_then(|index| view.tunnel(index)).map(|tunnel| tunnel.id);
            let is_there = draft.at.is_some();
            let record = TraceRecord {
                worker: self.worker,
                at_ns,
                entry: draft.entry,
                steps: draft.steps,
                exit: match draft.at {
                    Some(Next::Transmit) => {
                        let point = TracePoint::Port(meta.egress.get() as u16);
                        Some(end(point, batch.bytes(slot), snap_bytes))
                    }
                    Some(Next::Punt) => Some(end(TracePoint::Host, batch.bytes(slot), snap_bytes)),
                    _ => None,
                },
                reason: is_dropped.then(|| batch.reason(slot).name().to_owned()),
                out_of: name(meta.out_of.filter(|_| is_there)),
                into: name(meta.into.filter(|_| is_there)),
                lost: self.lost,
            };
            if self.shared.records.push(record).is_err() {
                self.lost += 1;
            }
        }
    }
}

fn end(point: TracePoint, bytes: &[u8], snap_bytes: usize) -> TraceEnd {
    TraceEnd {
        point,
        length_bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        bytes: bytes[..bytes.len().min(snap_bytes)].to_vec(),
    }
}

fn realtime_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| {
        now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
    })
}

/// The IP packet in a frame: behind its Ethernet header and tags.
fn ip_packet(bytes: &[u8]) -> &[u8] {
    let mut start_bytes = HEADER_BYTES;
    while let Some([0x81, 0x00] | [0x88, 0xa8]) = bytes.get(start_bytes - 2..start_bytes) {
        start_bytes += TAG_BYTES;
    }
    bytes.get(start_bytes..).unwrap_or_default()
}

/// Whether a packet fits as it stands on an edge.
fn fits(filter: &TraceFilter, bytes: &[u8], edge: Next) -> bool {
    if filter.prefix.is_none() && filter.protocol.is_none() && filter.port.is_none() {
        return true;
    }
    let packet = match edge {
        Next::Classify | Next::Transmit => ip_packet(bytes),
        _ => bytes,
    };
    let Ok(tuple) = Tuple::parse(packet) else {
        return false;
    };
    let holds = |prefix: &IpPrefix| prefix.contains(tuple.source) || prefix.contains(tuple.destination);
    let is_port = |wanted: u16| match tuple.upper {
        UpperSelector::Ports { source, destination } => wanted == source || wanted == destination,
        _ => false,
    };
    filter.prefix.as_ref().is_none_or(holds)
        && filter
            .protocol
            .is_none_or(|protocol| protocol == tuple.protocol.0)
        && filter.port.is_none_or(is_port)
}
