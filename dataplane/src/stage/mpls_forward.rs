//! Labels: swap, push, pop, or pop and route (RFC 3031 section 3.18, RFC 3032).
//!
//! In: [`Next::Labels`]: a packet whose first bytes are a label stack of the space `meta.space`. Out, by what its top label
//! says: [`Next::Egress`] or [`Next::Midchain`] with other labels or none, [`Next::PolicyOut`] or [`Next::PolicyIn`] with
//! the IP packet that was beneath them and the routing table that they named, [`Next::Punt`].
//!
//! A packet is looked at as a whole before anything of it is changed, so that an error can quote it as it came (RFC 4950).
//! One TTL is taken in all, whatever the number of labels (RFC 3443 section 3.5).
//!
//! | label | |
//! |---|---|
//! | 0, 2 explicit null | popped; beneath the last one must be IPv4, IPv6 |
//! | 1 router alert | IP packets to this gateway, or to a loopback address as of RFC 8029, go to the host |
//! | 7 entropy indicator | popped with the entropy label beneath it (RFC 6790 section 4.4) |
//! | other reserved ones | dropped |
//! | 16 and above | as the incoming label map says |

use southbound::{DropReason, LabelSpaceId, PopClass, WorkerCounter};
use wire::mpls::{LSE_BYTES, MAX_DEPTH};
use wire::{Label, Lse};

use super::label_stack::{self, Replacement};
use super::{Context, fit, label_payload, way};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Meta, Next, SenderError, Slots};
use crate::tables::{AdjacencyIndex, LabelAction};
use crate::xsk::Frame;

/// Why a packet does not go on.
pub(super) enum Stop {
    /// For a reason.
    Drop(DropReason),
    /// For a reason that its sender is told.
    Refuse(DropReason, SenderError),
    /// The IP packet beneath the labels may have this many bytes.
    TooBig(u16),
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Labels handled in a batch.
#[derive(Default)]
struct Handled {
    pushed: u64,
    swapped: u64,
    popped: u64,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Labels);
    if slots == 0 {
        return;
    }
    if are_mixed(batch, slots) {
        for slot in Slots::of(slots) {
            if let Some(top) = entry_at(batch.bytes(slot), 0) {
                context.view.prefetch_label(batch.meta(slot).space, top.label);
            }
        }
    }
    let mut handled = Handled::default();
    let mut run = Run::default();
    let mut before = way::Before::default();
    let (mut leaving, mut routed) = (0, 0);
    for slot in Slots::of(slots) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        match usual(frame, meta, &mut run, &mut before, context) {
            Some(Next::Egress) => leaving |= 1 << slot,
            Some(Next::PolicyOut) => routed |= 1 << slot,
            Some(next) => {
                handled.popped += 1;
                batch.send(slot, next);
            }
            None => unusual(batch, slot, context, &mut handled),
        }
    }
    run.count(context);
    batch.send_all(leaving, Next::Egress);
    batch.send_all(routed, Next::PolicyOut);
    handled.swapped += u64::from(leaving.count_ones());
    handled.popped += u64::from(routed.count_ones());
    let counters = context.counters;
    for (counter, count) in [
        (WorkerCounter::MplsPush, handled.pushed),
        (WorkerCounter::MplsSwap, handled.swapped),
        (WorkerCounter::MplsPop, handled.popped),
    ] {
        if count != 0 {
            counters.add(counter, count);
        }
    }
}

/// The entry at a place.
#[inline(always)]
fn entry_at(bytes: &[u8], at: usize) -> Option<Lse> {
    let entry = bytes.get(at..)?.first_chunk::<LSE_BYTES>()?;
    Some(Lse::from_bytes(*entry))
}

/// Bytes of the stack, down to its bottom.
///
/// # Errors
/// [`DropReason::LabelStackTruncated`] and [`DropReason::LabelStackTooDeep`].
#[inline(always)]
pub(super) fn stack_bytes(bytes: &[u8]) -> Result<usize, DropReason> {
    let (entries, _) = bytes.as_chunks::<LSE_BYTES>();
    for (depth, entry) in (1..=MAX_DEPTH).zip(entries) {
        if entry[2] & 1 != 0 {
            return Ok(depth * LSE_BYTES);
        }
    }
    if entries.len() < MAX_DEPTH {
        Err(DropReason::LabelStackTruncated)
    } else {
        Err(DropReason::LabelStackTooDeep)
    }
}

