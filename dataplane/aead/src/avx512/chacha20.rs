//! ChaCha20 (RFC 8439 §2.3), sixteen blocks at a time, each lane with its own key, nonce and counter.

use core::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::multi_hash::unroll;
use super::transpose::{STEPS, transpose_32};

/// Blocks, and packets, worked on together.
pub(crate) const LANES: usize = 16;

/// A ChaCha20 key, as large as the other transforms' keys, so that erasing it leaves no byte of what lay
/// in its place before.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct ChaChaKey {
    key: [u8; 32],
    unused: [u8; 336],
}

impl ChaChaKey {
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            unused: [0; 336],
        }
    }

    /// A row of [`Start::new`]: the key, then a nonce of salt and IV (RFC 7634 §2).
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn row(&self, salt: [u8; 4], iv: u64) -> __m512i {
        let nonce = _mm_set_epi64x(
            (iv >> 32).cast_signed(),
            (u64::from(u32::from_le_bytes(salt)) | iv << 32).cast_signed(),
        );
        // SAFETY: the key is 32 bytes.
        let key = unsafe { _mm256_loadu_si256(self.key.as_ptr().cast()) };
        _mm512_inserti64x4(_mm512_castsi256_si512(key), _mm256_zextsi128_si256(nonce), 1)
    }
}

/// Keys and nonces of sixteen packets, word by word across packets.
pub(crate) struct Start {
    key: [__m512i; 8],
    nonce: [__m512i; 3],
}

impl Start {
    /// Of a row for each packet ([`ChaChaKey::row`]).
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn new(rows: [__m512i; LANES]) -> Self {
        let [k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, ..] = transpose_32(rows);
        Self {
            key: [k0, k1, k2, k3, k4, k5, k6, k7],
            nonce: [n0, n1, n2],
        }
    }

    /// The key stream of sixteen blocks, word by word across lanes: lane `i` is a block of packet
    /// `packets[i]` with counter `counters[i]`. `between` is done in [`STEPS`] parts between the rounds.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn words(
        &self,
        packets: __m512i,
        counters: __m512i,
        between: impl FnMut(usize),
    ) -> [__m512i; 16] {
        let take = |word| _mm512_permutexvar_epi32(packets, word);
        let constant = |word: u32| _mm512_set1_epi32(word.cast_signed());
        // "expand 32-byte k"
        let start = [
            constant(0x6170_7865),
            constant(0x3320_646e),
            constant(0x7962_2d32),
            constant(0x6b20_6574),
            take(self.key[0]),
            take(self.key[1]),
            take(self.key[2]),
            take(self.key[3]),
            take(self.key[4]),
            take(self.key[5]),
            take(self.key[6]),
            take(self.key[7]),
            counters,
            take(self.nonce[0]),
            take(self.nonce[1]),
            take(self.nonce[2]),
        ];
        rounds(start, between)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.key.zeroize();
        self.nonce.zeroize();
    }
}

/// Twenty rounds and the addition of the input; see [`Start::words`].
#[target_feature(enable = "avx512f")]
#[inline]
fn rounds(start: [__m512i; 16], mut between: impl FnMut(usize)) -> [__m512i; 16] {
    let mut x = start;
    macro_rules! step {
        ($a:literal, $b:literal, $d:literal, $bits:literal) => {
            x[$a] = _mm512_add_epi32(x[$a], x[$b]);
            x[$d] = _mm512_rol_epi32(_mm512_xor_si512(x[$d], x[$a]), $bits);
        };
    }
    // Four quarter rounds side by side.
    macro_rules! quarters {
        ($([$a:literal $b:literal $c:literal $d:literal])*) => {
            $(step!($a, $b, $d, 16);)*
            $(step!($c, $d, $b, 12);)*
            $(step!($a, $b, $d, 8);)*
            $(step!($c, $d, $b, 7);)*
        };
    }
    for i in 0..10 {
        quarters!([0 4 8 12] [1 5 9 13] [2 6 10 14] [3 7 11 15]);
        quarters!([0 5 10 15] [1 6 11 12] [2 7 8 13] [3 4 9 14]);
        if i < STEPS {
            between(i);
        }
    }
    unroll!(I in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        x[I] = _mm512_add_epi32(x[I], start[I]);
    });
    x
}
