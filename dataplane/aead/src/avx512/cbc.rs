//! AES-CBC (RFC 3602): encryption across packets, decryption within one.
//!
//! A packet's encryption is a chain of blocks, so packets are what runs in parallel: four to a vector, each
//! lane with its own key, four vectors at once. Decryption has no chain: it runs from the packet's end to
//! its start, so that the ciphertext block before each block is still there when it is needed.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::etm::EtmKey;

/// Packets encrypted at once.
pub(crate) const LANES: usize = 16;

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
    let mut schedule = [[_mm512_setzero_si512(); 4]; RK];
    let mut idle = [[0u8; 16]; LANES];
    let mut iv_blocks = [[0u8; 16]; LANES];
    let mut at = [core::ptr::null_mut::<u8>(); LANES];
    let mut step = [0usize; LANES];
    let mut left = [0usize; LANES];
    let lane_keys: [&EtmKey; LANES] = core::array::from_fn(|i| chains.get(i).map_or(filler.key, |c| c.key));
    for (r, vectors) in schedule.iter_mut().enumerate() {
        for (v, vector) in vectors.iter_mut().enumerate() {
            let lane = |i: usize| lane_keys[4 * v + i].round_keys[r];
            *vector = join([lane(0), lane(1), lane(2), lane(3)]);
        }
    }
    for lane in 0..LANES {
        at[lane] = idle[lane].as_mut_ptr();
    }
    for (lane, chain) in chains.iter().enumerate() {
        iv_blocks[lane] = chain.iv_input;
        at[lane] = chain.text;
        step[lane] = 16;
        left[lane] = chain.blocks;
    }
    let mut state: [__m512i; 4] = core::array::from_fn(|v| {
        join([
            iv_blocks[4 * v],
            iv_blocks[4 * v + 1],
            iv_blocks[4 * v + 2],
            iv_blocks[4 * v + 3],
        ])
    });
    cipher_vectors(&schedule, &mut state);
    let ivs: [*mut u8; LANES] = core::array::from_fn(|lane| match chains.get(lane) {
        Some(chain) => chain.text.wrapping_sub(16),
        None => at[lane],
    });
    // SAFETY: the IV's place of each text, or the lane's idle block.
    unsafe { store_lanes(&ivs, &state) };
    loop {
        // Lanes run together until the next of them ends.
        let run = left
            .iter()
            .copied()
            .filter(|&blocks| blocks > 0)
            .min()
            .unwrap_or(0);
        if run == 0 {
            break;
        }
        for _ in 0..run {
            // SAFETY: each pointer is at a block of a text, or at its lane's idle block.
            unsafe {
                for (v, state) in state.iter_mut().enumerate() {
                    *state = _mm512_xor_si512(*state, load_lanes(&at, v));
                }
                cipher_vectors(&schedule, &mut state);
                store_lanes(&at, &state);
            }
            for lane in 0..LANES {
                at[lane] = at[lane].wrapping_add(step[lane]);
            }
        }
        for lane in 0..count {
            if left[lane] > 0 {
                left[lane] -= run;
                if left[lane] == 0 {
                    at[lane] = idle[lane].as_mut_ptr();
                    step[lane] = 0;
                }
            }
        }
    }
    for vectors in &mut schedule {
        vectors.zeroize();
    }
}

/// Four blocks side by side.
#[target_feature(enable = "avx512f")]
#[inline]
fn join(blocks: [[u8; 16]; 4]) -> __m512i {
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
}

/// One block of each of four lanes.
///
/// # Safety
/// The pointers of vector `v` are valid for reading 16 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_lanes(at: &[*mut u8; LANES], v: usize) -> __m512i {
    // SAFETY: the caller's contract.
    unsafe {
        let lane = |i: usize| _mm_loadu_si128(at[4 * v + i].cast_const().cast());
        let low = _mm256_inserti128_si256(_mm256_castsi128_si256(lane(0)), lane(1), 1);
        let high = _mm256_inserti128_si256(_mm256_castsi128_si256(lane(2)), lane(3), 1);
        _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)
    }
}

/// Stores one block of each lane.
///
/// # Safety
/// The pointers are valid for writing 16 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store_lanes(at: &[*mut u8; LANES], state: &[__m512i; 4]) {
    // SAFETY: the caller's contract.
    unsafe {
        for v in 0..4 {
            _mm_storeu_si128(at[4 * v].cast(), _mm512_castsi512_si128(state[v]));
            _mm_storeu_si128(at[4 * v + 1].cast(), _mm512_extracti32x4_epi32(state[v], 1));
            _mm_storeu_si128(at[4 * v + 2].cast(), _mm512_extracti32x4_epi32(state[v], 2));
            _mm_storeu_si128(at[4 * v + 3].cast(), _mm512_extracti32x4_epi32(state[v], 3));
        }
    }
}

/// The cipher over four vectors of lanes with their own keys.
#[target_feature(enable = "avx512f,vaes")]
#[inline]
fn cipher_vectors<const RK: usize>(schedule: &[[__m512i; 4]; RK], state: &mut [__m512i; 4]) {
    for v in 0..4 {
        state[v] = _mm512_xor_si512(state[v], schedule[0][v]);
    }
    for keys in &schedule[1..RK - 1] {
        for v in 0..4 {
            state[v] = _mm512_aesenc_epi128(state[v], keys[v]);
        }
    }
    for v in 0..4 {
        state[v] = _mm512_aesenclast_epi128(state[v], schedule[RK - 1][v]);
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
