//! Protection of SK and SKF payloads (RFC 7296 section 3.14, RFC 5282, RFC 5930, RFC 7634).

use aws_lc_rs::cipher::{self, DecryptionContext, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{aead, constant_time, hmac};
use des::TdesEde3;
use des::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use southbound::KeyMaterial;

use crate::error::{Error, Result};

use super::mac::{AesMac, AesMacKind};
use super::random::Random;

/// Encryption transforms that IKE SAs may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IkeCipher {
    AesGcm16(u16),
    /// AES-GCM with a tag of 12 or 8 bytes.
    AesGcm12(u16),
    AesGcm8(u16),
    ChaCha20Poly1305,
    AesCbc(u16),
    AesCtr(u16),
    TripleDes,
}

impl IkeCipher {
    /// Transform type 1 identifier and key length attribute.
    pub(crate) fn id(self) -> (u16, Option<u16>) {
        match self {
            Self::TripleDes => (3, None),
            Self::AesCbc(bits) => (12, Some(bits)),
            Self::AesCtr(bits) => (13, Some(bits)),
            Self::AesGcm8(bits) => (18, Some(bits)),
            Self::AesGcm12(bits) => (19, Some(bits)),
            Self::AesGcm16(bits) => (20, Some(bits)),
            Self::ChaCha20Poly1305 => (28, None),
        }
    }

    /// Whether it authenticates by itself, so that no integrity transform goes with it.
    pub(crate) fn is_aead(self) -> bool {
        matches!(
            self,
            Self::AesGcm16(_) | Self::AesGcm12(_) | Self::AesGcm8(_) | Self::ChaCha20Poly1305
        )
    }

    /// Bytes of SK_e: the key, and the salt or nonce of counter modes.
    pub(crate) fn key_bytes(self) -> usize {
        match self {
            Self::AesGcm16(bits) | Self::AesGcm12(bits) | Self::AesGcm8(bits) | Self::AesCtr(bits) => {
                usize::from(bits / 8) + 4
            }
            Self::ChaCha20Poly1305 => 36,
            Self::AesCbc(bits) => usize::from(bits / 8),
            Self::TripleDes => 24,
        }
    }

    /// Bytes of the tag of an AEAD.
    fn tag_bytes(self) -> usize {
        match self {
            Self::AesGcm8(_) => 8,
            Self::AesGcm12(_) => 12,
            _ => 16,
        }
    }

    fn iv_bytes(self) -> usize {
        match self {
            Self::AesCbc(_) => 16,
            _ => 8,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Self::AesCbc(_) => 16,
            Self::TripleDes => 8,
            _ => 1,
        }
    }
}

/// Integrity transforms that IKE SAs may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IkeIntegrity {
    HmacSha1_96,
    HmacSha256_128,
    HmacSha384_192,
    HmacSha512_256,
    AesXcbc96,
    AesCmac96,
}

/// An integrity transform with its key.
enum Mac {
    Hmac(Box<hmac::Key>),
    Aes(AesMac),
}

impl IkeIntegrity {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] = [
        Self::HmacSha1_96,
        Self::HmacSha256_128,
        Self::HmacSha384_192,
        Self::HmacSha512_256,
        Self::AesXcbc96,
        Self::AesCmac96,
    ];

    /// Transform type 3 identifier.
    pub(crate) fn id(self) -> u16 {
        match self {
            Self::HmacSha1_96 => 2,
            Self::HmacSha256_128 => 12,
            Self::HmacSha384_192 => 13,
            Self::HmacSha512_256 => 14,
            Self::AesXcbc96 => 5,
            Self::AesCmac96 => 8,
        }
    }

    pub(crate) fn key_bytes(self) -> usize {
        match self {
            Self::HmacSha1_96 => 20,
            Self::HmacSha256_128 => 32,
            Self::HmacSha384_192 => 48,
            Self::HmacSha512_256 => 64,
            Self::AesXcbc96 | Self::AesCmac96 => 16,
        }
    }

    fn icv_bytes(self) -> usize {
        match self {
            Self::HmacSha1_96 | Self::AesXcbc96 | Self::AesCmac96 => 12,
            _ => self.key_bytes() / 2,
        }
    }

    fn key(self, bytes: &[u8]) -> Result<Mac> {
        let algorithm = match self {
            Self::HmacSha1_96 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha256_128 => hmac::HMAC_SHA256,
            Self::HmacSha384_192 => hmac::HMAC_SHA384,
            Self::HmacSha512_256 => hmac::HMAC_SHA512,
            Self::AesXcbc96 => return Ok(Mac::Aes(AesMac::new(AesMacKind::Xcbc, bytes)?)),
            Self::AesCmac96 => return Ok(Mac::Aes(AesMac::new(AesMacKind::Cmac, bytes)?)),
        };
        Ok(Mac::Hmac(Box::new(hmac::Key::new(algorithm, bytes))))
    }
}

