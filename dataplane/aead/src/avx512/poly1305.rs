//! Poly1305 (RFC 8439 §2.5) of eight packets side by side, a packet to a 64-bit lane, with 52-bit
//! multiply-add.
//!
//! Numbers are three limbs of 44, 44 and 42 bits. A product's low 52 bits and the bits above are summed
//! apart; the upper sum is worth 2^52, that is 2^8 of the next limb. While every packet has four more
//! blocks, they are multiplied by r^4 … r and carried together: sums of twelve 52-bit products have room.

use core::arch::x86_64::*;

use super::transpose::transpose_64;

/// Packets in a vector.
pub(crate) const LANES: usize = 8;

/// What [`tags`] authenticates; the text of an idle lane is empty.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Messages {
    /// Additional data, padded.
    pub(crate) aad: [[u8; 16]; LANES],
    pub(crate) aad_bytes: [u64; LANES],
    pub(crate) text_bytes: [u64; LANES],
    pub(crate) text: [*const u8; LANES],
}

impl Messages {
    /// Nothing.
    pub(crate) const EMPTY: Self = Self {
        aad: [[0; 16]; LANES],
        aad_bytes: [0; LANES],
        text_bytes: [0; LANES],
        text: [core::ptr::null(); LANES],
    };
}

/// 128-bit numbers across lanes: low and high half.
type Wide = [__m512i; 2];

/// One-time keys across lanes.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    /// The factor, before its bits are cleared.
    r: Wide,
    /// What is added at the end.
    pad: Wide,
}

impl Keys {
    /// Of the first eight words of ChaCha20 blocks across lanes (RFC 8439 §2.6).
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn new(words: [__m256i; 8]) -> Self {
        let wide = |low, high| {
            _mm512_or_si512(
                _mm512_cvtepu32_epi64(low),
                _mm512_slli_epi64(_mm512_cvtepu32_epi64(high), 32),
            )
        };
        Self {
            r: [wide(words[0], words[1]), wide(words[2], words[3])],
            pad: [wide(words[4], words[5]), wide(words[6], words[7])],
        }
    }
}

const LIMB: u64 = (1 << 44) - 1;
const TOP_LIMB: u64 = (1 << 42) - 1;
/// 2^128 in the top limb: every block of an AEAD is whole.
const BLOCK_BIT: i64 = 1 << 40;

#[target_feature(enable = "avx512f")]
#[inline]
fn limb() -> __m512i {
    _mm512_set1_epi64(LIMB.cast_signed())
}

#[target_feature(enable = "avx512f")]
#[inline]
fn top_limb() -> __m512i {
    _mm512_set1_epi64(TOP_LIMB.cast_signed())
}

/// A power of the key's factor, and its upper limbs times 20: what passes 2^132 returns as 5 · 2^2.
#[derive(Clone, Copy)]
struct Factor {
    r: [__m512i; 3],
    s: [__m512i; 2],
}

impl Factor {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(r: [__m512i; 3]) -> Self {
        let twenty = |x: __m512i| _mm512_add_epi64(_mm512_slli_epi64(x, 4), _mm512_slli_epi64(x, 2));
        Self {
            r,
            s: [twenty(r[1]), twenty(r[2])],
        }
    }

    /// r, its bits cleared (RFC 8439 §2.5.1).
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn of(keys: &Keys) -> Self {
        let clear = |word, bits| _mm512_and_si512(word, _mm512_set1_epi64(bits));
        let low = clear(keys.r[0], 0x0fff_fffc_0fff_ffff);
        let high = clear(keys.r[1], 0x0fff_fffc_0fff_fffc);
        Self::new(split([low, high]))
    }
}

/// 128 bits to limbs.
#[target_feature(enable = "avx512f")]
#[inline]
fn split([low, high]: Wide) -> [__m512i; 3] {
    let middle = _mm512_or_si512(_mm512_srli_epi64(low, 44), _mm512_slli_epi64(high, 20));
    [
        _mm512_and_si512(low, limb()),
        _mm512_and_si512(middle, limb()),
        _mm512_srli_epi64(high, 24),
    ]
}

