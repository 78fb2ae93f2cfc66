//! Signatures of the AUTH payload: RFC 7427 digital signatures and the older methods (RFC 7296, RFC 4754).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};

use crate::error::{Error, Result};
use crate::payload::auth::{AuthMethod, AuthPayload};

/// Hash algorithm identifiers of SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4, RFC 8420).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SignatureHash {
    Sha256,
    Sha384,
    Sha512,
    Identity,
}

impl SignatureHash {
    /// What we announce; SHA-1 is not among them.
    pub(crate) const ALL: [Self; 4] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Identity];

    /// The registered number.
    pub(crate) fn id(self) -> u16 {
        match self {
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
            Self::Identity => 5,
        }
    }
}

macro_rules! der {
    ($($byte:literal)*) => { &[$($byte),*] };
}

const RSA_SHA1: &[u8] = der!(0x30 0x0d 6 9 0x2a 0x86 0x48 0x86 0xf7 0x0d 1 1 5 5 0);
const RSA_SHA256: &[u8] = der!(0x30 0x0d 6 9 0x2a 0x86 0x48 0x86 0xf7 0x0d 1 1 11 5 0);
const RSA_SHA384: &[u8] = der!(0x30 0x0d 6 9 0x2a 0x86 0x48 0x86 0xf7 0x0d 1 1 12 5 0);
const RSA_SHA512: &[u8] = der!(0x30 0x0d 6 9 0x2a 0x86 0x48 0x86 0xf7 0x0d 1 1 13 5 0);
const ECDSA_SHA256: &[u8] = der!(0x30 0x0a 6 8 0x2a 0x86 0x48 0xce 0x3d 4 3 2);
const ECDSA_SHA384: &[u8] = der!(0x30 0x0a 6 8 0x2a 0x86 0x48 0xce 0x3d 4 3 3);
const ECDSA_SHA512: &[u8] = der!(0x30 0x0a 6 8 0x2a 0x86 0x48 0xce 0x3d 4 3 4);
const ED25519: &[u8] = der!(0x30 5 6 3 0x2b 0x65 0x70);

/// RSASSA-PSS parameters with one hash throughout and a salt of its length (RFC 7427 appendix A.4), with or without
/// the explicit default trailer field that some peers write.
fn pss_identifier(hash: SignatureHash, trailer: bool) -> Vec<u8> {
    let (arc, salt_bytes) = match hash {
        SignatureHash::Sha384 => (2, 48),
        SignatureHash::Sha512 => (3, 64),
        _ => (1, 32),
    };
    let hash = [0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, arc, 5, 0];
    let mut parameters = vec![0xa0, 0x0f];
    parameters.extend_from_slice(&hash);
    parameters.extend_from_slice(&[
        0xa1, 0x1c, 0x30, 0x1a, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8,
    ]);
    parameters.extend_from_slice(&hash);
    parameters.extend_from_slice(&[0xa2, 3, 2, 1, salt_bytes]);
    if trailer {
        parameters.extend_from_slice(&[0xa3, 3, 2, 1, 1]);
    }
    let length = parameters.len() as u8;
    let mut identifier = vec![
        0x30,
        length + 13,
        6,
        9,
        0x2a,
        0x86,
        0x48,
        0x86,
        0xf7,
        0x0d,
        1,
        1,
        10,
        0x30,
        length,
    ];
    identifier.extend_from_slice(&parameters);
    identifier
}

/// A private key for signing AUTH payloads.
pub struct SigningKey {
    kind: SigningKind,
    /// As it was read, for TLS.
    der: southbound::KeyMaterial,
}