enum Keyed {
    Aead {
        key: Box<aead::LessSafeKey>,
        salt: [u8; 4],
    },
    /// GCM with a short tag, which the library cannot check: the whole tag is computed anew and its head compared.
    ShortGcm {
        key: Box<aead::LessSafeKey>,
        decrypt: cipher::DecryptingKey,
        salt: [u8; 4],
    },
    Ctr {
        encrypt: cipher::EncryptingKey,
        decrypt: cipher::DecryptingKey,
        nonce: [u8; 4],
    },
    Cbc {
        encrypt: cipher::EncryptingKey,
        decrypt: cipher::DecryptingKey,
    },
    TripleDes(Box<TdesEde3>),
}

/// Both operations with the keys of one direction of an IKE SA.
pub(crate) struct Protector {
    cipher: IkeCipher,
    keyed: Keyed,
    integrity: Option<(IkeIntegrity, Mac)>,
    /// Explicit IVs of counter modes: unique for as long as the key lives.
    next_iv: u64,
}

impl std::fmt::Debug for Protector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Protector({:?}, [redacted])", self.cipher)
    }
}

impl Protector {
    /// Keys as they come from KEYMAT: SK_e of `cipher.key_bytes()`, SK_a of the integrity's key length.
    pub(crate) fn new(
        cipher: IkeCipher,
        integrity: Option<IkeIntegrity>,
        encryption_key: &KeyMaterial,
        integrity_key: &KeyMaterial,
    ) -> Result<Self> {
        let (key, salt) = match cipher {
            IkeCipher::AesCbc(_) | IkeCipher::TripleDes => (encryption_key.expose(), [0; 4]),
            _ => encryption_key
                .expose()
                .split_last_chunk::<4>()
                .map(|(k, s)| (k, *s))
                .ok_or(KEY)?,
        };
        let aes = || {
            let algorithm = match key.len() {
                16 => &cipher::AES_128,
                24 => &cipher::AES_192,
                _ => &cipher::AES_256,
            };
            UnboundCipherKey::new(algorithm, key).map_err(|_| KEY)
        };
        let keyed = match cipher {
            IkeCipher::AesGcm16(bits) | IkeCipher::AesGcm12(bits) | IkeCipher::AesGcm8(bits) => {
                let algorithm = match bits {
                    128 => &aead::AES_128_GCM,
                    192 => &aead::AES_192_GCM,
                    _ => &aead::AES_256_GCM,
                };
                let unbound = aead::UnboundKey::new(algorithm, key).map_err(|_| KEY)?;
                let whole = Box::new(aead::LessSafeKey::new(unbound));
                if cipher.tag_bytes() == 16 {
                    Keyed::Aead { key: whole, salt }
                } else {
                    let decrypt = cipher::DecryptingKey::ctr(aes()?).map_err(|_| KEY)?;
                    Keyed::ShortGcm {
                        key: whole,
                        decrypt,
                        salt,
                    }
                }
            }
            IkeCipher::ChaCha20Poly1305 => {
                let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key).map_err(|_| KEY)?;
                Keyed::Aead {
                    key: Box::new(aead::LessSafeKey::new(key)),
                    salt,
                }
            }
            IkeCipher::AesCtr(_) => Keyed::Ctr {
                encrypt: cipher::EncryptingKey::ctr(aes()?).map_err(|_| KEY)?,
                decrypt: cipher::DecryptingKey::ctr(aes()?).map_err(|_| KEY)?,
                nonce: salt,
            },
            IkeCipher::AesCbc(_) => Keyed::Cbc {
                encrypt: cipher::EncryptingKey::cbc(aes()?).map_err(|_| KEY)?,
                decrypt: cipher::DecryptingKey::cbc(aes()?).map_err(|_| KEY)?,
            },
            IkeCipher::TripleDes => {
                Keyed::TripleDes(Box::new(TdesEde3::new_from_slice(key).map_err(|_| KEY)?))
            }
        };
        let integrity = match integrity {
            Some(integrity) => Some((integrity, integrity.key(integrity_key.expose())?)),
            None => None,
        };
        Ok(Self {
            cipher,
            keyed,
            integrity,
            next_iv: 0,
        })
    }

    fn icv_bytes(&self) -> usize {
        self.integrity
            .as_ref()
            .map_or(self.cipher.tag_bytes(), |(integrity, _)| integrity.icv_bytes())
    }

    /// Bytes that follow the SK (or SKF) header for a plaintext of this length.
    pub(crate) fn sealed_bytes(&self, plaintext_bytes: usize) -> usize {
        let padded = (plaintext_bytes + 1).next_multiple_of(self.cipher.block_bytes());
        self.cipher.iv_bytes() + padded + self.icv_bytes()
    }

    /// Appends IV, encrypted payloads, padding and ICV to a message that ends with the SK or SKF header, and whose
    /// length fields already count them.
    pub(crate) fn seal(
        &mut self,
        message: &mut Vec<u8>,
        plaintext: &[u8],
        random: &mut dyn Random,
    ) -> Result<()> {
        let associated = message.len();
        let mut iv = [0_u8; 16];
        match self.cipher {
            // RFC 3602 section 3: unpredictable for CBC.
            IkeCipher::AesCbc(_) | IkeCipher::TripleDes => random.fill(&mut iv),
            _ => {
                iv[..8].copy_from_slice(&self.next_iv.to_be_bytes());
                self.next_iv = self
                    .next_iv
                    .checked_add(1)
                    .ok_or(Error::Crypto("initialisation vectors used up"))?;
            }
        }
        let iv_bytes = self.cipher.iv_bytes();
        message.extend_from_slice(iv.get(..iv_bytes).unwrap_or_default());
        let start = message.len();
        message.extend_from_slice(plaintext);
        let pad = (plaintext.len() + 1).next_multiple_of(self.cipher.block_bytes()) - plaintext.len() - 1;
        message.resize(message.len() + pad, 0);
        message.push(u8::try_from(pad).unwrap_or(0));
        match &self.keyed {
            Keyed::Aead { key, salt } | Keyed::ShortGcm { key, salt, .. } => {
                let (head, body) = message.split_at_mut(start);
                let aad = aead::Aad::from(head.get(..associated).unwrap_or_default());
                let tag = key
                    .seal_in_place_separate_tag(aead_nonce(*salt, &iv), aad, body)
                    .map_err(|_| Error::Crypto("seal"))?;
                let tag = tag.as_ref();
                message.extend_from_slice(tag.get(..self.cipher.tag_bytes()).unwrap_or(tag));
            }
            Keyed::Ctr { encrypt, nonce, .. } => {
                let context = EncryptionContext::Iv128(FixedLength::from(&counter_block(*nonce, &iv, 1)));
                encrypt
                    .less_safe_encrypt(message.split_at_mut(start).1, context)
                    .map_err(|_| Error::Crypto("encrypt"))?;
            }
            Keyed::Cbc { encrypt, .. } => {
                let context = EncryptionContext::Iv128(FixedLength::from(&iv));
                encrypt
                    .less_safe_encrypt(message.split_at_mut(start).1, context)
                    .map_err(|_| Error::Crypto("encrypt"))?;
            }
            Keyed::TripleDes(key) => {
                let mut previous = [iv[0], iv[1], iv[2], iv[3], iv[4], iv[5], iv[6], iv[7]];
                for block in message.split_at_mut(start).1.as_chunks_mut::<8>().0 {
                    block.iter_mut().zip(previous).for_each(|(b, p)| *b ^= p);
                    let mut array = Array::from(*block);
                    key.encrypt_block(&mut array);
                    block.copy_from_slice(&array);
                    previous = *block;
                }
            }
        }
        if let Some((integrity, key)) = &self.integrity {
            let tag = key.sign(message)?;
            message.extend_from_slice(tag.get(..integrity.icv_bytes()).unwrap_or_default());
        }
        Ok(())
    }

    /// Verifies a message whose encrypted body starts at `body_offset` and returns the payloads in clear.
    pub(crate) fn open(&self, message: &[u8], body_offset: usize) -> Result<Vec<u8>> {
        let (associated, body) = message.split_at_checked(body_offset).ok_or(SHORT)?;
        let rest = body.len().checked_sub(self.icv_bytes()).ok_or(SHORT)?;
        let (body, icv) = body.split_at(rest);
        let (iv_slice, ciphertext) = body.split_at_checked(self.cipher.iv_bytes()).ok_or(SHORT)?;
        if ciphertext.is_empty() || ciphertext.len() % self.cipher.block_bytes() != 0 {
            return Err(SHORT);
        }
        if let Some((integrity, key)) = &self.integrity {
            let signed = message.len() - icv.len();
            let tag = key.sign(message.get(..signed).unwrap_or_default())?;
            let tag = tag.get(..integrity.icv_bytes()).unwrap_or_default();
            constant_time::verify_slices_are_equal(tag, icv).map_err(|_| Error::Integrity)?;
        }
        let mut iv = [0_u8; 16];
        iv.iter_mut().zip(iv_slice).for_each(|(to, from)| *to = *from);
        let mut plaintext = ciphertext.to_vec();
        match &self.keyed {
            Keyed::Aead { key, salt } => {
                plaintext.extend_from_slice(icv);
                key.open_in_place(
                    aead_nonce(*salt, &iv),
                    aead::Aad::from(associated),
                    &mut plaintext,
                )
                .map_err(|_| Error::Integrity)?;
                plaintext.truncate(ciphertext.len());
            }
            Keyed::ShortGcm { key, decrypt, salt } => {
                // NIST SP 800-38D section 7.1: the counter of the first block of text is 2.
                let context = DecryptionContext::Iv128(FixedLength::from(&counter_block(*salt, &iv, 2)));
                decrypt
                    .decrypt(&mut plaintext, context)
                    .map_err(|_| Error::Crypto("decrypt"))?;
                let mut again = plaintext.clone();
                let tag = key
                    .seal_in_place_separate_tag(
                        aead_nonce(*salt, &iv),
                        aead::Aad::from(associated),
                        &mut again,
                    )
                    .map_err(|_| Error::Crypto("seal"))?;
                let tag = tag.as_ref().get(..icv.len()).unwrap_or_default();
                constant_time::verify_slices_are_equal(tag, icv).map_err(|_| Error::Integrity)?;
            }
            Keyed::Ctr { decrypt, nonce, .. } => {
                let context = DecryptionContext::Iv128(FixedLength::from(&counter_block(*nonce, &iv, 1)));
                decrypt
                    .decrypt(&mut plaintext, context)
                    .map_err(|_| Error::Crypto("decrypt"))?;
            }
            Keyed::Cbc { decrypt, .. } => {
                let context = DecryptionContext::Iv128(FixedLength::from(&iv));
                decrypt
                    .decrypt(&mut plaintext, context)
                    .map_err(|_| Error::Crypto("decrypt"))?;
            }
            Keyed::TripleDes(key) => {
                let mut previous = [iv[0], iv[1], iv[2], iv[3], iv[4], iv[5], iv[6], iv[7]];
                for block in plaintext.as_chunks_mut::<8>().0 {
                    let this = *block;
                    let mut array = Array::from(this);
                    key.decrypt_block(&mut array);
                    block
                        .iter_mut()
                        .zip(array)
                        .zip(previous)
                        .for_each(|((b, d), p)| *b = d ^ p);
                    previous = this;
                }
            }
        }
        let pad = usize::from(plaintext.pop().ok_or(SHORT)?);
        let length = plaintext
            .len()
            .checked_sub(pad)
            .ok_or(Error::Malformed("pad length"))?;
        plaintext.truncate(length);
        Ok(plaintext)
    }
}