/// A block to limbs, with the bit that every block has above it.
#[target_feature(enable = "avx512f")]
#[inline]
fn split_block(block: Wide) -> [__m512i; 3] {
    let [low, middle, high] = split(block);
    [low, middle, _mm512_or_si512(high, _mm512_set1_epi64(BLOCK_BIT))]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add(a: [__m512i; 3], b: [__m512i; 3]) -> [__m512i; 3] {
    [
        _mm512_add_epi64(a[0], b[0]),
        _mm512_add_epi64(a[1], b[1]),
        _mm512_add_epi64(a[2], b[2]),
    ]
}

/// A sum of up to four products, not yet carried: low and high parts of each limb.
#[derive(Clone, Copy)]
struct Sum {
    low: [__m512i; 3],
    high: [__m512i; 3],
}

impl Sum {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            low: [zero; 3],
            high: [zero; 3],
        }
    }

    /// Adds a product.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn add(&mut self, [h0, h1, h2]: [__m512i; 3], factor: &Factor) {
        let Factor {
            r: [r0, r1, r2],
            s: [s1, s2],
        } = *factor;
        macro_rules! limb {
            ($i:literal; $($x:ident * $y:ident),*) => {
                $(
                    self.low[$i] = _mm512_madd52lo_epu64(self.low[$i], $x, $y);
                    self.high[$i] = _mm512_madd52hi_epu64(self.high[$i], $x, $y);
                )*
            };
        }
        limb!(0; h0 * r0, h1 * s2, h2 * s1);
        limb!(1; h0 * r1, h1 * r0, h2 * s2);
        limb!(2; h0 * r2, h1 * r1, h2 * r0);
    }

    /// The sum modulo 2^130 - 5, limbs short enough for the next product.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn carry(&self) -> [__m512i; 3] {
        let Self { low, high } = *self;
        let d0 = low[0];
        let carry = _mm512_srli_epi64(d0, 44);
        let d1 = _mm512_add_epi64(_mm512_add_epi64(low[1], _mm512_slli_epi64(high[0], 8)), carry);
        let carry = _mm512_srli_epi64(d1, 44);
        let d2 = _mm512_add_epi64(_mm512_add_epi64(low[2], _mm512_slli_epi64(high[1], 8)), carry);
        // What passes 2^130 comes back five times.
        let over = _mm512_add_epi64(_mm512_srli_epi64(d2, 42), _mm512_slli_epi64(high[2], 10));
        let five = _mm512_add_epi64(over, _mm512_slli_epi64(over, 2));
        let d0 = _mm512_add_epi64(_mm512_and_si512(d0, limb()), five);
        [
            _mm512_and_si512(d0, limb()),
            _mm512_add_epi64(_mm512_and_si512(d1, limb()), _mm512_srli_epi64(d0, 44)),
            _mm512_and_si512(d2, top_limb()),
        ]
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply(a: [__m512i; 3], b: &Factor) -> [__m512i; 3] {
    let mut sum = Sum::zero();
    sum.add(a, b);
    sum.carry()
}

/// hash = (hash + block + 2^128) · r in the active lanes.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn absorb(hash: &mut [__m512i; 3], block: Wide, factor: &Factor, active: u8) {
    let next = multiply(add(*hash, split_block(block)), factor);
    for (word, next) in hash.iter_mut().zip(next) {
        *word = _mm512_mask_mov_epi64(*word, active, next);
    }
}

/// 64 bytes of each text from `done` on, word by word; zero beyond a text's end.
///
/// # Safety
/// Each text is valid for reads.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn load(messages: &Messages, done: u64) -> [__m512i; 8] {
    transpose_64(core::array::from_fn(|i| {
        let left = messages.text_bytes[i].saturating_sub(done);
        let mask = if left >= 64 { !0 } else { (1u64 << left) - 1 };
        // SAFETY: the mask covers text bytes alone.
        unsafe { _mm512_maskz_loadu_epi8(mask, messages.text[i].wrapping_add(done as usize).cast()) }
    }))
}

