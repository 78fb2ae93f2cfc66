//! What an expanded key holds, by engine.

#[cfg(target_arch = "x86_64")]
use crate::algorithm::{AesKey, Hmac};
use crate::algorithm::{Algorithm, MAX_PACKET_BYTES, Transform};
#[cfg(target_arch = "x86_64")]
use crate::avx512::chacha20::ChaChaKey;
#[cfg(target_arch = "x86_64")]
use crate::avx512::etm::{Cipher, EtmKey};
#[cfg(target_arch = "x86_64")]
use crate::avx512::gcm_key::{Gcm128, Gcm192, Gcm256};
#[cfg(target_arch = "x86_64")]
use zeroize::Zeroize;

use crate::engine::Engine;
#[cfg(target_arch = "x86_64")]
use crate::hmac;
use crate::key::{Direction, KeyError};
use crate::portable::PortableKey;
#[cfg(target_arch = "x86_64")]
use crate::portable::iv_mask;

/// Expanded key material. The vector engines' material lies inline on purpose: a packet of a cold SA then
/// costs no dependent cache miss.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Material {
    /// A library's contexts.
    Portable(Box<PortableKey>),
    #[cfg(target_arch = "x86_64")]
    Gcm128 {
        salt: [u8; 4],
        esn: bool,
        mode: GcmMode,
        key: Gcm128,
    },
    #[cfg(target_arch = "x86_64")]
    Gcm192 {
        salt: [u8; 4],
        esn: bool,
        mode: GcmMode,
        key: Gcm192,
    },
    #[cfg(target_arch = "x86_64")]
    Gcm256 {
        salt: [u8; 4],
        esn: bool,
        mode: GcmMode,
        key: Gcm256,
    },
    #[cfg(target_arch = "x86_64")]
    ChaCha20Poly1305 {
        salt: [u8; 4],
        esn: bool,
        key: ChaChaKey,
    },
    #[cfg(target_arch = "x86_64")]
    Etm {
        cipher: Cipher,
        hash: Hmac,
        esn: bool,
        /// The nonce of CTR in its first half, or the secret half of what CBC encrypts to be an IV.
        salt: [u8; 8],
        key: EtmKey,
    },
}

/// What a key of AES and powers of H is used for, and by which engine.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GcmMode {
    Avx512,
    Avx512Gmac,
    Avx2,
}

#[cfg(target_arch = "x86_64")]
impl GcmMode {
    fn algorithm(self, key: AesKey) -> Algorithm {
        match self {
            Self::Avx512 | Self::Avx2 => Algorithm::AesGcm16(key),
            Self::Avx512Gmac => Algorithm::AesGmac(key),
        }
    }
}

/// What decides whether a packet can be worked on, and by which code.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) family: Family,
    overhead_bytes: u16,
    /// The cipher's block where the text is a number of whole blocks and at least one, or 1.
    block_bytes: u16,
}

impl Shape {
    /// Whether a packet can be of this length: [`Algorithm::text_bytes`], at less cost.
    #[inline]
    pub(crate) fn takes(self, packet_bytes: usize) -> bool {
        let text_bytes = packet_bytes.wrapping_sub(usize::from(self.overhead_bytes));
        let block_bytes = usize::from(self.block_bytes);
        packet_bytes <= MAX_PACKET_BYTES
            && packet_bytes >= usize::from(self.overhead_bytes)
            && text_bytes & (block_bytes - 1) == 0
            && (block_bytes == 1 || text_bytes != 0)
    }
}

impl Drop for Material {
    fn drop(&mut self) {
        // Keys erase themselves; here is what stands beside them.
        match self {
            Self::Portable(_) => {}
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { salt, .. }
            | Self::Gcm192 { salt, .. }
            | Self::Gcm256 { salt, .. }
            | Self::ChaCha20Poly1305 { salt, .. } => salt.zeroize(),
            #[cfg(target_arch = "x86_64")]
            Self::Etm { salt, .. } => salt.zeroize(),
        }
    }
}

/// Which code works on a key; jobs of one family are worked on together. A number below 64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family(u8);

/// A family taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing is to be done.
    None,
    Portable,
    #[cfg(target_arch = "x86_64")]
    Gcm(AesKey),
    #[cfg(target_arch = "x86_64")]
    Gmac(AesKey),
    #[cfg(target_arch = "x86_64")]
    GcmAvx2(AesKey),
    #[cfg(target_arch = "x86_64")]
    ChaCha20Poly1305,
    #[cfg(target_arch = "x86_64")]
    Etm(Cipher, Hmac),
}

impl Family {
    pub(crate) const NONE: Self = Self(0);
    const PORTABLE: Self = Self(1);
    #[cfg(target_arch = "x86_64")]
    const GCM: u8 = 4;
    #[cfg(target_arch = "x86_64")]
    const CHACHA: u8 = 8;
    #[cfg(target_arch = "x86_64")]
    const GMAC: u8 = 12;
    #[cfg(target_arch = "x86_64")]
    const GCM_AVX2: u8 = 16;
    #[cfg(target_arch = "x86_64")]
    const ETM: u8 = 32;

