//! UDP (RFC 768) and what UDP encapsulation of ESP puts into it (RFC 3948).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          source port          |       destination port        |
//! +-------------------------------+-------------------------------+
//! |            length             |           checksum            |
//! +-------------------------------+-------------------------------+
//! ```

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::{Cursor, IpProtocol};

/// The header.
pub const HEADER_BYTES: usize = 8;
/// IKE's own port.
pub const IKE_PORT: u16 = 500;
/// The port that IKE and encapsulated ESP share (RFC 3948 section 2).
pub const NAT_TRAVERSAL_PORT: u16 = 4500;
/// MPLS in UDP (RFC 7510).
pub const MPLS_PORT: u16 = 6635;
/// What precedes an IKE message on port 4500: an SPI that no SA may have (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The whole payload of a NAT keepalive (RFC 3948 section 2.3).
pub const NAT_KEEPALIVE: u8 = 0xff;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends inside the header.
    Truncated,
    /// The length is less than the header's, or more than was received.
    BadLength,
    /// The checksum does not match, or is absent where it must be there.
    BadChecksum,
}

/// A view of the header. Checked when taken: the length is at least 8.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(&'p [u8; HEADER_BYTES]);

impl<'p> Header<'p> {
    /// Takes the header; the cursor then stands at the payload.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let header = Self(cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?);
        if usize::from(header.length_bytes()) < HEADER_BYTES {
            return Err(Error::BadLength);
        }
        Ok(header)
    }

    /// Where it came from.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Where it goes.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Header and payload together.
    #[inline]
    pub const fn length_bytes(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The checksum; 0 means that there is none.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// The header as plain values.
    #[inline]
    pub const fn repr(&self) -> Repr {
        Repr {
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            length_bytes: self.length_bytes(),
            checksum: self.checksum(),
        }
    }
}

/// A header and its payload, cut to the length.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'p> {
    /// The header.
    pub header: Header<'p>,
    /// What it carries.
    pub payload: &'p [u8],
    whole: &'p [u8],
}

impl<'p> Packet<'p> {
    /// Checks the length against `bytes`, but not the checksum.
    #[inline]
    pub fn parse(bytes: &'p [u8]) -> Result<Self, Error> {
        let header = Header::parse(&mut crate::SliceCursor::new(bytes))?;
        let whole = bytes
            .get(..usize::from(header.length_bytes()))
            .ok_or(Error::BadLength)?;
        let payload = whole.get(HEADER_BYTES..).ok_or(Error::BadLength)?;
        Ok(Self {
            header,
            payload,
            whole,
        })
    }

    /// Checks the checksum over IPv4, where zero means that there is none (RFC 768).
    #[inline]
    pub fn verify_checksum_v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), Error> {
        let pseudo = Sum::pseudo_header_v4(source, destination, IpProtocol::UDP, self.header.length_bytes());
        if self.header.checksum() == 0 || pseudo.bytes(self.whole).is_valid() {
            Ok(())
        } else {
            Err(Error::BadChecksum)
        }
    }

    /// Checks the checksum over IPv6, where zero is refused (RFC 8200 section 8.1). A caller that
    /// accepts zero for a tunnel (RFC 6935) asks [`Header::checksum`] first.
    #[inline]
    pub fn verify_checksum_v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Result<(), Error> {
        let length_bytes = u32::from(self.header.length_bytes());
        let pseudo = Sum::pseudo_header_v6(source, destination, IpProtocol::UDP, length_bytes);
        if self.header.checksum() != 0 && pseudo.bytes(self.whole).is_valid() {
            Ok(())
        } else {
            Err(Error::BadChecksum)
        }
    }
}

/// What a datagram on port 4500 holds (RFC 3948 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatTraversal<'p> {
    /// A lone 0xff: swallowed silently.
    Keepalive,
    /// An IKE message, without its marker.
    Ike(&'p [u8]),
    /// An ESP packet from its SPI on.
    Esp(&'p [u8]),
    /// Shorter than a marker or an SPI, and no keepalive.
    Runt,
}

impl<'p> NatTraversal<'p> {
    /// Tells by the first bytes of a UDP payload.
    #[inline]
    pub fn parse(payload: &'p [u8]) -> Self {
        match payload.split_first_chunk::<4>() {
            Some((&NON_ESP_MARKER, message)) => Self::Ike(message),
            Some(_) => Self::Esp(payload),
            None if payload == [NAT_KEEPALIVE] => Self::Keepalive,
            None => Self::Runt,
        }
    }
}

/// A header to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Where it comes from.
    pub source_port: u16,
    /// Where it goes.
    pub destination_port: u16,
    /// Header and payload together.
    pub length_bytes: u16,
    /// 0 for none; otherwise from [`checksum_v4`] or [`checksum_v6`].
    pub checksum: u16,
}

impl Repr {
    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_BYTES]) {
        out[..2].copy_from_slice(&self.source_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        out[4..6].copy_from_slice(&self.length_bytes.to_be_bytes());
        out[6..].copy_from_slice(&self.checksum.to_be_bytes());
    }
}

