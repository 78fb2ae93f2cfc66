//! What the IPv4 header's fragment fields (RFC 791 section 3.1) and IPv6's fragment header
//! (RFC 8200 section 4.5) say alike.

/// A packet's place in the datagram that it is a fragment of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Names the datagram together with the addresses (and, for IPv4, the protocol). IPv4 has 16 bits of it.
    pub identification: u32,
    /// Where this fragment's payload begins in the datagram's payload; a multiple of 8, at most 65528.
    pub offset_bytes: u16,
    /// Whether another fragment follows this one.
    pub more: bool,
}

impl Fragment {
    /// Whether this fragment carries the upper protocol's header.
    #[inline]
    pub const fn is_first(&self) -> bool {
        self.offset_bytes == 0
    }

    /// Whether this is the whole datagram in one piece: IPv6's atomic fragment (RFC 6946).
    #[inline]
    pub const fn is_atomic(&self) -> bool {
        self.offset_bytes == 0 && !self.more
    }
}