/// Whether the packets seem to have several labels, by the first two and the last: a wrong guess costs time only.
#[inline(always)]
fn are_mixed(batch: &Batch<'_>, slots: u64) -> bool {
    let label = |slot: usize| entry_at(batch.bytes(slot), 0).map(|top| top.label);
    let mut ahead = Slots::of(slots);
    match (ahead.next(), ahead.next()) {
        (Some(first), Some(second)) => {
            let last = BATCH_PACKETS - 1 - slots.leading_zeros() as usize;
            label(first) != label(second) || label(first) != label(last)
        }
        _ => false,
    }
}

/// Packets of one label: they follow each other, are looked up once and counted together.
struct Run {
    space: LabelSpaceId,
    label: Label,
    action: Option<LabelAction>,
    is_uniform: bool,
    class: PopClass,
    packets: u64,
    bytes: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            space: LabelSpaceId::PLATFORM,
            // Nobody looks for what is done with a reserved label.
            label: Label::IMPLICIT_NULL,
            action: None,
            is_uniform: false,
            class: PopClass::Keep,
            packets: 0,
            bytes: 0,
        }
    }
}

impl Run {
    #[inline(always)]
    fn of(space: LabelSpaceId, label: Label, context: &Context<'_, '_>) -> Self {
        let known = context.view.label(space, label);
        Self {
            space,
            label,
            action: known.action(),
            is_uniform: known.is_uniform(),
            class: known.class(),
            packets: 0,
            bytes: 0,
        }
    }

    #[inline(always)]
    fn count(&self, context: &Context<'_, '_>) {
        if self.packets != 0 {
            context
                .view
                .count_label(self.space, self.label, self.packets, self.bytes);
        }
    }
}

/// What most packets want: another label and out to a neighbour, or the last label taken off and the packet routed.
/// `None` says nothing, and then nothing was changed.
#[inline(always)]
fn usual(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    run: &mut Run,
    before: &mut way::Before,
    context: &Context<'_, '_>,
) -> Option<Next> {
    let top = entry_at(frame.bytes(), 0)?;
    if top.label.is_reserved() || top.ttl <= 1 {
        return None;
    }
    if run.label != top.label || run.space != meta.space {
        run.count(context);
        *run = Run::of(meta.space, top.label, context);
    }
    let left = top.ttl - 1;
    let labelled_bytes = frame.len();
    let next = match run.action? {
        LabelAction::Swap(label, link) if label != Label::IMPLICIT_NULL => {
            fits(labelled_bytes, 0, before.mtu_bytes(link, context)).ok()?;
            if !top.bottom {
                stack_bytes(frame.bytes()).ok()?;
            }
            let swapped = Lse {
                label,
                ttl: left,
                ..top
            };
            *frame.bytes_mut().first_chunk_mut()? = swapped.to_bytes();
            meta.adjacency = link;
            Next::Egress
        }
        LabelAction::Lookup(vrf) if top.bottom => {
            let popped = Popped {
                ttl: run.is_uniform.then_some(left),
                traffic_class: top.traffic_class,
                class: run.class,
            };
            label_payload::route(frame, meta, LSE_BYTES, vrf, &popped, context).ok()?
        }
        _ => return None,
    };
    run.packets += 1;
    run.bytes += labelled_bytes as u64;
    Some(next)
}

/// Any packet. Apart from the loop above, whose values then stay in registers.
#[inline(never)]
fn unusual<'u>(batch: &mut Batch<'u>, slot: usize, context: &mut Context<'_, 'u>, handled: &mut Handled) {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return;
    };
    match forward(frame, meta, context, handled) {
        Ok(next) => batch.send(slot, next),
        Err(Stop::Drop(reason)) => batch.discard(slot, reason),
        Err(Stop::Refuse(reason, error)) => batch.refuse(slot, reason, error),
        Err(Stop::TooBig(mtu_bytes)) => {
            fit::shrink(batch, slot, mtu_bytes, Next::Labels, context);
        }
    }
}

