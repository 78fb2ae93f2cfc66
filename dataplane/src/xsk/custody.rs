//! [`Custody`]: the right to turn chunks that one party holds into frames, and back.

use std::sync::atomic::Ordering;

use super::{
    frame::Frame,
    umem::{CHUNK_BYTES, Umem},
};

/// The chunk is in the pool.
pub(super) const FREE: u8 = 0;
/// The chunk is in somebody's hands, as a frame.
pub(super) const HELD: u8 = 1;
/// The first number of a custody that a queue has; even ones are for receiving, odd ones for sending.
pub(super) const FIRST_CUSTODY: u8 = 2;

/// One owner number of a UMEM's table. There is one custody a number, so no two can claim the same chunk; that is why
/// relaxed loads and stores are enough.
#[derive(Debug)]
pub(super) struct Custody<'u> {
    umem: &'u Umem,
    number: u8,
    count: u32,
}

impl<'u> Custody<'u> {
    /// The caller sees to it that there is no other custody of this number, and that `count` chunks have it.
    pub(super) fn new(umem: &'u Umem, number: u8, count: u32) -> Self {
        Self { umem, number, count }
    }

    /// Chunks in this custody.
    #[inline(always)]
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn umem(&self) -> &'u Umem {
        self.umem
    }

    /// Takes the chunk out of this custody as a frame. `None` when it is not in it, or when the packet would not lie in
    /// the chunk: then nothing has changed.
    #[inline]
    pub(super) fn claim(&mut self, chunk: u32, start: usize, len: usize) -> Option<Frame<'u>> {
        let owner = self.umem.owner(chunk)?;
        if owner.load(Ordering::Relaxed) != self.number || start > CHUNK_BYTES || len > CHUNK_BYTES - start {
            return None;
        }
        owner.store(HELD, Ordering::Relaxed);
        self.count -= 1;
        // SAFETY: the table says that this custody had the chunk, this custody is the only one of its number, and now
        // the table says HELD, which no custody is numbered: so this is the only frame of the chunk. Whoever held the
        // chunk before (the kernel) has given it back, or this method would not be called with its number. The bounds
        // are checked above.
        Some(unsafe { Frame::new(self.umem.chunk(chunk), start as u16, len as u16) })
    }

    /// Ends a frame and puts its chunk in this custody; says which chunk.
    ///
    /// # Panics
    ///
    /// When the frame is of another UMEM: no traffic can bring that about, only a worker that mixes up its queues.
    #[inline]
    pub(super) fn surrender(&mut self, frame: Frame<'u>) -> u32 {
        let chunk = self.umem.chunk_index(frame.chunk());
        let owner = chunk.and_then(|chunk| self.umem.owner(chunk));
        let (Some(chunk), Some(owner)) = (chunk, owner) else {
            panic!("a frame came to a queue or pool of another UMEM");
        };
        debug_assert_eq!(owner.load(Ordering::Relaxed), HELD);
        owner.store(self.number, Ordering::Relaxed);
        self.count += 1;
        chunk
    }

    /// Moves a chunk from this custody to another of the same UMEM; false, and nothing changed, when it is not here.
    #[inline]
    pub(super) fn pass(&mut self, chunk: u32, to: &mut Custody<'u>) -> bool {
        let Some(owner) = self.umem.owner(chunk) else {
            return false;
        };
        if owner.load(Ordering::Relaxed) != self.number || !std::ptr::eq(self.umem, to.umem) {
            return false;
        }
        owner.store(to.number, Ordering::Relaxed);
        self.count -= 1;
        to.count += 1;
        true
    }

    /// The chunks in this custody, found by looking at the whole table.
    pub(super) fn chunks(&self) -> impl Iterator<Item = u32> + use<'u> {
        let (umem, number) = (self.umem, self.number);
        (0..umem.frame_count()).filter(move |&chunk| {
            umem.owner(chunk)
                .is_some_and(|o| o.load(Ordering::Relaxed) == number)
        })
    }
}

impl Drop for Custody<'_> {
    fn drop(&mut self) {
        // With chunks left the number stays taken: they are lost, but never claimed by another.
        if self.number >= FIRST_CUSTODY && self.count == 0 {
            self.umem.return_custody(self.number);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::xsk::umem::UmemConfig;

    #[test]
    fn claims_only_what_was_surrendered_to_it() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 4,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut pool = umem.pool().unwrap();
        let (mut receiving, mut sending) = umem.custody_pair().unwrap();
        let chunk = receiving.surrender(pool.take().unwrap());
        assert!(sending.claim(chunk, 0, 0).is_none(), "another custody's");
        assert!(receiving.claim(chunk + 1, 0, 0).is_none(), "not given out");
        assert!(receiving.claim(4, 0, 0).is_none(), "not there");
        assert!(
            receiving.claim(chunk, 1, CHUNK_BYTES).is_none(),
            "beyond the chunk"
        );
        assert!(
            receiving.claim(chunk, CHUNK_BYTES + 1, 0).is_none(),
            "beyond the chunk"
        );
        let frame = receiving.claim(chunk, 300, 64).unwrap();
        assert_eq!((frame.headroom(), frame.len()), (300, 64));
        assert!(receiving.claim(chunk, 300, 64).is_none(), "only once");
        assert_eq!(sending.surrender(frame), chunk);
        assert!(sending.pass(chunk, &mut receiving) && !sending.pass(chunk, &mut receiving));
        assert_eq!((receiving.count(), sending.count()), (1, 0));
        assert_eq!(receiving.chunks().collect::<Vec<_>>(), [chunk]);
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn refuses_a_frame_of_another_umem() {
        let config = UmemConfig {
            frame_count: 1,
            ..UmemConfig::default()
        };
        let (here, there) = (Umem::new(&config).unwrap(), Umem::new(&config).unwrap());
        let mut pool = here.pool().unwrap();
        let mut other = there.pool().unwrap();
        let frame = pool.take().unwrap();
        other.put(frame);
    }
}
