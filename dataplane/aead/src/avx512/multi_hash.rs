//! HMACs of several packets at once, a packet to a lane: sixteen lanes of 32-bit words, or eight of 64-bit.
//!
//! Lanes walk their own blocks: whole blocks of the packet, then one or two built in a tail buffer (the
//! rest, the high half of an extended sequence number, padding, length). A lane that has finished is masked
//! off. The outer hash is one block in every lane.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::transpose::{transpose_32, transpose_64};
use crate::hmac::{Hash, HmacState, MAX_OUTPUT_BYTES};

/// Repeats a block with a constant index.
macro_rules! unroll {
    ($index:ident in [$($value:literal)*] $body:block) => {
        $({
            const $index: usize = $value;
            $body
        })*
    };
}
pub(super) use unroll;

/// A hash that runs in lanes of a vector.
pub(crate) trait MultiHash: Hash {
    /// Lanes: 16 or 8.
    const LANES: usize;
    /// With fewer messages than these, one after the other is faster.
    const WORTHWHILE: usize;

    /// Absorbs a block per lane; the first [`Self::LANES`] pointers count.
    ///
    /// # Safety
    /// The processor has AVX-512 F and BW, and each pointer is valid for reading a block.
    unsafe fn compress_lanes(state: &mut [__m512i; 8], blocks: &[*const u8; 16]);
}

/// A message to authenticate.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) state: &'a HmacState,
    pub(crate) bytes: *const u8,
    pub(crate) length: usize,
    /// Bytes after the message: the high half of the sequence number, if authenticated.
    pub(crate) suffix: Option<[u8; 4]>,
}

/// Room for the last blocks of a message.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Tail([u8; 256]);

/// Authenticates up to [`MultiHash::LANES`] messages.
///
/// # Safety
/// The processor has AVX-512 F and BW; each message's bytes are valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn macs<H: MultiHash>(messages: &[Message<'_>], out: &mut [[u8; MAX_OUTPUT_BYTES]; 16]) {
    let count = messages.len().min(H::LANES);
    let messages = &messages[..count];
    let mut tails = [Tail([0; 256]); 16];
    let mut whole_blocks = [0usize; 16];
    let mut blocks = [0usize; 16];
    let mut words = Words::new();
    for (lane, message) in messages.iter().enumerate() {
        whole_blocks[lane] = message.length / H::BLOCK_BYTES;
        let rest = message.length % H::BLOCK_BYTES;
        let tail = &mut tails[lane].0;
        // SAFETY: the last `rest` bytes of the message, into a buffer that is longer than a block.
        unsafe {
            let from = message.bytes.add(message.length - rest);
            core::ptr::copy_nonoverlapping(from, tail.as_mut_ptr(), rest);
        }
        let mut end = rest;
        if let Some(suffix) = message.suffix {
            tail[end..end + 4].copy_from_slice(&suffix);
            end += 4;
        }
        let total = H::BLOCK_BYTES + message.length + end - rest;
        tail[end] = 0x80;
        let padded = (end + 1 + 2 * H::WORD_BYTES).next_multiple_of(H::BLOCK_BYTES);
        tail[padded - 8..padded].copy_from_slice(&(8 * total as u64).to_be_bytes());
        blocks[lane] = whole_blocks[lane] + padded / H::BLOCK_BYTES;
        words.set_lane::<H>(lane, &message.state.inner);
    }
    let mut state = words.load();
    let longest = blocks.iter().copied().max().unwrap_or(0);
    let shortest = blocks[..count].iter().copied().min().unwrap_or(0);
    let idle = tails[15].0.as_ptr();
    for step in 0..longest {
        let mut at = [idle; 16];
        for (lane, at) in at[..count].iter_mut().enumerate() {
            *at = if step < whole_blocks[lane] {
                // SAFETY: a whole block within the message.
                unsafe { messages[lane].bytes.add(step * H::BLOCK_BYTES) }
            } else if step < blocks[lane] {
                tails[lane].0[(step - whole_blocks[lane]) * H::BLOCK_BYTES..].as_ptr()
            } else {
                idle
            };
        }
        let before = state;
        // SAFETY: each pointer is at a block of a message, of a tail, or at the idle buffer.
        unsafe { H::compress_lanes(&mut state, &at) };
        if step >= shortest {
            let mut active = 0u16;
            for (lane, blocks) in blocks[..count].iter().enumerate() {
                active |= u16::from(step < *blocks) << lane;
            }
            for (word, before) in state.iter_mut().zip(before) {
                *word = if H::WORD_BYTES == 8 {
                    _mm512_mask_mov_epi64(before, active as u8, *word)
                } else {
                    _mm512_mask_mov_epi32(before, active, *word)
                };
            }
        }
    }
    // The outer hash: the inner digest, padding, length.
    words.store(&state);
    let digest_bytes = H::OUTPUT_WORDS * H::WORD_BYTES;
    for (lane, message) in messages.iter().enumerate() {
        let tail = &mut tails[lane].0[..H::BLOCK_BYTES];
        tail.fill(0);
        words.write_lane::<H>(lane, tail);
        tail[digest_bytes] = 0x80;
        tail[H::BLOCK_BYTES - 8..]
            .copy_from_slice(&(8 * (H::BLOCK_BYTES + digest_bytes) as u64).to_be_bytes());
        words.set_lane::<H>(lane, &message.state.outer);
    }
    let at = tails.each_ref().map(|tail| tail.0.as_ptr());
    let mut state = words.load();
    // SAFETY: each pointer is at a tail buffer.
    unsafe { H::compress_lanes(&mut state, &at) };
    words.store(&state);
    for (lane, out) in out[..count].iter_mut().enumerate() {
        words.write_lane::<H>(lane, out);
    }
    words.0.zeroize();
}

