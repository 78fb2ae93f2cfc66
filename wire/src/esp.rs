//! ESP (RFC 4303 section 2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+ ---
//! |                  security parameters index                    |  ^ authenticated
//! +---------------------------------------------------------------+  |
//! |                        sequence number                        |  |
//! +---------------------------------------------------------------+  |  ---
//! |              IV, payload, TFC padding (variable)              |  |   ^ encrypted,
//! +               +-----------------------------------------------+  |   | the IV apart
//! |               |     padding 1, 2, 3 ... (0 to 255)            |  |   |
//! +---------------+---------------+---------------+---------------+  |   |
//! |                               |  pad length   |  next header  |  v   v
//! +-------------------------------+---------------+---------------+ ------
//! |                  integrity check value (variable)             |
//! +---------------------------------------------------------------+
//! ```

use core::fmt;

use crate::{Cursor, IpProtocol};

/// SPI and sequence number.
pub const HEADER_BYTES: usize = 8;
/// Pad length and next header.
pub const TRAILER_BYTES: usize = 2;

/// A security parameters index, chosen by the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl Spi {
    /// The least SPI that an SA may have: 1 to 255 are IANA's, 0 is local (RFC 4303 section 2.1).
    pub const FIRST_USABLE: Self = Self(256);

    /// Whether no SA may have this SPI.
    #[inline]
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_USABLE.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

/// The sequence number's 32 bits that are sent. With ESN the high half is inferred (RFC 4303 section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u32);

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends inside the header, or the plaintext is shorter than a trailer.
    Truncated,
    /// The pad length is more than the plaintext before the trailer.
    BadPadLength,
    /// The padding is not 1, 2, 3 and so on.
    BadPadding,
}

/// A view of the header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(&'p [u8; HEADER_BYTES]);

impl<'p> Header<'p> {
    /// Takes the header; the cursor then stands at the IV.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        cursor.take::<HEADER_BYTES>().map(Self).ok_or(Error::Truncated)
    }

    /// Which SA.
    #[inline]
    pub const fn spi(&self) -> Spi {
        Spi(u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]))
    }

    /// Which packet.
    #[inline]
    pub const fn sequence(&self) -> Sequence {
        Sequence(u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]]))
    }

    /// The header as plain values.
    #[inline]
    pub const fn repr(&self) -> Repr {
        Repr {
            spi: self.spi(),
            sequence: self.sequence(),
        }
    }
}

/// A header to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Which SA.
    pub spi: Spi,
    /// Which packet.
    pub sequence: Sequence,
}

impl Repr {
    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_BYTES]) {
        out[..4].copy_from_slice(&self.spi.0.to_be_bytes());
        out[4..].copy_from_slice(&self.sequence.0.to_be_bytes());
    }
}

/// The last two bytes of a plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of padding before the trailer.
    pub pad_bytes: u8,
    /// What the payload is: [`IpProtocol::IPV4`] or [`IpProtocol::IPV6`] in tunnel mode,
    /// [`IpProtocol::NO_NEXT_HEADER`] in a dummy packet.
    pub next_header: IpProtocol,
}

impl Trailer {
    /// Splits an authenticated plaintext into payload, padding and trailer.
    ///
    /// To be called after the ICV was verified (RFC 4303 section 3.4.4), never before.
    #[inline]
    pub fn split(plaintext: &[u8]) -> Result<(&[u8], &[u8], Self), Error> {
        let (body, &[pad_bytes, next_header]) = plaintext
            .split_last_chunk::<TRAILER_BYTES>()
            .ok_or(Error::Truncated)?;
        let payload_bytes = body
            .len()
            .checked_sub(usize::from(pad_bytes))
            .ok_or(Error::BadPadLength)?;
        let (payload, padding) = body.split_at_checked(payload_bytes).ok_or(Error::BadPadLength)?;
        Ok((
            payload,
            padding,
            Self {
                pad_bytes,
                next_header: IpProtocol(next_header),
            },
        ))
    }

    /// Writes the trailer.
    #[inline]
    pub const fn emit(&self, out: &mut [u8; TRAILER_BYTES]) {
        *out = [self.pad_bytes, self.next_header.0];
    }
}

/// The padding that brings payload, padding and trailer to a multiple of `alignment_bytes`: the
/// cipher's block, and never less than 4 (RFC 4303 section 2.4).
///
/// `alignment_bytes` is a power of two from 4 to 128.
#[inline]
pub const fn pad_bytes(payload_bytes: usize, alignment_bytes: usize) -> u8 {
    debug_assert!(alignment_bytes.is_power_of_two() && alignment_bytes >= 4 && alignment_bytes <= 128);
    let used = payload_bytes.wrapping_add(TRAILER_BYTES);
    (used.wrapping_neg() & (alignment_bytes - 1)) as u8
}

