//! The entry points: batches of jobs of any mixture of keys, transforms and lengths.

use crate::job::{OpenJob, SealJob, Verdict};
use crate::material::Material;

/// Protects every job's packet and sets its verdict.
///
/// A job of impossible length is [`Verdict::Malformed`] and does not disturb the others. Nothing is
/// allocated.
pub fn seal(jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        let algorithm = job.key.algorithm();
        job.verdict = match (algorithm.text_bytes(job.packet.len()), &job.key.material) {
            (Some(_), Material::Portable(key)) => {
                if key.seal(job.packet, job.sequence, None) {
                    Verdict::Done
                } else {
                    Verdict::Malformed
                }
            }
            _ => Verdict::Malformed,
        };
    }
}

/// Verifies and decrypts every job's packet and sets its verdict.
///
/// A job whose ICV does not match is [`Verdict::AuthenticationFailed`], holds no plaintext, and does not
/// disturb the others. The comparison takes the same time wherever ICVs differ.
pub fn open(jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        let algorithm = job.key.algorithm();
        job.verdict = match (algorithm.text_bytes(job.packet.len()), &job.key.material) {
            (Some(_), Material::Portable(key)) => {
                if key.open(job.packet, job.sequence) {
                    Verdict::Done
                } else {
                    Verdict::AuthenticationFailed
                }
            }
            _ => Verdict::Malformed,
        };
    }
}
