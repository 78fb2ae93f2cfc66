//! Key exchange methods: elliptic curves, MODP groups and ML-KEM, behind one shape.
//!
//! The initiator [`Offer`]s a public value and later completes it with the peer's; the responder [`answer`]s an offer
//! at once. That is the shape of a KEM, and Diffie-Hellman fits it.

use aws_lc_rs::{agreement, kem};
use southbound::KeyMaterial;

use crate::error::{Error, Result};

use super::modp::ModpGroup;
use super::random::{Draw, Random};

/// A key exchange method that can be negotiated. The set is closed: private-use values never get this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum KeMethod {
    Modp(ModpGroup),
    Ecp256,
    Ecp384,
    Ecp521,
    Curve25519,
    MlKem512,
    MlKem768,
    MlKem1024,
}

impl KeMethod {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Modp(ModpGroup::Modp1024),
        Self::Modp(ModpGroup::Modp1536),
        Self::Modp(ModpGroup::Modp2048),
        Self::Modp(ModpGroup::Modp3072),
        Self::Modp(ModpGroup::Modp4096),
        Self::Modp(ModpGroup::Modp6144),
        Self::Modp(ModpGroup::Modp8192),
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::Curve25519,
        Self::MlKem512,
        Self::MlKem768,
        Self::MlKem1024,
    ];

    /// Transform type 4 identifier.
    pub(crate) fn id(self) -> u16 {
        match self {
            Self::Modp(ModpGroup::Modp1024) => 2,
            Self::Modp(ModpGroup::Modp1536) => 5,
            Self::Modp(ModpGroup::Modp2048) => 14,
            Self::Modp(ModpGroup::Modp3072) => 15,
            Self::Modp(ModpGroup::Modp4096) => 16,
            Self::Modp(ModpGroup::Modp6144) => 17,
            Self::Modp(ModpGroup::Modp8192) => 18,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::Curve25519 => 31,
            Self::MlKem512 => 35,
            Self::MlKem768 => 36,
            Self::MlKem1024 => 37,
        }
    }

    /// The method with this identifier.
    pub(crate) fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.id() == id)
    }

    /// Whether it is a KEM, too large for IKE_SA_INIT and only used as an additional exchange
    /// (draft-ietf-ipsecme-ikev2-mlkem section 2.3).
    pub(crate) fn is_kem(self) -> bool {
        matches!(self, Self::MlKem512 | Self::MlKem768 | Self::MlKem1024)
    }

    fn agreement(self) -> Option<&'static agreement::Algorithm> {
        match self {
            Self::Ecp256 => Some(&agreement::ECDH_P256),
            Self::Ecp384 => Some(&agreement::ECDH_P384),
            Self::Ecp521 => Some(&agreement::ECDH_P521),
            Self::Curve25519 => Some(&agreement::X25519),
            _ => None,
        }
    }

    fn kem(self) -> Option<&'static kem::Algorithm<kem::AlgorithmId>> {
        match self {
            Self::MlKem512 => Some(&kem::ML_KEM_512),
            Self::MlKem768 => Some(&kem::ML_KEM_768),
            Self::MlKem1024 => Some(&kem::ML_KEM_1024),
            _ => None,
        }
    }

    fn bad_value(self) -> Error {
        Error::BadPublicValue(self.id())
    }
}

enum Private {
    Agreement(agreement::PrivateKey),
    Modp(KeyMaterial),
    Kem(Box<kem::DecapsulationKey<kem::AlgorithmId>>),
}

/// A key pair of ours whose public value is on its way to the peer.
pub(crate) struct Offer {
    pub(crate) method: KeMethod,
    pub(crate) public: Vec<u8>,
    private: Private,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offer({:?}, [redacted])", self.method)
    }
}

impl Offer {
    /// Draws a key pair.
    pub(crate) fn new(method: KeMethod, random: &mut dyn Random) -> Result<Self> {
        const FAILED: Error = Error::Crypto("key generation");
        let (private, public) = if let Some(algorithm) = method.agreement() {
            let key = if method == KeMethod::Curve25519 {
                let seed = KeyMaterial::new(random.bytes::<32>().to_vec());
                agreement::PrivateKey::from_private_key(algorithm, seed.expose()).map_err(|_| FAILED)?
            } else {
                agreement::PrivateKey::generate(algorithm).map_err(|_| FAILED)?
            };
            let public = key.compute_public_key().map_err(|_| FAILED)?;
            let public = match method {
                KeMethod::Curve25519 => public.as_ref().to_vec(),
                // RFC 5903 section 7: the coordinates without a form octet.
                _ => public.as_ref().get(1..).unwrap_or_default().to_vec(),
            };
            (Private::Agreement(key), public)
        } else if let Some(algorithm) = method.kem() {
            let key = kem::DecapsulationKey::generate(algorithm).map_err(|_| FAILED)?;
            let public = key
                .encapsulation_key()
                .and_then(|k| k.key_bytes())
                .map_err(|_| FAILED)?
                .as_ref()
                .to_vec();
            (Private::Kem(Box::new(key)), public)
        } else if let KeMethod::Modp(group) = method {
            let exponent = group.draw(random);
            let public = group.public(&exponent)?;
            (Private::Modp(exponent), public)
        } else {
            return Err(FAILED);
        };
        Ok(Self {
            method,
            public,
            private,
        })
    }

    /// The shared secret with the peer's public value (or ciphertext), after its checks.
    pub(crate) fn complete(&self, peer: &[u8]) -> Result<KeyMaterial> {
        let method = self.method;
        match &self.private {
            Private::Agreement(key) => agree(method, key, peer),
            Private::Modp(exponent) => match method {
                KeMethod::Modp(group) => group.agree(peer, exponent).map_err(|_| method.bad_value()),
                _ => Err(method.bad_value()),
            },
            Private::Kem(key) => {
                let secret = key
                    .decapsulate(kem::Ciphertext::from(peer))
                    .map_err(|_| method.bad_value())?;
                Ok(KeyMaterial::new(secret.as_ref().to_vec()))
            }
        }
    }
}

