//! What may be negotiated, spelled as operators know it, and the choice between an offer and the configuration
//! (RFC 7296 section 3.3.6).

use std::fmt;

use southbound::{Encryption, Integrity, Transform as EspTransform};

use crate::crypto::cipher::{IkeCipher, IkeIntegrity};
use crate::crypto::key_exchange::KeMethod;
use crate::crypto::prf::Prf;
use crate::error::{Error, Result};
use crate::payload::sa::{Proposal, Protocol, Transform, TransformType};

/// Number of additional key exchanges that a proposal can hold (RFC 9370 section 2.2.1).
pub(crate) const ADDITIONAL_EXCHANGES: usize = 7;

/// Alternatives for an IKE SA, each list in order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IkeProposal {
    pub(crate) ciphers: Vec<IkeCipher>,
    pub(crate) integrity: Vec<IkeIntegrity>,
    pub(crate) prfs: Vec<Prf>,
    pub(crate) methods: Vec<KeMethod>,
    /// `None` stands for the NONE transform: the exchange may be left out.
    pub(crate) additional: [Vec<Option<KeMethod>>; ADDITIONAL_EXCHANGES],
}

/// What was chosen for an IKE SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IkeSuite {
    pub(crate) cipher: IkeCipher,
    pub(crate) integrity: Option<IkeIntegrity>,
    pub(crate) prf: Prf,
    pub(crate) method: KeMethod,
    pub(crate) additional: [Option<Option<KeMethod>>; ADDITIONAL_EXCHANGES],
}

impl IkeSuite {
    /// The additional key exchanges to perform, in order.
    pub(crate) fn additional_methods(&self) -> impl Iterator<Item = KeMethod> + '_ {
        self.additional.iter().filter_map(|choice| choice.flatten())
    }

    /// The names of cipher and integrity in Wireshark's table of IKEv2 keys.
    pub(crate) fn wireshark_names(&self) -> (String, &'static str) {
        let cipher = match self.cipher {
            IkeCipher::AesGcm16(bits) => format!("AES-GCM-{bits} with 16 octet ICV [RFC5282]"),
            IkeCipher::AesGcm12(bits) => format!("AES-GCM-{bits} with 12 octet ICV [RFC5282]"),
            IkeCipher::AesGcm8(bits) => format!("AES-GCM-{bits} with 8 octet ICV [RFC5282]"),
            IkeCipher::ChaCha20Poly1305 => "ChaCha20-Poly1305 [RFC7634]".to_owned(),
            IkeCipher::AesCbc(bits) => format!("AES-CBC-{bits} [RFC3602]"),
            IkeCipher::AesCtr(bits) => format!("AES-CTR-{bits} [RFC5930]"),
            IkeCipher::TripleDes => "3DES [RFC2451]".to_owned(),
        };
        let integrity = match self.integrity {
            None => "NONE [RFC4306]",
            Some(IkeIntegrity::HmacSha1_96) => "HMAC_SHA1_96 [RFC2404]",
            Some(IkeIntegrity::HmacSha256_128) => "HMAC_SHA2_256_128 [RFC4868]",
            Some(IkeIntegrity::HmacSha384_192) => "HMAC_SHA2_384_192 [RFC4868]",
            Some(IkeIntegrity::HmacSha512_256) => "HMAC_SHA2_512_256 [RFC4868]",
            // Wireshark has no name for these: it decrypts all the same where the tag is not checked.
            Some(IkeIntegrity::AesXcbc96 | IkeIntegrity::AesCmac96) => {
                "ANY 96-bits of Authentication [No Checking]"
            }
        };
        (cipher, integrity)
    }

    pub(crate) fn transforms(&self) -> Vec<Transform> {
        let mut out = vec![cipher_transform(self.cipher)];
        out.extend(
            self.integrity
                .map(|i| Transform::new(TransformType::INTEG, i.id())),
        );
        out.push(Transform::new(TransformType::PRF, self.prf.id()));
        out.push(Transform::new(TransformType::KE, self.method.id()));
        additional_transforms(&self.additional, &mut out);
        out
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.transforms(), Protocol::IKE))
    }
}