    /// Its bit in a set of families.
    #[inline]
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }

    /// The families of a set.
    pub(crate) fn all_in(mut set: u64) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let lowest = set.trailing_zeros();
            set &= set.wrapping_sub(1);
            (lowest < 64).then_some(Self(lowest as u8))
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn gcm(mode: GcmMode, key: AesKey) -> Self {
        let first = match mode {
            GcmMode::Avx512 => Self::GCM,
            GcmMode::Avx512Gmac => Self::GMAC,
            GcmMode::Avx2 => Self::GCM_AVX2,
        };
        Self(first + key as u8)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn etm(cipher: Cipher, hash: Hmac) -> Self {
        let cipher = match cipher {
            Cipher::Null => 0,
            Cipher::Cbc(key) => 1 + key as u8,
            Cipher::Ctr(key) => 4 + key as u8,
        };
        Self(Self::ETM + 8 * hash as u8 + cipher)
    }

    pub(crate) fn work(self) -> Work {
        match self.0 {
            1 => Work::Portable,
            #[cfg(target_arch = "x86_64")]
            code @ Self::GCM..=6 => Work::Gcm(AesKey::ALL[usize::from(code - Self::GCM)]),
            #[cfg(target_arch = "x86_64")]
            code @ Self::GMAC..=14 => Work::Gmac(AesKey::ALL[usize::from(code - Self::GMAC)]),
            #[cfg(target_arch = "x86_64")]
            code @ Self::GCM_AVX2..=18 => Work::GcmAvx2(AesKey::ALL[usize::from(code - Self::GCM_AVX2)]),
            #[cfg(target_arch = "x86_64")]
            Self::CHACHA => Work::ChaCha20Poly1305,
            #[cfg(target_arch = "x86_64")]
            code if code >= Self::ETM => {
                let hash = Hmac::ALL[usize::from((code - Self::ETM) / 8)];
                let cipher = match (code - Self::ETM) % 8 {
                    0 => Cipher::Null,
                    key @ 1..=3 => Cipher::Cbc(AesKey::ALL[usize::from(key - 1)]),
                    key => Cipher::Ctr(AesKey::ALL[usize::from(key - 4) % 3]),
                };
                Work::Etm(cipher, hash)
            }
            _ => Work::None,
        }
    }
}

impl Material {
    pub(crate) fn expand(
        engine: Engine,
        transform: Transform,
        keymat: &[u8],
        direction: Direction,
    ) -> Result<Self, KeyError> {
        let portable =
            || PortableKey::expand(transform, keymat, direction).map(|key| Self::Portable(Box::new(key)));
        match engine {
            Engine::Portable => portable(),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512 => Self::expand_avx512(transform, keymat, direction)?.map_or_else(portable, Ok),
            #[cfg(target_arch = "x86_64")]
            Engine::Avx2 => {
                Self::expand_avx2(transform.algorithm, transform.esn, keymat).map_or_else(portable, Ok)
            }
            #[cfg(not(target_arch = "x86_64"))]
            Engine::Avx512 | Engine::Avx2 => portable(),
        }
    }

