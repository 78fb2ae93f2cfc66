//! Keys of encrypt-then-MAC transforms: AES-CBC, AES-CTR or NULL with a HMAC.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::aes::{self, RoundKeys};
use crate::algorithm::AesKey;
use crate::hmac::HmacState;

/// Round keys (as many as the key length has; forward, or inverse for CBC opening) and HMAC states:
/// 368 bytes for every transform.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct EtmKey {
    pub(crate) round_keys: RoundKeys<15>,
    pub(crate) mac: HmacState,
}

/// The cipher of an encrypt-then-MAC transform.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    Cbc(AesKey),
    Ctr(AesKey),
    Null,
}

impl EtmKey {
    /// Expands a cipher key; `inverse` is for CBC opening.
    #[target_feature(enable = "aes,sse4.1")]
    pub(crate) fn expand(cipher: Cipher, key: &[u8], inverse: bool, mac: HmacState) -> Self {
        let mut expanded = Self {
            round_keys: [[0; 16]; 15],
            mac,
        };
        match cipher {
            Cipher::Cbc(length) | Cipher::Ctr(length) => match length {
                AesKey::Bits128 => expanded.set_round_keys::<11>(key, inverse),
                AesKey::Bits192 => expanded.set_round_keys::<13>(key, inverse),
                AesKey::Bits256 => expanded.set_round_keys::<15>(key, inverse),
            },
            Cipher::Null => {}
        }
        expanded
    }

    #[target_feature(enable = "aes,sse4.1")]
    fn set_round_keys<const RK: usize>(&mut self, key: &[u8], inverse: bool) {
        let mut round_keys: RoundKeys<RK> = aes::expand(key);
        if inverse {
            aes::invert(&mut round_keys);
        }
        self.round_keys[..RK].copy_from_slice(&round_keys);
        round_keys.zeroize();
    }
}