enum SigningKind {
    Rsa(Box<RsaKeyPair>),
    /// PKCS#8 is kept since the library ties a key pair to one signature form.
    Ecdsa {
        curve: Curve,
        pkcs8: southbound::KeyMaterial,
        public: Vec<u8>,
    },
    Ed25519(Box<Ed25519KeyPair>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn asn1(self) -> (&'static EcdsaSigningAlgorithm, &'static [u8]) {
        match self {
            Self::P256 => (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_SHA256),
            Self::P384 => (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_SHA384),
            Self::P521 => (&signature::ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_SHA512),
        }
    }

    fn fixed(self) -> (&'static EcdsaSigningAlgorithm, AuthMethod) {
        match self {
            Self::P256 => (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, AuthMethod::ECDSA_256),
            Self::P384 => (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, AuthMethod::ECDSA_384),
            Self::P521 => (&signature::ECDSA_P521_SHA512_FIXED_SIGNING, AuthMethod::ECDSA_521),
        }
    }

    fn hash(self) -> SignatureHash {
        match self {
            Self::P256 => SignatureHash::Sha256,
            Self::P384 => SignatureHash::Sha384,
            Self::P521 => SignatureHash::Sha512,
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kind {
            SigningKind::Rsa(_) => "SigningKey(RSA, [redacted])",
            SigningKind::Ecdsa { .. } => "SigningKey(ECDSA, [redacted])",
            SigningKind::Ed25519(_) => "SigningKey(Ed25519, [redacted])",
        })
    }
}

const FAILED: Error = Error::Crypto("sign");

impl SigningKey {
    /// Reads a DER private key: PKCS#8 of any supported kind, PKCS#1 (RSA) or SEC 1 (EC).
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let kind = Self::read(der)?;
        let der = southbound::KeyMaterial::new(der.to_vec());
        Ok(Self { kind, der })
    }

    pub(crate) fn der(&self) -> &southbound::KeyMaterial {
        &self.der
    }

