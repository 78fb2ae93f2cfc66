//! Addresses, prefixes and neighbours as the kernel has them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{PortId, VrfId};

/// A network: address and prefix length, with no bit set beyond the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(IpAddr, u8)", into = "(IpAddr, u8)")]
pub struct IpPrefix {
    network: IpAddr,
    length_bits: u8,
}

/// A prefix length beyond the family's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a prefix is an address, a slash and a length of at most 32 (IPv4) or 128 (IPv6) bits")]
pub struct PrefixLengthError;

impl IpPrefix {
    /// The network that holds `address`; host bits are cleared.
    ///
    /// # Errors
    /// [`PrefixLengthError`] for more than 32 or 128 bits.
    pub fn new(address: IpAddr, length_bits: u8) -> Result<Self, PrefixLengthError> {
        let network = match address {
            IpAddr::V4(v4) if length_bits <= 32 => {
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(length_bits)))
            }
            IpAddr::V6(v6) if length_bits <= 128 => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(length_bits)))
            }
            _ => return Err(PrefixLengthError),
        };
        Ok(Self { network, length_bits })
    }

    /// The prefix of one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self {
            network: address,
            length_bits: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// The first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | !mask_v4(self.length_bits))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | !mask_v6(self.length_bits))),
        }
    }

    /// The length in bits.
    #[must_use]
    pub fn length_bits(&self) -> u8 {
        self.length_bits
    }

    /// The fewest networks that together hold exactly the addresses from `first` to `last`; none for a reversed
    /// range or one of two families.
    #[must_use]
    pub fn covering(first: IpAddr, last: IpAddr) -> Vec<Self> {
        let mut networks = Vec::new();
        let mut next = Some(first);
        while let Some(start) = next.filter(|start| start.is_ipv4() == last.is_ipv4() && *start <= last) {
            let most = if start.is_ipv4() { 32 } else { 128 };
            let fits = |length_bits: &u8| {
                Self::new(start, *length_bits)
                    .is_ok_and(|prefix| prefix.network == start && prefix.last() <= last)
            };
            let length_bits = (0..=most).find(fits).unwrap_or(most);
            let Ok(prefix) = Self::new(start, length_bits) else {
                break;
            };
            networks.push(prefix);
            next = match prefix.last() {
                IpAddr::V4(end) => end
                    .to_bits()
                    .checked_add(1)
                    .map(|bits| Ipv4Addr::from_bits(bits).into()),
                IpAddr::V6(end) => end
                    .to_bits()
                    .checked_add(1)
                    .map(|bits| Ipv6Addr::from_bits(bits).into()),
            };
        }
        networks
    }

    /// Whether `address` is of this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.length_bits).is_ok_and(|other| other == *self)
    }
}

fn mask_v4(length_bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length_bits)).unwrap_or(0)
}

fn mask_v6(length_bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length_bits)).unwrap_or(0)
}

impl TryFrom<(IpAddr, u8)> for IpPrefix {
    type Error = PrefixLengthError;

    fn try_from((address, length_bits): (IpAddr, u8)) -> Result<Self, Self::Error> {
        Self::new(address, length_bits)
    }
}

impl From<IpPrefix> for (IpAddr, u8) {
    fn from(prefix: IpPrefix) -> Self {
        (prefix.network, prefix.length_bits)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.length_bits)
    }
}

impl FromStr for IpPrefix {
    type Err = PrefixLengthError;

    /// Parses `10.0.0.0/8`, or a bare address as the prefix of that one address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((address, length)) => Self::new(
                address.parse().map_err(|_| PrefixLengthError)?,
                length.parse().map_err(|_| PrefixLengthError)?,
            ),
            None => text.parse().map(Self::host).map_err(|_| PrefixLengthError),
        }
    }
}

/// An address of this gateway: steered for tunnels, answered from, delivered to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalAddress {
    /// The routing table it lives in.
    pub vrf: VrfId,
    /// The address.
    pub address: IpAddr,
    /// The port it stands on, where it stands on one of ours.
    pub port: Option<PortId>,
}

/// What the kernel knows of a neighbour on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Neighbour {
    /// The port it is behind.
    pub port: PortId,
    /// Its network-layer address.
    pub address: IpAddr,
    /// Its link-layer address, or what became of asking for it.
    pub state: NeighbourState,
}

/// The outcome of neighbour resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NeighbourState {
    /// Its Ethernet address.
    Resolved([u8; 6]),
    /// The kernel gave up: held packets are dropped until it answers again.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_canonical() {
        let prefix: IpPrefix = "10.1.2.3/16".parse().unwrap();
        assert_eq!(prefix.to_string(), "10.1.0.0/16");
        assert_eq!(prefix.last(), "10.1.255.255".parse::<IpAddr>().unwrap());
        assert!(prefix.contains("10.1.9.9".parse().unwrap()));
        assert!(!prefix.contains("10.2.0.0".parse().unwrap()));
        assert!(!prefix.contains("::1".parse().unwrap()));
        let all: IpPrefix = "::/0".parse().unwrap();
        assert_eq!(
            all.last(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
                .parse::<IpAddr>()
                .unwrap()
        );
        assert_eq!("192.0.2.1".parse::<IpPrefix>().unwrap().length_bits(), 32);
    }

    #[test]
    fn ranges_are_covered_exactly() {
        let cover = |first: &str, last: &str| -> Vec<String> {
            IpPrefix::covering(first.parse().unwrap(), last.parse().unwrap())
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(cover("10.0.0.0", "10.0.255.255"), ["10.0.0.0/16"]);
        assert_eq!(
            cover("10.0.0.1", "10.0.0.4"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]
        );
        assert_eq!(cover("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(cover("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert!(cover("10.0.0.2", "10.0.0.1").is_empty());
        assert!(cover("10.0.0.2", "::1").is_empty());
    }

    #[test]
    fn lengths_beyond_the_family_are_refused() {
        for text in ["10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "/8", ""] {
            assert_eq!(text.parse::<IpPrefix>(), Err(PrefixLengthError), "{text:?}");
        }
    }
}
