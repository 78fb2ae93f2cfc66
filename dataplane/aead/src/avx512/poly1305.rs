//! Poly1305 (RFC 8439 §2.5) of packets side by side, a packet to a 64-bit lane, with 52-bit multiply-add.
//!
//! A step waits for the one before it, so two vectors of packets run at once.
//!
//! Numbers are three limbs of 44, 44 and 42 bits. A product's low 52 bits and the bits above are summed
//! apart; the upper sum is worth 2^52, that is 2^8 of the next limb.

use core::arch::x86_64::*;

use super::transpose::transpose_64;

/// Packets in a vector.
pub(crate) const LANES: usize = 8;

/// A packet to authenticate.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    /// The one-time key.
    pub(crate) key: [u8; 32],
    /// Additional data, padded.
    pub(crate) aad: [u8; 16],
    pub(crate) aad_bytes: u64,
    pub(crate) text: *const u8,
    pub(crate) text_bytes: usize,
}

impl Message {
    /// Nothing.
    pub(crate) const EMPTY: Self = Self {
        key: [0; 32],
        aad: [0; 16],
        aad_bytes: 0,
        text: core::ptr::null(),
        text_bytes: 0,
    };
}

const LIMB: u64 = (1 << 44) - 1;
const TOP_LIMB: u64 = (1 << 42) - 1;

/// The key's factor, and its upper limbs times 20: what passes 2^132 returns as 5 · 2^2.
#[derive(Clone, Copy)]
struct Factor {
    r: [__m512i; 3],
    s: [__m512i; 2],
}

/// Tags of `G` vectors of messages.
///
/// # Safety
/// The processor has AVX-512 F, BW and IFMA; each text is valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
pub(crate) unsafe fn tags<const G: usize>(messages: &[[Message; LANES]; G]) -> [[[u8; 16]; LANES]; G] {
    let zero = _mm512_setzero_si512();
    let mut factors = [Factor {
        r: [zero; 3],
        s: [zero; 2],
    }; G];
    let mut hashes = [[zero; 3]; G];
    for g in 0..G {
        factors[g] = Factor::new(&messages[g]);
        let (low, high) = (
            column(&messages[g], |m| le(&m.aad, 0)),
            column(&messages[g], |m| le(&m.aad, 1)),
        );
        absorb(&mut hashes[g], low, high, &factors[g], !0);
    }
    let lengths = messages.as_flattened().iter().map(|m| m.text_bytes);
    let (longest, shortest) = lengths.fold((0, usize::MAX), |(max, min), n| (n.max(max), n.min(min)));
    let mut done = 0;
    while done < longest {
        let everywhere = done + 64 <= shortest;
        let mut words = [[zero; 8]; G];
        for (words, messages) in words.iter_mut().zip(messages) {
            // SAFETY: the mask covers text bytes alone.
            *words = transpose_64(core::array::from_fn(|i| unsafe {
                let left = messages[i].text_bytes.saturating_sub(done);
                let mask = if left >= 64 { !0 } else { (1u64 << left) - 1 };
                _mm512_maskz_loadu_epi8(mask, messages[i].text.wrapping_add(done).cast())
            }));
        }
        for block in 0..4 {
            for g in 0..G {
                let mut active = !0u8;
                if !everywhere {
                    active = 0;
                    for (i, message) in messages[g].iter().enumerate() {
                        active |= u8::from(done + 16 * block < message.text_bytes) << i;
                    }
                }
                absorb(
                    &mut hashes[g],
                    words[g][2 * block],
                    words[g][2 * block + 1],
                    &factors[g],
                    active,
                );
            }
        }
        done += 64;
    }
    core::array::from_fn(|g| {
        let messages = &messages[g];
        let (low, high) = (
            column(messages, |m| m.aad_bytes),
            column(messages, |m| m.text_bytes as u64),
        );
        absorb(&mut hashes[g], low, high, &factors[g], !0);
        let hash: [[u64; 8]; 3] = hashes[g].map(|lanes| spread(lanes));
        core::array::from_fn(|i| finish([hash[0][i], hash[1][i], hash[2][i]], &messages[i].key))
    })
}

impl Factor {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(messages: &[Message; LANES]) -> Self {
        // r with its bits cleared (RFC 8439 §2.5.1).
        let clear = |word, bits| _mm512_and_si512(word, _mm512_set1_epi64(bits));
        let low = clear(column(messages, |m| le(&m.key, 0)), 0x0fff_fffc_0fff_ffff);
        let high = clear(column(messages, |m| le(&m.key, 1)), 0x0fff_fffc_0fff_fffc);
        let r = split(low, high, _mm512_set1_epi64(LIMB.cast_signed()));
        let twenty = |x: __m512i| _mm512_add_epi64(_mm512_slli_epi64(x, 4), _mm512_slli_epi64(x, 2));
        Self {
            r,
            s: [twenty(r[1]), twenty(r[2])],
        }
    }
}

