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
use crate::sa::{InboundSa, Refusal};
use crate::xsk::Frame;

/// A packet between the window's check and its commit.
struct Opening<'w> {
    sa: &'w InboundSa,
    sequence: u64,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Decap);
    if slots == 0 {
        return;
    }
    for slot in Slots::of(slots) {
        if let Some((spi, _)) = header_at(batch.bytes(slot), batch.meta(slot)) {
            context.view.prefetch_entry(spi);
        }
    }
    for slot in Slots::of(slots) {
        if let Some((spi, _)) = header_at(batch.bytes(slot), batch.meta(slot)) {
            context.view.prefetch_inbound(spi);
        }
    }
    let mut openings = ArrayVec::<Opening<'_>, BATCH_PACKETS>::new();
    let mut opened_slots = 0;
    for slot in Slots::of(slots) {
        match look_up(batch.bytes(slot), batch.meta(slot), context) {
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
fn look_up<'w>(bytes: &[u8], meta: &Meta, context: &Context<'w, '_>) -> Result<Opening<'w>, Miss> {
    let Some((spi, sequence_low)) = header_at(bytes, meta) else {
        return Err(unfound(bytes, meta, context, DropReason::EspRunt));
    };
    let Some(sa) = context.view.inbound(spi) else {
        let reason = if spi < 256 {
            DropReason::SpiReserved
        } else {
            DropReason::SpiUnknown
        };
        return Err(unfound(bytes, meta, context, reason));
    };
    let terms = sa.terms(context.view.guard());
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

/// Packets of one SA that follow each other, counted together.
struct Tally<'w> {
    sa: &'w InboundSa,
    packets: u64,
    bytes: u64,
}

impl Tally<'_> {
    fn account(&self, context: &mut Context<'_, '_>) {
        if self.packets == 0 {
            return;
        }
        context.counters.add(WorkerCounter::EspInPackets, self.packets);
        context.counters.add(WorkerCounter::EspInBytes, self.bytes);
        if let Some(kind) = self.sa.account(
            self.packets,
            self.bytes,
            context.now_seconds(),
            context.view.guard(),
        ) {
            let sa = self.sa.terms(context.view.guard()).sa;
            context.raise(Event::LifetimeReached { sa, kind });
        }
    }
}

fn finish<'w>(
    batch: &mut Batch<'_>,
    slots: u64,
    openings: &[Opening<'w>],
    verdicts: &[Verdict],
    context: &mut Context<'w, '_>,
) {
    let mut tally: Option<Tally<'w>> = None;
    let (mut accepted, mut tunnelled) = (0, 0);
    for ((slot, opening), verdict) in Slots::of(slots).zip(openings).zip(verdicts) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        match take_out(frame, meta, opening, *verdict, context) {
            Ok(next) => {
                match next {
                    Next::Untunnel => tunnelled |= 1 << slot,
                    _ => accepted |= 1 << slot,
                }
                let bytes = frame.len() as u64;
                match &mut tally {
                    Some(tally) if std::ptr::eq(tally.sa, opening.sa) => {
                        tally.packets += 1;
                        tally.bytes += bytes;
                    }
                    _ => {
                        let fresh = Tally {
                            sa: opening.sa,
                            packets: 1,
                            bytes,
                        };
                        if let Some(done) = tally.replace(fresh) {
                            done.account(context);
                        }
                    }
                }
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    if let Some(done) = tally {
        done.account(context);
    }
    batch.send_all(accepted, Next::PolicyIn);
    batch.send_all(tunnelled, Next::Untunnel);
}

#[inline(always)]
fn take_out(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    opening: &Opening<'_>,
    verdict: Verdict,
    context: &mut Context<'_, '_>,
) -> Result<Next, DropReason> {
    let sa = opening.sa;
    match verdict {
        Verdict::Done => {}
        Verdict::AuthenticationFailed => {
            sa.count_integrity_failures(1);
            return Err(DropReason::IntegrityFailed);
        }
        Verdict::Pending | Verdict::Malformed => return Err(DropReason::EspRunt),
    }
    // Looked at again: another worker, or an earlier packet of this batch, may have had the same number.
    sa.replay().commit(opening.sequence).map_err(|refusal| {
        sa.count_replay_drops(1);
        refusal_reason(refusal)
    })?;
    let terms = sa.terms(context.view.guard());
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
    let Some(tunnel) = context.view.tunnel(sa.tunnel()) else {
        return Err(DropReason::SpiUnknown);
    };
    let next_header = match sa.mode() {
        Mode::Tunnel => esp_inner::unwrap_tunnel(frame, meta, text_start, text_end),
        Mode::Transport => {
            let carries_ip = tunnel.encapsulation == Encapsulation::Ip;
            esp_inner::unwrap_transport(frame, meta, text_start, text_end, carries_ip)
        }
    };
    next_header?;
    meta.vrf = tunnel.inner_vrf;
    meta.out_of = Some(sa.tunnel());
    if !esp_inner::is_admitted_by_address(frame.bytes(), meta, &terms.selectors) {
        let flow = esp_inner::flow(frame.bytes())?;
        if !terms.selectors.admit(&flow) {
            sa.count_selector_drops(1);
            return Err(DropReason::SelectorMismatch);
        }
    }
    Ok(match tunnel.encapsulation {
        Encapsulation::Esp => Next::PolicyIn,
        _ => Next::Untunnel,
    })
}
