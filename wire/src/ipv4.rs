//! IPv4 (RFC 791).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+-------------------------------+
//! |   4   |  IHL  | traffic class |          total length         |
//! +-------+-------+---------------+-----+-------------------------+
//! |        identification         |0|D|M|     fragment offset     |
//! +---------------+---------------+-------------------------------+
//! |      TTL      |   protocol    |        header checksum        |
//! +---------------+---------------+-------------------------------+
//! |                            source                             |
//! +---------------------------------------------------------------+
//! |                          destination                          |
//! +---------------------------------------------------------------+
//! |                 options, 0 to 40 bytes                        |
//! +---------------------------------------------------------------+
//! ```

use core::net::Ipv4Addr;

use crate::checksum::{self, Sum};
use crate::{Cursor, Fragment, IpProtocol, TrafficClass};

/// The header without options.
pub const HEADER_BYTES: usize = 20;
/// The longest header: fifteen 32-bit words.
pub const MAX_HEADER_BYTES: usize = 60;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends inside the header or its options.
    Truncated,
    /// The version is not 4.
    BadVersion,
    /// The header length is less than 20 bytes.
    BadHeaderLength,
    /// The total length is less than the header's, or more than was received.
    BadTotalLength,
    /// The header checksum does not match.
    BadChecksum,
}

/// The TTL does not allow another hop (RFC 1812 section 5.3.1): answer with time exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlExpired;

/// A view of the header's fixed part.
///
/// Checked when taken: the version is 4, the header length is 20 to 60 bytes and lies within the
/// packet, the total length is no less than the header's. Not checked: that the packet is as long
/// as the total length says, and the checksum; [`Packet`] does both.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(&'p [u8; HEADER_BYTES]);

impl<'p> Header<'p> {
    /// Takes the header and moves past its options; the cursor then stands at the payload.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let header = Self(cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?);
        if header.0[0] >> 4 != 4 {
            return Err(Error::BadVersion);
        }
        let options_bytes = header
            .header_bytes()
            .checked_sub(HEADER_BYTES)
            .ok_or(Error::BadHeaderLength)?;
        if options_bytes != 0 {
            cursor.skip(options_bytes).ok_or(Error::Truncated)?;
        }
        if usize::from(header.total_bytes()) < header.header_bytes() {
            return Err(Error::BadTotalLength);
        }
        Ok(header)
    }

    /// The fixed part as it stands.
    #[inline]
    pub const fn bytes(&self) -> &'p [u8; HEADER_BYTES] {
        self.0
    }

    /// Header and options together, 20 to 60.
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        (self.0[0] & 0x0f) as usize * 4
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(&self) -> TrafficClass {
        TrafficClass(self.0[1])
    }

    /// Header and payload together.
    #[inline]
    pub const fn total_bytes(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// What the fragments of one datagram have in common.
    #[inline]
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    #[inline]
    const fn flags_and_offset(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Whether routers must not fragment this packet.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    /// Whether another fragment follows.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.flags_and_offset() & MORE_FRAGMENTS != 0
    }

    /// Where this fragment's payload begins in the datagram's.
    #[inline]
    pub const fn fragment_offset_bytes(&self) -> u16 {
        (self.flags_and_offset() & OFFSET_MASK) << 3
    }

    /// Whether this is a fragment, the first one included.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.flags_and_offset() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// This fragment's place, if it is one.
    #[inline]
    pub const fn fragment(&self) -> Option<Fragment> {
        if !self.is_fragment() {
            return None;
        }
        Some(Fragment {
            identification: self.identification() as u32,
            offset_bytes: self.fragment_offset_bytes(),
            more: self.more_fragments(),
        })
    }

    /// Hops left.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// What the payload is.
    #[inline]
    pub const fn protocol(&self) -> IpProtocol {
        IpProtocol(self.0[9])
    }

    /// The header checksum as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[10], self.0[11]])
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// The header as plain values. Options and the reserved flag are not among them.
    #[inline]
    pub const fn repr(&self) -> Repr {
        Repr {
            traffic_class: self.traffic_class(),
            total_bytes: self.total_bytes(),
            identification: self.identification(),
            dont_fragment: self.dont_fragment(),
            more_fragments: self.more_fragments(),
            fragment_offset_bytes: self.fragment_offset_bytes(),
            ttl: self.ttl(),
            protocol: self.protocol(),
            source: self.source(),
            destination: self.destination(),
        }
    }
}