const EXPIRED: Stop = Stop::Refuse(DropReason::LabelTtlExceeded, SenderError::TimeExceeded);

fn forward(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    context: &Context<'_, '_>,
    handled: &mut Handled,
) -> Result<Next, Stop> {
    let end = stack_bytes(frame.bytes())?;
    let mut at = 0;
    // What labels above have left of the TTL, where it passes down.
    let mut above: Option<u8> = None;
    loop {
        let Some(entry) = entry_at(frame.bytes(), at) else {
            return Err(DropReason::LabelStackTruncated.into());
        };
        let beneath = at + LSE_BYTES;
        let is_bottom = beneath == end;
        if entry.label == Label::ENTROPY_INDICATOR {
            // Neither of the two has a TTL of its own (RFC 6790 section 4.2).
            if is_bottom {
                return Err(DropReason::LabelReserved.into());
            }
            at += 2 * LSE_BYTES;
            handled.popped += 2;
            if at == end {
                let vrf = meta.vrf;
                return label_payload::route(frame, meta, end, vrf, &Popped::of(&entry, above), context);
            }
            continue;
        }
        let left = entry.ttl.saturating_sub(1).min(above.unwrap_or(u8::MAX));
        if left == 0 && entry.label != Label::ROUTER_ALERT {
            return Err(EXPIRED);
        }
        if entry.label.is_reserved() {
            let version = match entry.label {
                Label::IPV4_EXPLICIT_NULL => 4,
                Label::IPV6_EXPLICIT_NULL => 6,
                Label::ROUTER_ALERT => return label_payload::alert(frame, meta, end, context),
                _ => return Err(DropReason::LabelReserved.into()),
            };
            handled.popped += 1;
            at = beneath;
            above = Some(left);
            if is_bottom {
                if frame.bytes().get(end).is_none_or(|first| first >> 4 != version) {
                    return Err(DropReason::LabelPayload.into());
                }
                let vrf = meta.vrf;
                return label_payload::route(frame, meta, end, vrf, &Popped::of(&entry, above), context);
            }
            continue;
        }
        let known = context.view.label(meta.space, entry.label);
        let action = known.action().ok_or(DropReason::LabelUnknown)?;
        let count = |frame: &Frame<'_>| {
            context
                .view
                .count_label(meta.space, entry.label, 1, (frame.len() - at) as u64);
        };
        let popped = Popped {
            ttl: known.is_uniform().then_some(left),
            traffic_class: entry.traffic_class,
            class: known.class(),
        };
        match action {
            LabelAction::Swap(label, link) if label != Label::IMPLICIT_NULL => {
                fits(frame.len() - at, end - at, way::mtu_bytes(link, context))?;
                count(frame);
                handled.swapped += 1;
                let swapped = Lse {
                    label,
                    traffic_class: entry.traffic_class,
                    bottom: is_bottom,
                    ttl: left,
                };
                if at != 0 && !frame.shrink_front(at) {
                    return Err(DropReason::LabelStackTruncated.into());
                }
                if let Some(top) = frame.bytes_mut().first_chunk_mut() {
                    *top = swapped.to_bytes();
                }
                meta.adjacency = link;
                return Ok(Next::Egress);
            }
            LabelAction::Lookup(vrf) => {
                let bottom = label_stack::past_entropy(frame.bytes(), beneath, end);
                if bottom != end {
                    return Err(DropReason::LabelNotBottom.into());
                }
                count(frame);
                handled.popped += 1;
                return label_payload::route(frame, meta, end, vrf, &popped, context);
            }
            LabelAction::Pop => {
                count(frame);
                handled.popped += 1;
                if is_bottom {
                    let vrf = meta.vrf;
                    return label_payload::route(frame, meta, end, vrf, &popped, context);
                }
                at = beneath;
                above = popped.ttl;
            }
            LabelAction::Swap(_, adjacency) => {
                fits(
                    frame.len() - beneath,
                    end - beneath,
                    way::mtu_bytes(adjacency, context),
                )?;
                count(frame);
                handled.popped += 1;
                return uncover(frame, meta, beneath, end, adjacency, &popped, context);
            }
            LabelAction::Hops(adjacency) => {
                let adjacency = if adjacency.is_group() {
                    let hash = label_stack::flow_hash(frame.bytes(), end);
                    context.view.member(adjacency, hash)
                } else {
                    adjacency
                };
                let hop = context.view.hop(adjacency).ok_or(DropReason::NoRoute)?;
                if hop.labels().is_empty() {
                    fits(
                        frame.len() - beneath,
                        end - beneath,
                        way::mtu_bytes(hop.adjacency, context),
                    )?;
                    count(frame);
                    handled.popped += 1;
                    return uncover(frame, meta, beneath, end, hop.adjacency, &popped, context);
                }
                let replacement = Replacement {
                    hop,
                    beneath,
                    end,
                    left,
                    traffic_class: entry.traffic_class,
                };
                let pushed_bytes = replacement.pushed_bytes(frame.bytes());
                fits(
                    frame.len() - beneath + pushed_bytes,
                    end - beneath + pushed_bytes,
                    way::mtu_bytes(hop.adjacency, context),
                )?;
                count(frame);
                handled.swapped += 1;
                handled.pushed += (pushed_bytes / LSE_BYTES) as u64 - 1;
                replacement.write(frame)?;
                return Ok(way::take(hop.adjacency, meta));
            }
            LabelAction::Host => {
                if !is_bottom {
                    return Err(DropReason::LabelNotBottom.into());
                }
                count(frame);
                handled.popped += 1;
                label_payload::take_out(frame, meta, end, &popped, context)?;
                return Ok(Next::Punt);
            }
            LabelAction::Discard => return Err(DropReason::LabelDiscard.into()),
        }
    }
}

