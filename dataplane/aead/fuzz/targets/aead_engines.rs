//! What one engine seals, in batches of anything, the other opens.
#![no_main]

use esp_aead::{Algorithm, Engine, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Vec<(u8, bool, u8, u16, u64, u8)>| {
    let packets: Vec<_> = input
        .into_iter()
        .take(100)
        .map(|(algorithm, esn, key, length, sequence, fill)| {
            let algorithm = Algorithm::ALL[usize::from(algorithm) % Algorithm::ALL.len()];
            let text_bytes = (usize::from(length) % 9300).next_multiple_of(algorithm.alignment_bytes()).max(16);
            let bytes: Vec<u8> = (0..algorithm.overhead_bytes() + text_bytes)
                .map(|i| (i as u8).wrapping_mul(fill).wrapping_add(fill))
                .collect();
            (Transform::new(algorithm, esn), vec![key; algorithm.key_bytes()], sequence, bytes)
        })
        .collect();
    let ways = [(Engine::detected(), Engine::Portable), (Engine::Portable, Engine::detected())];
    for (sealer, opener) in ways {
        let mut bytes: Vec<Vec<u8>> = packets.iter().map(|packet| packet.3.clone()).collect();
        let keys: Vec<SealKey> =
            packets.iter().map(|p| SealKey::with_engine(sealer, p.0, &p.1).expect("a key")).collect();
        let mut jobs: Vec<SealJob<'_>> = bytes
            .iter_mut()
            .zip(&keys)
            .zip(&packets)
            .map(|((bytes, key), packet)| SealJob::new(key, bytes, packet.2))
            .collect();
        seal(&mut jobs);
        assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
        drop(jobs);
        let keys: Vec<OpenKey> =
            packets.iter().map(|p| OpenKey::with_engine(opener, p.0, &p.1).expect("a key")).collect();
        let mut jobs: Vec<OpenJob<'_>> = bytes
            .iter_mut()
            .zip(&keys)
            .zip(&packets)
            .map(|((bytes, key), packet)| OpenJob::new(key, bytes, packet.2))
            .collect();
        open(&mut jobs);
        assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
        drop(jobs);
        for (bytes, (transform, _, _, plain)) in bytes.iter().zip(&packets) {
            let algorithm = transform.algorithm;
            let text = 8 + algorithm.iv_bytes()..plain.len() - algorithm.icv_bytes();
            assert!(bytes[text.clone()] == plain[text]);
        }
    }
});
