//! The ESP transforms and their sizes.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Confidentiality, or confidentiality and integrity in one (AEAD).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Encryption {
    /// AES-128-GCM with a 16-byte ICV (RFC 4106).
    AesGcm128,
    /// AES-192-GCM with a 16-byte ICV (RFC 4106).
    AesGcm192,
    /// AES-256-GCM with a 16-byte ICV (RFC 4106).
    AesGcm256,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-128-GMAC: integrity only (RFC 4543).
    AesGmac128,
    /// AES-192-GMAC: integrity only (RFC 4543).
    AesGmac192,
    /// AES-256-GMAC: integrity only (RFC 4543).
    AesGmac256,
    /// AES-128-CBC (RFC 3602).
    AesCbc128,
    /// AES-192-CBC (RFC 3602).
    AesCbc192,
    /// AES-256-CBC (RFC 3602).
    AesCbc256,
    /// AES-128-CTR (RFC 3686).
    AesCtr128,
    /// AES-192-CTR (RFC 3686).
    AesCtr192,
    /// AES-256-CTR (RFC 3686).
    AesCtr256,
    /// No confidentiality (RFC 2410); only ever with an [`Integrity`].
    Null,
}

impl Encryption {
    /// Every member, in order of preference within its family.
    pub const ALL: [Self; 14] = [
        Self::AesGcm128,
        Self::AesGcm192,
        Self::AesGcm256,
        Self::ChaCha20Poly1305,
        Self::AesGmac128,
        Self::AesGmac192,
        Self::AesGmac256,
        Self::AesCbc128,
        Self::AesCbc192,
        Self::AesCbc256,
        Self::AesCtr128,
        Self::AesCtr192,
        Self::AesCtr256,
        Self::Null,
    ];

    /// Whether the transform brings its own ICV, so that no [`Integrity`] goes with it.
    #[must_use]
    pub const fn is_combined(self) -> bool {
        matches!(
            self,
            Self::AesGcm128
                | Self::AesGcm192
                | Self::AesGcm256
                | Self::ChaCha20Poly1305
                | Self::AesGmac128
                | Self::AesGmac192
                | Self::AesGmac256
        )
    }

    /// Whether a repeated (key, sequence number) pair would reveal plaintext or forge a tag: true of
    /// every counter mode (RFC 4106 section 9, RFC 3686 section 7, RFC 7634 section 6).
    #[must_use]
    pub const fn is_counter_mode(self) -> bool {
        !matches!(
            self,
            Self::AesCbc128 | Self::AesCbc192 | Self::AesCbc256 | Self::Null
        )
    }

    /// Bytes of KEYMAT: the key and the 4-byte salt or nonce of counter modes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGmac128 | Self::AesCtr128 => 20,
            Self::AesGcm192 | Self::AesGmac192 | Self::AesCtr192 => 28,
            Self::AesGcm256 | Self::AesGmac256 | Self::AesCtr256 | Self::ChaCha20Poly1305 => 36,
            Self::AesCbc128 => 16,
            Self::AesCbc192 => 24,
            Self::AesCbc256 => 32,
            Self::Null => 0,
        }
    }

    /// The name in configuration and on the command line, as strongSwan spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesGcm128 => "aes128gcm16",
            Self::AesGcm192 => "aes192gcm16",
            Self::AesGcm256 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::AesGmac128 => "aes128gmac",
            Self::AesGmac192 => "aes192gmac",
            Self::AesGmac256 => "aes256gmac",
            Self::AesCbc128 => "aes128",
            Self::AesCbc192 => "aes192",
            Self::AesCbc256 => "aes256",
            Self::AesCtr128 => "aes128ctr",
            Self::AesCtr192 => "aes192ctr",
            Self::AesCtr256 => "aes256ctr",
            Self::Null => "null",
        }
    }
}

/// Integrity by a truncated HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Integrity {
    /// HMAC-SHA1-96 (RFC 2404).
    HmacSha1,
    /// HMAC-SHA-256-128 (RFC 4868).
    HmacSha256,
    /// HMAC-SHA-384-192 (RFC 4868).
    HmacSha384,
    /// HMAC-SHA-512-256 (RFC 4868).
    HmacSha512,
}

impl Integrity {
    /// Every member.
    pub const ALL: [Self; 4] = [
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
    ];

