//! Ethernet II with up to two VLAN tags (IEEE 802.1Q customer tag, 802.1ad service tag).
//!
//! ```text
//! +-------------------+-------------------+ - - - - - - - - - - - +-------------+
//! | destination (6)   | source (6)        | 0 to 2 tags of 4      | EtherType   |
//! +-------------------+-------------------+ - - - - - - - - - - - +-------------+
//!   a tag:  | TPID 0x8100 or 0x88a8 (16) | PCP (3) | DEI (1) | VID (12) |
//! ```

use core::fmt;

use crate::Cursor;

/// The header without tags.
pub const HEADER_BYTES: usize = 14;
/// One tag.
pub const TAG_BYTES: usize = 4;
/// The most tags that are looked through.
pub const MAX_TAGS: usize = 2;

/// A hardware address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the frame is for a group; broadcast is one.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddr({self})")
    }
}

/// What follows the header; unknown values survive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// Transparent Ethernet bridging, in GRE.
    pub const ETHERNET: Self = Self(0x6558);
    /// An 802.1Q customer tag.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// MPLS (RFC 3032 section 5, unicast).
    pub const MPLS: Self = Self(0x8847);
    /// MPLS with an upstream-assigned label (RFC 5332).
    pub const MPLS_UPSTREAM: Self = Self(0x8848);
    /// An 802.1ad service tag.
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// Whether a tag follows.
    #[inline]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN)
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtherType(0x{:04x})", self.0)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Which kind of tag: [`EtherType::VLAN`] or [`EtherType::SERVICE_VLAN`].
    pub tpid: EtherType,
    /// Priority, drop eligibility and VLAN identifier, as on the wire.
    pub tci: u16,
}

impl Tag {
    /// The VLAN identifier, 0 to 4095.
    #[inline]
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }

    /// The priority code point, 0 to 7.
    #[inline]
    pub const fn pcp(self) -> u8 {
        (self.tci >> 13) as u8
    }
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The frame ends inside the header or a tag.
    Truncated,
}

/// A parsed header: the addresses in place, tags and final EtherType taken out.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p> {
    bytes: &'p [u8; HEADER_BYTES],
    /// The tag next to the addresses.
    pub outer_tag: Option<Tag>,
    /// The tag within the outer one.
    pub inner_tag: Option<Tag>,
    /// What follows the last tag. A third tag is not looked through: its TPID stands here.
    pub ether_type: EtherType,
}

impl<'p> Header<'p> {
    /// Takes the header and its tags; the cursor then stands at the payload.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let bytes = cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?;
        let mut header = Self {
            bytes,
            outer_tag: None,
            inner_tag: None,
            ether_type: EtherType(u16::from_be_bytes([bytes[12], bytes[13]])),
        };
        if header.ether_type.is_tag() {
            header.outer_tag = Some(header.take_tag(cursor)?);
            if header.ether_type.is_tag() {
                header.inner_tag = Some(header.take_tag(cursor)?);
            }
        }
        Ok(header)
    }

    #[inline(always)]
    fn take_tag<C: Cursor<'p>>(&mut self, cursor: &mut C) -> Result<Tag, Error> {
        let bytes = cursor.take::<TAG_BYTES>().ok_or(Error::Truncated)?;
        let tag = Tag {
            tpid: self.ether_type,
            tci: u16::from_be_bytes([bytes[0], bytes[1]]),
        };
        self.ether_type = EtherType(u16::from_be_bytes([bytes[2], bytes[3]]));
        Ok(tag)
    }

    /// Who the frame is for.
    #[inline]
    pub const fn destination(&self) -> MacAddr {
        let b = self.bytes;
        MacAddr([b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// Who sent the frame.
    #[inline]
    pub const fn source(&self) -> MacAddr {
        let b = self.bytes;
        MacAddr([b[6], b[7], b[8], b[9], b[10], b[11]])
    }

    /// Header and tags together.
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        HEADER_BYTES + TAG_BYTES * (self.outer_tag.is_some() as usize + self.inner_tag.is_some() as usize)
    }

    /// The header as plain values.
    #[inline]
    pub const fn repr(&self) -> Repr {
        Repr {
            destination: self.destination(),
            source: self.source(),
            outer_tag: self.outer_tag,
            inner_tag: self.inner_tag,
            ether_type: self.ether_type,
        }
    }
}

/// A header to emit. An inner tag without an outer one is emitted as the only tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Who the frame is for.
    pub destination: MacAddr,
    /// Who sends it.
    pub source: MacAddr,
    /// The tag next to the addresses.
    pub outer_tag: Option<Tag>,
    /// The tag within the outer one.
    pub inner_tag: Option<Tag>,
    /// What follows.
    pub ether_type: EtherType,
}

impl Repr {
    /// The longest header, with two tags.
    pub const MAX_BYTES: usize = HEADER_BYTES + MAX_TAGS * TAG_BYTES;

    /// Writes the header at the front of `out` and returns its length in bytes.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::MAX_BYTES]) -> usize {
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        let mut at = 12;
        for tag in [self.outer_tag, self.inner_tag].into_iter().flatten() {
            out[at..at + 2].copy_from_slice(&tag.tpid.0.to_be_bytes());
            out[at + 2..at + 4].copy_from_slice(&tag.tci.to_be_bytes());
            at += TAG_BYTES;
        }
        out[at..at + 2].copy_from_slice(&self.ether_type.0.to_be_bytes());
        at + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceCursor;
    use std::format;

    const PLAIN: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    const DOUBLE: [u8; 22] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 0x88, 0xa8, 0xe0, 0x64, 0x81, 0x00, 0x0f, 0xff,
        0x86, 0xdd,
    ];

    fn parse(bytes: &[u8]) -> Result<Repr, Error> {
        Header::parse(&mut SliceCursor::new(bytes)).map(|header| header.repr())
    }

    #[test]
    fn both_ways() {
        for bytes in [&PLAIN[..], &DOUBLE[..], &[&DOUBLE[..16], &[0x08, 0x06]].concat()] {
            let header = Header::parse(&mut SliceCursor::new(bytes)).unwrap();
            assert_eq!(header.header_bytes(), bytes.len());
            let mut out = [0; Repr::MAX_BYTES];
            let length = header.repr().emit(&mut out);
            assert_eq!(&out[..length], bytes);
        }
    }

    #[test]
    fn tags_come_out() {
        let repr = parse(&DOUBLE).unwrap();
        let outer = repr.outer_tag.unwrap();
        assert_eq!(
            (outer.tpid, outer.vid(), outer.pcp()),
            (EtherType::SERVICE_VLAN, 100, 7)
        );
        assert_eq!(repr.inner_tag.unwrap().vid(), 4095);
        assert_eq!(repr.ether_type, EtherType::IPV6);
        assert!(repr.destination.is_multicast());
        assert_eq!(format!("{}", repr.source), "02:00:00:00:00:02");
    }

    #[test]
    fn a_third_tag_is_left_standing() {
        let mut bytes = DOUBLE;
        bytes[20..].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(parse(&bytes).unwrap().ether_type, EtherType::VLAN);
    }

    #[test]
    fn truncated_at_every_byte() {
        for length in 0..PLAIN.len() {
            assert_eq!(parse(&PLAIN[..length]), Err(Error::Truncated));
        }
        for length in 0..DOUBLE.len() {
            assert_eq!(parse(&DOUBLE[..length]), Err(Error::Truncated));
        }
    }
}
