//! Every text length from 0 to 9216 bytes (every whole block for CBC), with 8 and 12 bytes of additional data or
//! with and without the high half of the sequence number, against two independent libraries each. Batches of
//! 64 packets of different lengths and keys. AES-GCM is in `gcm_lengths.rs`.
#![allow(clippy::unwrap_used)]

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit};
use aws_lc_rs::cipher::{DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt};
use esp_aead::{
    AesKey, Algorithm, Engine, Hmac, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal,
};
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};

const LONGEST_BYTES: usize = 9216;
const BATCH: usize = 64;
const KEYS: usize = 5;

fn byte(seed: usize, i: usize) -> u8 {
    (i.wrapping_mul(167).wrapping_add(seed * 59) >> 3) as u8 ^ (i as u8)
}

/// What independent code makes of a packet that was sealed.
trait Oracle {
    /// Panics where a sealed packet is not what the library makes of the plain one.
    fn check(&self, sequence: u64, esn: bool, plain: &[u8], sealed: &[u8]);
}

/// Seals and opens packets of every length and hands them to oracles, one for each key.
fn every_length<O: Oracle>(algorithm: Algorithm, oracle_of: impl Fn(&[u8]) -> O) {
    let engine = Engine::detected();
    let keymats: [Vec<u8>; KEYS] =
        core::array::from_fn(|k| (0..algorithm.key_bytes()).map(|i| byte(k + 1, i)).collect());
    let oracles = keymats.each_ref().map(|keymat| oracle_of(keymat));
    let step = if matches!(algorithm, Algorithm::AesCbc(..)) {
        16
    } else {
        1
    };
    let first = if step == 16 { 16 } else { 0 };
    let lengths: Vec<usize> = (first..=LONGEST_BYTES).step_by(step).collect();
    for (batch, lengths) in lengths.chunks(BATCH).enumerate() {
        for esn in [false, true] {
            // Both settings meet the lengths of usual packets, and every other batch above.
            if lengths[0] > 2048 && batch.is_multiple_of(2) == esn {
                continue;
            }
            let transform = Transform::new(algorithm, esn);
            let seal_keys = keymats
                .each_ref()
                .map(|k| SealKey::with_engine(engine, transform, k).unwrap());
            let open_keys = keymats
                .each_ref()
                .map(|k| OpenKey::with_engine(engine, transform, k).unwrap());
            let sequence_of = |length: usize| 0x1_0203_0405u64 * (length as u64 + 1);
            let plain: Vec<Vec<u8>> = lengths
                .iter()
                .map(|length| {
                    let bytes = algorithm.overhead_bytes() + length;
                    (0..bytes).map(|i| byte(*length, i)).collect()
                })
                .collect();
            let mut sealed = plain.clone();
            let mut jobs: Vec<SealJob<'_>> = sealed
                .iter_mut()
                .zip(lengths)
                .map(|(packet, length)| SealJob::new(&seal_keys[length % KEYS], packet, sequence_of(*length)))
                .collect();
            seal(&mut jobs);
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
            drop(jobs);
            for ((plain, sealed), length) in plain.iter().zip(&sealed).zip(lengths) {
                assert_eq!(sealed[..8], plain[..8], "header, {length}");
                oracles[length % KEYS].check(sequence_of(*length), esn, plain, sealed);
            }
            let mut jobs: Vec<OpenJob<'_>> = sealed
                .iter_mut()
                .zip(lengths)
                .map(|(packet, length)| OpenJob::new(&open_keys[length % KEYS], packet, sequence_of(*length)))
                .collect();
            open(&mut jobs);
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
            drop(jobs);
            for ((plain, opened), length) in plain.iter().zip(&sealed).zip(lengths) {
                let text = 8 + algorithm.iv_bytes()..plain.len() - algorithm.icv_bytes();
                assert!(plain[text.clone()] == opened[text], "opened, {length}");
            }
        }
    }
}

/// Header and high half as a combined mode authenticates them (RFC 4106 §5, RFC 7634 §2.1).
fn additional_data(sequence: u64, esn: bool, packet: &[u8]) -> Vec<u8> {
    let high = sequence.to_be_bytes();
    let high = if esn { &high[..4] } else { &[] };
    [&packet[..4], high, &packet[4..8]].concat()
}

/// AEADs of ring and of RustCrypto.
struct Aeads<A> {
    ring: LessSafeKey,
    other: A,
    salt: [u8; 4],
    /// GMAC: IV and text are authenticated, nothing is encrypted.
    gmac: bool,
}

