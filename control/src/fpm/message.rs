//! The netlink messages of FPM, read into changes of routes, next hops and labels.
//!
//! zebra speaks the kernel's language but not its habits: a route that is replaced comes as a deletion and an
//! addition in one frame, the deletion of a label says protocol 0, and the next hop of a VPN route lies in
//! another table than the route.

use std::net::IpAddr;

use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_packet_route::route::{
    MplsLabel, RouteAddress, RouteAttribute, RouteLwTunnelEncap, RouteMessage, RouteMplsIpTunnel, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use southbound::{IpPrefix, Label, LabelStack};
use thiserror::Error;

use crate::netlink::Frame;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

// `NHA_*`, the attributes of a next-hop object.
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;

/// `MPLS_IPTUNNEL_DST`: the labels within an encapsulation.
const MPLS_IPTUNNEL_DST: u16 = 1;
/// `LWTUNNEL_ENCAP_MPLS`.
const ENCAP_MPLS: u16 = 1;

const NLMSG_HEADER_BYTES: usize = 16;
/// `struct nhmsg`.
const NEXT_HOP_HEADER_BYTES: usize = 8;
/// `struct nexthop_grp`: a number, a weight less one, and padding.
const GROUP_MEMBER_BYTES: usize = 8;

/// The kernel's table of everything without a table of its own.
pub const TABLE_MAIN: u32 = 254;

/// `RTPROT_KERNEL`: what zebra itself has from the kernel.
const PROTOCOL_KERNEL: u8 = 2;

/// Most ways of one route, label or group.
pub const MAX_WAYS: usize = 16;

/// A place in a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The kernel's number of the table; [`TABLE_MAIN`] for the main one.
    pub table: u32,
    /// The destinations.
    pub prefix: IpPrefix,
}

/// One way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// The kernel's number of the interface; for a label, perhaps that of a VRF device.
    pub interface: Option<u32>,
    /// The neighbour.
    pub gateway: Option<IpAddr>,
    /// Labels to push, or in the place of the label.
    pub stack: LabelStack,
    /// Its share, 1 to 255.
    pub weight: u8,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By these ways, shared by flow.
    Ways(Vec<Way>),
    /// As the next-hop object of this number says.
    NextHop(u32),
    /// Dropped in silence.
    Blackhole,
    /// Dropped, and the sender told. Also what stands for a route that the dataplane cannot express: its
    /// packets take no other route instead.
    Unreachable,
}

/// A next-hop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopObject {
    /// One way.
    Single(Way),
    /// Other objects by number, with their shares.
    Group(Vec<(u32, u8)>),
    /// Nowhere.
    Blackhole,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A route came or is another.
    Route(RouteKey, Target),
    /// A route went.
    RouteGone(RouteKey),
    /// A label came or is another.
    Label(Label, Vec<Way>),
    /// A label went.
    LabelGone(Label),
    /// A next-hop object came or is another.
    NextHop(u32, NextHopObject),
    /// A next-hop object went.
    NextHopGone(u32),
    /// Nothing that is looked at: what zebra has from the kernel, which the kernel itself tells us, multicast, and
    /// everything but routes.
    Nothing,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Not in the shape of its kind.
    #[error("malformed")]
    Malformed,
    /// A reserved label, or more than 20 bits.
    #[error("a label that cannot be bound")]
    Label,
}

impl Change {
    /// Reads a message.
    ///
    /// # Errors
    /// Where it cannot be taken.
    pub(super) fn parse(frame: &Frame<'_>) -> Result<Self, MessageError> {
        if matches!(frame.kind, RTM_NEWNEXTHOP | RTM_DELNEXTHOP) {
            return next_hop_object(frame.bytes, frame.kind == RTM_NEWNEXTHOP);
        }
        match frame.parse() {
            Some(RouteNetlinkMessage::NewRoute(message)) => route(&message, true),
            Some(RouteNetlinkMessage::DelRoute(message)) => route(&message, false),
            Some(_) => Ok(Self::Nothing),
            None => Err(MessageError::Malformed),
        }
    }
}