/// What a label leaves to the packet that was under it.
pub(super) struct Popped {
    /// Its TTL, less one, where it passes down.
    pub(super) ttl: Option<u8>,
    /// Its traffic class.
    pub(super) traffic_class: u8,
    /// What that means for the DSCP.
    pub(super) class: PopClass,
}

impl Popped {
    /// Of a reserved label, which knows no map.
    fn of(entry: &Lse, ttl: Option<u8>) -> Self {
        Self {
            ttl,
            traffic_class: entry.traffic_class,
            class: PopClass::Keep,
        }
    }
}

/// Whether a packet of that many bytes, of which some are labels, may go a way of this MTU.
#[inline(always)]
fn fits(packet_bytes: usize, label_bytes: usize, mtu_bytes: Option<u16>) -> Result<(), Stop> {
    match mtu_bytes {
        Some(mtu_bytes) if packet_bytes > usize::from(mtu_bytes) => {
            Err(Stop::TooBig(mtu_bytes.saturating_sub(label_bytes as u16)))
        }
        _ => Ok(()),
    }
}

/// Takes the labels down to `beneath` off and sends on what they covered (penultimate-hop popping, RFC 3031 section
/// 3.16; the VPN label of a next hop, RFC 4364 section 4.3.2).
#[inline]
fn uncover(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    beneath: usize,
    end: usize,
    adjacency: AdjacencyIndex,
    popped: &Popped,
    context: &Context<'_, '_>,
) -> Result<Next, Stop> {
    if beneath == end {
        label_payload::take_out(frame, meta, end, popped, context)?;
        return label_payload::send(frame, meta, adjacency, context);
    }
    if let (Some(ttl), Some(next)) = (popped.ttl, entry_at(frame.bytes(), beneath)) {
        let next = Lse {
            ttl: next.ttl.min(ttl),
            ..next
        };
        if let Some(place) = frame
            .bytes_mut()
            .get_mut(beneath..)
            .and_then(|rest| rest.first_chunk_mut())
        {
            *place = next.to_bytes();
        }
    }
    if !frame.shrink_front(beneath) {
        return Err(DropReason::LabelStackTruncated.into());
    }
    debug_assert!(meta.flags.has(Flags::LABELLED));
    Ok(way::take(adjacency, meta))
}
