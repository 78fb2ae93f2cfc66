//! Classify: an Ethernet frame becomes an IP packet of a known kind.
//!
//! In: [`Next::Classify`]. A packet with a VLAN's tag becomes one of the port that the VLAN is. Out, with the Ethernet
//! header taken off and the frame cut to the IP packet's length:
//!
//! | packet | goes to |
//! |---|---|
//! | ESP, whole | [`Next::Decap`], which finds out whether it is for us |
//! | to an address of ours: a fragment | [`Next::Reassemble`] |
//! | to an address of ours: UDP 4500 that holds ESP | [`Next::Decap`] |
//! | to an address of ours: GRE, IP in IP, labels in IP, UDP 6635 | [`Next::Untunnel`] |
//! | a label stack, by a port that takes them | [`Next::Labels`] |
//! | to an address of ours: an ICMP error | [`Next::Learn`] |
//! | to an address of ours: anything else | [`Next::Punt`] |
//! | everything else | [`Next::PolicyOut`] |

use southbound::{DropReason, LabelSpaceId, PortCounter};
use wire::checksum::Sum;
use wire::udp::{MPLS_PORT, NAT_KEEPALIVE, NAT_TRAVERSAL_PORT, NON_ESP_MARKER};
use wire::{EtherType, IpProtocol, SliceCursor, ethernet, icmp, ipv4, ipv6};

use super::{Context, esp_inner};
use crate::batch::{Batch, Flags, Ingress, Meta, Next, Slots};
use crate::tables::Decision;

/// Runs the stage.
pub fn run(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let (mut plain, mut esp, mut labelled) = (0, 0, 0);
    // Packets of one port follow each other.
    let mut space = None;
    for slot in Slots::of(batch.take(Next::Classify)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let (ether_type, packet) = match frame.bytes().split_first_chunk::<{ ethernet::HEADER_BYTES }>() {
            Some(([.., high, low], packet)) => ([*high, *low], packet),
            None => ([0; 2], &[][..]),
        };
        if ether_type == EtherType::IPV4.0.to_be_bytes()
            && let Some((packet_bytes, is_esp)) = usual(packet)
        {
            // It holds: `usual` saw that many bytes.
            let _ = frame.narrow(ethernet::HEADER_BYTES, packet_bytes);
            meta.upper_bytes = ipv4::HEADER_BYTES as u16;
            *if is_esp { &mut esp } else { &mut plain } |= 1 << slot;
            continue;
        }
        if ether_type == EtherType::MPLS.0.to_be_bytes() {
            let known = match space {
                Some((ingress, known)) if ingress == meta.ingress => known,
                _ => {
                    let known = space_of(meta, context);
                    space = Some((meta.ingress, known));
                    known
                }
            };
            match known {
                Some(known) => {
                    let _ = frame.shrink_front(ethernet::HEADER_BYTES);
                    meta.space = known;
                    meta.flags.set(Flags::LABELLED);
                    labelled |= 1 << slot;
                }
                None => batch.discard(slot, DropReason::LabelsRefused),
            }
            continue;
        }
        unusual(batch, slot, context);
    }
    batch.send_all(esp, Next::Decap);
    batch.send_all(plain, Next::PolicyOut);
    batch.send_all(labelled, Next::Labels);
}

/// Any other frame. Apart from the loop above, whose values then stay in registers.
#[inline(never)]
fn unusual(batch: &mut Batch<'_>, slot: usize, context: &Context<'_, '_>) {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return;
    };
    let outcome = strip_ethernet(frame.bytes()).and_then(|link| {
        if link.vlan != 0 {
            enter_vlan(link.vlan, frame.len(), meta, context)?;
        }
        let front = link.header_bytes;
        let packet = frame.bytes().get(front..).unwrap_or_default();
        if link.is_labelled {
            let _ = frame.shrink_front(front);
            meta.space = space_of(meta, context).ok_or(DropReason::LabelsRefused)?;
            meta.flags.set(Flags::LABELLED);
            return Ok(Next::Labels);
        }
        let packet_bytes = measure(packet, link.ipv6)?;
        // Both hold: `measure` saw that many bytes behind the Ethernet header.
        let _ = frame.shrink_front(front);
        frame.truncate(packet_bytes);
        if link.ipv6 {
            meta.flags.set(Flags::IPV6);
        }
        kind(frame.bytes(), meta, context)
    });
    match outcome {
        Ok(next) => batch.send(slot, next),
        Err(reason) => batch.discard(slot, reason),
    }
}

