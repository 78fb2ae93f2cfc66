//! [`Frame`]: the one right to touch one chunk of a UMEM.

use std::{fmt, marker::PhantomData, ptr::NonNull, slice};

use super::umem::{CHUNK_BYTES, Umem};

/// One chunk of a [`Umem`] with a packet in it, or room for one.
///
/// The frame *is* the right to read and write the chunk: there is never more than one for a chunk, it can be neither
/// copied nor cloned, and giving it to a ring or to the pool ends it. So whoever has it needs no further care.
///
/// ```text
///  0         start              start + len          4096
///  | headroom | packet: bytes()  | tailroom            |
/// ```
///
/// A frame that is dropped is lost to its UMEM until the process ends; the census shows it as held. It is not returned
/// by a destructor because the pool is not reachable from here without a lock or a pointer per frame.
#[must_use = "a dropped frame is lost: give it to a pool or a queue"]
pub struct Frame<'u> {
    chunk: NonNull<u8>,
    start: u16,
    len: u16,
    umem: PhantomData<&'u Umem>,
}

// SAFETY: the frame is the only way to its chunk, so it may go to another thread as a Box<[u8]> may.
unsafe impl Send for Frame<'_> {}
// SAFETY: a shared frame only gives shared access to its bytes.
unsafe impl Sync for Frame<'_> {}

impl<'u> Frame<'u> {
    /// # Safety
    ///
    /// `chunk` points at the first byte of a chunk of a UMEM that lives for `'u`, nobody else has a frame of it, and the
    /// kernel does not hold it. `start + len` is at most [`CHUNK_BYTES`].
    #[inline(always)]
    pub(super) unsafe fn new(chunk: NonNull<u8>, start: u16, len: u16) -> Self {
        debug_assert!(start as usize + len as usize <= CHUNK_BYTES);
        Self {
            chunk,
            start,
            len,
            umem: PhantomData,
        }
    }

