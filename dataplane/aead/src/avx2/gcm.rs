//! AES-GCM of one packet, eight blocks at a step.
//!
//! What is left after the whole steps is copied, ciphered and hashed in a buffer of eight blocks that ends
//! with the length block; zero blocks in front of it add nothing to a GHASH.

use core::arch::x86_64::*;

use crate::avx512::aes::from_u128;
use crate::avx512::gcm_key::GcmKey;
use crate::avx512::ghash::{POLYNOMIAL, reverse_block};
use crate::avx512::multi_hash::unroll;

/// Blocks of a step.
const BLOCKS: usize = 8;
/// Bytes of a step.
const STEP_BYTES: usize = 16 * BLOCKS;

/// What surrounds a packet's text.
pub(super) struct Frame {
    /// The counter block in memory order, its last word zero.
    pub(super) nonce: u128,
    /// The additional data as a left-aligned big-endian number.
    pub(super) aad: u128,
    pub(super) aad_bytes: usize,
}

/// A sum of products not yet reduced.
#[derive(Clone, Copy)]
struct Sum {
    low: __m256i,
    middle: __m256i,
    high: __m256i,
}

impl Sum {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn zero() -> Self {
        let zero = _mm256_setzero_si256();
        Self {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    #[target_feature(enable = "avx2,vpclmulqdq")]
    #[inline]
    fn add(&mut self, blocks: __m256i, powers: __m256i) {
        let one = _mm256_clmulepi64_epi128(blocks, powers, 0x01);
        let other = _mm256_clmulepi64_epi128(blocks, powers, 0x10);
        self.low = _mm256_xor_si256(self.low, _mm256_clmulepi64_epi128(blocks, powers, 0x00));
        self.high = _mm256_xor_si256(self.high, _mm256_clmulepi64_epi128(blocks, powers, 0x11));
        self.middle = _mm256_xor_si256(self.middle, _mm256_xor_si256(one, other));
    }

    /// The sum of both lanes, reduced; see [`ghash`](crate::avx512::ghash).
    #[target_feature(enable = "avx2,vpclmulqdq,sse4.1")]
    #[inline]
    fn reduce(self) -> __m128i {
        let polynomial = _mm256_broadcastsi128_si256(from_u128(POLYNOMIAL));
        let swap = |lanes: __m256i| _mm256_shuffle_epi32(lanes, 0x4e);
        let step = _mm256_clmulepi64_epi128(polynomial, self.low, 0x01);
        let middle = _mm256_xor_si256(_mm256_xor_si256(self.middle, swap(self.low)), step);
        let step = _mm256_clmulepi64_epi128(polynomial, middle, 0x01);
        let lanes = _mm256_xor_si256(_mm256_xor_si256(self.high, swap(middle)), step);
        _mm_xor_si128(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1))
    }
}

/// Counter blocks two by two.
struct Counter {
    nonce: __m256i,
    next: __m256i,
}

impl Counter {
    /// From 2 on (NIST SP 800-38D §7.1).
    #[target_feature(enable = "avx2,sse4.1")]
    #[inline]
    fn new(nonce: u128) -> Self {
        Self {
            nonce: _mm256_broadcastsi128_si256(from_u128(nonce)),
            next: _mm256_set_epi32(3, 0, 0, 0, 2, 0, 0, 0),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn pair(&mut self) -> __m256i {
        // The counter is the last word, big-endian.
        let turn =
            _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        let block = _mm256_or_si256(self.nonce, _mm256_shuffle_epi8(self.next, turn));
        self.next = _mm256_add_epi32(self.next, _mm256_set_epi32(2, 0, 0, 0, 2, 0, 0, 0));
        block
    }

    /// The key stream of a step. `between` is done for each pair of blocks between the rounds.
    #[target_feature(enable = "avx2,vaes")]
    #[inline]
    fn stream<const RK: usize>(
        &mut self,
        round_keys: &[__m256i; RK],
        mut between: impl FnMut(usize),
    ) -> [__m256i; BLOCKS / 2] {
        let mut state = [_mm256_setzero_si256(); BLOCKS / 2];
        for pair in &mut state {
            *pair = _mm256_xor_si256(self.pair(), round_keys[0]);
        }
        unroll!(ROUND in [1 2 3 4 5 6 7 8 9 10 11 12 13] {
            if ROUND < RK - 1 {
                for pair in &mut state {
                    *pair = _mm256_aesenc_epi128(*pair, round_keys[ROUND]);
                }
                // The even rounds of the first eight: four pairs.
                if ROUND.is_multiple_of(2) && ROUND <= BLOCKS {
                    between((ROUND - 1) / 2);
                }
            }
        });
        for pair in &mut state {
            *pair = _mm256_aesenclast_epi128(*pair, round_keys[RK - 1]);
        }
        state
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn reverse_bytes(blocks: __m256i) -> __m256i {
    let order =
        _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm256_shuffle_epi8(blocks, order)
}

/// Encrypts (`SEAL`) or decrypts a text in place and returns its tag.
///
/// # Safety
/// `text` is valid for reads and writes over `text_bytes`.
#[target_feature(enable = "avx2,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1")]
pub(super) unsafe fn crypt<const RK: usize, const PW: usize, const SEAL: bool>(
    key: &GcmKey<RK, PW>,
    frame: &Frame,
    text: *mut u8,
    text_bytes: usize,
) -> __m128i {
    let round_keys: [__m256i; RK] = core::array::from_fn(|round| {
        // SAFETY: a round key is 16 bytes.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(key.round_keys[round].as_ptr().cast()) })
    });
    // H^8 and H^7, H^6 and H^5, …
    let powers: [__m256i; BLOCKS / 2] = core::array::from_fn(|pair| {
        let two = &key.powers[PW - BLOCKS + 2 * pair..][..2];
        // SAFETY: two powers are 32 bytes.
        unsafe { _mm256_loadu_si256(two.as_ptr().cast()) }
    });
    let mut sum = Sum::zero();
    // The additional data is the second of a pair, the first nothing.
    let aad = _mm256_set_m128i(from_u128(frame.aad), _mm_setzero_si128());
    sum.add(aad, powers[BLOCKS / 2 - 1]);
    let mut hash = sum.reduce();
    let mut counter = Counter::new(frame.nonce);
    let mut done = 0;
    // Sealing hashes the step before between the rounds of the next, opening what it is about to decrypt.
    let mut pending = !SEAL;
    while done + STEP_BYTES <= text_bytes {
        // SAFETY: a step of the text, and sealed the one before it.
        unsafe {
            let at = text.add(done);
            let hashed = if SEAL { at.wrapping_sub(STEP_BYTES) } else { at };
            let mut sum = Sum::zero();
            let stream = counter.stream(&round_keys, |pair| {
                if pending {
                    let mut blocks =
                        reverse_bytes(_mm256_loadu_si256(hashed.add(32 * pair).cast_const().cast()));
                    if pair == 0 {
                        blocks = _mm256_xor_si256(blocks, _mm256_zextsi128_si256(hash));
                    }
                    sum.add(blocks, powers[pair]);
                }
            });
            if pending {
                hash = sum.reduce();
            }
            for (pair, stream) in stream.into_iter().enumerate() {
                let at: *mut __m256i = at.add(32 * pair).cast();
                let bytes = _mm256_loadu_si256(at.cast_const());
                _mm256_storeu_si256(at, _mm256_xor_si256(bytes, stream));
            }
        }
        pending = true;
        done += STEP_BYTES;
    }
    if SEAL && done > 0 {
        let mut sum = Sum::zero();
        for (pair, powers) in powers.into_iter().enumerate() {
            // SAFETY: 32 bytes of the last step.
            let bytes =
                unsafe { _mm256_loadu_si256(text.add(done - STEP_BYTES + 32 * pair).cast_const().cast()) };
            let mut blocks = reverse_bytes(bytes);
            if pair == 0 {
                blocks = _mm256_xor_si256(blocks, _mm256_zextsi128_si256(hash));
            }
            sum.add(blocks, powers);
        }
        hash = sum.reduce();
    }
    let rest = text_bytes - done;
    let rest_blocks = rest.div_ceil(16);
    let mut input = Buffer([_mm256_setzero_si256(); BLOCKS / 2]);
    let mut output = Buffer([_mm256_setzero_si256(); BLOCKS / 2]);
    // Two steps of ciphertext that end with the length block; the first is used where the rest is eight blocks.
    let mut row = [0u8; 2 * STEP_BYTES];
    let start = 2 * STEP_BYTES - 16 * (rest_blocks + 1);
    if rest > 0 {
        let into: *mut u8 = input.0.as_mut_ptr().cast();
        // SAFETY: `rest` bytes of the text, fewer than a buffer's.
        unsafe { core::ptr::copy_nonoverlapping(text.add(done).cast_const(), into, rest) };
        let stream = counter.stream(&round_keys, |_| ());
        for ((output, input), stream) in output.0.iter_mut().zip(&input.0).zip(stream) {
            *output = _mm256_xor_si256(*input, stream);
        }
        let ciphertext = if SEAL { &output } else { &input };
        // SAFETY: as above; the row has room for `rest` bytes before its length block.
        unsafe {
            core::ptr::copy_nonoverlapping(output.0.as_ptr().cast(), text.add(done), rest);
            core::ptr::copy_nonoverlapping(ciphertext.0.as_ptr().cast(), row[start..].as_mut_ptr(), rest);
        }
    }
    let lengths = 8 * ((frame.aad_bytes as u128) << 64 | text_bytes as u128);
    row[2 * STEP_BYTES - 16..].copy_from_slice(&lengths.to_be_bytes());
    // The hash so far meets the first block.
    let mut first = start % STEP_BYTES;
    for step in row.chunks_exact_mut(STEP_BYTES).skip(start / STEP_BYTES) {
        for (byte, hash) in step[first..].iter_mut().zip(bytes_of(reverse_block(hash))) {
            *byte ^= hash;
        }
        first = 0;
        let mut sum = Sum::zero();
        for (pair, powers) in powers.into_iter().enumerate() {
            // SAFETY: 32 bytes of the step.
            let blocks = unsafe { _mm256_loadu_si256(step[32 * pair..].as_ptr().cast()) };
            sum.add(reverse_bytes(blocks), powers);
        }
        hash = sum.reduce();
    }
    _mm_xor_si128(reverse_block(hash), key.tag_mask(frame.nonce))
}

/// Room for a step that is not whole; it may hold plaintext.
struct Buffer([__m256i; BLOCKS / 2]);

impl Drop for Buffer {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn bytes_of(block: __m128i) -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: 16 bytes.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), block) };
    bytes
}
