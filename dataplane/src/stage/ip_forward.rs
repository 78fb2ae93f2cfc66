//! Forwarding: the longest prefix of the packet's table that matches its destination.
//!
//! In: [`Next::Forward`]. Out: [`Next::Midchain`] where the route leads into a tunnel, [`Next::Impose`] where it has labels, [`Next::Egress`] where it leads out
//! of a port, [`Next::Punt`] where it leads to the host or to an interface of the kernel's. The TTL is taken on the first
//! two: a host does not decrement what it receives, and the kernel does it itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use southbound::DropReason;

use super::{Context, egress, hop};
use crate::batch::{Batch, Flags, Meta, Next, SenderError, Slots};
use crate::tables::{AdjacencyIndex, VrfIndex};

/// Runs the stage.
pub fn run(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let mut before = Before::default();
    let (mut into_tunnels, mut out_of_ports) = (0, 0);
    // Packets of one table follow each other.
    let mut counted = (VrfIndex::MAIN, 0, 0);
    for slot in Slots::of(batch.take(Next::Forward)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let mut index = route(frame.bytes(), meta, &mut before, context);
        if let Some(vrf) = index.other_vrf() {
            // A leak, which leads into one other table and no further.
            meta.vrf = vrf;
            index = route(frame.bytes(), meta, &mut before, context);
            if index.other_vrf().is_some() {
                batch.discard(slot, DropReason::VrfLoop);
                continue;
            }
        }
        if counted.0 != meta.vrf {
            context.view.count_vrf(counted.0, counted.1, counted.2);
            counted = (meta.vrf, 0, 0);
        }
        counted.1 += 1;
        counted.2 += frame.len() as u64;
        if index.is_group() {
            index = context.view.member(index, egress::flow_hash(frame.bytes()));
        }
        meta.adjacency = index;
        if index.is_special() {
            end(batch, slot, index);
        } else if !hop::take(frame.bytes_mut(), meta) {
            batch.refuse(slot, DropReason::TtlExceeded, SenderError::TimeExceeded);
        } else {
            match index.tunnel() {
                Some(_) if meta.flags.has(Flags::OUTER) => batch.discard(slot, DropReason::TunnelLoop),
                Some(tunnel) => {
                    meta.into = Some(tunnel);
                    into_tunnels |= 1 << slot;
                }
                None if index.is_labelled() => batch.send(slot, Next::Impose),
                None => out_of_ports |= 1 << slot,
            }
        }
    }
    if counted.1 != 0 {
        context.view.count_vrf(counted.0, counted.1, counted.2);
    }
    batch.send_all(into_tunnels, Next::Midchain);
    batch.send_all(out_of_ports, Next::Egress);
}

/// A route that leads out of no port and into no tunnel.
fn end(batch: &mut Batch<'_>, slot: usize, index: AdjacencyIndex) {
    match index {
        AdjacencyIndex::KERNEL if batch.meta(slot).flags.has(Flags::UNRULED) => {
            batch.refuse(slot, DropReason::PolicyNoMatch, SenderError::Prohibited);
        }
        AdjacencyIndex::LOCAL | AdjacencyIndex::KERNEL if !batch.meta(slot).flags.has(Flags::OUTER) => {
            batch.send(slot, Next::Punt);
        }
        // The peer's outer address is our own, or not behind a port: the tunnel has no way.
        AdjacencyIndex::LOCAL | AdjacencyIndex::KERNEL => batch.discard(slot, DropReason::NoRoute),
        AdjacencyIndex::UNREACHABLE => {
            batch.refuse(slot, DropReason::Unreachable, SenderError::HostUnreachable);
        }
        AdjacencyIndex::BLACKHOLE => batch.discard(slot, DropReason::Blackhole),
        AdjacencyIndex::TUNNEL_LOOP => batch.discard(slot, DropReason::TunnelLoop),
        _ => batch.refuse(slot, DropReason::NoRoute, SenderError::NoRoute),
    }
}

/// The answer for the IPv4 packet before: packets of one flow follow each other.
#[derive(Default)]
struct Before(Option<(VrfIndex, [u8; 4], AdjacencyIndex)>);

#[inline(always)]
fn route(bytes: &[u8], meta: &Meta, before: &mut Before, context: &Context<'_, '_>) -> AdjacencyIndex {
    if meta.flags.has(Flags::IPV6) {
        return match bytes.get(24..40).and_then(|octets| octets.first_chunk::<16>()) {
            Some(octets) => context.view.route_v6(meta.vrf, Ipv6Addr::from_octets(*octets)),
            None => AdjacencyIndex::NO_ROUTE,
        };
    }
    let Some(octets) = bytes.get(16..20).and_then(|octets| octets.first_chunk::<4>()) else {
        return AdjacencyIndex::NO_ROUTE;
    };
    match before.0 {
        Some((vrf, destination, index)) if vrf == meta.vrf && destination == *octets => index,
        _ => {
            let index = context.view.route_v4(meta.vrf, Ipv4Addr::from_octets(*octets));
            before.0 = Some((meta.vrf, *octets, index));
            index
        }
    }
}
