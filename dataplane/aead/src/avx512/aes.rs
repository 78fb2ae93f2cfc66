//! AES key schedules (FIPS 197 §5.2) with the AES instructions, so that no table is indexed by key bytes.

use core::arch::x86_64::*;

use zeroize::Zeroize;

/// Round keys in the order the instructions take them.
pub(crate) type RoundKeys<const RK: usize> = [[u8; 16]; RK];

/// The forward schedule; `RK` is the number of rounds and one: 11, 13 or 15 for keys of 16, 24, 32 bytes.
///
/// # Panics
/// Where `key` is not `4 * (RK - 7)` bytes.
#[target_feature(enable = "aes,sse4.1")]
pub(crate) fn expand<const RK: usize>(key: &[u8]) -> RoundKeys<RK> {
    let key_words = RK - 7;
    assert_eq!(key.len(), 4 * key_words);
    let mut words = [0u32; 60];
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut round_constant = 1u32;
    for i in key_words..4 * RK {
        let mut word = words[i - 1];
        if i % key_words == 0 {
            word = substitute(word.rotate_right(8)) ^ round_constant;
            // The constants are public; 0x1b follows 0x80.
            round_constant = (round_constant << 1) ^ if round_constant & 0x80 == 0 { 0 } else { 0x11b };
        } else if key_words > 6 && i % key_words == 4 {
            word = substitute(word);
        }
        words[i] = words[i - key_words] ^ word;
    }
    let mut round_keys = [[0u8; 16]; RK];
    for (i, word) in words[..4 * RK].iter().enumerate() {
        round_keys[i / 4][4 * (i % 4)..][..4].copy_from_slice(&word.to_le_bytes());
    }
    words.zeroize();
    round_keys
}

/// SubWord: with all columns equal, ShiftRows moves nothing and the last round is SubBytes alone.
#[target_feature(enable = "aes,sse4.1")]
fn substitute(word: u32) -> u32 {
    let columns = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aesenclast_si128(columns, _mm_setzero_si128())).cast_unsigned()
}

/// One block, forward.
#[target_feature(enable = "aes,sse4.1")]
pub(crate) fn encrypt_block<const RK: usize>(round_keys: &RoundKeys<RK>, block: u128) -> u128 {
    let key = |r: usize| from_u128(u128::from_le_bytes(round_keys[r]));
    let mut state = _mm_xor_si128(from_u128(block), key(0));
    for r in 1..RK - 1 {
        state = _mm_aesenc_si128(state, key(r));
    }
    to_u128(_mm_aesenclast_si128(state, key(RK - 1)))
}

/// A register of an integer's bytes, least significant first.
#[target_feature(enable = "sse4.1")]
pub(crate) fn from_u128(value: u128) -> __m128i {
    _mm_set_epi64x(((value >> 64) as u64).cast_signed(), (value as u64).cast_signed())
}

/// The integer of a register's bytes, least significant first.
#[target_feature(enable = "sse4.1")]
pub(crate) fn to_u128(value: __m128i) -> u128 {
    let low = _mm_extract_epi64(value, 0).cast_unsigned();
    let high = _mm_extract_epi64(value, 1).cast_unsigned();
    (u128::from(high) << 64) | u128::from(low)
}

/// Turns a forward schedule to that of the equivalent inverse cipher (FIPS 197 §5.3.5).
#[target_feature(enable = "aes,sse4.1")]
pub(crate) fn invert<const RK: usize>(round_keys: &mut RoundKeys<RK>) {
    round_keys.reverse();
    for key in &mut round_keys[1..RK - 1] {
        *key = to_u128(_mm_aesimc_si128(from_u128(u128::from_le_bytes(*key)))).to_le_bytes();
    }
}
