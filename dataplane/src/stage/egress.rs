//! Egress: the neighbour that a packet leaves to, and the Ethernet header for it.
//!
//! In: [`Next::Egress`]: a packet with `meta.adjacency`. Out: [`Next::Transmit`] by `meta.device`, or [`Next::Hold`] where
//! the neighbour's address is not known yet.

use southbound::{DropReason, PortRole};
use wire::flow::Tuple;
use wire::{EtherType, ethernet};

use super::{Context, fit};
use crate::batch::{Batch, Flags, Meta, Next, SenderError, Slots};
use crate::tables::{Adjacency, AdjacencyIndex, NeighbourAdjacency};
use crate::xsk::Frame;

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    // The neighbour of the packet before: packets of one flow follow each other.
    let mut before: Option<(AdjacencyIndex, &NeighbourAdjacency)> = None;
    let mut leaving = 0;
    for slot in Slots::of(batch.take(Next::Egress)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        if let Some((known, neighbour)) = before
            && known == meta.adjacency
            && !meta.flags.has(Flags::UNRULED)
            && (!meta.flags.has(Flags::LABELLED) || neighbour.takes_labels)
            && neighbour.vlan == 0
            && frame.len() <= usize::from(neighbour.mtu_bytes)
            && let Some(header) = frame.grow_front_by::<{ ethernet::HEADER_BYTES }>()
        {
            let [addresses @ .., high, low] = header;
            *addresses = neighbour.rewrite;
            [*high, *low] = ether_type(meta).0.to_be_bytes();
            meta.egress = neighbour.port;
            meta.device = neighbour.device;
            leaving |= 1 << slot;
            continue;
        }
        if leave(batch, slot, &mut before, context) {
            leaving |= 1 << slot;
        }
    }
    batch.send_all(leaving, Next::Transmit);
}

/// Any other packet; whether it leaves, or else it is on another edge. Apart from the loop above, whose values then stay
/// in registers.
#[inline(never)]
fn leave<'u, 'w>(
    batch: &mut Batch<'u>,
    slot: usize,
    before: &mut Option<(AdjacencyIndex, &'w NeighbourAdjacency)>,
    context: &mut Context<'w, 'u>,
) -> bool {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return false;
    };
    let is_labelled = meta.flags.has(Flags::LABELLED);
    if let Some((known, neighbour)) = *before
        && known == meta.adjacency
        && !meta.flags.has(Flags::UNRULED)
        && frame.len() <= usize::from(neighbour.mtu_bytes)
    {
        let written = if is_labelled {
            label(frame, meta, neighbour)
        } else {
            write(frame, meta, neighbour)
        };
        match written {
            Ok(()) => return true,
            Err(reason) => batch.discard(slot, reason),
        }
        return false;
    }
    if meta.adjacency.is_group() {
        meta.adjacency = context.view.member(meta.adjacency, flow_hash(frame.bytes()));
    }
    let adjacency = context.view.adjacency(meta.adjacency, 0);
    if meta.flags.has(Flags::UNRULED) && crosses(&adjacency, context) {
        batch.refuse(slot, DropReason::PolicyNoMatch, SenderError::Prohibited);
        return false;
    }
    match adjacency {
        Adjacency::Neighbour(neighbour) if is_labelled => {
            *before = Some((meta.adjacency, neighbour));
            match label(frame, meta, neighbour) {
                Ok(()) => return true,
                Err(reason) => batch.discard(slot, reason),
            }
        }
        Adjacency::Neighbour(neighbour) if frame.len() <= usize::from(neighbour.mtu_bytes) => {
            if !meta.adjacency.is_group() {
                *before = Some((meta.adjacency, neighbour));
            }
            match write(frame, meta, neighbour) {
                Ok(()) => return true,
                Err(reason) => batch.discard(slot, reason),
            }
        }
        // An outer packet is fitted to its path before it is sealed, unless it may be cut outside; what is too long now
        // met a smaller port since.
        Adjacency::Neighbour(_) if meta.flags.has(Flags::OUTER) && !may_be_cut(frame.bytes(), meta) => {
            batch.discard(slot, DropReason::PortMtu)
        }
        Adjacency::Neighbour(neighbour) => {
            fit::shrink(batch, slot, neighbour.mtu_bytes, Next::Egress, context)
        }
        Adjacency::Incomplete(neighbour) if neighbour.failed => {
            if neighbour.should_ask(context.now_ms()) {
                context.need_neighbour(neighbour.port_id, neighbour.address);
            }
            batch.refuse(
                slot,
                DropReason::NeighbourUnresolved,
                SenderError::HostUnreachable,
            );
        }
        Adjacency::Incomplete(_) | Adjacency::Glean(_) => batch.send(slot, Next::Hold),
        // A group that mixes ports with other ways, and routes that went since the stage before.
        Adjacency::Midchain(_) if meta.flags.has(Flags::OUTER) => batch.discard(slot, DropReason::TunnelLoop),
        Adjacency::Midchain(tunnel) => {
            meta.into = Some(tunnel);
            batch.send(slot, Next::Midchain);
        }
        Adjacency::Local | Adjacency::Kernel if !meta.flags.has(Flags::OUTER) => batch.send(slot, Next::Punt),
        Adjacency::Unreachable => batch.refuse(slot, DropReason::Unreachable, SenderError::HostUnreachable),
        Adjacency::Labelled(_) if !meta.flags.has(Flags::LABELLED) => batch.send(slot, Next::Impose),
        Adjacency::Labelled(_) | Adjacency::Vrf(_) => batch.discard(slot, DropReason::NoRoute),
        Adjacency::Blackhole => batch.discard(slot, DropReason::Blackhole),
        Adjacency::TunnelLoop => batch.discard(slot, DropReason::TunnelLoop),
        Adjacency::Local | Adjacency::Kernel | Adjacency::NoRoute => {
            batch.refuse(slot, DropReason::NoRoute, SenderError::NoRoute);
        }
    }
    false
}

