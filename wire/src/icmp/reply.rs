//! Error messages that a router sends about a packet it cannot forward, as whole IP packets written
//! into the caller's buffer: RFC 1812 section 4.3 for IPv4, RFC 4443 for IPv6.
//!
//! When never to answer is decided here, from the packet alone. What the packet does not show is the
//! caller's: rate limits, a link-layer broadcast, an address that is a subnet's broadcast.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{HEADER_BYTES, extension, is_error_v4, is_error_v6, v4, v6};
use crate::checksum::Sum;
use crate::mpls::MAX_DEPTH;
use crate::{Cursor, IpProtocol, Lse, SliceCursor, TrafficClass, ipv4, ipv6};

/// The longest ICMPv4 error, IP header included (RFC 1812 section 4.3.2.3).
pub const MAX_V4_BYTES: usize = 576;
/// The longest ICMPv6 error, IP header included (RFC 4443 section 2.4 c).
pub const MAX_V6_BYTES: usize = ipv6::MIN_MTU_BYTES;

/// Why a packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The TTL or hop limit is used up.
    TimeExceeded,
    /// Longer than the next hop's MTU, and not to be fragmented: fragmentation needed, or packet too big.
    TooBig {
        /// What would pass. IPv4 has 16 bits for it; more is sent as 65535.
        mtu_bytes: u32,
    },
    /// No route.
    NetUnreachable,
    /// A route, but no neighbour.
    HostUnreachable,
    /// Policy forbids it.
    AdminProhibited,
    /// Nobody listens.
    PortUnreachable,
}

impl Cause {
    const fn kind_and_code_v4(self) -> (u8, u8) {
        match self {
            Self::TimeExceeded => (v4::TIME_EXCEEDED, 0),
            Self::TooBig { .. } => (v4::UNREACHABLE, v4::CODE_FRAGMENTATION_NEEDED),
            Self::NetUnreachable => (v4::UNREACHABLE, v4::CODE_NET),
            Self::HostUnreachable => (v4::UNREACHABLE, v4::CODE_HOST),
            Self::AdminProhibited => (v4::UNREACHABLE, v4::CODE_ADMIN_PROHIBITED),
            Self::PortUnreachable => (v4::UNREACHABLE, v4::CODE_PORT),
        }
    }

    const fn kind_and_code_v6(self) -> (u8, u8) {
        match self {
            Self::TimeExceeded => (v6::TIME_EXCEEDED, 0),
            Self::TooBig { .. } => (v6::PACKET_TOO_BIG, 0),
            Self::NetUnreachable => (v6::UNREACHABLE, v6::CODE_NO_ROUTE),
            Self::HostUnreachable => (v6::UNREACHABLE, v6::CODE_ADDRESS),
            Self::AdminProhibited => (v6::UNREACHABLE, v6::CODE_ADMIN_PROHIBITED),
            Self::PortUnreachable => (v6::UNREACHABLE, v6::CODE_PORT),
        }
    }
}

/// Why no error may be sent about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// The packet's own header does not hold up.
    BadHeader,
    /// It is an ICMP error itself (or a redirect).
    IcmpError,
    /// It is a fragment other than the first.
    LaterFragment,
    /// Its source is not one host's address: unspecified, loopback, multicast, broadcast or reserved.
    SourceNotUnicast,
    /// Its destination is a group.
    DestinationNotUnicast,
    /// The caller's buffer is too short; [`MAX_V4_BYTES`] or [`MAX_V6_BYTES`] always suffices.
    BufferTooSmall,
}

/// Who sends the error, and how.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a, A> {
    /// Why.
    pub cause: Cause,
    /// The router's own address: the receiving interface's, if it has one.
    pub source: A,
    /// The reply's TTL or hop limit.
    pub ttl: u8,
    /// The label stack that the packet arrived under, top first, at most [`MAX_DEPTH`] entries of it
    /// are sent. Only time exceeded and unreachable carry it.
    pub labels: &'a [Lse],
}

