//! AES-CBC and AES-CTR over RustCrypto's AES.

use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc, Block};
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroize;

use crate::key::{Direction, KeyError};

/// Blocks worked on at once: the library pipelines up to this many.
const STRIDE_BLOCKS: usize = 8;

/// A cipher key and its mode. The library erases the round keys.
pub(super) enum CipherKey {
    CbcEncrypt { key: Encrypt, mask: [u8; 8] },
    CbcDecrypt(Decrypt),
    Ctr { key: Encrypt, nonce: [u8; 4] },
}

impl Drop for CipherKey {
    fn drop(&mut self) {
        match self {
            Self::CbcEncrypt { mask, .. } => mask.zeroize(),
            Self::CbcDecrypt(_) => {}
            Self::Ctr { nonce, .. } => nonce.zeroize(),
        }
    }
}

/// AES, forward.
pub(super) enum Encrypt {
    Bits128(Aes128Enc),
    Bits192(Aes192Enc),
    Bits256(Aes256Enc),
}

/// AES, inverse.
pub(super) enum Decrypt {
    Bits128(Aes128Dec),
    Bits192(Aes192Dec),
    Bits256(Aes256Dec),
}

impl Encrypt {
    pub(super) fn new(key: &[u8]) -> Result<Self, KeyError> {
        match key.len() {
            16 => Aes128Enc::new_from_slice(key).map(Self::Bits128),
            24 => Aes192Enc::new_from_slice(key).map(Self::Bits192),
            _ => Aes256Enc::new_from_slice(key).map(Self::Bits256),
        }
        .map_err(|_| KeyError::Engine)
    }

    pub(super) fn blocks(&self, blocks: &mut [Block]) {
        match self {
            Self::Bits128(key) => key.encrypt_blocks(blocks),
            Self::Bits192(key) => key.encrypt_blocks(blocks),
            Self::Bits256(key) => key.encrypt_blocks(blocks),
        }
    }

    /// XORs `text` with the key stream that starts at `counter` (its last four bytes count).
    pub(super) fn ctr(&self, counter: [u8; 16], text: &mut [u8]) {
        let mut number = u32::from_be_bytes([counter[12], counter[13], counter[14], counter[15]]);
        for chunk in text.chunks_mut(16 * STRIDE_BLOCKS) {
            let mut stream = [Block::from(counter); STRIDE_BLOCKS];
            for block in &mut stream {
                block[12..].copy_from_slice(&number.to_be_bytes());
                number = number.wrapping_add(1);
            }
            let used = chunk.len().div_ceil(16);
            self.blocks(&mut stream[..used]);
            for (part, block) in chunk.chunks_mut(16).zip(&stream) {
                xor(part, block);
            }
        }
    }
}

impl Decrypt {
    fn new(key: &[u8]) -> Result<Self, KeyError> {
        match key.len() {
            16 => Aes128Dec::new_from_slice(key).map(Self::Bits128),
            24 => Aes192Dec::new_from_slice(key).map(Self::Bits192),
            _ => Aes256Dec::new_from_slice(key).map(Self::Bits256),
        }
        .map_err(|_| KeyError::Engine)
    }

    fn blocks(&self, blocks: &mut [Block]) {
        match self {
            Self::Bits128(key) => key.decrypt_blocks(blocks),
            Self::Bits192(key) => key.decrypt_blocks(blocks),
            Self::Bits256(key) => key.decrypt_blocks(blocks),
        }
    }
}

impl CipherKey {
    pub(super) fn cbc(key: &[u8], direction: Direction, mask: [u8; 8]) -> Result<Self, KeyError> {
        Ok(match direction {
            Direction::Seal => Self::CbcEncrypt {
                key: Encrypt::new(key)?,
                mask,
            },
            Direction::Open => Self::CbcDecrypt(Decrypt::new(key)?),
        })
    }

    pub(super) fn ctr(key: &[u8], nonce: [u8; 4]) -> Result<Self, KeyError> {
        Ok(Self::Ctr {
            key: Encrypt::new(key)?,
            nonce,
        })
    }

    /// A CBC IV that nobody without the key can foretell (RFC 3602 §3, NIST SP 800-38A appendix C): the
    /// cipher applied to a block that never repeats, a secret random half and the sequence number.
    pub(super) fn unpredictable_iv(&self, sequence: u64) -> [u8; 16] {
        let Self::CbcEncrypt { key, mask } = self else {
            return [0; 16];
        };
        let mut block = [Block::default()];
        block[0][..8].copy_from_slice(mask);
        block[0][8..].copy_from_slice(&sequence.to_be_bytes());
        key.blocks(&mut block);
        block[0].into()
    }

    pub(super) fn encrypt(&self, iv: &[u8], text: &mut [u8]) {
        match self {
            Self::CbcEncrypt { key, .. } => {
                let mut previous = [Block::default()];
                previous[0].copy_from_slice(iv);
                for block in text.chunks_exact_mut(16) {
                    xor(&mut previous[0], block);
                    key.blocks(&mut previous);
                    block.copy_from_slice(&previous[0]);
                }
            }
            Self::Ctr { key, nonce } => key.ctr(counter_block(*nonce, iv), text),
            Self::CbcDecrypt(_) => {}
        }
    }

    pub(super) fn decrypt(&self, iv: &[u8], text: &mut [u8]) {
        match self {
            Self::CbcDecrypt(key) => {
                let mut previous = [0; 16];
                previous.copy_from_slice(iv);
                for chunk in text.chunks_mut(16 * STRIDE_BLOCKS) {
                    let mut blocks = [Block::default(); STRIDE_BLOCKS];
                    let used = chunk.len() / 16;
                    for (block, part) in blocks.iter_mut().zip(chunk.chunks_exact(16)) {
                        block.copy_from_slice(part);
                    }
                    key.blocks(&mut blocks[..used]);
                    for (part, block) in chunk.chunks_exact_mut(16).zip(&mut blocks) {
                        xor(block, &previous);
                        previous.copy_from_slice(part);
                        part.copy_from_slice(block);
                    }
                }
            }
            Self::Ctr { key, nonce } => key.ctr(counter_block(*nonce, iv), text),
            Self::CbcEncrypt { .. } => {}
        }
    }
}

/// RFC 3686 §4: nonce, IV, and a block counter that begins at one.
fn counter_block(nonce: [u8; 4], iv: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..4].copy_from_slice(&nonce);
    block[4..12].copy_from_slice(&iv[..8]);
    block[15] = 1;
    block
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}