/// The usual packet, seen through at one look: IPv4 of the usual kind, whole, and of a kind that is no business of ours but
/// to forward it, or ESP. Answers its length and whether it is ESP; `None` says nothing.
#[inline(always)]
fn usual(packet: &[u8]) -> Option<(usize, bool)> {
    let (header, upper) = packet.split_first_chunk::<{ ipv4::HEADER_BYTES }>()?;
    let upper = upper.first_chunk::<4>()?;
    let packet_bytes = usual_v4(packet)?;
    let fragment = u16::from_ne_bytes([header[6] & 0x3f, header[7]]);
    let protocol = IpProtocol(header[9]);
    let port = u16::from_be_bytes([upper[2], upper[3]]);
    let is_esp = protocol == IpProtocol::ESP;
    let is_plain = protocol == IpProtocol::TCP
        || (protocol == IpProtocol::UDP && port != NAT_TRAVERSAL_PORT && port != MPLS_PORT);
    let is_whole = packet_bytes >= ipv4::HEADER_BYTES + upper.len() && fragment == 0;
    (is_whole && (is_esp || is_plain)).then_some((packet_bytes, is_esp))
}

/// The usual IPv4 packet: without options, sound, and from and to addresses that a router forwards. Answers its length;
/// `None` says nothing.
#[inline(always)]
pub(super) fn usual_v4(packet: &[u8]) -> Option<usize> {
    let header = packet.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
    let packet_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_sound = header[0] == 0x45
        && packet_bytes >= ipv4::HEADER_BYTES
        && packet_bytes <= packet.len()
        && ipv4::is_checksum_valid(header)
        && !ipv4::is_no_unicast(header[12])
        && !ipv4::is_no_unicast(header[16]);
    is_sound.then_some(packet_bytes)
}

/// Runs the stage for the host's packets. What the host sends to one of our own addresses goes the way of everything
/// else; its TTL is the host's business. Multicast, such as a routing protocol's greetings, goes where a rule or a route
/// sends it into a tunnel, and nowhere else.
pub fn run_host(batch: &mut Batch<'_>, context: &Context<'_, '_>) {
    for slot in Slots::of(batch.take(Next::FromHost)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        meta.flags.set(Flags::HOP_TAKEN);
        let is_ipv6 = frame.bytes().first().is_some_and(|first| first >> 4 == 6);
        if is_ipv6 {
            meta.flags.set(Flags::IPV6);
        }
        match measure(frame.bytes(), is_ipv6).and_then(|packet_bytes| {
            frame.truncate(packet_bytes);
            if enters_tunnel(frame.bytes(), meta, context) {
                Ok(())
            } else {
                forwardable(frame.bytes(), is_ipv6)
            }
        }) {
            Ok(()) => batch.send(slot, Next::PolicyOut),
            Err(reason) => batch.discard(slot, reason),
        }
    }
}

