//! Proposals as text: `aes256gcm16-prfsha384-x25519-ke1_mlkem768`, as strongSwan spells them, and the defaults.

use std::str::FromStr;

use southbound::{Encryption, Integrity};

use crate::crypto::cipher::{IkeCipher, IkeIntegrity};
use crate::crypto::key_exchange::KeMethod;
use crate::crypto::modp::ModpGroup;
use crate::crypto::prf::Prf;
use crate::error::Error;
use crate::proposal::{ADDITIONAL_EXCHANGES, EspProposal, IkeProposal};

const METHODS: [(&str, KeMethod); 15] = [
    ("modp1024", KeMethod::Modp(ModpGroup::Modp1024)),
    ("modp1536", KeMethod::Modp(ModpGroup::Modp1536)),
    ("modp2048", KeMethod::Modp(ModpGroup::Modp2048)),
    ("modp3072", KeMethod::Modp(ModpGroup::Modp3072)),
    ("modp4096", KeMethod::Modp(ModpGroup::Modp4096)),
    ("modp6144", KeMethod::Modp(ModpGroup::Modp6144)),
    ("modp8192", KeMethod::Modp(ModpGroup::Modp8192)),
    ("ecp256", KeMethod::Ecp256),
    ("ecp384", KeMethod::Ecp384),
    ("ecp521", KeMethod::Ecp521),
    ("x25519", KeMethod::Curve25519),
    ("curve25519", KeMethod::Curve25519),
    ("mlkem512", KeMethod::MlKem512),
    ("mlkem768", KeMethod::MlKem768),
    ("mlkem1024", KeMethod::MlKem1024),
];

/// The name of a key exchange method, by its identifier on the wire.
pub(crate) fn method_name(id: u16) -> String {
    let name = METHODS
        .iter()
        .find(|(_, method)| method.id() == id)
        .map(|(name, _)| (*name).to_owned());
    match id {
        0 => "none".to_owned(),
        _ => name.unwrap_or_else(|| format!("ke{id}")),
    }
}

fn method(token: &str) -> Option<KeMethod> {
    METHODS
        .iter()
        .find(|(name, _)| *name == token)
        .map(|(_, method)| *method)
}

/// `ke1_mlkem768` as index 0 and the method; `ke1_none` as index 0 and `None`.
fn additional(token: &str) -> Option<(usize, Option<KeMethod>)> {
    let (index, name) = token.strip_prefix("ke")?.split_once('_')?;
    let index = index
        .parse::<usize>()
        .ok()?
        .checked_sub(1)
        .filter(|index| *index < ADDITIONAL_EXCHANGES)?;
    match name {
        "none" => Some((index, None)),
        name => Some((index, Some(method(name)?))),
    }
}

fn unknown(token: &str, what: &str) -> Error {
    Error::Local(format!("unknown {what} algorithm {token:?}"))
}

fn ike_cipher(token: &str) -> Option<IkeCipher> {
    Some(match token {
        "aes128gcm16" | "aes128gcm" => IkeCipher::AesGcm16(128),
        "aes192gcm16" | "aes192gcm" => IkeCipher::AesGcm16(192),
        "aes256gcm16" | "aes256gcm" => IkeCipher::AesGcm16(256),
        "aes128gcm12" => IkeCipher::AesGcm12(128),
        "aes192gcm12" => IkeCipher::AesGcm12(192),
        "aes256gcm12" => IkeCipher::AesGcm12(256),
        "aes128gcm8" => IkeCipher::AesGcm8(128),
        "aes192gcm8" => IkeCipher::AesGcm8(192),
        "aes256gcm8" => IkeCipher::AesGcm8(256),
        "chacha20poly1305" => IkeCipher::ChaCha20Poly1305,
        "aes128" => IkeCipher::AesCbc(128),
        "aes192" => IkeCipher::AesCbc(192),
        "aes256" => IkeCipher::AesCbc(256),
        "aes128ctr" => IkeCipher::AesCtr(128),
        "aes192ctr" => IkeCipher::AesCtr(192),
        "aes256ctr" => IkeCipher::AesCtr(256),
        "3des" => IkeCipher::TripleDes,
        _ => return None,
    })
}

impl FromStr for IkeProposal {
    type Err = Error;

