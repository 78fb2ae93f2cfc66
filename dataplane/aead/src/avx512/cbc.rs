//! AES-CBC (RFC 3602): encryption across packets, decryption within one.
//!
//! A packet's encryption is a chain of blocks, so packets are what runs in parallel: four to a vector, each
//! lane with its own key, four vectors at once. Decryption has no chain: it runs from the packet's end to
//! its start, so that the ciphertext block before each block is still there when it is needed.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::etm::EtmKey;
use super::multi_hash::unroll;
use super::transpose::transpose_quarters;

/// Packets encrypted at once.
pub(crate) const LANES: usize = 16;
/// Vectors of four lanes.
const VECTORS: usize = LANES / 4;

/// A packet's text to encrypt, after its IV.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    pub(crate) key: &'a EtmKey,
    /// The first text block; the 16 bytes before it are the IV's place.
    pub(crate) text: *mut u8,
    pub(crate) blocks: usize,
    /// What is encrypted to be the IV: a block that never repeats and nobody else knows.
    pub(crate) iv_input: [u8; 16],
}

/// Writes the IVs and encrypts up to [`LANES`] texts in place.
///
/// # Safety
/// Each text is valid for reads and writes over its IV and blocks, and no two overlap.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes,sse4.1")]
pub(crate) unsafe fn encrypt<const RK: usize>(chains: &[Chain<'_>]) {
    let count = chains.len().min(LANES);
    let chains = &chains[..count];
    let Some(filler) = chains.first() else { return };
    // Round keys of four packets side by side; idle lanes take the first packet's.
    let mut schedule = Schedule([[_mm512_setzero_si512(); VECTORS]; RK]);
    let keys: [&EtmKey; LANES] = core::array::from_fn(|i| chains.get(i).map_or(filler.key, |c| c.key));
    for (r, vectors) in schedule.0.iter_mut().enumerate() {
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = join(core::array::from_fn(|i| &keys[4 * v + i].round_keys[r]));
        }
    }
    let mut blocks = [0; LANES];
    for (blocks, chain) in blocks.iter_mut().zip(chains) {
        *blocks = chain.blocks;
    }
    let shortest = blocks.iter().copied().min().unwrap_or(0);
    let longest = blocks.iter().copied().max().unwrap_or(0);
    let mut state: [__m512i; VECTORS] = core::array::from_fn(|v| {
        join(core::array::from_fn(|i| {
            &chains.get(4 * v + i).unwrap_or(filler).iv_input
        }))
    });
    cipher_vectors(&schedule, &mut state);
    for (v, chains) in chains.chunks(4).enumerate() {
        let mut ivs = [[0u8; 16]; 4];
        // SAFETY: four blocks are 64 bytes; the IV's place is before each text.
        unsafe {
            _mm512_storeu_si512(ivs.as_mut_ptr().cast(), state[v]);
            for (chain, iv) in chains.iter().zip(ivs) {
                chain.text.sub(16).cast::<[u8; 16]>().write(iv);
            }
        }
    }
    // Four blocks of each packet at a time.
    let mut idle = [0u8; 64];
    let mut done = 0;
    while done < longest {
        let mut at = [idle.as_mut_ptr(); LANES];
        let mut masks = [!0u8; LANES];
        let whole = done + 4 <= shortest;
        for (lane, chain) in chains.iter().enumerate() {
            at[lane] = chain.text.wrapping_add(16 * done);
        }
        if !whole {
            for lane in 0..LANES {
                let left = blocks[lane].saturating_sub(done).min(4);
                if left == 0 {
                    at[lane] = idle.as_mut_ptr();
                }
                masks[lane] = ((1u32 << (2 * left)) - 1) as u8;
            }
        }
        // SAFETY: the masks cover blocks of texts alone, without them all 64 bytes are text; or it is the
        // idle room.
        unsafe {
            if whole {
                let load = |lane: usize| _mm512_loadu_si512(at[lane].cast_const().cast());
                let data = cipher_four(&schedule, &mut state, load);
                for (at, row) in at.iter().zip(data.as_flattened()) {
                    _mm512_storeu_si512(at.cast(), *row);
                }
            } else {
                let load = |lane: usize| _mm512_maskz_loadu_epi64(masks[lane], at[lane].cast_const().cast());
                let data = cipher_four(&schedule, &mut state, load);
                for ((at, mask), row) in at.iter().zip(masks).zip(data.as_flattened()) {
                    _mm512_mask_storeu_epi64(at.cast(), mask, *row);
                }
            }
        }
        done += 4;
    }
}

/// Round keys across lanes.
struct Schedule<const RK: usize>([[__m512i; VECTORS]; RK]);

impl<const RK: usize> Drop for Schedule<RK> {
    fn drop(&mut self) {
        for vectors in &mut self.0 {
            vectors.zeroize();
        }
    }
}

