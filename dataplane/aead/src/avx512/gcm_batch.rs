//! Batches of AES-GCM packets (RFC 4106) over [`gcm::crypt`]: rows made ready, packets of equal length
//! gathered, tags written or compared.

use core::arch::x86_64::*;

use super::gcm;
use super::gcm_key::{GcmFamily, GcmKey};
use super::gcm_row::{self, Frame, Row};
use super::ghash::product;
use super::prefers_karatsuba;
use crate::batch::Selection;
use crate::job::{Job, Verdict};
use crate::material::Material;

/// Packets worked on at once while each fits in one group of vectors.
const INTERLEAVED: usize = 2;
/// How many packets ahead keys are fetched.
const PREFETCH_PACKETS: usize = 8;

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
pub(crate) fn additional_data(packet: &[u8], sequence: u64, esn: bool) -> (u128, usize) {
    let spi_and_low = packet.first_chunk().copied().map_or(0, u64::from_be_bytes);
    if esn {
        let high = (spi_and_low & !0xffff_ffff) | sequence >> 32;
        (u128::from(high) << 64 | u128::from(spi_and_low << 32), 12)
    } else {
        (u128::from(spi_and_low) << 64, 8)
    }
}

/// Packets that are worked on together, made ready.
struct Group<'a, K> {
    /// [`INTERLEAVED`] or one.
    count: usize,
    at: [usize; INTERLEAVED],
    keys: [&'a K; INTERLEAVED],
    rows: [Row; INTERLEAVED],
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
    let order = selection.ordered_by(|at| gcm_row::vectors(jobs[at].packet_bytes() - 32));
    let (mut rest, mut sizes) = (order.positions(), order.sizes());
    let Some(filler) = rest
        .first()
        .and_then(|&at| GcmFamily::view(jobs[usize::from(at)].material()))
    else {
        return;
    };
    // A group is made ready while the one before it is worked on: the processor overlaps the two, and what
    // was stored for a row has left the store buffer when vectors are loaded from it.
    let empty = || Group {
        count: 0,
        at: [0; INTERLEAVED],
        keys: [filler.key; INTERLEAVED],
        rows: [Row::EMPTY; INTERLEAVED],
    };
    let mut groups: [Group<'a, GcmKey<RK, PW>>; 2] = [empty(), empty()];
    let mut turn = 0;
    let mut frame = Frame::of(0);
    while let (Some(&first), Some(&size)) = (rest.first(), sizes.first()) {
        let together = usize::from(size) < 63
            && sizes
                .first_chunk::<INTERLEAVED>()
                .is_some_and(|all| all.iter().all(|other| *other == size));
        let count = if together { INTERLEAVED } else { 1 };
        let material = jobs[usize::from(first)].material();
        for &ahead in rest.iter().skip(PREFETCH_PACKETS).take(count) {
            let ahead = jobs[usize::from(ahead)].material();
            if !core::ptr::eq(ahead, material) {
                prefetch(ahead);
            }
        }
        let group = &mut groups[turn];
        group.count = count;
        for (i, &at) in rest[..count].iter().enumerate() {
            let at = usize::from(at);
            let Some(view) = GcmKey::view(jobs[at].material()) else {
                continue;
            };
            group.at[i] = at;
            group.keys[i] = view.key;
            group.rows[i] = prepare(&mut jobs[at], view.salt, view.esn, &mut frame);
        }
        (rest, sizes) = (&rest[count..], &sizes[count..]);
        turn ^= 1;
        crypt_group::<J, RK, PW, GV, KARATSUBA>(jobs, &groups[turn]);
        groups[turn].count = 0;
    }
    crypt_group::<J, RK, PW, GV, KARATSUBA>(jobs, &groups[turn ^ 1]);
}

/// Brings a key into the cache.
#[inline]
pub(crate) fn prefetch(material: &Material) {
    for offset in (0..size_of::<Material>()).step_by(64) {
        // SAFETY: the address lies within the key; a prefetch faults at no address anyway.
        unsafe {
            _mm_prefetch(
                core::ptr::from_ref(material).cast::<i8>().add(offset),
                _MM_HINT_T0,
            )
        };
    }
}

/// Reads what surrounds a packet's text; writes the IV of a packet to be sealed.
#[inline]
fn prepare<'a, J: Job<'a>>(job: &mut J, salt: [u8; 4], esn: bool, frame: &mut Frame) -> Row {
    let sequence = job.sequence();
    let packet = job.packet();
    let (aad, aad_bytes) = additional_data(packet, sequence, esn);
    let sent = sequence.to_be_bytes();
    let iv = match packet[8..].first_chunk_mut() {
        Some(iv) if J::SEAL => {
            // RFC 4106 §3.1: the IV never repeats, as the sequence number does not.
            *iv = sent;
            sent
        }
        Some(iv) => *iv,
        None => [0; 8],
    };
    let text_bytes = packet.len() - 32;
    // Packets of one length follow each other.
    if frame.text_bytes() != text_bytes {
        *frame = Frame::of(text_bytes);
    }
    Row::new(
        packet.as_mut_ptr(),
        frame,
        salt,
        u64::from_ne_bytes(iv),
        aad,
        aad_bytes,
    )
}

#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
#[inline]
fn crypt_group<'a, J: Job<'a>, const RK: usize, const PW: usize, const GV: usize, const KARATSUBA: bool>(
    jobs: &mut [J],
    group: &Group<'a, GcmKey<RK, PW>>,
) {
    // SAFETY: each row is a job's packet of checked length, which nothing else refers to.
    unsafe {
        match group.count {
            0 => {}
            INTERLEAVED => {
                let rows = group.rows.each_ref();
                let tags = if J::SEAL {
                    gcm::crypt::<RK, PW, GV, INTERLEAVED, true, KARATSUBA, false>(group.keys, rows)
                } else {
                    gcm::crypt::<RK, PW, GV, INTERLEAVED, false, KARATSUBA, false>(group.keys, rows)
                };
                for (at, tag) in group.at.into_iter().zip(tags) {
                    finish(&mut jobs[at], tag);
                }
            }
            _ => {
                let (keys, rows) = ([group.keys[0]], [&group.rows[0]]);
                let [tag] = match (J::SEAL, rows[0].vectors > gcm_row::MAX_SHORT_VECTORS) {
                    (true, false) => gcm::crypt::<RK, PW, GV, 1, true, KARATSUBA, false>(keys, rows),
                    (false, false) => gcm::crypt::<RK, PW, GV, 1, false, KARATSUBA, false>(keys, rows),
                    (true, true) => gcm::crypt::<RK, PW, GV, 1, true, KARATSUBA, true>(keys, rows),
                    (false, true) => gcm::crypt::<RK, PW, GV, 1, false, KARATSUBA, true>(keys, rows),
                };
                finish(&mut jobs[group.at[0]], tag);
            }
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
