//! Packets of any bytes and length are refused by both engines alike, and nothing is read or written
//! beyond them.
#![no_main]

use esp_aead::{Algorithm, Engine, OpenJob, OpenKey, Transform, Verdict, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, u64, Vec<Vec<u8>>)| {
    let (algorithm, esn, sequence, packets) = input;
    let algorithm = Algorithm::ALL[usize::from(algorithm) % Algorithm::ALL.len()];
    let transform = Transform::new(algorithm, esn);
    let verdicts = [Engine::detected(), Engine::Portable].map(|engine| {
        let key = OpenKey::with_engine(engine, transform, &vec![0x17; algorithm.key_bytes()]).expect("a key");
        // A packet fills its allocation, so that the sanitizer sees the first byte beyond.
        let mut boxes: Vec<Box<[u8]>> = packets.iter().map(|packet| packet.clone().into_boxed_slice()).collect();
        let mut jobs: Vec<OpenJob<'_>> = boxes.iter_mut().map(|p| OpenJob::new(&key, p, sequence)).collect();
        open(&mut jobs);
        jobs.iter().map(|job| job.verdict).collect::<Vec<Verdict>>()
    });
    assert_eq!(verdicts[0], verdicts[1]);
    for (verdict, packet) in verdicts[0].iter().zip(&packets) {
        let malformed = algorithm.text_bytes(packet.len()).is_none();
        assert_eq!(*verdict == Verdict::Malformed, malformed);
    }
});
