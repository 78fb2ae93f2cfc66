//! Batches of AES-GCM packets (RFC 4106), one after the other.

use core::arch::x86_64::*;

use super::gcm::{self, Frame};
use crate::avx512::gcm_batch::{additional_data, prefetch};
use crate::avx512::gcm_key::{GcmFamily, GcmKey};
use crate::batch::Selection;
use crate::job::{Job, Verdict};

/// How many packets ahead keys are fetched.
const PREFETCH_PACKETS: usize = 4;

/// Seals or opens the selected jobs, whose lengths have been checked.
///
/// # Safety
/// The processor has the engine's features.
#[target_feature(enable = "avx2,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1")]
pub(crate) unsafe fn run<'a, J: Job<'a>, const RK: usize, const PW: usize>(
    jobs: &mut [J],
    selection: &Selection,
) where
    GcmKey<RK, PW>: GcmFamily + 'a,
{
    let positions = selection.positions();
    for (i, &at) in positions.iter().enumerate() {
        let material = jobs[usize::from(at)].material();
        if let Some(&ahead) = positions.get(i + PREFETCH_PACKETS) {
            let ahead = jobs[usize::from(ahead)].material();
            if !core::ptr::eq(ahead, material) {
                prefetch(ahead);
            }
        }
        let Some(view) = GcmKey::<RK, PW>::view(material) else {
            continue;
        };
        let job = &mut jobs[usize::from(at)];
        let sequence = job.sequence();
        let packet = job.packet();
        let (aad, aad_bytes) = additional_data(packet, sequence, view.esn);
        if J::SEAL {
            // RFC 4106 §3.1: the IV never repeats, as the sequence number does not.
            packet[8..16].copy_from_slice(&sequence.to_be_bytes());
        }
        let iv = packet[8..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        let Some((body, icv)) = packet.split_last_chunk_mut::<16>() else {
            continue;
        };
        let text = &mut body[16..];
        let frame = Frame {
            nonce: u128::from(u32::from_le_bytes(view.salt)) | u128::from(iv) << 32,
            aad,
            aad_bytes,
        };
        // SAFETY: the pointer and the length are the text's.
        let tag = unsafe {
            if J::SEAL {
                gcm::crypt::<RK, PW, true>(view.key, &frame, text.as_mut_ptr(), text.len())
            } else {
                gcm::crypt::<RK, PW, false>(view.key, &frame, text.as_mut_ptr(), text.len())
            }
        };
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
                text.fill(0);
                Verdict::AuthenticationFailed
            }
        };
        job.set_verdict(verdict);
    }
}