/// Alternatives for a Child SA, each list in order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EspProposal {
    pub(crate) ciphers: Vec<Encryption>,
    pub(crate) integrity: Vec<Integrity>,
    /// `None` stands for no key exchange of its own (no perfect forward secrecy).
    pub(crate) methods: Vec<Option<KeMethod>>,
    pub(crate) additional: [Vec<Option<KeMethod>>; ADDITIONAL_EXCHANGES],
    pub(crate) esn: Vec<bool>,
}

/// What was chosen for a Child SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EspSuite {
    pub(crate) transform: EspTransform,
    pub(crate) method: Option<KeMethod>,
    pub(crate) additional: [Option<Option<KeMethod>>; ADDITIONAL_EXCHANGES],
    pub(crate) esn: bool,
    /// Whether the offer named key exchange transforms at all; the answer repeats what was chosen of them.
    pub(crate) method_was_offered: bool,
}

impl EspSuite {
    pub(crate) fn additional_methods(&self) -> impl Iterator<Item = KeMethod> + '_ {
        self.additional.iter().filter_map(|choice| choice.flatten())
    }

    pub(crate) fn transforms(&self) -> Vec<Transform> {
        let mut out = vec![esp_cipher_transform(self.transform.encryption())];
        out.extend(
            self.transform
                .integrity()
                .map(|i| Transform::new(TransformType::INTEG, esp_integrity_id(i))),
        );
        match self.method {
            Some(method) => out.push(Transform::new(TransformType::KE, method.id())),
            None if self.method_was_offered => out.push(Transform::new(TransformType::KE, 0)),
            None => {}
        }
        additional_transforms(&self.additional, &mut out);
        out.push(Transform::new(TransformType::ESN, u16::from(self.esn)));
        out
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.transforms(), Protocol::ESP))
    }
}

fn cipher_transform(cipher: IkeCipher) -> Transform {
    let (id, key_bits) = cipher.id();
    Transform {
        key_bits,
        ..Transform::new(TransformType::ENCR, id)
    }
}

fn esp_cipher_transform(cipher: Encryption) -> Transform {
    let (id, key_bits) = match cipher {
        Encryption::AesGcm128 => (20, Some(128)),
        Encryption::AesGcm192 => (20, Some(192)),
        Encryption::AesGcm256 => (20, Some(256)),
        Encryption::ChaCha20Poly1305 => (28, None),
        Encryption::AesGmac128 => (21, Some(128)),
        Encryption::AesGmac192 => (21, Some(192)),
        Encryption::AesGmac256 => (21, Some(256)),
        Encryption::AesCbc128 => (12, Some(128)),
        Encryption::AesCbc192 => (12, Some(192)),
        Encryption::AesCbc256 => (12, Some(256)),
        Encryption::AesCtr128 => (13, Some(128)),
        Encryption::AesCtr192 => (13, Some(192)),
        Encryption::AesCtr256 => (13, Some(256)),
        Encryption::Null => (11, None),
    };
    Transform {
        key_bits,
        ..Transform::new(TransformType::ENCR, id)
    }
}

fn esp_integrity_id(integrity: Integrity) -> u16 {
    match integrity {
        Integrity::HmacSha1 => 2,
        Integrity::HmacSha256 => 12,
        Integrity::HmacSha384 => 13,
        Integrity::HmacSha512 => 14,
    }
}

fn additional_type(index: usize) -> TransformType {
    TransformType(TransformType::ADDKE1.0 + u8::try_from(index).unwrap_or(0))
}

fn additional_transforms(
    chosen: &[Option<Option<KeMethod>>; ADDITIONAL_EXCHANGES],
    out: &mut Vec<Transform>,
) {
    for (index, choice) in chosen.iter().enumerate() {
        if let Some(method) = choice {
            out.push(Transform::new(
                additional_type(index),
                method.map_or(0, KeMethod::id),
            ));
        }
    }
}

