//! [`FramePool`]: the free chunks of one worker's UMEM.

use std::sync::atomic::Ordering;

use super::{
    custody::{Custody, FREE},
    frame::Frame,
    umem::Umem,
};

/// The chunks that nobody uses, last in first out: the chunk freed last is the likeliest to be in the cache. Room for
/// every chunk is reserved when it is made, so it never allocates after.
#[derive(Debug)]
pub struct FramePool<'u> {
    custody: Custody<'u>,
    free: Vec<u32>,
    reserve: u32,
}

impl<'u> FramePool<'u> {
    /// The caller sees to it that there is no other pool of this UMEM.
    pub(super) fn new(umem: &'u Umem) -> Self {
        let mut free = Vec::with_capacity(umem.frame_count() as usize);
        free.extend(Custody::new(umem, FREE, 0).chunks());
        // The lowest chunk goes out first.
        free.reverse();
        // A sixteenth stays for packets the worker itself makes: errors, fragments, what comes from the TAP.
        let reserve = (umem.frame_count() / 16).min(256);
        Self {
            custody: Custody::new(umem, FREE, free.len() as u32),
            free,
            reserve,
        }
    }

    /// An empty frame with the headroom of a received packet, or `None` when all are in use.
    #[inline]
    pub fn take(&mut self) -> Option<Frame<'u>> {
        let chunk = self.free.pop()?;
        let frame = self
            .custody
            .claim(chunk, self.custody.umem().packet_headroom_bytes(), 0);
        debug_assert!(frame.is_some(), "the list and the table agree");
        frame
    }

    /// Frees a frame.
    #[inline]
    pub fn put(&mut self, frame: Frame<'u>) {
        let chunk = self.custody.surrender(frame);
        self.free.push(chunk);
    }

    /// Free chunks.
    #[inline]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether no chunk is free.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Free chunks that queues leave for packets the worker makes itself.
    pub fn reserve(&self) -> u32 {
        self.reserve
    }

    /// Changes the reserve.
    pub fn set_reserve(&mut self, frames: u32) {
        self.reserve = frames;
    }

    /// The UMEM these chunks are of.
    pub fn umem(&self) -> &'u Umem {
        self.custody.umem()
    }

    /// Hands a free chunk to a queue for receiving, the reserve excepted.
    #[inline]
    pub(super) fn lend(&mut self, to: &mut Custody<'u>) -> Option<u32> {
        if self.free.len() <= self.reserve as usize {
            return None;
        }
        let chunk = self.free.pop()?;
        if self.custody.pass(chunk, to) {
            return Some(chunk);
        }
        debug_assert!(false, "a queue of another UMEM");
        self.free.push(chunk);
        None
    }

    /// Takes back a chunk from a queue's custody; false when it was not in it.
    #[inline]
    pub(super) fn take_back(&mut self, chunk: u32, from: &mut Custody<'u>) -> bool {
        let came = from.pass(chunk, &mut self.custody);
        if came {
            self.free.push(chunk);
        }
        came
    }
}

impl Drop for FramePool<'_> {
    fn drop(&mut self) {
        self.custody.umem().pool_taken.store(false, Ordering::Release);
    }
}