/// The tags of eight messages.
///
/// # Safety
/// The processor has AVX-512 F, BW, VL, DQ and IFMA; each text is valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
pub(crate) unsafe fn tags(keys: &Keys, messages: &Messages) -> [[u8; 16]; LANES] {
    // SAFETY: the arrays are 64 bytes each.
    let (aad, aad_bytes, text_bytes) = unsafe {
        (
            [
                _mm512_loadu_si512(messages.aad.as_ptr().cast()),
                _mm512_loadu_si512(messages.aad[4..].as_ptr().cast()),
            ],
            _mm512_loadu_si512(messages.aad_bytes.as_ptr().cast()),
            _mm512_loadu_si512(messages.text_bytes.as_ptr().cast()),
        )
    };
    let even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    let odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    let r = Factor::of(keys);
    let mut hash = [_mm512_setzero_si512(); 3];
    let first = [even, odd].map(|order| _mm512_permutex2var_epi64(aad[0], order, aad[1]));
    absorb(&mut hash, first, &r, !0);
    let (mut longest, mut shortest) = (0, u64::MAX);
    for &bytes in &messages.text_bytes {
        (longest, shortest) = (longest.max(bytes), shortest.min(bytes));
    }
    let mut done = 0;
    // The powers cost three products.
    if shortest >= 192 {
        let r2 = Factor::new(multiply(r.r, &r));
        let r3 = Factor::new(multiply(r2.r, &r));
        let r4 = Factor::new(multiply(r3.r, &r));
        while done + 64 <= shortest {
            // SAFETY: 64 bytes of every text from here.
            let w = transpose_64(core::array::from_fn(|i| unsafe {
                _mm512_loadu_si512(messages.text[i].wrapping_add(done as usize).cast())
            }));
            let mut sum = Sum::zero();
            sum.add(split_block([w[2], w[3]]), &r3);
            sum.add(split_block([w[4], w[5]]), &r2);
            sum.add(split_block([w[6], w[7]]), &r);
            sum.add(add(hash, split_block([w[0], w[1]])), &r4);
            hash = sum.carry();
            done += 64;
        }
    }
    while done < longest {
        // SAFETY: the caller's contract.
        let w = unsafe { load(messages, done) };
        for block in 0..4 {
            let from = _mm512_set1_epi64((done + 16 * block as u64).cast_signed());
            let active = _mm512_cmpgt_epu64_mask(text_bytes, from);
            if active == 0 {
                break;
            }
            absorb(&mut hash, [w[2 * block], w[2 * block + 1]], &r, active);
        }
        done += 64;
    }
    absorb(&mut hash, [aad_bytes, text_bytes], &r, !0);
    let [low, high] = finish(hash, keys.pad);
    let mut tags = [[0; 16]; LANES];
    let order = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    let upper = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    // SAFETY: four tags are 64 bytes.
    unsafe {
        _mm512_storeu_si512(
            tags.as_mut_ptr().cast(),
            _mm512_permutex2var_epi64(low, order, high),
        );
        _mm512_storeu_si512(
            tags[4..].as_mut_ptr().cast(),
            _mm512_permutex2var_epi64(low, upper, high),
        );
    }
    tags
}

/// The hash reduced and the key's second half added (RFC 8439 §2.5.1).
#[target_feature(enable = "avx512f")]
#[inline]
fn finish(hash: [__m512i; 3], pad: Wide) -> Wide {
    let [mut h0, mut h1, mut h2] = hash;
    // Carries: once round leaves less than 2^130 and a little; twice, full limbs.
    for _ in 0..2 {
        h1 = _mm512_add_epi64(h1, _mm512_srli_epi64(h0, 44));
        h0 = _mm512_and_si512(h0, limb());
        h2 = _mm512_add_epi64(h2, _mm512_srli_epi64(h1, 44));
        h1 = _mm512_and_si512(h1, limb());
        let over = _mm512_srli_epi64(h2, 42);
        h2 = _mm512_and_si512(h2, top_limb());
        h0 = _mm512_add_epi64(h0, _mm512_add_epi64(over, _mm512_slli_epi64(over, 2)));
    }
    h1 = _mm512_add_epi64(h1, _mm512_srli_epi64(h0, 44));
    h0 = _mm512_and_si512(h0, limb());
    h2 = _mm512_add_epi64(h2, _mm512_srli_epi64(h1, 44));
    h1 = _mm512_and_si512(h1, limb());
    // If hash + 5 passes 2^130, that less 2^130 is the reduced hash.
    let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
    let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64(g0, 44));
    let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64(g1, 44));
    let passes = _mm512_cmpgt_epu64_mask(g2, top_limb());
    h0 = _mm512_mask_and_epi64(h0, passes, g0, limb());
    h1 = _mm512_mask_and_epi64(h1, passes, g1, limb());
    h2 = _mm512_mask_and_epi64(h2, passes, g2, top_limb());
    let low = _mm512_or_si512(h0, _mm512_slli_epi64(h1, 44));
    let high = _mm512_or_si512(_mm512_srli_epi64(h1, 20), _mm512_slli_epi64(h2, 24));
    let sum = _mm512_add_epi64(low, pad[0]);
    let carried = _mm512_cmplt_epu64_mask(sum, low);
    let top = _mm512_add_epi64(high, pad[1]);
    [
        sum,
        _mm512_mask_add_epi64(top, carried, top, _mm512_set1_epi64(1)),
    ]
}