/// Four blocks side by side.
#[target_feature(enable = "avx512f")]
#[inline]
fn join(blocks: [&[u8; 16]; 4]) -> __m512i {
    // SAFETY: a block is 16 bytes.
    let block = |i: usize| unsafe { _mm_loadu_si128(blocks[i].as_ptr().cast()) };
    let low = _mm256_inserti128_si256(_mm256_castsi128_si256(block(0)), block(1), 1);
    let high = _mm256_inserti128_si256(_mm256_castsi128_si256(block(2)), block(3), 1);
    _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)
}

/// Encrypts the next four blocks of every lane, as `load` gives them, a lane to a vector.
#[target_feature(enable = "avx512f,vaes")]
#[inline]
fn cipher_four<const RK: usize>(
    schedule: &Schedule<RK>,
    state: &mut [__m512i; VECTORS],
    load: impl Fn(usize) -> __m512i,
) -> [[__m512i; 4]; VECTORS] {
    // data[v][j]: block j of the four lanes of vector v.
    let mut data = [[_mm512_setzero_si512(); 4]; VECTORS];
    for (v, data) in data.iter_mut().enumerate() {
        *data = transpose_quarters([load(4 * v), load(4 * v + 1), load(4 * v + 2), load(4 * v + 3)]);
    }
    unroll!(J in [0 1 2 3] {
        for v in 0..VECTORS {
            state[v] = _mm512_xor_si512(state[v], data[v][J]);
        }
        cipher_vectors(schedule, state);
        for v in 0..VECTORS {
            data[v][J] = state[v];
        }
    });
    for data in &mut data {
        *data = transpose_quarters(*data);
    }
    data
}

/// The cipher over four vectors of lanes with their own keys.
#[target_feature(enable = "avx512f,vaes")]
#[inline]
fn cipher_vectors<const RK: usize>(schedule: &Schedule<RK>, state: &mut [__m512i; VECTORS]) {
    for (state, key) in state.iter_mut().zip(&schedule.0[0]) {
        *state = _mm512_xor_si512(*state, *key);
    }
    for keys in &schedule.0[1..RK - 1] {
        for (state, key) in state.iter_mut().zip(keys) {
            *state = _mm512_aesenc_epi128(*state, *key);
        }
    }
    for (state, key) in state.iter_mut().zip(&schedule.0[RK - 1]) {
        *state = _mm512_aesenclast_epi128(*state, *key);
    }
}

/// Decrypts a text in place; the 16 bytes before it are its IV.
///
/// # Safety
/// `text` is valid for reads and writes over `blocks` blocks, and for reads of 16 bytes before.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes,sse4.1")]
pub(crate) unsafe fn decrypt<const RK: usize>(key: &EtmKey, text: *mut u8, blocks: usize) {
    let mut round_keys = [_mm512_setzero_si512(); RK];
    for (vector, key) in round_keys.iter_mut().zip(&key.round_keys) {
        // SAFETY: a round key is 16 bytes.
        *vector = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(key.as_ptr().cast()) });
    }
    let mut left = blocks;
    while left >= 16 {
        left -= 16;
        // SAFETY: 16 blocks of the text from here, and the block before them.
        unsafe { decrypt_vectors::<RK, 4>(&round_keys, text.add(16 * left), !0) };
    }
    while left > 0 {
        let some = if left.is_multiple_of(4) { 4 } else { left % 4 };
        left -= some;
        // SAFETY: `some` blocks of the text from here, and the block before them; the mask covers no more.
        unsafe { decrypt_vectors::<RK, 1>(&round_keys, text.add(16 * left), !0 >> (64 - 16 * some)) };
    }
}

/// Decrypts `Z` vectors; `mask` says which bytes of the last are text.
///
/// # Safety
/// The masked bytes are valid for reads and writes, and 16 bytes before for reads.
#[target_feature(enable = "avx512f,avx512bw,vaes")]
#[inline]
unsafe fn decrypt_vectors<const RK: usize, const Z: usize>(keys: &[__m512i; RK], at: *mut u8, mask: u64) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut state = [_mm512_setzero_si512(); Z];
        let mut before = state;
        for z in 0..Z {
            let from = at.add(64 * z).cast_const();
            state[z] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, from.cast()), keys[0]);
            before[z] = _mm512_maskz_loadu_epi8(mask, from.sub(16).cast());
        }
        for key in &keys[1..RK - 1] {
            for block in &mut state {
                *block = _mm512_aesdec_epi128(*block, *key);
            }
        }
        for z in 0..Z {
            let plain = _mm512_xor_si512(_mm512_aesdeclast_epi128(state[z], keys[RK - 1]), before[z]);
            _mm512_mask_storeu_epi8(at.add(64 * z).cast(), mask, plain);
        }
    }
}
