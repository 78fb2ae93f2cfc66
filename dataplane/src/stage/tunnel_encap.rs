//! Into a GRE, IP or UDP tunnel.
//!
//! In: [`Next::Entunnel`]: a packet, labelled or not, that fits its tunnel `meta.into`. Out, with the tunnel's header and
//! an outer IP header before it: [`Next::Encap`] where the tunnel is protected, else [`Next::Egress`] by the tunnel's way.
//!
//! ```text
//!  | IP | inner packet or label stack .. |          protocol 4, 41 (RFC 2003, RFC 4213), 137 (RFC 4023)
//!  | IP | GRE: type, checksum?, key? | .. |          RFC 2784, RFC 2890, RFC 4023
//!  | IP | UDP: port of the flow, 6635 | label stack .. |     RFC 7510
//! ```

use std::net::IpAddr;

use southbound::{DfPolicy, DropReason, Encapsulation, TtlPolicy, WorkerCounter};
use wire::flow::Tuple;
use wire::mpls::LSE_BYTES;
use wire::udp::MPLS_PORT;
use wire::{EtherType, IpProtocol, Lse, TrafficClass, gre, ipv4, ipv6, udp};

use super::tunnel_decap::LABELLED_ECN;
use super::{Context, ecn, label_payload, label_stack, mpls_forward};
use crate::batch::{Batch, Flags, Meta, Next, Slots};
use crate::sa::Tunnel;
use crate::xsk::Frame;

/// The dynamic ports that the entropy of a flow is taken from (RFC 7510 section 3).
const FIRST_ENTROPY_PORT: u16 = 49152;

