//! Forwarding: the longest prefix of the packet's table that matches its destination.
//!
//! In: [`Next::Forward`]. Out: [`Next::Midchain`] where the route leads into a tunnel, [`Next::Impose`] where it has labels, [`Next::Egress`] where it leads out
//! of a port, [`Next::Punt`] where it leads to the host or to an interface of the kernel's. The TTL is taken on the first
//! two: a host does not decrement what it receives, and the kernel does it itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use southbound::DropReason;
use wire::ipv4;

use super::{Context, egress, hop};
use crate::batch::{Batch, Flags, Meta, Next, SenderError, Slots};
use crate::tables::{AdjacencyIndex, VrfIndex};

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    const UNUSUAL: Flags = Flags::IPV6.or(Flags::HOP_TAKEN).or(Flags::OUTER);
    let mut walk = Walk::of(VrfIndex::MAIN);
    // What the packet before was found to do: packets of one flow follow each other.
    let mut before = None::<Usual>;
    let (mut into_tunnels, mut out_of_ports) = (0, 0);
    for slot in Slots::of(batch.take(Next::Forward)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let packet_bytes = frame.len() as u64;
        if let Some(usual) = before
            && usual.vrf == meta.vrf
            && !meta.flags.has_any(UNUSUAL)
            && let Some(header) = frame.bytes_mut().first_chunk_mut::<{ ipv4::HEADER_BYTES }>()
            && header[16..] == usual.destination
            && ipv4::decrement_ttl(header).is_ok()
        {
            meta.flags.set(Flags::HOP_TAKEN);
            meta.adjacency = usual.index;
            if let Some(tunnel) = usual.index.tunnel() {
                meta.into = Some(tunnel);
                into_tunnels |= 1 << slot;
            } else {
                out_of_ports |= 1 << slot;
            }
            walk.packets += 1;
            walk.bytes += packet_bytes;
            continue;
        }
        match walk.forward(batch, slot, context) {
            Some(Way::Tunnel(usual)) => {
                before = usual;
                into_tunnels |= 1 << slot;
            }
            Some(Way::Port(usual)) => {
                before = usual;
                out_of_ports |= 1 << slot;
            }
            None => before = None,
        }
    }
    walk.count(context);
    batch.send_all(into_tunnels, Next::Midchain);
    batch.send_all(out_of_ports, Next::Egress);
}

/// What holds for every IPv4 packet of a table to a destination.
#[derive(Clone, Copy)]
struct Usual {
    vrf: VrfIndex,
    destination: [u8; 4],
    index: AdjacencyIndex,
}

/// Where a packet goes on, and what the next one may go by; nothing where its destination alone does not decide.
enum Way {
    Tunnel(Option<Usual>),
    Port(Option<Usual>),
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

    fn count(&self, context: &Context<'_, '_>) {
        if self.packets != 0 {
            context.view.count_vrf(self.vrf, self.packets, self.bytes);
        }
    }

    /// Any packet; without a way it is on another edge. Apart from the loop above, whose values then stay in registers.
    #[inline(never)]
    fn forward<'u>(
        &mut self,
        batch: &mut Batch<'u>,
        slot: usize,
        context: &mut Context<'_, 'u>,
    ) -> Option<Way> {
        let (frame, meta) = batch.packet_mut(slot)?;
        let mut index = route(frame.bytes(), meta, context);
        let usual = usual(frame.bytes(), meta, index);
        if let Some(vrf) = index.other_vrf() {
            // A leak, which leads into one other table and no further.
            meta.vrf = vrf;
            index = route(frame.bytes(), meta, context);
            if index.other_vrf().is_some() {
                batch.discard(slot, DropReason::VrfLoop);
                return None;
            }
        }
        if self.vrf != meta.vrf {
            self.count(context);
            *self = Self::of(meta.vrf);
        }
        self.packets += 1;
        self.bytes += frame.len() as u64;
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
                    return Some(Way::Tunnel(usual));
                }
                None if index.is_labelled() => batch.send(slot, Next::Impose),
                None => return Some(Way::Port(usual)),
            }
        }
        None
    }
}

fn usual(bytes: &[u8], meta: &Meta, index: AdjacencyIndex) -> Option<Usual> {
    let destination = *bytes.get(16..)?.first_chunk()?;
    (index.is_single() && !meta.flags.has(Flags::IPV6)).then_some(Usual {
        vrf: meta.vrf,
        destination,
        index,
    })
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
    if meta.flags.has(Flags::IPV6) {
        match bytes.get(24..40).and_then(|octets| octets.first_chunk::<16>()) {
            Some(octets) => context.view.route_v6(meta.vrf, Ipv6Addr::from_octets(*octets)),
            None => AdjacencyIndex::NO_ROUTE,
        }
    } else {
        match bytes.get(16..20).and_then(|octets| octets.first_chunk::<4>()) {
            Some(octets) => context.view.route_v4(meta.vrf, Ipv4Addr::from_octets(*octets)),
            None => AdjacencyIndex::NO_ROUTE,
        }
    }
}
