//! Random batches of every transform, key, length and fault, between the engines: what one seals the other
//! opens, and a bad packet spoils nothing but itself.

#![allow(clippy::unwrap_used)]

use esp_aead::{Algorithm, Engine, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Packet {
    transform: Transform,
    key_seed: u8,
    text_bytes: usize,
    sequence: u64,
    /// Which bit of the sealed packet is flipped, if any (modulo its length).
    flipped: Option<usize>,
}

fn packet() -> impl Strategy<Value = Packet> {
    let length = prop_oneof![0usize..200, 200usize..1700, 1700usize..9000];
    let algorithm = prop_oneof![
        (0..Algorithm::ALL.len()).prop_map(|i| Algorithm::ALL[i]),
        // Often enough of one kind to be gathered.
        Just(Algorithm::ALL[1]),
        Just(Algorithm::ALL[3]),
    ];
    (
        algorithm,
        any::<bool>(),
        0u8..6,
        length,
        any::<u64>(),
        prop::option::weighted(0.2, any::<usize>()),
    )
        .prop_map(|(algorithm, esn, key_seed, length, sequence, flipped)| Packet {
            transform: Transform::new(algorithm, esn),
            key_seed,
            text_bytes: length.max(2).next_multiple_of(algorithm.alignment_bytes()),
            sequence,
            flipped,
        })
}

impl Packet {
    fn keymat(&self) -> Vec<u8> {
        let length = self.transform.algorithm.key_bytes();
        (0..length)
            .map(|i| {
                (i as u8)
                    .wrapping_mul(61)
                    .wrapping_add(self.key_seed.wrapping_mul(47))
            })
            .collect()
    }

    fn plain(&self) -> Vec<u8> {
        let length = self.transform.algorithm.overhead_bytes() + self.text_bytes;
        let mut bytes: Vec<u8> = (0..length)
            .map(|i| (i as u64).wrapping_mul(self.sequence | 1).to_le_bytes()[3] ^ i as u8)
            .collect();
        bytes[4..8].copy_from_slice(&(self.sequence as u32).to_be_bytes());
        bytes
    }

    fn text<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let algorithm = self.transform.algorithm;
        &packet[8 + algorithm.iv_bytes()..packet.len() - algorithm.icv_bytes()]
    }

    fn hides_text(&self) -> bool {
        !matches!(
            self.transform.algorithm,
            Algorithm::Null(_) | Algorithm::AesGmac(_)
        )
    }
}

fn seal_all(engine: Engine, packets: &[Packet], bytes: &mut [Vec<u8>]) {
    let keys: Vec<SealKey> = packets
        .iter()
        .map(|p| SealKey::with_engine(engine, p.transform, &p.keymat()).unwrap())
        .collect();
    let mut jobs: Vec<SealJob<'_>> = bytes
        .iter_mut()
        .zip(&keys)
        .zip(packets)
        .map(|((bytes, key), packet)| SealJob::new(key, bytes, packet.sequence))
        .collect();
    seal(&mut jobs);
    assert!(jobs.iter().all(|job| job.verdict == Verdict::Done));
}

fn open_all(engine: Engine, packets: &[Packet], bytes: &mut [Vec<u8>]) -> Vec<Verdict> {
    let keys: Vec<OpenKey> = packets
        .iter()
        .map(|p| OpenKey::with_engine(engine, p.transform, &p.keymat()).unwrap())
        .collect();
    let mut jobs: Vec<OpenJob<'_>> = bytes
        .iter_mut()
        .zip(&keys)
        .zip(packets)
        .map(|((bytes, key), packet)| OpenJob::new(key, bytes, packet.sequence))
        .collect();
    open(&mut jobs);
    jobs.iter().map(|job| job.verdict).collect()
}

fn check(sealer: Engine, opener: Engine, packets: &[Packet]) {
    let plain: Vec<Vec<u8>> = packets.iter().map(Packet::plain).collect();
    let mut bytes = plain.clone();
    seal_all(sealer, packets, &mut bytes);
    for ((packet, plain), sealed) in packets.iter().zip(&plain).zip(&bytes) {
        assert_eq!(plain[..8], sealed[..8], "header of {packet:?}");
    }
    for (packet, bytes) in packets.iter().zip(&mut bytes) {
        if let Some(bit) = packet.flipped {
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    let sealed = bytes.clone();
    let verdicts = open_all(opener, packets, &mut bytes);
    for (i, packet) in packets.iter().enumerate() {
        if packet.flipped.is_some() {
            assert_eq!(verdicts[i], Verdict::AuthenticationFailed, "{packet:?}");
            let (text, was) = (packet.text(&bytes[i]), packet.text(&sealed[i]));
            if packet.hides_text() {
                assert!(
                    text == was || text.iter().all(|b| *b == 0),
                    "plaintext released: {packet:?}"
                );
            }
        } else {
            assert_eq!(verdicts[i], Verdict::Done, "{packet:?}");
            assert!(
                packet.text(&bytes[i]) == packet.text(&plain[i]),
                "text of {packet:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn engines_agree_on_mixed_batches_and_faults_stay_alone(
        packets in prop::collection::vec(packet(), 1..150),
    ) {
        for sealer in Engine::ALL.into_iter().filter(|e| e.is_usable()) {
            for opener in Engine::ALL.into_iter().filter(|e| e.is_usable()) {
                check(sealer, opener, &packets);
            }
        }
    }

    #[test]
    fn engines_agree_on_batches_of_one_transform(
        which in 0..Algorithm::ALL.len(),
        esn in any::<bool>(),
        mut packets in prop::collection::vec(packet(), 1..80),
        same_length in any::<bool>(),
    ) {
        let algorithm = Algorithm::ALL[which];
        let first = packets[0].text_bytes;
        for packet in &mut packets {
            packet.transform = Transform::new(algorithm, esn);
            let length = if same_length { first } else { packet.text_bytes };
            packet.text_bytes = length.next_multiple_of(algorithm.alignment_bytes());
        }
        for (sealer, opener) in [(Engine::detected(), Engine::Portable), (Engine::Portable, Engine::detected())] {
            check(sealer, opener, &packets);
        }
    }
}

#[test]
fn every_transform_seals_to_the_same_bytes_with_every_engine() {
    for algorithm in Algorithm::ALL {
        // The CBC IV is random; opening across engines is checked above.
        if matches!(algorithm, Algorithm::AesCbc(..)) {
            continue;
        }
        for esn in [false, true] {
            let packets: Vec<Packet> = (0..300)
                .map(|i| Packet {
                    transform: Transform::new(algorithm, esn),
                    key_seed: (i % 7) as u8,
                    text_bytes: 4 * (i / 2),
                    sequence: 0x7_1234_5678 + i as u64,
                    flipped: None,
                })
                .collect();
            let plain: Vec<Vec<u8>> = packets.iter().map(Packet::plain).collect();
            let mut expected = plain.clone();
            seal_all(Engine::Portable, &packets, &mut expected);
            for engine in Engine::ALL.into_iter().filter(|e| e.is_usable()) {
                let mut bytes = plain.clone();
                seal_all(engine, &packets, &mut bytes);
                for ((packet, got), expected) in packets.iter().zip(&bytes).zip(&expected) {
                    assert!(got == expected, "{engine:?}, {packet:?}");
                }
            }
        }
    }
}
