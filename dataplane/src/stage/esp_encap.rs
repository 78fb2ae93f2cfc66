//! ESP out: take sequence numbers as runs, lay the packets out, seal the batch.
//!
//! In: [`Next::Encap`]: a packet that fits its tunnel `meta.into`, which has an SA. Out, as an outer packet with its way
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

use super::Context;
use super::esp_layout::{self, TunnelLayout};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Next, Slots};
use crate::sa::{OutboundSa, Tunnel};

/// Packets of one SA that follow each other in the batch.
struct Group<'w> {
    sa: &'w OutboundSa,
    tunnel: &'w Tunnel,
    slots: u64,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Encap);
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
        let mut numbers = sa.reserve(count);
        let layout = TunnelLayout::new(&terms.template, sa.sizes(), group.tunnel);
        let egress = group.tunnel.egress();
        if terms.template.has_udp_checksum() {
            summed |= group.slots;
        }
        let (before, mut bytes) = (jobs.len(), 0);
        for (slot, frame, meta) in packets.by_ref().take(count as usize) {
            let Some(sequence) = numbers.next() else {
                exits.discard(slot, DropReason::SequenceExhausted);
                continue;
            };
            let inner_bytes = frame.len() as u64;
            let laid_out = match sa.mode() {
                Mode::Tunnel => layout.apply(frame, meta, sequence),
                Mode::Transport => esp_layout::transport(frame, meta, &terms.template, sa.sizes(), sequence),
            };
            match laid_out {
                Ok(at) => {
                    meta.flags.set(Flags::OUTER);
                    meta.vrf = group.tunnel.outer_vrf;
                    meta.adjacency = egress;
                    ready |= 1 << slot;
                    bytes += inner_bytes;
                    let packet = frame.bytes_mut().get_mut(at..).unwrap_or_default();
                    jobs.push(SealJob::new(sa.key(), packet, sequence));
                }
                Err(reason) => exits.discard(slot, reason),
            }
        }
        account(group, (jobs.len() - before) as u64, bytes, context);
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
    summed & ready
}

/// Splits the packets into runs of one SA; what lost its tunnel or SA since the stage before waits like any other.
fn group<'w>(
    batch: &mut Batch<'_>,
    slots: u64,
    context: &Context<'w, '_>,
    groups: &mut ArrayVec<Group<'w>, BATCH_PACKETS>,
) {
    let mut before = None;
    for slot in Slots::of(slots) {
        let into = batch.meta(slot).into;
        if before == Some(into)
            && let Some(group) = groups.last_mut()
        {
            group.slots |= 1 << slot;
            continue;
        }
        let tunnel = into.and_then(|index| context.view.tunnel(index));
        let Some((tunnel, sa)) = tunnel.and_then(|tunnel| Some((tunnel, context.view.outbound(tunnel)?)))
        else {
            if tunnel.is_some_and(|tunnel| tunnel.encapsulation != Encapsulation::Esp) {
                // It has its GRE header already and must not be routed by that.
                batch.discard(slot, DropReason::NoOutboundSa);
            } else {
                batch.send(slot, Next::Hold);
            }
            continue;
        };
        before = Some(into);
        groups.push(Group {
            sa,
            tunnel,
            slots: 1 << slot,
        });
    }
}

/// Counts what a group carries, and tells what it came near to.
fn account(group: &Group<'_>, packets: u64, bytes: u64, context: &Context<'_, '_>) {
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
