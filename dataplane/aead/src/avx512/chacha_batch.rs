//! Batches of ChaCha20-Poly1305 packets (RFC 7634): blocks of the cipher from any packets side by side,
//! authenticators of eight packets at once.

use core::arch::x86_64::*;

use super::chacha20::{ChaChaKey, LANES, Start};
use super::poly1305::{self, Messages};
use super::transpose::{STEPS, Square};
use crate::batch::Selection;
use crate::job::{Job, Verdict};
use crate::material::Material;

/// Packets worked on together: block 0 of each, which gives its Poly1305 key, has a lane of the first pass.
const GROUP: usize = LANES;

/// Seals or opens the selected jobs, whose lengths have been checked.
///
/// # Safety
/// The processor has the engine's features.
pub(crate) unsafe fn run<'a, J: Job<'a>>(jobs: &mut [J], selection: &Selection) {
    // Packets of equal length run best together.
    let order = selection.ordered_by(|at| jobs[at].packet_bytes() / 64);
    let positions = order.positions();
    for (i, group) in positions.chunks(GROUP).enumerate() {
        for &ahead in positions.iter().skip(GROUP * (i + 1)).take(GROUP) {
            prefetch(jobs[usize::from(ahead)].material());
        }
        // SAFETY: the caller's contract.
        unsafe { run_group(jobs, group) };
    }
}

/// Brings into the cache what a packet needs of its key: its first line.
#[inline]
fn prefetch(material: &Material) {
    // SAFETY: a prefetch faults at no address.
    unsafe { _mm_prefetch(core::ptr::from_ref(material).cast::<i8>(), _MM_HINT_T0) };
}

/// A key as a packet needs it.
#[derive(Clone, Copy)]
struct View<'a> {
    salt: [u8; 4],
    esn: bool,
    key: &'a ChaChaKey,
}

