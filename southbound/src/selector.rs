//! Traffic selectors (RFC 7296 section 3.13.1, RFC 4301 section 4.4.1.1).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::IpPrefix;

/// An inclusive range; `first <= last` is the maker's duty and checked where it enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValueRange<T> {
    /// The lowest member.
    pub first: T,
    /// The highest member.
    pub last: T,
}

impl<T: PartialOrd + Copy> ValueRange<T> {
    /// The range of `first` to `last`, or `None` where they are reversed.
    #[must_use]
    pub fn new(first: T, last: T) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `value` lies in the range.
    #[must_use]
    pub fn contains(&self, value: T) -> bool {
        self.first <= value && value <= self.last
    }
}

/// One side of a selector: addresses and ports.
///
/// For ICMP and ICMPv6 the 16-bit "port" of both sides is type times 256 plus code (RFC 7296 section
/// 3.13.1, RFC 4301 section 4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Addresses, both ends of one family.
    pub addresses: ValueRange<IpAddr>,
    /// Ports; `0..=65535` is any, and the only range that matches a packet without ports.
    pub ports: ValueRange<u16>,
}

impl Endpoint {
    /// All ports of a prefix.
    #[must_use]
    pub fn any_port(prefix: IpPrefix) -> Self {
        Self {
            addresses: ValueRange {
                first: prefix.network(),
                last: prefix.last(),
            },
            ports: ValueRange {
                first: 0,
                last: u16::MAX,
            },
        }
    }

    /// Whether every port matches, packets without ports included.
    #[must_use]
    pub fn matches_any_port(&self) -> bool {
        self.ports.first == 0 && self.ports.last == u16::MAX
    }
}

/// The protocols that a selector matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtocolMatch {
    /// Every protocol.
    Any,
    /// One IP protocol number.
    Only(u8),
}

/// A pair of sides as seen from this gateway: `local` behind it, `remote` behind the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SelectorPair {
    /// The side behind this gateway: source of outbound packets, destination of inbound ones.
    pub local: Endpoint,
    /// The side behind the peer.
    pub remote: Endpoint,
    /// The protocols.
    pub protocol: ProtocolMatch,
}

impl SelectorPair {
    /// Whether a packet from this gateway's side with these fields is covered. `ports` is `None` where the
    /// packet has none to see (a later fragment, a protocol without ports).
    #[must_use]
    pub fn covers(
        &self,
        local_address: IpAddr,
        remote_address: IpAddr,
        protocol: u8,
        ports: Option<(u16, u16)>,
    ) -> bool {
        let ports_match = match ports {
            Some((local, remote)) => self.local.ports.contains(local) && self.remote.ports.contains(remote),
            None => self.local.matches_any_port() && self.remote.matches_any_port(),
        };
        ports_match
            && match self.protocol {
                ProtocolMatch::Any => true,
                ProtocolMatch::Only(only) => only == protocol,
            }
            && contains_address(&self.local.addresses, local_address)
            && contains_address(&self.remote.addresses, remote_address)
    }
}

fn contains_address(range: &ValueRange<IpAddr>, address: IpAddr) -> bool {
    // `IpAddr` orders every IPv4 address before every IPv6 one: a range of one family never holds the
    // other.
    range.first.is_ipv4() == address.is_ipv4() && range.contains(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> SelectorPair {
        SelectorPair {
            local: Endpoint::any_port("10.1.0.0/16".parse().unwrap()),
            remote: Endpoint {
                addresses: ValueRange {
                    first: "10.2.0.5".parse().unwrap(),
                    last: "10.2.0.9".parse().unwrap(),
                },
                ports: ValueRange { first: 80, last: 88 },
            },
            protocol: ProtocolMatch::Only(6),
        }
    }

    #[test]
    fn each_field_decides() {
        let local: IpAddr = "10.1.2.3".parse().unwrap();
        let remote: IpAddr = "10.2.0.9".parse().unwrap();
        assert!(pair().covers(local, remote, 6, Some((1, 88))));
        assert!(!pair().covers("10.3.0.1".parse().unwrap(), remote, 6, Some((1, 88))));
        assert!(!pair().covers(local, "10.2.0.10".parse().unwrap(), 6, Some((1, 88))));
        assert!(!pair().covers(local, remote, 17, Some((1, 88))));
        assert!(!pair().covers(local, remote, 6, Some((1, 89))));
        assert!(
            !pair().covers(local, remote, 6, None),
            "a later fragment has no port to match"
        );
        assert!(!pair().covers(local, "::ffff:10.2.0.9".parse().unwrap(), 6, Some((1, 88))));
    }

    #[test]
    fn a_reversed_range_is_none() {
        assert_eq!(ValueRange::new(2, 1), None);
        assert_eq!(ValueRange::new(1, 1), Some(ValueRange { first: 1, last: 1 }));
    }
}
