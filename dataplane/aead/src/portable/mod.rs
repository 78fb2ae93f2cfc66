//! The library-backed engine: one packet at a time, on any processor.
//!
//! AEADs come from aws-lc-rs; AES-CBC, AES-CTR and GMAC are modes over RustCrypto's AES and GHASH, because
//! neither aws-lc-rs nor ring offers them over a packet in place without allocation; HMACs are this
//! crate's [`hmac`] over RustCrypto's compression functions.

mod aead;
mod cipher;
mod gmac;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;

use crate::algorithm::{Algorithm, ESP_HEADER_BYTES, Hmac, Transform};
use crate::hmac::{self, HmacState};
use crate::key::{Direction, KeyError};
use aead::AeadKey;
use cipher::CipherKey;
use gmac::GmacKey;

/// A key of the library-backed engine.
pub(crate) struct PortableKey {
    pub(crate) transform: Transform,
    kind: Kind,
}

enum Kind {
    Aead(AeadKey),
    Gmac(Box<GmacKey>),
    /// Encrypt-then-MAC; no cipher for NULL.
    Hmac {
        cipher: Option<Box<CipherKey>>,
        hash: Hmac,
        state: HmacState,
    },
}

impl PortableKey {
    /// Expands key material of the right length.
    pub(crate) fn expand(
        transform: Transform,
        keymat: &[u8],
        direction: Direction,
    ) -> Result<Self, KeyError> {
        let algorithm = transform.algorithm;
        let (key, rest) = keymat.split_at(algorithm.cipher_key_bytes());
        let (salt, integrity) = rest.split_at(algorithm.salt_bytes());
        let nonce = salt.first_chunk().copied().unwrap_or_default();
        let kind = match algorithm {
            Algorithm::AesGcm16(_) | Algorithm::ChaCha20Poly1305 => {
                Kind::Aead(AeadKey::new(algorithm, key, nonce)?)
            }
            Algorithm::AesGmac(_) => Kind::Gmac(Box::new(GmacKey::new(key, nonce)?)),
            Algorithm::AesCbc(_, hash) => {
                let cipher = Some(Box::new(CipherKey::cbc(key, direction, iv_mask()?)?));
                Kind::Hmac {
                    cipher,
                    hash,
                    state: hmac::expand(hash, integrity),
                }
            }
            Algorithm::AesCtr(_, hash) => {
                let cipher = Some(Box::new(CipherKey::ctr(key, nonce)?));
                Kind::Hmac {
                    cipher,
                    hash,
                    state: hmac::expand(hash, integrity),
                }
            }
            Algorithm::Null(hash) => Kind::Hmac {
                cipher: None,
                hash,
                state: hmac::expand(hash, integrity),
            },
        };
        Ok(Self { transform, kind })
    }

    /// Seals a packet whose length [`Algorithm::text_bytes`] accepts.
    pub(crate) fn seal(&self, packet: &mut [u8], sequence: u64) -> bool {
        let Transform { algorithm, esn } = self.transform;
        let body = packet.len() - algorithm.icv_bytes();
        let (packet, icv) = packet.split_at_mut(body);
        let (head, text) = packet.split_at_mut(ESP_HEADER_BYTES + algorithm.iv_bytes());
        let (esp, packet_iv) = head.split_at_mut(ESP_HEADER_BYTES);
        if packet_iv.len() == 8 {
            packet_iv.copy_from_slice(&sequence.to_be_bytes());
        } else if let Kind::Hmac {
            cipher: Some(cipher), ..
        } = &self.kind
        {
            packet_iv.copy_from_slice(&cipher.unpredictable_iv(sequence));
        }
        match &self.kind {
            Kind::Aead(key) => {
                let (aad, aad_bytes) = additional_data(esp, sequence, esn);
                return key.seal(packet_iv, &aad[..aad_bytes], text, icv);
            }
            Kind::Gmac(key) => {
                let (aad, aad_bytes) = additional_data(esp, sequence, esn);
                icv.copy_from_slice(&key.tag(&aad[..aad_bytes], packet_iv, text));
            }
            Kind::Hmac { cipher, hash, state } => {
                if let Some(cipher) = cipher {
                    cipher.encrypt(packet_iv, text);
                }
                let high = ((sequence >> 32) as u32).to_be_bytes();
                let mac = hmac::mac(*hash, state, packet, if esn { &high } else { &[] });
                let icv_bytes = icv.len();
                icv.copy_from_slice(&mac[..icv_bytes]);
            }
        }
        true
    }

    /// Opens a packet whose length [`Algorithm::text_bytes`] accepts; false where its ICV is wrong.
    pub(crate) fn open(&self, packet: &mut [u8], sequence: u64) -> bool {
        let Transform { algorithm, esn } = self.transform;
        let body = packet.len() - algorithm.icv_bytes();
        if let Kind::Aead(key) = &self.kind {
            let (head, text_and_icv) = packet.split_at_mut(ESP_HEADER_BYTES + algorithm.iv_bytes());
            let (esp, iv) = head.split_at(ESP_HEADER_BYTES);
            let (aad, aad_bytes) = additional_data(esp, sequence, esn);
            return key.open(iv, &aad[..aad_bytes], text_and_icv);
        }
        let (packet, icv) = packet.split_at_mut(body);
        match &self.kind {
            Kind::Aead(_) => false,
            Kind::Gmac(key) => {
                let (esp, rest) = packet.split_at(ESP_HEADER_BYTES);
                let (iv, text) = rest.split_at(algorithm.iv_bytes());
                let (aad, aad_bytes) = additional_data(esp, sequence, esn);
                verify_slices_are_equal(&key.tag(&aad[..aad_bytes], iv, text), icv).is_ok()
            }
            Kind::Hmac { cipher, hash, state } => {
                let high = ((sequence >> 32) as u32).to_be_bytes();
                let mac = hmac::mac(*hash, state, packet, if esn { &high } else { &[] });
                if verify_slices_are_equal(&mac[..icv.len()], icv).is_err() {
                    return false;
                }
                if let Some(cipher) = cipher {
                    let (head, text) = packet.split_at_mut(ESP_HEADER_BYTES + algorithm.iv_bytes());
                    cipher.decrypt(&head[ESP_HEADER_BYTES..], text);
                }
                true
            }
        }
    }
}

/// SPI and sequence number as combined modes authenticate them (RFC 4106 §5, RFC 7634 §2.1): 8 bytes, or
/// 12 with the high half between them.
fn additional_data(esp: &[u8], sequence: u64, esn: bool) -> ([u8; 12], usize) {
    let mut aad = [0; 12];
    aad[..4].copy_from_slice(&esp[..4]);
    if esn {
        aad[4..8].copy_from_slice(&((sequence >> 32) as u32).to_be_bytes());
        aad[8..].copy_from_slice(&esp[4..8]);
        (aad, 12)
    } else {
        aad[4..8].copy_from_slice(&esp[4..8]);
        (aad, 8)
    }
}

/// Eight random bytes that make the input of the CBC IV unknown (see [`CipherKey::unpredictable_iv`]).
pub(crate) fn iv_mask() -> Result<[u8; 8], KeyError> {
    let mut mask = [0; 8];
    rand::fill(&mut mask).map_err(|_| KeyError::Randomness)?;
    Ok(mask)
}