    /// Parses one proposal. Without a `prf…` word the pseudorandom functions follow the integrity algorithms.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut proposal = Self::default();
        for token in text.split('-') {
            if let Some(cipher) = ike_cipher(token) {
                proposal.ciphers.push(cipher);
            } else if let Some((index, method)) = additional(token) {
                if let Some(list) = proposal.additional.get_mut(index) {
                    list.push(method);
                }
            } else if let Some(method) = method(token).filter(|method| !method.is_kem()) {
                proposal.methods.push(method);
            } else {
                match token {
                    "sha1" => proposal.integrity.push(IkeIntegrity::HmacSha1_96),
                    "sha256" => proposal.integrity.push(IkeIntegrity::HmacSha256_128),
                    "sha384" => proposal.integrity.push(IkeIntegrity::HmacSha384_192),
                    "sha512" => proposal.integrity.push(IkeIntegrity::HmacSha512_256),
                    "aesxcbc" => proposal.integrity.push(IkeIntegrity::AesXcbc96),
                    "aescmac" => proposal.integrity.push(IkeIntegrity::AesCmac96),
                    "prfaesxcbc" => proposal.prfs.push(Prf::AesXcbc),
                    "prfaescmac" => proposal.prfs.push(Prf::AesCmac),
                    "prfsha1" => proposal.prfs.push(Prf::HmacSha1),
                    "prfsha256" => proposal.prfs.push(Prf::HmacSha256),
                    "prfsha384" => proposal.prfs.push(Prf::HmacSha384),
                    "prfsha512" => proposal.prfs.push(Prf::HmacSha512),
                    _ => return Err(unknown(token, "IKE")),
                }
            }
        }
        if proposal.prfs.is_empty() {
            proposal.prfs = proposal
                .integrity
                .iter()
                .map(|integrity| prf_of(*integrity))
                .collect();
        }
        let invalid = |what: &str| Err(Error::Local(format!("IKE proposal {text:?} {what}")));
        let aeads = proposal.ciphers.iter().filter(|c| c.is_aead()).count();
        if proposal.ciphers.is_empty() {
            return invalid("names no cipher");
        }
        if aeads != 0 && aeads != proposal.ciphers.len() {
            return invalid("mixes AEAD and other ciphers: split it in two");
        }
        if aeads == 0 && proposal.integrity.is_empty() {
            return invalid("needs an integrity algorithm, as sha256");
        }
        if proposal.prfs.is_empty() {
            return invalid("needs a pseudorandom function, as prfsha256");
        }
        if proposal.methods.is_empty() {
            return invalid("names no key exchange, as x25519");
        }
        if aeads != 0 {
            proposal.integrity.clear();
        }
        Ok(proposal)
    }
}

fn prf_of(integrity: IkeIntegrity) -> Prf {
    match integrity {
        IkeIntegrity::HmacSha1_96 => Prf::HmacSha1,
        IkeIntegrity::HmacSha256_128 => Prf::HmacSha256,
        IkeIntegrity::HmacSha384_192 => Prf::HmacSha384,
        IkeIntegrity::HmacSha512_256 => Prf::HmacSha512,
        IkeIntegrity::AesXcbc96 => Prf::AesXcbc,
        IkeIntegrity::AesCmac96 => Prf::AesCmac,
    }
}

impl FromStr for EspProposal {
    type Err = Error;

    /// Parses one proposal. `none` among the key exchanges makes forward secrecy optional; without `esn` or `noesn`
    /// extended sequence numbers are preferred and plain ones accepted.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut proposal = Self::default();
        for token in text.split('-') {
            let cipher = Encryption::ALL.into_iter().find(|cipher| cipher.name() == token);
            let integrity = Integrity::ALL
                .into_iter()
                .find(|integrity| integrity.name() == token);
            if let Some(cipher) = cipher {
                proposal.ciphers.push(cipher);
            } else if let Some(integrity) = integrity {
                proposal.integrity.push(integrity);
            } else if let Some((index, method)) = additional(token) {
                if let Some(list) = proposal.additional.get_mut(index) {
                    list.push(method);
                }
            } else if let Some(method) = method(token).filter(|method| !method.is_kem()) {
                proposal.methods.push(Some(method));
            } else {
                match token {
                    "aes128gcm" => proposal.ciphers.push(Encryption::AesGcm128),
                    "aes192gcm" => proposal.ciphers.push(Encryption::AesGcm192),
                    "aes256gcm" => proposal.ciphers.push(Encryption::AesGcm256),
                    "none" => proposal.methods.push(None),
                    "esn" => proposal.esn.push(true),
                    "noesn" => proposal.esn.push(false),
                    _ => return Err(unknown(token, "ESP")),
                }
            }
        }
        let invalid = |what: &str| Err(Error::Local(format!("ESP proposal {text:?} {what}")));
        let combined = proposal.ciphers.iter().filter(|c| c.is_combined()).count();
        if proposal.ciphers.is_empty() {
            return invalid("names no cipher");
        }
        if combined != 0 && combined != proposal.ciphers.len() {
            return invalid("mixes AEAD and other ciphers: split it in two");
        }
        if combined == 0 && proposal.integrity.is_empty() {
            return invalid("needs an integrity algorithm, as sha256");
        }
        if combined != 0 {
            proposal.integrity.clear();
        }
        if proposal.esn.is_empty() {
            proposal.esn = vec![true, false];
        }
        Ok(proposal)
    }
}

/// The IKE proposals of a connection that names none: a hybrid with ML-KEM first, which peers that do not know it
/// skip, then strong classical ones.
pub fn default_ike_proposals() -> Vec<IkeProposal> {
    [
        "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512-x25519-ecp384-ecp256-ecp521\
         -ke1_mlkem768-ke1_mlkem1024",
        "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512\
         -x25519-ecp384-ecp256-ecp521-modp3072-modp4096-modp2048",
        "aes256-aes192-aes128-aes256ctr-aes128ctr-sha384-sha256-sha512\
         -x25519-ecp384-ecp256-ecp521-modp3072-modp4096-modp2048",
    ]
    .iter()
    .filter_map(|text| text.parse().ok())
    .collect()
}