/// Chaining values, word by word, each across all lanes.
#[repr(C, align(64))]
struct Words([[u64; 8]; 8]);

impl Words {
    const fn new() -> Self {
        Self([[0; 8]; 8])
    }

    #[inline]
    fn set_lane<H: MultiHash>(&mut self, lane: usize, words: &[u64; 8]) {
        for (row, word) in self.0.iter_mut().zip(words) {
            if H::WORD_BYTES == 8 {
                row[lane] = *word;
            } else {
                let shift = 32 * (lane % 2);
                let pair = &mut row[lane / 2];
                *pair = (*pair & !(0xffff_ffff << shift)) | (*word & 0xffff_ffff) << shift;
            }
        }
    }

    /// The digest of a lane.
    #[inline]
    fn write_lane<H: MultiHash>(&self, lane: usize, out: &mut [u8]) {
        for (i, row) in self.0[..H::OUTPUT_WORDS].iter().enumerate() {
            if H::WORD_BYTES == 8 {
                out[8 * i..8 * i + 8].copy_from_slice(&row[lane].to_be_bytes());
            } else {
                let word = (row[lane / 2] >> (32 * (lane % 2))) as u32;
                out[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(&self) -> [__m512i; 8] {
        // SAFETY: a row is 64 bytes.
        core::array::from_fn(|i| unsafe { _mm512_loadu_si512(self.0[i].as_ptr().cast()) })
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(&mut self, state: &[__m512i; 8]) {
        for (row, word) in self.0.iter_mut().zip(state) {
            // SAFETY: a row is 64 bytes.
            unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), *word) };
        }
    }
}

/// Loads a 64-byte block per lane and turns it to sixteen big-endian words across lanes.
///
/// # Safety
/// Each pointer is valid for reading 64 bytes.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) unsafe fn load_words_32(blocks: &[*const u8; 16]) -> [__m512i; 16] {
    let order = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    // SAFETY: the caller's contract.
    transpose_32(core::array::from_fn(|i| unsafe {
        _mm512_shuffle_epi8(_mm512_loadu_si512(blocks[i].cast()), order)
    }))
}

/// Loads a 128-byte block per lane, eight lanes, and turns it to sixteen big-endian words across lanes.
///
/// # Safety
/// The first eight pointers are valid for reading 128 bytes.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) unsafe fn load_words_64(blocks: &[*const u8; 16]) -> [__m512i; 16] {
    let order = _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    let mut words = [_mm512_setzero_si512(); 16];
    for half in 0..2 {
        // SAFETY: the caller's contract.
        let columns = transpose_64(core::array::from_fn(|i| unsafe {
            _mm512_shuffle_epi8(_mm512_loadu_si512(blocks[i].add(64 * half).cast()), order)
        }));
        words[8 * half..8 * half + 8].copy_from_slice(&columns);
    }
    words
}
