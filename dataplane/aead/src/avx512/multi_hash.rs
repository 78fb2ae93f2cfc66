//! HMACs of several packets at once, a packet to a lane: sixteen lanes of 32-bit words, or eight of 64-bit.
//!
//! Lanes walk their own blocks: whole blocks of the packet, then one or two built in a tail buffer (the
//! rest, the high half of an extended sequence number, padding, length). A lane that has finished is masked
//! off. The outer hash is one block in every lane.

use core::arch::x86_64::*;

use super::transpose::{STEPS, Square, transpose_32, transpose_64};
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
pub(crate) use unroll;

/// A hash that runs in lanes of a vector.
pub(crate) trait MultiHash: Hash {
    /// Lanes: 16 or 8.
    const LANES: usize;
    /// With fewer messages than these, one after the other is faster.
    const WORTHWHILE: usize;

    /// Absorbs a block per lane, given as its big-endian words across lanes. `between` is done in [`STEPS`]
    /// parts between the rounds.
    ///
    /// # Safety
    /// The processor has AVX-512 F and BW.
    unsafe fn compress_words(state: &mut [__m512i; 8], words: &[__m512i; 16], between: impl FnMut(usize));
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
/// The processor has AVX-512 F, BW, VL and DQ; each message's bytes are valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(crate) unsafe fn macs<H: MultiHash>(messages: &[Message<'_>], out: &mut [[u8; MAX_OUTPUT_BYTES]; 16]) {
    let count = messages.len().min(H::LANES);
    let messages = &messages[..count];
    let Some(filler) = messages.first() else { return };
    let mut tails = [Tail([0; 256]); 16];
    let mut whole_blocks = [0usize; 16];
    let mut blocks = [0usize; 16];
    for (lane, message) in messages.iter().enumerate() {
        whole_blocks[lane] = message.length / H::BLOCK_BYTES;
        let rest = message.length % H::BLOCK_BYTES;
        let tail = &mut tails[lane].0;
        // SAFETY: the masks cover the last `rest` bytes of the message, less than 128.
        unsafe {
            let from = message.bytes.add(message.length - rest);
            for half in [0, 64] {
                let mask = low_bits(rest.saturating_sub(half));
                let bytes = _mm512_maskz_loadu_epi8(mask, from.wrapping_add(half).cast());
                _mm512_storeu_si512(tail[half..half + 64].as_mut_ptr().cast(), bytes);
                if rest <= 64 {
                    break;
                }
            }
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
    }
    // Idle lanes take the first message: what they hash is not used.
    let state_of = |lane: usize| messages.get(lane).unwrap_or(filler).state;
    let mut state = load_state::<H>(|lane| &state_of(lane).inner);
    let longest = blocks[..count].iter().copied().max().unwrap_or(0);
    let shortest = blocks[..count].iter().copied().min().unwrap_or(0);
    let shortest_whole = whole_blocks[..count].iter().copied().min().unwrap_or(0);
    // Where each lane's block of a step is; after the last step, of the last.
    let advance = |at: &mut [*const u8; 16], step: usize| {
        if step > 0 && step < shortest_whole {
            for at in at {
                *at = at.wrapping_add(H::BLOCK_BYTES);
            }
            return;
        }
        for lane in 0..count {
            at[lane] = if step < whole_blocks[lane] {
                messages[lane].bytes.wrapping_add(step * H::BLOCK_BYTES)
            } else {
                let block = step.min(blocks[lane] - 1) - whole_blocks[lane];
                tails[lane].0[block * H::BLOCK_BYTES..].as_ptr()
            };
        }
        let idle = at[0];
        at[count..].fill(idle);
    };
    let mut at = [core::ptr::null(); 16];
    advance(&mut at, 0);
    // SAFETY: each pointer is at a block of a message or of a tail.
    let mut words = unsafe { load_words::<H>(&at) };
    let mut square = Square::new(words);
    for step in 0..longest {
        let before = state;
        advance(&mut at, step + 1);
        if H::WORD_BYTES == 8 {
            // SAFETY: each pointer is at a block of a message or of a tail.
            unsafe {
                H::compress_words(&mut state, &words, |_| ());
                words = load_words::<H>(&at);
            }
        } else {
            let mut next = words;
            // SAFETY: as above. The next blocks are brought in between the rounds of these.
            unsafe {
                H::compress_words(&mut state, &words, |part| {
                    load_part::<H>(&at, &mut square, &mut next, part);
                });
            }
            words = next;
        }
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
    // The outer hash: the inner digest, padding, length; words across lanes as they are.
    let mut words = [_mm512_setzero_si512(); 16];
    words[..H::OUTPUT_WORDS].copy_from_slice(&state[..H::OUTPUT_WORDS]);
    let bits = 8 * (H::BLOCK_BYTES + H::OUTPUT_WORDS * H::WORD_BYTES) as i64;
    if H::WORD_BYTES == 8 {
        words[H::OUTPUT_WORDS] = _mm512_set1_epi64(i64::MIN);
        words[15] = _mm512_set1_epi64(bits);
    } else {
        words[H::OUTPUT_WORDS] = _mm512_set1_epi32(i32::MIN);
        words[15] = _mm512_set1_epi32(bits as i32);
    }
    let mut state = load_state::<H>(|lane| &state_of(lane).outer);
    // SAFETY: the features are this function's.
    unsafe { H::compress_words(&mut state, &words, |_| ()) };
    let rows = rows::<H>(state);
    for (out, row) in out[..count].iter_mut().zip(&rows) {
        // SAFETY: the place is 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *row) };
    }
}

/// A mask of so many bits, at most 64.
#[inline]
fn low_bits(count: usize) -> u64 {
    if count >= 64 { !0 } else { (1 << count) - 1 }
}

/// Chaining values of each lane, word by word across lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
fn load_state<'a, H: MultiHash>(of: impl Fn(usize) -> &'a [u64; 8]) -> [__m512i; 8] {
    // SAFETY: a chaining value is 64 bytes.
    let row = |lane| unsafe { _mm512_loadu_si512(of(lane).as_ptr().cast()) };
    if H::WORD_BYTES == 8 {
        return transpose_64([row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]);
    }
    // Words take the low half of 64 bits each.
    let row = |lane| _mm512_castsi256_si512(_mm512_cvtepi64_epi32(row(lane)));
    let [a, b, c, d, e, f, g, h, ..] = transpose_32([
        row(0),
        row(1),
        row(2),
        row(3),
        row(4),
        row(5),
        row(6),
        row(7),
        row(8),
        row(9),
        row(10),
        row(11),
        row(12),
        row(13),
        row(14),
        row(15),
    ]);
    [a, b, c, d, e, f, g, h]
}

/// Each lane's words, big-endian, in a row.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn rows<H: MultiHash>(state: [__m512i; 8]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let [a, b, c, d, e, f, g, h] = state;
    if H::WORD_BYTES == 8 {
        let [a, b, c, d, e, f, g, h] = transpose_64(state).map(|row| turn_words::<H>(row));
        [
            a, b, c, d, e, f, g, h, zero, zero, zero, zero, zero, zero, zero, zero,
        ]
    } else {
        let rows = transpose_32([
            a, b, c, d, e, f, g, h, zero, zero, zero, zero, zero, zero, zero, zero,
        ]);
        rows.map(|row| turn_words::<H>(row))
    }
}

