//! What becomes of a packet that is larger than its way allows.

use southbound::{DropReason, WorkerCounter};
use wire::mpls::{LSE_BYTES, MAX_DEPTH};
use wire::{SliceCursor, ipv4};

use super::{Context, mpls_forward};
use crate::batch::{Batch, Flags, Next, SenderError};
use crate::fragment::Fragmenter;
use crate::xsk::CHUNK_BYTES;

/// Fragments the packet where its sender allows that (RFC 791 section 2.3): the pieces go on by `next`, the first in the
/// packet's own slot and the others with the next batch. Otherwise its sender is told (RFC 1191 section 4, RFC 8200
/// section 5).
#[cold]
pub fn shrink<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    mtu_bytes: u16,
    next: Next,
    context: &mut Context<'_, 'u>,
) {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return;
    };
    let may_fragment = !meta.flags.has(Flags::IPV6)
        && ipv4::Header::parse(&mut SliceCursor::new(frame.bytes()))
            .is_ok_and(|header| !header.dont_fragment());
    if !may_fragment {
        batch.refuse(slot, DropReason::TooBig, SenderError::TooBig { mtu_bytes });
        return;
    }
    if cut(batch, slot, mtu_bytes, next, context).is_none() {
        batch.discard(slot, DropReason::NoFrame);
    }
}

/// The same for a packet with its label stack before it, which each piece gets (RFC 3032 section 3.4); `mtu_bytes` is of
/// the IP packet.
#[cold]
pub fn shrink_labelled<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    mtu_bytes: u16,
    next: Next,
    context: &mut Context<'_, 'u>,
) {
    let bytes = batch.bytes(slot);
    let packet = match mpls_forward::stack_bytes(bytes) {
        Ok(label_bytes) => bytes.get(label_bytes..).unwrap_or_default(),
        Err(reason) => {
            batch.discard(slot, reason);
            return;
        }
    };
    let may_fragment = ipv4::Header::parse(&mut SliceCursor::new(packet))
        .is_ok_and(|header| packet[0] >> 4 == 4 && !header.dont_fragment());
    if !may_fragment {
        batch.refuse(slot, DropReason::TooBig, SenderError::TooBig { mtu_bytes });
        return;
    }
    if cut(batch, slot, mtu_bytes, next, context).is_none() {
        batch.discard(slot, DropReason::NoFrame);
    }
}

/// `None`, and nothing changed, where there is no room for the pieces or the packet cannot be cut.
fn cut<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    mtu_bytes: u16,
    next: Next,
    context: &mut Context<'_, 'u>,
) -> Option<()> {
    let (frame, meta) = batch.packet_mut(slot)?;
    // The stack that a popped packet came under stands before it in its own frame only.
    meta.labels_bytes = 0;
    let meta = *meta;
    // A label stack goes before each piece.
    let label_bytes = if meta.flags.has(Flags::LABELLED) {
        mpls_forward::stack_bytes(frame.bytes()).ok()?
    } else {
        0
    };
    let mut labels = [0; MAX_DEPTH * LSE_BYTES];
    let labels = labels.get_mut(..label_bytes)?;
    labels.copy_from_slice(frame.bytes().get(..label_bytes)?);
    let datagram = frame.bytes().get(label_bytes..)?;
    let fragmenter = Fragmenter::new(datagram, usize::from(mtu_bytes)).ok()?;
    let further = fragmenter.count() - 1;
    if context.backlog.capacity() - context.backlog.len() < further || context.pool.len() < further {
        return None;
    }
    for index in 1..=further {
        let mut piece = context.pool.take()?;
        let length_bytes = fragmenter.write(index, piece.space_mut()).unwrap_or(0);
        if length_bytes == 0 || !piece.set_len(length_bytes) {
            debug_assert!(false, "a piece fits a frame");
            context.pool.put(piece);
            return None;
        }
        match piece.grow_front(label_bytes) {
            Some(front) => front.copy_from_slice(labels),
            None => {
                debug_assert!(false, "a frame has headroom");
                context.pool.put(piece);
                return None;
            }
        }
        context.backlog.push((piece, meta, next));
    }
    let mut first = [0; CHUNK_BYTES];
    let length_bytes = fragmenter.write(0, &mut first).ok()?;
    let headroom_bytes = context.pool.umem().packet_headroom_bytes();
    if !frame.reset(headroom_bytes) || !frame.copy_from(first.get(..length_bytes)?) {
        return None;
    }
    frame.grow_front(label_bytes)?.copy_from_slice(labels);
    context.counters.add(WorkerCounter::Fragmented, 1);
    context.counters.add(WorkerCounter::Generated, further as u64);
    batch.send(slot, next);
    Some(())
}
