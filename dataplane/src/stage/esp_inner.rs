//! What the decapsulation stage reads and writes in one packet: whose it is before the cipher, what is in it after.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use southbound::DropReason;
use wire::checksum::Sum;
use wire::flow::{Tuple, UpperSelector};
use wire::{IpProtocol, SliceCursor, TrafficClass, esp, ipv4, ipv6, tcp, udp};

use super::{Context, ecn};
use crate::batch::{Flags, Meta};
use crate::sa::{Flow, Selectors};
use crate::xsk::Frame;

/// Whether the packet's destination is `local`.
#[inline(always)]
#[must_use]
pub fn is_addressed_to(bytes: &[u8], meta: &Meta, local: IpAddr) -> bool {
    match (local, meta.flags.has(Flags::IPV6)) {
        (IpAddr::V4(local), false) => bytes.get(16..20) == Some(&local.octets()[..]),
        (IpAddr::V6(local), true) => bytes.get(24..40) == Some(&local.octets()[..]),
        _ => false,
    }
}

/// Whether the packet's destination is any address of ours.
#[must_use]
pub fn is_for_us(bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> bool {
    destination(bytes, meta).is_some_and(|address| context.view.is_local(meta.vrf, address))
}

/// The packet's destination; the header was checked to be there.
#[inline(always)]
#[must_use]
pub fn destination(bytes: &[u8], meta: &Meta) -> Option<IpAddr> {
    address_at(bytes, meta, 16, 24)
}

/// The packet's source.
#[inline(always)]
#[must_use]
pub fn source(bytes: &[u8], meta: &Meta) -> Option<IpAddr> {
    address_at(bytes, meta, 12, 8)
}

#[inline(always)]
fn address_at(bytes: &[u8], meta: &Meta, at_v4: usize, at_v6: usize) -> Option<IpAddr> {
    if meta.flags.has(Flags::IPV6) {
        let octets = *bytes.get(at_v6..)?.first_chunk::<16>()?;
        Some(IpAddr::V6(Ipv6Addr::from_octets(octets)))
    } else {
        let octets = *bytes.get(at_v4..)?.first_chunk::<4>()?;
        Some(IpAddr::V4(Ipv4Addr::from_octets(octets)))
    }
}

/// The outer source address, and the UDP port of ESP in UDP.
#[inline(always)]
#[must_use]
pub fn sender(bytes: &[u8], meta: &Meta) -> (IpAddr, Option<u16>) {
    let address = source(bytes, meta).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let port = if meta.flags.has(Flags::IN_UDP) {
        let at = usize::from(meta.upper_bytes) - udp::HEADER_BYTES;
        bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<2>())
            .map(|port| u16::from_be_bytes(*port))
    } else {
        None
    };
    (address, port)
}

/// The fields that selectors and rules look at.
///
/// # Errors
/// [`DropReason::InnerMalformed`] where the packet ends before them.
#[inline]
pub fn flow(bytes: &[u8]) -> Result<Flow, DropReason> {
    let tuple = Tuple::parse(bytes).map_err(|_| DropReason::InnerMalformed)?;
    Ok(flow_of(&tuple))
}

/// Whether the addresses are enough for the SA's selectors, so that nothing else of the packet has to be read.
#[inline(always)]
#[must_use]
pub fn is_admitted_by_address(bytes: &[u8], meta: &Meta, selectors: &Selectors) -> bool {
    if meta.flags.has(Flags::IPV6) {
        let Some([source, destination]) = bytes.get(8..40).map(|both| both.as_chunks::<16>().0) else {
            return false;
        };
        selectors.admit_addresses_v6(u128::from_be_bytes(*source), u128::from_be_bytes(*destination))
    } else {
        let Some([source, destination]) = bytes.get(12..20).map(|both| both.as_chunks::<4>().0) else {
            return false;
        };
        selectors.admit_addresses_v4(u32::from_be_bytes(*source), u32::from_be_bytes(*destination))
    }
}