/// Runs the stage.
pub fn run(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let mut sent = 0;
    for slot in Slots::of(batch.take(Next::Entunnel)) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let Some(tunnel) = meta.into.and_then(|index| context.view.tunnel(index)) else {
            batch.discard(slot, DropReason::NoOutboundSa);
            continue;
        };
        match put_in(frame, meta, tunnel) {
            Ok(next) => {
                sent += 1;
                batch.send(slot, next);
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    if sent != 0 {
        context.counters.add(WorkerCounter::TunnelOutPackets, sent);
    }
}

/// What the outer header takes from the packet inside.
struct Inner {
    class: TrafficClass,
    hops: u8,
    dont_fragment: bool,
    flow_hash: u32,
    /// The name of the payload in an IP header, and in GRE's.
    protocol: IpProtocol,
    ether_type: EtherType,
}

impl Inner {
    fn of(bytes: &[u8], meta: &Meta, tunnel: &Tunnel) -> Result<Self, DropReason> {
        if meta.flags.has(Flags::LABELLED) {
            let end = mpls_forward::stack_bytes(bytes)?;
            let top = bytes
                .first_chunk::<LSE_BYTES>()
                .map_or([0; LSE_BYTES], |top| *top);
            let top = Lse::from_bytes(top);
            let class = TrafficClass(0).with_dscp(top.traffic_class << 3);
            return Ok(Self {
                class: ecn::encapsulate(class, tunnel.dscp, LABELLED_ECN),
                hops: top.ttl,
                dont_fragment: true,
                flow_hash: label_stack::flow_hash(bytes, end),
                protocol: IpProtocol::MPLS,
                ether_type: EtherType::MPLS,
            });
        }
        let is_ipv6 = meta.flags.has(Flags::IPV6);
        let class = label_payload::traffic_class(bytes, is_ipv6);
        let (protocol, ether_type) = if is_ipv6 {
            (IpProtocol::IPV6, EtherType::IPV6)
        } else {
            (IpProtocol::IPV4, EtherType::IPV4)
        };
        Ok(Self {
            class: ecn::encapsulate(class, tunnel.dscp, tunnel.ecn),
            hops: label_payload::ttl(bytes, is_ipv6),
            dont_fragment: is_ipv6 || bytes.get(6).is_some_and(|flags| flags & 0x40 != 0),
            flow_hash: Tuple::parse(bytes).map_or(0, |tuple| tuple.hash()),
            protocol,
            ether_type,
        })
    }
}

fn put_in(frame: &mut Frame<'_>, meta: &mut Meta, tunnel: &Tunnel) -> Result<Next, DropReason> {
    let inner = Inner::of(frame.bytes(), meta, tunnel)?;
    let protocol = match tunnel.encapsulation {
        Encapsulation::Ip => inner.protocol,
        Encapsulation::Gre { key, checksum } => {
            put_gre(frame, inner.ether_type, key, checksum)?;
            IpProtocol::GRE
        }
        Encapsulation::Udp => {
            put_udp(frame, tunnel, inner.flow_hash)?;
            IpProtocol::UDP
        }
        Encapsulation::Esp => return Err(DropReason::TunnelPayload),
    };
    put_ip(frame, meta, tunnel, &inner, protocol)?;
    meta.flags.clear(Flags::LABELLED);
    meta.flags.clear(Flags::IMPOSED);
    meta.labels_bytes = 0;
    if tunnel.protected {
        return Ok(Next::Encap);
    }
    meta.flags.set(Flags::OUTER);
    meta.vrf = tunnel.outer_vrf;
    meta.adjacency = tunnel.egress();
    Ok(Next::Egress)
}

fn put_gre(
    frame: &mut Frame<'_>,
    protocol: EtherType,
    key: Option<u32>,
    has_checksum: bool,
) -> Result<(), DropReason> {
    let header = gre::Repr {
        protocol,
        has_checksum,
        key,
        sequence: None,
    };
    let mut bytes = [0; gre::MAX_HEADER_BYTES];
    let header_bytes = header.emit(&mut bytes);
    let front = frame.grow_front(header_bytes).ok_or(DropReason::NoHeadroom)?;
    front.copy_from_slice(bytes.get(..header_bytes).unwrap_or_default());
    if has_checksum {
        gre::fill_checksum(frame.bytes_mut()).map_err(|_| DropReason::NoHeadroom)?;
    }
    Ok(())
}

/// Without an SA an IPv6 packet has a checksum (RFC 7510 section 3.1); elsewhere the outer header's or the ICV suffices.
fn put_udp(frame: &mut Frame<'_>, tunnel: &Tunnel, flow_hash: u32) -> Result<(), DropReason> {
    let udp_bytes = frame.len() + udp::HEADER_BYTES;
    let header = udp::Repr {
        source_port: FIRST_ENTROPY_PORT | (flow_hash >> 18) as u16,
        destination_port: MPLS_PORT,
        length_bytes: u16::try_from(udp_bytes).map_err(|_| DropReason::NoHeadroom)?,
        checksum: 0,
    };
    let front = frame
        .grow_front(udp::HEADER_BYTES)
        .ok_or(DropReason::NoHeadroom)?;
    if let Some(front) = front.first_chunk_mut() {
        header.emit(front);
    }
    if let (IpAddr::V6(local), IpAddr::V6(remote), false) = (tunnel.local, tunnel.remote, tunnel.protected) {
        let checksum = udp::checksum_v6(local, remote, frame.bytes());
        if let Some(field) = frame.bytes_mut().get_mut(6..8) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }
    Ok(())
}

fn put_ip(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    tunnel: &Tunnel,
    inner: &Inner,
    protocol: IpProtocol,
) -> Result<(), DropReason> {
    let hops = match tunnel.ttl {
        TtlPolicy::Set(hops) => hops,
        TtlPolicy::Copy => inner.hops,
    };
    let payload_bytes = u16::try_from(frame.len()).map_err(|_| DropReason::NoHeadroom)?;
    match (tunnel.local, tunnel.remote) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let dont_fragment = match tunnel.df {
                DfPolicy::Copy => inner.dont_fragment,
                DfPolicy::Set => true,
                DfPolicy::Clear => false,
            };
            let front = frame
                .grow_front(ipv4::HEADER_BYTES)
                .and_then(|front| front.first_chunk_mut())
                .ok_or(DropReason::NoHeadroom)?;
            ipv4::Repr {
                traffic_class: inner.class,
                total_bytes: payload_bytes + ipv4::HEADER_BYTES as u16,
                // RFC 6864 section 4: only what may be fragmented needs one of its own.
                identification: if dont_fragment { 0 } else { tunnel.identification() },
                dont_fragment,
                more_fragments: false,
                fragment_offset_bytes: 0,
                ttl: hops,
                protocol,
                source,
                destination,
            }
            .emit(front);
            meta.flags.clear(Flags::IPV6);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let front = frame
                .grow_front(ipv6::HEADER_BYTES)
                .and_then(|front| front.first_chunk_mut())
                .ok_or(DropReason::NoHeadroom)?;
            ipv6::Repr {
                traffic_class: inner.class,
                // RFC 6438: so that equal paths are used although there is one pair of addresses.
                flow_label: inner.flow_hash >> 12,
                payload_bytes,
                next_header: protocol,
                hop_limit: hops,
                source,
                destination,
            }
            .emit(front);
            meta.flags.set(Flags::IPV6);
        }
        // Both are of one family: checked where the tunnel is put.
        _ => return Err(DropReason::TunnelPayload),
    }
    Ok(())
}
