//! The stages: one step over a batch each.
//!
//! The contract of a stage: it takes the packets on its own edges, whole ([`Batch::take`]), and puts each of them on
//! exactly one other edge: with [`Batch::send`], or with [`Batch::discard`] and the reason. It names neither another
//! stage nor a ring, allocates nothing, and asks the tables only through the view of this batch. What it needs besides
//! the batch is in the [`Context`].
//!
//! [`run`] is the order of the walk:
//!
//! ```text
//!  Classify -+-> Reassemble -> (whole) -+
//!            +-> Decap -> PolicyIn -----|---+
//!            +-> Learn -> Punt          |   |
//!            +-> PolicyOut <------------+   +-> Forward -+-> Midchain -> Encap -> Egress -> Transmit
//!                    |                      |            +-> Egress -> Transmit
//!                    +-> Midchain           |            +-> Punt
//!                    +-> Forward -----------+
//!   Decap -> Untunnel -+-> PolicyIn     Labels -+-> PolicyOut, PolicyIn (popped, routed in the label's table)
//!                      +-> Labels               +-> Egress, Midchain (other labels, or none)
//!   Forward -> Impose (labels) -> Midchain -> Entunnel (GRE, IP, UDP) -> Encap
//!   any -> Hold (waits, comes back on Forward or PolicyOut)      any -> Drop
//!   any -> Error -> an ICMP error of our own, on PolicyOut or back into its tunnel
//! ```

pub mod classify;
pub mod ecn;
pub mod egress;
pub mod esp_decap;
pub mod esp_encap;
pub mod esp_inner;
pub mod esp_layout;
pub mod fit;
pub mod hold;
pub mod hop;
pub mod icmp_error;
pub mod icmp_learn;
pub mod ip_forward;
mod label_error;
mod label_payload;
pub mod label_push;
pub mod label_stack;
pub mod midchain;
pub mod mpls_forward;
pub mod policy;
pub mod reassemble;
pub mod tunnel_decap;
pub mod tunnel_encap;
mod way;

use std::net::IpAddr;

use crossbeam_queue::ArrayQueue;
use southbound::{Event, PortId, WorkerCounter};

use crate::batch::{Batch, Meta, Next, Slots};
use crate::counters::WorkerCounters;
use crate::hold::Hold;
use crate::icmp_limit::IcmpLimit;
use crate::reassembly::Reassembly;
use crate::sa::PathReport;
use crate::tables::View;
use crate::trace::Observer;
use crate::xsk::{Frame, FramePool};

/// What the stages of one batch share.
pub struct Context<'w, 'u> {
    /// The tables as they are during this batch.
    pub view: View<'w>,
    /// The moment of this batch, of the monotonic clock.
    pub now_ns: u64,
    /// This worker's counters.
    pub counters: &'w WorkerCounters,
    /// To the main thread; full, the event is counted as lost.
    pub events: &'w ArrayQueue<Event>,
    /// What routers say of our outer packets, to the writer; full, it is forgotten.
    pub paths: &'w ArrayQueue<PathReport>,
    /// Frames for packets of our own making.
    pub pool: &'w mut FramePool<'u>,
    /// Packets that wait.
    pub hold: &'w mut Hold<'u>,
    /// How many ICMP errors we send.
    pub limit: &'w mut IcmpLimit,
    /// Datagrams whose fragments are not all there.
    pub reassembly: &'w mut Reassembly,
    /// Packets that found no slot in this batch and go on with the next.
    pub backlog: &'w mut Backlog<'u>,
}

/// Packets beyond the batch: the further fragments of what was cut. Never longer than its capacity, which is reserved.
pub type Backlog<'u> = Vec<(Frame<'u>, Meta, Next)>;

impl Context<'_, '_> {
    /// Milliseconds of the monotonic clock.
    #[inline]
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// Seconds of the monotonic clock.
    #[inline]
    #[must_use]
    pub fn now_seconds(&self) -> u64 {
        self.now_ns / 1_000_000_000
    }

    /// Tells the main thread.
    #[cold]
    pub fn raise(&self, event: Event) {
        if self.events.push(event).is_err() {
            self.counters.add(WorkerCounter::EventsLost, 1);
        }
    }

    /// Asks for a neighbour.
    #[cold]
    pub fn need_neighbour(&self, port: PortId, address: IpAddr) {
        self.raise(Event::NeighbourNeeded { port, address });
    }
}

/// Edges that end the walk: what is on them is the worker's.
const TERMINAL: [Next; 3] = [Next::Punt, Next::Transmit, Next::Drop];

/// Rounds of the walk after which a packet is going in circles: an error about an error is never sent, and an outer
/// packet never enters a tunnel, so two suffice.
const MAX_ROUNDS: usize = 4;

/// Walks the batch until every packet is on [`Next::Transmit`] or [`Next::Punt`], waits in the hold, or was dropped.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    run_observed(batch, context, &mut ());
}

/// The same, while somebody looks on.
pub fn run_observed<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>, observer: &mut impl Observer) {
    observer.begin(batch);
    for _ in 0..MAX_ROUNDS {
        classify::run(batch, context);
        observer.after("classify", batch);
        classify::run_host(batch, context);
        observer.after("classify_host", batch);
        reassemble::run(batch, context);
        observer.after("reassemble", batch);
        esp_decap::run(batch, context);
        observer.after("esp_decap", batch);
        tunnel_decap::run(batch, context);
        observer.after("tunnel_decap", batch);
        mpls_forward::run(batch, context);
        observer.after("mpls_forward", batch);
        icmp_learn::run(batch, context);
        observer.after("icmp_learn", batch);
        policy::run_in(batch, context);
        observer.after("policy_in", batch);
        policy::run_out(batch, context);
        observer.after("policy_out", batch);
        ip_forward::run(batch, context);
        observer.after("ip_forward", batch);
        label_push::run(batch, context);
        observer.after("label_push", batch);
        midchain::run(batch, context);
        observer.after("midchain", batch);
        tunnel_encap::run(batch, context);
        observer.after("tunnel_encap", batch);
        esp_encap::run(batch, context);
        observer.after("esp_encap", batch);
        egress::run(batch, context);
        observer.after("egress", batch);
        hold::run(batch, context);
        observer.after("hold", batch);
        icmp_error::run(batch, context);
        observer.after("icmp_error", batch);
        if batch.is_settled(&TERMINAL) {
            break;
        }
    }
    batch.discard_unsettled(&TERMINAL, southbound::DropReason::TunnelLoop);
    observer.end(batch, &context.view);
    sweep_drops(batch, context);
}

/// Counts what was dropped and returns its frames.
fn sweep_drops<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    for slot in Slots::of(batch.take(Next::Drop)) {
        context.counters.drop_packets(batch.reason(slot), 1);
        if let Some(frame) = batch.remove(slot) {
            context.pool.put(frame);
        }
    }
}
