//! HMAC (RFC 2104) from precomputed states: the hash of the inner and of the outer padded key is done once
//! per key, so that a packet costs its own blocks and one more, and a key is 128 bytes whichever the hash.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::algorithm::Hmac;

/// The two chaining values of a HMAC key. Words of 32-bit hashes take the low half of a `u64` each.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
#[repr(C, align(8))]
pub(crate) struct HmacState {
    pub(crate) inner: [u64; 8],
    pub(crate) outer: [u64; 8],
}

/// A hash by its compression function over chaining values of eight words.
pub(crate) trait Hash {
    /// Bytes of a block.
    const BLOCK_BYTES: usize;
    /// Bytes of a word, and so of each word of the output.
    const WORD_BYTES: usize;
    /// Words of the output.
    const OUTPUT_WORDS: usize;
    /// The initial chaining value (FIPS 180-4 §5.3).
    const INITIAL: [u64; 8];
    /// Absorbs whole blocks; `blocks.len()` is a multiple of the block length.
    fn compress(state: &mut [u64; 8], blocks: &[u8]);
}

/// SHA-1.
pub(crate) struct Sha1;
/// SHA-256.
pub(crate) struct Sha256;
/// SHA-384.
pub(crate) struct Sha384;
/// SHA-512.
pub(crate) struct Sha512;

impl Hash for Sha1 {
    const BLOCK_BYTES: usize = 64;
    const WORD_BYTES: usize = 4;
    const OUTPUT_WORDS: usize = 5;
    const INITIAL: [u64; 8] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
        0,
        0,
        0,
    ];

    fn compress(state: &mut [u64; 8], blocks: &[u8]) {
        let mut words: [u32; 5] = core::array::from_fn(|i| state[i] as u32);
        sha1::block_api::compress(&mut words, blocks.as_chunks().0);
        for (wide, word) in state.iter_mut().zip(words) {
            *wide = u64::from(word);
        }
        words.zeroize();
    }
}

impl Hash for Sha256 {
    const BLOCK_BYTES: usize = 64;
    const WORD_BYTES: usize = 4;
    const OUTPUT_WORDS: usize = 8;
    const INITIAL: [u64; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    fn compress(state: &mut [u64; 8], blocks: &[u8]) {
        let mut words = state.map(|wide| wide as u32);
        sha2::block_api::compress256(&mut words, blocks.as_chunks().0);
        *state = words.map(u64::from);
        words.zeroize();
    }
}

impl Hash for Sha384 {
    const BLOCK_BYTES: usize = 128;
    const WORD_BYTES: usize = 8;
    const OUTPUT_WORDS: usize = 6;
    const INITIAL: [u64; 8] = [
        0xcbbb_9d5d_c105_9ed8,
        0x629a_292a_367c_d507,
        0x9159_015a_3070_dd17,
        0x152f_ecd8_f70e_5939,
        0x6733_2667_ffc0_0b31,
        0x8eb4_4a87_6858_1511,
        0xdb0c_2e0d_64f9_8fa7,
        0x47b5_481d_befa_4fa4,
    ];

    fn compress(state: &mut [u64; 8], blocks: &[u8]) {
        sha2::block_api::compress512(state, blocks.as_chunks().0);
    }
}

impl Hash for Sha512 {
    const BLOCK_BYTES: usize = 128;
    const WORD_BYTES: usize = 8;
    const OUTPUT_WORDS: usize = 8;
    const INITIAL: [u64; 8] = [
        0x6a09_e667_f3bc_c908,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
        0x1f83_d9ab_fb41_bd6b,
        0x5be0_cd19_137e_2179,
    ];

