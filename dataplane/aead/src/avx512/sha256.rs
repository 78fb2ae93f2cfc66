//! SHA-256 (FIPS 180-4 §6.2) of one block in each of sixteen lanes.

use core::arch::x86_64::*;

use super::multi_hash::{MultiHash, unroll};
use crate::hmac::Sha256;

/// The round constants (FIPS 180-4 §4.2.2).
static CONSTANTS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

impl MultiHash for Sha256 {
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
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        macro_rules! xor3 {
            ($x:expr, $y:expr, $z:expr) => {
                _mm512_ternarylogic_epi32($x, $y, $z, 0x96)
            };
        }
        macro_rules! ror {
            ($x:expr, $bits:literal) => {
                _mm512_ror_epi32($x, $bits)
            };
        }
        macro_rules! round {
            ($t:ident of $sixteen:expr) => {
                let k = _mm512_set1_epi32(CONSTANTS[16 * $sixteen + $t].cast_signed());
                let choice = _mm512_ternarylogic_epi32(e, f, g, 0xca);
                let majority = _mm512_ternarylogic_epi32(a, b, c, 0xe8);
                let sum1 = xor3!(ror!(e, 6), ror!(e, 11), ror!(e, 25));
                let sum0 = xor3!(ror!(a, 2), ror!(a, 13), ror!(a, 22));
                let early = _mm512_add_epi32(_mm512_add_epi32(h, k), w[$t]);
                let one = _mm512_add_epi32(_mm512_add_epi32(early, choice), sum1);
                let two = _mm512_add_epi32(sum0, majority);
                (h, g, f, e) = (g, f, e, _mm512_add_epi32(d, one));
                (d, c, b, a) = (c, b, a, _mm512_add_epi32(one, two));
            };
        }
        // The same word of the next sixteen.
        macro_rules! extend {
            ($t:ident) => {
                let near = w[($t + 14) % 16];
                let far = w[($t + 1) % 16];
                let sigma1 = xor3!(ror!(near, 17), ror!(near, 19), _mm512_srli_epi32(near, 10));
                let sigma0 = xor3!(ror!(far, 7), ror!(far, 18), _mm512_srli_epi32(far, 3));
                let sums = _mm512_add_epi32(sigma1, sigma0);
                w[$t] = _mm512_add_epi32(_mm512_add_epi32(w[$t], w[($t + 9) % 16]), sums);
            };
        }
        for sixteen in 0..3 {
            unroll!(T in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
                round!(T of sixteen);
                extend!(T);
                if T % 8 == 7 {
                    between(2 * sixteen + T / 8);
                }
            });
        }
        unroll!(T in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
            round!(T of 3);
            if T % 8 == 7 {
                between(6 + T / 8);
            }
        });
        for (word, after) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = _mm512_add_epi32(*word, after);
        }
    }
}
