//! ESP in: find the SA, look at the window, open the batch, commit, take the packet out.
//!
//! In: [`Next::Decap`]: ESP at `meta.upper_bytes`, bare or in UDP. Out: [`Next::PolicyIn`] with the inner packet, or
//! [`Next::Untunnel`] with the GRE, IP or UDP packet of a tunnel that is one of these in ESP, or,
//! where no SA has the SPI, [`Next::PolicyOut`] if the packet is not for us at all.
//!
//! The order is RFC 4303 section 3.4's: SA (3.4.2), window (3.4.3), ICV and text (3.4.4), and only then anything that
//! the packet says of itself. A packet whose ICV is wrong changes nothing: neither the window nor the peer's address.

use arrayvec::ArrayVec;
use esp_aead::{OpenJob, Verdict};
use southbound::{DropReason, Encapsulation, Event, Mode, WorkerCounter};

use super::{Context, esp_inner};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Meta, Next, Slots};
use crate::sa::{InboundSa, InboundTerms, Refusal, Tunnel};
use crate::xsk::Frame;

/// A packet between the window's check and its commit.
struct Opening<'w> {
    sa: &'w InboundSa,
    sequence: u64,
}

/// What a packet says before anything is known of it.
struct Head {
    slot: u8,
    spi: u32,
    sequence_low: u32,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Decap);
    if slots == 0 {
        return;
    }
    let mut heads = ArrayVec::<Head, BATCH_PACKETS>::new();
    for slot in Slots::of(slots) {
        let (bytes, meta) = (batch.bytes(slot), batch.meta(slot));
        match header_at(bytes, meta) {
            Some((spi, sequence_low)) => {
                if heads.last().is_none_or(|before| before.spi != spi) {
                    context.view.prefetch_entry(spi);
                }
                heads.push(Head {
                    slot: slot as u8,
                    spi,
                    sequence_low,
                });
            }
            None => match unfound(bytes, meta, context, DropReason::EspRunt) {
                Miss::Drop(reason) => batch.discard(slot, reason),
                Miss::NotOurs => batch.send(slot, Next::PolicyOut),
            },
        }
    }
    prefetch(&heads, context);
    let mut openings = ArrayVec::<Opening<'_>, BATCH_PACKETS>::new();
    let mut opened_slots = 0;
    // The SA of the packet before: packets of one SA follow each other.
    let mut before: Option<Found<'_>> = None;
    for head in &heads {
        let slot = usize::from(head.slot) % BATCH_PACKETS;
        let (bytes, meta) = (batch.bytes(slot), batch.meta(slot));
        let outcome = match before {
            Some(found) if found.sa.spi() == head.spi => Ok(found),
            _ => find(head.spi, context).map_err(|reason| unfound(bytes, meta, context, reason)),
        };
        match outcome.and_then(|found| {
            before = Some(found);
            look_at(found, head.sequence_low, bytes, meta, context)
        }) {
            Ok(opening) => {
                opened_slots |= 1 << slot;
                openings.push(opening);
            }
            Err(Miss::Drop(reason)) => batch.discard(slot, reason),
            Err(Miss::NotOurs) => batch.send(slot, Next::PolicyOut),
        }
    }
    if opened_slots == 0 {
        return;
    }
    let verdicts = open(batch, opened_slots, &openings);
    finish(batch, opened_slots, &openings, &verdicts, context);
}

/// Starts to load what the packets need of their SAs, a step of pointers at a time.
fn prefetch(heads: &[Head], context: &Context<'_, '_>) {
    let is_single = heads.windows(2).all(|pair| pair[0].spi == pair[1].spi);
    if is_single {
        return;
    }
    for head in heads {
        context.view.prefetch_inbound(head.spi);
    }
    for head in heads {
        if let Some(sa) = context.view.inbound(head.spi) {
            sa.prefetch(head.sequence_low, context.view.guard());
            context.view.prefetch_tunnel(sa.tunnel());
        }
    }
}

/// An SA and what may change of it.
#[derive(Clone, Copy)]
struct Found<'w> {
    sa: &'w InboundSa,
    terms: &'w InboundTerms,
}

#[inline(always)]
fn find<'w>(spi: u32, context: &Context<'w, '_>) -> Result<Found<'w>, DropReason> {
    match context.view.inbound(spi) {
        Some(sa) => Ok(Found {
            sa,
            terms: sa.terms(context.view.guard()),
        }),
        None if spi < 256 => Err(DropReason::SpiReserved),
        None => Err(DropReason::SpiUnknown),
    }
}

enum Miss {
    Drop(DropReason),
    NotOurs,
}

/// SPI and low half of the sequence number.
#[inline(always)]
fn header_at(bytes: &[u8], meta: &Meta) -> Option<(u32, u32)> {
    let header = bytes.get(usize::from(meta.upper_bytes)..)?.first_chunk::<8>()?;
    let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
    Some((
        u32::from_be_bytes([s0, s1, s2, s3]),
        u32::from_be_bytes([n0, n1, n2, n3]),
    ))
}

