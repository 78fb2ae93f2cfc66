//! Batches of encrypt-then-MAC packets: ciphers across or within packets, HMACs across packets.

use core::arch::x86_64::*;

use super::cbc::{self, Chain};
use super::ctr;
use super::etm::{Cipher, EtmKey};
use super::multi_hash::{self, Message, MultiHash};
use crate::algorithm::{AesKey, ESP_HEADER_BYTES, Hmac};
use crate::batch::Selection;
use crate::hmac::{self, MAX_OUTPUT_BYTES, Sha1, Sha256, Sha384, Sha512};
use crate::job::{Job, Verdict};
use crate::material::Material;

/// An encrypt-then-MAC key as a packet needs it.
#[derive(Clone, Copy)]
struct View<'a> {
    /// CTR nonce in the first half, or CBC mask.
    salt: [u8; 8],
    esn: bool,
    key: &'a EtmKey,
}

fn view(material: &Material) -> Option<View<'_>> {
    match material {
        Material::Etm { salt, esn, key, .. } => Some(View {
            salt: *salt,
            esn: *esn,
            key,
        }),
        _ => None,
    }
}

/// Seals or opens the selected jobs, whose lengths have been checked and whose transforms are all `cipher`
/// with `hash`.
///
/// # Safety
/// The processor has the engine's features.
pub(crate) unsafe fn run<'a, J: Job<'a>>(jobs: &mut [J], selection: &Selection, cipher: Cipher, hash: Hmac) {
    // Packets of equal length run best together.
    let order = selection.ordered_by(|at| jobs[at].packet_bytes() / 64);
    for group in order.positions().chunks(cbc::LANES) {
        // SAFETY: the caller's contract.
        unsafe {
            if J::SEAL {
                encrypt(jobs, group, cipher, hash);
                authenticate(jobs, group, hash);
            } else {
                authenticate(jobs, group, hash);
                decrypt(jobs, group, cipher, hash);
            }
        }
    }
}

/// Where a packet's text begins and how long it is.
fn text_of(packet_bytes: usize, cipher: Cipher, hash: Hmac) -> (usize, usize) {
    let start = ESP_HEADER_BYTES
        + match cipher {
            Cipher::Cbc(_) => 16,
            Cipher::Ctr(_) => 8,
            Cipher::Null => 0,
        };
    (start, packet_bytes - start - hash.icv_bytes())
}

