//! ICMP extensions (RFC 4884) and the one object used here: the MPLS label stack of the packet that
//! caused the error (RFC 4950), which lets traceroute show a label switched path.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-----------------------+-------------------------------+
//! |   2   |           0           |           checksum            |
//! +-------+-----------------------+---------------+---------------+
//! |    object length, with header |   class 1     |    type 1     |
//! +-------------------------------+---------------+---------------+
//! |                 label stack entries, top first                |
//! +---------------------------------------------------------------+
//! ```

use crate::checksum::Sum;
use crate::mpls::{LSE_BYTES, MAX_DEPTH};
use crate::{Cursor, Lse, SliceCursor};

/// The structure's header.
pub const HEADER_BYTES: usize = 4;
/// An object's header.
pub const OBJECT_HEADER_BYTES: usize = 4;
/// The length that a quoted packet is brought to when extensions follow: the least that RFC 4884
/// section 3 allows, and what receivers older than it assume (section 5.1).
pub const QUOTE_BYTES: usize = 128;
/// The longest structure that is written.
pub const MAX_BYTES: usize = HEADER_BYTES + OBJECT_HEADER_BYTES + MAX_DEPTH * LSE_BYTES;

const VERSION: u8 = 2;
const CLASS_MPLS_STACK: u8 = 1;
const TYPE_INCOMING_STACK: u8 = 1;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The structure ends inside a header or an object.
    Truncated,
    /// The version is not 2.
    BadVersion,
    /// The checksum does not match.
    BadChecksum,
    /// An object's length is less than its header's.
    BadObjectLength,
}

/// How long the structure with `depth` entries is; none at all without entries.
#[inline]
pub const fn emitted_bytes(depth: usize) -> usize {
    if depth == 0 {
        0
    } else {
        HEADER_BYTES + OBJECT_HEADER_BYTES + depth * LSE_BYTES
    }
}

/// Writes the structure with one label stack object into `out`, which is exactly
/// [`emitted_bytes`] long for at most [`MAX_DEPTH`] entries; does nothing where it is not.
#[inline]
pub fn emit_label_stack(stack: &[Lse], out: &mut [u8]) {
    if stack.is_empty() || stack.len() > MAX_DEPTH || out.len() != emitted_bytes(stack.len()) {
        return;
    }
    let Some((head, entries)) = out.split_first_chunk_mut::<{ HEADER_BYTES + OBJECT_HEADER_BYTES }>() else {
        return;
    };
    let object_bytes = (OBJECT_HEADER_BYTES + entries.len()) as u16;
    let [length_high, length_low] = object_bytes.to_be_bytes();
    *head = [
        VERSION << 4,
        0,
        0,
        0,
        length_high,
        length_low,
        CLASS_MPLS_STACK,
        TYPE_INCOMING_STACK,
    ];
    for (to, entry) in entries.as_chunks_mut::<LSE_BYTES>().0.iter_mut().zip(stack) {
        *to = entry.to_bytes();
    }
    let checksum = Sum::new().bytes(out).checksum();
    if let Some(field) = out.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Finds the label stack object in a structure that was received: its entries' bytes.
///
/// A checksum of zero says that none was sent (RFC 4884 section 7).
#[inline]
pub fn find_label_stack(structure: &[u8]) -> Result<Option<&[[u8; LSE_BYTES]]>, Error> {
    let mut cursor = SliceCursor::new(structure);
    let head = cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?;
    if head[0] >> 4 != VERSION {
        return Err(Error::BadVersion);
    }
    if head[2..4] != [0, 0] && !Sum::new().bytes(structure).is_valid() {
        return Err(Error::BadChecksum);
    }
    while !cursor.rest().is_empty() {
        let object = cursor.take::<OBJECT_HEADER_BYTES>().ok_or(Error::Truncated)?;
        let body_bytes = usize::from(u16::from_be_bytes([object[0], object[1]]))
            .checked_sub(OBJECT_HEADER_BYTES)
            .ok_or(Error::BadObjectLength)?;
        let body = cursor.rest().get(..body_bytes).ok_or(Error::Truncated)?;
        if object[2..] == [CLASS_MPLS_STACK, TYPE_INCOMING_STACK] {
            return Ok(Some(body.as_chunks::<LSE_BYTES>().0));
        }
        cursor.skip(body_bytes).ok_or(Error::Truncated)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Label;
    use proptest::prelude::*;

    fn lse(label: u32, bottom: bool) -> Lse {
        Lse {
            label: Label::new(label).unwrap(),
            traffic_class: 0,
            bottom,
            ttl: 1,
        }
    }

    #[test]
    fn both_ways() {
        let stack = [lse(100, false), lse(200, true)];
        let mut out = [0xaa; emitted_bytes(2)];
        emit_label_stack(&stack, &mut out);
        assert_eq!(
            out,
            [
                0x20, 0, 0x1d, 0xde, 0, 12, 1, 1, 0, 0x06, 0x40, 0x01, 0, 0x0c, 0x81, 0x01
            ]
        );
        let entries = find_label_stack(&out).unwrap().unwrap();
        assert_eq!(entries, &[stack[0].to_bytes(), stack[1].to_bytes()]);
    }

    #[test]
    fn every_error() {
        assert_eq!(find_label_stack(&[0x20, 0, 0]), Err(Error::Truncated));
        assert_eq!(find_label_stack(&[0x10, 0, 0, 0]), Err(Error::BadVersion));
        assert_eq!(find_label_stack(&[0x20, 0, 1, 1]), Err(Error::BadChecksum));
        assert_eq!(find_label_stack(&[0x20, 0, 0, 0]), Ok(None));
        assert_eq!(
            find_label_stack(&[0x20, 0, 0, 0, 0, 3, 1, 1]),
            Err(Error::BadObjectLength)
        );
        assert_eq!(
            find_label_stack(&[0x20, 0, 0, 0, 0, 0, 1, 1]),
            Err(Error::BadObjectLength)
        );
        assert_eq!(
            find_label_stack(&[0x20, 0, 0, 0, 0, 8, 1, 1]),
            Err(Error::Truncated)
        );
        assert_eq!(find_label_stack(&[0x20, 0, 0, 0, 0, 4, 9]), Err(Error::Truncated));
        assert_eq!(find_label_stack(&[0x20, 0, 0, 0, 0, 4, 9, 9]), Ok(None));
    }

    proptest! {
        #[test]
        fn the_search_never_panics(mut bytes in proptest::collection::vec(0..16u8, 4..80)) {
            bytes[..4].copy_from_slice(&[0x20, 0, 0, 0]);
            let _ = find_label_stack(&bytes);
        }
    }
}