#[inline]
fn view(material: &Material) -> Option<View<'_>> {
    match material {
        Material::ChaCha20Poly1305 { salt, esn, key } => Some(View {
            salt: *salt,
            esn: *esn,
            key,
        }),
        _ => None,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
unsafe fn run_group<'a, J: Job<'a>>(jobs: &mut [J], group: &[u8]) {
    let mut rows = [_mm512_setzero_si512(); LANES];
    let mut messages = [Messages::EMPTY; 2];
    let mut texts = Texts {
        at: [core::ptr::null_mut(); GROUP],
        bytes: [0; GROUP],
        count: group.len(),
        packet: 0,
        block: 0,
    };
    for (i, &at) in group.iter().enumerate() {
        let job = &mut jobs[usize::from(at)];
        let Some(View { salt, esn, key }) = view(job.material()) else {
            continue;
        };
        let sequence = job.sequence();
        let packet = job.packet();
        if J::SEAL {
            packet[8..16].copy_from_slice(&sequence.to_be_bytes());
        }
        let iv = packet[8..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        rows[i] = key.row(salt, iv);
        texts.at[i] = packet.as_mut_ptr().wrapping_add(16);
        texts.bytes[i] = packet.len() - 32;
        let (message, lane) = (&mut messages[i / 8], i % 8);
        // RFC 7634 §2.1: SPI and sequence number, 32 or 64 bits of it.
        let aad = &mut message.aad[lane];
        aad[..4].copy_from_slice(&packet[..4]);
        if esn {
            aad[4..8].copy_from_slice(&((sequence >> 32) as u32).to_be_bytes());
            aad[8..12].copy_from_slice(&packet[4..8]);
        } else {
            aad[4..8].copy_from_slice(&packet[4..8]);
        }
        message.aad_bytes[lane] = if esn { 12 } else { 8 };
        message.text_bytes[lane] = texts.bytes[i] as u64;
        message.text[lane] = texts.at[i].cast_const();
    }
    let start = Start::new(rows);
    // The first pass: block 0 of every packet, and as many blocks of text as there is room for.
    let mut pass = Pass::new();
    for lane in 0..group.len() {
        pass.packets[lane] = lane as u32;
    }
    pass.gather(group.len(), &mut texts);
    let words = pass.words(&start, |_| ());
    let keys = {
        let half = |i: usize| {
            let word: [__m256i; 8] = if i == 0 {
                core::array::from_fn(|w| _mm512_castsi512_si256(words[w]))
            } else {
                core::array::from_fn(|w| _mm512_extracti64x4_epi64(words[w], 1))
            };
            poly1305::Keys::new(word)
        };
        [half(0), half(1)]
    };
    let mut square = Square::new(words);
    // SAFETY: texts lie within their packets, which nothing else refers to meanwhile.
    unsafe {
        if J::SEAL {
            early(&mut pass, &mut square, &texts);
            crypt(&start, &mut texts);
            finish_group(jobs, group, &keys, &messages);
        } else {
            finish_group(jobs, group, &keys, &messages);
            // Only what was authentic is decrypted.
            for (i, &at) in group.iter().enumerate() {
                if jobs[usize::from(at)].verdict() != Verdict::Done {
                    texts.bytes[i] = 0;
                }
            }
            early(&mut pass, &mut square, &texts);
            crypt(&start, &mut texts);
        }
    }
}

/// Authenticates the group, then writes or compares its ICVs.
///
/// # Safety
/// As [`run`]; messages' texts are valid for reads.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")]
unsafe fn finish_group<'a, J: Job<'a>>(
    jobs: &mut [J],
    group: &[u8],
    keys: &[poly1305::Keys; 2],
    messages: &[Messages; 2],
) {
    let eights = group.chunks(poly1305::LANES).zip(keys).zip(messages);
    for ((group, keys), messages) in eights {
        // SAFETY: the caller's contract.
        let tags = unsafe { poly1305::tags(keys, messages) };
        for (&at, tag) in group.iter().zip(&tags) {
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
}

/// XORs the rest of the texts with their key streams.
///
/// # Safety
/// Each text is valid for reads and writes.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn crypt(start: &Start, texts: &mut Texts) {
    // A pass's blocks are brought together and applied during the rounds of the pass behind it, and lanes are
    // given out a pass ahead: a vector of what was just written in words would wait for it.
    let mut passes = [Pass::new(), Pass::new(), Pass::new()];
    let [mut before, mut now, mut next] = passes.each_mut();
    now.gather(0, texts);
    if now.end == 0 {
        return;
    }
    let mut square = Square::new([_mm512_setzero_si512(); LANES]);
    while now.end > 0 {
        next.gather(0, texts);
        // SAFETY: the caller's contract; the lanes in use are of texts.
        let words = now.words(start, |step| unsafe { before.apply_step(&mut square, step) });
        square.replace(words);
        (before, now, next) = (now, next, before);
    }
    for step in 0..STEPS {
        // SAFETY: the caller's contract; the lanes in use are of texts.
        unsafe { before.apply_step(&mut square, step) };
    }
}

/// The texts of a group, and which block comes next.
struct Texts {
    at: [*mut u8; GROUP],
    bytes: [usize; GROUP],
    count: usize,
    packet: usize,
    block: usize,
}

/// Which blocks a pass of the cipher makes.
#[repr(C, align(64))]
struct Pass {
    packets: [u32; LANES],
    counters: [u32; LANES],
    at: [*mut u8; LANES],
    /// The bytes of the block that are text.
    masks: [u64; LANES],
    /// The lanes before this one are in use.
    end: usize,
    /// Every block of text in it is whole.
    whole: bool,
}

impl Pass {
    const fn new() -> Self {
        Self {
            packets: [0; LANES],
            counters: [0; LANES],
            at: [core::ptr::null_mut(); LANES],
            masks: [0; LANES],
            end: 0,
            whole: false,
        }
    }

    /// Gives the lanes from `from` on to the next blocks of text (RFC 8439 §2.8: from block 1 on).
    #[inline]
    fn gather(&mut self, from: usize, texts: &mut Texts) {
        self.end = from;
        self.whole = true;
        self.masks = [0; LANES];
        while self.end < LANES && texts.packet < texts.count {
            let done = 64 * texts.block;
            let left = texts.bytes[texts.packet].saturating_sub(done);
            if left == 0 {
                texts.packet += 1;
                texts.block = 0;
                continue;
            }
            let lane = self.end;
            self.packets[lane] = texts.packet as u32;
            self.counters[lane] = texts.block as u32 + 1;
            self.at[lane] = texts.at[texts.packet].wrapping_add(done);
            self.masks[lane] = if left >= 64 { !0 } else { (1u64 << left) - 1 };
            self.whole &= left >= 64;
            texts.block += 1;
            self.end += 1;
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn words(&self, start: &Start, between: impl FnMut(usize)) -> [__m512i; 16] {
        // SAFETY: the arrays are 64 bytes each.
        let (packets, counters) = unsafe {
            (
                _mm512_loadu_si512(self.packets.as_ptr().cast()),
                _mm512_loadu_si512(self.counters.as_ptr().cast()),
            )
        };
        start.words(packets, counters, between)
    }

    /// Takes the lanes from those packets whose length is zero by now, and from keys.
    #[inline]
    fn retire(&mut self, keys: usize, texts: &Texts) {
        for lane in 0..self.end {
            if lane < keys || texts.bytes[self.packets[lane] as usize] == 0 {
                self.masks[lane] = 0;
            }
        }
    }

    /// A step of bringing together blocks, the last four of which XOR four texts each.
    ///
    /// # Safety
    /// As [`crypt`].
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn apply_step(&self, square: &mut Square, step: usize) {
        let Some(first) = step.checked_sub(STEPS / 2) else {
            square.transpose_words(step);
            return;
        };
        let whole = self.whole && self.end == LANES;
        for (i, block) in square.columns(first).into_iter().enumerate() {
            let lane = (4 * i + first) % LANES;
            let (at, mask) = (self.at[lane], self.masks[lane]);
            // SAFETY: whole blocks, or the mask covers text bytes alone.
            unsafe {
                if whole {
                    let bytes = _mm512_loadu_si512(at.cast_const().cast());
                    _mm512_storeu_si512(at.cast(), _mm512_xor_si512(bytes, block));
                } else if mask != 0 {
                    let bytes = _mm512_maskz_loadu_epi8(mask, at.cast_const().cast());
                    _mm512_mask_storeu_epi8(at.cast(), mask, _mm512_xor_si512(bytes, block));
                }
            }
        }
    }
}

/// Applies what the first pass has beside keys.
///
/// # Safety
/// As [`crypt`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn early(pass: &mut Pass, square: &mut Square, texts: &Texts) {
    if pass.end == texts.count {
        return;
    }
    pass.whole = false;
    pass.retire(texts.count, texts);
    for step in 0..STEPS {
        // SAFETY: the caller's contract.
        unsafe { pass.apply_step(square, step) };
    }
}
