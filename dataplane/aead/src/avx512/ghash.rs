//! GHASH arithmetic: GF(2^128) with bits reflected (NIST SP 800-38D §6.3), four products at a time.
//!
//! Blocks are byte-reversed into registers. Powers of the hash key carry a factor x ("H · x"), so that a
//! product of 255 bits needs no shift; it is then reduced from below, 64 bits at a step, by the polynomial
//! x^128 + x^127 + x^126 + x^121 + 1.

use core::arch::x86_64::*;

use super::aes::{from_u128, to_u128};

/// The reduction polynomial without its top bit, reflected.
pub(crate) const POLYNOMIAL: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;

/// How many carry-less multiplications a product takes.
pub(crate) mod product {
    /// Four: fastest where a multiplication costs what a shuffle does (Intel).
    pub(crate) const SCHOOLBOOK: bool = false;
    /// Three, and shuffles: fastest where multiplications are the bottleneck (AMD).
    pub(crate) const KARATSUBA: bool = true;
}

/// A sum of products not yet reduced: low, middle and high part of each of four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    /// No product.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// Adds four products. With `KARATSUBA`, `folded` is [`fold_halves`] of `powers`.
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    #[inline]
    pub(crate) fn add<const KARATSUBA: bool>(&mut self, blocks: __m512i, powers: __m512i, folded: __m512i) {
        let low = _mm512_clmulepi64_epi128(blocks, powers, 0x00);
        let high = _mm512_clmulepi64_epi128(blocks, powers, 0x11);
        self.low = _mm512_xor_si512(self.low, low);
        self.high = _mm512_xor_si512(self.high, high);
        if KARATSUBA {
            let middle = _mm512_clmulepi64_epi128(fold_halves(blocks), folded, 0x00);
            self.middle = _mm512_xor_si512(self.middle, middle);
        } else {
            let one = _mm512_clmulepi64_epi128(blocks, powers, 0x01);
            let other = _mm512_clmulepi64_epi128(blocks, powers, 0x10);
            self.middle = _mm512_ternarylogic_epi64(self.middle, one, other, XOR3);
        }
    }

    /// The sum of all lanes, reduced.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vpclmulqdq,pclmulqdq,sse4.1")]
    #[inline]
    pub(crate) fn reduce<const KARATSUBA: bool>(self) -> __m128i {
        add_lanes(self.reduce_lanes::<KARATSUBA>())
    }

    /// Each lane reduced.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vpclmulqdq,pclmulqdq,sse4.1")]
    #[inline]
    pub(crate) fn reduce_lanes<const KARATSUBA: bool>(self) -> __m512i {
        let Self {
            low,
            mut middle,
            high,
        } = self;
        if KARATSUBA {
            middle = _mm512_ternarylogic_epi64(middle, low, high, XOR3);
        }
        let polynomial = _mm512_broadcast_i32x4(from_u128(POLYNOMIAL));
        let step = _mm512_clmulepi64_epi128(polynomial, low, 0x01);
        let middle = _mm512_ternarylogic_epi64(middle, swap_halves(low), step, XOR3);
        let step = _mm512_clmulepi64_epi128(polynomial, middle, 0x01);
        _mm512_ternarylogic_epi64(high, swap_halves(middle), step, XOR3)
    }
}

/// The sum of four lanes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn add_lanes(lanes: __m512i) -> __m128i {
    let halves = _mm256_xor_si256(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
    _mm_xor_si128(
        _mm256_castsi256_si128(halves),
        _mm256_extracti128_si256(halves, 1),
    )
}

/// The truth table of a three-way exclusive or.
const XOR3: i32 = 0x96;

/// Each lane's halves exchanged.
#[target_feature(enable = "avx512f")]
#[inline]
fn swap_halves(lanes: __m512i) -> __m512i {
    _mm512_shuffle_epi32(lanes, 0x4e)
}

/// Each lane's low half plus its high half, in both halves.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn fold_halves(lanes: __m512i) -> __m512i {
    _mm512_xor_si512(lanes, swap_halves(lanes))
}

/// The byte order of a block reversed, in each lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn reverse_bytes(blocks: __m512i) -> __m512i {
    let order = _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_shuffle_epi8(blocks, order)
}

/// The byte order of one block reversed.
#[target_feature(enable = "ssse3")]
#[inline]
pub(crate) fn reverse_block(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(
        block,
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    )
}

/// Fills `powers` with H^N … H^1 (each times x) from H as the cipher gives it, most significant byte first.
#[target_feature(enable = "pclmulqdq,sse4.1")]
pub(crate) fn expand_powers<const N: usize>(h: u128, powers: &mut [[u8; 16]; N]) {
    // H · x: shifted by one, reduced if a bit falls out. Without a branch on the secret bit.
    let carry = (h >> 127).wrapping_neg();
    let first = from_u128((h << 1) ^ (carry & POLYNOMIAL));
    let mut power = first;
    for slot in powers.iter_mut().rev() {
        *slot = to_u128(power).to_le_bytes();
        power = multiply(power, first);
    }
}

/// One product, reduced as in [`Sum::reduce`].
#[target_feature(enable = "pclmulqdq,sse4.1")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let polynomial = from_u128(POLYNOMIAL);
    let swap = |lane: __m128i| _mm_shuffle_epi32(lane, 0x4e);
    let low = _mm_clmulepi64_si128(a, b, 0x00);
    let high = _mm_clmulepi64_si128(a, b, 0x11);
    let middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    let step = _mm_clmulepi64_si128(polynomial, low, 0x01);
    let middle = _mm_xor_si128(_mm_xor_si128(middle, swap(low)), step);
    let step = _mm_clmulepi64_si128(polynomial, middle, 0x01);
    _mm_xor_si128(_mm_xor_si128(high, swap(middle)), step)
}
