//! The Internet checksum: whole (RFC 1071), incremental (RFC 1624), with pseudo headers.
//!
//! A checksum here is the value as it stands in the header, that is the complement of the sum.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::IpProtocol;

/// A one's-complement sum being taken.
///
/// Parts are added in any order, each of even length except one: the last bytes of the covered
/// data, which may be odd and are padded by a zero (RFC 1071 section 4.1). Up to 2^32 words may be
/// added, far beyond any packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[inline]
    pub const fn new() -> Self {
        Self(0)
    }

    /// The pseudo header of TCP and UDP over IPv4 (RFC 768, RFC 9293 section 3.1).
    #[inline]
    pub fn pseudo_header_v4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: IpProtocol,
        upper_bytes: u16,
    ) -> Self {
        Self::new()
            .bytes(&source.octets())
            .bytes(&destination.octets())
            .word(u16::from(protocol.0))
            .word(upper_bytes)
    }

    /// The pseudo header of every upper protocol over IPv6 (RFC 8200 section 8.1).
    #[inline]
    pub fn pseudo_header_v6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: IpProtocol,
        upper_bytes: u32,
    ) -> Self {
        Self::new()
            .bytes(&source.octets())
            .bytes(&destination.octets())
            .word((upper_bytes >> 16) as u16)
            .word(upper_bytes as u16)
            .word(u16::from(protocol.0))
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds bytes in network order.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let (quads, rest) = bytes.as_chunks::<4>();
        // A 32-bit word is congruent to the sum of its halves modulo 2^16 - 1.
        for quad in quads {
            sum += u64::from(u32::from_be_bytes(*quad));
        }
        let (pairs, rest) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = rest {
            sum += u64::from(u16::from_be_bytes([*last, 0]));
        }
        Self(sum)
    }

    /// The checksum to put into the header: the folded sum's complement.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether a sum that included the checksum field comes out right.
    #[inline]
    pub const fn is_valid(self) -> bool {
        // The folded sum is 0xffff where the whole one is a multiple of that, which one multiplication tells.
        self.0 != 0 && self.0.is_multiple_of(0xffff)
    }

    #[inline]
    const fn folded(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }
}

/// The checksum after one covered word changed, RFC 1624 equation 3.
///
/// The result is the one that a whole computation gives, provided that the covered data is not all
/// zero, which no IP, TCP or UDP header with its pseudo header ever is.
#[inline]
#[must_use]
pub const fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = !checksum as u32 + !old as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The checksum after two covered words, an address for instance, changed.
#[inline]
#[must_use]
pub const fn updated_u32(checksum: u16, old: u32, new: u32) -> u16 {
    updated(
        updated(checksum, (old >> 16) as u16, (new >> 16) as u16),
        old as u16,
        new as u16,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 3's example.
    #[test]
    fn rfc_1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&data).folded(), 0xddf2);
        assert_eq!(Sum::new().bytes(&data).checksum(), !0xddf2);
    }

    /// RFC 1624 section 4's example, where the older equation gave 0xffff.
    #[test]
    fn rfc_1624_example() {
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn odd_length_is_padded() {
        assert_eq!(Sum::new().bytes(&[1, 2, 3]).folded(), 0x0102 + 0x0300);
        assert_eq!(Sum::new().bytes(&[0x80]).folded(), 0x8000);
        assert_eq!(Sum::new().bytes(&[]).checksum(), 0xffff);
    }

    /// Word by word, with a fold after each: slow and plain.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn equals_the_slow_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(Sum::new().bytes(&bytes).checksum(), slow(&bytes));
        }

        #[test]
        fn incremental_equals_full(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..64),
            at in any::<proptest::sample::Index>(),
            new in any::<[u8; 2]>(),
        ) {
            // A constant word keeps the data from being all zero.
            bytes.splice(0..0, [0x45, 0x00]);
            let before = Sum::new().bytes(&bytes).checksum();
            let at = at.index((bytes.len() - 2) / 2) * 2 + 2;
            let at = at.min((bytes.len() - 2) & !1);
            prop_assume!(at >= 2);
            let old = [bytes[at], bytes[at + 1]];
            bytes[at..at + 2].copy_from_slice(&new);
            let after = updated(before, u16::from_be_bytes(old), u16::from_be_bytes(new));
            prop_assert_eq!(after, Sum::new().bytes(&bytes).checksum());
        }

        #[test]
        fn incremental_of_an_address(
            mut bytes in any::<[u8; 20]>(), new in any::<u32>(),
        ) {
            bytes[0] = 0x45;
            let before = Sum::new().bytes(&bytes).checksum();
            let old = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
            bytes[12..16].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(updated_u32(before, old, new), Sum::new().bytes(&bytes).checksum());
        }

        #[test]
        fn data_with_its_checksum_is_valid(mut bytes in any::<[u8; 20]>()) {
            bytes[10..12].fill(0);
            let checksum = Sum::new().bytes(&bytes).checksum();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            prop_assert!(Sum::new().bytes(&bytes).is_valid());
        }
    }
}
