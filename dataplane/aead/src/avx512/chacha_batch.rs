//! Batches of ChaCha20-Poly1305 packets (RFC 7634): blocks of the cipher from any packets side by side,
//! authenticators of sixteen packets at once.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::chacha20::{self, InputBlock};
use super::poly1305::{self, Message};
use crate::batch::Selection;
use crate::job::{Job, Verdict};
use crate::material::Material;

/// Packets worked on together.
const GROUP: usize = 16;
/// Blocks of the cipher in a pass.
const LANES: usize = 16;

/// Seals or opens the selected jobs, whose lengths have been checked.
///
/// # Safety
/// The processor has the engine's features.
pub(crate) unsafe fn run<'a, J: Job<'a>>(jobs: &mut [J], selection: &Selection) {
    // Packets of equal length run best together.
    let order = selection.ordered_by(|at| jobs[at].packet_bytes() / 64);
    for group in order.positions().chunks(GROUP) {
        // SAFETY: the caller's contract.
        unsafe { run_group(jobs, group) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
unsafe fn run_group<'a, J: Job<'a>>(jobs: &mut [J], group: &[u8]) {
    let mut inputs = [InputBlock::EMPTY; GROUP];
    let mut messages = [Message::EMPTY; GROUP];
    let mut texts = [Text {
        bytes: core::ptr::null_mut(),
        length: 0,
    }; GROUP];
    for (i, &at) in group.iter().enumerate() {
        let job = &mut jobs[usize::from(at)];
        let Material::ChaCha20Poly1305 { salt, esn, key } = job.material() else {
            continue;
        };
        let sequence = job.sequence();
        let packet = job.packet();
        if J::SEAL {
            packet[8..16].copy_from_slice(&sequence.to_be_bytes());
        }
        let iv = packet[8..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        inputs[i] = InputBlock::new(key, *salt, iv);
        let message = &mut messages[i];
        // RFC 7634 §2.1: SPI and sequence number, 32 or 64 bits of it.
        message.aad[..4].copy_from_slice(&packet[..4]);
        if *esn {
            message.aad[4..8].copy_from_slice(&((sequence >> 32) as u32).to_be_bytes());
            message.aad[8..12].copy_from_slice(&packet[4..8]);
        } else {
            message.aad[4..8].copy_from_slice(&packet[4..8]);
        }
        message.aad_bytes = if *esn { 12 } else { 8 };
        texts[i].length = packet.len() - 32;
        texts[i].bytes = packet.as_mut_ptr().wrapping_add(16);
        message.text = texts[i].bytes.cast_const();
        message.text_bytes = texts[i].length;
    }
    // SAFETY: texts lie within their packets, which nothing else refers to meanwhile.
    unsafe {
        one_time_keys(&inputs, &mut messages);
        if J::SEAL {
            crypt(&inputs, &texts[..group.len()]);
            finish_group(jobs, group, &messages);
        } else {
            finish_group(jobs, group, &messages);
            let mut count = 0;
            for (i, &at) in group.iter().enumerate() {
                // Only what was authentic is decrypted.
                let job = &mut jobs[usize::from(at)];
                if job.verdict() == Verdict::Done {
                    inputs[count] = inputs[i];
                    let bytes = job.packet().as_mut_ptr().wrapping_add(16);
                    texts[count] = Text {
                        bytes,
                        length: texts[i].length,
                    };
                    count += 1;
                }
            }
            crypt(&inputs, &texts[..count]);
        }
    }
    inputs.zeroize();
    for message in &mut messages {
        message.key.zeroize();
    }
}

/// A text to cipher.
#[derive(Clone, Copy)]
struct Text {
    bytes: *mut u8,
    length: usize,
}

/// Block 0 of every packet gives its Poly1305 key (RFC 8439 §2.6).
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn one_time_keys(inputs: &[InputBlock; GROUP], messages: &mut [Message; GROUP]) {
    // SAFETY: the features are this function's.
    let streams = unsafe { chacha20::blocks(inputs.each_ref(), &[0; LANES]) };
    for (message, stream) in messages.iter_mut().zip(streams) {
        // SAFETY: the key is 32 bytes.
        unsafe { _mm256_storeu_si256(message.key.as_mut_ptr().cast(), _mm512_castsi512_si256(stream)) };
    }
}

/// Authenticates the group, then writes or compares its ICVs.
///
/// # Safety
/// As [`run`]; messages' texts are valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
unsafe fn finish_group<'a, J: Job<'a>>(jobs: &mut [J], group: &[u8], messages: &[Message; GROUP]) {
    let mut tags = [[[0; 16]; poly1305::LANES]; 2];
    // SAFETY: the caller's contract.
    unsafe {
        match messages.as_chunks::<{ poly1305::LANES }>().0 {
            [first, _] if group.len() <= poly1305::LANES => [tags[0]] = poly1305::tags(&[*first]),
            [first, second] => tags = poly1305::tags(&[*first, *second]),
            _ => {}
        }
    }
    for (&at, tag) in group.iter().zip(tags.as_flattened()) {
        let job = &mut jobs[usize::from(at)];
        let Some(icv) = job.packet().last_chunk_mut::<16>() else {
            continue;
        };
        let verdict = if J::SEAL {
            *icv = *tag;
            Verdict::Done
        } else {
            // SAFETY: both are 16 bytes.
            let (a, b) = unsafe {
                (
                    _mm_loadu_si128(icv.as_ptr().cast()),
                    _mm_loadu_si128(tag.as_ptr().cast()),
                )
            };
            if _mm_cmpneq_epi8_mask(a, b) == 0 {
                Verdict::Done
            } else {
                Verdict::AuthenticationFailed
            }
        };
        job.set_verdict(verdict);
    }
}

/// XORs texts with their key streams from block 1 on (RFC 8439 §2.8).
///
/// # Safety
/// Each text is valid for reads and writes.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn crypt(inputs: &[InputBlock; GROUP], texts: &[Text]) {
    let mut pass = Pass {
        input: [0; LANES],
        counters: [0; LANES],
        count: 0,
    };
    for (i, text) in texts.iter().enumerate() {
        let blocks = text.length.div_ceil(64);
        let mut done = 0;
        while blocks - done >= LANES {
            // SAFETY: the caller's contract.
            unsafe {
                let streams = chacha20::run_of_blocks(&inputs[i], done as u32 + 1);
                for (lane, stream) in streams.into_iter().enumerate() {
                    xor_block(text, done + lane, stream);
                }
            }
            done += LANES;
        }
        for block in done..blocks {
            pass.input[pass.count] = i;
            pass.counters[pass.count] = block as u32 + 1;
            pass.count += 1;
            if pass.count == LANES {
                // SAFETY: the caller's contract.
                unsafe { pass.run(inputs, texts) };
            }
        }
    }
    if pass.count > 0 {
        // SAFETY: the caller's contract.
        unsafe { pass.run(inputs, texts) };
    }
}

/// Blocks of several packets, gathered.
struct Pass {
    input: [usize; LANES],
    counters: [u32; LANES],
    count: usize,
}

impl Pass {
    /// # Safety
    /// As [`crypt`].
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn run(&mut self, inputs: &[InputBlock; GROUP], texts: &[Text]) {
        // SAFETY: the caller's contract.
        unsafe {
            let streams = chacha20::blocks(self.input.map(|i| &inputs[i]), &self.counters);
            for (lane, stream) in streams.into_iter().enumerate() {
                if lane < self.count {
                    xor_block(&texts[self.input[lane]], self.counters[lane] as usize - 1, stream);
                }
            }
        }
        self.count = 0;
    }
}

/// # Safety
/// As [`crypt`].
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn xor_block(text: &Text, block: usize, stream: __m512i) {
    let left = text.length - 64 * block;
    let mask = if left >= 64 { !0 } else { (1u64 << left) - 1 };
    // SAFETY: the mask covers text bytes alone.
    unsafe {
        let at = text.bytes.add(64 * block);
        let bytes = _mm512_maskz_loadu_epi8(mask, at.cast_const().cast());
        _mm512_mask_storeu_epi8(at.cast(), mask, _mm512_xor_si512(bytes, stream));
    }
}
