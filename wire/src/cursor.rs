//! The cursor from which headers are taken: the only place where a packet's length is checked.
//!
//! One parser serves the XDP program and user space; only the cursor differs. The XDP program's
//! cursor compares `data` with `data_end`; [`SliceCursor`] compares with a slice's length.

/// The most that one [`Cursor::skip`] may pass over, bytes: an IPv6 extension header's 8 + 255 * 8
/// rounded up to a power of two, so that an implementation can bound it by a mask.
pub const MAX_SKIP_BYTES: usize = 2048;

/// A place in a packet that only moves forward.
///
/// An implementation over raw pointers satisfies the BPF verifier if `take` compares
/// `at + N` with the end (N is a small constant) and `skip` refuses more than [`MAX_SKIP_BYTES`]
/// before it adds, which gives the verifier its upper bound.
///
/// After a refusal the cursor stands where it stood.
pub trait Cursor<'p> {
    /// Hands out the next `N` bytes and moves past them, or `None` if the packet ends before.
    fn take<const N: usize>(&mut self) -> Option<&'p [u8; N]>;

    /// Moves past `bytes` bytes; `None` if the packet ends before, or if `bytes` is more than
    /// [`MAX_SKIP_BYTES`].
    fn skip(&mut self, bytes: usize) -> Option<()>;

    /// Bytes from the cursor's start to where it stands.
    fn position(&self) -> usize;
}

/// A [`Cursor`] over a slice.
#[derive(Clone, Copy, Debug)]
pub struct SliceCursor<'p> {
    rest: &'p [u8],
    position: usize,
}

impl<'p> SliceCursor<'p> {
    /// Stands at the first byte of `packet`.
    #[inline]
    pub const fn new(packet: &'p [u8]) -> Self {
        Self {
            rest: packet,
            position: 0,
        }
    }

    /// What has not been taken yet.
    #[inline]
    pub const fn rest(&self) -> &'p [u8] {
        self.rest
    }
}

impl<'p> Cursor<'p> for SliceCursor<'p> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<&'p [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        self.position += N;
        Some(taken)
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        if bytes > MAX_SKIP_BYTES {
            return None;
        }
        self.rest = self.rest.get(bytes..)?;
        self.position += bytes;
        Some(())
    }

    #[inline(always)]
    fn position(&self) -> usize {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_in_order_and_refuses_past_the_end() {
        let mut cursor = SliceCursor::new(&[1, 2, 3, 4, 5]);
        assert_eq!(cursor.take::<2>(), Some(&[1, 2]));
        assert_eq!(cursor.skip(1), Some(()));
        assert_eq!(cursor.position(), 3);
        assert_eq!(cursor.take::<3>(), None);
        assert_eq!(cursor.skip(3), None);
        assert_eq!(cursor.position(), 3, "a refusal does not move");
        assert_eq!(cursor.rest(), &[4, 5]);
        assert_eq!(cursor.take::<2>(), Some(&[4, 5]));
        assert_eq!(cursor.take::<0>(), Some(&[]));
        assert_eq!(cursor.take::<1>(), None);
    }

    #[test]
    fn a_skip_is_bounded() {
        let packet = [0; MAX_SKIP_BYTES + 1];
        assert_eq!(SliceCursor::new(&packet).skip(MAX_SKIP_BYTES), Some(()));
        assert_eq!(SliceCursor::new(&packet).skip(MAX_SKIP_BYTES + 1), None);
        assert_eq!(SliceCursor::new(&packet).skip(usize::MAX), None);
    }
}
