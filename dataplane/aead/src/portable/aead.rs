//! AES-GCM and ChaCha20-Poly1305 by aws-lc-rs.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use zeroize::Zeroize;

use crate::algorithm::{AesKey, Algorithm};
use crate::key::KeyError;

/// A combined-mode key with its salt.
pub(super) struct AeadKey {
    key: LessSafeKey,
    salt: [u8; 4],
}

impl Drop for AeadKey {
    fn drop(&mut self) {
        // The library erases its own context.
        self.salt.zeroize();
    }
}

impl AeadKey {
    pub(super) fn new(algorithm: Algorithm, key: &[u8], salt: [u8; 4]) -> Result<Self, KeyError> {
        let aead = match algorithm {
            Algorithm::AesGcm16(AesKey::Bits128) => &AES_128_GCM,
            Algorithm::AesGcm16(AesKey::Bits192) => &AES_192_GCM,
            Algorithm::AesGcm16(AesKey::Bits256) => &AES_256_GCM,
            _ => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(aead, key).map_err(|_| KeyError::Engine)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            salt,
        })
    }

    /// Nonce: salt and the packet's IV (RFC 4106 §4, RFC 7634 §2).
    fn nonce(&self, iv: &[u8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv[..8]);
        Nonce::assume_unique_for_key(nonce)
    }

    pub(super) fn seal(&self, iv: &[u8], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> bool {
        match self
            .key
            .seal_in_place_separate_tag(self.nonce(iv), Aad::from(aad), text)
        {
            Ok(tag) => {
                icv.copy_from_slice(tag.as_ref());
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn open(&self, iv: &[u8], aad: &[u8], text_and_icv: &mut [u8]) -> bool {
        let opened = self
            .key
            .open_in_place(self.nonce(iv), Aad::from(aad), text_and_icv)
            .is_ok();
        if !opened {
            let text_bytes = text_and_icv.len() - 16;
            text_and_icv[..text_bytes].zeroize();
        }
        opened
    }
}