/// Whether this is IPv4 without DF.
#[cold]
fn may_be_cut(bytes: &[u8], meta: &Meta) -> bool {
    !meta.flags.has(Flags::IPV6) && bytes.get(6).is_some_and(|flags| flags & 0x40 == 0)
}

/// Whether this way leads to the unprotected side.
#[cold]
fn crosses(adjacency: &Adjacency<'_>, context: &Context<'_, '_>) -> bool {
    let port = match adjacency {
        Adjacency::Neighbour(neighbour) => neighbour.port,
        Adjacency::Incomplete(neighbour) => neighbour.port,
        Adjacency::Glean(link) => link.port,
        Adjacency::Kernel => return true,
        // Tunnels are asked about where they are entered.
        _ => return false,
    };
    context
        .view
        .port(port)
        .is_none_or(|port| port.role != PortRole::Protected)
}

/// The same for every packet of a flow.
#[must_use]
pub fn flow_hash(bytes: &[u8]) -> u32 {
    Tuple::parse(bytes).map_or(0, |tuple| tuple.hash())
}

#[inline(always)]
fn ether_type(meta: &Meta) -> EtherType {
    if meta.flags.has(Flags::LABELLED) {
        EtherType::MPLS
    } else if meta.flags.has(Flags::IPV6) {
        EtherType::IPV6
    } else {
        EtherType::IPV4
    }
}

/// A labelled packet was held against the port's MTU where its labels were decided; that it is too long now means that
/// the port changed since.
fn label(frame: &mut Frame<'_>, meta: &mut Meta, neighbour: &NeighbourAdjacency) -> Result<(), DropReason> {
    if !neighbour.takes_labels {
        return Err(DropReason::LabelsRefused);
    }
    if frame.len() > usize::from(neighbour.mtu_bytes) {
        return Err(DropReason::PortMtu);
    }
    write(frame, meta, neighbour)
}

#[inline(always)]
fn write(frame: &mut Frame<'_>, meta: &mut Meta, neighbour: &NeighbourAdjacency) -> Result<(), DropReason> {
    let ether_type = ether_type(meta);
    if neighbour.vlan == 0 {
        let header = frame.grow_front(14).ok_or(DropReason::NoHeadroom)?;
        let (addresses, kind) = header.split_at_mut(12);
        addresses.copy_from_slice(&neighbour.rewrite);
        kind.copy_from_slice(&ether_type.0.to_be_bytes());
    } else {
        let header = frame.grow_front(18).ok_or(DropReason::NoHeadroom)?;
        let (addresses, tag_and_kind) = header.split_at_mut(12);
        let (tag, kind) = tag_and_kind.split_at_mut(4);
        addresses.copy_from_slice(&neighbour.rewrite);
        // Priority zero: best effort (IEEE 802.1Q section 6.9.3).
        tag[..2].copy_from_slice(&EtherType::VLAN.0.to_be_bytes());
        tag[2..].copy_from_slice(&neighbour.vlan.to_be_bytes());
        kind.copy_from_slice(&ether_type.0.to_be_bytes());
    }
    meta.egress = neighbour.port;
    meta.device = neighbour.device;
    Ok(())
}
