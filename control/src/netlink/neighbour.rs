//! Neighbours: what the kernel resolved, and asking it to resolve more.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState as KernelState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use southbound::NeighbourState;

/// A neighbour on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    /// `None` while the kernel is asking, or where the entry says nothing.
    pub(super) state: Option<NeighbourState>,
}

impl Neighbour {
    /// `None` for what is no unicast neighbour of IPv4 or IPv6 (bridge entries, proxies, multicast).
    pub(super) fn parse(message: &NeighbourMessage) -> Option<Self> {
        let mut address = None;
        let mut link_layer = None;
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    link_layer = <[u8; 6]>::try_from(bytes.as_slice()).ok();
                }
                _ => {}
            }
        }
        let address = address.filter(|address| !address.is_multicast())?;
        let state = match message.header.state {
            KernelState::Failed => Some(NeighbourState::Failed),
            KernelState::Incomplete | KernelState::None => None,
            // Stale, delayed and probed entries keep their address until the kernel says otherwise.
            _ => link_layer.map(NeighbourState::Resolved),
        };
        Some(Self {
            index: message.header.ifindex,
            address,
            state,
        })
    }
}

/// Asks the kernel to resolve a neighbour: once (`NTF_USE`), or from now on (`NTF_MANAGED`, Linux 5.16).
pub(super) fn resolve(index: u32, address: IpAddr, managed: bool) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index;
    message.header.state = KernelState::None;
    message.header.kind = RouteType::Unspec;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    if managed {
        message
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    } else {
        message.header.flags = NeighbourFlags::Use;
    }
    RouteNetlinkMessage::NewNeighbour(message)
}