    fn read(der: &[u8]) -> Result<SigningKind> {
        if let Ok(rsa) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            return Ok(SigningKind::Rsa(Box::new(rsa)));
        }
        if let Ok(ed25519) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(SigningKind::Ed25519(Box::new(ed25519)));
        }
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let pair = EcdsaKeyPair::from_pkcs8(curve.asn1().0, der)
                .or_else(|_| EcdsaKeyPair::from_private_key_der(curve.asn1().0, der));
            if let Ok(pair) = pair {
                let pkcs8 = pair
                    .to_pkcs8v1()
                    .map_err(|_| Error::Local("private key".into()))?;
                let pkcs8 = southbound::KeyMaterial::new(pkcs8.as_ref().to_vec());
                let public = pair.public_key().as_ref().to_vec();
                return Ok(SigningKind::Ecdsa { curve, pkcs8, public });
            }
        }
        Err(Error::Local(
            "private key is neither RSA (2048 bits and more), ECDSA on a NIST curve nor Ed25519".into(),
        ))
    }

    /// The raw public key, as it stands in a certificate's subject public key info.
    pub fn public_key(&self) -> &[u8] {
        match &self.kind {
            SigningKind::Rsa(key) => key.public_key().as_ref(),
            SigningKind::Ecdsa { public, .. } => public,
            SigningKind::Ed25519(key) => key.public_key().as_ref(),
        }
    }

    /// Signs with the best method that the peer's announced hashes allow (RFC 7427 section 4); without an
    /// announcement by the methods of RFC 7296 and RFC 4754.
    pub(crate) fn sign(&self, message: &[u8], peer_hashes: &[u16], scheme: RsaScheme) -> Result<AuthPayload> {
        let random = SystemRandom::new();
        let knows = |hash: SignatureHash| peer_hashes.contains(&hash.id());
        match &self.kind {
            SigningKind::Rsa(key) => {
                let hash = [
                    SignatureHash::Sha256,
                    SignatureHash::Sha384,
                    SignatureHash::Sha512,
                ]
                .into_iter()
                .find(|hash| knows(*hash));
                let mut data = vec![0; key.public_modulus_len()];
                let Some(hash) = hash else {
                    if scheme == RsaScheme::PssOrSha1 {
                        let data = super::rsa_legacy::sign_sha1(&self.der, message)?;
                        let algorithm = &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
                        UnparsedPublicKey::new(algorithm, key.public_key().as_ref())
                            .verify(message, &data)
                            .map_err(|_| FAILED)?;
                        return Ok(AuthPayload {
                            method: AuthMethod::RSA,
                            data,
                        });
                    }
                    // The hash of method 1 is for the signer to say (RFC 7296 section 3.8); SHA-1 is not signed here.
                    key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut data)
                        .map_err(|_| FAILED)?;
                    return Ok(AuthPayload {
                        method: AuthMethod::RSA,
                        data,
                    });
                };
                let (encoding, identifier): (&'static dyn signature::RsaEncoding, Vec<u8>) =
                    match (scheme, hash) {
                        (RsaScheme::Pkcs1, SignatureHash::Sha384) => {
                            (&signature::RSA_PKCS1_SHA384, RSA_SHA384.to_vec())
                        }
                        (RsaScheme::Pkcs1, SignatureHash::Sha512) => {
                            (&signature::RSA_PKCS1_SHA512, RSA_SHA512.to_vec())
                        }
                        (RsaScheme::Pkcs1, _) => (&signature::RSA_PKCS1_SHA256, RSA_SHA256.to_vec()),
                        (_, SignatureHash::Sha384) => {
                            (&signature::RSA_PSS_SHA384, pss_identifier(hash, false))
                        }
                        (_, SignatureHash::Sha512) => {
                            (&signature::RSA_PSS_SHA512, pss_identifier(hash, false))
                        }
                        _ => (&signature::RSA_PSS_SHA256, pss_identifier(hash, false)),
                    };
                key.sign(encoding, &random, message, &mut data)
                    .map_err(|_| FAILED)?;
                Ok(digital(&identifier, &data))
            }
            SigningKind::Ecdsa { curve, pkcs8, .. } => {
                let modern = knows(curve.hash());
                let (algorithm, method) = if modern {
                    (curve.asn1().0, AuthMethod::DIGITAL_SIGNATURE)
                } else {
                    curve.fixed()
                };
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.expose()).map_err(|_| FAILED)?;
                let data = pair.sign(&random, message).map_err(|_| FAILED)?;
                Ok(if modern {
                    digital(curve.asn1().1, data.as_ref())
                } else {
                    AuthPayload {
                        method,
                        data: data.as_ref().to_vec(),
                    }
                })
            }
            SigningKind::Ed25519(key) => {
                if !knows(SignatureHash::Identity) {
                    return Err(Error::Local(
                        "the peer does not know Ed25519 signatures (RFC 8420)".into(),
                    ));
                }
                Ok(digital(
                    ED25519,
                    key.try_sign(message).map_err(|_| FAILED)?.as_ref(),
                ))
            }
        }
    }
}

/// Which RSA padding to sign with where the peer knows RFC 7427.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RsaScheme {
    /// RSASSA-PSS, preferred by RFC 8247 section 3.
    #[default]
    Pss,
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
    /// As `Pss`, and with SHA-1 for peers that do not know RFC 7427: Windows accepts nothing else of a gateway with an
    /// RSA key.
    PssOrSha1,
}

fn digital(identifier: &[u8], data: &[u8]) -> AuthPayload {
    let mut out = vec![u8::try_from(identifier.len()).unwrap_or(0)];
    out.extend_from_slice(identifier);
    out.extend_from_slice(data);
    AuthPayload {
        method: AuthMethod::DIGITAL_SIGNATURE,
        data: out,
    }
}