/// A header, its options and its payload, cut to the total length: what follows it in the slice
/// (Ethernet padding, TFC padding) is left out.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'p> {
    /// The fixed part.
    pub header: Header<'p>,
    /// The options' bytes, a multiple of 4.
    pub options: &'p [u8],
    /// What the header carries.
    pub payload: &'p [u8],
    whole: &'p [u8],
}

impl<'p> Packet<'p> {
    /// Checks every length against `bytes`, but not the checksum.
    #[inline]
    pub fn parse(bytes: &'p [u8]) -> Result<Self, Error> {
        let header = Header::parse(&mut crate::SliceCursor::new(bytes))?;
        let whole = bytes
            .get(..usize::from(header.total_bytes()))
            .ok_or(Error::BadTotalLength)?;
        let (head, payload) = whole
            .split_at_checked(header.header_bytes())
            .ok_or(Error::BadTotalLength)?;
        let options = head.get(HEADER_BYTES..).ok_or(Error::BadHeaderLength)?;
        Ok(Self {
            header,
            options,
            payload,
            whole,
        })
    }

    /// Checks the header checksum (RFC 1812 section 5.2.2).
    #[inline]
    pub fn verify_checksum(&self) -> Result<(), Error> {
        let head = self
            .whole
            .get(..self.header.header_bytes())
            .ok_or(Error::BadHeaderLength)?;
        if Sum::new().bytes(head).is_valid() {
            Ok(())
        } else {
            Err(Error::BadChecksum)
        }
    }

    /// Header, options and payload.
    #[inline]
    pub const fn bytes(&self) -> &'p [u8] {
        self.whole
    }
}

static NO_UNICAST: [bool; 256] = {
    let mut octets = [false; 256];
    let mut octet = 0;
    while octet < octets.len() {
        octets[octet] = matches!(octet, 0 | 127 | 224..);
        octet += 1;
    }
    octets
};

/// Whether addresses with this first octet are of no host that packets travel to or from: this network, loopback,
/// multicast, reserved (RFC 1812 sections 4.2.2.11 and 5.3.7).
#[inline(always)]
#[must_use]
pub fn is_no_unicast(first_octet: u8) -> bool {
    NO_UNICAST[first_octet as usize]
}

/// Whether the checksum of a header without options is right (RFC 1812 section 5.2.2).
#[inline(always)]
#[must_use]
pub fn is_checksum_valid(header: &[u8; HEADER_BYTES]) -> bool {
    // Whether a sum is a multiple of 2^16 - 1 does not depend on the order of the bytes (RFC 1071 section 2).
    let (words, _) = header.as_chunks::<4>();
    let sum = words
        .iter()
        .fold(0, |sum, word| sum + u64::from(u32::from_ne_bytes(*word)));
    sum != 0 && sum.is_multiple_of(0xffff)
}

/// A header to emit, without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub traffic_class: TrafficClass,
    /// Header and payload together.
    pub total_bytes: u16,
    /// What the fragments of one datagram have in common.
    pub identification: u16,
    /// Whether routers must not fragment.
    pub dont_fragment: bool,
    /// Whether another fragment follows.
    pub more_fragments: bool,
    /// Where the payload begins in the datagram's; a multiple of 8, lower bits are lost.
    pub fragment_offset_bytes: u16,
    /// Hops allowed.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: IpProtocol,
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
}