/// A tuple in the tables' words: for ICMP both ports are type and code (RFC 4301 section 4.4.1.1).
#[inline]
#[must_use]
pub fn flow_of(tuple: &Tuple) -> Flow {
    let ports = match tuple.upper {
        UpperSelector::Ports { source, destination } => Some((source, destination)),
        UpperSelector::Icmp { kind, code } => {
            let both = u16::from_be_bytes([kind, code]);
            Some((both, both))
        }
        UpperSelector::Mobility { kind } => {
            let both = u16::from_be_bytes([kind, 0]);
            Some((both, both))
        }
        UpperSelector::None | UpperSelector::Opaque => None,
    };
    Flow {
        source: tuple.source,
        destination: tuple.destination,
        protocol: tuple.protocol.0,
        ports,
    }
}

/// Splits the text at `start..end` of the frame: bytes of payload and what it is.
#[inline(always)]
fn split(bytes: &[u8], start: usize, end: usize) -> Result<(usize, IpProtocol), DropReason> {
    let text = bytes.get(start..end).ok_or(DropReason::EspRunt)?;
    // RFC 4303 section 2.4: the pad length is believed only now that the ICV was right.
    let (payload, padding, trailer) = esp::Trailer::split(text).map_err(|_| DropReason::BadPadding)?;
    esp::verify_padding(padding).map_err(|_| DropReason::BadPadding)?;
    if trailer.next_header == IpProtocol::NO_NEXT_HEADER {
        return Err(DropReason::Dummy);
    }
    Ok((payload.len(), trailer.next_header))
}

/// The usual packet in tunnel mode, seen through at one look: IPv4 in IPv4 from `sender`, sound, without options or
/// congestion marks, and within the selectors by its addresses. Leaves the inner packet alone in the frame and answers
/// true; false says nothing, and nothing was changed.
#[inline(always)]
#[must_use]
pub fn unwrap_usual(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    sender: [u8; 4],
    text: Range<usize>,
    selectors: &Selectors,
) -> bool {
    let is_outer_v4 = !meta.flags.has(Flags::IPV6) && !meta.flags.has(Flags::IN_UDP);
    let start = text.start;
    match usual_inner_bytes(frame.bytes(), sender, text, selectors) {
        Some(inner_bytes) if is_outer_v4 => frame.narrow(start, inner_bytes),
        _ => false,
    }
}

/// The length of the inner packet, where all is as usual.
#[inline(always)]
fn usual_inner_bytes(
    bytes: &[u8],
    sender: [u8; 4],
    text: Range<usize>,
    selectors: &Selectors,
) -> Option<usize> {
    let outer = bytes.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
    let text = bytes.get(text)?;
    let inner = text.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
    let (body, &[pad_bytes, next_header]) = text.split_last_chunk::<{ esp::TRAILER_BYTES }>()?;
    // RFC 4303 section 2.4: the pad length is believed only now that the ICV was right.
    let (payload, padding) = body.split_at_checked(body.len().checked_sub(usize::from(pad_bytes))?)?;
    let inner_bytes = usize::from(u16::from_be_bytes([inner[2], inner[3]]));
    let address = |at: usize| {
        inner[at..]
            .first_chunk()
            .map_or(0, |octets| u32::from_be_bytes(*octets))
    };
    let is_usual = outer[12..16] == sender
        && next_header == IpProtocol::IPV4.0
        && inner[0] == 0x45
        // No congestion experienced, and none that could be.
        && (outer[1] | inner[1]) & 3 == 0
        && inner_bytes >= ipv4::HEADER_BYTES
        && inner_bytes <= payload.len()
        && ipv4::is_checksum_valid(inner)
        && !ipv4::is_no_unicast(inner[12])
        && selectors.admit_addresses_v4(address(12), address(16))
        && esp::verify_padding(padding).is_ok();
    is_usual.then_some(inner_bytes)
}

