//! The byte that IPv4 calls TOS and IPv6 traffic class: DSCP (RFC 2474) and ECN (RFC 3168).
//!
//! ```text
//!   0     1     2     3     4     5     6     7
//! +-----+-----+-----+-----+-----+-----+-----+-----+
//! |               DSCP                |    ECN    |
//! +-----+-----+-----+-----+-----+-----+-----+-----+
//! ```

/// DSCP and ECN together, as they stand in the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficClass(pub u8);

/// The ECN field, RFC 3168 section 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable transport.
    #[default]
    NotEct = 0b00,
    /// ECN-capable transport, codepoint ECT(1).
    Ect1 = 0b01,
    /// ECN-capable transport, codepoint ECT(0).
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl TrafficClass {
    /// DSCP CS6, internetwork control: what RFC 1812 section 4.3.2.5 asks of ICMP errors.
    pub const INTERNETWORK_CONTROL: Self = Self(48 << 2);

    /// The six bits of the differentiated services codepoint.
    #[inline]
    pub const fn dscp(self) -> u8 {
        self.0 >> 2
    }

    /// The two bits of explicit congestion notification.
    #[inline]
    pub const fn ecn(self) -> Ecn {
        match self.0 & 0b11 {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The same ECN under another DSCP; the low six bits of `dscp` count.
    #[inline]
    #[must_use]
    pub const fn with_dscp(self, dscp: u8) -> Self {
        Self((dscp << 2) | (self.0 & 0b11))
    }

    /// The same DSCP with another ECN.
    #[inline]
    #[must_use]
    pub const fn with_ecn(self, ecn: Ecn) -> Self {
        Self((self.0 & !0b11) | ecn as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_apart_and_together() {
        for byte in 0..=255u8 {
            let class = TrafficClass(byte);
            assert_eq!(
                TrafficClass(0).with_dscp(class.dscp()).with_ecn(class.ecn()),
                class
            );
            assert_eq!(
                TrafficClass(0xff).with_ecn(class.ecn()).with_dscp(class.dscp()),
                class
            );
        }
        let expedited_ce = TrafficClass(0xbb);
        assert_eq!((expedited_ce.dscp(), expedited_ce.ecn()), (46, Ecn::Ce));
    }
}
