//! The packet beneath a label stack, once the last label is popped.

use std::net::IpAddr;

use southbound::{DropReason, PopClass};
use wire::{SliceCursor, TrafficClass, ipv4, ipv6};

use super::mpls_forward::{Popped, Stop};
use super::{Context, classify, esp_inner, hop, way};
use crate::batch::{Flags, Meta, Next, SenderError};
use crate::tables::{Adjacency, AdjacencyIndex, VrfIndex};
use crate::xsk::Frame;

/// Takes the IP packet out and has it routed in `vrf`.
///
/// # Errors
/// Why it cannot go on; then nothing was changed.
#[inline(always)]
pub(super) fn route(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    end: usize,
    vrf: VrfIndex,
    popped: &Popped,
    context: &Context<'_, '_>,
) -> Result<Next, Stop> {
    take_out(frame, meta, end, popped, context)?;
    meta.vrf = vrf;
    // What came through an SA is held against the rules as such.
    Ok(if meta.out_of.is_some() {
        Next::PolicyIn
    } else {
        Next::PolicyOut
    })
}

/// Takes a stack of `end` bytes off the IP packet beneath it, which is checked like one that arrives on a wire.
///
/// # Errors
/// Why it cannot go on; then nothing was changed.
#[inline(always)]
pub(super) fn take_out(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    end: usize,
    popped: &Popped,
    context: &Context<'_, '_>,
) -> Result<(), DropReason> {
    let packet = frame.bytes().get(end..).unwrap_or_default();
    let (packet_bytes, is_ipv6) = match classify::usual_v4(packet) {
        Some(packet_bytes) => (packet_bytes, false),
        None => measure(packet)?,
    };
    if !frame.narrow(end, packet_bytes) {
        return Err(DropReason::LabelStackTruncated);
    }
    meta.flags.clear(Flags::LABELLED.or(Flags::IPV6));
    if is_ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    // Where the stack was its bytes still stand: an error shows them.
    meta.labels_bytes = end as u8;
    if let Some(ttl) = popped.ttl {
        pass_ttl(frame.bytes_mut(), meta, ttl);
    }
    if popped.class != PopClass::Keep {
        pass_class(frame.bytes_mut(), is_ipv6, popped, context);
    }
    Ok(())
}

/// The length of an IP packet that may go on, and whether it is IPv6. Behind it may be what fills a short Ethernet frame.
#[inline(never)]
fn measure(packet: &[u8]) -> Result<(usize, bool), DropReason> {
    let is_ipv6 = match packet.first().map(|first| first >> 4) {
        Some(4) => false,
        Some(6) => true,
        _ => return Err(DropReason::LabelPayload),
    };
    let packet_bytes = classify::measure(packet, is_ipv6)?;
    classify::forwardable(packet, is_ipv6)?;
    if is_martian(packet, is_ipv6) {
        return Err(DropReason::MartianSource);
    }
    Ok((packet_bytes, is_ipv6))
}

fn is_martian(packet: &[u8], is_ipv6: bool) -> bool {
    if is_ipv6 {
        match packet.get(8..24).and_then(|octets| octets.first_chunk::<16>()) {
            Some(octets) => {
                let source = std::net::Ipv6Addr::from_octets(*octets);
                source.is_multicast() || source.is_unspecified() || source.is_loopback()
            }
            None => true,
        }
    } else {
        packet
            .get(12)
            .is_none_or(|first| matches!(first, 0 | 127 | 224..))
    }
}

/// The uniform model (RFC 3443 section 3.1): the label's TTL goes on where it is less than the packet's own; then the
/// hop is taken already.
#[inline]
fn pass_ttl(bytes: &mut [u8], meta: &mut Meta, ttl: u8) {
    if meta.flags.has(Flags::IPV6) {
        if let Some(own) = bytes.get_mut(7)
            && ttl < *own
        {
            *own = ttl;
            meta.flags.set(Flags::HOP_TAKEN);
        }
    } else if let Some(header) = bytes.first_chunk_mut::<{ ipv4::HEADER_BYTES }>()
        && ttl < header[8]
    {
        ipv4::set_ttl(header, ttl);
        meta.flags.set(Flags::HOP_TAKEN);
    }
}

