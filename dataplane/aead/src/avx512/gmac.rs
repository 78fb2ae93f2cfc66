//! AES-GMAC for ESP (RFC 4543): the hash of [`gcm`](super::gcm) over a whole packet, nothing encrypted.
//!
//! Authenticated are SPI, sequence number (its high half too, if extended), IV and payload. With an extended
//! number the row begins four bytes before the packet, and its first eight bytes are given.

use core::arch::x86_64::*;

use super::gcm_key::{GcmFamily, GcmKey};
use super::ghash::{Sum, reverse_block, reverse_bytes};
use crate::batch::Selection;
use crate::job::{Job, Verdict};

/// Seals or opens the selected jobs, whose lengths have been checked.
///
/// # Safety
/// The processor has the engine's features.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
pub(crate) unsafe fn run<'a, J: Job<'a>, const RK: usize, const PW: usize>(
    jobs: &mut [J],
    selection: &Selection,
) where
    GcmKey<RK, PW>: GcmFamily + 'a,
{
    for &at in selection.positions() {
        let job = &mut jobs[usize::from(at)];
        let Some(view) = GcmKey::<RK, PW>::view(job.material()) else {
            continue;
        };
        let sequence = job.sequence();
        let packet = job.packet();
        if J::SEAL {
            packet[8..16].copy_from_slice(&sequence.to_be_bytes());
        }
        let iv = packet[8..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        let high = view.esn.then_some((sequence >> 32) as u32);
        let Some((body, icv)) = packet.split_last_chunk_mut::<16>() else {
            continue;
        };
        let hash = hash(view.key, body, high);
        let nonce = u128::from(u32::from_le_bytes(view.salt)) | u128::from(iv) << 32;
        let tag = _mm_xor_si128(hash, view.key.tag_mask(nonce));
        let verdict = if J::SEAL {
            // SAFETY: `icv` is 16 bytes.
            unsafe { _mm_storeu_si128(icv.as_mut_ptr().cast(), tag) };
            Verdict::Done
        } else {
            // SAFETY: `icv` is 16 bytes.
            let difference = _mm_xor_si128(unsafe { _mm_loadu_si128(icv.as_ptr().cast()) }, tag);
            if _mm_testz_si128(difference, difference) == 1 {
                Verdict::Done
            } else {
                Verdict::AuthenticationFailed
            }
        };
        job.set_verdict(verdict);
    }
}

/// The hash of a packet without its ICV, as it is added to the tag mask.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
fn hash<const RK: usize, const PW: usize>(key: &GcmKey<RK, PW>, body: &[u8], high: Option<u32>) -> __m128i {
    let before = if high.is_some() { 4 } else { 0 };
    let total = body.len() + before;
    let blocks = total.div_ceil(16);
    let vectors = (blocks + 1).div_ceil(4);
    let pad = 4 * vectors - (blocks + 1);
    let slack = 16 * blocks - total;
    // Where lane 0 would be; nothing before the ninth byte of the row is loaded.
    let base = body.as_ptr().wrapping_sub(16 * pad + before);
    let first_mask = (!0u64 << (16 * pad)) << 8;
    let last_mask = !0u64 >> (16 + slack);
    let mut head = [0; 8];
    head.copy_from_slice(&body[..8]);
    if let Some(high) = high {
        head[4..].copy_from_slice(&high.to_be_bytes());
    }
    let group_vectors = PW / 4;
    let mut hash = _mm_setzero_si128();
    let mut done = 0;
    while done < vectors {
        // A shorter group first, as in GCM.
        let count = if done == 0 {
            (vectors - 1) % group_vectors + 1
        } else {
            group_vectors
        };
        let mut sum = Sum::zero();
        for z in 0..count {
            let vector = done + z;
            let mut mask = !0;
            if vector == 0 {
                mask &= first_mask;
            }
            if vector + 1 == vectors {
                mask &= last_mask;
            }
            // SAFETY: the mask covers bytes of `body` alone.
            let mut bytes = unsafe { _mm512_maskz_loadu_epi8(mask, base.wrapping_add(64 * vector).cast()) };
            if vector == 0 {
                let head = _mm512_set1_epi64(i64::from_le_bytes(head));
                bytes = _mm512_mask_mov_epi64(bytes, 1 << (2 * pad), head);
            }
            let mut lanes = reverse_bytes(bytes);
            if z == 0 {
                lanes = _mm512_xor_si512(lanes, _mm512_zextsi128_si512(hash));
            }
            if vector + 1 == vectors {
                let bits = _mm512_set1_epi64((8 * total as u64).cast_signed());
                lanes = _mm512_mask_xor_epi64(lanes, 0b1000_0000, lanes, bits);
            }
            let powers = key.powers(count - 1 - z);
            sum.add::<false>(lanes, powers, powers);
        }
        hash = sum.reduce::<false>();
        done += count;
    }
    reverse_block(hash)
}
