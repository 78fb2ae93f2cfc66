//! Out of a GRE, IP or UDP tunnel.
//!
//! In: [`Next::Untunnel`]: an IP packet to this gateway with such a header, as it came or as an SA brought it. Out:
//! [`Next::PolicyIn`] with the IP packet inside, [`Next::Labels`] with the labelled one; [`Next::Punt`] where no tunnel of
//! ours has these ends, for the kernel may have one.
//!
//! A protected tunnel takes what came by its own SA and nothing else; the SA's key then says which tunnel it is, whatever
//! a NAT made of the addresses.

use std::net::IpAddr;

use southbound::{DropReason, EcnPolicy, Encapsulation, WorkerCounter};
use wire::{EtherType, IpProtocol, SliceCursor, TrafficClass, gre, ipv4, ipv6, udp};

use super::{Context, esp_inner};
use crate::batch::{Batch, Flags, Meta, Next, Slots};
use crate::sa::{Tunnel, TunnelIndex};
use crate::tables::{TunnelEnds, TunnelHeader};
use crate::xsk::Frame;

/// Runs the stage.
pub fn run(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let mut taken = 0;
    for slot in Slots::of(batch.take(Next::Untunnel)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        match take_out(frame, meta, context) {
            Ok(Next::Punt) => batch.send(slot, Next::Punt),
            Ok(next) => {
                taken += 1;
                batch.send(slot, next);
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    if taken != 0 {
        context.counters.add(WorkerCounter::TunnelInPackets, taken);
    }
}

/// What stands in a tunnel's packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Payload {
    V4,
    V6,
    Labels,
}

/// A received tunnel packet.
struct Received {
    local: IpAddr,
    remote: IpAddr,
    class: TrafficClass,
    header: TunnelHeader,
    payload: Payload,
    /// Where the inner packet begins.
    at: usize,
    /// Where it ends.
    end: usize,
}

fn take_out(frame: &mut Frame<'_>, meta: &mut Meta, context: &Context<'_, '_>) -> Result<Next, DropReason> {
    let received = match read(frame.bytes()) {
        Ok(received) => received,
        // What is wrong with a header that no tunnel of ours would have is not ours to say.
        Err(Unread::Foreign) if meta.out_of.is_none() => return Ok(Next::Punt),
        Err(Unread::Foreign) => return Err(DropReason::TunnelPayload),
        Err(Unread::Bad(reason)) => return Err(reason),
    };
    let Some((index, tunnel)) = tunnel_of(&received, meta, context)? else {
        return Ok(Next::Punt);
    };
    frame.truncate(received.end);
    if !frame.shrink_front(received.at) {
        return Err(DropReason::Truncated);
    }
    meta.out_of = Some(index);
    meta.vrf = tunnel.inner_vrf;
    meta.flags.clear(Flags::IPV6);
    meta.flags.clear(Flags::IN_UDP);
    let inner_bytes = match received.payload {
        Payload::Labels => {
            // Labelled packets are sent with an outer header that cannot carry congestion.
            meta.space = tunnel.labels.ok_or(DropReason::LabelsRefused)?;
            meta.flags.set(Flags::LABELLED);
            return Ok(Next::Labels);
        }
        Payload::V4 => esp_inner::inner_v4(frame.bytes_mut(), received.class)?,
        Payload::V6 => {
            meta.flags.set(Flags::IPV6);
            esp_inner::inner_v6(frame.bytes_mut(), received.class)?
        }
    };
    frame.truncate(inner_bytes);
    Ok(Next::PolicyIn)
}

/// The tunnel of a packet; none where it may be the kernel's.
fn tunnel_of<'w>(
    received: &Received,
    meta: &Meta,
    context: &Context<'w, '_>,
) -> Result<Option<(TunnelIndex, &'w Tunnel)>, DropReason> {
    if let Some(index) = meta.out_of {
        let tunnel = context.view.tunnel(index).ok_or(DropReason::TunnelPayload)?;
        return if TunnelHeader::of(tunnel.encapsulation) == Some(received.header) {
            Ok(Some((index, tunnel)))
        } else {
            Err(DropReason::TunnelPayload)
        };
    }
    let ends = TunnelEnds {
        vrf: meta.vrf,
        local: received.local,
        remote: received.remote,
        header: received.header,
    };
    let Some(index) = context.view.tunnel_of(&ends) else {
        return Ok(None);
    };
    let tunnel = context.view.tunnel(index).ok_or(DropReason::TunnelPayload)?;
    if tunnel.protected {
        return Err(DropReason::UnprotectedInbound);
    }
    debug_assert!(tunnel.encapsulation != Encapsulation::Esp);
    Ok(Some((index, tunnel)))
}

enum Unread {
    /// Not what any tunnel here brings.
    Foreign,
    /// Damaged, or something that RFC 2784 wants discarded.
    Bad(DropReason),
}

fn read(bytes: &[u8]) -> Result<Received, Unread> {
    let malformed = Unread::Bad(DropReason::MalformedIp);
    match bytes.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::parse(bytes).map_err(|_| malformed)?;
            let header = packet.header;
            let ends = (header.destination().into(), header.source().into());
            read_upper(
                bytes,
                ends,
                header.traffic_class(),
                header.protocol(),
                (header.header_bytes(), packet.bytes().len()),
            )
        }
        Some(6) => {
            let packet = ipv6::Packet::parse(bytes).map_err(|_| malformed)?;
            let upper = packet
                .upper()
                .map_err(|_| Unread::Bad(DropReason::ExtensionHeaders))?;
            let ends = (packet.header.destination().into(), packet.header.source().into());
            read_upper(
                bytes,
                ends,
                packet.header.traffic_class(),
                upper.protocol,
                (upper.offset_bytes, packet.bytes().len()),
            )
        }
        _ => Err(malformed),
    }
}