pub(super) fn agree(method: KeMethod, key: &agreement::PrivateKey, peer: &[u8]) -> Result<KeyMaterial> {
    let algorithm = method.agreement().ok_or_else(|| method.bad_value())?;
    let mut point = Vec::with_capacity(peer.len() + 1);
    let length = match method {
        KeMethod::Ecp256 => 64,
        KeMethod::Ecp384 => 96,
        KeMethod::Ecp521 => 132,
        _ => 32,
    };
    if peer.len() != length {
        return Err(method.bad_value());
    }
    if method != KeMethod::Curve25519 {
        point.push(4);
    }
    point.extend_from_slice(peer);
    // The library checks that the point is on the curve, and that an X25519 result is not zero (RFC 7748 section 6.1).
    agreement::agree(
        key,
        agreement::UnparsedPublicKey::new(algorithm, point),
        method.bad_value(),
        |secret| Ok(KeyMaterial::new(secret.to_vec())),
    )
}

/// Answers a peer's public value: our public value (or ciphertext) and the shared secret.
pub(crate) fn answer(
    method: KeMethod,
    peer: &[u8],
    random: &mut dyn Random,
) -> Result<(Vec<u8>, KeyMaterial)> {
    if let Some(algorithm) = method.kem() {
        let key = kem::EncapsulationKey::new(algorithm, peer).map_err(|_| method.bad_value())?;
        let (ciphertext, secret) = key.encapsulate().map_err(|_| method.bad_value())?;
        return Ok((
            ciphertext.as_ref().to_vec(),
            KeyMaterial::new(secret.as_ref().to_vec()),
        ));
    }
    let offer = Offer::new(method, random)?;
    let secret = offer.complete(peer)?;
    Ok((offer.public, secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::SystemRandom;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn every_method_agrees() {
        for method in KeMethod::ALL {
            let offer = Offer::new(method, &mut SystemRandom::new()).unwrap();
            let (public, secret) = answer(method, &offer.public, &mut SystemRandom::new()).unwrap();
            assert_eq!(offer.complete(&public).unwrap(), secret, "{method:?}");
        }
    }

    #[test]
    fn fault_04_private_use_methods_do_not_exist() {
        assert_eq!(KeMethod::from_id(1025), None);
        assert_eq!(KeMethod::from_id(0), None);
    }

    #[test]
    fn fault_05_public_values_of_wrong_length_or_off_the_curve() {
        for method in KeMethod::ALL {
            let offer = Offer::new(method, &mut SystemRandom::new()).unwrap();
            let (public, _) = answer(method, &offer.public, &mut SystemRandom::new()).unwrap();
            for wrong in [&public[1..], &[public.as_slice(), &[0]].concat(), &[]] {
                assert!(offer.complete(wrong).is_err(), "{method:?}");
                if !method.is_kem() {
                    assert!(
                        answer(method, wrong, &mut SystemRandom::new()).is_err(),
                        "{method:?}"
                    );
                }
            }
            if method.is_kem() {
                assert!(answer(method, &[0xff; 7], &mut SystemRandom::new()).is_err());
                assert!(answer(method, &vec![0xff; offer.public.len()], &mut SystemRandom::new()).is_err());
            } else {
                assert!(offer.complete(&vec![0; public.len()]).is_err(), "{method:?} zero");
            }
        }
        let mut off_curve = Offer::new(KeMethod::Ecp256, &mut SystemRandom::new())
            .unwrap()
            .public;
        off_curve[63] ^= 1;
        assert_eq!(
            answer(KeMethod::Ecp256, &off_curve, &mut SystemRandom::new()),
            Err(Error::BadPublicValue(19))
        );
    }

    /// An agreement with a private key from a document.
    fn agreed(method: KeMethod, private: &str, peer: &str) -> KeyMaterial {
        let key =
            agreement::PrivateKey::from_private_key(method.agreement().unwrap(), &bytes(private)).unwrap();
        agree(method, &key, &bytes(peer)).unwrap()
    }

    #[test]
    fn rfc_7748_section_6_1() {
        let secret = agreed(
            KeMethod::Curve25519,
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        );
        assert_eq!(
            secret.expose(),
            bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
        );
    }

    #[test]
    fn rfc_5903_section_8_2_and_8_3() {
        let secret = agreed(
            KeMethod::Ecp384,
            "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
            "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571\
             DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
        );
        assert_eq!(
            secret.expose(),
            bytes(
                "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746"
            )
        );
        let secret = agreed(
            KeMethod::Ecp521,
            "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA85A30FE1C2952C6771D937BA9777\
             F5957B2639BAB072462F68C27A57382D4A52",
            "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A219B97C356436ADC6E95BB0352F6BE64A6\
             C2912D4EF2D0433CED2B6171640012D9460F015C68226383956E3BD066E797B623C27CE0EAC2F551A10C2C724D985207\
             7B87220B6536C5C408A1D2AEBB8E86D678AE49CB57091F4732296579AB44FCD17F0FC56A",
        );
        assert_eq!(
            secret.expose(),
            bytes(
                "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04D1427E73CA4BAA240A34786859810C06\
                 B3C715A3A8CC3151F2BEE417996D19F3DDEA"
            )
        );
    }

    #[test]
    fn rfc_5903_section_8_1() {
        let secret = agreed(
            KeMethod::Ecp256,
            "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
            "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        );
        assert_eq!(
            secret.expose(),
            bytes("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE")
        );
    }
}