impl Repr {
    /// Writes the header with its checksum.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_BYTES]) {
        let mut flags_and_offset = self.fragment_offset_bytes >> 3;
        if self.dont_fragment {
            flags_and_offset |= DONT_FRAGMENT;
        }
        if self.more_fragments {
            flags_and_offset |= MORE_FRAGMENTS;
        }
        out[0] = 0x45;
        out[1] = self.traffic_class.0;
        out[2..4].copy_from_slice(&self.total_bytes.to_be_bytes());
        out[4..6].copy_from_slice(&self.identification.to_be_bytes());
        out[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        out[8] = self.ttl;
        out[9] = self.protocol.0;
        out[10..12].fill(0);
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
        let checksum = Sum::new().bytes(out).checksum();
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Takes one hop from the TTL and mends the checksum (RFC 1624); returns the TTL that is left.
///
/// A TTL of 0 or 1 is left alone and refused.
#[inline]
pub fn decrement_ttl(header: &mut [u8; HEADER_BYTES]) -> Result<u8, TtlExpired> {
    let ttl = header[8];
    if ttl <= 1 {
        return Err(TtlExpired);
    }
    // RFC 1624 equation 3, where the complement of the old word and the new one are always 0xfeff together: one more in
    // the high byte, in whichever order the bytes are read (RFC 1071 section 2), with the carry, never 0xffff.
    let one = u32::from(u16::from_ne_bytes([1, 0]));
    let sum = u32::from(u16::from_ne_bytes([header[10], header[11]])) + one;
    let checksum = (sum + u32::from(sum >= 0xffff)) as u16;
    header[8] = ttl - 1;
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    Ok(ttl - 1)
}

/// Sets the TTL and mends the checksum.
#[inline]
pub fn set_ttl(header: &mut [u8; HEADER_BYTES], ttl: u8) {
    rewrite_word(header, 8, |[_, protocol]| [ttl, protocol]);
}

/// Sets DSCP and ECN and mends the checksum.
#[inline]
pub fn set_traffic_class(header: &mut [u8; HEADER_BYTES], class: TrafficClass) {
    rewrite_word(header, 0, |[version_and_length, _]| [version_and_length, class.0]);
}

/// Sets the total length and mends the checksum.
#[inline]
pub fn set_total_bytes(header: &mut [u8; HEADER_BYTES], total_bytes: u16) {
    rewrite_word(header, 2, |_| total_bytes.to_be_bytes());
}

/// Makes a header that [`Repr::emit`] wrote claim the options that follow it, and computes its checksum anew.
///
/// The options are at most 40 bytes, a multiple of 4; the total length already counts them.
#[inline]
pub fn set_options(header: &mut [u8; HEADER_BYTES], options: &[u8]) {
    debug_assert!(options.len() <= MAX_HEADER_BYTES - HEADER_BYTES && options.len().is_multiple_of(4));
    header[0] = 0x45 + (options.len() / 4) as u8;
    header[10..12].fill(0);
    let checksum = Sum::new().bytes(header).bytes(options).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Sets the protocol and mends the checksum.
#[inline]
pub fn set_protocol(header: &mut [u8; HEADER_BYTES], protocol: IpProtocol) {
    rewrite_word(header, 8, |[ttl, _]| [ttl, protocol.0]);
}

/// Sets the more-fragments flag and the offset, keeps the other flags, and mends the checksum.
#[inline]
pub fn set_fragment(header: &mut [u8; HEADER_BYTES], offset_bytes: u16, more: bool) {
    rewrite_word(header, 6, |old| {
        let flags = u16::from_be_bytes(old) & !(MORE_FRAGMENTS | OFFSET_MASK);
        let more = if more { MORE_FRAGMENTS } else { 0 };
        (flags | more | (offset_bytes >> 3)).to_be_bytes()
    });
}

#[inline(always)]
fn rewrite_word(header: &mut [u8; HEADER_BYTES], at: usize, new: impl FnOnce([u8; 2]) -> [u8; 2]) {
    let old = [header[at], header[at + 1]];
    let new = new(old);
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    let checksum = checksum::updated(checksum, u16::from_be_bytes(old), u16::from_be_bytes(new));
    header[at..at + 2].copy_from_slice(&new);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