const KEY: Error = Error::Crypto("key length");
const SHORT: Error = Error::Malformed("encrypted payload length");

fn aead_nonce(salt: [u8; 4], iv: &[u8; 16]) -> aead::Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(&iv[..8]);
    aead::Nonce::assume_unique_for_key(nonce)
}

impl Mac {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Aes(key) => Ok(key.sign(&[message])?.to_vec()),
        }
    }
}

/// RFC 5930 section 2 with RFC 3686 section 4: nonce, IV, and a block counter, which starts at one there.
fn counter_block(nonce: [u8; 4], iv: &[u8; 16], counter: u8) -> [u8; 16] {
    let mut block = [0; 16];
    block[..4].copy_from_slice(&nonce);
    block[4..12].copy_from_slice(&iv[..8]);
    block[15] = counter;
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::SystemRandom;

    fn suites() -> Vec<(IkeCipher, Option<IkeIntegrity>)> {
        let mut suites: Vec<_> = [128, 192, 256]
            .into_iter()
            .flat_map(|bits| {
                [
                    (IkeCipher::AesGcm16(bits), None),
                    (IkeCipher::AesGcm12(bits), None),
                    (IkeCipher::AesGcm8(bits), None),
                ]
            })
            .collect();
        suites.push((IkeCipher::ChaCha20Poly1305, None));
        for integrity in IkeIntegrity::ALL {
            for cipher in [128, 192, 256]
                .into_iter()
                .flat_map(|bits| [IkeCipher::AesCbc(bits), IkeCipher::AesCtr(bits)])
            {
                suites.push((cipher, Some(integrity)));
            }
            suites.push((IkeCipher::TripleDes, Some(integrity)));
        }
        suites
    }

    #[test]
    fn every_suite_opens_what_it_seals_and_nothing_else() {
        for (cipher, integrity) in suites() {
            let encryption_key = KeyMaterial::new((0..cipher.key_bytes()).map(|i| i as u8).collect());
            let integrity_key = KeyMaterial::new(vec![7; integrity.map_or(0, IkeIntegrity::key_bytes)]);
            let mut protector = Protector::new(cipher, integrity, &encryption_key, &integrity_key).unwrap();
            for length in [0, 1, 7, 8, 15, 16, 17, 100] {
                let mut message = vec![0xaa; 32];
                let plaintext: Vec<u8> = (0..length).collect();
                protector
                    .seal(&mut message, &plaintext, &mut SystemRandom::new())
                    .unwrap();
                assert_eq!(message.len(), 32 + protector.sealed_bytes(plaintext.len()));
                assert_eq!(protector.open(&message, 32).unwrap(), plaintext, "{cipher:?}");
                for index in 0..message.len() {
                    let mut bad = message.clone();
                    bad[index] ^= 0x40;
                    assert_eq!(
                        protector.open(&bad, 32),
                        Err(Error::Integrity),
                        "{cipher:?} byte {index}"
                    );
                }
                for end in 0..message.len() {
                    assert!(protector.open(&message[..end], 32).is_err());
                }
            }
        }
    }

    #[test]
    fn explicit_ivs_never_repeat() {
        let key = KeyMaterial::new(vec![1; 36]);
        let mut protector =
            Protector::new(IkeCipher::AesGcm16(256), None, &key, &KeyMaterial::new(vec![])).unwrap();
        let mut sealed = || {
            let mut message = Vec::new();
            protector
                .seal(&mut message, b"x", &mut SystemRandom::new())
                .unwrap();
            message[..8].to_vec()
        };
        assert_ne!(sealed(), sealed());
    }
}
