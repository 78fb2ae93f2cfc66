//! Rows to columns: what is a packet's run of words becomes a vector of one word across packets, and back.

use core::arch::x86_64::*;

/// Transposes sixteen rows of sixteen 32-bit words.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn transpose_32(r: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of words, then of pairs, within quarters of four lanes; then quarters.
    let pairs: [__m512i; 16] = core::array::from_fn(|i| {
        let (x, y) = (r[i / 2 * 2], r[i / 2 * 2 + 1]);
        if i % 2 == 0 {
            _mm512_unpacklo_epi32(x, y)
        } else {
            _mm512_unpackhi_epi32(x, y)
        }
    });
    // quads[4 * q + w]: word w of each 16-byte quarter, of lanes 4q to 4q + 3.
    let quads: [__m512i; 16] = core::array::from_fn(|i| {
        let (q, w) = (i / 4, i % 4);
        let (x, y) = (pairs[4 * q + w / 2], pairs[4 * q + 2 + w / 2]);
        if w % 2 == 0 {
            _mm512_unpacklo_epi64(x, y)
        } else {
            _mm512_unpackhi_epi64(x, y)
        }
    });
    // Word i is word i % 4 of quarter i / 4.
    core::array::from_fn(|i| {
        quarter(
            [
                quads[i % 4],
                quads[4 + i % 4],
                quads[8 + i % 4],
                quads[12 + i % 4],
            ],
            i / 4,
        )
    })
}

/// Transposes eight rows of eight 64-bit words.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn transpose_64(r: [__m512i; 8]) -> [__m512i; 8] {
    // pairs[2 * p + w]: word w of each 16-byte quarter, of lanes 2p and 2p + 1.
    let pairs: [__m512i; 8] = core::array::from_fn(|i| {
        let (x, y) = (r[i / 2 * 2], r[i / 2 * 2 + 1]);
        if i % 2 == 0 {
            _mm512_unpacklo_epi64(x, y)
        } else {
            _mm512_unpackhi_epi64(x, y)
        }
    });
    core::array::from_fn(|i| {
        quarter(
            [pairs[i % 2], pairs[2 + i % 2], pairs[4 + i % 2], pairs[6 + i % 2]],
            i / 2,
        )
    })
}

/// The same 16-byte quarter of four vectors, side by side.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn quarter(of: [__m512i; 4], which: usize) -> __m512i {
    let (low, high) = if which.is_multiple_of(2) {
        (
            _mm512_shuffle_i64x2(of[0], of[1], 0x88),
            _mm512_shuffle_i64x2(of[2], of[3], 0x88),
        )
    } else {
        (
            _mm512_shuffle_i64x2(of[0], of[1], 0xdd),
            _mm512_shuffle_i64x2(of[2], of[3], 0xdd),
        )
    };
    if which < 2 {
        _mm512_shuffle_i64x2(low, high, 0x88)
    } else {
        _mm512_shuffle_i64x2(low, high, 0xdd)
    }
}