/// The DSCP of the traffic class (RFC 3270 section 2.6.2); ECN stays.
fn pass_class(bytes: &mut [u8], is_ipv6: bool, popped: &Popped, context: &Context<'_, '_>) {
    let dscp = match popped.class {
        PopClass::Keep => None,
        PopClass::Selector => Some(popped.traffic_class << 3),
        PopClass::Map(map) => context.view.dscp_of(map, popped.traffic_class),
    };
    let Some(dscp) = dscp else { return };
    let own = traffic_class(bytes, is_ipv6);
    let class = own.with_dscp(dscp);
    if is_ipv6 {
        if let Some(header) = bytes.first_chunk_mut() {
            ipv6::set_traffic_class(header, class);
        }
    } else if let Some(header) = bytes.first_chunk_mut() {
        ipv4::set_traffic_class(header, class);
    }
}

/// The traffic class of an IP packet.
#[inline]
pub(super) fn traffic_class(bytes: &[u8], is_ipv6: bool) -> TrafficClass {
    match bytes {
        [first, second, ..] if is_ipv6 => TrafficClass(first << 4 | second >> 4),
        [_, class, ..] => TrafficClass(*class),
        _ => TrafficClass(0),
    }
}

/// The TTL or hop limit of an IP packet.
#[inline]
pub(super) fn ttl(bytes: &[u8], is_ipv6: bool) -> u8 {
    bytes.get(if is_ipv6 { 7 } else { 8 }).copied().unwrap_or(0)
}

/// Sends a packet that was taken out to the next hop that its label named. Towards a customer it takes one of the
/// packet's own TTL, towards a router of labels not: there the LSP ends (RFC 3443 section 3.3).
pub(super) fn send(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    adjacency: AdjacencyIndex,
    context: &Context<'_, '_>,
) -> Result<Next, Stop> {
    let port = match context.view.adjacency(adjacency, 0) {
        Adjacency::Neighbour(neighbour) => context.view.port(neighbour.port),
        Adjacency::Incomplete(neighbour) => context.view.port(neighbour.port),
        _ => None,
    };
    if let Some(port) = port {
        // Its errors come from, and go back by, the customer's table.
        meta.vrf = port.vrf;
        if port.mpls.is_none() && !hop::take(frame.bytes_mut(), meta) {
            return Err(Stop::Refuse(DropReason::TtlExceeded, SenderError::TimeExceeded));
        }
    }
    meta.flags.set(Flags::HOP_TAKEN);
    Ok(way::take(adjacency, meta))
}

/// Router alert: for the host where the packet is to this gateway, or to a loopback address (RFC 8029 section 3.1).
/// Anything else is dropped, lest a label lets a packet into the host's own routing.
pub(super) fn alert(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    end: usize,
    context: &Context<'_, '_>,
) -> Result<Next, Stop> {
    let packet = frame.bytes().get(end..).unwrap_or_default();
    let is_ipv6 = match packet.first().map(|first| first >> 4) {
        Some(4) => false,
        Some(6) => true,
        _ => return Err(DropReason::LabelPayload.into()),
    };
    let packet_bytes = classify::measure(packet, is_ipv6)?;
    let destination: Option<IpAddr> = if is_ipv6 {
        ipv6::Header::parse(&mut SliceCursor::new(packet))
            .ok()
            .map(|header| header.destination().into())
    } else {
        ipv4::Header::parse(&mut SliceCursor::new(packet))
            .ok()
            .map(|header| header.destination().into())
    };
    let is_ours = destination.is_some_and(|address| {
        let is_loopback = match address {
            IpAddr::V4(v4) => v4.is_loopback(),
            IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
        };
        is_loopback || context.view.is_local(meta.vrf, address)
    });
    if !is_ours || is_martian(packet, is_ipv6) {
        return Err(DropReason::LabelReserved.into());
    }
    if !frame.shrink_front(end) {
        return Err(DropReason::LabelStackTruncated.into());
    }
    frame.truncate(packet_bytes);
    meta.flags.clear(Flags::LABELLED);
    if is_ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    debug_assert!(esp_inner::destination(frame.bytes(), meta).is_some());
    Ok(Next::Punt)
}