    /// Material of the AVX-512 engine, for the transforms it has.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    fn expand_avx512(
        transform: Transform,
        keymat: &[u8],
        direction: Direction,
    ) -> Result<Option<Self>, KeyError> {
        let Transform { algorithm, esn } = transform;
        let (key, rest) = keymat.split_at(algorithm.cipher_key_bytes());
        let (salt, integrity) = rest.split_at(algorithm.salt_bytes());
        let salt = salt.first_chunk().copied().unwrap_or_default();
        let cipher_and_hash = match algorithm {
            Algorithm::AesCbc(key, hash) => Some((Cipher::Cbc(key), hash)),
            Algorithm::AesCtr(key, hash) => Some((Cipher::Ctr(key), hash)),
            Algorithm::Null(hash) => Some((Cipher::Null, hash)),
            _ => None,
        };
        if let Some((cipher, hash)) = cipher_and_hash {
            let is_cbc = matches!(cipher, Cipher::Cbc(_));
            let mut beside = if is_cbc && direction == Direction::Seal {
                iv_mask()?
            } else {
                [0; 8]
            };
            if matches!(cipher, Cipher::Ctr(_)) {
                beside[..4].copy_from_slice(&salt);
            }
            let mac = hmac::expand(hash, integrity);
            // SAFETY: the key's constructor has checked that the engine is usable.
            let key = unsafe { EtmKey::expand(cipher, key, is_cbc && direction == Direction::Open, mac) };
            return Ok(Some(Self::Etm {
                cipher,
                hash,
                esn,
                salt: beside,
                key,
            }));
        }
        let mode = if matches!(algorithm, Algorithm::AesGmac(_)) {
            GcmMode::Avx512Gmac
        } else {
            GcmMode::Avx512
        };
        Ok(match algorithm {
            // SAFETY: the key's constructor has checked that the engine is usable.
            Algorithm::AesGcm16(length) | Algorithm::AesGmac(length) => unsafe {
                Some(Self::gcm(mode, length, key, salt, esn))
            },
            Algorithm::ChaCha20Poly1305 => key.first_chunk().map(|key| Self::ChaCha20Poly1305 {
                salt,
                esn,
                key: ChaChaKey::new(*key),
            }),
            _ => None,
        })
    }

    /// Material of the AVX2 engine, for the transforms it has.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    fn expand_avx2(algorithm: Algorithm, esn: bool, keymat: &[u8]) -> Option<Self> {
        let Algorithm::AesGcm16(length) = algorithm else {
            return None;
        };
        let (key, salt) = keymat.split_last_chunk()?;
        // SAFETY: the key's constructor has checked that the engine is usable.
        Some(unsafe { Self::gcm(GcmMode::Avx2, length, key, *salt, esn) })
    }

    /// Round keys and powers of H.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "pclmulqdq,sse4.1,aes")]
    fn gcm(mode: GcmMode, length: AesKey, key: &[u8], salt: [u8; 4], esn: bool) -> Self {
        match length {
            AesKey::Bits128 => Self::Gcm128 {
                salt,
                esn,
                mode,
                key: Gcm128::expand(key),
            },
            AesKey::Bits192 => Self::Gcm192 {
                salt,
                esn,
                mode,
                key: Gcm192::expand(key),
            },
            AesKey::Bits256 => Self::Gcm256 {
                salt,
                esn,
                mode,
                key: Gcm256::expand(key),
            },
        }
    }

    #[inline]
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Portable(_) => Family::PORTABLE,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { mode, .. } => Family::gcm(*mode, AesKey::Bits128),
            #[cfg(target_arch = "x86_64")]
            Self::Gcm192 { mode, .. } => Family::gcm(*mode, AesKey::Bits192),
            #[cfg(target_arch = "x86_64")]
            Self::Gcm256 { mode, .. } => Family::gcm(*mode, AesKey::Bits256),
            #[cfg(target_arch = "x86_64")]
            Self::ChaCha20Poly1305 { .. } => Family(Family::CHACHA),
            #[cfg(target_arch = "x86_64")]
            Self::Etm { cipher, hash, .. } => Family::etm(*cipher, *hash),
        }
    }

    /// What decides about packets.
    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        let algorithm = self.algorithm();
        Shape {
            family: self.family(),
            overhead_bytes: algorithm.overhead_bytes() as u16,
            block_bytes: if matches!(algorithm, Algorithm::AesCbc(..)) {
                16
            } else {
                1
            },
        }
    }

    #[inline]
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Portable(key) => key.transform.algorithm,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { mode, .. } => mode.algorithm(AesKey::Bits128),
            #[cfg(target_arch = "x86_64")]
            Self::Gcm192 { mode, .. } => mode.algorithm(AesKey::Bits192),
            #[cfg(target_arch = "x86_64")]
            Self::Gcm256 { mode, .. } => mode.algorithm(AesKey::Bits256),
            #[cfg(target_arch = "x86_64")]
            Self::ChaCha20Poly1305 { .. } => Algorithm::ChaCha20Poly1305,
            #[cfg(target_arch = "x86_64")]
            Self::Etm { cipher, hash, .. } => match cipher {
                Cipher::Cbc(key) => Algorithm::AesCbc(*key, *hash),
                Cipher::Ctr(key) => Algorithm::AesCtr(*key, *hash),
                Cipher::Null => Algorithm::Null(*hash),
            },
        }
    }

    pub(crate) fn transform(&self) -> Transform {
        let esn = match self {
            Self::Portable(key) => key.transform.esn,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { esn, .. }
            | Self::Gcm192 { esn, .. }
            | Self::Gcm256 { esn, .. }
            | Self::ChaCha20Poly1305 { esn, .. }
            | Self::Etm { esn, .. } => *esn,
        };
        Transform::new(self.algorithm(), esn)
    }

    pub(crate) fn boxed_bytes(&self) -> usize {
        match self {
            Self::Portable(_) => size_of::<PortableKey>(),
            #[cfg(target_arch = "x86_64")]
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SealKey;

    #[test]
    fn a_shape_takes_what_its_algorithm_has_text_for() {
        for algorithm in Algorithm::ALL {
            for engine in Engine::ALL.into_iter().filter(|engine| engine.is_usable()) {
                let keymat = vec![7; algorithm.key_bytes()];
                let key = SealKey::with_engine(engine, Transform::new(algorithm, true), &keymat).unwrap();
                let shape = key.material.shape();
                for length in (0..200).chain(MAX_PACKET_BYTES - 40..MAX_PACKET_BYTES + 40) {
                    let expected = algorithm.text_bytes(length).is_some();
                    assert_eq!(shape.takes(length), expected, "{algorithm:?} {length}");
                }
            }
        }
    }
}
