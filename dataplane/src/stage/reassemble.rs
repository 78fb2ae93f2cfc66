//! Fragments addressed to this gateway become whole packets again.
//!
//! In: [`Next::Reassemble`]. A fragment's bytes are copied out and its frame goes home; the fragment that makes the
//! datagram whole gives it its frame, which goes on as if it had arrived in one piece. What is cut on its way through
//! this gateway to somebody else is not put together here.

use southbound::{DropReason, WorkerCounter};

use super::{Context, classify};
use crate::batch::{Batch, Flags, Meta, Next, Slots};
use crate::reassembly::Error;

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let slots = batch.take(Next::Reassemble);
    if slots == 0 {
        return;
    }
    for slot in Slots::of(slots) {
        match add(batch, slot, context) {
            Ok(Some(next)) => batch.send(slot, next),
            Ok(None) => {
                if let Some(frame) = batch.remove(slot) {
                    context.pool.put(frame);
                }
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    count_discarded(context);
}

/// Gives up what is overdue, where no fragment comes.
pub fn expire(context: &mut Context<'_, '_>) {
    context.reassembly.expire(context.now_ns);
    count_discarded(context);
}

fn count_discarded(context: &mut Context<'_, '_>) {
    let discarded = context.reassembly.take_discarded();
    for (reason, packets) in [
        (DropReason::FragmentTimeout, discarded.timed_out_packets),
        (DropReason::FragmentTableFull, discarded.evicted_packets),
        (DropReason::FragmentInvalid, discarded.spoiled_packets),
    ] {
        if packets != 0 {
            context.counters.drop_packets(reason, packets);
        }
    }
}

/// Adds a fragment; where the datagram is whole it lies in the frame, and its edge is the answer.
fn add<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    context: &mut Context<'_, 'u>,
) -> Result<Option<Next>, DropReason> {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return Ok(None);
    };
    let Some(whole) = context
        .reassembly
        .push(frame.bytes(), context.now_ns)
        .map_err(reason)?
    else {
        return Ok(None);
    };
    context.counters.add(
        WorkerCounter::Absorbed,
        u64::from(whole.fragments_packets.saturating_sub(1)),
    );
    if !frame.reset(context.pool.umem().packet_headroom_bytes()) || !frame.copy_from(whole.packet) {
        return Err(DropReason::ReassembledTooLong);
    }
    *meta = Meta::new(meta.ingress, meta.vrf);
    meta.flags.set(Flags::REASSEMBLED);
    classify::classify_ip(frame.bytes(), meta, context).map(Some)
}

const fn reason(error: Error) -> DropReason {
    match error {
        Error::BadHeader | Error::NotAFragment => DropReason::MalformedIp,
        Error::TooLong => DropReason::ReassembledTooLong,
        Error::Full => DropReason::FragmentTableFull,
        Error::EcnMixed => DropReason::EcnIllegal,
        Error::BadLength | Error::TinyFirst | Error::Duplicate | Error::Overlap | Error::Spoiled => {
            DropReason::FragmentInvalid
        }
    }
}
