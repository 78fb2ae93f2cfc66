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
    DropReason, IpPrefix, MAX_SNAP_BYTES, TraceEnd, TraceFilter, TracePoint, TraceRecord, TraceSpec,
    TraceStep,
};
use wire::ethernet::{HEADER_BYTES, TAG_BYTES};
use wire::flow::{Tuple, UpperSelector};
use wire::mpls::Stack;
use wire::{EtherType, SliceCursor};

use crate::batch::{BATCH_PACKETS, Batch, Flags, Ingress, Meta, Next, Slots};
use crate::sa::TunnelIndex;
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
    /// Why it goes no further, from the moment that this is known.
    refused: Option<DropReason>,
    out_of: Option<TunnelIndex>,
    into: Option<TunnelIndex>,
}

impl Draft {
    fn new(entry: TraceEnd) -> Self {
        Self {
            entry,
            fits: false,
            at: None,
            steps: Vec::new(),
            refused: None,
            out_of: None,
            into: None,
        }
    }

    fn step(&mut self, stage: &str, next: &str, labels: Vec<u32>) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(TraceStep {
                stage: stage.to_owned(),
                next: next.to_owned(),
                labels,
            });
        }
    }
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
    /// Those whose frame an ICMP error has taken over.
    refused: Vec<Draft>,
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
            refused: Vec::new(),
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
        let mut edges = [None; BATCH_PACKETS];
        for next in Next::ALL {
            for slot in Slots::of(batch.on(next)) {
                edges[slot] = Some(next);
            }
        }
        let snap_bytes = self.snap_bytes();
        for (slot, edge) in edges.iter().enumerate() {
            // From the stage that answers it on, a refused packet's frame holds the answer.
            if let (Some(draft), Some(next)) = (self.drafts.get_mut(&slot), edge)
                && draft.at == Some(Next::Error)
                && !matches!(next, Next::Error | Next::Drop)
                && let Some(mut draft) = self.drafts.remove(&slot)
            {
                draft.at = Some(Next::Drop);
                draft.step(stage, Next::Drop.name(), Vec::new());
                self.refused.push(draft);
            }
            if edge.is_some() && !self.drafts.contains_key(&slot) {
                let point = match batch.meta(slot).ingress {
                    Ingress::Port(port) if *edge == Some(Next::Classify) => {
                        TracePoint::Port(port.get() as u16)
                    }
                    Ingress::Host if *edge == Some(Next::FromHost) => TracePoint::Host,
                    _ => TracePoint::Gateway,
                };
                let entry = end(point, batch.bytes(slot), snap_bytes);
                self.drafts.insert(slot, Draft::new(entry));
            }
            let Some(draft) = self.drafts.get_mut(&slot) else {
                continue;
            };
            if draft.at == *edge {
                continue;
            }
            draft.at = *edge;
            let Some(next) = *edge else {
                // Taken out of the batch: it waits, or is part of another packet now.
                draft.step(stage, "waits or absorbed", Vec::new());
                continue;
            };
            let meta = batch.meta(slot);
            (draft.out_of, draft.into) = (meta.out_of, meta.into);
            let name = match next {
                Next::Drop | Next::Error => draft.refused.get_or_insert(batch.reason(slot)).name(),
                next => next.name(),
            };
            let (labels, packet) = open(batch.bytes(slot), meta, next);
            if let (Some(spec), false) = (&self.spec, draft.fits) {
                draft.fits = fits(&spec.filter, &labels, packet);
            }
            draft.step(stage, name, labels);
        }
    }

    /// Hands over what became of a packet. `false`: no more of them are wanted.
    fn record(
        &mut self,
        spec: &TraceSpec,
        draft: Draft,
        at_ns: u64,
        exit: Option<TraceEnd>,
        view: &View<'_>,
    ) -> bool {
        let is_dropped = draft.at == Some(Next::Drop);
        if !draft.fits || spec.filter.drops_only && !is_dropped {
            return true;
        }
        if self.left == 0 {
            self.spec = None;
            return false;
        }
        self.left -= 1;
        let name = |index: Option<_>| index.and_then(|index| view.tunnel(index)).map(|tunnel| tunnel.id);
        let record = TraceRecord {
            worker: self.worker,
            at_ns,
            entry: draft.entry,
            steps: draft.steps,
            exit,
            reason: draft
                .refused
                .filter(|_| is_dropped)
                .map(|reason| reason.name().to_owned()),
            out_of: name(draft.out_of),
            into: name(draft.into),
            lost: self.lost,
        };
        if self.shared.records.push(record).is_err() {
            self.lost += 1;
        }
        true
    }
}

impl Observer for Recorder {
    fn begin(&mut self, batch: &Batch<'_>) {
        self.drafts.clear();
        self.refused.clear();
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
        for draft in std::mem::take(&mut self.refused) {
            if !self.record(&spec, draft, at_ns, None, view) {
                return;
            }
        }
        for slot in 0..BATCH_PACKETS {
            let Some(draft) = self.drafts.remove(&slot) else {
                continue;
            };
            let point = match draft.at {
                Some(Next::Transmit) => Some(TracePoint::Port(batch.meta(slot).egress.get() as u16)),
                Some(Next::Punt) => Some(TracePoint::Host),
                _ => None,
            };
            let exit = point.map(|point| end(point, batch.bytes(slot), snap_bytes));
            if !self.record(&spec, draft, at_ns, exit, view) {
                return;
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

/// A packet as it stands on an edge: the label stack that it begins with, and the packet beneath.
fn open<'b>(bytes: &'b [u8], meta: &Meta, edge: Next) -> (Vec<u32>, &'b [u8]) {
    let (is_labelled, packet) = match edge {
        Next::Classify | Next::Transmit => {
            let mut start_bytes = HEADER_BYTES;
            while let Some([0x81, 0x00] | [0x88, 0xa8]) = bytes.get(start_bytes - 2..start_bytes) {
                start_bytes += TAG_BYTES;
            }
            let ether_type = bytes.get(start_bytes - 2..start_bytes);
            (
                ether_type == Some(&EtherType::MPLS.0.to_be_bytes()),
                bytes.get(start_bytes..).unwrap_or_default(),
            )
        }
        _ => (meta.flags.has(Flags::LABELLED), bytes),
    };
    if !is_labelled {
        return (Vec::new(), packet);
    }
    match Stack::parse(&mut SliceCursor::new(packet)) {
        Ok(stack) => {
            let entries = stack.entries().iter();
            (
                entries
                    .map(|entry| u32::from_be_bytes(entry.to_bytes()))
                    .collect(),
                packet.get(stack.stack_bytes()..).unwrap_or_default(),
            )
        }
        Err(_) => (Vec::new(), &[]),
    }
}

/// Whether a packet under these labels fits.
fn fits(filter: &TraceFilter, labels: &[u32], packet: &[u8]) -> bool {
    if let Some(wanted) = filter.label
        && !labels.iter().any(|entry| entry >> 12 == wanted)
    {
        return false;
    }
    if filter.prefix.is_none() && filter.protocol.is_none() && filter.port.is_none() {
        return true;
    }
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
