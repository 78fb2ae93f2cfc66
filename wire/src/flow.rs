//! What tells one flow from another: the selectors of a packet (RFC 4301 section 4.4.1.1) and a
//! hash of them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Cursor, Fragment, IpProtocol, SliceCursor, ipv4, ipv6};

/// What the upper protocol adds to addresses and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpperSelector {
    /// TCP, UDP and their like.
    Ports {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// ICMP, of either version.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// The mobility header's type (RFC 4301 section 4.4.1.1).
    Mobility {
        /// The type.
        kind: u8,
    },
    /// A protocol without such fields.
    None,
    /// They are not in this packet, for it is a fragment other than the first (RFC 4301's OPAQUE).
    Opaque,
}

/// The selectors of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, of the same version.
    pub destination: IpAddr,
    /// The upper protocol, behind any extension headers.
    pub protocol: IpProtocol,
    /// What the upper protocol adds.
    pub upper: UpperSelector,
    /// This packet's place, if it is a fragment.
    pub fragment: Option<Fragment>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not one byte, or a version that is neither 4 nor 6.
    BadVersion,
    /// The IPv4 header is wrong.
    Ipv4(ipv4::Error),
    /// The IPv6 header or an extension header is wrong.
    Ipv6(ipv6::Error),
    /// The packet ends before the ports or the type that its protocol must have.
    UpperTruncated,
}

impl Tuple {
    /// Reads the selectors of the IP packet at the front of `bytes`; what follows it is ignored.
    /// Lengths are checked, the IPv4 header checksum is not.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(&ipv4::Packet::parse(bytes).map_err(Error::Ipv4)?),
            Some(6) => Self::parse_v6(&ipv6::Packet::parse(bytes).map_err(Error::Ipv6)?),
            _ => Err(Error::BadVersion),
        }
    }

    /// The selectors of an IPv4 packet.
    #[inline]
    pub fn parse_v4(packet: &ipv4::Packet<'_>) -> Result<Self, Error> {
        let header = packet.header;
        Ok(Self {
            source: IpAddr::V4(header.source()),
            destination: IpAddr::V4(header.destination()),
            protocol: header.protocol(),
            upper: parse_upper(header.protocol(), header.fragment(), packet.payload)?,
            fragment: header.fragment(),
        })
    }

    /// The selectors of an IPv6 packet.
    #[inline]
    pub fn parse_v6(packet: &ipv6::Packet<'_>) -> Result<Self, Error> {
        let header = packet.header;
        let upper = packet.upper().map_err(Error::Ipv6)?;
        let payload = packet.bytes().get(upper.offset_bytes..).unwrap_or_default();
        Ok(Self {
            source: IpAddr::V6(header.source()),
            destination: IpAddr::V6(header.destination()),
            protocol: upper.protocol,
            upper: parse_upper(upper.protocol, upper.fragment, payload)?,
            fragment: upper.fragment,
        })
    }

    /// A hash that is the same for every packet of a flow, for choosing among equal paths and as
    /// entropy. No ports of fragments go in, so that all of a datagram's take one path. Not keyed: a
    /// sender can choose what it collides with, so no table that must bound its chains may use it.
    #[inline]
    pub fn hash(&self) -> u32 {
        let mut state = u64::from(self.protocol.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                state = mix(
                    state,
                    u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()),
                );
            }
            (source, destination) => {
                for address in [source, destination] {
                    let bits = as_v6(address).to_bits();
                    state = mix(mix(state, (bits >> 64) as u64), bits as u64);
                }
            }
        }
        if let (UpperSelector::Ports { source, destination }, true) = (
            self.upper,
            self.fragment.is_none_or(|fragment| fragment.is_atomic()),
        ) {
            state = mix(state, u64::from(source) << 16 | u64::from(destination));
        }
        (state ^ state >> 32) as u32
    }
}

#[inline]
const fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
        IpAddr::V6(v6) => v6,
    }
}

/// One round: a full 64 by 64 bit product, folded. The constants are the fractional digits of pi and
/// of the golden ratio, odd.
#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ 0x243f_6a88_85a3_08d3) as u128 * (word ^ 0x9e37_79b9_7f4a_7c15) as u128;
    (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(23)
}