/// The kind of a certified public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublicKeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// Verifies an AUTH payload against a certified public key. Only exactly known algorithm identifiers count, and only
/// those that fit the key.
pub(crate) fn verify(
    kind: PublicKeyKind,
    public_key: &[u8],
    message: &[u8],
    auth: &AuthPayload,
) -> Result<()> {
    let refuse = |what: &str| Err(Error::AuthenticationFailed(what.to_owned()));
    let (algorithms, signature_bytes): (Vec<&'static dyn VerificationAlgorithm>, &[u8]) = match auth.method {
        AuthMethod::DIGITAL_SIGNATURE => {
            let Some((length, rest)) = auth.data.split_first() else {
                return refuse("empty signature");
            };
            let Some((identifier, bytes)) = rest.split_at_checked(usize::from(*length)) else {
                return refuse("truncated algorithm identifier");
            };
            match by_identifier(kind, identifier) {
                Some(algorithm) => (vec![algorithm], bytes),
                None => return refuse("signature algorithm does not fit the certificate or is not accepted"),
            }
        }
        AuthMethod::RSA if kind == PublicKeyKind::Rsa => (
            vec![
                &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                &signature::RSA_PKCS1_2048_8192_SHA256,
                &signature::RSA_PKCS1_2048_8192_SHA384,
                &signature::RSA_PKCS1_2048_8192_SHA512,
            ],
            &auth.data,
        ),
        AuthMethod::ECDSA_256 if kind == PublicKeyKind::P256 => {
            (vec![&signature::ECDSA_P256_SHA256_FIXED], &auth.data)
        }
        AuthMethod::ECDSA_384 if kind == PublicKeyKind::P384 => {
            (vec![&signature::ECDSA_P384_SHA384_FIXED], &auth.data)
        }
        AuthMethod::ECDSA_521 if kind == PublicKeyKind::P521 => {
            (vec![&signature::ECDSA_P521_SHA512_FIXED], &auth.data)
        }
        _ => return refuse("authentication method does not fit the certificate"),
    };
    if algorithms.into_iter().any(|a| {
        UnparsedPublicKey::new(a, public_key)
            .verify(message, signature_bytes)
            .is_ok()
    }) {
        Ok(())
    } else {
        refuse("signature does not verify")
    }
}