impl IkeProposal {
    pub(crate) fn to_wire(&self, number: u8, spi: Vec<u8>) -> Proposal {
        let mut transforms: Vec<_> = self.ciphers.iter().map(|c| cipher_transform(*c)).collect();
        transforms.extend(
            self.integrity
                .iter()
                .map(|i| Transform::new(TransformType::INTEG, i.id())),
        );
        transforms.extend(
            self.prfs
                .iter()
                .map(|p| Transform::new(TransformType::PRF, p.id())),
        );
        transforms.extend(
            self.methods
                .iter()
                .map(|m| Transform::new(TransformType::KE, m.id())),
        );
        push_additional(&self.additional, &mut transforms);
        Proposal {
            number,
            protocol: Protocol::IKE,
            spi,
            transforms,
        }
    }

    /// The first of our alternatives of each type that `offer` holds.
    fn choose(&self, offer: &Proposal) -> Option<IkeSuite> {
        if offer.protocol != Protocol::IKE || !types_known(offer, &IKE_TYPES) {
            return None;
        }
        let cipher = *self.ciphers.iter().find(|c| has(offer, cipher_transform(**c)))?;
        let integrity = choose_integrity(cipher.is_aead(), &self.integrity, offer, IkeIntegrity::id)?;
        let prf = *self
            .prfs
            .iter()
            .find(|p| has(offer, Transform::new(TransformType::PRF, p.id())))?;
        let method = *self
            .methods
            .iter()
            .find(|m| has(offer, Transform::new(TransformType::KE, m.id())))?;
        let additional = choose_additional(&self.additional, offer)?;
        Some(IkeSuite {
            cipher,
            integrity,
            prf,
            method,
            additional,
        })
    }
}

impl EspProposal {
    /// The proposal as offered; `with_exchange` is false in IKE_AUTH, where no key exchange can take place.
    pub(crate) fn to_wire(&self, number: u8, spi: u32, with_exchange: bool) -> Proposal {
        let mut transforms: Vec<_> = self.ciphers.iter().map(|c| esp_cipher_transform(*c)).collect();
        transforms.extend(
            self.integrity
                .iter()
                .map(|i| Transform::new(TransformType::INTEG, esp_integrity_id(*i))),
        );
        if with_exchange && self.methods.iter().any(Option::is_some) {
            let methods = self
                .methods
                .iter()
                .map(|m| Transform::new(TransformType::KE, m.map_or(0, KeMethod::id)));
            transforms.extend(methods);
            push_additional(&self.additional, &mut transforms);
        }
        transforms.extend(
            self.esn
                .iter()
                .map(|esn| Transform::new(TransformType::ESN, u16::from(*esn))),
        );
        Proposal {
            number,
            protocol: Protocol::ESP,
            spi: spi.to_be_bytes().to_vec(),
            transforms,
        }
    }

    fn choose(&self, offer: &Proposal, with_exchange: bool) -> Option<EspSuite> {
        if offer.protocol != Protocol::ESP || !types_known(offer, &ESP_TYPES) || offer.esp_spi().is_err() {
            return None;
        }
        let encryption = *self
            .ciphers
            .iter()
            .find(|c| has(offer, esp_cipher_transform(**c)))?;
        let integrity = choose_integrity(encryption.is_combined(), &self.integrity, offer, esp_integrity_id)?;
        let transform = EspTransform::new(encryption, integrity).ok()?;
        let method_was_offered = with_exchange && offer.of_type(TransformType::KE).next().is_some();
        // Who names no key exchange wants none, and agrees with a peer that may do without.
        let wanted = match self.methods.as_slice() {
            [] => &[None],
            methods => methods,
        };
        let method = if method_was_offered {
            *wanted.iter().find(|m| {
                has(
                    offer,
                    Transform::new(TransformType::KE, m.map_or(0, KeMethod::id)),
                )
            })?
        } else if !with_exchange || wanted.contains(&None) {
            None
        } else {
            return None;
        };
        let additional = if with_exchange && method.is_some() {
            choose_additional(&self.additional, offer)?
        } else {
            Default::default()
        };
        // RFC 7296 section 3.3.2 makes the type mandatory for ESP; the few that leave it out mean no ESN.
        let esn = if offer.of_type(TransformType::ESN).next().is_none() {
            if !self.esn.contains(&false) {
                return None;
            }
            false
        } else {
            *self
                .esn
                .iter()
                .find(|esn| has(offer, Transform::new(TransformType::ESN, u16::from(**esn))))?
        };
        Some(EspSuite {
            transform,
            method,
            additional,
            esn,
            method_was_offered,
        })
    }
}