/// The bytes of each word reversed.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn turn_words<H: Hash>(row: __m512i) -> __m512i {
    let order = if H::WORD_BYTES == 8 {
        _mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
    } else {
        _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3)
    };
    _mm512_shuffle_epi8(row, _mm512_broadcast_i32x4(order))
}

/// Loads a block per lane and turns it to sixteen words across lanes.
///
/// # Safety
/// Each pointer is valid for reading a block, the first eight of them where words are 64 bits.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn load_words<H: MultiHash>(blocks: &[*const u8; 16]) -> [__m512i; 16] {
    // SAFETY: the caller's contract.
    let row = |lane: usize, offset| unsafe {
        turn_words::<H>(_mm512_loadu_si512(blocks[lane].wrapping_add(offset).cast()))
    };
    if H::WORD_BYTES == 8 {
        let half = |offset| transpose_64(core::array::from_fn(|lane| row(lane, offset)));
        let [a, b, c, d, e, f, g, h] = half(0);
        let [i, j, k, l, m, n, o, p] = half(64);
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    } else {
        transpose_32(core::array::from_fn(|lane| row(lane, 0)))
    }
}

/// One of [`STEPS`] parts of what [`load_words`] does for 32-bit words.
///
/// # Safety
/// As [`load_words`].
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn load_part<H: MultiHash>(
    blocks: &[*const u8; 16],
    square: &mut Square,
    words: &mut [__m512i; 16],
    part: usize,
) {
    if let Some(blocks) = blocks.as_chunks::<4>().0.get(part) {
        // SAFETY: the caller's contract.
        let row = |i: usize| unsafe { turn_words::<H>(_mm512_loadu_si512(blocks[i].cast())) };
        square.replace_four(part, [row(0), row(1), row(2), row(3)]);
        square.transpose_words(part);
    } else {
        let first = part - STEPS / 2;
        for (i, column) in square.columns(first).into_iter().enumerate() {
            words[(4 * i + first) % 16] = column;
        }
    }
}
