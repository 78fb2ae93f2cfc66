//! ESP out: take sequence numbers as runs, lay the packets out, seal the batch.
//!
//! In: [`Next::Encap`], [`Next::EncapWide`]: a packet that may enter its tunnel `meta.into`, which has an SA. Out, as an outer packet with its way
//! decided by the tunnel's egress: [`Next::Egress`].
//!
//! ```text
//!              tunnel mode                                  transport mode
//!  | inner packet                    |            | IP (+ extensions) | payload            |
//!  | IP | UDP? | ESP | IV | inner packet | pad, trailer | ICV |
//!                                     | IP (+ extensions) | UDP? | ESP | IV | payload | pad, trailer | ICV |
//! ```

use arrayvec::ArrayVec;
use esp_aead::{SealJob, Verdict};
use southbound::{DropReason, Encapsulation, Event, Mode, WorkerCounter};

use super::esp_layout::{self, TunnelLayout};
use super::{Context, fit};
use crate::batch::{BATCH_PACKETS, Batch, Exits, Flags, Meta, Next, Slots};
use crate::sa::{OutboundSa, Run, Tunnel};
use crate::xsk::Frame;

/// Packets of one SA that follow each other in the batch.
struct Group<'w> {
    sa: &'w OutboundSa,
    tunnel: &'w Tunnel,
    slots: u64,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let wide = batch.take(Next::EncapWide);
    let slots = batch.take(Next::Encap) | wide;
    if slots == 0 {
        return;
    }
    let summed = seal(batch, slots, context);
    if summed != 0 {
        for (_, frame, meta) in batch.packets_mut(summed).0 {
            let is_ipv6 = meta.flags.has(Flags::IPV6);
            esp_layout::write_udp_checksum(frame.bytes_mut(), usize::from(meta.upper_bytes), is_ipv6);
        }
    }
    if wide != 0 {
        cut(batch, wide, context);
    }
}

/// Cuts what was sealed of `wide` to what its tunnel's path takes.
#[cold]
fn cut<'u>(batch: &mut Batch<'u>, wide: u64, context: &mut Context<'_, 'u>) {
    let leaving = batch.take(Next::Egress);
    batch.send_all(leaving & !wide, Next::Egress);
    for slot in Slots::of(leaving & wide) {
        let tunnel = batch.meta(slot).into.and_then(|index| context.view.tunnel(index));
        match tunnel.map(|tunnel| tunnel.outer_mtu_bytes(context.now_seconds())) {
            Some(mtu_bytes) => fit::shrink_outer(batch, slot, mtu_bytes, Next::Egress, context),
            None => batch.discard(slot, DropReason::NoOutboundSa),
        }
    }
}

/// Lays out and seals; answers which packets still want their UDP checksum, that comes last.
#[inline(always)]
fn seal<'u>(batch: &mut Batch<'u>, slots: u64, context: &mut Context<'_, 'u>) -> u64 {
    let mut groups = ArrayVec::<Group<'_>, BATCH_PACKETS>::new();
    group(batch, slots, context, &mut groups);
    let grouped = groups.iter().fold(0, |slots, group| slots | group.slots);
    let mut jobs = ArrayVec::<SealJob<'_>, BATCH_PACKETS>::new();
    let (mut ready, mut summed) = (0, 0);
    let (mut packets, mut exits) = batch.packets_mut(grouped);
    for group in &groups {
        let sa = group.sa;
        let terms = sa.terms(context.view.guard());
        let count = group.slots.count_ones();
        let mut laying = Laying {
            group,
            numbers: sa.reserve(count),
            packets: packets.by_ref().take(count as usize),
            jobs: &mut jobs,
            exits: &mut exits,
        };
        let layout = TunnelLayout::new(&terms.template, sa.sizes(), group.tunnel);
        // One loop for each length of the headers, which the compiler then knows.
        const V4: usize = esp_layout::V4_BYTES;
        const V6: usize = esp_layout::V6_BYTES;
        const UDP: usize = esp_layout::UDP_BYTES;
        let done = match (sa.mode(), layout.header_bytes()) {
            (Mode::Tunnel, V4) => laying.each(|frame, meta, number| layout.apply::<V4>(frame, meta, number)),
            (Mode::Tunnel, V6) => laying.each(|frame, meta, number| layout.apply::<V6>(frame, meta, number)),
            (Mode::Tunnel, length) if length == V4 + UDP => {
                laying.each(|frame, meta, number| layout.apply::<{ V4 + UDP }>(frame, meta, number))
            }
            (Mode::Tunnel, _) => {
                laying.each(|frame, meta, number| layout.apply::<{ V6 + UDP }>(frame, meta, number))
            }
            (Mode::Transport, _) => laying.each(|frame, meta, number| {
                esp_layout::transport(frame, meta, &terms.template, sa.sizes(), number)
            }),
        };
        ready |= done.slots;
        if terms.template.has_udp_checksum() {
            summed |= done.slots;
        }
        account(group, done, context);
    }
    esp_aead::seal(&mut jobs);
    if jobs.iter().all(|job| job.verdict == Verdict::Done) {
        exits.send_all(ready, Next::Egress);
    } else {
        for (slot, job) in Slots::of(ready).zip(&jobs) {
            match job.verdict {
                Verdict::Done => exits.send(slot, Next::Egress),
                // The lengths are this stage's own: cannot happen, and does not leave in clear if it does.
                _ => exits.discard(slot, DropReason::NoHeadroom),
            }
        }
    }
    summed
}