/// Writes an ICMPv4 error about `offending`, the IPv4 packet as it was received (before its TTL was
/// changed), and returns the length of the IPv4 packet now at the front of `out`.
pub fn write_v4(
    offending: &[u8],
    reply: &Reply<'_, Ipv4Addr>,
    out: &mut [u8],
) -> Result<usize, Unanswerable> {
    let packet = ipv4::Packet::parse(offending).map_err(|_| Unanswerable::BadHeader)?;
    check_answerable_v4(&packet)?;
    let labels = reply.labels.get(..MAX_DEPTH).unwrap_or(reply.labels);
    let room_bytes = MAX_V4_BYTES - ipv4::HEADER_BYTES - HEADER_BYTES;
    let layout = Layout::new(packet.bytes().len(), room_bytes, labels.len());
    let (out, ip, icmp) = layout.open::<{ ipv4::HEADER_BYTES }>(out)?;
    let (kind, code) = reply.cause.kind_and_code_v4();
    let mtu_bytes = match reply.cause {
        Cause::TooBig { mtu_bytes } => u16::try_from(mtu_bytes).unwrap_or(u16::MAX),
        _ => 0,
    };
    let [mtu_high, mtu_low] = mtu_bytes.to_be_bytes();
    // RFC 4884 section 4.1: in 32-bit words.
    let quote_words = if labels.is_empty() {
        0
    } else {
        (layout.quote_bytes / 4) as u8
    };
    layout.fill(
        icmp,
        [kind, code, 0, 0, 0, quote_words, mtu_high, mtu_low],
        packet.bytes(),
        labels,
    );
    write_checksum(Sum::new(), icmp);
    ipv4::Repr {
        traffic_class: TrafficClass::INTERNETWORK_CONTROL,
        total_bytes: out as u16,
        identification: 0,
        // With DF set the identification need not be unique (RFC 6864 section 4.1).
        dont_fragment: true,
        more_fragments: false,
        fragment_offset_bytes: 0,
        ttl: reply.ttl,
        protocol: IpProtocol::ICMP,
        source: reply.source,
        destination: packet.header.source(),
    }
    .emit(ip);
    Ok(out)
}

/// Writes an ICMPv6 error about `offending`, the IPv6 packet as it was received, and returns the
/// length of the IPv6 packet now at the front of `out`.
pub fn write_v6(
    offending: &[u8],
    reply: &Reply<'_, Ipv6Addr>,
    out: &mut [u8],
) -> Result<usize, Unanswerable> {
    let packet = ipv6::Packet::parse(offending).map_err(|_| Unanswerable::BadHeader)?;
    check_answerable_v6(&packet, reply.cause)?;
    // Packet too big has its MTU where the quote length would be: no extensions (RFC 4884 section 4).
    let labels = match reply.cause {
        Cause::TooBig { .. } => &[],
        _ => reply.labels.get(..MAX_DEPTH).unwrap_or(reply.labels),
    };
    let room_bytes = MAX_V6_BYTES - ipv6::HEADER_BYTES - HEADER_BYTES;
    let layout = Layout::new(packet.bytes().len(), room_bytes, labels.len());
    let (out, ip, icmp) = layout.open::<{ ipv6::HEADER_BYTES }>(out)?;
    let (kind, code) = reply.cause.kind_and_code_v6();
    let [a, b, c, d] = match reply.cause {
        Cause::TooBig { mtu_bytes } => mtu_bytes.to_be_bytes(),
        _ if labels.is_empty() => [0; 4],
        // RFC 4884 section 4.4: in 64-bit words.
        _ => [(layout.quote_bytes / 8) as u8, 0, 0, 0],
    };
    layout.fill(icmp, [kind, code, 0, 0, a, b, c, d], packet.bytes(), labels);
    let destination = packet.header.source();
    let icmp_bytes = icmp.len();
    write_checksum(
        Sum::pseudo_header_v6(reply.source, destination, IpProtocol::ICMPV6, icmp_bytes as u32),
        icmp,
    );
    ipv6::Repr {
        traffic_class: TrafficClass::INTERNETWORK_CONTROL,
        flow_label: 0,
        payload_bytes: icmp_bytes as u16,
        next_header: IpProtocol::ICMPV6,
        hop_limit: reply.ttl,
        source: reply.source,
        destination,
    }
    .emit(ip);
    Ok(out)
}

/// Where quote and extensions stand behind the ICMP header.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of the offending packet that are copied.
    copied_bytes: usize,
    /// The quote with its zero padding.
    quote_bytes: usize,
    extension_bytes: usize,
}