#[inline(always)]
fn look_at<'w>(
    found: Found<'w>,
    sequence_low: u32,
    bytes: &[u8],
    meta: &Meta,
    context: &Context<'w, '_>,
) -> Result<Opening<'w>, Miss> {
    let Found { sa, terms } = found;
    if !esp_inner::is_addressed_to(bytes, meta, terms.local) {
        return Err(unfound(bytes, meta, context, DropReason::SaDestination));
    }
    if meta.flags.has(Flags::IN_UDP) != terms.udp.is_some() {
        return Err(Miss::Drop(DropReason::EncapsulationMismatch));
    }
    if sa.is_expired() {
        return Err(Miss::Drop(DropReason::SaExpired));
    }
    let sizes = sa.sizes();
    let overhead_bytes = 8 + usize::from(sizes.iv_bytes) + usize::from(sizes.icv_bytes);
    let packet_bytes = bytes.len() - usize::from(meta.upper_bytes);
    // RFC 4303 section 2: at least pad length and next header are encrypted.
    let text_bytes = match packet_bytes.checked_sub(overhead_bytes) {
        Some(text_bytes) if text_bytes >= 2 => text_bytes,
        _ => return Err(Miss::Drop(DropReason::EspRunt)),
    };
    if text_bytes & (usize::from(sizes.align_bytes) - 1) != 0 {
        return Err(Miss::Drop(DropReason::EspAlignment));
    }
    let replay = sa.replay();
    let refused = |refusal| {
        sa.count_replay_drops(1);
        Miss::Drop(refusal_reason(refusal))
    };
    let sequence = replay
        .infer(sequence_low)
        .ok_or(Refusal::TooOld)
        .map_err(refused)?;
    replay.check(sequence).map_err(refused)?;
    Ok(Opening { sa, sequence })
}

/// A packet that no SA takes: dropped if it is to us, routed on if it is not.
#[cold]
fn unfound(bytes: &[u8], meta: &Meta, context: &Context<'_, '_>, reason: DropReason) -> Miss {
    if meta.flags.has(Flags::IN_UDP) || esp_inner::is_for_us(bytes, meta, context) {
        Miss::Drop(reason)
    } else {
        Miss::NotOurs
    }
}

const fn refusal_reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Replayed => DropReason::Replayed,
        Refusal::TooOld => DropReason::TooOld,
    }
}

/// One call of the cipher for all packets.
fn open(batch: &mut Batch<'_>, slots: u64, openings: &[Opening<'_>]) -> ArrayVec<Verdict, BATCH_PACKETS> {
    let mut jobs = ArrayVec::<OpenJob<'_>, BATCH_PACKETS>::new();
    for ((_, frame, meta), opening) in batch.packets_mut(slots).0.zip(openings) {
        let at = usize::from(meta.upper_bytes);
        let packet = frame.bytes_mut().get_mut(at..).unwrap_or_default();
        jobs.push(OpenJob::new(opening.sa.key(), packet, opening.sequence));
    }
    esp_aead::open(&mut jobs);
    jobs.iter().map(|job| job.verdict).collect()
}

fn finish<'w>(
    batch: &mut Batch<'_>,
    slots: u64,
    openings: &[Opening<'w>],
    verdicts: &[Verdict],
    context: &mut Context<'w, '_>,
) {
    let (mut rest, mut at) = (slots, 0);
    // Packets of one SA that follow each other are accepted and counted together.
    while let Some(first) = openings.get(at) {
        let alike = |opening: &&Opening<'w>| std::ptr::eq(opening.sa, first.sa);
        let count = openings[at..].iter().take_while(alike).count();
        let mut slots = 0;
        for slot in Slots::of(rest).take(count) {
            slots |= 1 << slot;
        }
        let run = Run {
            sa: first.sa,
            slots,
            openings: &openings[at..at + count],
            verdicts: &verdicts[at..at + count],
        };
        run.finish(batch, context);
        rest &= !slots;
        at += count;
    }
}

/// Opened packets of one SA that follow each other in the batch.
struct Run<'r, 'w> {
    sa: &'w InboundSa,
    slots: u64,
    openings: &'r [Opening<'w>],
    verdicts: &'r [Verdict],
}

