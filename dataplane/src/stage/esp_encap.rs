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
use southbound::{DropReason, Event, Mode, WorkerCounter};

use super::{Context, esp_layout};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Next, Slots};
use crate::sa::{OutboundSa, Run, Tunnel};

/// Packets of one SA that follow each other in the batch.
struct Group<'w> {
    sa: &'w OutboundSa,
    tunnel: &'w Tunnel,
    slots: u64,
}

/// A packet that is laid out.
struct Sealing<'w> {
    sa: &'w OutboundSa,
    sequence: u64,
    at: usize,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Encap);
    if slots == 0 {
        return;
    }
    let groups = group(batch, slots, context);
    let mut sealings = ArrayVec::<Sealing<'_>, BATCH_PACKETS>::new();
    let mut sealed_slots = 0;
    for group in &groups {
        sealed_slots |= lay_out_group(batch, group, &mut sealings, context);
    }
    if sealed_slots == 0 {
        return;
    }
    let verdicts = seal(batch, sealed_slots, &sealings);
    for (slot, verdict) in Slots::of(sealed_slots).zip(verdicts) {
        match verdict {
            Verdict::Done => batch.send(slot, Next::Egress),
            // The lengths are this stage's own: cannot happen, and does not leave in clear if it does.
            _ => batch.discard(slot, DropReason::NoHeadroom),
        }
    }
}

/// Splits the packets into runs of one SA; what lost its tunnel or SA since the stage before waits like any other.
fn group<'w>(
    batch: &mut Batch<'_>,
    slots: u64,
    context: &Context<'w, '_>,
) -> ArrayVec<Group<'w>, BATCH_PACKETS> {
    let mut groups = ArrayVec::<Group<'w>, BATCH_PACKETS>::new();
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
            batch.send(slot, Next::Hold);
            continue;
        };
        before = Some(into);
        groups.push(Group {
            sa,
            tunnel,
            slots: 1 << slot,
        });
    }
    groups
}

/// Writes everything but IV, ciphertext and ICV; answers which packets are ready.
fn lay_out_group<'w>(
    batch: &mut Batch<'_>,
    group: &Group<'w>,
    sealings: &mut ArrayVec<Sealing<'w>, BATCH_PACKETS>,
    context: &mut Context<'w, '_>,
) -> u64 {
    let sa = group.sa;
    let terms = sa.terms(context.view.guard());
    let mut numbers: Run = sa.reserve(group.slots.count_ones());
    let mut ready = 0;
    let (mut packets, mut bytes) = (0, 0);
    for slot in Slots::of(group.slots) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let Some(sequence) = numbers.next() else {
            batch.discard(slot, DropReason::SequenceExhausted);
            continue;
        };
        let inner_bytes = frame.len() as u64;
        let laid_out = match sa.mode() {
            Mode::Tunnel => {
                esp_layout::tunnel(frame, meta, &terms.template, sa.sizes(), group.tunnel, sequence)
            }
            Mode::Transport => esp_layout::transport(frame, meta, &terms.template, sa.sizes(), sequence),
        };
        match laid_out {
            Ok(at) => {
                meta.flags.set(Flags::OUTER);
                meta.vrf = group.tunnel.outer_vrf;
                meta.adjacency = group.tunnel.egress();
                ready |= 1 << slot;
                packets += 1;
                bytes += inner_bytes;
                sealings.push(Sealing { sa, sequence, at });
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    if packets != 0 {
        context.counters.add(WorkerCounter::EspOutPackets, packets);
        context.counters.add(WorkerCounter::EspOutBytes, bytes);
        if let Some(kind) = sa.account(packets, bytes, context.now_seconds(), context.view.guard()) {
            context.raise(Event::LifetimeReached { sa: terms.sa, kind });
        }
        if let Some(remaining) = sa.near_end() {
            context.raise(Event::SequenceNearEnd {
                sa: terms.sa,
                remaining,
            });
        }
    }
    ready
}

/// One call of the cipher for all packets.
fn seal(batch: &mut Batch<'_>, slots: u64, sealings: &[Sealing<'_>]) -> ArrayVec<Verdict, BATCH_PACKETS> {
    let mut jobs = ArrayVec::<SealJob<'_>, BATCH_PACKETS>::new();
    for ((_, frame, _), sealing) in batch.packets_mut(slots).zip(sealings) {
        let packet = frame.bytes_mut().get_mut(sealing.at..).unwrap_or_default();
        jobs.push(SealJob::new(sealing.sa.key(), packet, sealing.sequence));
    }
    esp_aead::seal(&mut jobs);
    jobs.iter().map(|job| job.verdict).collect()
}
