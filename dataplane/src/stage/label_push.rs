//! Imposition: an IP packet whose route has labels gets them (RFC 3031 section 3.12).
//!
//! In: [`Next::Impose`]: an IP packet whose `meta.adjacency` is a next hop with labels, its TTL taken. Out, labelled:
//! [`Next::Egress`] or [`Next::Midchain`]. What is too long under its labels is fragmented, or its sender told how much
//! fits (RFC 3032 section 3.4).

use southbound::{DropReason, PushClass, WorkerCounter};

use super::{Context, fit, label_payload, label_stack, way};
use crate::batch::{Batch, Flags, Meta, Next, SenderError, Slots};
use crate::mss_clamp;
use crate::tables::{AdjacencyIndex, LabelHop};
use crate::xsk::Frame;

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let (mut pushed, mut leaving) = (0, 0);
    // The way and the hop of the packet before: packets of one flow follow each other.
    let mut before = way::Before::default();
    let mut known: Option<(AdjacencyIndex, &LabelHop)> = None;
    for slot in Slots::of(batch.take(Next::Impose)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let hop = match known {
            Some((index, hop)) if index == meta.adjacency => hop,
            _ => match context.view.hop(meta.adjacency) {
                Some(hop) => {
                    known = Some((meta.adjacency, hop));
                    hop
                }
                None => {
                    batch.discard(slot, DropReason::NoRoute);
                    continue;
                }
            },
        };
        let mtu_bytes = before.mtu_bytes(hop.adjacency, context);
        let fits = mtu_bytes.is_none_or(|most| frame.len() + hop.pushed_bytes() <= usize::from(most));
        if !fits || meta.flags.has(Flags::UNRULED) || hop.adjacency.tunnel().is_some() {
            pushed += unusual(batch, slot, hop, mtu_bytes, context);
            continue;
        }
        match impose(frame, meta, hop, context) {
            Ok(()) => {
                meta.adjacency = hop.adjacency;
                pushed += hop.labels().len() as u64;
                leaving |= 1 << slot;
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    batch.send_all(leaving, Next::Egress);
    if pushed != 0 {
        context.counters.add(WorkerCounter::MplsPush, pushed);
    }
}

/// A packet that is too long, or may not go, or goes into a tunnel; how many labels it got. Apart from the loop above,
/// whose values then stay in registers.
#[inline(never)]
fn unusual<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    hop: &LabelHop,
    mtu_bytes: Option<u16>,
    context: &mut Context<'_, 'u>,
) -> u64 {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return 0;
    };
    if meta.flags.has(Flags::UNRULED) {
        // An LSP is not the protected side.
        batch.refuse(slot, DropReason::PolicyNoMatch, SenderError::Prohibited);
        return 0;
    }
    if let Some(mtu_bytes) = mtu_bytes {
        let fitting_bytes = mtu_bytes.saturating_sub(hop.pushed_bytes() as u16);
        if frame.len() > usize::from(fitting_bytes) {
            if meta.flags.has(Flags::OUTER) {
                batch.discard(slot, DropReason::PortMtu);
            } else {
                fit::shrink(batch, slot, fitting_bytes, Next::Impose, context);
            }
            return 0;
        }
        if let Some(tunnel) = hop.adjacency.tunnel()
            && context.view.tunnel(tunnel).is_some_and(|tunnel| tunnel.clamp_mss)
            && mss_clamp::clamp(frame.bytes_mut(), fitting_bytes) == Ok(true)
        {
            context.counters.add(WorkerCounter::MssClamped, 1);
        }
    }
    match impose(frame, meta, hop, context) {
        Ok(()) => {
            let next = way::take(hop.adjacency, meta);
            batch.send(slot, next);
            hop.labels().len() as u64
        }
        Err(reason) => {
            batch.discard(slot, reason);
            0
        }
    }
}

/// Writes the labels.
#[inline(always)]
fn impose(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    hop: &LabelHop,
    context: &Context<'_, '_>,
) -> Result<(), DropReason> {
    if hop.labels().is_empty() {
        return Ok(());
    }
    let is_ipv6 = meta.flags.has(Flags::IPV6);
    let dscp = label_payload::traffic_class(frame.bytes(), is_ipv6).dscp();
    let class = match hop.class {
        PushClass::Set(class) => class,
        PushClass::Copy => dscp >> 3,
        PushClass::Map(map) => context.view.tc_of(map, dscp).unwrap_or(dscp >> 3),
    };
    let ttl = label_payload::ttl(frame.bytes(), is_ipv6);
    label_stack::push(frame, hop, ttl, class)?;
    meta.flags.set(Flags::LABELLED.or(Flags::IMPOSED));
    meta.labels_bytes = 0;
    Ok(())
}