/// One word of each message.
#[target_feature(enable = "avx512f")]
#[inline]
fn column(messages: &[Message; LANES], word: impl Fn(&Message) -> u64) -> __m512i {
    let words: [u64; LANES] = core::array::from_fn(|i| word(&messages[i]));
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

fn le(bytes: &[u8], word: usize) -> u64 {
    bytes[8 * word..]
        .first_chunk()
        .copied()
        .map_or(0, u64::from_le_bytes)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn spread(lanes: __m512i) -> [u64; 8] {
    let mut words = [0; 8];
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), lanes) };
    words
}

/// 128 bits to limbs.
#[target_feature(enable = "avx512f")]
#[inline]
fn split(low: __m512i, high: __m512i, limb: __m512i) -> [__m512i; 3] {
    let middle = _mm512_or_si512(_mm512_srli_epi64(low, 44), _mm512_slli_epi64(high, 20));
    [
        _mm512_and_si512(low, limb),
        _mm512_and_si512(middle, limb),
        _mm512_srli_epi64(high, 24),
    ]
}

/// hash = (hash + block + 2^128) · r in the active lanes.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn absorb(hash: &mut [__m512i; 3], low: __m512i, high: __m512i, factor: &Factor, active: u8) {
    let limb = _mm512_set1_epi64(LIMB.cast_signed());
    let block = split(low, high, limb);
    let h0 = _mm512_add_epi64(hash[0], block[0]);
    let h1 = _mm512_add_epi64(hash[1], block[1]);
    let top = _mm512_or_si512(block[2], _mm512_set1_epi64(1 << 40));
    let h2 = _mm512_add_epi64(hash[2], top);
    let Factor {
        r: [r0, r1, r2],
        s: [s1, s2],
    } = *factor;
    let zero = _mm512_setzero_si512();
    macro_rules! sum {
        ($madd:ident; $($x:ident * $y:ident),*) => {{
            let mut sum = zero;
            $(sum = $madd(sum, $x, $y);)*
            sum
        }};
    }
    let low0 = sum!(_mm512_madd52lo_epu64; h0 * r0, h1 * s2, h2 * s1);
    let high0 = sum!(_mm512_madd52hi_epu64; h0 * r0, h1 * s2, h2 * s1);
    let low1 = sum!(_mm512_madd52lo_epu64; h0 * r1, h1 * r0, h2 * s2);
    let high1 = sum!(_mm512_madd52hi_epu64; h0 * r1, h1 * r0, h2 * s2);
    let low2 = sum!(_mm512_madd52lo_epu64; h0 * r2, h1 * r1, h2 * r0);
    let high2 = sum!(_mm512_madd52hi_epu64; h0 * r2, h1 * r1, h2 * r0);
    let carry = _mm512_srli_epi64(low0, 44);
    let d1 = _mm512_add_epi64(_mm512_add_epi64(low1, _mm512_slli_epi64(high0, 8)), carry);
    let carry = _mm512_srli_epi64(d1, 44);
    let d2 = _mm512_add_epi64(_mm512_add_epi64(low2, _mm512_slli_epi64(high1, 8)), carry);
    // What passes 2^130 comes back five times.
    let over = _mm512_add_epi64(_mm512_srli_epi64(d2, 42), _mm512_slli_epi64(high2, 10));
    let five = _mm512_add_epi64(over, _mm512_slli_epi64(over, 2));
    let d0 = _mm512_add_epi64(_mm512_and_si512(low0, limb), five);
    let carry = _mm512_srli_epi64(d0, 44);
    let next = [
        _mm512_and_si512(d0, limb),
        _mm512_add_epi64(_mm512_and_si512(d1, limb), carry),
        _mm512_and_si512(d2, _mm512_set1_epi64(TOP_LIMB.cast_signed())),
    ];
    for (word, next) in hash.iter_mut().zip(next) {
        *word = _mm512_mask_mov_epi64(*word, active, next);
    }
}

/// The hash reduced and the key's second half added (RFC 8439 §2.5.1), without branches.
fn finish(hash: [u64; 3], key: &[u8; 32]) -> [u8; 16] {
    let [mut h0, mut h1, mut h2] = hash;
    // Carries: twice round leaves less than 2^130 with full limbs.
    for _ in 0..2 {
        h1 += h0 >> 44;
        h0 &= LIMB;
        h2 += h1 >> 44;
        h1 &= LIMB;
        h0 += 5 * (h2 >> 42);
        h2 &= TOP_LIMB;
    }
    h1 += h0 >> 44;
    h0 &= LIMB;
    h2 += h1 >> 44;
    h1 &= LIMB;
    // If hash + 5 passes 2^130, that less 2^130 is the reduced hash.
    let g0 = h0 + 5;
    let g1 = h1 + (g0 >> 44);
    let g2 = h2 + (g1 >> 44);
    let take = (g2 >> 42).wrapping_neg();
    h0 = (h0 & !take) | (g0 & LIMB & take);
    h1 = (h1 & !take) | (g1 & LIMB & take);
    h2 = (h2 & !take) | (g2 & TOP_LIMB & take);
    let number = u128::from(h0) | u128::from(h1) << 44 | u128::from(h2) << 88;
    let pad = key[16..].first_chunk().copied().map_or(0, u128::from_le_bytes);
    number.wrapping_add(pad).to_le_bytes()
}