/// Fills padding with 1, 2, 3 and so on (RFC 4303 section 2.4). At most 255 bytes.
#[inline]
pub fn fill_padding(padding: &mut [u8]) {
    for (byte, value) in padding.iter_mut().zip(1..=u8::MAX) {
        *byte = value;
    }
}

/// Checks that padding is 1, 2, 3 and so on (RFC 4303 section 2.4: a receiver should).
#[inline]
pub fn verify_padding(padding: &[u8]) -> Result<(), Error> {
    // What a counter mode needs, without a loop.
    if let [] | [1] | [1, 2] | [1, 2, 3] = padding {
        return Ok(());
    }
    if padding.len() <= usize::from(u8::MAX)
        && padding
            .iter()
            .zip(1..=u8::MAX)
            .all(|(&byte, value)| byte == value)
    {
        Ok(())
    } else {
        Err(Error::BadPadding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceCursor;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn both_ways() {
        let bytes = [0, 0, 0x20, 0x01, 0, 0, 0, 7];
        let repr = Repr {
            spi: Spi(0x2001),
            sequence: Sequence(7),
        };
        assert_eq!(Header::parse(&mut SliceCursor::new(&bytes)).unwrap().repr(), repr);
        let mut out = [0xaa; 8];
        repr.emit(&mut out);
        assert_eq!(out, bytes);
        for length in 0..8 {
            let error = Header::parse(&mut SliceCursor::new(&bytes[..length])).unwrap_err();
            assert_eq!(error, Error::Truncated);
        }
        assert_eq!(format!("{:?}", repr.spi), "Spi(0x00002001)");
    }

    #[test]
    fn reserved_spis() {
        assert!(Spi(0).is_reserved() && Spi(255).is_reserved());
        assert!(!Spi(256).is_reserved() && !Spi(u32::MAX).is_reserved());
    }

    #[test]
    fn fault_39_pad_length() {
        assert_eq!(Trailer::split(&[]), Err(Error::Truncated));
        assert_eq!(Trailer::split(&[4]), Err(Error::Truncated));
        assert_eq!(Trailer::split(&[1, 4]), Err(Error::BadPadLength));
        assert_eq!(Trailer::split(&[9, 1, 2, 4, 4]), Err(Error::BadPadLength));
        let trailer = Trailer {
            pad_bytes: 2,
            next_header: IpProtocol::IPV4,
        };
        assert_eq!(
            Trailer::split(&[9, 1, 2, 2, 4]),
            Ok((&[9][..], &[1, 2][..], trailer))
        );
        assert_eq!(
            Trailer::split(&[0, 59]),
            Ok((
                &[][..],
                &[][..],
                Trailer {
                    pad_bytes: 0,
                    next_header: IpProtocol::NO_NEXT_HEADER
                }
            ))
        );
    }

    #[test]
    fn padding_counts_up() {
        let mut padding = [0; 255];
        fill_padding(&mut padding);
        assert_eq!((padding[0], padding[254]), (1, 255));
        assert_eq!(verify_padding(&padding), Ok(()));
        assert_eq!(verify_padding(&[1, 2, 4]), Err(Error::BadPadding));
        assert_eq!(verify_padding(&[0; 256]), Err(Error::BadPadding));
    }

    proptest! {
        #[test]
        fn padding_aligns_and_splits_back(
            payload in proptest::collection::vec(any::<u8>(), 0..200), shift in 2..8u32, next in any::<u8>(),
        ) {
            let alignment = 1usize << shift;
            let pad = pad_bytes(payload.len(), alignment);
            prop_assert!(usize::from(pad) < alignment);
            let mut plaintext = payload.clone();
            plaintext.resize(payload.len() + usize::from(pad) + TRAILER_BYTES, 0);
            prop_assert_eq!(plaintext.len() % alignment, 0);
            fill_padding(&mut plaintext[payload.len()..payload.len() + usize::from(pad)]);
            let trailer = Trailer { pad_bytes: pad, next_header: IpProtocol(next) };
            trailer.emit(plaintext.last_chunk_mut().unwrap());
            let (body, padding, parsed) = Trailer::split(&plaintext).unwrap();
            prop_assert_eq!((body, parsed), (&payload[..], trailer));
            prop_assert_eq!(verify_padding(padding), Ok(()));
        }

        #[test]
        fn split_never_panics(plaintext in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((payload, padding, trailer)) = Trailer::split(&plaintext) {
                prop_assert_eq!(padding.len(), usize::from(trailer.pad_bytes));
                prop_assert_eq!(payload.len() + padding.len() + TRAILER_BYTES, plaintext.len());
            }
        }
    }
}
