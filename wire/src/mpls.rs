//! MPLS label stacks (RFC 3032).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------+-----+-+---------------+
//! |                 label                 | TC  |S|      TTL      |
//! +---------------------------------------+-----+-+---------------+
//! ```

use core::fmt;

use crate::Cursor;

/// One label stack entry.
pub const LSE_BYTES: usize = 4;
/// The deepest stack that is walked.
pub const MAX_DEPTH: usize = 16;

/// A label, 20 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(u32);

impl Label {
    /// Pop, and what follows is IPv4 (RFC 3032 section 2.1).
    pub const IPV4_EXPLICIT_NULL: Self = Self(0);
    /// For the router itself (RFC 3032 section 2.1).
    pub const ROUTER_ALERT: Self = Self(1);
    /// Pop, and what follows is IPv6 (RFC 3032 section 2.1).
    pub const IPV6_EXPLICIT_NULL: Self = Self(2);
    /// Distributed, never sent: asks the neighbour to pop (RFC 3032 section 2.1).
    pub const IMPLICIT_NULL: Self = Self(3);
    /// The label below is an entropy label (RFC 6790 section 3).
    pub const ENTROPY_INDICATOR: Self = Self(7);
    /// A generic associated channel follows (RFC 5586).
    pub const GENERIC_ASSOCIATED_CHANNEL: Self = Self(13);
    /// OAM alert (RFC 3429).
    pub const OAM_ALERT: Self = Self(14);
    /// The label below is an extended special-purpose one (RFC 7274).
    pub const EXTENSION: Self = Self(15);
    /// The least label that may be given out.
    pub const FIRST_UNRESERVED: Self = Self(16);
    /// The greatest label.
    pub const MAX: Self = Self((1 << 20) - 1);

    /// `None` for a value that does not fit 20 bits.
    #[inline]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The value, below 2^20: an index into a label table of that size.
    #[inline]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Whether the label has a meaning of its own (RFC 7274 section 3: 0 to 15).
    #[inline]
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_UNRESERVED.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({})", self.0)
    }
}

/// A label stack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lse {
    /// The label.
    pub label: Label,
    /// The traffic class, three bits (RFC 5462).
    pub traffic_class: u8,
    /// Whether this is the last entry.
    pub bottom: bool,
    /// Hops left.
    pub ttl: u8,
}

impl Lse {
    /// Reads an entry; every bit pattern is one.
    #[inline]
    pub const fn from_bytes(bytes: [u8; LSE_BYTES]) -> Self {
        let word = u32::from_be_bytes(bytes);
        Self {
            label: Label(word >> 12),
            traffic_class: (word >> 9) as u8 & 0b111,
            bottom: word & 0x100 != 0,
            ttl: word as u8,
        }
    }

    /// The entry as it goes onto the wire; the low three bits of the traffic class count.
    #[inline]
    pub const fn to_bytes(self) -> [u8; LSE_BYTES] {
        let class = (self.traffic_class & 0b111) as u32;
        (self.label.0 << 12 | class << 9 | (self.bottom as u32) << 8 | self.ttl as u32).to_be_bytes()
    }

    /// Takes the entry at the top.
    #[inline(always)]
    pub fn parse<'p, C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        cursor
            .take::<LSE_BYTES>()
            .map(|bytes| Self::from_bytes(*bytes))
            .ok_or(Error::Truncated)
    }
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends before the bottom of the stack.
    Truncated,
    /// No bottom of stack within [`MAX_DEPTH`] entries.
    TooDeep,
}

/// A whole stack.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    entries: [Lse; MAX_DEPTH],
    depth: usize,
}

