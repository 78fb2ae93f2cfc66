//! The yardstick: the crypto alone, on buffers as the pipeline hands them over.

use dataplane::sa::algorithm;
use esp_aead::{SealJob, SealKey, seal};
use southbound::Transform;

use super::{BATCH_PACKETS, Case};

/// Samples of one look.
const SAMPLES: usize = 20;
/// Chunk of a buffer, as in packet memory.
const BUFFER_BYTES: usize = 4096;
const ESP_HEADER_BYTES: usize = 8;
const TRAILER_BYTES: usize = 2;

/// Median TSC cycles a packet of sealing a batch with one key; `None` for a case without a transform.
#[must_use]
pub fn bare_seal_cycles(case: &Case, clock: &quanta::Clock) -> Option<f64> {
    let named = case.algorithm?;
    let transform = Transform::new(named.encryption, named.integrity).ok()?;
    let algorithm = algorithm(transform);
    let keymat = vec![0x5a; transform.key_bytes()];
    let key = SealKey::new(esp_aead::Transform { algorithm, esn: true }, &keymat).ok()?;
    let body_bytes = (case.size_bytes + TRAILER_BYTES).next_multiple_of(algorithm.alignment_bytes());
    let packet_bytes = ESP_HEADER_BYTES + algorithm.iv_bytes() + body_bytes + algorithm.icv_bytes();
    let mut buffers = vec![[0x11u8; BUFFER_BYTES]; BATCH_PACKETS];
    let mut samples: Vec<f64> = (0..SAMPLES as u64)
        .map(|round| {
            let mut jobs: Vec<SealJob<'_>> = (1u64..)
                .zip(&mut buffers)
                .filter_map(|(number, buffer)| {
                    let sequence = round * BATCH_PACKETS as u64 + number;
                    Some(SealJob::new(&key, buffer.get_mut(..packet_bytes)?, sequence))
                })
                .collect();
            let start = clock.raw();
            seal(&mut jobs);
            (clock.raw() - start) as f64 / BATCH_PACKETS as f64
        })
        .collect();
    Some(super::median_and_least(&mut samples).0)
}
