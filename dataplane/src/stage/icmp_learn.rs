//! ICMP errors about our outer packets: the path MTU is learned from those that can only come from the path.
//!
//! In: [`Next::Learn`]: an ICMP error to an address of ours. Out: [`Next::Punt`], always: the kernel has its own use for
//! it. What it says goes to the writer as a [`PathReport`], who believes it (RFC 4301 section 8.2.1) if the packet that it
//! quotes is one that we may have sent: from the tunnel's address to the peer's, with the SPI of an outbound SA and a
//! sequence number that it gave out lately, or with the header of a tunnel in the clear. The queue there is short: a flood
//! of errors costs a worker little and the writer nothing.

use wire::icmp::ErrorMessage;
use wire::udp::MPLS_PORT;
use wire::{IpProtocol, SliceCursor, gre, ipv4, ipv6, udp};

use super::Context;
use crate::batch::{Batch, Flags, Meta, Next, Slots};
use crate::sa::{PathReport, Quoted};
use crate::tables::TunnelHeader;

/// Runs the stage.
pub fn run(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let slots = batch.take(Next::Learn);
    for slot in Slots::of(slots) {
        if let Some(report) = read(batch.bytes(slot), batch.meta(slot)) {
            // Full: the router will say it again.
            let _ = context.paths.push(report);
        }
    }
    batch.send_all(slots, Next::Punt);
}

/// The report in an error; `None` for any other error, and for quotes that are too short or of no tunnel.
fn read(bytes: &[u8], meta: &Meta) -> Option<PathReport> {
    if meta.flags.has(Flags::IPV6) {
        let packet = ipv6::Packet::parse(bytes).ok()?;
        let message = bytes.get(usize::from(meta.upper_bytes)..)?;
        let (source, destination) = (packet.header.source(), packet.header.destination());
        let error = ErrorMessage::parse_v6(message, source, destination).ok()?;
        let mut cursor = SliceCursor::new(error.quoted);
        let header = ipv6::Header::parse(&mut cursor).ok()?;
        let quoted = upper_header(cursor.rest(), header.next_header())?;
        // A claim of zero is IPv4's way of not knowing.
        let claimed_bytes = u16::try_from(error.mtu_bytes?).unwrap_or(u16::MAX).max(1);
        Some(PathReport {
            vrf: meta.vrf,
            source: header.source().into(),
            destination: header.destination().into(),
            quoted,
            packet_bytes: header.payload_bytes().saturating_add(ipv6::HEADER_BYTES as u16),
            claimed_bytes,
        })
    } else {
        let packet = ipv4::Packet::parse(bytes).ok()?;
        let error = ErrorMessage::parse_v4(packet.payload).ok()?;
        let mut cursor = SliceCursor::new(error.quoted);
        let header = ipv4::Header::parse(&mut cursor).ok()?;
        let quoted = upper_header(cursor.rest(), header.protocol())?;
        Some(PathReport {
            vrf: meta.vrf,
            source: header.source().into(),
            destination: header.destination().into(),
            quoted,
            packet_bytes: header.total_bytes(),
            claimed_bytes: u16::try_from(error.mtu_bytes?).unwrap_or(u16::MAX),
        })
    }
}

/// What a quoted packet has behind its IP header; a quote holds at least 8 bytes of that (RFC 792), which for ESP in UDP
/// and for a GRE key behind a checksum is too little to believe.
fn upper_header(upper: &[u8], protocol: IpProtocol) -> Option<Quoted> {
    let esp = match protocol {
        IpProtocol::ESP => upper,
        IpProtocol::IPV4 | IpProtocol::IPV6 | IpProtocol::MPLS => {
            return Some(Quoted::Clear(TunnelHeader::Ip));
        }
        IpProtocol::GRE => {
            let header = gre::Repr::parse(&mut SliceCursor::new(upper)).ok()?;
            return Some(Quoted::Clear(TunnelHeader::Gre(header.key)));
        }
        IpProtocol::UDP => {
            if upper.get(2..4)? == MPLS_PORT.to_be_bytes() {
                return Some(Quoted::Clear(TunnelHeader::Udp));
            }
            upper.get(udp::HEADER_BYTES..)?
        }
        _ => return None,
    };
    let [s0, s1, s2, s3, n0, n1, n2, n3] = *esp.first_chunk::<8>()?;
    Some(Quoted::Esp {
        spi: u32::from_be_bytes([s0, s1, s2, s3]),
        sequence_low: u32::from_be_bytes([n0, n1, n2, n3]),
    })
}
