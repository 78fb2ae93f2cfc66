//! AES-GCM keys: round keys and powers of H.

use core::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::aes::{self, RoundKeys};
use super::ghash;
use crate::material::Material;

/// Round keys and powers of H: 368 bytes for every key length.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct GcmKey<const RK: usize, const PW: usize> {
    pub(crate) round_keys: RoundKeys<RK>,
    /// H^PW … H^1.
    pub(crate) powers: [[u8; 16]; PW],
}

/// AES-128: 12 powers.
pub(crate) type Gcm128 = GcmKey<11, 12>;
/// AES-192: 10 powers, of which 8 are used.
pub(crate) type Gcm192 = GcmKey<13, 10>;
/// AES-256: 8 powers.
pub(crate) type Gcm256 = GcmKey<15, 8>;

/// A GCM key as a packet needs it.
#[derive(Clone, Copy)]
pub(crate) struct KeyView<'a, K> {
    pub(crate) key: &'a K,
    pub(crate) salt: [u8; 4],
    pub(crate) esn: bool,
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
                    Material::$variant { salt, esn, key, .. } => Some(KeyView {
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

impl<const RK: usize, const PW: usize> GcmKey<RK, PW> {
    /// Expands a cipher key.
    #[target_feature(enable = "pclmulqdq,sse4.1,aes")]
    pub(crate) fn expand(key: &[u8]) -> Self {
        let mut expanded = Self {
            round_keys: aes::expand(key),
            powers: [[0; 16]; PW],
        };
        let mut h = aes::encrypt_block(&expanded.round_keys, 0).swap_bytes();
        ghash::expand_powers(h, &mut expanded.powers);
        h.zeroize();
        expanded
    }

    /// What masks a tag: the cipher of a nonce with counter 1.
    #[target_feature(enable = "aes,sse4.1")]
    #[inline]
    pub(crate) fn tag_mask(&self, nonce: u128) -> __m128i {
        aes::from_u128(aes::encrypt_block(&self.round_keys, nonce | 1 << 120))
    }

    /// A round key in all four lanes.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn round_key(&self, round: usize) -> __m512i {
        // SAFETY: a round key is 16 bytes and aligned to 16 (the struct is, and it comes first).
        let key = unsafe { _mm_load_si128(self.round_keys[round].as_ptr().cast()) };
        _mm512_broadcast_i32x4(key)
    }

    /// The power that carries a lane over so many vectors, in all four lanes.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn stride(&self, vectors: usize) -> __m512i {
        // SAFETY: a power is 16 bytes.
        let power = unsafe { _mm_loadu_si128(self.powers[PW - 4 * vectors].as_ptr().cast()) };
        _mm512_broadcast_i32x4(power)
    }

    /// The four powers that meet the vector with `after` vectors of its group behind it.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn powers(&self, after: usize) -> __m512i {
        let first = PW - 4 * (after + 1);
        let lanes = &self.powers[first..first + 4];
        // SAFETY: `lanes` is 64 bytes.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }
}