/// The checksum of a header (its checksum field zero) and payload over IPv4; never 0 (RFC 768).
#[inline]
pub fn checksum_v4(source: Ipv4Addr, destination: Ipv4Addr, udp: &[u8]) -> u16 {
    let pseudo = Sum::pseudo_header_v4(source, destination, IpProtocol::UDP, udp.len() as u16);
    never_zero(pseudo.bytes(udp).checksum())
}

/// The checksum of a header (its checksum field zero) and payload over IPv6; never 0 (RFC 8200 section 8.1).
#[inline]
pub fn checksum_v6(source: Ipv6Addr, destination: Ipv6Addr, udp: &[u8]) -> u16 {
    let pseudo = Sum::pseudo_header_v6(source, destination, IpProtocol::UDP, udp.len() as u32);
    never_zero(pseudo.bytes(udp).checksum())
}

/// Zero says "none", so a checksum that comes out as zero is sent as its equal, 0xffff.
#[inline]
const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES: [u8; 12] = [0x11, 0x94, 0x11, 0x94, 0x00, 0x0c, 0x12, 0x34, 1, 2, 3, 4];
    const REPR: Repr = Repr {
        source_port: 4500,
        destination_port: 4500,
        length_bytes: 12,
        checksum: 0x1234,
    };

    #[test]
    fn both_ways() {
        assert_eq!(Packet::parse(&BYTES).unwrap().header.repr(), REPR);
        let mut out = [0; HEADER_BYTES];
        REPR.emit(&mut out);
        assert_eq!(out, BYTES[..8]);
    }

    #[test]
    fn every_error() {
        let with_length = |length| {
            let mut bytes = BYTES;
            bytes[5] = length;
            Packet::parse(&bytes).map(|p| p.payload.len())
        };
        assert_eq!(with_length(7), Err(Error::BadLength));
        assert_eq!(with_length(8), Ok(0));
        assert_eq!(with_length(12), Ok(4));
        assert_eq!(with_length(13), Err(Error::BadLength));
        for length in 0..8 {
            assert_eq!(Packet::parse(&BYTES[..length]).unwrap_err(), Error::Truncated);
        }
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(
            Packet::parse(&BYTES).unwrap().verify_checksum_v4(a, b),
            Err(Error::BadChecksum)
        );
        let mut none = BYTES;
        none[6..8].fill(0);
        let none = Packet::parse(&none).unwrap();
        assert_eq!(none.verify_checksum_v4(a, b), Ok(()));
        let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        assert_eq!(none.verify_checksum_v6(a, b), Err(Error::BadChecksum));
    }

    #[test]
    fn port_4500_comes_apart() {
        assert_eq!(NatTraversal::parse(&[0xff]), NatTraversal::Keepalive);
        assert_eq!(NatTraversal::parse(&[0, 0, 0, 0, 7]), NatTraversal::Ike(&[7]));
        assert_eq!(
            NatTraversal::parse(&[0, 0, 1, 0, 7]),
            NatTraversal::Esp(&[0, 0, 1, 0, 7])
        );
        assert_eq!(NatTraversal::parse(&[0, 0, 0]), NatTraversal::Runt);
        assert_eq!(NatTraversal::parse(&[0xff, 0xff]), NatTraversal::Runt);
        assert_eq!(NatTraversal::parse(&[]), NatTraversal::Runt);
    }

    #[test]
    fn a_sum_that_comes_out_as_zero_is_sent_as_ones() {
        let (a, b) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        // Pseudo header 17 + 10, header 10, payload makes the rest up to 0xffff.
        let mut bytes = [0, 0, 0, 0, 0, 10, 0, 0, 0, 0];
        bytes[8..].copy_from_slice(&(0xffff - 37u16).to_be_bytes());
        assert_eq!(checksum_v4(a, b, &bytes), 0xffff);
    }

    proptest! {
        #[test]
        fn computed_checksums_verify(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            s in any::<[u8; 16]>(), d in any::<[u8; 16]>(), ports in any::<(u16, u16)>(), v6 in any::<bool>(),
        ) {
            let mut repr = Repr {
                source_port: ports.0, destination_port: ports.1,
                length_bytes: (8 + payload.len()) as u16, checksum: 0,
            };
            let mut bytes = std::vec![0; 8];
            bytes.extend(&payload);
            repr.emit(bytes.first_chunk_mut().unwrap());
            let (s4, d4): (Ipv4Addr, Ipv4Addr) =
                ((*s.first_chunk::<4>().unwrap()).into(), (*d.first_chunk::<4>().unwrap()).into());
            repr.checksum =
                if v6 { checksum_v6(s.into(), d.into(), &bytes) } else { checksum_v4(s4, d4, &bytes) };
            repr.emit(bytes.first_chunk_mut().unwrap());
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!(packet.header.repr(), repr);
            let verdict = if v6 {
                packet.verify_checksum_v6(s.into(), d.into())
            } else {
                packet.verify_checksum_v4(s4, d4)
            };
            prop_assert_eq!(verdict, Ok(()));
        }
    }
}