impl Layout {
    fn new(offending_bytes: usize, room_bytes: usize, depth: usize) -> Self {
        let extension_bytes = extension::emitted_bytes(depth);
        if extension_bytes == 0 {
            let quote_bytes = offending_bytes.min(room_bytes);
            return Self {
                copied_bytes: quote_bytes,
                quote_bytes,
                extension_bytes,
            };
        }
        let quote_bytes = extension::QUOTE_BYTES;
        Self {
            copied_bytes: offending_bytes.min(quote_bytes),
            quote_bytes,
            extension_bytes,
        }
    }

    /// Cuts `out` into the IP header and the ICMP message; also gives the length of both together.
    fn open<const IP: usize>(
        self,
        out: &mut [u8],
    ) -> Result<(usize, &mut [u8; IP], &mut [u8]), Unanswerable> {
        let length = IP + HEADER_BYTES + self.quote_bytes + self.extension_bytes;
        let out = out.get_mut(..length).ok_or(Unanswerable::BufferTooSmall)?;
        let (ip, icmp) = out
            .split_first_chunk_mut::<IP>()
            .ok_or(Unanswerable::BufferTooSmall)?;
        Ok((length, ip, icmp))
    }

    /// Writes header, quote, padding and extensions into the message that [`Self::open`] cut.
    fn fill(self, icmp: &mut [u8], header: [u8; HEADER_BYTES], offending: &[u8], labels: &[Lse]) {
        icmp[..HEADER_BYTES].copy_from_slice(&header);
        let (quote, extensions) = icmp[HEADER_BYTES..].split_at_mut(self.quote_bytes);
        quote[..self.copied_bytes].copy_from_slice(&offending[..self.copied_bytes]);
        quote[self.copied_bytes..].fill(0);
        extension::emit_label_stack(labels, extensions);
    }
}

fn write_checksum(pseudo: Sum, icmp: &mut [u8]) {
    let checksum = pseudo.bytes(icmp).checksum();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// RFC 1812 section 4.3.2.7.
fn check_answerable_v4(packet: &ipv4::Packet<'_>) -> Result<(), Unanswerable> {
    let header = packet.header;
    if header.fragment().is_some_and(|fragment| !fragment.is_first()) {
        return Err(Unanswerable::LaterFragment);
    }
    let (source, destination) = (header.source(), header.destination());
    // 0/8 is a network prefix of zero; 224/3 is multicast, class E and limited broadcast.
    if matches!(source.octets()[0], 0 | 127 | 224..) {
        return Err(Unanswerable::SourceNotUnicast);
    }
    if destination.is_multicast() || destination.is_broadcast() {
        return Err(Unanswerable::DestinationNotUnicast);
    }
    match (header.protocol(), packet.payload.first()) {
        // Without a type it cannot be shown not to be an error.
        (IpProtocol::ICMP, None) => Err(Unanswerable::IcmpError),
        (IpProtocol::ICMP, Some(&kind)) if is_error_v4(kind) => Err(Unanswerable::IcmpError),
        _ => Ok(()),
    }
}

/// RFC 4443 section 2.4 e.
fn check_answerable_v6(packet: &ipv6::Packet<'_>, cause: Cause) -> Result<(), Unanswerable> {
    let (source, destination) = (packet.header.source(), packet.header.destination());
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return Err(Unanswerable::SourceNotUnicast);
    }
    // Path MTU discovery works for groups too (exception 1 of e.3).
    if destination.is_multicast() && !matches!(cause, Cause::TooBig { .. }) {
        return Err(Unanswerable::DestinationNotUnicast);
    }
    let upper = packet.upper().map_err(|_| Unanswerable::BadHeader)?;
    if !upper.has_upper_header() {
        return Err(Unanswerable::LaterFragment);
    }
    if upper.protocol == IpProtocol::ICMPV6 {
        let mut cursor = SliceCursor::new(packet.bytes());
        let kind = cursor.skip(upper.offset_bytes).and_then(|()| cursor.take::<1>());
        match kind {
            Some(&[kind]) if !is_error_v6(kind) && kind != v6::REDIRECT => {}
            _ => return Err(Unanswerable::IcmpError),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
