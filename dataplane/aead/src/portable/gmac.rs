//! AES-GMAC for ESP (RFC 4543) over RustCrypto's AES and GHASH: the authenticated data is not contiguous in
//! the packet when extended sequence numbers are used, which one-shot AEAD interfaces cannot take.

use aes::Block;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::Zeroize;

use super::cipher::Encrypt;
use crate::key::KeyError;

/// A GMAC key with its salt. The libraries erase their parts.
pub(super) struct GmacKey {
    cipher: Encrypt,
    hash: GHash,
    salt: [u8; 4],
}

impl Drop for GmacKey {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl GmacKey {
    pub(super) fn new(key: &[u8], salt: [u8; 4]) -> Result<Self, KeyError> {
        let cipher = Encrypt::new(key)?;
        let mut h = [Block::default()];
        cipher.blocks(&mut h);
        let hash = GHash::new(&h[0]);
        h[0].zeroize();
        Ok(Self { cipher, hash, salt })
    }

    /// The ICV over additional data, IV and payload (RFC 4543 §3.3), with nothing encrypted.
    pub(super) fn tag(&self, aad: &[u8], iv: &[u8], payload: &[u8]) -> [u8; 16] {
        let mut hash = self.hash.clone();
        // The first block: 8 or 12 bytes of additional data, the IV, the start of the payload; then whole
        // blocks from there. The head is at most 20 bytes, so two blocks hold it with what completes them.
        let mut head = [0u8; 32];
        let head_bytes = aad.len() + iv.len();
        head[..aad.len()].copy_from_slice(aad);
        head[aad.len()..head_bytes].copy_from_slice(iv);
        let (first, rest) = payload.split_at(payload.len().min(32 - head_bytes));
        head[head_bytes..head_bytes + first.len()].copy_from_slice(first);
        hash.update_padded(&head[..head_bytes + first.len()]);
        hash.update_padded(rest);
        let mut lengths = Block::default();
        lengths[..8].copy_from_slice(&(8 * (head_bytes + payload.len()) as u64).to_be_bytes());
        hash.update(&[lengths]);
        let mut tag: [u8; 16] = hash.finalize().into();
        let mut j0 = [Block::default()];
        j0[0][..4].copy_from_slice(&self.salt);
        j0[0][4..12].copy_from_slice(iv);
        j0[0][15] = 1;
        self.cipher.blocks(&mut j0);
        for (t, k) in tag.iter_mut().zip(j0[0]) {
            *t ^= k;
        }
        tag
    }
}
