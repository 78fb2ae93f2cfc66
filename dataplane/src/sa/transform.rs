//! The one place where the contract's transforms meet the crypto crate's.

use esp_aead::{AesKey, Algorithm, Hmac};
use southbound::{Encryption, Integrity, Transform};

/// The crypto crate's name for `transform`.
#[must_use]
pub fn algorithm(transform: Transform) -> Algorithm {
    use AesKey::{Bits128, Bits192, Bits256};
    // `Transform` holds an integrity exactly where the encryption brings none.
    let hmac = match transform.integrity() {
        None | Some(Integrity::HmacSha1) => Hmac::Sha1_96,
        Some(Integrity::HmacSha256) => Hmac::Sha256_128,
        Some(Integrity::HmacSha384) => Hmac::Sha384_192,
        Some(Integrity::HmacSha512) => Hmac::Sha512_256,
    };
    match transform.encryption() {
        Encryption::AesGcm128 => Algorithm::AesGcm16(Bits128),
        Encryption::AesGcm192 => Algorithm::AesGcm16(Bits192),
        Encryption::AesGcm256 => Algorithm::AesGcm16(Bits256),
        Encryption::ChaCha20Poly1305 => Algorithm::ChaCha20Poly1305,
        Encryption::AesGmac128 => Algorithm::AesGmac(Bits128),
        Encryption::AesGmac192 => Algorithm::AesGmac(Bits192),
        Encryption::AesGmac256 => Algorithm::AesGmac(Bits256),
        Encryption::AesCbc128 => Algorithm::AesCbc(Bits128, hmac),
        Encryption::AesCbc192 => Algorithm::AesCbc(Bits192, hmac),
        Encryption::AesCbc256 => Algorithm::AesCbc(Bits256, hmac),
        Encryption::AesCtr128 => Algorithm::AesCtr(Bits128, hmac),
        Encryption::AesCtr192 => Algorithm::AesCtr(Bits192, hmac),
        Encryption::AesCtr256 => Algorithm::AesCtr(Bits256, hmac),
        Encryption::Null => Algorithm::Null(hmac),
    }
}

/// The sizes of a transform, as a worker needs them for each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSizes {
    /// Bytes of IV after the ESP header.
    pub iv_bytes: u8,
    /// Bytes of ICV at the end.
    pub icv_bytes: u8,
    /// What payload, padding, pad length and next header together are a multiple of; a power of two.
    pub align_bytes: u8,
}

impl EspSizes {
    /// Those of `transform`.
    #[must_use]
    pub fn of(transform: Transform) -> Self {
        let algorithm = algorithm(transform);
        // Every size of an ESP transform is below 64.
        let byte = |size: usize| u8::try_from(size).unwrap_or(u8::MAX);
        Self {
            iv_bytes: byte(algorithm.iv_bytes()),
            icv_bytes: byte(algorithm.icv_bytes()),
            align_bytes: byte(algorithm.alignment_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_crates_agree_on_every_key_length() {
        let mut seen = 0;
        for encryption in Encryption::ALL {
            for integrity in [None].into_iter().chain(Integrity::ALL.map(Some)) {
                let Ok(transform) = Transform::new(encryption, integrity) else {
                    continue;
                };
                seen += 1;
                assert_eq!(
                    algorithm(transform).key_bytes(),
                    transform.key_bytes(),
                    "{transform}"
                );
                assert!(EspSizes::of(transform).align_bytes.is_power_of_two());
            }
        }
        assert_eq!(
            seen,
            Algorithm::ALL.len(),
            "each transform of the crypto crate has a name"
        );
    }
}