const IKE_TYPES: [TransformType; 4] = [
    TransformType::ENCR,
    TransformType::PRF,
    TransformType::INTEG,
    TransformType::KE,
];
const ESP_TYPES: [TransformType; 4] = [
    TransformType::ENCR,
    TransformType::INTEG,
    TransformType::KE,
    TransformType::ESN,
];

/// A proposal with a transform type that we do not know cannot be chosen (RFC 7296 section 3.3.6).
fn types_known(offer: &Proposal, known: &[TransformType]) -> bool {
    offer
        .transforms
        .iter()
        .all(|t| known.contains(&t.kind) || (TransformType::ADDKE1..=TransformType::ADDKE7).contains(&t.kind))
}

fn has(offer: &Proposal, wanted: Transform) -> bool {
    offer.transforms.contains(&wanted)
}

fn push_additional(lists: &[Vec<Option<KeMethod>>; ADDITIONAL_EXCHANGES], out: &mut Vec<Transform>) {
    for (index, list) in lists.iter().enumerate() {
        let kind = additional_type(index);
        out.extend(
            list.iter()
                .map(|method| Transform::new(kind, method.map_or(0, KeMethod::id))),
        );
    }
}

/// `Some(None)` for an AEAD, which stands without integrity or with NONE; `None` where nothing fits.
fn choose_integrity<I: Copy>(
    aead: bool,
    ours: &[I],
    offer: &Proposal,
    id: impl Fn(I) -> u16,
) -> Option<Option<I>> {
    if aead {
        let mut offered = offer.of_type(TransformType::INTEG).peekable();
        let fits = offered.peek().is_none() || offered.any(|t| t.id == 0);
        return fits.then_some(None);
    }
    ours.iter()
        .find(|i| has(offer, Transform::new(TransformType::INTEG, id(**i))))
        .map(|i| Some(*i))
}

/// Each additional exchange: a type that only one side names is left out where the other may do without
/// (RFC 9370 section 2.2.1), and no two exchanges of a suite are alike.
fn choose_additional(
    ours: &[Vec<Option<KeMethod>>; ADDITIONAL_EXCHANGES],
    offer: &Proposal,
) -> Option<[Option<Option<KeMethod>>; ADDITIONAL_EXCHANGES]> {
    let mut chosen: [Option<Option<KeMethod>>; ADDITIONAL_EXCHANGES] = Default::default();
    for (index, list) in ours.iter().enumerate() {
        let kind = additional_type(index);
        let offered = offer.of_type(kind).next().is_some();
        let choice = match (list.is_empty(), offered) {
            (true, false) => continue,
            (false, false) if list.contains(&None) => continue,
            (true, true) if has(offer, Transform::new(kind, 0)) => None,
            (false, true) => *list.iter().find(|m| {
                has(offer, Transform::new(kind, m.map_or(0, KeMethod::id)))
                    && (m.is_none() || !chosen.contains(&Some(**m)))
            })?,
            _ => return None,
        };
        if let Some(slot) = chosen.get_mut(index) {
            *slot = Some(choice);
        }
    }
    Some(chosen)
}

/// Chooses for an IKE SA: our order of proposals first. Returns the suite and the offer it came from.
pub(crate) fn choose_ike<'a>(
    ours: &[IkeProposal],
    offers: &'a [Proposal],
) -> Result<(IkeSuite, &'a Proposal)> {
    ours.iter()
        .find_map(|own| offers.iter().find_map(|offer| Some((own.choose(offer)?, offer))))
        .ok_or_else(|| {
            let own: Vec<_> = ours.iter().map(|p| p.to_wire(0, Vec::new())).collect();
            mismatch(&own, offers)
        })
}

