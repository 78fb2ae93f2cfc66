//! Traffic Selector payload (RFC 7296 section 3.13).
//!
//! ```text
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   TS Type     |IP Protocol ID*|       Selector Length         |
//! +---------------+---------------+-------------------------------+
//! |           Start Port*         |           End Port*           |
//! +-------------------------------+-------------------------------+
//! |                Starting Address, Ending Address               ~
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};
use crate::reader::Reader;

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// A range of addresses of one family, a range of ports and a protocol (0 for any).
///
/// Invariant of parsed values: start is not above end, and both are of one family. "OPAQUE" ports keep their
/// wire form 65535 to 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// IP protocol number, 0 for any.
    pub protocol: u8,
    /// First port.
    pub start_port: u16,
    /// Last port.
    pub end_port: u16,
    /// First address.
    pub start: IpAddr,
    /// Last address, of the same family.
    pub end: IpAddr,
}

impl TrafficSelector {
    /// Every protocol and port of a range of addresses.
    pub fn addresses(start: IpAddr, end: IpAddr) -> Self {
        Self {
            protocol: 0,
            start_port: 0,
            end_port: u16::MAX,
            start,
            end,
        }
    }

    /// Every protocol and port of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::addresses(address, address)
    }

    /// Everything of the family of `like`.
    pub fn any_like(like: IpAddr) -> Self {
        match like {
            IpAddr::V4(_) => Self::addresses(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
            IpAddr::V6(_) => Self::addresses(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from([0xff; 16]).into()),
        }
    }

    /// What both cover, if anything (the narrowing of RFC 7296 section 2.9).
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (a, b) if a == b => a,
            _ => return None,
        };
        let joined = Self {
            protocol,
            start_port: self.start_port.max(other.start_port),
            end_port: self.end_port.min(other.end_port),
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (joined.start <= joined.end && joined.start_port <= joined.end_port).then_some(joined)
    }

    /// Whether every packet of `other` is one of this selector's.
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match prefix_length(self.start, self.end) {
            Some(length) => write!(f, "{}/{length}", self.start)?,
            None => write!(f, "{}-{}", self.start, self.end)?,
        }
        if self.protocol != 0 || (self.start_port, self.end_port) != (0, u16::MAX) {
            write!(f, "[{}/{}-{}]", self.protocol, self.start_port, self.end_port)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The prefix length where a range is exactly one prefix.
fn prefix_length(start: IpAddr, end: IpAddr) -> Option<u32> {
    let (start, end, width) = match (start, end) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return None,
    };
    let host_bits = start ^ end;
    let length = width - (128 - host_bits.leading_zeros());
    let contiguous = host_bits & host_bits.wrapping_add(1) == 0;
    (contiguous && start & host_bits == 0).then_some(length)
}

/// The selectors of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsPayload {
    /// At least one; types other than IPv4 and IPv6 ranges are left out.
    pub selectors: Vec<TrafficSelector>,
}