impl<A: KeyInit> Aeads<A> {
    fn new(algorithm: &'static ring::aead::Algorithm, gmac: bool, keymat: &[u8]) -> Self {
        let (key, salt) = keymat.split_last_chunk().unwrap();
        Self {
            ring: LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap()),
            other: A::new_from_slice(key).unwrap(),
            salt: *salt,
            gmac,
        }
    }
}

impl<A> Oracle for Aeads<A>
where
    A: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>,
{
    fn check(&self, sequence: u64, esn: bool, plain: &[u8], sealed: &[u8]) {
        let nonce: [u8; 12] = [&self.salt, sequence.to_be_bytes().as_slice()]
            .concat()
            .try_into()
            .unwrap();
        assert_eq!(sealed[8..16], nonce[4..]);
        let mut aad = additional_data(sequence, esn, plain);
        let text = &plain[16..plain.len() - 16];
        let encrypted: &[u8] = if self.gmac { &[] } else { text };
        if self.gmac {
            aad.extend_from_slice(&sealed[8..16]);
            aad.extend_from_slice(text);
            assert!(sealed[16..sealed.len() - 16] == *text);
        }
        let expected = &sealed[16 + text.len() - encrypted.len()..];
        let mut by_ring = encrypted.to_vec();
        self.ring
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut by_ring)
            .unwrap();
        assert!(by_ring == expected, "ring, {} bytes", text.len());
        let mut by_other = encrypted.to_vec();
        let tag = self
            .other
            .encrypt_inout_detached(&nonce.into(), &aad, by_other.as_mut_slice().into())
            .unwrap();
        by_other.extend_from_slice(&tag);
        assert!(by_other == expected, "RustCrypto, {} bytes", text.len());
    }
}

#[test]
fn chacha20_poly1305() {
    every_length(Algorithm::ChaCha20Poly1305, |keymat| {
        Aeads::<chacha20poly1305::ChaCha20Poly1305>::new(&ring::aead::CHACHA20_POLY1305, false, keymat)
    });
}

#[test]
fn gmac() {
    every_length(Algorithm::AesGmac(AesKey::Bits128), |keymat| {
        Aeads::<Aes128Gcm>::new(&ring::aead::AES_128_GCM, true, keymat)
    });
    every_length(Algorithm::AesGmac(AesKey::Bits256), |keymat| {
        Aeads::<Aes256Gcm>::new(&ring::aead::AES_256_GCM, true, keymat)
    });
}

/// HMACs of ring and aws-lc, ciphers of aws-lc and RustCrypto.
struct Etm {
    algorithm: Algorithm,
    cipher_key: Vec<u8>,
    nonce: Vec<u8>,
    ring: ring::hmac::Key,
    aws: aws_lc_rs::hmac::Key,
}

impl Etm {
    fn new(algorithm: Algorithm, keymat: &[u8]) -> Self {
        let (cipher_key, rest) = keymat.split_at(algorithm.cipher_key_bytes());
        let (nonce, integrity) = rest.split_at(algorithm.salt_bytes());
        let (of_ring, of_aws) = match algorithm {
            Algorithm::AesCbc(_, hash) | Algorithm::AesCtr(_, hash) | Algorithm::Null(hash) => match hash {
                Hmac::Sha1_96 => (
                    ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                ),
                Hmac::Sha256_128 => (ring::hmac::HMAC_SHA256, aws_lc_rs::hmac::HMAC_SHA256),
                Hmac::Sha384_192 => (ring::hmac::HMAC_SHA384, aws_lc_rs::hmac::HMAC_SHA384),
                Hmac::Sha512_256 => (ring::hmac::HMAC_SHA512, aws_lc_rs::hmac::HMAC_SHA512),
            },
            _ => panic!("{algorithm:?} has no HMAC"),
        };
        Self {
            algorithm,
            cipher_key: cipher_key.to_vec(),
            nonce: nonce.to_vec(),
            ring: ring::hmac::Key::new(of_ring, integrity),
            aws: aws_lc_rs::hmac::Key::new(of_aws, integrity),
        }
    }

    fn by_aws(&self, iv: &[u8; 16], text: &[u8]) -> Vec<u8> {
        let algorithm = match self.cipher_key.len() {
            16 => &aws_lc_rs::cipher::AES_128,
            24 => &aws_lc_rs::cipher::AES_192,
            _ => &aws_lc_rs::cipher::AES_256,
        };
        let key = UnboundCipherKey::new(algorithm, &self.cipher_key).unwrap();
        let key = if matches!(self.algorithm, Algorithm::AesCbc(..)) {
            DecryptingKey::cbc(key).unwrap()
        } else {
            DecryptingKey::ctr(key).unwrap()
        };
        let mut text = text.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        key.decrypt(&mut text, context).unwrap().to_vec()
    }

