//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): error messages received, and in [`reply`] sent.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |     type      |     code      |           checksum            |
//! +---------------+---------------+-------------------------------+
//! |     v4: unused, quote length, MTU;  v6: MTU, or length        |
//! +---------------------------------------------------------------+
//! |  the packet that caused the error, as much of it as there is  |
//! +---------------------------------------------------------------+
//! |  extensions (RFC 4884), if the quote length says where        |
//! +---------------------------------------------------------------+
//! ```

pub mod extension;
pub mod reply;

use core::net::Ipv6Addr;

use crate::checksum::Sum;
use crate::{Cursor, IpProtocol, SliceCursor};

/// The header of every error message.
pub const HEADER_BYTES: usize = 8;

/// ICMPv4 type numbers.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Destination unreachable, code: net.
    pub const CODE_NET: u8 = 0;
    /// Destination unreachable, code: host.
    pub const CODE_HOST: u8 = 1;
    /// Destination unreachable, code: port.
    pub const CODE_PORT: u8 = 3;
    /// Destination unreachable, code: fragmentation needed and DF set.
    pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
    /// Destination unreachable, code: communication administratively prohibited (RFC 1812).
    pub const CODE_ADMIN_PROHIBITED: u8 = 13;
    /// Source quench, obsolete.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 type numbers.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Destination unreachable, code: no route.
    pub const CODE_NO_ROUTE: u8 = 0;
    /// Destination unreachable, code: administratively prohibited.
    pub const CODE_ADMIN_PROHIBITED: u8 = 1;
    /// Destination unreachable, code: address.
    pub const CODE_ADDRESS: u8 = 3;
    /// Destination unreachable, code: port.
    pub const CODE_PORT: u8 = 4;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// The greatest type of an error message (RFC 4443 section 2.1).
    pub const LAST_ERROR: u8 = 127;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
}

/// Whether an ICMPv4 type is an error message (RFC 1122 section 3.2.2).
#[inline]
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(
        kind,
        v4::UNREACHABLE | v4::SOURCE_QUENCH | v4::REDIRECT | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM
    )
}

/// Whether an ICMPv6 type is an error message (RFC 4443 section 2.1).
#[inline]
pub const fn is_error_v6(kind: u8) -> bool {
    kind <= v6::LAST_ERROR
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The message ends inside its header.
    Truncated,
    /// The checksum does not match.
    BadChecksum,
    /// Not an error message.
    NotAnError,
}

/// A view of the header that every message begins with.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(&'p [u8; HEADER_BYTES]);

impl<'p> Header<'p> {
    /// Takes the header; the cursor then stands at the quoted packet or the echoed data.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        cursor.take::<HEADER_BYTES>().map(Self).ok_or(Error::Truncated)
    }

    /// The type.
    #[inline]
    pub const fn kind(&self) -> u8 {
        self.0[0]
    }

    /// The code.
    #[inline]
    pub const fn code(&self) -> u8 {
        self.0[1]
    }

    /// The second word of the header.
    #[inline]
    pub const fn word(&self) -> [u8; 4] {
        [self.0[4], self.0[5], self.0[6], self.0[7]]
    }
}

/// An error message that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorMessage<'p> {
    /// The type, of the version that it was parsed as.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The next hop's MTU, in fragmentation needed (RFC 1191 section 4: 0 from a router that does not
    /// know better) and packet too big.
    pub mtu_bytes: Option<u32>,
    /// The packet that caused the error, possibly cut short; without extensions.
    pub quoted: &'p [u8],
    /// The extension structure that follows it (RFC 4884), if there is one.
    pub extension: Option<&'p [u8]>,
}

impl<'p> ErrorMessage<'p> {
    /// Parses an ICMPv4 message: the payload of an IPv4 packet.
    #[inline]
    pub fn parse_v4(message: &'p [u8]) -> Result<Self, Error> {
        let mut cursor = SliceCursor::new(message);
        let header = Header::parse(&mut cursor)?;
        if !Sum::new().bytes(message).is_valid() {
            return Err(Error::BadChecksum);
        }
        let (kind, code, [_, length, mtu_high, mtu_low]) = (header.kind(), header.code(), header.word());
        if !is_error_v4(kind) {
            return Err(Error::NotAnError);
        }
        // RFC 4884 section 4.1: in 32-bit words, in these three types only.
        let quote_bytes = match kind {
            v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM => usize::from(length) * 4,
            _ => 0,
        };
        let mtu_bytes = (kind == v4::UNREACHABLE && code == v4::CODE_FRAGMENTATION_NEEDED)
            .then_some(u32::from(u16::from_be_bytes([mtu_high, mtu_low])));
        let (quoted, extension) = split_quote(cursor.rest(), quote_bytes);
        Ok(Self {
            kind,
            code,
            mtu_bytes,
            quoted,
            extension,
        })
    }

