//! What an expanded key holds, by engine.

use crate::algorithm::{AesKey, Algorithm, Transform};
#[cfg(target_arch = "x86_64")]
use crate::avx512::gcm::{Gcm128, Gcm192, Gcm256};
use crate::engine::Engine;
use crate::key::{Direction, KeyError};
use crate::portable::PortableKey;

/// Expanded key material. The vector engines' material lies inline on purpose: a packet of a cold SA then
/// costs no dependent cache miss.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Material {
    /// A library's contexts.
    Portable(Box<PortableKey>),
    #[cfg(target_arch = "x86_64")]
    Gcm128 { salt: [u8; 4], esn: bool, key: Gcm128 },
    #[cfg(target_arch = "x86_64")]
    Gcm192 { salt: [u8; 4], esn: bool, key: Gcm192 },
    #[cfg(target_arch = "x86_64")]
    Gcm256 { salt: [u8; 4], esn: bool, key: Gcm256 },
}

/// Which code works on a key; jobs of one family are worked on together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Nothing is to be done.
    None,
    Portable,
    Gcm128,
    Gcm192,
    Gcm256,
}

impl Family {
    pub(crate) const ALL: [Self; 4] = [Self::Portable, Self::Gcm128, Self::Gcm192, Self::Gcm256];
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
            Engine::Avx512 => Self::expand_avx512(transform, keymat).map_or_else(portable, Ok),
            #[cfg(not(target_arch = "x86_64"))]
            Engine::Avx512 => portable(),
        }
    }

    /// Material of the AVX-512 engine, for the transforms it has.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    fn expand_avx512(transform: Transform, keymat: &[u8]) -> Option<Self> {
        let Transform { algorithm, esn } = transform;
        let (key, rest) = keymat.split_at(algorithm.cipher_key_bytes());
        let salt = rest.first_chunk().copied().unwrap_or_default();
        // SAFETY: the key's constructor has checked that the engine is usable.
        unsafe {
            match algorithm {
                Algorithm::AesGcm16(AesKey::Bits128) => Some(Self::Gcm128 {
                    salt,
                    esn,
                    key: Gcm128::expand(key),
                }),
                Algorithm::AesGcm16(AesKey::Bits192) => Some(Self::Gcm192 {
                    salt,
                    esn,
                    key: Gcm192::expand(key),
                }),
                Algorithm::AesGcm16(AesKey::Bits256) => Some(Self::Gcm256 {
                    salt,
                    esn,
                    key: Gcm256::expand(key),
                }),
                _ => None,
            }
        }
    }

    #[inline]
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Portable(_) => Family::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { .. } => Family::Gcm128,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm192 { .. } => Family::Gcm192,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm256 { .. } => Family::Gcm256,
        }
    }

    #[inline]
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Portable(key) => key.transform.algorithm,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { .. } => Algorithm::AesGcm16(AesKey::Bits128),
            #[cfg(target_arch = "x86_64")]
            Self::Gcm192 { .. } => Algorithm::AesGcm16(AesKey::Bits192),
            #[cfg(target_arch = "x86_64")]
            Self::Gcm256 { .. } => Algorithm::AesGcm16(AesKey::Bits256),
        }
    }

    pub(crate) fn transform(&self) -> Transform {
        let esn = match self {
            Self::Portable(key) => key.transform.esn,
            #[cfg(target_arch = "x86_64")]
            Self::Gcm128 { esn, .. } | Self::Gcm192 { esn, .. } | Self::Gcm256 { esn, .. } => *esn,
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