#[inline]
fn parse_upper(
    protocol: IpProtocol,
    fragment: Option<Fragment>,
    payload: &[u8],
) -> Result<UpperSelector, Error> {
    if fragment.is_some_and(|fragment| !fragment.is_first()) {
        return Ok(UpperSelector::Opaque);
    }
    let mut cursor = SliceCursor::new(payload);
    match protocol {
        _ if protocol.has_ports() => {
            let [s0, s1, d0, d1] = *cursor.take::<4>().ok_or(Error::UpperTruncated)?;
            Ok(UpperSelector::Ports {
                source: u16::from_be_bytes([s0, s1]),
                destination: u16::from_be_bytes([d0, d1]),
            })
        }
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            let [kind, code] = *cursor.take::<2>().ok_or(Error::UpperTruncated)?;
            Ok(UpperSelector::Icmp { kind, code })
        }
        IpProtocol::MOBILITY => {
            let [_, _, kind] = *cursor.take::<3>().ok_or(Error::UpperTruncated)?;
            Ok(UpperSelector::Mobility { kind })
        }
        _ => Ok(UpperSelector::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrafficClass;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn packet_v4(protocol: IpProtocol, offset_bytes: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [&[0; 20][..], payload].concat();
        ipv4::Repr {
            traffic_class: TrafficClass(0),
            total_bytes: bytes.len() as u16,
            identification: 7,
            dont_fragment: false,
            more_fragments: more,
            fragment_offset_bytes: offset_bytes,
            ttl: 64,
            protocol,
            source: Ipv4Addr::new(10, 1, 0, 1),
            destination: Ipv4Addr::new(10, 2, 0, 1),
        }
        .emit(bytes.first_chunk_mut().unwrap());
        bytes
    }

    #[test]
    fn uppers() {
        let upper = |protocol, payload: &[u8]| {
            Tuple::parse(&packet_v4(protocol, 0, false, payload)).map(|tuple| tuple.upper)
        };
        let ports = UpperSelector::Ports {
            source: 1000,
            destination: 53,
        };
        assert_eq!(upper(IpProtocol::UDP, &[3, 232, 0, 53]), Ok(ports));
        assert_eq!(upper(IpProtocol::SCTP, &[3, 232, 0, 53]), Ok(ports));
        assert_eq!(
            upper(IpProtocol::ICMP, &[8, 0]),
            Ok(UpperSelector::Icmp { kind: 8, code: 0 })
        );
        assert_eq!(
            upper(IpProtocol::MOBILITY, &[59, 1, 5]),
            Ok(UpperSelector::Mobility { kind: 5 })
        );
        assert_eq!(upper(IpProtocol::ESP, &[]), Ok(UpperSelector::None));
        assert_eq!(upper(IpProtocol::TCP, &[3, 232, 0]), Err(Error::UpperTruncated));
        assert_eq!(upper(IpProtocol::ICMP, &[8]), Err(Error::UpperTruncated));
        assert_eq!(upper(IpProtocol::MOBILITY, &[59, 1]), Err(Error::UpperTruncated));
    }

    #[test]
    fn every_error() {
        assert_eq!(Tuple::parse(&[]), Err(Error::BadVersion));
        assert_eq!(Tuple::parse(&[0x55; 60]), Err(Error::BadVersion));
        assert_eq!(
            Tuple::parse(&[0x45; 19]),
            Err(Error::Ipv4(ipv4::Error::Truncated))
        );
        assert_eq!(
            Tuple::parse(&[0x60; 39]),
            Err(Error::Ipv6(ipv6::Error::Truncated))
        );
    }

    #[test]
    fn fault_56_a_later_fragment_has_no_ports() {
        let tuple = Tuple::parse(&packet_v4(IpProtocol::UDP, 8, false, &[3, 232, 0, 53])).unwrap();
        assert_eq!(tuple.upper, UpperSelector::Opaque);
        assert_eq!(tuple.fragment.unwrap().offset_bytes, 8);
        let first = Tuple::parse(&packet_v4(IpProtocol::UDP, 0, true, &[3, 232, 0, 53])).unwrap();
        assert_eq!(
            first.upper,
            UpperSelector::Ports {
                source: 1000,
                destination: 53
            }
        );
        assert_eq!(first.hash(), tuple.hash(), "all fragments take one path");
        let whole = Tuple::parse(&packet_v4(IpProtocol::UDP, 0, false, &[3, 232, 0, 53])).unwrap();
        assert_ne!(whole.hash(), tuple.hash());
    }

    /// 64 flows that differ in one port only are spread over 4 paths: none gets fewer than 8.
    #[test]
    fn the_hash_spreads() {
        for v6 in [false, true] {
            let mut paths = [0; 4];
            for port in 0..64u16 {
                let (source, destination) = if v6 {
                    (Ipv6Addr::from_bits(1).into(), Ipv6Addr::from_bits(2).into())
                } else {
                    (Ipv4Addr::from_bits(1).into(), Ipv4Addr::from_bits(2).into())
                };
                let tuple = Tuple {
                    source,
                    destination,
                    protocol: IpProtocol::UDP,
                    upper: UpperSelector::Ports {
                        source: 40_000 + port,
                        destination: 4500,
                    },
                    fragment: None,
                };
                paths[tuple.hash() as usize % 4] += 1;
            }
            assert!(paths.iter().all(|&flows| flows >= 8), "{paths:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120), six in any::<bool>()) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
            if let Ok(tuple) = Tuple::parse(&bytes) {
                let _ = tuple.hash();
                prop_assert_eq!(tuple.source.is_ipv6(), six);
            }
        }
    }
}