impl Stack {
    /// Takes every entry down to the bottom; the cursor then stands at what the stack carries.
    #[inline]
    pub fn parse<'p, C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let mut stack = Self {
            entries: [Lse::from_bytes([0; LSE_BYTES]); MAX_DEPTH],
            depth: 0,
        };
        for entry in &mut stack.entries {
            *entry = Lse::parse(cursor)?;
            stack.depth += 1;
            if entry.bottom {
                return Ok(stack);
            }
        }
        Err(Error::TooDeep)
    }

    /// The entries, top first; one at least.
    #[inline]
    pub fn entries(&self) -> &[Lse] {
        self.entries.get(..self.depth).unwrap_or(&self.entries)
    }

    /// Bytes of the stack.
    #[inline]
    pub const fn stack_bytes(&self) -> usize {
        self.depth * LSE_BYTES
    }

    /// The entropy label beneath the first indicator, if there is one (RFC 6790 section 4.1).
    #[inline]
    pub fn entropy_label(&self) -> Option<Label> {
        let at = self
            .entries()
            .iter()
            .position(|entry| entry.label == Label::ENTROPY_INDICATOR)?;
        self.entries().get(at + 1).map(|entry| entry.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceCursor;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BYTES: [u8; 8] = [0x00, 0x06, 0x40, 0x40, 0xff, 0xff, 0xfb, 0x01];

    fn parse(bytes: &[u8]) -> Result<Stack, Error> {
        Stack::parse(&mut SliceCursor::new(bytes))
    }

    #[test]
    fn both_ways() {
        let stack = parse(&BYTES).unwrap();
        let top = Lse {
            label: Label(100),
            traffic_class: 0,
            bottom: false,
            ttl: 64,
        };
        let bottom = Lse {
            label: Label::MAX,
            traffic_class: 5,
            bottom: true,
            ttl: 1,
        };
        assert_eq!(stack.entries(), &[top, bottom]);
        assert_eq!([top.to_bytes(), bottom.to_bytes()].concat(), BYTES);
        assert_eq!(stack.stack_bytes(), 8);
    }

    #[test]
    fn labels_are_20_bits() {
        assert_eq!(Label::new(1 << 20), None);
        assert_eq!(Label::new((1 << 20) - 1), Some(Label::MAX));
        assert!(Label(15).is_reserved() && !Label(16).is_reserved());
    }

    fn stack(labels: &[u32]) -> Vec<u8> {
        let last = labels.len() - 1;
        labels
            .iter()
            .enumerate()
            .flat_map(|(i, &label)| {
                Lse {
                    label: Label(label),
                    traffic_class: 0,
                    bottom: i == last,
                    ttl: 64,
                }
                .to_bytes()
            })
            .collect()
    }

    #[test]
    fn fault_60_depth_is_capped() {
        assert_eq!(parse(&stack(&[100; 16])).unwrap().entries().len(), 16);
        assert_eq!(parse(&stack(&[100; 17])).unwrap_err(), Error::TooDeep);
    }

    #[test]
    fn fault_61_no_bottom_of_stack() {
        for depth in 1..=16 {
            let bytes = stack(&std::vec![100; depth]);
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]).unwrap_err(), Error::Truncated);
            }
        }
        assert_eq!(parse(&[0; 64]).unwrap_err(), Error::TooDeep);
    }

    #[test]
    fn entropy_label() {
        assert_eq!(
            parse(&stack(&[100, 7, 4711, 200])).unwrap().entropy_label(),
            Some(Label(4711))
        );
        assert_eq!(parse(&stack(&[100, 200])).unwrap().entropy_label(), None);
        assert_eq!(
            parse(&stack(&[100, 7])).unwrap().entropy_label(),
            None,
            "indicator without its label"
        );
    }

    proptest! {
        #[test]
        fn every_word_is_an_entry(bytes in any::<[u8; 4]>()) {
            prop_assert_eq!(Lse::from_bytes(bytes).to_bytes(), bytes);
        }

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(stack) = parse(&bytes) {
                prop_assert!(stack.stack_bytes() <= bytes.len());
                let _ = stack.entropy_label();
            }
        }
    }
}
