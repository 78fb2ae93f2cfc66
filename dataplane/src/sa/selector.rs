//! Traffic selectors compiled for looking at packets (RFC 4301 section 5.2, step 4).

use std::net::IpAddr;

use southbound::{Endpoint, ProtocolMatch, SelectorPair};

/// What selectors and rules look at in a packet (RFC 4301 section 4.4.1.1).
///
/// For ICMP and ICMPv6 both ports are type times 256 plus code; `ports` is `None` where the packet shows
/// none (a later fragment, a protocol without ports).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol: the last next header that is no extension header.
    pub protocol: u8,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    /// The same flow seen from the other end.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            ports: self.ports.map(|(source, destination)| (destination, source)),
        }
    }
}

impl From<&wire::flow::Tuple> for Flow {
    fn from(tuple: &wire::flow::Tuple) -> Self {
        use wire::flow::UpperSelector;
        Self {
            source: tuple.source,
            destination: tuple.destination,
            protocol: tuple.protocol.0,
            ports: match tuple.upper {
                UpperSelector::Ports { source, destination } => Some((source, destination)),
                UpperSelector::Icmp { kind, code } => {
                    let both = u16::from_be_bytes([kind, code]);
                    Some((both, both))
                }
                // RFC 7296 section 3.13.1: the type stands in the high bits, as ICMP's does.
                UpperSelector::Mobility { kind } => {
                    let both = u16::from_be_bytes([kind, 0]);
                    Some((both, both))
                }
                UpperSelector::None | UpperSelector::Opaque => None,
            },
        }
    }
}

/// The selectors of an inbound SA.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// The addresses of the first pair that admits by them alone, where packets are looked for first.
    first: Option<PairV4>,
    pairs: Box<[SelectorPair]>,
}

/// Ranges of IPv4 addresses: the peer's side and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PairV4 {
    remote: (u32, u32),
    local: (u32, u32),
}

impl PairV4 {
    fn of(pair: &SelectorPair) -> Option<Self> {
        let range = |side: &Endpoint| match (side.addresses.first, side.addresses.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => Some((first.to_bits(), last.to_bits())),
            _ => None,
        };
        is_any_upper(pair)
            .then(|| {
                Some(Self {
                    remote: range(&pair.remote)?,
                    local: range(&pair.local)?,
                })
            })
            .flatten()
    }

    #[inline(always)]
    fn covers(self, source: u32, destination: u32) -> bool {
        let within =
            |(first, last): (u32, u32), address: u32| address.wrapping_sub(first) <= last.wrapping_sub(first);
        within(self.remote, source) & within(self.local, destination)
    }
}

impl Selectors {
    /// Bytes at the front that most packets need.
    pub(super) const FRONT_BYTES: usize = size_of::<Option<PairV4>>();

    /// Takes the contract's selectors.
    #[must_use]
    pub fn new(selectors: Vec<SelectorPair>) -> Self {
        Self {
            first: selectors.iter().find_map(PairV4::of),
            pairs: selectors.into_boxed_slice(),
        }
    }

    /// Whether a packet that came out of the SA may have been in it: its source is the peer's side, its
    /// destination ours. An SA without selectors carries nothing.
    #[must_use]
    pub fn admit(&self, inner: &Flow) -> bool {
        self.pairs.iter().any(|pair| {
            pair.covers(
                inner.destination,
                inner.source,
                inner.protocol,
                inner.ports.map(|(source, destination)| (destination, source)),
            )
        })
    }

    /// Whether the addresses alone are enough to say that [`Self::admit`] holds, as they are for most SAs: a pair of
    /// any protocol and any port covers them.
    #[inline(always)]
    #[must_use]
    pub fn admit_addresses_v4(&self, source: u32, destination: u32) -> bool {
        match self.first {
            None => false,
            Some(first) => {
                first.covers(source, destination)
                    || (self.pairs.len() > 1 && self.another_covers_v4(source, destination))
            }
        }
    }

    fn another_covers_v4(&self, source: u32, destination: u32) -> bool {
        self.pairs
            .iter()
            .filter_map(PairV4::of)
            .any(|pair| pair.covers(source, destination))
    }

    /// The same for IPv6.
    #[inline]
    #[must_use]
    pub fn admit_addresses_v6(&self, source: u128, destination: u128) -> bool {
        let within = |side: &Endpoint, address: u128| match (side.addresses.first, side.addresses.last) {
            (IpAddr::V6(first), IpAddr::V6(last)) => first.to_bits() <= address && address <= last.to_bits(),
            _ => false,
        };
        self.pairs.iter().any(|pair| {
            is_any_upper(pair) && within(&pair.remote, source) && within(&pair.local, destination)
        })
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.pairs)
    }
}

#[inline]
fn is_any_upper(pair: &SelectorPair) -> bool {
    pair.protocol == ProtocolMatch::Any && pair.local.matches_any_port() && pair.remote.matches_any_port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_54_an_inner_packet_is_looked_at_from_the_peers_side() {
        let selectors = Selectors::new(vec![SelectorPair {
            local: Endpoint::any_port("10.1.0.0/16".parse().unwrap()),
            remote: Endpoint::any_port("10.2.0.0/16".parse().unwrap()),
            protocol: ProtocolMatch::Any,
        }]);
        let inner = Flow {
            source: "10.2.0.1".parse().unwrap(),
            destination: "10.1.0.1".parse().unwrap(),
            protocol: 17,
            ports: Some((1, 2)),
        };
        assert!(selectors.admit(&inner));
        assert!(
            !selectors.admit(&inner.mirrored()),
            "our own address as the source"
        );
        assert!(!Selectors::default().admit(&inner), "no selector, no traffic");
    }

    #[test]
    fn the_addresses_alone_never_admit_what_the_whole_check_refuses() {
        let any = |prefix: &str| Endpoint::any_port(prefix.parse().unwrap());
        let mut only_web = any("10.2.0.0/16");
        only_web.ports = southbound::ValueRange { first: 80, last: 80 };
        let pair = |local, remote, protocol| SelectorPair {
            local,
            remote,
            protocol,
        };
        let selectors = Selectors::new(vec![
            pair(any("10.1.0.0/16"), any("10.2.0.0/16"), ProtocolMatch::Any),
            pair(any("10.3.0.0/16"), any("10.2.0.0/16"), ProtocolMatch::Only(6)),
            pair(any("10.4.0.0/16"), only_web, ProtocolMatch::Any),
            pair(any("fd01::/16"), any("fd02::/16"), ProtocolMatch::Any),
        ]);
        let mut admitted = 0;
        for destination in [
            "10.1.0.1", "10.3.0.1", "10.4.0.1", "10.5.0.1", "fd01::1", "fd03::1",
        ] {
            for source in ["10.2.0.1", "10.1.0.1", "fd02::1", "fd01::1"] {
                let (source, destination): (IpAddr, IpAddr) =
                    (source.parse().unwrap(), destination.parse().unwrap());
                let quick = match (source, destination) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        selectors.admit_addresses_v4(source.to_bits(), destination.to_bits())
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        selectors.admit_addresses_v6(source.to_bits(), destination.to_bits())
                    }
                    _ => continue,
                };
                let whole = selectors.admit(&Flow {
                    source,
                    destination,
                    protocol: 17,
                    ports: None,
                });
                assert_eq!(quick, whole, "{source} to {destination}");
                admitted += usize::from(quick);
            }
        }
        assert_eq!(admitted, 2);
    }
}
