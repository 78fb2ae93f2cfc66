//! [`Flags`]: facts about a packet, a bit each.

/// Facts about a packet that are true of it for the rest of its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// Nothing is known yet.
    pub const NONE: Self = Self(0);
    /// The packet is IPv6.
    pub const IPV6: Self = Self(1);
    /// Its TTL was decremented, or must not be: packets of the host's and our own, and those that waited.
    pub const HOP_TAKEN: Self = Self(1 << 1);
    /// It is an outer packet that this gateway made: it is not protected again.
    pub const OUTER: Self = Self(1 << 2);
    /// It was reassembled from fragments.
    pub const REASSEMBLED: Self = Self(1 << 3);
    /// It is ESP in UDP.
    pub const IN_UDP: Self = Self(1 << 5);
    /// Its way was decided by a rule, not by a route.
    pub const PROTECTED: Self = Self(1 << 4);
    /// It is an error about a packet that came out of the tunnel that it is sent into.
    pub const REPLY: Self = Self(1 << 6);
    /// No rule matched it: it may not cross between the protected side and the rest.
    pub const UNRULED: Self = Self(1 << 7);
    /// It begins with a label stack.
    pub const LABELLED: Self = Self(1 << 8);
    /// This gateway has put the label stack there.
    pub const IMPOSED: Self = Self(1 << 9);

    /// Whether all of `other`'s are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other`'s is set.
    #[inline(always)]
    #[must_use]
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags of both.
    #[inline(always)]
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Sets `other`'s.
    #[inline(always)]
    pub const fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears `other`'s.
    #[inline(always)]
    pub const fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}
