//! Every transform, engine and ESN setting: what was sealed opens, what was changed does not.
#![allow(clippy::unwrap_used)]

use esp_aead::{Algorithm, Engine, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal};

fn keymat(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 37 + 11) as u8).collect()
}

fn plain_packet(algorithm: Algorithm, text_bytes: usize, sequence: u64) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..algorithm.overhead_bytes() + text_bytes)
        .map(|i| (i * 7 + 3) as u8)
        .collect();
    packet[..4].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    packet[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
    packet
}

fn text_of(algorithm: Algorithm, packet: &[u8]) -> &[u8] {
    &packet[8 + algorithm.iv_bytes()..packet.len() - algorithm.icv_bytes()]
}

fn seal_one(key: &SealKey, packet: &mut [u8], sequence: u64) -> Verdict {
    let mut jobs = [SealJob::new(key, packet, sequence)];
    seal(&mut jobs);
    jobs[0].verdict
}

fn open_one(key: &OpenKey, packet: &mut [u8], sequence: u64) -> Verdict {
    let mut jobs = [OpenJob::new(key, packet, sequence)];
    open(&mut jobs);
    jobs[0].verdict
}

#[test]
fn what_is_sealed_opens_and_what_is_changed_does_not() {
    let sequence = 0x0000_0007_8000_0001u64;
    for engine in Engine::ALL.into_iter().filter(|e| e.is_usable()) {
        for algorithm in Algorithm::ALL {
            for esn in [false, true] {
                let transform = Transform::new(algorithm, esn);
                let seal_key =
                    SealKey::with_engine(engine, transform, &keymat(algorithm.key_bytes())).unwrap();
                let open_key =
                    OpenKey::with_engine(engine, transform, &keymat(algorithm.key_bytes())).unwrap();
                for blocks in [1usize, 2, 4, 5, 17, 88] {
                    let text_bytes = blocks * 16;
                    let plain = plain_packet(algorithm, text_bytes, sequence);
                    let mut sealed = plain.clone();
                    assert_eq!(seal_one(&seal_key, &mut sealed, sequence), Verdict::Done);
                    assert_eq!(sealed[..8], plain[..8]);
                    if !matches!(algorithm, Algorithm::Null(_) | Algorithm::AesGmac(_)) {
                        assert_ne!(text_of(algorithm, &sealed), text_of(algorithm, &plain));
                    }
                    let mut opened = sealed.clone();
                    assert_eq!(open_one(&open_key, &mut opened, sequence), Verdict::Done);
                    assert_eq!(
                        text_of(algorithm, &opened),
                        text_of(algorithm, &plain),
                        "{engine:?} {transform:?}"
                    );
                    for position in [0, 7, 8, sealed.len() / 2, sealed.len() - 1] {
                        let mut forged = sealed.clone();
                        forged[position] ^= 0x40;
                        let verdict = open_one(&open_key, &mut forged, sequence);
                        assert_eq!(
                            verdict,
                            Verdict::AuthenticationFailed,
                            "{transform:?} byte {position}"
                        );
                        if !matches!(algorithm, Algorithm::Null(_) | Algorithm::AesGmac(_)) {
                            for (f, p) in text_of(algorithm, &forged)
                                .chunks(16)
                                .zip(text_of(algorithm, &plain).chunks(16))
                            {
                                assert_ne!(f, p, "plaintext of a failed packet: {transform:?}");
                            }
                        }
                    }
                    let mut other_high = sealed.clone();
                    let verdict = open_one(&open_key, &mut other_high, sequence + (1 << 32));
                    assert_eq!(
                        verdict == Verdict::Done,
                        !esn,
                        "high half authenticated iff ESN: {transform:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn impossible_lengths_are_malformed_and_untouched() {
    for engine in Engine::ALL.into_iter().filter(|e| e.is_usable()) {
        for algorithm in Algorithm::ALL {
            let transform = Transform::new(algorithm, false);
            let seal_key = SealKey::with_engine(engine, transform, &keymat(algorithm.key_bytes())).unwrap();
            let open_key = OpenKey::with_engine(engine, transform, &keymat(algorithm.key_bytes())).unwrap();
            for length in 0..algorithm.overhead_bytes() {
                let mut packet = vec![0x5a; length];
                assert_eq!(seal_one(&seal_key, &mut packet, 1), Verdict::Malformed);
                assert_eq!(open_one(&open_key, &mut packet, 1), Verdict::Malformed);
                assert!(packet.iter().all(|b| *b == 0x5a));
            }
        }
    }
}