    /// Parses an ICMPv6 message: what follows the extension headers of a packet with these addresses.
    #[inline]
    pub fn parse_v6(message: &'p [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<Self, Error> {
        let mut cursor = SliceCursor::new(message);
        let header = Header::parse(&mut cursor)?;
        let pseudo = Sum::pseudo_header_v6(source, destination, IpProtocol::ICMPV6, message.len() as u32);
        if !pseudo.bytes(message).is_valid() {
            return Err(Error::BadChecksum);
        }
        let (kind, code, word) = (header.kind(), header.code(), header.word());
        if !is_error_v6(kind) {
            return Err(Error::NotAnError);
        }
        // RFC 4884 section 4.4: in 64-bit words, in these two types only.
        let quote_bytes = match kind {
            v6::UNREACHABLE | v6::TIME_EXCEEDED => usize::from(word[0]) * 8,
            _ => 0,
        };
        let mtu_bytes = (kind == v6::PACKET_TOO_BIG).then_some(u32::from_be_bytes(word));
        let (quoted, extension) = split_quote(cursor.rest(), quote_bytes);
        Ok(Self {
            kind,
            code,
            mtu_bytes,
            quoted,
            extension,
        })
    }
}

/// A length of 0, or one beyond the end, says that there are no extensions.
#[inline]
fn split_quote(rest: &[u8], quote_bytes: usize) -> (&[u8], Option<&[u8]>) {
    match rest.split_at_checked(quote_bytes) {
        Some((quoted, extension)) if quote_bytes != 0 && !extension.is_empty() => (quoted, Some(extension)),
        _ => (rest, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn message_v4(kind: u8, code: u8, word: [u8; 4], quoted: &[u8]) -> Vec<u8> {
        let mut bytes = [&[kind, code, 0, 0][..], &word, quoted].concat();
        let checksum = Sum::new().bytes(&bytes).checksum();
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    #[test]
    fn fragmentation_needed_tells_its_mtu() {
        let bytes = message_v4(3, 4, [0, 0, 0x05, 0x78], &[0x45, 0, 0, 20]);
        let message = ErrorMessage::parse_v4(&bytes).unwrap();
        assert_eq!(
            (message.kind, message.code, message.mtu_bytes),
            (3, 4, Some(1400))
        );
        assert_eq!((message.quoted, message.extension), (&[0x45, 0, 0, 20][..], None));
    }

    #[test]
    fn packet_too_big_tells_its_mtu() {
        let (source, destination) = (Ipv6Addr::LOCALHOST, Ipv6Addr::from_bits(2));
        let mut bytes = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &[0x60; 40]].concat();
        let pseudo = Sum::pseudo_header_v6(source, destination, IpProtocol::ICMPV6, bytes.len() as u32);
        let checksum = pseudo.bytes(&bytes).checksum();
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        let message = ErrorMessage::parse_v6(&bytes, source, destination).unwrap();
        assert_eq!(
            (message.kind, message.mtu_bytes, message.quoted.len()),
            (2, Some(1280), 40)
        );
        assert_eq!(
            ErrorMessage::parse_v6(&bytes, source, Ipv6Addr::from_bits(3)),
            Err(Error::BadChecksum),
            "the addresses are covered"
        );
    }

    #[test]
    fn extensions_are_split_off() {
        let bytes = message_v4(11, 0, [0, 32, 0, 0], &[0x45; 140]);
        let message = ErrorMessage::parse_v4(&bytes).unwrap();
        assert_eq!(
            (message.quoted.len(), message.extension.map(<[u8]>::len)),
            (128, Some(12))
        );
        let lying = message_v4(11, 0, [0, 255, 0, 0], &[0x45; 140]);
        assert_eq!(ErrorMessage::parse_v4(&lying).unwrap().quoted.len(), 140);
    }

    #[test]
    fn every_error() {
        let bytes = message_v4(11, 0, [0; 4], &[]);
        for length in 0..8 {
            assert_eq!(ErrorMessage::parse_v4(&bytes[..length]), Err(Error::Truncated));
        }
        let mut wrong = bytes.clone();
        wrong[3] ^= 1;
        assert_eq!(ErrorMessage::parse_v4(&wrong), Err(Error::BadChecksum));
        assert_eq!(
            ErrorMessage::parse_v4(&message_v4(8, 0, [0; 4], &[])),
            Err(Error::NotAnError)
        );
    }

    proptest! {
        #[test]
        fn parse_never_panics(kind in 0..16u8, word in any::<[u8; 4]>(), quoted in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = message_v4(kind, 0, word, &quoted);
            if let Ok(message) = ErrorMessage::parse_v4(&bytes) {
                let extension_bytes = message.extension.map_or(0, <[u8]>::len);
                prop_assert_eq!(message.quoted.len() + extension_bytes, quoted.len());
            }
            let _ = ErrorMessage::parse_v6(&quoted, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        }
    }
}
