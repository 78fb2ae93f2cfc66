//! Batches of AES-GCM packets (RFC 4106) over [`gcm::crypt`]: rows made ready, packets of equal length
//! gathered, tags written or compared.

use core::arch::x86_64::*;

use super::gcm::{self, Gcm128, Gcm192, Gcm256, GcmKey, Row};
use super::ghash::product;
use super::prefers_karatsuba;
use crate::batch::{MAX_BATCH, Selection};
use crate::job::{Job, Verdict};
use crate::material::Material;

/// Packets worked on at once while each fits in one group of vectors.
const INTERLEAVED: usize = 4;
/// How many packets ahead keys are fetched.
const PREFETCH_PACKETS: usize = 8;

/// A GCM key as a packet needs it.
#[derive(Clone, Copy)]
pub(crate) struct KeyView<'a, K> {
    key: &'a K,
    salt: [u8; 4],
    esn: bool,
}

/// GCM keys of one length, and how to find one in a job's key.
pub(crate) trait GcmFamily: Sized {
    /// The key in `material`, if it is of this length.
    fn view<'a>(material: &'a Material) -> Option<KeyView<'a, Self>>;
}

macro_rules! family {
    ($key:ty, $variant:ident) => {
        impl GcmFamily for $key {
            #[inline]
            fn view<'a>(material: &'a Material) -> Option<KeyView<'a, Self>> {
                match material {
                    Material::$variant { salt, esn, key } => Some(KeyView {
                        key,
                        salt: *salt,
                        esn: *esn,
                    }),
                    _ => None,
                }
            }
        }
    };
}
family!(Gcm128, Gcm128);
family!(Gcm192, Gcm192);
family!(Gcm256, Gcm256);

/// Seals or opens the selected jobs, whose lengths have been checked.
///
/// # Safety
/// The processor has the engine's features.
pub(crate) unsafe fn run<'a, J: Job<'a>, const RK: usize, const PW: usize, const GV: usize>(
    jobs: &mut [J],
    selection: &Selection,
) where
    GcmKey<RK, PW>: GcmFamily,
{
    // SAFETY: the caller's contract.
    unsafe {
        if prefers_karatsuba() {
            run_with::<J, RK, PW, GV, { product::KARATSUBA }>(jobs, selection);
        } else {
            run_with::<J, RK, PW, GV, { product::SCHOOLBOOK }>(jobs, selection);
        }
    }
}

/// Additional data (RFC 4106 §5): SPI and sequence number, as a left-aligned number, and its length.
#[inline]
fn additional_data(packet: &[u8], sequence: u64, esn: bool) -> (u128, usize) {
    let spi_and_low = packet.first_chunk().copied().map_or(0, u64::from_be_bytes);
    if esn {
        let high = (spi_and_low & !0xffff_ffff) | sequence >> 32;
        (u128::from(high) << 64 | u128::from(spi_and_low << 32), 12)
    } else {
        (u128::from(spi_and_low) << 64, 8)
    }
}

#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
fn run_with<'a, J: Job<'a>, const RK: usize, const PW: usize, const GV: usize, const KARATSUBA: bool>(
    jobs: &mut [J],
    selection: &Selection,
) where
    GcmKey<RK, PW>: GcmFamily + 'a,
{
    let positions = selection.positions();
    let Some(filler) = positions
        .first()
        .and_then(|&at| GcmFamily::view(jobs[usize::from(at)].material()))
    else {
        return;
    };
    let mut keys: [&GcmKey<RK, PW>; MAX_BATCH] = [filler.key; MAX_BATCH];
    let mut rows = [Row::EMPTY; MAX_BATCH];
    for &at in positions {
        let at = usize::from(at);
        let job = &mut jobs[at];
        let Some(view) = GcmKey::view(job.material()) else {
            continue;
        };
        keys[at] = view.key;
        let sequence = job.sequence();
        let packet = job.packet();
        let (aad, aad_bytes) = additional_data(packet, sequence, view.esn);
        if J::SEAL {
            // RFC 4106 §3.1: the IV never repeats, as the sequence number does not.
            packet[8..16].copy_from_slice(&sequence.to_be_bytes());
        }
        let iv = packet[8..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        let text_bytes = packet.len() - 32;
        rows[at] = Row::new(packet.as_mut_ptr(), text_bytes, view.salt, iv, aad, aad_bytes);
    }
    let order = selection.ordered_by(|at| rows[at].vectors);
    let mut rest = order.positions();
    while let Some((&at, tail)) = rest.split_first() {
        let at = usize::from(at);
        let vectors = rows[at].vectors;
        if let Some(four) = rest.first_chunk::<INTERLEAVED>()
            && vectors <= GV
            && four.iter().all(|&at| rows[usize::from(at)].vectors == vectors)
        {
            for &ahead in rest.iter().skip(PREFETCH_PACKETS).take(INTERLEAVED) {
                keys[usize::from(ahead)].prefetch();
            }
            let at = four.map(usize::from);
            let (keys, rows) = (at.map(|at| keys[at]), at.map(|at| &rows[at]));
            // SAFETY: each row is a job's packet of checked length, which nothing else refers to.
            let tags = unsafe {
                if J::SEAL {
                    gcm::crypt::<RK, PW, GV, INTERLEAVED, true, KARATSUBA, false>(keys, rows)
                } else {
                    gcm::crypt::<RK, PW, GV, INTERLEAVED, false, KARATSUBA, false>(keys, rows)
                }
            };
            for (at, tag) in at.into_iter().zip(tags) {
                finish(&mut jobs[at], tag);
            }
            rest = &rest[INTERLEAVED..];
        } else {
            if let Some(&ahead) = rest.get(PREFETCH_PACKETS / 2) {
                keys[usize::from(ahead)].prefetch();
            }
            let (keys, rows) = ([keys[at]], [&rows[at]]);
            // SAFETY: as above.
            let [tag] = unsafe {
                match (J::SEAL, vectors > gcm::MAX_SHORT_VECTORS) {
                    (true, false) => gcm::crypt::<RK, PW, GV, 1, true, KARATSUBA, false>(keys, rows),
                    (false, false) => gcm::crypt::<RK, PW, GV, 1, false, KARATSUBA, false>(keys, rows),
                    (true, true) => gcm::crypt::<RK, PW, GV, 1, true, KARATSUBA, true>(keys, rows),
                    (false, true) => gcm::crypt::<RK, PW, GV, 1, false, KARATSUBA, true>(keys, rows),
                }
            };
            finish(&mut jobs[at], tag);
            rest = tail;
        }
    }
}

/// Writes the tag, or compares it and wipes the text where it differs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,sse4.1")]
#[inline]
fn finish<'a, J: Job<'a>>(job: &mut J, tag: __m128i) {
    let packet = job.packet();
    let Some((body, icv)) = packet.split_last_chunk_mut::<16>() else {
        return;
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
            body[16..].fill(0);
            Verdict::AuthenticationFailed
        }
    };
    job.set_verdict(verdict);
}