/// Chooses for a Child SA.
pub(crate) fn choose_esp<'a>(
    ours: &[EspProposal],
    offers: &'a [Proposal],
    with_exchange: bool,
) -> Result<(EspSuite, &'a Proposal)> {
    ours.iter()
        .find_map(|own| {
            offers
                .iter()
                .find_map(|offer| Some((own.choose(offer, with_exchange)?, offer)))
        })
        .ok_or_else(|| {
            let own: Vec<_> = ours.iter().map(|p| p.to_wire(0, 0, with_exchange)).collect();
            mismatch(&own, offers)
        })
}

/// Checks that an answer holds exactly one proposal with one transform of each type, as the responder must choose.
pub(crate) fn single(offers: &[Proposal]) -> Result<&[Proposal]> {
    let one_each = |proposal: &Proposal| {
        proposal
            .transforms
            .iter()
            .all(|t| proposal.of_type(t.kind).count() == 1)
    };
    match offers {
        [proposal] if one_each(proposal) => Ok(offers),
        _ => Err(Error::NoProposalChosen(
            "the answer is not a single choice".into(),
        )),
    }
}

fn mismatch(ours: &[Proposal], offers: &[Proposal]) -> Error {
    let list = |proposals: &[Proposal]| {
        proposals
            .iter()
            .take(16)
            .map(|p| describe(&p.transforms, p.protocol))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Error::NoProposalChosen(format!("peer offered {}; expected {}", list(offers), list(ours)))
}

/// Transforms in the notation of the configuration.
pub(crate) fn describe(transforms: &[Transform], protocol: Protocol) -> String {
    transforms
        .iter()
        .take(64)
        .map(|t| describe_one(*t, protocol))
        .collect::<Vec<_>>()
        .join("-")
}

fn describe_one(t: Transform, protocol: Protocol) -> String {
    let bits = t.key_bits.map(|bits| bits.to_string()).unwrap_or_default();
    match (t.kind, t.id) {
        (TransformType::ENCR, 3) => "3des".into(),
        (TransformType::ENCR, 11) => "null".into(),
        (TransformType::ENCR, 12) => format!("aes{bits}"),
        (TransformType::ENCR, 13) => format!("aes{bits}ctr"),
        (TransformType::ENCR, 18) => format!("aes{bits}gcm8"),
        (TransformType::ENCR, 19) => format!("aes{bits}gcm12"),
        (TransformType::ENCR, 20) => format!("aes{bits}gcm16"),
        (TransformType::ENCR, 21) => format!("aes{bits}gmac"),
        (TransformType::ENCR, 28) => "chacha20poly1305".into(),
        (TransformType::PRF, 2) => "prfsha1".into(),
        (TransformType::PRF, 4) => "prfaesxcbc".into(),
        (TransformType::PRF, 8) => "prfaescmac".into(),
        (TransformType::INTEG, 5) => "aesxcbc".into(),
        (TransformType::INTEG, 8) => "aescmac".into(),
        (TransformType::PRF, 5) => "prfsha256".into(),
        (TransformType::PRF, 6) => "prfsha384".into(),
        (TransformType::PRF, 7) => "prfsha512".into(),
        (TransformType::INTEG, 0) => "nointeg".into(),
        (TransformType::INTEG, 2) => "sha1".into(),
        (TransformType::INTEG, 12) => "sha256".into(),
        (TransformType::INTEG, 13) => "sha384".into(),
        (TransformType::INTEG, 14) => "sha512".into(),
        (TransformType::KE, id) => crate::proposal_text::method_name(id),
        (TransformType::ESN, 0) => "noesn".into(),
        (TransformType::ESN, 1) => "esn".into(),
        (kind, id) if (TransformType::ADDKE1..=TransformType::ADDKE7).contains(&kind) => {
            format!(
                "ke{}_{}",
                kind.0 - TransformType::ADDKE1.0 + 1,
                crate::proposal_text::method_name(id)
            )
        }
        _ => format!("{}:{:?}", protocol.0, t),
    }
}