/// Writes IVs and encrypts.
///
/// # Safety
/// As [`run`].
unsafe fn encrypt<'a, J: Job<'a>>(jobs: &mut [J], group: &[u8], cipher: Cipher, hash: Hmac) {
    match cipher {
        Cipher::Null => {}
        Cipher::Ctr(length) => {
            for &at in group {
                let job = &mut jobs[usize::from(at)];
                let iv = job.sequence().to_be_bytes();
                job.packet()[ESP_HEADER_BYTES..][..8].copy_from_slice(&iv);
                // SAFETY: the caller's contract.
                unsafe { crypt_ctr(job, length, hash) };
            }
        }
        Cipher::Cbc(length) => {
            let mut chains: [Option<Chain<'a>>; cbc::LANES] = [None; cbc::LANES];
            for (chain, &at) in chains.iter_mut().zip(group) {
                let job = &mut jobs[usize::from(at)];
                let Some(view) = view(job.material()) else {
                    continue;
                };
                let (start, text_bytes) = text_of(job.packet_bytes(), cipher, hash);
                // RFC 3602 §3 and NIST SP 800-38A appendix C: the cipher of a block that never repeats, a
                // secret random half and the sequence number, cannot be foretold.
                let mut block = [0; 16];
                block[..8].copy_from_slice(&view.salt);
                block[8..].copy_from_slice(&job.sequence().to_be_bytes());
                *chain = Some(Chain {
                    key: view.key,
                    text: job.packet()[start..].as_mut_ptr(),
                    blocks: text_bytes / 16,
                    iv_input: block,
                });
            }
            let Some(first) = chains[0] else { return };
            let chains = chains.map(|chain| chain.unwrap_or(first));
            let chains = &chains[..group.len().min(cbc::LANES)];
            // SAFETY: the texts are of different packets, after room for the IV.
            unsafe {
                match length {
                    AesKey::Bits128 => cbc::encrypt::<11>(chains),
                    AesKey::Bits192 => cbc::encrypt::<13>(chains),
                    AesKey::Bits256 => cbc::encrypt::<15>(chains),
                }
            }
        }
    }
}

/// Decrypts the packets whose ICVs were right.
///
/// # Safety
/// As [`run`].
unsafe fn decrypt<'a, J: Job<'a>>(jobs: &mut [J], group: &[u8], cipher: Cipher, hash: Hmac) {
    for &at in group {
        let job = &mut jobs[usize::from(at)];
        if job.verdict() != Verdict::Done {
            continue;
        }
        // SAFETY: the caller's contract.
        unsafe {
            match cipher {
                Cipher::Null => {}
                Cipher::Ctr(length) => crypt_ctr(job, length, hash),
                Cipher::Cbc(length) => decrypt_cbc(job, length, hash),
            }
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn crypt_ctr<'a, J: Job<'a>>(job: &mut J, length: AesKey, hash: Hmac) {
    let Some(View { salt, key, .. }) = view(job.material()) else {
        return;
    };
    let nonce = salt.first_chunk().copied().unwrap_or_default();
    let (start, text_bytes) = text_of(job.packet_bytes(), Cipher::Ctr(length), hash);
    let packet = job.packet();
    let iv = packet[ESP_HEADER_BYTES..]
        .first_chunk()
        .copied()
        .map_or(0, u64::from_le_bytes);
    let text = packet[start..].as_mut_ptr();
    // SAFETY: the text lies within the packet.
    unsafe {
        match length {
            AesKey::Bits128 => ctr::crypt::<11>(key, nonce, iv, text, text_bytes),
            AesKey::Bits192 => ctr::crypt::<13>(key, nonce, iv, text, text_bytes),
            AesKey::Bits256 => ctr::crypt::<15>(key, nonce, iv, text, text_bytes),
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn decrypt_cbc<'a, J: Job<'a>>(job: &mut J, length: AesKey, hash: Hmac) {
    let Some(View { key, .. }) = view(job.material()) else {
        return;
    };
    let (start, text_bytes) = text_of(job.packet_bytes(), Cipher::Cbc(length), hash);
    // The pointer reaches back over the IV.
    let text = job.packet().as_mut_ptr().wrapping_add(start);
    // SAFETY: the text lies within the packet, after its IV.
    unsafe {
        match length {
            AesKey::Bits128 => cbc::decrypt::<11>(key, text, text_bytes / 16),
            AesKey::Bits192 => cbc::decrypt::<13>(key, text, text_bytes / 16),
            AesKey::Bits256 => cbc::decrypt::<15>(key, text, text_bytes / 16),
        }
    }
}

/// Writes ICVs, or compares them and sets verdicts.
///
/// # Safety
/// As [`run`].
unsafe fn authenticate<'a, J: Job<'a>>(jobs: &mut [J], group: &[u8], hash: Hmac) {
    // SAFETY: the caller's contract.
    unsafe {
        match hash {
            Hmac::Sha1_96 => authenticate_with::<J, Sha1>(jobs, group, hash),
            Hmac::Sha256_128 => authenticate_with::<J, Sha256>(jobs, group, hash),
            Hmac::Sha384_192 => authenticate_with::<J, Sha384>(jobs, group, hash),
            Hmac::Sha512_256 => authenticate_with::<J, Sha512>(jobs, group, hash),
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn authenticate_with<'a, J: Job<'a>, H: MultiHash>(jobs: &mut [J], group: &[u8], hash: Hmac) {
    let mut macs = [[0; MAX_OUTPUT_BYTES]; 16];
    for group in group.chunks(H::LANES) {
        let messages: [Option<Message<'a>>; 16] = core::array::from_fn(|i| {
            let job = &mut jobs[usize::from(*group.get(i)?)];
            let view = view(job.material())?;
            let suffix = view.esn.then(|| ((job.sequence() >> 32) as u32).to_be_bytes());
            let packet = job.packet();
            let length = packet.len() - hash.icv_bytes();
            Some(Message {
                state: &view.key.mac,
                bytes: packet.as_ptr(),
                length,
                suffix,
            })
        });
        let Some(first) = messages[0] else { continue };
        let messages = messages.map(|message| message.unwrap_or(first));
        let messages = &messages[..group.len()];
        if messages.len() < H::WORTHWHILE {
            for (message, mac) in messages.iter().zip(&mut macs) {
                // SAFETY: the message lies within its packet, which nothing writes meanwhile.
                let bytes = unsafe { core::slice::from_raw_parts(message.bytes, message.length) };
                let suffix = message.suffix;
                *mac = hmac::mac(
                    hash,
                    message.state,
                    bytes,
                    suffix.as_ref().map_or(&[], |s| s.as_slice()),
                );
            }
        } else {
            // SAFETY: messages lie within their packets, which nothing writes meanwhile.
            unsafe { multi_hash::macs::<H>(messages, &mut macs) };
        }
        for (&at, mac) in group.iter().zip(&macs) {
            let job = &mut jobs[usize::from(at)];
            let packet = job.packet();
            let icv_at = packet.len() - hash.icv_bytes();
            let icv = &mut packet[icv_at..];
            let verdict = if J::SEAL {
                icv.copy_from_slice(&mac[..icv.len()]);
                Verdict::Done
            } else if equal(icv, mac) {
                Verdict::Done
            } else {
                Verdict::AuthenticationFailed
            };
            job.set_verdict(verdict);
        }
    }
}

/// Whether `mac` begins with `icv`, in a time that depends on the length alone.
fn equal(icv: &[u8], mac: &[u8; MAX_OUTPUT_BYTES]) -> bool {
    let mask = (1u64 << icv.len()) - 1;
    // SAFETY: the mask covers the ICV alone (at most 32 bytes), and `mac` is 64 bytes; every engine of this
    // folder has AVX-512 BW.
    unsafe {
        let differences = compare(icv.as_ptr(), mac.as_ptr(), mask);
        differences == 0
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn compare(icv: *const u8, mac: *const u8, mask: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let icv = _mm512_maskz_loadu_epi8(mask, icv.cast());
        let mac = _mm512_maskz_loadu_epi8(mask, mac.cast());
        _mm512_cmpneq_epi8_mask(icv, mac)
    }
}
