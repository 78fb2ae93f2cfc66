//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) address: IpAddr,
}

impl Address {
    /// The address, and whether it is in use: an IPv6 address that is still being probed, or that turned
    /// out to be somebody else's, is not (RFC 4862 section 5.4).
    pub(super) fn parse(message: &AddressMessage) -> Option<(Self, bool)> {
        let mut local = None;
        let mut peer = None;
        let mut is_usable = !message
            .header
            .flags
            .intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(flags) => {
                    is_usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
                        || flags.contains(AddressFlags::Optimistic);
                }
                _ => {}
            }
        }
        // On point-to-point links IFA_ADDRESS is the peer's; elsewhere both, or it alone, are ours.
        let address = local.or(peer)?;
        Some((
            Self {
                index: message.header.index,
                address,
            },
            is_usable,
        ))
    }

    /// Whether the dataplane has to know it: loopback addresses are never on a wire.
    pub(super) fn is_mirrored(&self) -> bool {
        !self.address.is_loopback() && !self.address.is_multicast() && !self.address.is_unspecified()
    }
}

/// Whether `address` is of IPv6's link-local scope (RFC 4291 section 2.5.6).
pub(super) fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
