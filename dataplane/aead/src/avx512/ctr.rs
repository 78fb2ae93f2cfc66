//! AES-CTR (RFC 3686), sixteen blocks at a time.

use core::arch::x86_64::*;

use super::etm::EtmKey;

/// XORs a text in place with the key stream of nonce, IV and a block counter from one (RFC 3686 §4).
///
/// # Safety
/// `text` is valid for reads and writes over `text_bytes`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes,sse4.1")]
pub(crate) unsafe fn crypt<const RK: usize>(
    key: &EtmKey,
    nonce: [u8; 4],
    iv: u64,
    text: *mut u8,
    text_bytes: usize,
) {
    let mut round_keys = [_mm512_setzero_si512(); RK];
    for (vector, key) in round_keys.iter_mut().zip(&key.round_keys) {
        // SAFETY: a round key is 16 bytes.
        *vector = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(key.as_ptr().cast()) });
    }
    let start = _mm_set_epi64x(
        (iv >> 32).cast_signed(),
        (u64::from(u32::from_le_bytes(nonce)) | iv << 32).cast_signed(),
    );
    let start = _mm512_xor_si512(_mm512_broadcast_i32x4(start), round_keys[0]);
    let mut counter = _mm512_set_epi32(4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0);
    let mut done = 0;
    while done + 256 <= text_bytes {
        // SAFETY: 256 bytes of the text from here.
        unsafe { crypt_vectors::<RK, 4>(&round_keys, start, &mut counter, text.add(done), !0) };
        done += 256;
    }
    while done < text_bytes {
        let some = (text_bytes - done).min(64);
        // SAFETY: the mask covers the `some` bytes of the text from here.
        unsafe {
            crypt_vectors::<RK, 1>(
                &round_keys,
                start,
                &mut counter,
                text.add(done),
                !0 >> (64 - some),
            )
        };
        done += some;
    }
}

/// Ciphers `Z` vectors; `mask` says which bytes of each are text.
///
/// # Safety
/// The masked bytes are valid for reads and writes.
#[target_feature(enable = "avx512f,avx512bw,vaes")]
#[inline]
unsafe fn crypt_vectors<const RK: usize, const Z: usize>(
    keys: &[__m512i; RK],
    start: __m512i,
    counter: &mut __m512i,
    at: *mut u8,
    mask: u64,
) {
    let four = _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0);
    // The counter is the last word of a block, big-endian.
    let turn = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    let mut state = [_mm512_setzero_si512(); Z];
    for block in &mut state {
        *block = _mm512_xor_si512(start, _mm512_shuffle_epi8(*counter, turn));
        *counter = _mm512_add_epi32(*counter, four);
    }
    for key in &keys[1..RK - 1] {
        for block in &mut state {
            *block = _mm512_aesenc_epi128(*block, *key);
        }
    }
    for (z, block) in state.into_iter().enumerate() {
        let stream = _mm512_aesenclast_epi128(block, keys[RK - 1]);
        // SAFETY: the caller's contract.
        unsafe {
            let at = at.add(64 * z);
            let text = _mm512_maskz_loadu_epi8(mask, at.cast_const().cast());
            _mm512_mask_storeu_epi8(at.cast(), mask, _mm512_xor_si512(text, stream));
        }
    }
}