    /// Key length in bytes: the hash's output length (RFC 2404 section 3, RFC 4868 section 2.1.1).
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// The name in configuration and on the command line, as strongSwan spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "sha1",
            Self::HmacSha256 => "sha256",
            Self::HmacSha384 => "sha384",
            Self::HmacSha512 => "sha512",
        }
    }
}

/// What protects the packets of an SA; always with integrity (RFC 8221 section 5: encryption without
/// authentication must not be used).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Transform {
    encryption: Encryption,
    integrity: Option<Integrity>,
}

impl Transform {
    /// Pairs an encryption with the integrity it needs.
    ///
    /// # Errors
    /// [`TransformError`] where the pair is not one: an AEAD with a HMAC, or anything else without.
    pub const fn new(encryption: Encryption, integrity: Option<Integrity>) -> Result<Self, TransformError> {
        match (encryption.is_combined(), integrity.is_some()) {
            (true, true) => Err(TransformError::IntegrityTwice),
            (false, false) => Err(TransformError::IntegrityMissing),
            _ => Ok(Self {
                encryption,
                integrity,
            }),
        }
    }

    /// The cipher or AEAD.
    #[must_use]
    pub const fn encryption(self) -> Encryption {
        self.encryption
    }

    /// The HMAC, where the cipher is not an AEAD.
    #[must_use]
    pub const fn integrity(self) -> Option<Integrity> {
        self.integrity
    }

    /// Bytes of key material for one SA: encryption key with salt, then integrity key.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        let integrity_bytes = match self.integrity {
            Some(integrity) => integrity.key_bytes(),
            None => 0,
        };
        self.encryption.key_bytes() + integrity_bytes
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.encryption.name())?;
        match self.integrity {
            Some(integrity) => write!(formatter, "-{}", integrity.name()),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Transform {
    type Err = TransformError;

    /// Parses `aes128gcm16` or `aes256-sha256`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (encryption, integrity) = match text.split_once('-') {
            Some((encryption, integrity)) => (encryption, Some(integrity)),
            None => (text, None),
        };
        let encryption = Encryption::ALL
            .into_iter()
            .find(|known| known.name() == encryption)
            .ok_or_else(|| TransformError::UnknownEncryption(encryption.to_owned()))?;
        let integrity = match integrity {
            None => None,
            Some(name) => Some(
                Integrity::ALL
                    .into_iter()
                    .find(|known| known.name() == name)
                    .ok_or_else(|| TransformError::UnknownIntegrity(name.to_owned()))?,
            ),
        };
        Self::new(encryption, integrity)
    }
}

/// Why a transform is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransformError {
    /// An AEAD was paired with a HMAC.
    #[error("an AEAD authenticates by itself: no integrity algorithm goes with it")]
    IntegrityTwice,
    /// A cipher stands alone.
    #[error("encryption without integrity is refused (RFC 8221): add sha256, or take an AEAD")]
    IntegrityMissing,
    /// No such cipher.
    #[error(
        "unknown encryption algorithm {0:?}: expected one of aes128gcm16, aes192gcm16, aes256gcm16, chacha20poly1305, aes128gmac, aes192gmac, aes256gmac, aes128, aes192, aes256, aes128ctr, aes192ctr, aes256ctr, null"
    )]
    UnknownEncryption(String),
    /// No such HMAC.
    #[error("unknown integrity algorithm {0:?}: expected one of sha1, sha256, sha384, sha512")]
    UnknownIntegrity(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_valid_pair_survives_its_own_spelling() {
        let mut valid = 0;
        for encryption in Encryption::ALL {
            for integrity in [None].into_iter().chain(Integrity::ALL.map(Some)) {
                let Ok(transform) = Transform::new(encryption, integrity) else {
                    continue;
                };
                valid += 1;
                assert_eq!(transform.to_string().parse(), Ok(transform));
            }
        }
        assert_eq!(valid, 7 + 7 * 4);
    }

    #[test]
    fn pairs_that_are_none_are_refused() {
        assert_eq!(
            "aes128".parse::<Transform>(),
            Err(TransformError::IntegrityMissing)
        );
        assert_eq!("null".parse::<Transform>(), Err(TransformError::IntegrityMissing));
        assert_eq!(
            "aes128gcm16-sha256".parse::<Transform>(),
            Err(TransformError::IntegrityTwice)
        );
        assert!(matches!(
            "rot13".parse::<Transform>(),
            Err(TransformError::UnknownEncryption(_))
        ));
        assert!(matches!(
            "aes128-md5".parse::<Transform>(),
            Err(TransformError::UnknownIntegrity(_))
        ));
    }
}
