//! Kernel routes that lead the host's own packets into tunnels, by way of the TAP.

use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use southbound::{IpPrefix, ValueRange, VrfId};

use super::ROUTE_PROTOCOL;
use super::route::TABLE_MAIN;

/// The metric of our routes: an operator's own route with a lower one wins.
pub(super) const METRIC: u32 = ROUTE_PROTOCOL as u32;

/// Destinations behind a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The table of the route.
    pub vrf: VrfId,
    /// The destinations.
    pub prefix: IpPrefix,
    /// The sources that the tunnel takes: the first address of the host among them is preferred.
    pub sources: Vec<ValueRange<IpAddr>>,
}

/// One of our routes as it should be in the kernel, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelHostRoute {
    pub(super) table: u32,
    pub(super) prefix: IpPrefix,
    pub(super) priority: u32,
    pub(super) interface: u32,
    pub(super) source: Option<IpAddr>,
}

impl HostRoute {
    pub(super) fn table(&self) -> u32 {
        match self.vrf {
            VrfId::MAIN => TABLE_MAIN,
            VrfId(table) => table,
        }
    }

    /// The host's address to prefer, of those in `addresses`.
    pub(super) fn source(&self, addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
        addresses
            .filter(|address| {
                self.sources.iter().any(|range| {
                    range.first.is_ipv4() == address.is_ipv4()
                        && address.is_ipv4() == self.prefix.network().is_ipv4()
                        && range.contains(*address)
                })
            })
            .min()
    }
}

impl KernelHostRoute {
    pub(super) fn addition(&self) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewRoute(self.message())
    }

    pub(super) fn removal(&self) -> RouteNetlinkMessage {
        let mut message = self.message();
        // Whatever its scope: our own have the widest, but those of others need not.
        message.header.scope = RouteScope::NoWhere;
        RouteNetlinkMessage::DelRoute(message)
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = match self.prefix.network() {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = self.prefix.length_bits();
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Table(self.table),
            RouteAttribute::Destination(self.prefix.network().into()),
            RouteAttribute::Priority(self.priority),
        ];
        if self.interface != 0 {
            message.attributes.push(RouteAttribute::Oif(self.interface));
        }
        if let Some(source) = self.source {
            message.attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        message
    }
}
