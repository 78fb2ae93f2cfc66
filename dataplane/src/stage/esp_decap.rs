//! ESP in: find the SA, look at the window, open the batch, commit, take the packet out.
//!
//! In: [`Next::Decap`]: ESP at `meta.upper_bytes`, bare or in UDP. Out: [`Next::PolicyIn`] with the inner packet, or
//! [`Next::Untunnel`] with the GRE, IP or UDP packet of a tunnel that is one of these in ESP, or,
//! where no SA has the SPI, [`Next::PolicyOut`] if the packet is not for us at all.
//!
//! The order is RFC 4303 section 3.4's: SA (3.4.2), window (3.4.3), ICV and text (3.4.4), and only then anything that
//! the packet says of itself. A packet whose ICV is wrong changes nothing: neither the window nor the peer's address.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use esp_aead::{OpenJob, OpenKey, Verdict};
use southbound::{DropReason, Encapsulation, Event, Mode, WorkerCounter};

use super::{Context, esp_inner};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Meta, Next, Slots};
use crate::sa::{InboundSa, InboundTerms, Refusal, Tunnel};
use crate::xsk::Frame;

/// Packets of one SPI that follow each other.
struct Heads {
    spi: u32,
    count: u32,
}

/// What the packets say of themselves.
#[derive(Default)]
struct Headed {
    slots: u64,
    runs: ArrayVec<Heads, BATCH_PACKETS>,
    /// The low halves of the sequence numbers.
    sequences: ArrayVec<u32, BATCH_PACKETS>,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Decap);
    if slots == 0 {
        return;
    }
    let mut headed = Headed::default();
    headed.read(batch, slots, context);
    headed.prefetch(context);
    let mut runs = ArrayVec::<Run<'_>, BATCH_PACKETS>::new();
    let mut numbers = ArrayVec::<u64, BATCH_PACKETS>::new();
    let failed = open(batch, &headed, &mut runs, &mut numbers, context);
    for run in &runs {
        run.finish(batch, &numbers, failed, context);
    }
}

impl Headed {
    /// Reads the header of each packet that is long enough to have one.
    #[inline(never)]
    fn read(&mut self, batch: &mut Batch<'_>, slots: u64, context: &Context<'_, '_>) {
        for slot in Slots::of(slots) {
            let (bytes, meta) = (batch.bytes(slot), batch.meta(slot));
            let Some((spi, sequence_low)) = header_at(bytes, meta) else {
                match unfound(bytes, meta, context, DropReason::EspRunt) {
                    Miss::Drop(reason) => batch.discard(slot, reason),
                    Miss::NotOurs => batch.send(slot, Next::PolicyOut),
                }
                continue;
            };
            self.slots |= 1 << slot;
            self.sequences.push(sequence_low);
            match self.runs.last_mut() {
                Some(run) if run.spi == spi => run.count += 1,
                _ => {
                    context.view.prefetch_entry(spi);
                    self.runs.push(Heads { spi, count: 1 });
                }
            }
        }
    }

    /// Starts to load what the packets need of their SAs, where there is more than one, a step of pointers at a time.
    #[inline(always)]
    fn prefetch(&self, context: &Context<'_, '_>) {
        if self.runs.len() < 2 {
            return;
        }
        for run in &self.runs {
            context.view.prefetch_inbound(run.spi);
        }
        let mut at = 0;
        for run in &self.runs {
            if let (Some(sa), Some(sequence_low)) = (context.view.inbound(run.spi), self.sequences.get(at)) {
                sa.prefetch(*sequence_low, context.view.guard());
                context.view.prefetch_tunnel(sa.tunnel());
            }
            at += run.count as usize;
        }
    }
}

/// Looks every packet's SA and window up, and opens in one call of the cipher all that may be opened. Answers which of
/// `numbers` were not authentic: a bit for each, the first one lowest.
#[inline(always)]
fn open<'w>(
    batch: &mut Batch<'_>,
    headed: &Headed,
    runs: &mut ArrayVec<Run<'w>, BATCH_PACKETS>,
    numbers: &mut ArrayVec<u64, BATCH_PACKETS>,
    context: &Context<'w, '_>,
) -> Failed {
    let mut jobs = ArrayVec::<OpenJob<'_>, BATCH_PACKETS>::new();
    let (mut packets, mut exits) = batch.packets_mut(headed.slots);
    let mut sequences = headed.sequences.iter();
    for heads in &headed.runs {
        let found = find(heads.spi, context);
        let mut run = found
            .as_ref()
            .ok()
            .map(|expecting| Run::new(expecting, jobs.len()));
        let sequences = sequences.by_ref().take(heads.count as usize);
        for (sequence_low, (slot, frame, meta)) in sequences.zip(packets.by_ref()) {
            let outcome = match &found {
                Ok(expecting) => expecting.look_at(*sequence_low, frame.bytes(), meta, context),
                Err(reason) => Err(unfound(frame.bytes(), meta, context, *reason)),
            };
            match outcome {
                Ok((key, sequence)) => {
                    if let Some(run) = &mut run {
                        run.slots |= 1 << slot;
                    }
                    numbers.push(sequence);
                    let at = usize::from(meta.upper_bytes);
                    let packet = frame.bytes_mut().get_mut(at..).unwrap_or_default();
                    jobs.push(OpenJob::new(key, packet, sequence));
                }
                Err(Miss::Drop(reason)) => exits.discard(slot, reason),
                Err(Miss::NotOurs) => exits.send(slot, Next::PolicyOut),
            }
        }
        runs.extend(run.filter(|run| run.slots != 0));
    }
    esp_aead::open(&mut jobs);
    let mut failed = Failed::default();
    for (number, job) in jobs.iter().enumerate() {
        if job.verdict != Verdict::Done {
            failed.note(number, job.verdict);
        }
    }
    failed
}