/// Whether this is multicast that a rule or a route sends into a tunnel.
fn enters_tunnel(bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> bool {
    let Some(destination) = esp_inner::destination(bytes, meta).filter(std::net::IpAddr::is_multicast) else {
        return false;
    };
    let by_rule = || {
        esp_inner::flow(bytes)
            .is_ok_and(|flow| matches!(context.view.policy_out(meta.vrf, &flow), Decision::Protect(_)))
    };
    context.view.route(meta.vrf, destination).tunnel().is_some() || by_rule()
}

/// Whether the destination is one that a router sends packets to.
pub(super) fn forwardable(bytes: &[u8], is_ipv6: bool) -> Result<(), DropReason> {
    let is_good = if is_ipv6 {
        bytes
            .get(24..40)
            .and_then(|octets| octets.first_chunk::<16>())
            .is_some_and(|octets| {
                let destination = std::net::Ipv6Addr::from_octets(*octets);
                !destination.is_multicast()
                    && !destination.is_unspecified()
                    && !destination.is_unicast_link_local()
            })
    } else {
        bytes
            .get(16)
            .is_some_and(|first| !matches!(first, 0 | 127 | 224..))
    };
    if is_good {
        Ok(())
    } else {
        Err(DropReason::NotForwardable)
    }
}

/// A packet put together from fragments.
///
/// # Errors
/// Why it cannot go on.
pub fn classify_ip(bytes: &[u8], meta: &mut Meta, context: &Context<'_, '_>) -> Result<Next, DropReason> {
    let ipv6 = bytes.first().is_some_and(|first| first >> 4 == 6);
    if measure(bytes, ipv6)? != bytes.len() {
        return Err(DropReason::MalformedIp);
    }
    if ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    kind(bytes, meta, context)
}

struct Link {
    header_bytes: usize,
    ipv6: bool,
    is_labelled: bool,
    /// Zero where there is no tag, or one that only states a priority (IEEE 802.1Q section 9.6).
    vlan: u16,
}

/// Makes the packet one of the port that its VLAN is; the device has counted it already.
fn enter_vlan(
    id: u16,
    frame_bytes: usize,
    meta: &mut Meta,
    context: &Context<'_, '_>,
) -> Result<(), DropReason> {
    let Ingress::Port(device) = meta.ingress else {
        return Err(DropReason::UnknownVlan);
    };
    let vlan = context
        .view
        .port(device)
        .and_then(|port| port.vlans.find(id))
        .ok_or(DropReason::UnknownVlan)?;
    meta.ingress = Ingress::Port(vlan.slot);
    meta.vrf = vlan.vrf;
    let counters = context.counters;
    counters.add_port(vlan.slot, PortCounter::ReceivedPackets, 1);
    counters.add_port(vlan.slot, PortCounter::ReceivedBytes, frame_bytes as u64);
    Ok(())
}

/// The space of the labels that its port takes.
#[inline]
fn space_of(meta: &Meta, context: &Context<'_, '_>) -> Option<LabelSpaceId> {
    let Ingress::Port(slot) = meta.ingress else {
        return None;
    };
    context.view.port(slot)?.mpls
}

#[inline(always)]
fn strip_ethernet(bytes: &[u8]) -> Result<Link, DropReason> {
    let mut cursor = SliceCursor::new(bytes);
    let header = ethernet::Header::parse(&mut cursor).map_err(|_| DropReason::Truncated)?;
    let (ipv6, is_labelled) = match header.ether_type {
        EtherType::IPV4 => (false, false),
        EtherType::IPV6 => (true, false),
        EtherType::MPLS => (false, true),
        _ => return Err(DropReason::UnknownEtherType),
    };
    let vlan = match (header.outer_tag, header.inner_tag) {
        (None, _) => 0,
        (Some(tag), None) if tag.tpid == EtherType::VLAN || tag.vid() == 0 => tag.vid(),
        _ => return Err(DropReason::UnknownVlan),
    };
    Ok(Link {
        header_bytes: header.header_bytes(),
        ipv6,
        is_labelled,
        vlan,
    })
}

/// The IP packet's length, with its header's lengths and checksum seen to be right.
#[inline(always)]
pub(super) fn measure(packet: &[u8], is_ipv6: bool) -> Result<usize, DropReason> {
    if is_ipv6 {
        let packet = ipv6::Packet::parse(packet).map_err(|error| match error {
            ipv6::Error::Truncated | ipv6::Error::BadPayloadLength => DropReason::Truncated,
            _ => DropReason::MalformedIp,
        })?;
        Ok(packet.bytes().len())
    } else {
        let declared_bytes = packet
            .get(2..4)
            .map_or(0, |field| usize::from(u16::from_be_bytes([field[0], field[1]])));
        let is_cut = declared_bytes > packet.len();
        let packet = ipv4::Packet::parse(packet).map_err(|error| match error {
            ipv4::Error::Truncated => DropReason::Truncated,
            ipv4::Error::BadTotalLength if is_cut => DropReason::Truncated,
            _ => DropReason::MalformedIp,
        })?;
        packet.verify_checksum().map_err(|_| DropReason::IpChecksum)?;
        Ok(packet.bytes().len())
    }
}

/// What kind of packet this is, whose header `measure` has seen.
#[inline(always)]
fn kind(bytes: &[u8], meta: &mut Meta, context: &Context<'_, '_>) -> Result<Next, DropReason> {
    if meta.flags.has(Flags::IPV6) {
        kind_v6(bytes, meta, context)
    } else {
        kind_v4(bytes, meta, context)
    }
}

#[inline(always)]
fn kind_v4(bytes: &[u8], meta: &mut Meta, context: &Context<'_, '_>) -> Result<Next, DropReason> {
    let header = ipv4::Header::parse(&mut SliceCursor::new(bytes)).map_err(|_| DropReason::MalformedIp)?;
    let (source, destination) = (header.source(), header.destination());
    // RFC 1812 sections 4.2.2.11 and 5.3.7: such sources are never valid on a wire.
    if matches!(source.octets()[0], 0 | 127 | 224..) {
        return Err(DropReason::MartianSource);
    }
    if matches!(destination.octets()[0], 0 | 127 | 224..) {
        return Err(DropReason::NotForwardable);
    }
    meta.upper_bytes = header.header_bytes() as u16;
    let is_fragment = header.is_fragment();
    if header.protocol() == IpProtocol::ESP && !is_fragment {
        return Ok(Next::Decap);
    }
    if !is_fragment && !may_be_ours(header.protocol(), bytes, meta) {
        return Ok(Next::PolicyOut);
    }
    if !context.view.is_local(meta.vrf, destination.into()) {
        return Ok(Next::PolicyOut);
    }
    if is_fragment {
        return Ok(Next::Reassemble);
    }
    ours(header.protocol(), bytes, meta)
}

#[inline(always)]
fn kind_v6(bytes: &[u8], meta: &mut Meta, context: &Context<'_, '_>) -> Result<Next, DropReason> {
    let packet = ipv6::Packet::parse(bytes).map_err(|_| DropReason::MalformedIp)?;
    let (source, destination) = (packet.header.source(), packet.header.destination());
    if source.is_multicast() || source.is_unspecified() || source.is_loopback() {
        return Err(DropReason::MartianSource);
    }
    // Link-local packets stay on their link (RFC 4291 section 2.5.6).
    if destination.is_multicast()
        || destination.is_unspecified()
        || destination.is_loopback()
        || destination.is_unicast_link_local()
        || source.is_unicast_link_local()
    {
        return Err(DropReason::NotForwardable);
    }
    let next_header = packet.header.next_header();
    let upper = match next_header {
        IpProtocol::ESP => {
            meta.upper_bytes = ipv6::HEADER_BYTES as u16;
            return Ok(Next::Decap);
        }
        IpProtocol::TCP => {
            meta.upper_bytes = ipv6::HEADER_BYTES as u16;
            return Ok(Next::PolicyOut);
        }
        _ => packet.upper().map_err(|error| match error {
            ipv6::Error::Truncated => DropReason::Truncated,
            _ => DropReason::ExtensionHeaders,
        })?,
    };
    meta.upper_bytes = upper.offset_bytes as u16;
    let is_fragment = upper.fragment.is_some_and(|fragment| !fragment.is_atomic());
    if upper.protocol == IpProtocol::ESP && !is_fragment {
        return Ok(Next::Decap);
    }
    if !is_fragment && !may_be_ours(upper.protocol, bytes, meta) {
        return Ok(Next::PolicyOut);
    }
    if !context.view.is_local(meta.vrf, destination.into()) {
        return Ok(Next::PolicyOut);
    }
    if is_fragment {
        return Ok(Next::Reassemble);
    }
    ours(upper.protocol, bytes, meta)
}

/// Whether a packet to an address of ours would be handled here: only then is it worth to look the address up twice. What
/// else is to us, forwarding brings to the host.
#[inline(always)]
fn may_be_ours(protocol: IpProtocol, bytes: &[u8], meta: &Meta) -> bool {
    let upper = bytes.get(usize::from(meta.upper_bytes)..).unwrap_or_default();
    match (protocol, upper) {
        (IpProtocol::UDP, [_, _, high, low, ..]) => {
            matches!(u16::from_be_bytes([*high, *low]), NAT_TRAVERSAL_PORT | MPLS_PORT)
        }
        (IpProtocol::GRE | IpProtocol::IPV4 | IpProtocol::IPV6 | IpProtocol::MPLS, _) => true,
        (IpProtocol::UDP, _) => true,
        (IpProtocol::ICMP, [kind, ..]) => icmp::is_error_v4(*kind),
        (IpProtocol::ICMPV6, [kind, ..]) => icmp::is_error_v6(*kind),
        _ => false,
    }
}

/// A whole packet to an address of ours, which is not bare ESP.
fn ours(protocol: IpProtocol, bytes: &[u8], meta: &mut Meta) -> Result<Next, DropReason> {
    let upper = bytes.get(usize::from(meta.upper_bytes)..).unwrap_or_default();
    match protocol {
        IpProtocol::UDP => {
            let packet = wire::udp::Packet::parse(upper).map_err(|error| match error {
                wire::udp::Error::Truncated => DropReason::Truncated,
                _ => DropReason::MalformedUdp,
            })?;
            if packet.header.destination_port() == MPLS_PORT {
                return Ok(Next::Untunnel);
            }
            if packet.header.destination_port() != NAT_TRAVERSAL_PORT {
                return Ok(Next::Punt);
            }
            // The UDP length must be all there is, or what lies behind it would be authenticated as ESP.
            if usize::from(packet.header.length_bytes()) != upper.len() {
                return Err(DropReason::MalformedUdp);
            }
            // RFC 6935 section 5: over IPv6 the checksum of a tunnel may be zero, else it must hold. Over IPv4 it is
            // not looked at: a NAT may have left it behind (RFC 3948 section 2.1), and the ICV covers more.
            if meta.flags.has(Flags::IPV6) && !checksum_holds_v6(bytes, upper) {
                return Err(DropReason::UdpChecksum);
            }
            // RFC 3948 section 2: IKE behind its marker, a lone 0xff to keep a NAT's mapping, else ESP.
            match packet.payload {
                payload if payload.starts_with(&NON_ESP_MARKER) => Ok(Next::Punt),
                [NAT_KEEPALIVE] => Ok(Next::Punt),
                _ => {
                    meta.upper_bytes += wire::udp::HEADER_BYTES as u16;
                    meta.flags.set(Flags::IN_UDP);
                    Ok(Next::Decap)
                }
            }
        }
        IpProtocol::GRE | IpProtocol::IPV4 | IpProtocol::IPV6 | IpProtocol::MPLS => Ok(Next::Untunnel),
        IpProtocol::ICMP if upper.first().is_some_and(|kind| icmp::is_error_v4(*kind)) => Ok(Next::Learn),
        IpProtocol::ICMPV6 if upper.first().is_some_and(|kind| icmp::is_error_v6(*kind)) => Ok(Next::Learn),
        _ => Ok(Next::Punt),
    }
}

/// Whether the checksum of a UDP packet is zero or right.
fn checksum_holds_v6(bytes: &[u8], udp: &[u8]) -> bool {
    let (Some(addresses), Some(checksum)) = (bytes.get(8..40), udp.get(6..8)) else {
        return false;
    };
    checksum == [0, 0]
        || Sum::new()
            .bytes(addresses)
            .word(u16::from(IpProtocol::UDP.0))
            .word(udp.len() as u16)
            .bytes(udp)
            .is_valid()
}
