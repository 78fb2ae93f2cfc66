//! Rows to columns: what is a packet's run of words becomes a vector of one word across packets, and back.
//!
//! Every step is written out: a compiler that keeps the steps as a loop moves the rows through memory.

use core::arch::x86_64::*;

use zeroize::Zeroize;

/// Transposes a square of four quarters (16 bytes each) by four vectors.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let even_ab = _mm512_shuffle_i64x2(a, b, 0x88);
    let odd_ab = _mm512_shuffle_i64x2(a, b, 0xdd);
    let even_cd = _mm512_shuffle_i64x2(c, d, 0x88);
    let odd_cd = _mm512_shuffle_i64x2(c, d, 0xdd);
    [
        _mm512_shuffle_i64x2(even_ab, even_cd, 0x88),
        _mm512_shuffle_i64x2(odd_ab, odd_cd, 0x88),
        _mm512_shuffle_i64x2(even_ab, even_cd, 0xdd),
        _mm512_shuffle_i64x2(odd_ab, odd_cd, 0xdd),
    ]
}

/// The number of steps of a [`Square`]'s transposition.
pub(super) const STEPS: usize = 8;

/// Sixteen rows of sixteen 32-bit words in memory, to be transposed a step at a time between other work: a
/// transposition at a stretch keeps the one port busy that shuffles, and the others idle.
pub(super) struct Square([__m512i; 16]);

impl Square {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn new(rows: [__m512i; 16]) -> Self {
        Self(rows)
    }

    /// Other rows in their place.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn replace(&mut self, rows: [__m512i; 16]) {
        self.0 = rows;
    }

    /// Rows `4 * step` to `4 * step + 3`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn replace_four(&mut self, step: usize, rows: [__m512i; 4]) {
        if let Some(place) = self.0.as_chunks_mut().0.get_mut(step) {
            *place = rows;
        }
    }

    /// One of the first four steps: words of rows `4 * step` to `4 * step + 3`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn transpose_words(&mut self, step: usize) {
        if let Some(rows) = self.0.as_chunks_mut().0.get_mut(step) {
            *rows = transpose_words(*rows);
        }
    }

    /// One of the last four steps: columns `step`, `4 + step`, `8 + step` and `12 + step`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn columns(&self, step: usize) -> [__m512i; 4] {
        let row = |i: usize| self.0[(4 * i + step) % 16];
        transpose_quarters([row(0), row(1), row(2), row(3)])
    }
}

impl Drop for Square {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Transposes the four 32-bit words of each quarter with those of the three rows beside.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_words([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let low_ab = _mm512_unpacklo_epi32(a, b);
    let high_ab = _mm512_unpackhi_epi32(a, b);
    let low_cd = _mm512_unpacklo_epi32(c, d);
    let high_cd = _mm512_unpackhi_epi32(c, d);
    [
        _mm512_unpacklo_epi64(low_ab, low_cd),
        _mm512_unpackhi_epi64(low_ab, low_cd),
        _mm512_unpacklo_epi64(high_ab, high_cd),
        _mm512_unpackhi_epi64(high_ab, high_cd),
    ]
}

/// Transposes sixteen rows of sixteen 32-bit words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn transpose_32(r: [__m512i; 16]) -> [__m512i; 16] {
    // a[w]: word w of each quarter, of lanes 0 to 3; b of 4 to 7, and so on.
    let a = transpose_words([r[0], r[1], r[2], r[3]]);
    let b = transpose_words([r[4], r[5], r[6], r[7]]);
    let c = transpose_words([r[8], r[9], r[10], r[11]]);
    let d = transpose_words([r[12], r[13], r[14], r[15]]);
    // e[q]: word 0 of quarter q, that is word 4q, of all lanes; f of word 4q + 1, and so on.
    let e = transpose_quarters([a[0], b[0], c[0], d[0]]);
    let f = transpose_quarters([a[1], b[1], c[1], d[1]]);
    let g = transpose_quarters([a[2], b[2], c[2], d[2]]);
    let h = transpose_quarters([a[3], b[3], c[3], d[3]]);
    [
        e[0], f[0], g[0], h[0], e[1], f[1], g[1], h[1], e[2], f[2], g[2], h[2], e[3], f[3], g[3], h[3],
    ]
}

/// Transposes eight rows of eight 64-bit words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn transpose_64(r: [__m512i; 8]) -> [__m512i; 8] {
    // Word 0 of each quarter of two lanes, and word 1.
    macro_rules! pairs {
        ($unpack:ident) => {
            transpose_quarters([
                $unpack(r[0], r[1]),
                $unpack(r[2], r[3]),
                $unpack(r[4], r[5]),
                $unpack(r[6], r[7]),
            ])
        };
    }
    let even = pairs!(_mm512_unpacklo_epi64);
    let odd = pairs!(_mm512_unpackhi_epi64);
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    #[target_feature(enable = "avx512f")]
    fn words_32(vector: __m512i) -> [u32; 16] {
        // SAFETY: any bits are an array of integers.
        unsafe { core::mem::transmute(vector) }
    }

    #[target_feature(enable = "avx512f")]
    fn check() {
        // SAFETY: any bits are a vector.
        let rows: [__m512i; 16] =
            unsafe { core::mem::transmute(core::array::from_fn::<u32, 256, _>(|i| i as u32)) };
        for (i, column) in transpose_32(rows).into_iter().enumerate() {
            assert_eq!(words_32(column), core::array::from_fn(|j| (16 * j + i) as u32));
        }
        let mut square = Square::new(rows);
        for step in 0..STEPS / 2 {
            square.transpose_words(step);
        }
        for step in 0..STEPS / 2 {
            for (i, column) in square.columns(step).into_iter().enumerate() {
                let first = 4 * i + step;
                assert_eq!(
                    words_32(column),
                    core::array::from_fn(|j| (16 * j + first) as u32)
                );
            }
        }
        let [a, b, c, d, e, f, g, h, ..] = rows;
        for (i, column) in transpose_64([a, b, c, d, e, f, g, h]).into_iter().enumerate() {
            let expected = core::array::from_fn(|j| (16 * (j / 2) + 2 * i + j % 2) as u32);
            assert_eq!(words_32(column), expected);
        }
    }

    #[test]
    fn rows_become_columns() {
        assert!(Engine::Avx512.is_usable());
        // SAFETY: the engine is usable.
        unsafe { check() };
    }
}