fn read_upper(
    bytes: &[u8],
    (local, remote): (IpAddr, IpAddr),
    class: TrafficClass,
    protocol: IpProtocol,
    (at, end): (usize, usize),
) -> Result<Received, Unread> {
    let upper = bytes.get(at..end).unwrap_or_default();
    let (header, header_bytes, payload) = match protocol {
        IpProtocol::IPV4 => (TunnelHeader::Ip, 0, Payload::V4),
        IpProtocol::IPV6 => (TunnelHeader::Ip, 0, Payload::V6),
        IpProtocol::MPLS => (TunnelHeader::Ip, 0, Payload::Labels),
        IpProtocol::GRE => read_gre(upper)?,
        IpProtocol::UDP => {
            check_udp(upper, local, remote)?;
            (TunnelHeader::Udp, udp::HEADER_BYTES, Payload::Labels)
        }
        _ => return Err(Unread::Foreign),
    };
    Ok(Received {
        local,
        remote,
        class,
        header,
        payload,
        at: at + header_bytes,
        end,
    })
}

/// RFC 2784 section 2, RFC 2890; sequence numbers are not looked at, as nothing here must be in order.
fn read_gre(upper: &[u8]) -> Result<(TunnelHeader, usize, Payload), Unread> {
    let mut cursor = SliceCursor::new(upper);
    let header = match gre::Repr::parse(&mut cursor) {
        Ok(header) => header,
        // Version 1 is PPTP's, and the host's.
        Err(gre::Error::BadVersion) => return Err(Unread::Foreign),
        Err(_) => return Err(Unread::Bad(DropReason::GreMalformed)),
    };
    if header.has_checksum && gre::verify_checksum(upper).is_err() {
        return Err(Unread::Bad(DropReason::GreMalformed));
    }
    let payload = match header.protocol {
        EtherType::IPV4 => Payload::V4,
        EtherType::IPV6 => Payload::V6,
        EtherType::MPLS => Payload::Labels,
        _ => return Err(Unread::Foreign),
    };
    Ok((TunnelHeader::Gre(header.key), header.header_bytes(), payload))
}

/// RFC 7510 section 3: a checksum of zero is none; another one must be right.
fn check_udp(upper: &[u8], local: IpAddr, remote: IpAddr) -> Result<(), Unread> {
    let malformed = |_| Unread::Bad(DropReason::MalformedUdp);
    let packet = udp::Packet::parse(upper).map_err(malformed)?;
    if usize::from(packet.header.length_bytes()) != upper.len() {
        return Err(Unread::Bad(DropReason::MalformedUdp));
    }
    if packet.header.checksum() == 0 {
        return Ok(());
    }
    match (remote, local) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => packet.verify_checksum_v4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => packet.verify_checksum_v6(source, destination),
        _ => return Err(Unread::Bad(DropReason::MalformedUdp)),
    }
    .map_err(malformed)
}

/// What ECN policy a payload of labels has on the way out: see [`super::tunnel_encap`].
pub(super) const LABELLED_ECN: EcnPolicy = EcnPolicy::Compatibility;