impl TsPayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let count = usize::from(reader.u8("traffic selector count")?);
        reader.array::<3>("traffic selector reserved")?;
        if count == 0 {
            return Err(Error::Malformed("no traffic selector"));
        }
        let mut selectors = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = reader.u8("traffic selector type")?;
            let protocol = reader.u8("traffic selector protocol")?;
            let length = usize::from(reader.u16("traffic selector length")?);
            let rest = length
                .checked_sub(4)
                .ok_or(Error::Malformed("traffic selector length"))?;
            let mut fields = Reader::new(reader.take(rest, "traffic selector length")?);
            if !matches!(kind, TS_IPV4_ADDR_RANGE | TS_IPV6_ADDR_RANGE) {
                continue;
            }
            let (start_port, end_port) = (fields.u16("start port")?, fields.u16("end port")?);
            let (start, end) = if kind == TS_IPV4_ADDR_RANGE {
                (
                    IpAddr::from(fields.array::<4>("start address")?),
                    IpAddr::from(fields.array::<4>("end address")?),
                )
            } else {
                (
                    IpAddr::from(fields.array::<16>("start address")?),
                    IpAddr::from(fields.array::<16>("end address")?),
                )
            };
            let opaque = (start_port, end_port) == (u16::MAX, 0);
            if !fields.is_empty() || start > end || (start_port > end_port && !opaque) {
                return Err(Error::Malformed("traffic selector range"));
            }
            selectors.push(TrafficSelector {
                protocol,
                start_port,
                end_port,
                start,
                end,
            });
        }
        if !reader.is_empty() {
            return Err(Error::Malformed("bytes after the last traffic selector"));
        }
        Ok(Self { selectors })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[u8::try_from(self.selectors.len()).unwrap_or(u8::MAX), 0, 0, 0]);
        for ts in self.selectors.iter().take(usize::from(u8::MAX)) {
            let (kind, length) = if ts.start.is_ipv4() {
                (TS_IPV4_ADDR_RANGE, 16)
            } else {
                (TS_IPV6_ADDR_RANGE, 40)
            };
            out.extend_from_slice(&[kind, ts.protocol, 0, length]);
            out.extend_from_slice(&ts.start_port.to_be_bytes());
            out.extend_from_slice(&ts.end_port.to_be_bytes());
            for address in [ts.start, ts.end] {
                match address {
                    IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector::addresses(start.parse().unwrap(), end.parse().unwrap())
    }

    #[test]
    fn round_trip() {
        let payload = TsPayload {
            selectors: vec![ts("10.0.0.0", "10.0.255.255"), ts("fd00::", "fd00::ffff")],
        };
        let mut bytes = Vec::new();
        payload.emit(&mut bytes);
        assert_eq!(TsPayload::parse(&bytes), Ok(payload));
    }

    #[test]
    fn fault_08_length_count_ports_and_reversed_ranges() {
        let mut good = Vec::new();
        TsPayload {
            selectors: vec![ts("10.0.0.0", "10.0.0.9")],
        }
        .emit(&mut good);
        let broken = |index: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[index] = value;
            TsPayload::parse(&bytes)
        };
        assert!(broken(0, 0).is_err(), "no selector");
        assert!(broken(0, 2).is_err(), "count above content");
        assert!(broken(7, 3).is_err(), "length below the header");
        assert!(broken(7, 15).is_err(), "length short");
        assert!(broken(7, 17).is_err(), "length beyond the payload");
        assert!(broken(4, 8).is_err(), "IPv6 type with IPv4 length");
        assert!(broken(12, 11).is_err(), "reversed addresses");
        let mut ports = good.clone();
        ports[8..12].copy_from_slice(&[0, 9, 0, 8]);
        assert!(TsPayload::parse(&ports).is_err(), "reversed ports");
        ports[8..12].copy_from_slice(&[0xff, 0xff, 0, 0]);
        assert!(TsPayload::parse(&ports).is_ok(), "OPAQUE");
    }

    #[test]
    fn intersections() {
        let wide = ts("10.0.0.0", "10.255.255.255");
        let narrow = TrafficSelector {
            protocol: 6,
            start_port: 80,
            end_port: 80,
            ..ts("10.1.0.0", "10.1.0.9")
        };
        assert_eq!(wide.intersection(&narrow), Some(narrow));
        assert!(wide.covers(&narrow) && !narrow.covers(&wide));
        assert_eq!(wide.intersection(&ts("11.0.0.0", "11.0.0.1")), None);
        assert_eq!(wide.intersection(&ts("::", "::1")), None);
        assert_eq!(
            narrow.intersection(&TrafficSelector { protocol: 17, ..wide }),
            None
        );
    }

    #[test]
    fn display_prefers_prefixes() {
        assert_eq!(ts("10.1.0.0", "10.1.255.255").to_string(), "10.1.0.0/16");
        assert_eq!(ts("0.0.0.0", "255.255.255.255").to_string(), "0.0.0.0/0");
        assert_eq!(ts("10.1.0.1", "10.1.0.1").to_string(), "10.1.0.1/32");
        assert_eq!(ts("10.1.0.1", "10.1.0.4").to_string(), "10.1.0.1-10.1.0.4");
        assert_eq!(
            ts("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").to_string(),
            "::/0"
        );
    }
}