/// Leaves the inner packet alone in the frame, with the outer header's ECN taken over; outer extension headers, TFC
/// padding (RFC 4303 section 2.7), trailer and ICV go.
///
/// # Errors
/// What is wrong with the padding, the next header, or the inner packet.
#[inline(always)]
pub fn unwrap_tunnel(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    start: usize,
    end: usize,
) -> Result<(), DropReason> {
    let outer_class = traffic_class(frame.bytes(), meta);
    let (payload_bytes, next_header) = split(frame.bytes(), start, end)?;
    frame.truncate(start + payload_bytes);
    if !frame.shrink_front(start) {
        return Err(DropReason::EspRunt);
    }
    meta.flags.clear(Flags::IPV6);
    meta.flags.clear(Flags::IN_UDP);
    let inner_bytes = match next_header {
        IpProtocol::IPV4 => inner_v4(frame.bytes_mut(), outer_class)?,
        IpProtocol::IPV6 => {
            meta.flags.set(Flags::IPV6);
            inner_v6(frame.bytes_mut(), outer_class)?
        }
        _ => return Err(DropReason::NextHeaderRefused),
    };
    // TFC padding lies behind the inner packet; the packet's own length was checked to be within.
    frame.truncate(inner_bytes);
    Ok(())
}

#[inline(always)]
pub(super) fn inner_v4(bytes: &mut [u8], outer: TrafficClass) -> Result<usize, DropReason> {
    let packet = ipv4::Packet::parse(bytes).map_err(|_| DropReason::InnerMalformed)?;
    packet.verify_checksum().map_err(|_| DropReason::InnerMalformed)?;
    let inner_bytes = packet.bytes().len();
    let class = packet.header.traffic_class();
    if matches!(packet.header.source().octets()[0], 0 | 127 | 224..) {
        return Err(DropReason::MartianSource);
    }
    let ecn = ecn::decapsulate(class.ecn(), outer.ecn())?;
    if ecn != class.ecn()
        && let Some(header) = bytes.first_chunk_mut()
    {
        ipv4::set_traffic_class(header, class.with_ecn(ecn));
    }
    Ok(inner_bytes)
}

#[inline(always)]
pub(super) fn inner_v6(bytes: &mut [u8], outer: TrafficClass) -> Result<usize, DropReason> {
    let packet = ipv6::Packet::parse(bytes).map_err(|_| DropReason::InnerMalformed)?;
    let inner_bytes = packet.bytes().len();
    let class = packet.header.traffic_class();
    let source = packet.header.source();
    if source.is_multicast() || source.is_loopback() || source.is_unspecified() {
        return Err(DropReason::MartianSource);
    }
    let ecn = ecn::decapsulate(class.ecn(), outer.ecn())?;
    if ecn != class.ecn()
        && let Some(header) = bytes.first_chunk_mut()
    {
        ipv6::set_traffic_class(header, class.with_ecn(ecn));
    }
    Ok(inner_bytes)
}

fn traffic_class(bytes: &[u8], meta: &Meta) -> TrafficClass {
    match bytes {
        [first, second, ..] if meta.flags.has(Flags::IPV6) => TrafficClass(first << 4 | second >> 4),
        [_, class, ..] => TrafficClass(*class),
        _ => TrafficClass(0),
    }
}

