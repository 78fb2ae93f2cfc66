//! Known answers, checked before an engine is trusted.

use std::fmt;

use crate::algorithm::{Algorithm, ESP_HEADER_BYTES, Transform};
use crate::batch::{open, seal};
use crate::engine::Engine;
use crate::job::{OpenJob, SealJob, Verdict};
use crate::key::{OpenKey, SealKey};

/// An engine gave a wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestError {
    /// The engine.
    pub engine: Engine,
    /// What it got wrong.
    pub algorithm: Algorithm,
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} engine fails its known answer for {:?}",
            self.engine.name(),
            self.algorithm
        )
    }
}

impl std::error::Error for SelfTestError {}

/// Checks an engine against a known answer for every transform, and that it refuses a changed packet.
///
/// # Errors
/// The first transform that fails; all of them fail where the processor cannot run the engine.
pub fn self_test(engine: Engine) -> Result<(), SelfTestError> {
    for (algorithm, answer) in Algorithm::ALL.into_iter().zip(ANSWERS) {
        if known_answer(engine, algorithm) != Some(answer) {
            return Err(SelfTestError { engine, algorithm });
        }
    }
    Ok(())
}

/// The best engine of this machine that passes its self-test: what a process calls before it works.
///
/// # Errors
/// Where not even the library-backed engine passes.
pub fn start() -> Result<Engine, SelfTestError> {
    let engine = Engine::detected();
    self_test(engine).map(|()| engine)
}

/// Text bytes of the packets: whole groups of vectors, and a rest.
const TEXT_BYTES: usize = 16 * 37;
const SEQUENCE: u64 = 0x0102_0304_0506_0708;
/// As many as are worked on together, and one.
const PACKETS: usize = 17;

/// A number made of what a transform does to fixed packets, or `None` where it contradicts itself.
fn known_answer(engine: Engine, algorithm: Algorithm) -> Option<u64> {
    let transform = Transform::new(algorithm, true);
    let keymat = pattern(algorithm.key_bytes(), 1);
    let seal_key = SealKey::with_engine(engine, transform, &keymat).ok()?;
    let open_key = OpenKey::with_engine(engine, transform, &keymat).ok()?;
    let plain = pattern(algorithm.overhead_bytes() + TEXT_BYTES, 2);
    let text = ESP_HEADER_BYTES + algorithm.iv_bytes()..plain.len() - algorithm.icv_bytes();
    let mut packets = vec![plain.clone(); PACKETS];
    let mut jobs: Vec<SealJob<'_>> = packets
        .iter_mut()
        .map(|p| SealJob::new(&seal_key, p, SEQUENCE))
        .collect();
    seal(&mut jobs);
    if !jobs.iter().all(|job| job.verdict == Verdict::Done) {
        return None;
    }
    drop(jobs);
    let answer = if let Algorithm::AesCbc(_, hash) = algorithm {
        // The IV is random: the answer is what the fixed packet decrypts to, with an ICV of NULL.
        let null = Transform::new(Algorithm::Null(hash), true);
        let null_key = SealKey::with_engine(engine, null, &keymat[algorithm.cipher_key_bytes()..]).ok()?;
        let mut fixed = plain.clone();
        seal(&mut [SealJob::new(&null_key, &mut fixed, SEQUENCE)]);
        let mut jobs = [OpenJob::new(&open_key, &mut fixed, SEQUENCE)];
        open(&mut jobs);
        if jobs[0].verdict != Verdict::Done {
            return None;
        }
        digest(&fixed)
    } else {
        if !packets.iter().all(|packet| *packet == packets[0]) {
            return None;
        }
        digest(&packets[0])
    };
    // One packet is changed; the others open to what they were.
    let changed = text.start + 7;
    packets[PACKETS / 2][changed] ^= 1;
    let mut jobs: Vec<OpenJob<'_>> = packets
        .iter_mut()
        .map(|p| OpenJob::new(&open_key, p, SEQUENCE))
        .collect();
    open(&mut jobs);
    for (i, job) in jobs.iter().enumerate() {
        let right = if i == PACKETS / 2 {
            job.verdict == Verdict::AuthenticationFailed
        } else {
            job.verdict == Verdict::Done && job.packet[text.clone()] == plain[text.clone()]
        };
        if !right {
            return None;
        }
    }
    Some(answer)
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i * 131 + seed * 29 + (i >> 3)) as u8)
        .collect()
}

/// FNV-1a: tells answers apart, protects nothing.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// In the order of [`Algorithm::ALL`]; first computed by the library-backed engine.
#[rustfmt::skip]
const ANSWERS: [u64; Algorithm::ALL.len()] = [
    0x10d1_6f14_0cfe_9336, 0x55a0_adc5_ee27_03fc, 0xcebd_984d_bbe4_2286, 0x79c1_cf52_c3b8_d660,
    0x88b0_a264_988f_d3d8, 0x1ece_b2b4_a290_e3eb, 0x3538_f676_018b_cd63, 0x258a_973c_4c95_26aa,
    0x7675_5d2f_c998_5a34, 0x80fb_1b55_d9c0_53ba, 0x380e_f16e_11c4_6669, 0xcbc1_3a09_b212_f43f,
    0x650a_87cf_84b6_982f, 0xd681_4f41_968c_8153, 0x6bf3_5cd6_9466_39ee, 0x3f4b_afe6_6d49_69e7,
    0x9fd6_9d09_0568_52e6, 0x5332_fb44_8a7d_f18f, 0x21c3_97b8_028f_6965, 0x9fb7_a53d_fced_061e,
    0xab1c_2584_b78e_bbd8, 0x09f2_5ea5_0baf_0585, 0xa4f6_b595_2d1f_bfc3, 0x0c28_3cbb_eece_1504,
    0x7f66_e137_fc5a_cc52, 0x69e1_c7a8_8ce2_461c, 0x5be5_7a94_786b_438a, 0xc99c_b23c_5e23_5fac,
    0x3242_a6bb_1ac3_bedb, 0x90c4_4165_2645_fd34, 0xddc3_fbd9_8b4d_62aa, 0x28dc_17e0_905a_595d,
    0xe279_6bb8_b2b7_adb3, 0x3013_c109_8c08_bab1, 0xb2af_6c44_8aab_6832,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usable_engine_passes() {
        for engine in Engine::ALL.into_iter().filter(|engine| engine.is_usable()) {
            let answers: Vec<_> = Algorithm::ALL
                .into_iter()
                .map(|a| known_answer(engine, a))
                .collect();
            assert_eq!(answers, ANSWERS.map(Some), "{engine:?}");
            assert_eq!(self_test(engine), Ok(()));
        }
        assert_eq!(start(), Ok(Engine::detected()));
    }

    #[test]
    fn answers_differ_between_transforms() {
        for (i, answer) in ANSWERS.iter().enumerate() {
            assert!(!ANSWERS[..i].contains(answer));
        }
    }
}