fn by_identifier(kind: PublicKeyKind, identifier: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    use PublicKeyKind as K;
    let algorithm: &'static dyn VerificationAlgorithm = match (kind, identifier) {
        (K::Rsa, id) if id == RSA_SHA256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        (K::Rsa, id) if id == RSA_SHA384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        (K::Rsa, id) if id == RSA_SHA512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        // SHA-1 was not announced: RFC 7427 section 4 has the peer keep to what was.
        (K::Rsa, id) if id == RSA_SHA1 => return None,
        (K::Rsa, id) => {
            let is = |hash| id == pss_identifier(hash, false) || id == pss_identifier(hash, true);
            if is(SignatureHash::Sha256) {
                &signature::RSA_PSS_2048_8192_SHA256
            } else if is(SignatureHash::Sha384) {
                &signature::RSA_PSS_2048_8192_SHA384
            } else if is(SignatureHash::Sha512) {
                &signature::RSA_PSS_2048_8192_SHA512
            } else {
                return None;
            }
        }
        (K::P256, id) if id == ECDSA_SHA256 => &signature::ECDSA_P256_SHA256_ASN1,
        (K::P256, id) if id == ECDSA_SHA384 => &signature::ECDSA_P256_SHA384_ASN1,
        (K::P256, id) if id == ECDSA_SHA512 => &signature::ECDSA_P256_SHA512_ASN1,
        (K::P384, id) if id == ECDSA_SHA256 => &signature::ECDSA_P384_SHA256_ASN1,
        (K::P384, id) if id == ECDSA_SHA384 => &signature::ECDSA_P384_SHA384_ASN1,
        (K::P384, id) if id == ECDSA_SHA512 => &signature::ECDSA_P384_SHA512_ASN1,
        (K::P521, id) if id == ECDSA_SHA256 => &signature::ECDSA_P521_SHA256_ASN1,
        (K::P521, id) if id == ECDSA_SHA384 => &signature::ECDSA_P521_SHA384_ASN1,
        (K::P521, id) if id == ECDSA_SHA512 => &signature::ECDSA_P521_SHA512_ASN1,
        (K::Ed25519, id) if id == ED25519 => &signature::ED25519,
        _ => return None,
    };
    Some(algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<(SigningKey, PublicKeyKind)> {
        let generate = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_der();
        let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let rsa = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        [
            (generate(&rcgen::PKCS_ECDSA_P256_SHA256), PublicKeyKind::P256),
            (generate(&rcgen::PKCS_ECDSA_P384_SHA384), PublicKeyKind::P384),
            (generate(&rcgen::PKCS_ECDSA_P521_SHA512), PublicKeyKind::P521),
            (generate(&rcgen::PKCS_ED25519), PublicKeyKind::Ed25519),
            (rsa.as_ref().to_vec(), PublicKeyKind::Rsa),
        ]
        .into_iter()
        .map(|(der, kind)| (SigningKey::from_der(&der).unwrap(), kind))
        .collect()
    }

    #[test]
    fn fault_38_only_the_right_key_verifies() {
        let keys = keys();
        let modern = SignatureHash::ALL.map(SignatureHash::id);
        for (key, kind) in &keys {
            let schemes: &[(&[u16], RsaScheme)] = &[
                (&modern, RsaScheme::Pss),
                (&modern, RsaScheme::Pkcs1),
                (&[], RsaScheme::Pss),
                (&[], RsaScheme::PssOrSha1),
            ];
            for (hashes, scheme) in schemes {
                let auth = match key.sign(b"octets", hashes, *scheme) {
                    Ok(auth) => auth,
                    Err(_) if *kind == PublicKeyKind::Ed25519 && hashes.is_empty() => continue,
                    Err(error) => panic!("{kind:?}: {error}"),
                };
                assert!(
                    verify(*kind, key.public_key(), b"octets", &auth).is_ok(),
                    "{kind:?}"
                );
                assert!(verify(*kind, key.public_key(), b"octet5", &auth).is_err());
                for (other, other_kind) in &keys {
                    if other_kind != kind {
                        assert!(verify(*other_kind, other.public_key(), b"octets", &auth).is_err());
                    }
                }
                let mut bad = auth.clone();
                *bad.data.last_mut().unwrap() ^= 1;
                assert!(verify(*kind, key.public_key(), b"octets", &bad).is_err());
                for end in 0..auth.data.len().min(80) {
                    let cut = AuthPayload {
                        data: auth.data[..end].to_vec(),
                        ..auth.clone()
                    };
                    assert!(verify(*kind, key.public_key(), b"octets", &cut).is_err());
                }
            }
        }
    }

    #[test]
    fn sha1_only_where_named_and_for_peers_that_know_no_better() {
        let (key, kind) = keys().pop().unwrap();
        let modern = SignatureHash::ALL.map(SignatureHash::id);
        let verifies = |auth: &AuthPayload| {
            let algorithm = &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
            UnparsedPublicKey::new(algorithm, key.public_key())
                .verify(b"octets", &auth.data)
                .is_ok()
        };
        let old = key.sign(b"octets", &[], RsaScheme::PssOrSha1).unwrap();
        assert_eq!(old.method, AuthMethod::RSA);
        assert!(verifies(&old) && verify(kind, key.public_key(), b"octets", &old).is_ok());
        assert!(!verifies(&key.sign(b"octets", &[], RsaScheme::Pss).unwrap()));
        let new = key.sign(b"octets", &modern, RsaScheme::PssOrSha1).unwrap();
        assert_eq!(new.method, AuthMethod::DIGITAL_SIGNATURE);
    }

    #[test]
    fn fault_34_pss_parameters_are_compared_whole() {
        let (key, _) = keys().pop().unwrap();
        let modern = SignatureHash::ALL.map(SignatureHash::id);
        let auth = key.sign(b"x", &modern, RsaScheme::Pss).unwrap();
        let identifier_bytes = usize::from(auth.data[0]);
        for index in 1..=identifier_bytes {
            let mut bad = auth.clone();
            bad.data[index] ^= 1;
            assert!(
                verify(PublicKeyKind::Rsa, key.public_key(), b"x", &bad).is_err(),
                "byte {index}"
            );
        }
    }

    #[test]
    fn null_authentication_is_never_accepted() {
        let (key, kind) = keys().remove(0);
        let auth = AuthPayload {
            method: AuthMethod::NULL,
            data: vec![1],
        };
        assert!(verify(kind, key.public_key(), b"x", &auth).is_err());
    }
}
