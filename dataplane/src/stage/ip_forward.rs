//! Forwarding: the longest prefix of the packet's table that matches its destination.
//!
//! In: [`Next::Forward`]. Out: [`Next::Midchain`] where the route leads into a tunnel, [`Next::Impose`] where it has labels, [`Next::Egress`] where it leads out
//! of a port, [`Next::Punt`] where it leads to the host or to an interface of the kernel's. The TTL is taken on the first
//! two: a host does not decrement what it receives, and the kernel does it itself.

use std::net::IpAddr;

use southbound::DropReason;
use wire::ipv4;

use super::esp_inner::destination;
use super::{Context, egress, hop};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Meta, Next, SenderError, Slots};
use crate::tables::{AdjacencyIndex, VrfIndex};

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    const UNUSUAL: Flags = Flags::IPV6.or(Flags::OUTER);
    let slots = batch.take(Next::Forward);
    if slots == 0 {
        return;
    }
    let routes = Routes::of(batch, slots, context);
    let mut walk = Walk::of(VrfIndex::MAIN);
    // Where the packet before went: packets of one flow follow each other.
    let mut before = None::<Usual>;
    let (mut into_tunnels, mut under_labels, mut out_of_ports) = (0, 0, 0);
    for slot in Slots::of(slots) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let packet_bytes = frame.len() as u64;
        if !meta.flags.has_any(UNUSUAL)
            && let Some(header) = frame.bytes_mut().first_chunk_mut::<{ ipv4::HEADER_BYTES }>()
        {
            let index = match before {
                _ if routes.is_known => routes.indices[slot],
                Some(usual) if usual.vrf == meta.vrf && header[16..] == usual.destination => usual.index,
                _ => {
                    let index = route(header, meta, context);
                    before = Some(Usual {
                        vrf: meta.vrf,
                        destination: [header[16], header[17], header[18], header[19]],
                        index,
                    });
                    index
                }
            };
            if index.is_single() && (meta.flags.has(Flags::HOP_TAKEN) || ipv4::decrement_ttl(header).is_ok())
            {
                meta.flags.set(Flags::HOP_TAKEN);
                meta.adjacency = index;
                if let Some(tunnel) = index.tunnel() {
                    meta.into = Some(tunnel);
                    into_tunnels |= 1 << slot;
                } else if index.is_labelled() {
                    under_labels |= 1 << slot;
                } else {
                    out_of_ports |= 1 << slot;
                }
                walk.add(meta.vrf, packet_bytes, context);
                continue;
            }
        }
        match forward(batch, slot, &routes, context) {
            Some(Next::Midchain) => into_tunnels |= 1 << slot,
            Some(Next::Impose) => under_labels |= 1 << slot,
            Some(_) => out_of_ports |= 1 << slot,
            None => {}
        }
        walk.add(batch.meta(slot).vrf, packet_bytes, context);
    }
    walk.count(context);
    batch.send_all(into_tunnels, Next::Midchain);
    batch.send_all(under_labels, Next::Impose);
    batch.send_all(out_of_ports, Next::Egress);
}

/// Where IPv4 packets of a table to a destination go.
#[derive(Clone, Copy)]
struct Usual {
    vrf: VrfIndex,
    destination: [u8; 4],
    index: AdjacencyIndex,
}

/// The routes of a batch's packets. Where these differ, all are looked up before anything is done that needs one of
/// them, so that the lookups wait for memory together.
struct Routes {
    indices: [AdjacencyIndex; BATCH_PACKETS],
    is_known: bool,
}

impl Routes {
    #[inline(always)]
    fn of(batch: &Batch<'_>, slots: u64, context: &Context<'_, '_>) -> Self {
        let mut routes = Self {
            indices: [AdjacencyIndex::NO_ROUTE; BATCH_PACKETS],
            is_known: are_mixed(batch, slots),
        };
        if routes.is_known {
            // The table of the packet before.
            let mut before = None;
            for slot in Slots::of(slots) {
                let (bytes, meta) = (batch.bytes(slot), batch.meta(slot));
                let index = match destination(bytes, meta) {
                    Some(IpAddr::V4(destination)) => {
                        let table = match before {
                            Some((vrf, table)) if vrf == meta.vrf => table,
                            _ => context.view.routes_v4(meta.vrf),
                        };
                        before = Some((meta.vrf, table));
                        table.map_or(AdjacencyIndex::NO_ROUTE, |table| table.lookup(destination))
                    }
                    _ => route(bytes, meta, context),
                };
                context.view.prefetch_hop(index);
                routes.indices[slot] = index;
            }
        }
        routes
    }

    #[inline(always)]
    fn get(&self, slot: usize, bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> AdjacencyIndex {
        if self.is_known {
            self.indices[slot % BATCH_PACKETS]
        } else {
            route(bytes, meta, context)
        }
    }
}

/// Whether the packets seem to go to several destinations, by the first two and the last: a wrong guess costs time only.
#[inline(always)]
fn are_mixed(batch: &Batch<'_>, slots: u64) -> bool {
    let is_same = |one: usize, other: usize| {
        batch.meta(one).vrf == batch.meta(other).vrf
            && destination(batch.bytes(one), batch.meta(one))
                == destination(batch.bytes(other), batch.meta(other))
    };
    let mut ahead = Slots::of(slots);
    match (ahead.next(), ahead.next()) {
        (Some(first), Some(second)) => {
            let last = BATCH_PACKETS - 1 - slots.leading_zeros() as usize;
            !is_same(first, second) || !is_same(first, last)
        }
        _ => false,
    }
}

/// Packets of one table, which are counted together: they follow each other.
struct Walk {
    vrf: VrfIndex,
    packets: u64,
    bytes: u64,
}

impl Walk {
    const fn of(vrf: VrfIndex) -> Self {
        Self {
            vrf,
            packets: 0,
            bytes: 0,
        }
    }

    #[inline(always)]
    fn add(&mut self, vrf: VrfIndex, packet_bytes: u64, context: &Context<'_, '_>) {
        if self.vrf != vrf {
            self.count(context);
            *self = Self::of(vrf);
        }
        self.packets += 1;
        self.bytes += packet_bytes;
    }

    #[inline(always)]
    fn count(&self, context: &Context<'_, '_>) {
        if self.packets != 0 {
            context.view.count_vrf(self.vrf, self.packets, self.bytes);
        }
    }
}

/// Any packet: its edge, or none where it is put on one already. Apart from the loop above, whose values then stay in
/// registers.
#[inline(never)]
fn forward<'u>(
    batch: &mut Batch<'u>,
    slot: usize,
    routes: &Routes,
    context: &mut Context<'_, 'u>,
) -> Option<Next> {
    let (frame, meta) = batch.packet_mut(slot)?;
    let mut index = routes.get(slot, frame.bytes(), meta, context);
    if let Some(vrf) = index.other_vrf() {
        // A leak, which leads into one other table and no further.
        meta.vrf = vrf;
        index = route(frame.bytes(), meta, context);
        if index.other_vrf().is_some() {
            batch.discard(slot, DropReason::VrfLoop);
            return None;
        }
    }
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
                return Some(Next::Midchain);
            }
            None if index.is_labelled() => return Some(Next::Impose),
            None => return Some(Next::Egress),
        }
    }
    None
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

#[inline(always)]
fn route(bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> AdjacencyIndex {
    match destination(bytes, meta) {
        Some(destination) => context.view.route(meta.vrf, destination),
        None => AdjacencyIndex::NO_ROUTE,
    }
}