    /// The chunk's first byte.
    #[inline(always)]
    pub(super) fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    /// The packet.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: start + len <= CHUNK_BYTES holds from `new` and is kept by every method; the frame is the only right
        // to the chunk, and it is borrowed for as long as the slice.
        unsafe { slice::from_raw_parts(self.chunk.add(self.start as usize).as_ptr(), self.len as usize) }
    }

    /// The packet, to be changed in place.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, with the frame borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.chunk.add(self.start as usize).as_ptr(), self.len as usize) }
    }

    /// Bytes in the packet.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no packet.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes before the packet that [`Frame::grow_front`] can take.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Bytes after the packet that [`Frame::grow_back`] can take.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        CHUNK_BYTES - self.start as usize - self.len as usize
    }

    /// Puts `count` bytes before the packet and gives them to be written (they hold whatever lay there). `None`, and
    /// nothing changed, when the headroom is too small.
    #[inline]
    pub fn grow_front(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.headroom() {
            return None;
        }
        self.start -= count as u16;
        self.len += count as u16;
        self.bytes_mut().get_mut(..count)
    }

    /// The same for a number of bytes that the compiler knows.
    #[inline(always)]
    pub fn grow_front_by<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        const { assert!(N <= CHUNK_BYTES) };
        let start = self.headroom().checked_sub(N)?;
        self.start = start as u16;
        self.len += N as u16;
        self.bytes_mut().first_chunk_mut()
    }

    /// Takes `count` bytes off the packet's front; false, and nothing changed, when it is shorter.
    #[inline]
    #[must_use]
    pub fn shrink_front(&mut self, count: usize) -> bool {
        if count > self.len() {
            return false;
        }
        self.start += count as u16;
        self.len -= count as u16;
        true
    }

    /// Puts `count` bytes after the packet and gives them to be written (they hold whatever lay there). `None`, and
    /// nothing changed, when the tailroom is too small.
    #[inline]
    pub fn grow_back(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let old = self.len();
        self.len += count as u16;
        self.bytes_mut().get_mut(old..)
    }

    /// Both at once: `front` bytes before the packet and `back` bytes after it; gives the whole to be written. `None`, and
    /// nothing changed, when either room is too small.
    #[inline(always)]
    pub fn grow_both(&mut self, front: usize, back: usize) -> Option<&mut [u8]> {
        let start = self.headroom().checked_sub(front)?;
        let len = front.checked_add(self.len())?.checked_add(back)?;
        if len > CHUNK_BYTES - start {
            return None;
        }
        self.start = start as u16;
        self.len = len as u16;
        Some(self.bytes_mut())
    }

    /// Leaves `len` bytes from the one at `front` on; false, and nothing changed, when they are not all there.
    #[inline(always)]
    #[must_use]
    pub fn narrow(&mut self, front: usize, len: usize) -> bool {
        let is_within = front <= self.len() && len <= self.len() - front;
        if is_within {
            self.start += front as u16;
            self.len = len as u16;
        }
        is_within
    }

    /// Cuts the packet to `len` bytes; a shorter packet stays as it is.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u16::try_from(len).unwrap_or(u16::MAX));
    }

    /// Empties the frame and moves the packet's place to `headroom` bytes from the chunk's start; false, and nothing
    /// changed, when that is beyond the chunk.
    #[must_use]
    pub fn reset(&mut self, headroom: usize) -> bool {
        if headroom > CHUNK_BYTES {
            return false;
        }
        self.start = headroom as u16;
        self.len = 0;
        true
    }

    /// Replaces the packet by a copy of `packet` at the same headroom; false, and nothing changed, when it does not fit.
    #[must_use]
    pub fn copy_from(&mut self, packet: &[u8]) -> bool {
        if packet.len() > CHUNK_BYTES - self.headroom() {
            return false;
        }
        self.len = packet.len() as u16;
        self.bytes_mut().copy_from_slice(packet);
        true
    }

    /// The whole chunk, for one who reads a packet of unknown length into it (a TAP): what lies behind the headroom.
    /// Follow it by [`Frame::set_len`].
    #[inline]
    pub fn space_mut(&mut self) -> &mut [u8] {
        let space = CHUNK_BYTES - self.headroom();
        // SAFETY: from `start` to the chunk's end; the frame is the only right to the chunk and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.chunk.add(self.start as usize).as_ptr(), space) }
    }

    /// Says that the packet is the first `len` bytes behind the headroom; false, and nothing changed, beyond the chunk.
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > CHUNK_BYTES - self.headroom() {
            return false;
        }
        self.len = len as u16;
        true
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they may be plaintext.
        write!(f, "Frame({:p}+{}, {} bytes)", self.chunk, self.start, self.len)
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::xsk::umem::UmemConfig;

    fn umem() -> Umem {
        Umem::new(&UmemConfig {
            frame_count: 2,
            ..UmemConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn a_frame_is_two_words() {
        assert_eq!(size_of::<Frame<'_>>(), 16);
        assert_eq!(size_of::<Option<Frame<'_>>>(), 16);
    }

    #[test]
    fn grows_into_headroom_and_tailroom_and_no_further() {
        let umem = umem();
        let mut pool = umem.pool().unwrap();
        let mut frame = pool.take().unwrap();
        let (headroom, tailroom) = (frame.headroom(), frame.tailroom());
        assert_eq!(headroom + tailroom, CHUNK_BYTES);
        assert!(frame.copy_from(b"payload"));
        frame.grow_front(4).unwrap().copy_from_slice(b"head");
        frame.grow_back(4).unwrap().copy_from_slice(b"tail");
        assert_eq!(frame.bytes(), b"headpayloadtail");
        assert!(frame.shrink_front(4));
        frame.truncate(7);
        assert_eq!(frame.bytes(), b"payload");
        assert!(frame.grow_front(headroom + 1).is_none());
        assert!(frame.grow_back(tailroom).is_none());
        assert!(!frame.shrink_front(8));
        assert_eq!(frame.bytes(), b"payload");
        assert_eq!(frame.grow_front(headroom).unwrap().len(), headroom);
        assert_eq!(frame.headroom(), 0);
        assert!(frame.grow_front_by::<1>().is_none());
        assert!(frame.shrink_front(headroom));
        frame.grow_front_by::<4>().unwrap().copy_from_slice(b"head");
        assert_eq!(frame.bytes(), b"headpayload");
        assert!(frame.shrink_front(4 + 7) && frame.is_empty());
        pool.put(frame);
    }

    #[test]
    fn the_whole_chunk_can_be_a_packet() {
        let umem = umem();
        let mut pool = umem.pool().unwrap();
        let (mut first, mut second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(first.reset(0) && second.reset(0) && !first.reset(CHUNK_BYTES + 1));
        assert!(first.copy_from(&[0xaa; CHUNK_BYTES]) && second.copy_from(&[0xbb; CHUNK_BYTES]));
        assert!(!first.copy_from(&[0; CHUNK_BYTES + 1]));
        assert!(first.bytes().iter().all(|&b| b == 0xaa) && second.bytes().iter().all(|&b| b == 0xbb));
        assert!(first.shrink_front(CHUNK_BYTES));
        assert_eq!(
            (first.headroom(), first.tailroom(), first.len()),
            (CHUNK_BYTES, 0, 0)
        );
        assert!(first.grow_back(1).is_none() && first.space_mut().is_empty());
        pool.put(first);
        pool.put(second);
    }

    proptest! {
        /// Against a vector: any order of operations gives the same bytes, and room is conserved.
        #[test]
        fn edits_as_a_vector_does(operations in proptest::collection::vec((0u8..6, 0usize..600), 0..60)) {
            let umem = umem();
            let mut pool = umem.pool().unwrap();
            let mut frame = pool.take().unwrap();
            let mut model: std::collections::VecDeque<u8> = Default::default();
            let mut mark = 0u8;
            for (operation, count) in operations {
                mark = mark.wrapping_add(1);
                match operation {
                    4 => {
                        let fits = count <= frame.headroom() && count / 2 <= frame.tailroom();
                        let old = frame.len();
                        let grown = frame.grow_both(count, count / 2);
                        prop_assert_eq!(grown.is_some(), fits);
                        if let Some(bytes) = grown {
                            bytes[..count].fill(mark);
                            bytes[count + old..].fill(mark);
                            for _ in 0..count { model.push_front(mark); }
                            model.extend(std::iter::repeat_n(mark, count / 2));
                        }
                    }
                    5 => {
                        let fits = count / 2 <= model.len() && count <= model.len() - count / 2;
                        prop_assert_eq!(frame.narrow(count / 2, count), fits);
                        if fits {
                            model.drain(..count / 2);
                            model.truncate(count);
                        }
                    }
                    0 => {
                        let fits = count <= frame.headroom();
                        prop_assert_eq!(frame.grow_front(count).map(|b| b.fill(mark)).is_some(), fits);
                        if fits { for _ in 0..count { model.push_front(mark); } }
                    }
                    1 => {
                        let fits = count <= frame.tailroom();
                        prop_assert_eq!(frame.grow_back(count).map(|b| b.fill(mark)).is_some(), fits);
                        if fits { model.extend(std::iter::repeat_n(mark, count)); }
                    }
                    2 => {
                        let fits = count <= model.len();
                        prop_assert_eq!(frame.shrink_front(count), fits);
                        if fits { model.drain(..count); }
                    }
                    _ => { frame.truncate(count); model.truncate(count); }
                }
                prop_assert_eq!(frame.bytes(), model.make_contiguous() as &[u8]);
                prop_assert_eq!(frame.headroom() + frame.len() + frame.tailroom(), CHUNK_BYTES);
            }
            pool.put(frame);
        }
    }
}
