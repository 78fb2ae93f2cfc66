//! What workers know of ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use southbound::{PORT_SLOTS, PortId, PortRole};

use super::VrfIndex;

/// A port's place: below [`PORT_SLOTS`], the same in counters, rings and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSlot(u8);

impl PortSlot {
    /// The first place.
    pub const FIRST: Self = Self(0);

    /// The place of this number, where there is one.
    #[must_use]
    pub const fn new(number: usize) -> Option<Self> {
        if number < PORT_SLOTS {
            Some(Self(number as u8))
        } else {
            None
        }
    }

    /// The number, below [`PORT_SLOTS`].
    #[inline]
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// Every place.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PORT_SLOTS).filter_map(Self::new)
    }
}

/// What the kernel says of a port's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLink {
    /// Largest IP packet in bytes.
    pub mtu_bytes: u16,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Whether packets can leave.
    pub up: bool,
    /// Which VLAN of which port, where it is one.
    pub vlan: Option<VlanLink>,
}

/// A VLAN: the port that carries it, and its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanLink {
    /// The port whose rings its packets use.
    pub parent: PortId,
    /// 1 to 4094.
    pub id: u16,
}

impl Default for PortLink {
    fn default() -> Self {
        Self {
            mtu_bytes: 1500,
            mac: [0; 6],
            up: false,
            vlan: None,
        }
    }
}

/// The VLANs of a device that are ports, by identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlans(Box<[VlanPort]>);

/// A VLAN as the packets of its device find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanPort {
    /// Its identifier.
    pub id: u16,
    /// The port that it is.
    pub slot: PortSlot,
    /// The table of packets that it receives.
    pub vrf: VrfIndex,
}

impl Vlans {
    /// Of these, in any order.
    #[must_use]
    pub fn new(mut vlans: Vec<VlanPort>) -> Self {
        vlans.sort_unstable_by_key(|vlan| vlan.id);
        Self(vlans.into_boxed_slice())
    }

    /// The port that VLAN `id` is.
    #[inline]
    #[must_use]
    pub fn find(&self, id: u16) -> Option<VlanPort> {
        let place = self.0.binary_search_by_key(&id, |vlan| vlan.id).ok()?;
        self.0.get(place).copied()
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its place.
    pub slot: PortSlot,
    /// Its name in updates.
    pub id: PortId,
    /// Its side.
    pub role: PortRole,
    /// The table of packets that it receives.
    pub vrf: VrfIndex,
    /// The space of labelled packets that it receives, where it takes them.
    pub mpls: Option<southbound::LabelSpaceId>,
    /// The interface.
    pub link: PortLink,
    /// Its VLANs that are ports.
    pub vlans: Vlans,
    /// Our addresses on it, in the order told: the first of a family is the source of ICMP errors.
    pub addresses: Vec<IpAddr>,
}

impl PortInfo {
    /// Our IPv4 address on it.
    #[must_use]
    pub fn source_v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Our IPv6 address on it, a global one rather than a link-local one.
    #[must_use]
    pub fn source_v6(&self) -> Option<Ipv6Addr> {
        let mut all = self.addresses.iter().filter_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        all.clone()
            .find(|v6| !v6.is_unicast_link_local())
            .or_else(|| all.next())
    }
}