/// Packets that the cipher did not open: a bit for each that it was given, the first one lowest.
#[derive(Clone, Copy, Default)]
struct Failed {
    forged: u64,
    malformed: u64,
}

impl Failed {
    #[cold]
    fn note(&mut self, number: usize, verdict: Verdict) {
        match verdict {
            Verdict::AuthenticationFailed => self.forged |= 1 << number,
            _ => self.malformed |= 1 << number,
        }
    }
}

/// An SA, and what its packets are held against.
struct Expecting<'w> {
    sa: &'w InboundSa,
    terms: &'w InboundTerms,
    /// Where the usual packet is for: our address over IPv4, without UDP.
    usual_destination: Option<[u8; 4]>,
    overhead_bytes: usize,
    align_mask: usize,
}

#[inline(always)]
fn find<'w>(spi: u32, context: &Context<'w, '_>) -> Result<Expecting<'w>, DropReason> {
    let Some(sa) = context.view.inbound(spi) else {
        return Err(if spi < 256 {
            DropReason::SpiReserved
        } else {
            DropReason::SpiUnknown
        });
    };
    let sizes = sa.sizes();
    let terms = sa.terms(context.view.guard());
    Ok(Expecting {
        sa,
        terms,
        usual_destination: match (terms.local, terms.udp) {
            (IpAddr::V4(local), None) if !sa.is_expired() => Some(local.octets()),
            _ => None,
        },
        overhead_bytes: 8 + usize::from(sizes.iv_bytes) + usize::from(sizes.icv_bytes),
        align_mask: usize::from(sizes.align_bytes) - 1,
    })
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

impl<'w> Expecting<'w> {
    /// Key and number to open a packet with.
    #[inline(always)]
    fn look_at(
        &self,
        sequence_low: u32,
        bytes: &[u8],
        meta: &Meta,
        context: &Context<'_, '_>,
    ) -> Result<(&'w OpenKey, u64), Miss> {
        let sa = self.sa;
        let is_usual = !meta.flags.has_any(Flags::IPV6.or(Flags::IN_UDP))
            && self
                .usual_destination
                .is_some_and(|local| bytes.get(16..20) == Some(&local[..]));
        if !is_usual {
            self.look_at_ends(bytes, meta, context)?;
        }
        let packet_bytes = bytes.len() - usize::from(meta.upper_bytes);
        // RFC 4303 section 2: at least pad length and next header are encrypted.
        let text_bytes = match packet_bytes.checked_sub(self.overhead_bytes) {
            Some(text_bytes) if text_bytes >= 2 => text_bytes,
            _ => return Err(Miss::Drop(DropReason::EspRunt)),
        };
        if text_bytes & self.align_mask != 0 {
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
        Ok((sa.key(), sequence))
    }

    /// Whether a packet is for this end of the SA, and the SA may take it.
    #[inline(never)]
    fn look_at_ends(&self, bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> Result<(), Miss> {
        let terms = self.terms;
        if !esp_inner::is_addressed_to(bytes, meta, terms.local) {
            return Err(unfound(bytes, meta, context, DropReason::SaDestination));
        }
        if meta.flags.has(Flags::IN_UDP) != terms.udp.is_some() {
            return Err(Miss::Drop(DropReason::EncapsulationMismatch));
        }
        if self.sa.is_expired() {
            return Err(Miss::Drop(DropReason::SaExpired));
        }
        Ok(())
    }
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

/// Packets of one SA that follow each other in the batch and were opened.
struct Run<'w> {
    sa: &'w InboundSa,
    terms: &'w InboundTerms,
    slots: u64,
    /// Which of the numbers is its first.
    first: usize,
}

impl<'w> Run<'w> {
    #[inline(always)]
    fn new(expecting: &Expecting<'w>, first: usize) -> Self {
        Self {
            sa: expecting.sa,
            terms: expecting.terms,
            slots: 0,
            first,
        }
    }

    /// Commits the numbers, takes the inner packets out, counts, and sends the packets on.
    #[inline(never)]
    fn finish(&self, batch: &mut Batch<'_>, numbers: &[u64], failed: Failed, context: &mut Context<'w, '_>) {
        let count = self.slots.count_ones() as usize;
        let numbers = numbers.get(self.first..self.first + count).unwrap_or_default();
        let Some(tunnel) = context.view.tunnel(self.sa.tunnel()) else {
            for slot in Slots::of(self.slots) {
                batch.discard(slot, DropReason::SpiUnknown);
            }
            return;
        };
        let own = u64::MAX >> (BATCH_PACKETS - count) << self.first;
        let fresh = if (failed.forged | failed.malformed) & own == 0 {
            self.commit(batch, self.slots, numbers)
        } else {
            self.commit_authentic(batch, numbers, failed)
        };
        let leaving = Leaving::new(self.sa, self.terms, tunnel);
        let (mut accepted, mut inner_bytes) = (0, 0);
        for slot in Slots::of(fresh) {
            let Some((frame, meta)) = batch.packet_mut(slot) else {
                continue;
            };
            match leaving.take_out(frame, meta, context) {
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

    /// Drops the packets whose ICV was wrong and commits the others.
    #[cold]
    fn commit_authentic(&self, batch: &mut Batch<'_>, numbers: &[u64], failed: Failed) -> u64 {
        let mut authentic = 0;
        let mut own = ArrayVec::<u64, BATCH_PACKETS>::new();
        for ((place, slot), number) in (self.first..).zip(Slots::of(self.slots)).zip(numbers) {
            if failed.forged & (1 << place) != 0 {
                self.sa.count_integrity_failures(1);
                batch.discard(slot, DropReason::IntegrityFailed);
            } else if failed.malformed & (1 << place) != 0 {
                batch.discard(slot, DropReason::EspRunt);
            } else {
                authentic |= 1 << slot;
                own.push(*number);
            }
        }
        self.commit(batch, authentic, &own)
    }

    /// The packets whose numbers are new; looked at again, since another worker, or an earlier packet of this batch, may
    /// have had the same number. The others are dropped.
    #[inline(always)]
    fn commit(&self, batch: &mut Batch<'_>, authentic: u64, numbers: &[u64]) -> u64 {
        let committed = self.sa.replay().commit_all(numbers);
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

    #[inline(always)]
    fn account(&self, accepted: u64, inner_bytes: u64, context: &Context<'_, '_>) {
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
            context.raise(Event::LifetimeReached {
                sa: self.terms.sa,
                kind,
            });
        }
    }
}

/// How the packets of a run are taken out of ESP.
struct Leaving<'w> {
    sa: &'w InboundSa,
    terms: &'w InboundTerms,
    tunnel: &'w Tunnel,
    /// Where the usual packet is from, in tunnel mode: the peer over IPv4 without UDP.
    usual_sender: Option<[u8; 4]>,
    behind_header_bytes: usize,
    icv_bytes: usize,
}

impl<'w> Leaving<'w> {
    #[inline(always)]
    fn new(sa: &'w InboundSa, terms: &'w InboundTerms, tunnel: &'w Tunnel) -> Self {
        let sizes = sa.sizes();
        Self {
            sa,
            terms,
            tunnel,
            usual_sender: match (sa.mode(), terms.remote, terms.udp) {
                (Mode::Tunnel, IpAddr::V4(remote), None) => Some(remote.octets()),
                _ => None,
            },
            behind_header_bytes: 8 + usize::from(sizes.iv_bytes),
            icv_bytes: usize::from(sizes.icv_bytes),
        }
    }

    /// Leaves the inner packet alone in the frame, and sees that it may have been in this SA.
    #[inline(always)]
    fn take_out(
        &self,
        frame: &mut Frame<'_>,
        meta: &mut Meta,
        context: &Context<'_, '_>,
    ) -> Result<(), DropReason> {
        let text_start = usize::from(meta.upper_bytes) + self.behind_header_bytes;
        let text_end = frame.len() - self.icv_bytes;
        meta.vrf = self.tunnel.inner_vrf;
        meta.out_of = Some(self.sa.tunnel());
        if let Some(sender) = self.usual_sender
            && esp_inner::unwrap_usual(frame, meta, sender, text_start..text_end, &self.terms.selectors)
        {
            return Ok(());
        }
        self.take_out_any(frame, meta, text_start, text_end, context)
    }

    #[inline(never)]
    fn take_out_any(
        &self,
        frame: &mut Frame<'_>,
        meta: &mut Meta,
        text_start: usize,
        text_end: usize,
        context: &Context<'_, '_>,
    ) -> Result<(), DropReason> {
        let (peer, port) = esp_inner::sender(frame.bytes(), meta);
        if self.terms.has_moved(peer, port) {
            context.raise(Event::PeerMoved {
                sa: self.terms.sa,
                address: peer,
                port,
            });
        }
        match self.sa.mode() {
            Mode::Tunnel => esp_inner::unwrap_tunnel(frame, meta, text_start, text_end)?,
            Mode::Transport => {
                let carries_ip = self.tunnel.encapsulation == Encapsulation::Ip;
                esp_inner::unwrap_transport(frame, meta, text_start, text_end, carries_ip)?;
            }
        }
        let selectors = &self.terms.selectors;
        if !esp_inner::is_admitted_by_address(frame.bytes(), meta, selectors) {
            let flow = esp_inner::flow(frame.bytes())?;
            if !selectors.admit(&flow) {
                self.sa.count_selector_drops(1);
                return Err(DropReason::SelectorMismatch);
            }
        }
        Ok(())
    }
}