    fn compress(state: &mut [u64; 8], blocks: &[u8]) {
        sha2::block_api::compress512(state, blocks.as_chunks().0);
    }
}

/// The longest hash output, in bytes.
pub(crate) const MAX_OUTPUT_BYTES: usize = 64;

/// Expands an integrity key of at most one block.
pub(crate) fn expand(hash: Hmac, key: &[u8]) -> HmacState {
    match hash {
        Hmac::Sha1_96 => expand_with::<Sha1>(key),
        Hmac::Sha256_128 => expand_with::<Sha256>(key),
        Hmac::Sha384_192 => expand_with::<Sha384>(key),
        Hmac::Sha512_256 => expand_with::<Sha512>(key),
    }
}

fn expand_with<H: Hash>(key: &[u8]) -> HmacState {
    let mut block = [0x36u8; 128];
    let block = &mut block[..H::BLOCK_BYTES];
    for (b, k) in block.iter_mut().zip(key) {
        *b ^= k;
    }
    let mut state = HmacState {
        inner: H::INITIAL,
        outer: H::INITIAL,
    };
    H::compress(&mut state.inner, block);
    for b in block.iter_mut() {
        *b ^= 0x36 ^ 0x5c;
    }
    H::compress(&mut state.outer, block);
    block.zeroize();
    state
}

/// The full-length HMAC of `message` followed by `suffix` (at most 4 bytes: the high half of an extended
/// sequence number). The leading bytes of the answer count.
pub(crate) fn mac(hash: Hmac, state: &HmacState, message: &[u8], suffix: &[u8]) -> [u8; MAX_OUTPUT_BYTES] {
    match hash {
        Hmac::Sha1_96 => mac_with::<Sha1>(state, message, suffix),
        Hmac::Sha256_128 => mac_with::<Sha256>(state, message, suffix),
        Hmac::Sha384_192 => mac_with::<Sha384>(state, message, suffix),
        Hmac::Sha512_256 => mac_with::<Sha512>(state, message, suffix),
    }
}

fn mac_with<H: Hash>(state: &HmacState, message: &[u8], suffix: &[u8]) -> [u8; MAX_OUTPUT_BYTES] {
    let mut inner = state.inner;
    let whole = message.len() - message.len() % H::BLOCK_BYTES;
    H::compress(&mut inner, &message[..whole]);
    // The tail: at most one block less a byte, the suffix, 0x80, and the length in bits, key block included.
    let mut tail = [0u8; 256];
    let rest = message.len() - whole;
    tail[..rest].copy_from_slice(&message[whole..]);
    tail[rest..rest + suffix.len()].copy_from_slice(suffix);
    let end = rest + suffix.len();
    finish::<H>(
        &mut inner,
        &mut tail,
        end,
        H::BLOCK_BYTES + message.len() + suffix.len(),
    );
    let mut outer = state.outer;
    tail = [0u8; 256];
    let digest_bytes = output::<H>(&inner, &mut tail);
    finish::<H>(&mut outer, &mut tail, digest_bytes, H::BLOCK_BYTES + digest_bytes);
    let mut out = [0u8; MAX_OUTPUT_BYTES];
    output::<H>(&outer, &mut out);
    out
}

/// Pads `tail[..end]` and absorbs it; the rest of `tail` is zero.
fn finish<H: Hash>(state: &mut [u64; 8], tail: &mut [u8; 256], end: usize, total_bytes: usize) {
    tail[end] = 0x80;
    // The length field is two words (FIPS 180-4 §5.1); its upper word is always zero here.
    let padded = (end + 1 + 2 * H::WORD_BYTES).next_multiple_of(H::BLOCK_BYTES);
    tail[padded - 8..padded].copy_from_slice(&(8 * total_bytes as u64).to_be_bytes());
    H::compress(state, &tail[..padded]);
}

/// Writes the output words of `state` and says how many bytes they are.
fn output<H: Hash>(state: &[u64; 8], out: &mut [u8]) -> usize {
    let bytes = H::OUTPUT_WORDS * H::WORD_BYTES;
    for (chunk, word) in out[..bytes].chunks_exact_mut(H::WORD_BYTES).zip(state) {
        chunk.copy_from_slice(&word.to_be_bytes()[8 - H::WORD_BYTES..]);
    }
    bytes
}
