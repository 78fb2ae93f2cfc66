//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-----------------+-----+-------------------------------+
//! |C|0|K|S|    reserved     | ver |         protocol type         |
//! +-+-+-+-+-----------------+-----+-------------------------------+
//! |      checksum (if C)          |       reserved (if C)         |
//! +-------------------------------+-------------------------------+
//! |                          key (if K)                           |
//! +---------------------------------------------------------------+
//! |                    sequence number (if S)                     |
//! +---------------------------------------------------------------+
//! ```

use crate::checksum::Sum;
use crate::{Cursor, EtherType};

/// The header without its optional words.
pub const HEADER_BYTES: usize = 4;
/// The header with all of them.
pub const MAX_HEADER_BYTES: usize = 16;

const CHECKSUM_PRESENT: u16 = 0x8000;
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;
const VERSION: u16 = 0x0007;
/// Bits 1, 4 and 5: RFC 1701's routing, strict source route and recursion (RFC 2784 section 2.3).
const MUST_BE_ZERO: u16 = 0x4c00;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends inside the header.
    Truncated,
    /// The version is not 0; 1 is PPTP's.
    BadVersion,
    /// A flag that RFC 2784 wants discarded is set.
    BadFlags,
    /// The checksum does not match.
    BadChecksum,
}

/// A header's values, parsed or to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What the payload is.
    pub protocol: EtherType,
    /// Whether a checksum over header and payload is carried.
    pub has_checksum: bool,
    /// Tells flows of one pair of endpoints apart.
    pub key: Option<u32>,
    /// Orders packets.
    pub sequence: Option<u32>,
}

impl Repr {
    /// Takes the header with its optional words; the cursor then stands at the payload.
    ///
    /// A checksum is passed over: [`verify_checksum`] checks it, over the whole.
    #[inline]
    pub fn parse<'p, C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let head = cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?;
        let flags = u16::from_be_bytes([head[0], head[1]]);
        if flags & VERSION != 0 {
            return Err(Error::BadVersion);
        }
        if flags & MUST_BE_ZERO != 0 {
            return Err(Error::BadFlags);
        }
        let mut word_if = |flag: u16| {
            if flags & flag == 0 {
                return Ok(None);
            }
            cursor
                .take::<4>()
                .map(|word| Some(u32::from_be_bytes(*word)))
                .ok_or(Error::Truncated)
        };
        Ok(Self {
            has_checksum: word_if(CHECKSUM_PRESENT)?.is_some(),
            key: word_if(KEY_PRESENT)?,
            sequence: word_if(SEQUENCE_PRESENT)?,
            protocol: EtherType(u16::from_be_bytes([head[2], head[3]])),
        })
    }

    /// The header's length with these values.
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        HEADER_BYTES
            + 4 * (self.has_checksum as usize
                + self.key.is_some() as usize
                + self.sequence.is_some() as usize)
    }

    /// Writes the header at the front of `out` and returns its length in bytes. A checksum is left
    /// zero: [`fill_checksum`] writes it once the payload stands behind.
    #[inline]
    pub fn emit(&self, out: &mut [u8; MAX_HEADER_BYTES]) -> usize {
        let mut flags = 0;
        let mut at = HEADER_BYTES;
        let words = [
            (CHECKSUM_PRESENT, self.has_checksum.then_some(0)),
            (KEY_PRESENT, self.key),
            (SEQUENCE_PRESENT, self.sequence),
        ];
        for (flag, word) in words {
            if let Some(word) = word {
                flags |= flag;
                out[at..at + 4].copy_from_slice(&word.to_be_bytes());
                at += 4;
            }
        }
        out[..2].copy_from_slice(&u16::to_be_bytes(flags));
        out[2..4].copy_from_slice(&self.protocol.0.to_be_bytes());
        at
    }
}

/// Checks the checksum of a header that has one, with its payload.
#[inline]
pub fn verify_checksum(header_and_payload: &[u8]) -> Result<(), Error> {
    if Sum::new().bytes(header_and_payload).is_valid() {
        Ok(())
    } else {
        Err(Error::BadChecksum)
    }
}

/// Writes the checksum into a header that has one, over it and its payload.
#[inline]
pub fn fill_checksum(header_and_payload: &mut [u8]) -> Result<(), Error> {
    let checksum = Sum::new().bytes(header_and_payload).checksum();
    let field = header_and_payload.get_mut(4..6).ok_or(Error::Truncated)?;
    field.copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceCursor;
    use proptest::prelude::*;

    const BYTES: [u8; 8] = [0x20, 0x00, 0x88, 0x47, 0, 0, 0x12, 0x34];
    const REPR: Repr = Repr {
        protocol: EtherType::MPLS,
        has_checksum: false,
        key: Some(0x1234),
        sequence: None,
    };

    fn parse(bytes: &[u8]) -> Result<Repr, Error> {
        Repr::parse(&mut SliceCursor::new(bytes))
    }

    #[test]
    fn both_ways() {
        assert_eq!(parse(&BYTES), Ok(REPR));
        let mut out = [0; MAX_HEADER_BYTES];
        assert_eq!(REPR.emit(&mut out), 8);
        assert_eq!(out[..8], BYTES);
    }

    #[test]
    fn every_error() {
        for length in 0..8 {
            assert_eq!(parse(&BYTES[..length]), Err(Error::Truncated));
        }
        assert_eq!(parse(&[0, 1, 8, 0]), Err(Error::BadVersion));
        for flags in [0x40, 0x08, 0x04] {
            assert_eq!(parse(&[flags, 0, 8, 0]), Err(Error::BadFlags));
        }
        assert_eq!(
            verify_checksum(&[0x80, 0, 8, 0, 0, 0, 0, 0]),
            Err(Error::BadChecksum)
        );
        assert_eq!(fill_checksum(&mut [0x80, 0, 8]), Err(Error::Truncated));
    }

    proptest! {
        #[test]
        fn emit_then_parse_is_identity(
            protocol in any::<u16>(), has_checksum in any::<bool>(), key in any::<Option<u32>>(),
            sequence in any::<Option<u32>>(), payload in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let repr = Repr { protocol: EtherType(protocol), has_checksum, key, sequence };
            let mut out = [0; MAX_HEADER_BYTES];
            let length = repr.emit(&mut out);
            prop_assert_eq!(length, repr.header_bytes());
            let mut whole = [&out[..length], &payload].concat();
            if has_checksum {
                fill_checksum(&mut whole).unwrap();
                prop_assert_eq!(verify_checksum(&whole), Ok(()));
            }
            let mut cursor = SliceCursor::new(&whole);
            prop_assert_eq!(Repr::parse(&mut cursor), Ok(repr));
            prop_assert_eq!(cursor.rest(), &payload[..]);
        }

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = parse(&bytes);
        }
    }
}