/// A group while it is laid out.
struct Laying<'l, 'j, 'w, P> {
    group: &'l Group<'w>,
    numbers: Run,
    packets: P,
    jobs: &'l mut ArrayVec<SealJob<'j>, BATCH_PACKETS>,
    exits: &'l mut Exits<'j>,
}

/// What was laid out of a group.
#[derive(Clone, Copy)]
struct Done {
    slots: u64,
    inner_bytes: u64,
}

impl<'j, 'w: 'j, 'u: 'j, P: Iterator<Item = (usize, &'j mut Frame<'u>, &'j mut Meta)>> Laying<'_, 'j, 'w, P> {
    /// Writes everything but IV, ciphertext and ICV, and makes the jobs. A function for each layout, whose values then
    /// stay in registers.
    #[inline(never)]
    fn each(
        &mut self,
        lay_out: impl Fn(&mut Frame<'u>, &mut Meta, u64) -> Result<usize, DropReason>,
    ) -> Done {
        let Group { sa, tunnel, .. } = *self.group;
        let (vrf, adjacency, key) = (tunnel.outer_vrf, tunnel.egress(), sa.key());
        let mut done = Done {
            slots: 0,
            inner_bytes: 0,
        };
        for (slot, frame, meta) in self.packets.by_ref() {
            let Some(sequence) = self.numbers.next() else {
                self.exits.discard(slot, DropReason::SequenceExhausted);
                continue;
            };
            let inner_bytes = frame.len() as u64;
            match lay_out(frame, meta, sequence) {
                Ok(at) => {
                    meta.flags.set(Flags::OUTER);
                    meta.vrf = vrf;
                    meta.adjacency = adjacency;
                    done.slots |= 1 << slot;
                    done.inner_bytes += inner_bytes;
                    let packet = frame.bytes_mut().get_mut(at..).unwrap_or_default();
                    self.jobs.push(SealJob::new(key, packet, sequence));
                }
                Err(reason) => self.exits.discard(slot, reason),
            }
        }
        done
    }
}

/// Splits the packets into runs of one SA; what lost its tunnel or SA since the stage before waits like any other.
fn group<'w>(
    batch: &mut Batch<'_>,
    slots: u64,
    context: &Context<'w, '_>,
    groups: &mut ArrayVec<Group<'w>, BATCH_PACKETS>,
) {
    let mut rest = slots;
    while rest != 0 {
        let into = batch.meta(rest.trailing_zeros() as usize % BATCH_PACKETS).into;
        let mut run = 0;
        for slot in Slots::of(rest) {
            if batch.meta(slot).into != into {
                break;
            }
            run |= 1 << slot;
        }
        rest &= !run;
        let tunnel = into.and_then(|index| context.view.tunnel(index));
        match tunnel.and_then(|tunnel| Some((tunnel, context.view.outbound(tunnel)?))) {
            Some((tunnel, sa)) => groups.push(Group {
                sa,
                tunnel,
                slots: run,
            }),
            // It has its GRE header already and must not be routed by that.
            None if tunnel.is_some_and(|tunnel| tunnel.encapsulation != Encapsulation::Esp) => {
                for slot in Slots::of(run) {
                    batch.discard(slot, DropReason::NoOutboundSa);
                }
            }
            None => batch.send_all(run, Next::Hold),
        }
    }
}

/// Counts what a group carries, and tells what it came near to.
fn account(group: &Group<'_>, done: Done, context: &Context<'_, '_>) {
    let (packets, bytes) = (u64::from(done.slots.count_ones()), done.inner_bytes);
    if packets == 0 {
        return;
    }
    let sa = group.sa;
    context.counters.add(WorkerCounter::EspOutPackets, packets);
    context.counters.add(WorkerCounter::EspOutBytes, bytes);
    if let Some(kind) = sa.account(packets, bytes, context.now_seconds(), context.view.guard()) {
        let sa = sa.terms(context.view.guard()).sa;
        context.raise(Event::LifetimeReached { sa, kind });
    }
    if let Some(remaining) = sa.near_end() {
        let sa = sa.terms(context.view.guard()).sa;
        context.raise(Event::SequenceNearEnd { sa, remaining });
    }
}