fn route(message: &RouteMessage, is_there: bool) -> Result<Change, MessageError> {
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        AddressFamily::Mpls => return label(message, is_there),
        _ => return Ok(Change::Nothing),
    };
    let mut table = u32::from(header.table);
    let mut destination = unspecified;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => {
                destination = ip(address).ok_or(MessageError::Malformed)?;
            }
            _ => {}
        }
    }
    let is_link_local = matches!(destination, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if u8::from(header.protocol) == PROTOCOL_KERNEL
        || header.source_prefix_length != 0
        || destination.is_multicast()
        || destination.is_loopback()
        || is_link_local
    {
        return Ok(Change::Nothing);
    }
    let prefix =
        IpPrefix::new(destination, header.destination_prefix_length).map_err(|_| MessageError::Malformed)?;
    let key = RouteKey { table, prefix };
    if !is_there {
        return Ok(Change::RouteGone(key));
    }
    let target = match header.kind {
        RouteType::Unicast => target(&message.attributes),
        RouteType::BlackHole => Target::Blackhole,
        RouteType::Unreachable | RouteType::Prohibit => Target::Unreachable,
        _ => return Ok(Change::Nothing),
    };
    Ok(Change::Route(key, target))
}

fn target(attributes: &[RouteAttribute]) -> Target {
    let by_number = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::NhId(number) => Some(*number),
        _ => None,
    });
    if let Some(number) = by_number {
        return Target::NextHop(number);
    }
    match ways(attributes) {
        Some(ways) if !ways.is_empty() => Target::Ways(ways),
        _ => Target::Unreachable,
    }
}

/// The ways that attributes name; `None` where one of them has more labels than are pushed, or there are
/// more than are shared.
fn ways(attributes: &[RouteAttribute]) -> Option<Vec<Way>> {
    let mut found = Vec::new();
    for attribute in attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            for hop in hops {
                let mut way = way(&hop.attributes)?;
                way.interface = Some(hop.interface_index).filter(|index| *index != 0);
                // On the wire a weight is one less (`rtnh_hops`).
                way.weight = hop.hops.saturating_add(1);
                found.push(way);
            }
        }
    }
    if found.is_empty() {
        let single = way(attributes)?;
        if single.interface.is_some() || single.gateway.is_some() {
            found.push(single);
        }
    }
    (found.len() <= MAX_WAYS).then_some(found)
}

fn way(attributes: &[RouteAttribute]) -> Option<Way> {
    let mut way = Way {
        interface: None,
        gateway: None,
        stack: LabelStack::EMPTY,
        weight: 1,
    };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => way.interface = Some(*index).filter(|index| *index != 0),
            RouteAttribute::Gateway(address) => way.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => way.gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => way.gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::NewDestination(labels) => way.stack = stack(labels)?,
            RouteAttribute::Encap(parts) => {
                let mut labels = None;
                for part in parts {
                    match part {
                        RouteLwTunnelEncap::Mpls(RouteMplsIpTunnel::Destination(found)) => {
                            labels = Some(stack(found)?);
                        }
                        RouteLwTunnelEncap::Mpls(_) => {}
                        // Another encapsulation than labels is none of ours.
                        _ => return None,
                    }
                }
                way.stack = labels.unwrap_or(LabelStack::EMPTY);
            }
            _ => {}
        }
    }
    Some(way)
}

fn stack(labels: &[MplsLabel]) -> Option<LabelStack> {
    let labels: Vec<Label> = labels
        .iter()
        .map(|label| Label::new(label.label).ok())
        .collect::<Option<_>>()?;
    LabelStack::new(&labels).ok()
}

fn label(message: &RouteMessage, is_there: bool) -> Result<Change, MessageError> {
    let incoming = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Mpls(label)) => Some(label.label),
        _ => None,
    });
    let incoming = Label::new(incoming.ok_or(MessageError::Malformed)?).map_err(|_| MessageError::Label)?;
    if incoming.is_reserved() {
        return Err(MessageError::Label);
    }
    if !is_there {
        return Ok(Change::LabelGone(incoming));
    }
    // A label that leads where it cannot be followed is bound to nothing, and its packets are dropped.
    Ok(Change::Label(
        incoming,
        ways(&message.attributes).unwrap_or_default(),
    ))
}

