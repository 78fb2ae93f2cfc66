//! Waiting: for a neighbour's address or a tunnel's SA.
//!
//! In: [`Next::Hold`]. The packet leaves the batch, and comes back by [`release`] once what it waits for is there.

use southbound::{DropReason, Encapsulation, Event};
use wire::IpProtocol;

use super::{Context, egress, esp_inner};
use crate::batch::{Batch, Flags, Meta, Next, SenderError, Slots};
use crate::hold::{Answer, Awaited};
use crate::sa::{Flow, Tunnel};
use crate::tables::Adjacency;

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    for slot in Slots::of(batch.take(Next::Hold)) {
        match awaited(batch.bytes(slot), batch.meta(slot), context) {
            Some(awaited) => wait(batch, slot, awaited, context),
            None => batch.discard(slot, DropReason::NoRoute),
        }
    }
}

/// What the packet waits for, asked for at the main thread where that is due.
fn awaited(bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> Option<Awaited> {
    if let (Some(index), false) = (meta.into, meta.flags.has(Flags::OUTER)) {
        let tunnel = context.view.tunnel(index)?;
        if tunnel.should_acquire(context.now_ms())
            && let Some(flow) = acquired(tunnel, bytes)
        {
            context.raise(Event::Acquire {
                tunnel: tunnel.id,
                source: flow.source,
                destination: flow.destination,
                protocol: flow.protocol,
                ports: flow.ports,
            });
        }
        return Some(Awaited::OutboundSa(index));
    }
    let flow_hash = if meta.adjacency.is_group() {
        egress::flow_hash(bytes)
    } else {
        0
    };
    match context.view.adjacency(meta.adjacency, flow_hash) {
        Adjacency::Incomplete(neighbour) => {
            if neighbour.should_ask(context.now_ms()) {
                context.need_neighbour(neighbour.port_id, neighbour.address);
            }
            Some(Awaited::Gateway {
                adjacency: meta.adjacency,
                flow_hash,
            })
        }
        Adjacency::Glean(link) => {
            let destination = esp_inner::destination(bytes, meta)?;
            if link.should_ask(destination, context.now_ms()) {
                context.need_neighbour(link.port_id, destination);
            }
            Some(Awaited::OnLink {
                vrf: meta.vrf,
                destination,
            })
        }
        _ => None,
    }
}

/// What the SA is to carry: the packet, or the tunnel's own packets with their header.
fn acquired(tunnel: &Tunnel, bytes: &[u8]) -> Option<Flow> {
    let protocol = match tunnel.encapsulation {
        Encapsulation::Esp => return esp_inner::flow(bytes).ok(),
        Encapsulation::Gre { .. } => IpProtocol::GRE,
        Encapsulation::Udp => IpProtocol::UDP,
        Encapsulation::Ip => IpProtocol::MPLS,
    };
    Some(Flow {
        source: tunnel.local,
        destination: tunnel.remote,
        protocol: protocol.0,
        ports: None,
    })
}

fn wait<'u>(batch: &mut Batch<'u>, slot: usize, awaited: Awaited, context: &mut Context<'_, 'u>) {
    let meta = *batch.meta(slot);
    // Looked up again when it comes back: by rules where a rule sent it into the tunnel, else by routes.
    let resume = if meta.flags.has(Flags::LABELLED) {
        // Its labels are decided.
        if meta.into.is_some() {
            Next::Midchain
        } else {
            Next::Egress
        }
    } else if meta.flags.has(Flags::PROTECTED) && !meta.flags.has(Flags::OUTER) {
        Next::PolicyOut
    } else {
        Next::Forward
    };
    let Some(frame) = batch.remove(slot) else { return };
    if let Err(frame) = context.hold.push(frame, meta, resume, awaited, context.now_ns) {
        // Its slot was just freed.
        match batch.push(frame, meta, Next::Drop) {
            Ok(slot) => batch.set_reason(slot, awaited.full()),
            Err(frame) => context.pool.put(frame),
        }
    }
}

/// Moves packets whose wait is over into the batch, as far as there is room.
pub fn release<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    let (view, now_ns, room) = (context.view, context.now_ns, batch.room());
    let ask = |awaited| match awaited {
        Awaited::Gateway { adjacency, flow_hash } => match view.adjacency(adjacency, flow_hash) {
            Adjacency::Incomplete(neighbour) if neighbour.failed => Answer::GiveUp,
            Adjacency::Incomplete(_) => Answer::Wait,
            _ => Answer::Release,
        },
        Awaited::OnLink { vrf, destination } => match view.adjacency(view.route(vrf, destination), 0) {
            Adjacency::Glean(_) => Answer::Wait,
            Adjacency::Incomplete(neighbour) if neighbour.failed => Answer::GiveUp,
            Adjacency::Incomplete(_) => Answer::Wait,
            _ => Answer::Release,
        },
        Awaited::OutboundSa(index) => match view.tunnel(index) {
            None => Answer::GiveUp,
            Some(tunnel) if view.outbound(tunnel).is_some() => Answer::Release,
            Some(_) => Answer::Wait,
        },
    };
    let pool = &mut *context.pool;
    context.hold.sweep(now_ns, room, ask, |held| {
        let mut meta = held.meta;
        let next = if held.released { held.resume } else { Next::Error };
        if held.released {
            if next != Next::Midchain {
                meta.into = None;
            }
        } else {
            meta.error = SenderError::HostUnreachable;
        }
        match batch.push(held.frame, meta, next) {
            Ok(slot) => batch.set_reason(slot, held.awaited.timed_out()),
            // Not more were asked for than there was room for.
            Err(frame) => pool.put(frame),
        }
    });
}
