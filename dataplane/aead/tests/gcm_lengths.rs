//! AES-GCM of every text length a packet can have, against two independent libraries, with 8 and 12 bytes
//! of additional data, alone and beside other packets.
#![allow(clippy::unwrap_used)]

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, KeyInit};
use esp_aead::{
    AesKey, Algorithm, Engine, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal,
};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const LONGEST_BYTES: usize = 9216;

/// What the ESP packet must look like: header as given, IV, ciphertext, tag.
struct Expected {
    nonce: [u8; 12],
    aad: Vec<u8>,
    text: Vec<u8>,
}

fn byte(seed: usize, i: usize) -> u8 {
    (i.wrapping_mul(167).wrapping_add(seed * 59) >> 3) as u8 ^ (i as u8)
}

fn expected(keymat: &[u8], packet: &[u8], sequence: u64, esn: bool) -> Expected {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&keymat[keymat.len() - 4..]);
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    let mut aad = packet[..4].to_vec();
    if esn {
        aad.extend_from_slice(&sequence.to_be_bytes()[..4]);
    }
    aad.extend_from_slice(&packet[4..8]);
    Expected {
        nonce,
        aad,
        text: packet[16..packet.len() - 16].to_vec(),
    }
}

impl Expected {
    fn by_rustcrypto(&self, key: &[u8]) -> Vec<u8> {
        let mut text = self.text.clone();
        let (nonce, aad) = (self.nonce.into(), self.aad.as_slice());
        let buffer = text.as_mut_slice().into();
        let tag = match key.len() {
            16 => Aes128Gcm::new_from_slice(key)
                .unwrap()
                .encrypt_inout_detached(&nonce, aad, buffer),
            24 => AesGcm::<aes::Aes192, U12>::new_from_slice(key)
                .unwrap()
                .encrypt_inout_detached(&nonce, aad, buffer),
            _ => Aes256Gcm::new_from_slice(key)
                .unwrap()
                .encrypt_inout_detached(&nonce, aad, buffer),
        };
        text.extend_from_slice(&tag.unwrap());
        text
    }

    fn by_ring(&self, key: &[u8]) -> Option<Vec<u8>> {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        let mut text = self.text.clone();
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(&self.aad), &mut text)
            .unwrap();
        Some(text)
    }
}

fn every_length(engine: Engine, key_length: AesKey) {
    let algorithm = Algorithm::AesGcm16(key_length);
    // Five packets: enough for the interleaved way and for the single one in the same batch.
    let keymats: Vec<Vec<u8>> = (0..5)
        .map(|k| (0..algorithm.key_bytes()).map(|i| byte(k + 1, i)).collect())
        .collect();
    for esn in [false, true] {
        let transform = Transform::new(algorithm, esn);
        let seal_keys: Vec<SealKey> = keymats
            .iter()
            .map(|k| SealKey::with_engine(engine, transform, k).unwrap())
            .collect();
        let open_keys: Vec<OpenKey> = keymats
            .iter()
            .map(|k| OpenKey::with_engine(engine, transform, k).unwrap())
            .collect();
        for length in 0..=LONGEST_BYTES {
            // Both settings meet every length below a page, and every other length above.
            if length > 4200 && (length % 2 == 0) == esn {
                continue;
            }
            // Above, long packets are worked on by twos, and one is left.
            let count = if length <= 260 {
                5
            } else if length.is_multiple_of(8) {
                3
            } else {
                1
            };
            let sequence = 0x1_0203_0405u64 * (length as u64 + 1);
            let plain: Vec<Vec<u8>> = (0..count)
                .map(|k| (0..length + 32).map(|i| byte(length + k, i)).collect())
                .collect();
            let mut sealed = plain.clone();
            let mut jobs: Vec<SealJob<'_>> = sealed
                .iter_mut()
                .zip(&seal_keys)
                .map(|(packet, key)| SealJob::new(key, packet, sequence))
                .collect();
            seal(&mut jobs);
            assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
            drop(jobs);
            for ((plain, sealed), keymat) in plain.iter().zip(&sealed).zip(&keymats) {
                let key = &keymat[..key_length.bytes()];
                let expected = expected(keymat, plain, sequence, esn);
                assert_eq!(sealed[..8], plain[..8], "header, {length}");
                assert_eq!(sealed[8..16], sequence.to_be_bytes(), "IV, {length}");
                assert!(sealed[16..] == expected.by_rustcrypto(key), "aes-gcm, {length}");
                if let Some(by_ring) = expected.by_ring(key) {
                    assert!(sealed[16..] == by_ring, "ring, {length}");
                }
            }
            let mut jobs: Vec<OpenJob<'_>> = sealed
                .iter_mut()
                .zip(&open_keys)
                .map(|(packet, key)| OpenJob::new(key, packet, sequence))
                .collect();
            open(&mut jobs);
            assert!(
                jobs.iter().all(|job| job.verdict == Verdict::Done),
                "open, {length}"
            );
            drop(jobs);
            for (plain, opened) in plain.iter().zip(&sealed) {
                assert!(
                    plain[16..16 + length] == opened[16..16 + length],
                    "text, {length}"
                );
            }
        }
    }
}

fn by_every_engine(key_length: AesKey) {
    for engine in Engine::ALL.into_iter().filter(|engine| engine.is_usable()) {
        every_length(engine, key_length);
    }
}

#[test]
fn aes_128_gcm_of_every_length() {
    by_every_engine(AesKey::Bits128);
}

#[test]
fn aes_192_gcm_of_every_length() {
    by_every_engine(AesKey::Bits192);
}

#[test]
fn aes_256_gcm_of_every_length() {
    by_every_engine(AesKey::Bits256);
}
