//! ChaCha20 (RFC 8439 §2.3), sixteen blocks at a time, each lane with its own key, nonce and counter.

use core::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::multi_hash::unroll;
use super::transpose::transpose_32;

/// A ChaCha20 key, as large as the other transforms' keys, so that erasing it leaves no byte of what lay
/// in its place before.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct ChaChaKey {
    key: [u8; 32],
    unused: [u8; 336],
}

impl ChaChaKey {
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            unused: [0; 336],
        }
    }
}

/// The input block of a packet: constants, key, counter (ignored), nonce.
#[derive(Clone, Copy, Zeroize)]
#[repr(C, align(64))]
pub(crate) struct InputBlock([u32; 16]);

impl InputBlock {
    /// Nothing.
    pub(crate) const EMPTY: Self = Self([0; 16]);

    /// "expand 32-byte k", the key, and a nonce of salt and IV (RFC 7634 §2).
    #[inline]
    pub(crate) fn new(key: &ChaChaKey, salt: [u8; 4], iv: u64) -> Self {
        let mut words = [0; 16];
        words[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in words[4..12].iter_mut().zip(key.key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        words[13] = u32::from_le_bytes(salt);
        words[14] = iv as u32;
        words[15] = (iv >> 32) as u32;
        Self(words)
    }
}

/// The key stream of sixteen blocks: lane `i` is the block of `inputs[i]` with counter `counters[i]`.
///
/// # Safety
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) unsafe fn blocks(inputs: [&InputBlock; 16], counters: &[u32; 16]) -> [__m512i; 16] {
    // SAFETY: an input block is 64 bytes, and so are the counters.
    let (rows, counters) = unsafe {
        let rows: [__m512i; 16] = core::array::from_fn(|i| _mm512_loadu_si512(inputs[i].0.as_ptr().cast()));
        (rows, _mm512_loadu_si512(counters.as_ptr().cast()))
    };
    let mut start = transpose_32(rows);
    start[12] = counters;
    finish(start)
}

/// The key stream of sixteen blocks of one packet from `counter` on.
///
/// # Safety
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) unsafe fn run_of_blocks(input: &InputBlock, counter: u32) -> [__m512i; 16] {
    let mut start: [__m512i; 16] = core::array::from_fn(|i| _mm512_set1_epi32(input.0[i].cast_signed()));
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    start[12] = _mm512_add_epi32(_mm512_set1_epi32(counter.cast_signed()), lanes);
    finish(start)
}

/// Twenty rounds, the addition of the input, and each lane's words brought together.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn finish(start: [__m512i; 16]) -> [__m512i; 16] {
    let mut x = start;
    macro_rules! step {
        ($a:literal, $b:literal, $d:literal, $bits:literal) => {
            x[$a] = _mm512_add_epi32(x[$a], x[$b]);
            x[$d] = _mm512_rol_epi32(_mm512_xor_si512(x[$d], x[$a]), $bits);
        };
    }
    // Four quarter rounds side by side.
    macro_rules! quarters {
        ($([$a:literal $b:literal $c:literal $d:literal])*) => {
            $(step!($a, $b, $d, 16);)*
            $(step!($c, $d, $b, 12);)*
            $(step!($a, $b, $d, 8);)*
            $(step!($c, $d, $b, 7);)*
        };
    }
    for _ in 0..10 {
        quarters!([0 4 8 12] [1 5 9 13] [2 6 10 14] [3 7 11 15]);
        quarters!([0 5 10 15] [1 6 11 12] [2 7 8 13] [3 4 9 14]);
    }
    unroll!(I in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        x[I] = _mm512_add_epi32(x[I], start[I]);
    });
    transpose_32(x)
}