/// Joins the IP header, with its extension headers, to the payload again: UDP and ESP headers, IV, trailer and ICV go.
///
/// A whole packet is taken as payload only where the SA is of a tunnel that `carries_ip`.
///
/// # Errors
/// What is wrong with the padding or the next header.
pub fn unwrap_transport(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    start: usize,
    end: usize,
    carries_ip: bool,
) -> Result<(), DropReason> {
    let (payload_bytes, next_header) = split(frame.bytes(), start, end)?;
    // Extension headers stand before ESP, and a whole packet is no payload of an SA between two ends: a tunnel that
    // nobody configured (CVE-2020-10136) would begin here.
    let is_refused = match next_header {
        IpProtocol::HOP_BY_HOP => true,
        IpProtocol::IPV4 | IpProtocol::IPV6 | IpProtocol::MPLS => !carries_ip,
        _ => false,
    };
    if is_refused {
        return Err(DropReason::NextHeaderRefused);
    }
    let in_udp = meta.flags.has(Flags::IN_UDP);
    let header_bytes = usize::from(meta.upper_bytes) - if in_udp { udp::HEADER_BYTES } else { 0 };
    let is_ipv6 = meta.flags.has(Flags::IPV6);
    let next_header_at = if is_ipv6 {
        next_header_place(frame.bytes())?
    } else {
        9
    };
    frame.truncate(start + payload_bytes);
    let gap_bytes = start - header_bytes;
    frame.bytes_mut().copy_within(..header_bytes, gap_bytes);
    if !frame.shrink_front(gap_bytes) {
        return Err(DropReason::EspRunt);
    }
    meta.flags.clear(Flags::IN_UDP);
    meta.upper_bytes = header_bytes as u16;
    let total_bytes = u16::try_from(frame.len()).map_err(|_| DropReason::InnerMalformed)?;
    let bytes = frame.bytes_mut();
    if is_ipv6 {
        if let Some(byte) = bytes.get_mut(next_header_at) {
            *byte = next_header.0;
        }
        if let Some(header) = bytes.first_chunk_mut() {
            ipv6::set_payload_bytes(header, total_bytes - ipv6::HEADER_BYTES as u16);
        }
    } else if let Some(header) = bytes.first_chunk_mut() {
        ipv4::set_protocol(header, next_header);
        ipv4::set_total_bytes(header, total_bytes);
    }
    if in_udp {
        complete_checksum(bytes, header_bytes, next_header);
    }
    Ok(())
}

/// Where the byte stands that names ESP: IPv6 extension headers before ESP are kept in transport mode.
fn next_header_place(bytes: &[u8]) -> Result<usize, DropReason> {
    let mut cursor = SliceCursor::new(bytes);
    let header = ipv6::Header::parse(&mut cursor).map_err(|_| DropReason::Truncated)?;
    let upper =
        ipv6::walk_extensions(&mut cursor, header.next_header()).map_err(|_| DropReason::ExtensionHeaders)?;
    Ok(upper.next_header_at)
}

/// Behind a NAT the addresses that the sender's checksum covers are not those that we see; the ICV has proven the
/// payload, so the checksum is made anew (RFC 3948 section 3.1.2).
fn complete_checksum(bytes: &mut [u8], header_bytes: usize, protocol: IpProtocol) {
    let checksum_at = match protocol {
        IpProtocol::TCP => tcp::CHECKSUM_AT,
        IpProtocol::UDP => 6,
        _ => return,
    };
    let is_ipv6 = bytes.first().is_some_and(|first| first >> 4 == 6);
    let Some((header, payload)) = bytes.split_at_mut_checked(header_bytes) else {
        return;
    };
    let addresses = if is_ipv6 {
        header.get(8..40)
    } else {
        header.get(12..20)
    };
    let (Some(addresses), Some(length), Some(field)) = (
        addresses,
        u16::try_from(payload.len()).ok(),
        payload.get_mut(checksum_at..checksum_at + 2),
    ) else {
        return;
    };
    if protocol == IpProtocol::UDP && field == [0, 0] && !is_ipv6 {
        return;
    }
    field.fill(0);
    let sum = Sum::new()
        .bytes(addresses)
        .word(u16::from(protocol.0))
        .word(length)
        .bytes(payload);
    // RFC 768: a sum of zero is sent as its other representation; for TCP both mean the same.
    let checksum = match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = payload.get_mut(checksum_at..checksum_at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
