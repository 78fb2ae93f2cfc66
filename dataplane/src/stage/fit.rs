//! What becomes of a packet that is larger than its way allows.

use southbound::{DropReason, WorkerCounter};
use wire::{IpProtocol, SliceCursor, ipv4, udp};

use super::{Context, mpls_forward};
use crate::batch::{Batch, Flags, Meta, Next, SenderError};
use crate::fragment::Fragmenter;
use crate::fragment_v6;
use crate::xsk::{CHUNK_BYTES, Frame};

/// Fragments the packet where its sender allows that (RFC 791 section 2.3): the pieces go on by `next`, the first in the
/// packet's own slot and the others with the next batch, each with the label stack that the packet has (RFC 3032 section
/// 3.4). Otherwise its sender is told (RFC 1191 section 4, RFC 8200 section 5). `mtu_bytes` is of the IP packet.
#[cold]
pub fn shrink<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    mtu_bytes: u16,
    next: Next,
    context: &mut Context<'_, 'u>,
) {
    let bytes = batch.bytes(slot);
    let label_bytes = match labels_bytes(bytes, batch.meta(slot)) {
        Ok(label_bytes) => label_bytes,
        Err(reason) => {
            batch.discard(slot, reason);
            return;
        }
    };
    let packet = bytes.get(label_bytes..).unwrap_or_default();
    let may_fragment =
        ipv4::Header::parse(&mut SliceCursor::new(packet)).is_ok_and(|header| !header.dont_fragment());
    if !may_fragment {
        batch.refuse(slot, DropReason::TooBig, SenderError::TooBig { mtu_bytes });
    } else if cut(batch, slot, label_bytes, mtu_bytes, next, context).is_none() {
        batch.discard(slot, DropReason::NoFrame);
    }
}

/// Bytes of the label stack that the packet begins with.
fn labels_bytes(bytes: &[u8], meta: &Meta) -> Result<usize, DropReason> {
    if meta.flags.has(Flags::LABELLED) {
        mpls_forward::stack_bytes(bytes)
    } else {
        Ok(0)
    }
}

/// Cuts an outer IPv6 packet of our own, sealed, into what its path of `mtu_bytes` takes.
#[cold]
pub fn shrink_outer<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    mtu_bytes: u16,
    next: Next,
    context: &mut Context<'_, 'u>,
) {
    let meta = *batch.meta(slot);
    let mut whole = [0; CHUNK_BYTES];
    let packet = copy(batch.bytes(slot), &mut whole);
    // SPI and sequence number: they come back with no other packet of the SA, and none can tell them from afar.
    let is_udp = packet.get(6) == Some(&IpProtocol::UDP.0);
    let esp_at = usize::from(meta.upper_bytes) + if is_udp { udp::HEADER_BYTES } else { 0 };
    let esp = packet.get(esp_at..).unwrap_or_default();
    let word = |at: usize| {
        esp.get(at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |word| u32::from_be_bytes(*word))
    };
    let identification = word(0) ^ word(4);
    let placed = fragment_v6::Fragmenter::new(packet, usize::from(mtu_bytes), identification)
        .and_then(|pieces| place(batch, slot, &[], &pieces, next, context));
    if placed.is_none() {
        batch.discard(slot, DropReason::NoFrame);
    }
}

/// What a packet is cut into.
trait Pieces {
    fn count(&self) -> usize;

    /// Writes a piece at the front of `out`: its length.
    fn write(&self, index: usize, out: &mut [u8]) -> Option<usize>;
}

impl Pieces for Fragmenter<'_> {
    fn count(&self) -> usize {
        Self::count(self)
    }

    fn write(&self, index: usize, out: &mut [u8]) -> Option<usize> {
        Self::write(self, index, out).ok()
    }
}

impl Pieces for fragment_v6::Fragmenter<'_> {
    fn count(&self) -> usize {
        Self::count(self)
    }

    fn write(&self, index: usize, out: &mut [u8]) -> Option<usize> {
        Self::write(self, index, out)
    }
}

/// `None`, and nothing changed, where there is no room for the pieces or the packet cannot be cut.
fn cut<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    label_bytes: usize,
    mtu_bytes: u16,
    next: Next,
    context: &mut Context<'_, 'u>,
) -> Option<()> {
    let mut whole = [0; CHUNK_BYTES];
    let packet = copy(batch.bytes(slot), &mut whole);
    let (labels, datagram) = packet.split_at_checked(label_bytes)?;
    let pieces = Fragmenter::new(datagram, usize::from(mtu_bytes)).ok()?;
    place(batch, slot, labels, &pieces, next, context)
}

fn copy<'c>(bytes: &[u8], chunk: &'c mut [u8; CHUNK_BYTES]) -> &'c [u8] {
    let room = chunk.get_mut(..bytes.len()).unwrap_or_default();
    room.copy_from_slice(bytes.get(..room.len()).unwrap_or_default());
    room
}

/// Puts pieces in the place of the packet, each with `labels` before it. `None`, and nothing changed, where there is no room
/// for them.
fn place<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    labels: &[u8],
    pieces: &impl Pieces,
    next: Next,
    context: &mut Context<'_, 'u>,
) -> Option<()> {
    let (frame, meta) = batch.packet_mut(slot)?;
    // The stack that a popped packet came under stands before it in its own frame only.
    meta.labels_bytes = 0;
    let meta = *meta;
    let further = pieces.count() - 1;
    if context.backlog.capacity() - context.backlog.len() < further || context.pool.len() < further {
        return None;
    }
    for index in 1..=further {
        let mut piece = context.pool.take()?;
        if write(&mut piece, labels, pieces, index).is_none() {
            debug_assert!(false, "a piece fits a frame");
            context.pool.put(piece);
            return None;
        }
        context.backlog.push((piece, meta, next));
    }
    if !frame.reset(context.pool.umem().packet_headroom_bytes()) {
        return None;
    }
    write(frame, labels, pieces, 0)?;
    context.counters.add(WorkerCounter::Fragmented, 1);
    context.counters.add(WorkerCounter::Generated, further as u64);
    batch.send(slot, next);
    Some(())
}

fn write(frame: &mut Frame<'_>, labels: &[u8], pieces: &impl Pieces, index: usize) -> Option<()> {
    let length_bytes = pieces.write(index, frame.space_mut())?;
    if !frame.set_len(length_bytes) {
        return None;
    }
    frame.grow_front(labels.len())?.copy_from_slice(labels);
    Some(())
}