impl<'w> Run<'_, 'w> {
    /// Commits the numbers, takes the inner packets out, counts, and sends the packets on.
    fn finish(&self, batch: &mut Batch<'_>, context: &mut Context<'w, '_>) {
        let sa = self.sa;
        let terms = sa.terms(context.view.guard());
        let authentic = self.authentic(batch);
        let Some(tunnel) = context.view.tunnel(sa.tunnel()) else {
            for slot in Slots::of(authentic) {
                batch.discard(slot, DropReason::SpiUnknown);
            }
            return;
        };
        let fresh = self.commit(batch, authentic);
        let (mut accepted, mut inner_bytes) = (0, 0);
        for slot in Slots::of(fresh) {
            let Some((frame, meta)) = batch.packet_mut(slot) else {
                continue;
            };
            match take_out(frame, meta, sa, terms, tunnel, context) {
                Ok(()) => {
                    accepted |= 1 << slot;
                    inner_bytes += frame.len() as u64;
                }
                Err(reason) => batch.discard(slot, reason),
            }
        }
        self.account(accepted, inner_bytes, context);
        let next = match tunnel.encapsulation {
            Encapsulation::Esp => Next::PolicyIn,
            _ => Next::Untunnel,
        };
        batch.send_all(accepted, next);
    }

    /// The packets whose ICV was right; the others are dropped.
    fn authentic(&self, batch: &mut Batch<'_>) -> u64 {
        if self.verdicts.iter().all(|verdict| *verdict == Verdict::Done) {
            return self.slots;
        }
        let mut authentic = 0;
        for (slot, verdict) in Slots::of(self.slots).zip(self.verdicts) {
            match verdict {
                Verdict::Done => authentic |= 1 << slot,
                Verdict::AuthenticationFailed => {
                    self.sa.count_integrity_failures(1);
                    batch.discard(slot, DropReason::IntegrityFailed);
                }
                Verdict::Pending | Verdict::Malformed => batch.discard(slot, DropReason::EspRunt),
            }
        }
        authentic
    }

    /// The packets whose numbers are new; looked at again, since another worker, or an earlier packet of this batch, may
    /// have had the same number. The others are dropped.
    fn commit(&self, batch: &mut Batch<'_>, authentic: u64) -> u64 {
        let mut numbers = ArrayVec::<u64, BATCH_PACKETS>::new();
        for (slot, opening) in Slots::of(self.slots).zip(self.openings) {
            if authentic & (1 << slot) != 0 {
                numbers.push(opening.sequence);
            }
        }
        let committed = self.sa.replay().commit_all(&numbers);
        if committed.accepted.count_ones() == authentic.count_ones() {
            return authentic;
        }
        let mut fresh = 0;
        for (number, slot) in Slots::of(authentic).enumerate() {
            if committed.accepted & (1 << number) != 0 {
                fresh |= 1 << slot;
                continue;
            }
            self.sa.count_replay_drops(1);
            let refusal = if committed.replayed & (1 << number) != 0 {
                Refusal::Replayed
            } else {
                Refusal::TooOld
            };
            batch.discard(slot, refusal_reason(refusal));
        }
        fresh
    }

    fn account(&self, accepted: u64, inner_bytes: u64, context: &mut Context<'_, '_>) {
        let packets = u64::from(accepted.count_ones());
        if packets == 0 {
            return;
        }
        context.counters.add(WorkerCounter::EspInPackets, packets);
        context.counters.add(WorkerCounter::EspInBytes, inner_bytes);
        let crossing = self
            .sa
            .account(packets, inner_bytes, context.now_seconds(), context.view.guard());
        if let Some(kind) = crossing {
            let sa = self.sa.terms(context.view.guard()).sa;
            context.raise(Event::LifetimeReached { sa, kind });
        }
    }
}

/// Leaves the inner packet alone in the frame, and sees that it may have been in this SA.
#[inline(always)]
fn take_out(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    sa: &InboundSa,
    terms: &InboundTerms,
    tunnel: &Tunnel,
    context: &Context<'_, '_>,
) -> Result<(), DropReason> {
    let (peer, port) = esp_inner::sender(frame.bytes(), meta);
    if terms.has_moved(peer, port) {
        context.raise(Event::PeerMoved {
            sa: terms.sa,
            address: peer,
            port,
        });
    }
    let sizes = sa.sizes();
    let text_start = usize::from(meta.upper_bytes) + 8 + usize::from(sizes.iv_bytes);
    let text_end = frame.len() - usize::from(sizes.icv_bytes);
    match sa.mode() {
        Mode::Tunnel => esp_inner::unwrap_tunnel(frame, meta, text_start, text_end)?,
        Mode::Transport => {
            let carries_ip = tunnel.encapsulation == Encapsulation::Ip;
            esp_inner::unwrap_transport(frame, meta, text_start, text_end, carries_ip)?;
        }
    }
    meta.vrf = tunnel.inner_vrf;
    meta.out_of = Some(sa.tunnel());
    if !esp_inner::is_admitted_by_address(frame.bytes(), meta, &terms.selectors) {
        let flow = esp_inner::flow(frame.bytes())?;
        if !terms.selectors.admit(&flow) {
            sa.count_selector_drops(1);
            return Err(DropReason::SelectorMismatch);
        }
    }
    Ok(())
}