    fn by_rustcrypto(&self, iv: &[u8; 16], text: &[u8]) -> Vec<u8> {
        match self.cipher_key.len() {
            16 => self.block_by_block::<aes::Aes128>(iv, text),
            24 => self.block_by_block::<aes::Aes192>(iv, text),
            _ => self.block_by_block::<aes::Aes256>(iv, text),
        }
    }

    fn block_by_block<C>(&self, iv: &[u8; 16], text: &[u8]) -> Vec<u8>
    where
        C: cipher::KeyInit
            + BlockCipherEncrypt<BlockSize = cipher::consts::U16>
            + BlockCipherDecrypt<BlockSize = cipher::consts::U16>,
    {
        let key = C::new_from_slice(&self.cipher_key).unwrap();
        let is_cbc = matches!(self.algorithm, Algorithm::AesCbc(..));
        let mut chain = *iv;
        let mut plain = Vec::new();
        for chunk in text.chunks(16) {
            let mut block = aes::Block::default();
            if is_cbc {
                block.copy_from_slice(chunk);
                key.decrypt_block(&mut block);
                plain.extend(block.iter().zip(chain).map(|(a, b)| a ^ b));
                chain.copy_from_slice(chunk);
            } else {
                block.copy_from_slice(&chain);
                key.encrypt_block(&mut block);
                plain.extend(chunk.iter().zip(block).map(|(a, b)| a ^ b));
                let counter = u32::from_be_bytes(chain[12..].try_into().unwrap());
                chain[12..].copy_from_slice(&(counter + 1).to_be_bytes());
            }
        }
        plain
    }
}

impl Oracle for Etm {
    fn check(&self, sequence: u64, esn: bool, plain: &[u8], sealed: &[u8]) {
        let (body, icv) = sealed.split_at(sealed.len() - self.algorithm.icv_bytes());
        let high = sequence.to_be_bytes();
        let message = [body, if esn { &high[..4] } else { &[] }].concat();
        let length = plain.len();
        let by_ring = ring::hmac::sign(&self.ring, &message);
        assert_eq!(by_ring.as_ref()[..icv.len()], *icv, "ring, {length} bytes");
        let by_aws = aws_lc_rs::hmac::sign(&self.aws, &message);
        assert_eq!(by_aws.as_ref()[..icv.len()], *icv, "aws-lc, {length} bytes");
        let (start, end) = (8 + self.algorithm.iv_bytes(), body.len());
        let iv: [u8; 16] = match self.algorithm {
            Algorithm::Null(_) => {
                assert!(plain[8..end] == sealed[8..end], "NULL changed {length} bytes");
                return;
            }
            Algorithm::AesCbc(..) => body[8..24].try_into().unwrap(),
            // RFC 3686 §4: nonce, IV, a counter from one.
            _ => [self.nonce.as_slice(), &body[8..16], &[0, 0, 0, 1]]
                .concat()
                .try_into()
                .unwrap(),
        };
        assert!(
            self.by_aws(&iv, &body[start..]) == plain[start..end],
            "aws-lc, {length} bytes"
        );
        assert!(
            self.by_rustcrypto(&iv, &body[start..]) == plain[start..end],
            "RustCrypto, {length} bytes"
        );
    }
}

fn etm(algorithm: Algorithm) {
    every_length(algorithm, |keymat| Etm::new(algorithm, keymat));
}

#[test]
fn aes_cbc_with_every_hmac() {
    etm(Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha1_96));
    etm(Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha256_128));
    etm(Algorithm::AesCbc(AesKey::Bits192, Hmac::Sha384_192));
    etm(Algorithm::AesCbc(AesKey::Bits256, Hmac::Sha512_256));
}

#[test]
fn aes_ctr() {
    etm(Algorithm::AesCtr(AesKey::Bits128, Hmac::Sha1_96));
    etm(Algorithm::AesCtr(AesKey::Bits192, Hmac::Sha256_128));
    etm(Algorithm::AesCtr(AesKey::Bits256, Hmac::Sha256_128));
}

#[test]
fn null_with_every_hmac() {
    for hash in Hmac::ALL {
        etm(Algorithm::Null(hash));
    }
}