/// The ESP proposals of a child that names none: AEADs first; forward secrecy offered and not insisted on.
pub fn default_esp_proposals() -> Vec<EspProposal> {
    [
        "aes256gcm16-aes128gcm16-chacha20poly1305-x25519-ecp384-ecp256-ecp521-modp3072-modp4096-modp2048-none",
        "aes256-aes192-aes128-sha256-sha384-sha512-x25519-ecp384-ecp256-ecp521-modp3072-modp4096-modp2048-none",
    ]
    .iter()
    .filter_map(|text| text.parse().ok())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::sa::Proposal;
    use crate::proposal::{choose_ike, single};

    fn ike(text: &str) -> IkeProposal {
        text.parse().unwrap()
    }

    fn offer(list: &[&str]) -> Vec<Proposal> {
        list.iter()
            .enumerate()
            .map(|(i, text)| ike(text).to_wire(i as u8 + 1, vec![]))
            .collect()
    }

    #[test]
    fn defaults_parse_and_accept_themselves() {
        assert_eq!(default_ike_proposals().len(), 3);
        assert_eq!(default_esp_proposals().len(), 2);
        let offers: Vec<_> = default_ike_proposals()
            .iter()
            .map(|p| p.to_wire(1, vec![]))
            .collect();
        let (suite, _) = choose_ike(&default_ike_proposals(), &offers).unwrap();
        assert_eq!(suite.to_string(), "aes256gcm16-prfsha384-x25519-ke1_mlkem768");
        // Without ML-KEM on either side the second proposal stands.
        let (suite, _) = choose_ike(&default_ike_proposals(), &offers[1..]).unwrap();
        assert_eq!(suite.to_string(), "aes256gcm16-prfsha384-x25519");
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "",
            "aes256",
            "aes256-sha256",
            "aes256gcm16-x25519",
            "aes256gcm16-aes256-sha1-modp2048",
            "rot13",
            "aes256gcm16-prfsha256-mlkem768",
            "aes256-sha256-modp2048-ke8_mlkem768",
        ] {
            assert!(bad.parse::<IkeProposal>().is_err(), "{bad}");
        }
        assert!("aes256".parse::<EspProposal>().is_err());
        assert!("aes256gcm16-frob".parse::<EspProposal>().is_err());
    }

    #[test]
    fn additional_exchanges() {
        let ours = [ike("aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none")];
        let with = offer(&["aes256gcm16-prfsha256-x25519-ke1_mlkem1024-ke1_mlkem768"]);
        assert_eq!(
            choose_ike(&ours, &with).unwrap().0.to_string(),
            "aes256gcm16-prfsha256-x25519-ke1_mlkem768"
        );
        let without = offer(&["aes256gcm16-prfsha256-x25519"]);
        assert_eq!(
            choose_ike(&ours, &without).unwrap().0.to_string(),
            "aes256gcm16-prfsha256-x25519"
        );
        let strict = [ike("aes256gcm16-prfsha256-x25519-ke1_mlkem768")];
        assert!(choose_ike(&strict, &without).is_err());
        assert!(choose_ike(&[ike("aes256gcm16-prfsha256-x25519")], &with).is_err());
        let twice = [ike(
            "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke2_mlkem768-ke2_none",
        )];
        let offered = offer(&["aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke2_mlkem768-ke2_none"]);
        let (suite, _) = choose_ike(&twice, &offered).unwrap();
        assert_eq!(
            suite.additional_methods().count(),
            1,
            "no method twice (RFC 9370 section 2.2.1)"
        );
    }

    #[test]
    fn fault_06_proposals_without_a_group_or_with_unknown_types_are_not_chosen() {
        let mut offers = offer(&["aes256-sha256-modp2048"]);
        offers[0]
            .transforms
            .retain(|t| t.kind != crate::payload::sa::TransformType::KE);
        assert!(choose_ike(&default_ike_proposals(), &offers).is_err());
        let mut offers = offer(&["aes256-sha256-modp2048"]);
        offers[0].transforms.push(crate::payload::sa::Transform::new(
            crate::payload::sa::TransformType(99),
            1,
        ));
        assert!(choose_ike(&default_ike_proposals(), &offers).is_err());
        let mut offers = offer(&["aes256-sha256-modp2048"]);
        offers[0].transforms[0].unknown_attribute = true;
        assert!(choose_ike(&default_ike_proposals(), &offers).is_err());
    }

    #[test]
    fn answers_must_be_single_choices() {
        assert!(single(&offer(&["aes256-sha256-modp2048"])).is_ok());
        assert!(single(&offer(&["aes256-aes128-sha256-modp2048"])).is_err());
        assert!(single(&offer(&["aes256-sha256-modp2048", "aes128-sha256-modp2048"])).is_err());
        assert!(single(&[]).is_err());
    }
}
