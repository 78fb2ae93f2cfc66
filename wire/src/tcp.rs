//! TCP (RFC 9293), as far as a gateway reads it: ports, flags, and the MSS option of a SYN.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          source port          |       destination port        |
//! +-------------------------------+-------------------------------+
//! |                        sequence number                        |
//! +---------------------------------------------------------------+
//! |                     acknowledgment number                     |
//! +-------+-------+---------------+-------------------------------+
//! | offset|   0   |     flags     |            window             |
//! +-------+-------+---------------+-------------------------------+
//! |           checksum            |        urgent pointer         |
//! +-------------------------------+-------------------------------+
//! |                 options, 0 to 40 bytes                        |
//! +---------------------------------------------------------------+
//! ```

use crate::Cursor;

/// The header without options.
pub const HEADER_BYTES: usize = 20;
/// The longest header: fifteen 32-bit words.
pub const MAX_HEADER_BYTES: usize = 60;
/// Where the checksum stands in the header.
pub const CHECKSUM_AT: usize = 16;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_BYTES: u8 = 4;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The segment ends inside the header or its options.
    Truncated,
    /// The data offset is less than 20 bytes.
    BadHeaderLength,
    /// An option's length is less than 2, reaches beyond the header, or is not 4 for the MSS.
    BadOption,
}

/// The flags byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset.
    pub const RST: Self = Self(0x04);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);

    /// Whether all of `other`'s flags are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A view of the fixed part. Checked when taken: the options lie within the packet.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(&'p [u8; HEADER_BYTES]);

impl<'p> Header<'p> {
    /// Takes the header and moves past its options; the cursor then stands at the data.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let header = Self(cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?);
        let options_bytes = header
            .header_bytes()
            .checked_sub(HEADER_BYTES)
            .ok_or(Error::BadHeaderLength)?;
        if options_bytes != 0 {
            cursor.skip(options_bytes).ok_or(Error::Truncated)?;
        }
        Ok(header)
    }

    /// Header and options together, 20 to 60.
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        (self.0[12] >> 4) as usize * 4
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

    /// The flags.
    #[inline]
    pub const fn flags(&self) -> Flags {
        Flags(self.0[13])
    }

    /// The checksum as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[CHECKSUM_AT], self.0[CHECKSUM_AT + 1]])
    }
}

/// An MSS option (RFC 9293 section 3.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaximumSegmentSize {
    /// Where the value's two bytes begin, from the options' first byte. May be odd.
    pub value_at: usize,
    /// The value.
    pub bytes: u16,
}

/// Finds the first MSS option among the options of a SYN: the bytes from 20 to the header's length.
///
/// Every step moves on by at least one byte, so the search ends.
#[inline]
pub fn find_mss(options: &[u8]) -> Result<Option<MaximumSegmentSize>, Error> {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            OPTION_END => break,
            OPTION_NOP => at += 1,
            _ => {
                let length = *options.get(at + 1).ok_or(Error::BadOption)?;
                let option = options
                    .get(at..at + usize::from(length))
                    .ok_or(Error::BadOption)?;
                match (kind, option) {
                    (OPTION_MSS, &[_, OPTION_MSS_BYTES, high, low]) => {
                        let bytes = u16::from_be_bytes([high, low]);
                        return Ok(Some(MaximumSegmentSize {
                            value_at: at + 2,
                            bytes,
                        }));
                    }
                    (OPTION_MSS, _) | (_, [] | [_]) => return Err(Error::BadOption),
                    _ => at += usize::from(length),
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceCursor;
    use proptest::prelude::*;

    /// A Linux SYN: MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
    const SYN: [u8; 40] = [
        0x9c, 0x40, 0x00, 0x50, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 0xbe, 0xef, 0, 0,
        2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7,
    ];

    #[test]
    fn a_syn() {
        let mut cursor = SliceCursor::new(&SYN);
        let header = Header::parse(&mut cursor).unwrap();
        assert_eq!((header.source_port(), header.destination_port()), (40_000, 80));
        assert!(header.flags().contains(Flags::SYN) && !header.flags().contains(Flags::ACK));
        assert_eq!((header.header_bytes(), header.checksum()), (40, 0xbeef));
        assert_eq!(cursor.position(), 40);
        let mss = find_mss(&SYN[20..]).unwrap().unwrap();
        assert_eq!(
            mss,
            MaximumSegmentSize {
                value_at: 2,
                bytes: 1460
            }
        );
    }

    #[test]
    fn every_error() {
        let parse = |bytes: &[u8]| Header::parse(&mut SliceCursor::new(bytes)).map(|_| ());
        for length in 0..SYN.len() {
            assert_eq!(parse(&SYN[..length]), Err(Error::Truncated));
        }
        let mut short = SYN;
        short[12] = 0x40;
        assert_eq!(parse(&short), Err(Error::BadHeaderLength));
        for bad in [
            &[2u8][..],
            &[2, 4, 5],
            &[2, 3, 5, 0xb4],
            &[8, 0],
            &[8, 1],
            &[8, 10, 0],
            &[2, 0, 0, 0],
        ] {
            assert_eq!(find_mss(bad), Err(Error::BadOption), "{bad:?}");
        }
    }

    #[test]
    fn the_search_ends_at_the_end_option() {
        assert_eq!(find_mss(&[]), Ok(None));
        assert_eq!(find_mss(&[1, 1, 1]), Ok(None));
        assert_eq!(find_mss(&[0, 2, 4, 5, 0xb4]), Ok(None));
        assert_eq!(find_mss(&[1, 2, 4, 5, 0xb4]).unwrap().unwrap().value_at, 3);
    }

    proptest! {
        #[test]
        fn the_search_never_panics(options in proptest::collection::vec(0..12u8, 0..41)) {
            if let Ok(Some(mss)) = find_mss(&options) {
                prop_assert_eq!(&mss.bytes.to_be_bytes()[..], &options[mss.value_at..mss.value_at + 2]);
            }
        }
    }
}
