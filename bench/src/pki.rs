//! Certificates of an authority that lives as long as its owner.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, RevocationReason,
    RevokedCertParams, RsaKeySize, SerialNumber, date_time_ymd,
};

/// What a private key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA of 2048 bits.
    Rsa,
    /// ECDSA over P-256.
    P256,
    /// ECDSA over P-384.
    P384,
    /// ECDSA over P-521.
    P521,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::P521 => KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
        }
    }
}

/// A certificate and its private key, both in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key (PKCS #8).
    pub key: String,
    /// Its number in revocation lists.
    pub serial: u64,
}

/// An authority.
pub struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicU64,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pki")
    }
}

impl Pki {
    /// A fresh authority.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn new() -> Result<Self, rcgen::Error> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters
            .distinguished_name
            .push(DnType::CommonName, "Penstock test authority");
        Ok(Self {
            authority: CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?,
            issued: AtomicU64::new(0),
        })
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.authority.pem()
    }

    /// A certificate for a host.
    ///
    /// # Errors
    /// Where no key can be made, or `name` is no host's name.
    pub fn issue(&self, name: &str, kind: KeyKind) -> Result<Issued, rcgen::Error> {
        self.issue_below(&[], name, kind)
    }

    /// A certificate for a host whose subject is `above`, the most general attribute first, and then its name.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_below(
        &self,
        above: &[(DnType, &str)],
        name: &str,
        kind: KeyKind,
    ) -> Result<Issued, rcgen::Error> {
        let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for (attribute, value) in above {
            parameters.distinguished_name.push(attribute.clone(), *value);
        }
        parameters.distinguished_name.push(DnType::CommonName, name);
        let serial = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        let key = kind.generate()?;
        let certificate = parameters.signed_by(&key, &self.authority)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            serial,
        })
    }

    /// The list of what it revoked, in PEM.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn revocation_list(&self, revoked: &[&Issued]) -> Result<String, rcgen::Error> {
        let day = date_time_ymd(2026, 1, 1);
        let entry = |issued: &&Issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: day,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: day,
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.authority)?
        .pem()
    }
}
