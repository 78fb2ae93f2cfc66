//! Imposition: an IP packet whose route has labels gets them (RFC 3031 section 3.12).
//!
//! In: [`Next::Impose`]: an IP packet whose `meta.adjacency` is a next hop with labels, its TTL taken. Out, labelled:
//! [`Next::Egress`] or [`Next::Midchain`]. What is too long under its labels is fragmented, or its sender told how much
//! fits (RFC 3032 section 3.4).

use southbound::{DropReason, PushClass, WorkerCounter};

use super::{Context, fit, label_payload, label_stack, way};
use crate::batch::{Batch, Flags, Meta, Next, SenderError, Slots};
use crate::mss_clamp;
use crate::tables::LabelHop;
use crate::xsk::Frame;

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let mut pushed = 0;
    let mut before = way::Before::default();
    for slot in Slots::of(batch.take(Next::Impose)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let Some(hop) = context.view.hop(meta.adjacency) else {
            batch.discard(slot, DropReason::NoRoute);
            continue;
        };
        if meta.flags.has(Flags::UNRULED) {
            // An LSP is not the protected side.
            batch.refuse(slot, DropReason::PolicyNoMatch, SenderError::Prohibited);
            continue;
        }
        let pushed_bytes = hop.pushed_bytes();
        if let Some(mtu_bytes) = before.mtu_bytes(hop.adjacency, context) {
            let fitting_bytes = mtu_bytes.saturating_sub(pushed_bytes as u16);
            if frame.len() > usize::from(fitting_bytes) {
                if meta.flags.has(Flags::OUTER) {
                    batch.discard(slot, DropReason::PortMtu);
                } else {
                    fit::shrink(batch, slot, fitting_bytes, Next::Impose, context);
                }
                continue;
            }
            if let Some(tunnel) = hop.adjacency.tunnel()
                && context.view.tunnel(tunnel).is_some_and(|tunnel| tunnel.clamp_mss)
                && mss_clamp::clamp(frame.bytes_mut(), fitting_bytes) == Ok(true)
            {
                context.counters.add(WorkerCounter::MssClamped, 1);
            }
        }
        match impose(frame, meta, hop, context) {
            Ok(next) => {
                pushed += hop.labels().len() as u64;
                batch.send(slot, next);
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    if pushed != 0 {
        context.counters.add(WorkerCounter::MplsPush, pushed);
    }
}

#[inline]
fn impose(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    hop: &LabelHop,
    context: &Context<'_, '_>,
) -> Result<Next, DropReason> {
    if !hop.labels().is_empty() {
        let is_ipv6 = meta.flags.has(Flags::IPV6);
        let dscp = label_payload::traffic_class(frame.bytes(), is_ipv6).dscp();
        let class = match hop.class {
            PushClass::Set(class) => class,
            PushClass::Copy => dscp >> 3,
            PushClass::Map(map) => context.view.tc_of(map, dscp).unwrap_or(dscp >> 3),
        };
        let ttl = label_payload::ttl(frame.bytes(), is_ipv6);
        label_stack::push(frame, hop, ttl, class)?;
        meta.flags.set(Flags::LABELLED);
        meta.flags.set(Flags::IMPOSED);
        meta.labels_bytes = 0;
    }
    Ok(way::take(hop.adjacency, meta))
}
