//! Midchain: may this packet enter its tunnel, and does it fit?
//!
//! In: [`Next::Midchain`]: a packet with its tunnel in `meta.into`. Out: [`Next::Encap`]; [`Next::Hold`] where the tunnel
//! has no SA yet; [`Next::Error`] where it is too big and must not be fragmented. What is too big and may be, is: before
//! it is sealed, so that the other gateway reassembles nothing (RFC 4301 section 8.2, RFC 4459 section 3.1).

use southbound::{DropReason, Mode, WorkerCounter};

use super::{Context, fit};
use crate::batch::{Batch, Flags, Next, SenderError, Slots};
use crate::mss_clamp;

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    for slot in Slots::of(batch.take(Next::Midchain)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        if meta.flags.has(Flags::OUTER) {
            batch.discard(slot, DropReason::TunnelLoop);
            continue;
        }
        let Some(tunnel) = meta.into.and_then(|index| context.view.tunnel(index)) else {
            batch.discard(slot, DropReason::NoOutboundSa);
            continue;
        };
        let Some(sa) = context.view.outbound(tunnel) else {
            batch.send(slot, Next::Hold);
            continue;
        };
        if sa.is_expired() {
            batch.discard(slot, DropReason::SaExpired);
            continue;
        }
        let mtu_bytes = tunnel.inner_mtu_bytes(sa, context.now_seconds());
        if frame.len() > usize::from(mtu_bytes) {
            if tunnel.mode == Mode::Transport {
                batch.refuse(slot, DropReason::TooBig, SenderError::TooBig { mtu_bytes });
            } else {
                fit::shrink(batch, slot, mtu_bytes, Next::Midchain, context);
            }
            continue;
        }
        if tunnel.clamp_mss && mss_clamp::clamp(frame.bytes_mut(), mtu_bytes) == Ok(true) {
            context.counters.add(WorkerCounter::MssClamped, 1);
        }
        batch.send(slot, Next::Encap);
    }
}
