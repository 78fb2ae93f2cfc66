//! Routes as the kernel has them.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType, RouteVia,
};
use southbound::IpPrefix;

use super::address::is_link_local_v6;

/// The kernel's table of everything without a table of its own.
pub(super) const TABLE_MAIN: u32 = 254;
/// The kernel's table of its own and broadcast addresses; it is looked at first.
pub(super) const TABLE_LOCAL: u32 = 255;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unicast,
    Local,
    Broadcast,
    Blackhole,
    Unreachable,
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    pub(super) index: u32,
    pub(super) gateway: Option<IpAddr>,
}

/// A route; its table and prefix are its key in [`super::tables::Tables`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) priority: u32,
    pub(super) protocol: u8,
    pub(super) kind: Kind,
    /// In the kernel's order. Empty where the kind leads nowhere.
    pub(super) hops: Vec<Hop>,
    /// Labels or another encapsulation of the kernel's, which it must do itself.
    pub(super) is_encapsulated: bool,
    /// The source of the host's own packets, where fixed.
    pub(super) source: Option<IpAddr>,
}

impl Route {
    /// Table, prefix and route; `None` for what decides nothing about forwarded unicast packets of IPv4 and
    /// IPv6, or depends on more than their destination.
    pub(super) fn parse(message: &RouteMessage) -> Option<(u32, IpPrefix, Self)> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let kind = match header.kind {
            RouteType::Unicast => Kind::Unicast,
            RouteType::Local => Kind::Local,
            RouteType::Broadcast => Kind::Broadcast,
            RouteType::BlackHole => Kind::Blackhole,
            RouteType::Unreachable | RouteType::Prohibit => Kind::Unreachable,
            _ => return None,
        };
        if header.tos != 0 || header.source_prefix_length != 0 || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut table = u32::from(header.table);
        let mut destination = unspecified;
        let mut single = Hop {
            index: 0,
            gateway: None,
        };
        let mut route = Self {
            priority: 0,
            protocol: header.protocol.into(),
            kind,
            hops: Vec::new(),
            is_encapsulated: false,
            source: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Priority(priority) => route.priority = *priority,
                RouteAttribute::PrefSource(address) => route.source = ip(address),
                RouteAttribute::Oif(index) => single.index = *index,
                RouteAttribute::Gateway(address) => single.gateway = ip(address),
                RouteAttribute::Via(via) => single.gateway = via_ip(via),
                RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => route.is_encapsulated = true,
                RouteAttribute::MultiPath(hops) => {
                    for hop in hops {
                        if hop.flags.contains(RouteNextHopFlags::Dead) {
                            continue;
                        }
                        let mut found = Hop {
                            index: hop.interface_index,
                            gateway: None,
                        };
                        for attribute in &hop.attributes {
                            match attribute {
                                RouteAttribute::Gateway(address) => found.gateway = ip(address),
                                RouteAttribute::Via(via) => found.gateway = via_ip(via),
                                RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
                                    route.is_encapsulated = true;
                                }
                                _ => {}
                            }
                        }
                        route.hops.push(found);
                    }
                }
                _ => {}
            }
        }
        if route.hops.is_empty() && single.index != 0 && !header.flags.contains(RouteFlags::Dead) {
            route.hops.push(single);
        }
        if destination.is_multicast() || destination.is_loopback() || is_link_local_v6(destination) {
            return None;
        }
        let prefix = IpPrefix::new(destination, header.destination_prefix_length).ok()?;
        Some((table, prefix, route))
    }

    /// Whether `other` stands in the same place of its table: what one message replaces or removes.
    pub(super) fn is_same_entry(&self, other: &Self) -> bool {
        self.priority == other.priority && self.kind == other.kind && self.protocol == other.protocol && {
            let (mut a, mut b) = (self.hops.clone(), other.hops.clone());
            a.sort_unstable();
            b.sort_unstable();
            a == b
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteVia::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
