//! SHA-1 (FIPS 180-4 §6.1) of one block in each of sixteen lanes.

use core::arch::x86_64::*;

use super::multi_hash::{MultiHash, unroll};
use super::transpose::STEPS;
use crate::hmac::{Hash, Sha1};

impl MultiHash for Sha1 {
    const LANES: usize = 16;
    const WORTHWHILE: usize = 4;

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn compress_words(
        state: &mut [__m512i; 8],
        words: &[__m512i; 16],
        mut between: impl FnMut(usize),
    ) {
        let mut w = *words;
        let [mut a, mut b, mut c, mut d, mut e, ..] = *state;
        macro_rules! rounds {
            ($function:literal, $constant:literal, $rounds:tt) => {
                let k = _mm512_set1_epi32($constant as i32);
                unroll!(T in $rounds {
                    if T >= 16 {
                        let far = _mm512_xor_si512(w[(T + 13) % 16], w[(T + 8) % 16]);
                        let sum = _mm512_ternarylogic_epi32(far, w[(T + 2) % 16], w[T % 16], 0x96);
                        w[T % 16] = _mm512_rol_epi32(sum, 1);
                    }
                    if T % 9 == 8 && T / 9 < STEPS {
                        between(T / 9);
                    }
                    let f = _mm512_ternarylogic_epi32(b, c, d, $function);
                    let early = _mm512_add_epi32(_mm512_add_epi32(e, k), w[T % 16]);
                    let late = _mm512_add_epi32(f, _mm512_rol_epi32(a, 5));
                    (e, d, c, b, a) = (d, c, _mm512_rol_epi32(b, 30), a, _mm512_add_epi32(early, late));
                });
            };
        }
        // Truth tables: choice, parity, majority.
        rounds!(0xca, 0x5a82_7999u32, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19]);
        rounds!(0x96, 0x6ed9_eba1u32, [20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39]);
        rounds!(0xe8, 0x8f1b_bcdcu32, [40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59]);
        rounds!(0x96, 0xca62_c1d6u32, [60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79]);
        for (word, after) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = _mm512_add_epi32(*word, after);
        }
    }
}

const _: () = assert!(Sha1::BLOCK_BYTES == 64);