fn next_hop_object(bytes: &[u8], is_there: bool) -> Result<Change, MessageError> {
    let attributes = bytes
        .get(NLMSG_HEADER_BYTES + NEXT_HOP_HEADER_BYTES..)
        .ok_or(MessageError::Malformed)?;
    let mut number = None;
    let mut group = None;
    let mut is_blackhole = false;
    let mut is_foreign = false;
    let mut encapsulation = None;
    let mut way = Way {
        interface: None,
        gateway: None,
        stack: LabelStack::EMPTY,
        weight: 1,
    };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|_| MessageError::Malformed)?;
        let value = attribute.value();
        match attribute.kind() {
            NHA_ID => number = Some(u32_of(value)?),
            NHA_GROUP => group = Some(members(value)?),
            NHA_BLACKHOLE => is_blackhole = true,
            NHA_OIF => way.interface = Some(u32_of(value)?).filter(|index| *index != 0),
            NHA_GATEWAY => way.gateway = Some(address_of(value)?),
            NHA_ENCAP_TYPE => is_foreign = value != ENCAP_MPLS.to_ne_bytes(),
            NHA_ENCAP => encapsulation = Some(pushed(value)),
            _ => {}
        }
    }
    let number = number
        .filter(|number| *number != 0)
        .ok_or(MessageError::Malformed)?;
    if !is_there {
        return Ok(Change::NextHopGone(number));
    }
    let object = match (group, encapsulation) {
        _ if is_blackhole => NextHopObject::Blackhole,
        (Some(members), _) if members.len() <= MAX_WAYS => NextHopObject::Group(members),
        (Some(_), _) => NextHopObject::Blackhole,
        (None, Some(_)) if is_foreign => NextHopObject::Blackhole,
        (None, Some(labels)) => match labels? {
            Some(stack) => NextHopObject::Single(Way { stack, ..way }),
            None => NextHopObject::Blackhole,
        },
        (None, None) => NextHopObject::Single(way),
    };
    Ok(Change::NextHop(number, object))
}

/// The labels of an encapsulation; `None` where they are more than are pushed.
fn pushed(encapsulation: &[u8]) -> Result<Option<LabelStack>, MessageError> {
    for attribute in NlasIterator::new(encapsulation) {
        let attribute: NlaBuffer<&[u8]> = attribute.map_err(|_| MessageError::Malformed)?;
        if attribute.kind() == MPLS_IPTUNNEL_DST {
            let labels: Vec<MplsLabel> = attribute
                .value()
                .chunks_exact(4)
                .filter_map(|entry| entry.first_chunk::<4>())
                .map(|entry| MplsLabel::from(u32::from_be_bytes(*entry)))
                .collect();
            return Ok(stack(&labels));
        }
    }
    Err(MessageError::Malformed)
}

fn members(value: &[u8]) -> Result<Vec<(u32, u8)>, MessageError> {
    if value.is_empty() || !value.len().is_multiple_of(GROUP_MEMBER_BYTES) {
        return Err(MessageError::Malformed);
    }
    value
        .chunks_exact(GROUP_MEMBER_BYTES)
        .map(|member| {
            let number = u32_of(member.get(..4).unwrap_or_default())?;
            let weight = member.get(4).copied().unwrap_or_default();
            Ok((number, weight.saturating_add(1)))
        })
        .collect()
}

fn u32_of(value: &[u8]) -> Result<u32, MessageError> {
    let bytes = <[u8; 4]>::try_from(value).map_err(|_| MessageError::Malformed)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn address_of(value: &[u8]) -> Result<IpAddr, MessageError> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(value).map_err(|_| MessageError::Malformed)?;
    Ok(IpAddr::from(v6))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
