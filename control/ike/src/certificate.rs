//! X.509 certificates: parsing, path validation, and whether a certificate speaks for an identity
//! (RFC 5280, RFC 4945).

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder};
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{SubjectAltName, SubjectKeyIdentifier};

use crate::crypto::signature::PublicKeyKind;
use crate::error::{Error, Result};
use crate::name;
use crate::payload::id::Identity;

/// A parsed end-entity certificate and the names it bears.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    subject: Vec<u8>,
    public_key_info: Vec<u8>,
    public_key: Vec<u8>,
    key_kind: PublicKeyKind,
    names: Vec<Identity>,
    /// How key ids name it (RFC 5280 section 4.2.1.2).
    key_id: Option<Vec<u8>>,
    not_after: u64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", name::display(&self.subject))
    }
}

impl Certificate {
    /// Parses a DER certificate with a key of a supported kind.
    pub fn parse(der: &[u8]) -> Result<Self> {
        let bad = |what: &str| Error::AuthenticationFailed(format!("certificate: {what}"));
        let certificate = x509_cert::Certificate::from_der(der).map_err(|_| bad("not readable"))?;
        let tbs = certificate.tbs_certificate();
        let info = tbs.subject_public_key_info();
        let curve = || {
            info.algorithm
                .parameters
                .as_ref()?
                .decode_as::<x509_cert::der::asn1::ObjectIdentifier>()
                .ok()
        };
        let key_kind = match info.algorithm.oid.to_string().as_str() {
            "1.2.840.113549.1.1.1" => PublicKeyKind::Rsa,
            "1.3.101.112" => PublicKeyKind::Ed25519,
            "1.2.840.10045.2.1" => match curve().map(|oid| oid.to_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => PublicKeyKind::P256,
                Some("1.3.132.0.34") => PublicKeyKind::P384,
                Some("1.3.132.0.35") => PublicKeyKind::P521,
                _ => return Err(bad("elliptic curve is not supported")),
            },
            _ => return Err(bad("key type is not supported")),
        };
        let public_key = info
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| bad("key is not readable"))?
            .to_vec();
        let mut names = Vec::new();
        let alternative = tbs
            .get_extension::<SubjectAltName>()
            .map_err(|_| bad("subject alternative name"))?;
        if let Some((_, alternative)) = alternative {
            names.extend(alternative.0.iter().filter_map(identity_of));
        }
        let key_id = tbs
            .get_extension::<SubjectKeyIdentifier>()
            .map_err(|_| bad("subject key identifier"))?
            .map(|(_, id)| id.0.as_bytes().to_vec());
        Ok(Self {
            der: der.to_vec(),
            key_id,
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            subject: tbs.subject().to_der().map_err(|_| bad("subject"))?,
            public_key_info: info.to_der().map_err(|_| bad("key is not readable"))?,
            public_key,
            key_kind,
            names,
        })
    }

    /// The certificate as it was given.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// When it ends, in seconds of the epoch.
    pub(crate) fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The subject as an identity.
    pub fn subject(&self) -> Identity {
        Identity::DistinguishedName(self.subject.clone())
    }

    /// Whether the certificate speaks for `identity` (RFC 4945 section 3.1): its subject, one of its subject alternative
    /// names, or its subject key identifier; a wildcard stands for exactly one leading label.
    pub fn names(&self, identity: &Identity) -> bool {
        match identity {
            Identity::DistinguishedName(asked) => name::same(asked, &self.subject),
            Identity::Fqdn(wanted) => self.names.iter().any(|name| match name {
                Identity::Fqdn(name) => match name.strip_prefix("*.") {
                    Some(suffix) => wanted
                        .split_once('.')
                        .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix)),
                    None => name.eq_ignore_ascii_case(wanted),
                },
                _ => false,
            }),
            Identity::KeyId(id) => self.key_id.as_ref() == Some(id),
            other => self.names.contains(other),
        }
    }

    /// The identity to use where the configuration names none: the first alternative name, else the subject.
    pub fn default_identity(&self) -> Identity {
        self.names.first().cloned().unwrap_or_else(|| self.subject())
    }

    pub(crate) fn public_key(&self) -> (PublicKeyKind, &[u8]) {
        (self.key_kind, &self.public_key)
    }
}

/// SHA-1 over the subject public key info: how CERTREQ names an authority (RFC 7296 section 3.7).
fn key_hash(public_key_info: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, public_key_info);
    let mut hash = [0; 20];
    hash.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    hash
}

/// A certification authority that connections trust, with its revocation lists.
#[derive(Clone)]
pub struct Authority {
    anchor: TrustAnchor<'static>,
    /// How CERTREQ names it.
    pub key_hash: [u8; 20],
    subject: Vec<u8>,
    not_after: u64,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", name::display(&self.subject))
    }
}

impl Authority {
    /// When it ends, in seconds of the epoch.
    pub(crate) fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Its name in DER.
    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// Reads an authority's DER certificate.
    pub fn parse(der: &[u8]) -> Result<Self> {
        let local = |what: &str| Error::Local(format!("authority certificate: {what}"));
        let certificate = Certificate::parse(der).map_err(|e| local(&e.to_string()))?;
        let der = CertificateDer::from(der);
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|e| local(&e.to_string()))?
            .to_owned();
        Ok(Self {
            anchor,
            key_hash: key_hash(&certificate.public_key_info),
            not_after: certificate.not_after,
            subject: certificate.subject,
        })
    }
}

/// A revocation list from a file or a peer.
#[derive(Clone)]
pub struct RevocationList {
    list: Arc<CertRevocationList<'static>>,
    /// Whose it is, for people.
    pub(crate) issuer: String,
    /// When its next is to come, in seconds of the epoch, where it says so.
    pub(crate) next_update: Option<u64>,
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationList({})", self.issuer)
    }
}

impl RevocationList {
    /// Reads a DER list.
    pub fn parse(der: &[u8]) -> Result<Self> {
        let list = webpki::OwnedCertRevocationList::from_der(der)
            .map_err(|e| Error::Local(format!("revocation list: {e}")))?;
        let parsed = <CertificateList>::from_der(der)
            .map_err(|e| Error::Local(format!("revocation list: {e}")))?
            .tbs_cert_list;
        Ok(Self {
            list: Arc::new(CertRevocationList::from(list)),
            issuer: name::printable(&parsed.issuer),
            next_update: parsed.next_update.map(|time| time.to_unix_duration().as_secs()),
        })
    }
}

/// id-kp-clientAuth and id-kp-ipsecIKE (RFC 4945 section 5.1.3.12).
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];

/// Validates the path from a peer's certificate to one of the authorities at `unix_seconds`.
///
/// Any of the extended key usages server authentication, client authentication and IKE will do, as will none at all:
/// peers in the field use all of them. Where revocation lists are given, the end entity must not be on one.
pub(crate) fn verify_chain(
    end_entity: &Certificate,
    intermediates: &[Vec<u8>],
    authorities: &[Authority],
    lists: &[RevocationList],
    unix_seconds: u64,
) -> Result<()> {
    let refused = |error: webpki::Error| {
        Error::AuthenticationFailed(format!(
            "certificate {}: {error}",
            name::display(&end_entity.subject)
        ))
    };
    let der = CertificateDer::from(end_entity.der.as_slice());
    let certificate = EndEntityCert::try_from(&der).map_err(refused)?;
    let anchors: Vec<_> = authorities.iter().map(|a| a.anchor.clone()).collect();
    let intermediates: Vec<_> = intermediates
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(unix_seconds));
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().map(|list| list.list.as_ref()).collect();
    let mut outcome = Err(webpki::Error::UnknownIssuer);
    for usage in [
        KeyUsage::server_auth(),
        KeyUsage::required_if_present(CLIENT_AUTH),
        KeyUsage::required_if_present(IPSEC_IKE),
    ] {
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
            builder
                .with_status_policy(webpki::UnknownStatusPolicy::Allow)
                .build()
        });
        outcome = certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &intermediates,
                time,
                usage,
                revocation,
                None,
            )
            .map(|_| ());
        // Another usage helps only where this one was the matter: what is revoked or expired stays so.
        if !matches!(outcome, Err(webpki::Error::RequiredEkuNotFoundContext(_))) {
            break;
        }
    }
    outcome.map_err(refused)
}

fn identity_of(name: &GeneralName) -> Option<Identity> {
    Some(match name {
        GeneralName::DnsName(name) => Identity::Fqdn(name.to_string()),
        GeneralName::Rfc822Name(name) => Identity::Email(name.to_string()),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes().len() {
            4 => Identity::Address(<[u8; 4]>::try_from(bytes.as_bytes()).ok()?.into()),
            16 => Identity::Address(<[u8; 16]>::try_from(bytes.as_bytes()).ok()?.into()),
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(
        names: &[&str],
        issuer: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>,
        ca: bool,
    ) -> (Vec<u8>, rcgen::CertificateParams, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, names.first().copied().unwrap_or("CA"));
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        (certificate.der().to_vec(), params, key)
    }

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn chains_names_and_strangers() {
        let (ca, ca_params, ca_key) = issue(&[], None, true);
        let issuer = rcgen::Issuer::new(ca_params, ca_key);
        let (middle, middle_params, middle_key) = issue(&["middle"], Some(&issuer), true);
        let middle_issuer = rcgen::Issuer::new(middle_params, middle_key);
        let (leaf, _, _) = issue(
            &["gw.example.org", "*.vpn.example.org", "192.0.2.1"],
            Some(&middle_issuer),
            false,
        );
        let leaf = Certificate::parse(&leaf).unwrap();
        let authorities = [Authority::parse(&ca).unwrap()];
        assert!(verify_chain(&leaf, std::slice::from_ref(&middle), &authorities, &[], NOW).is_ok());
        assert!(
            verify_chain(&leaf, &[], &authorities, &[], NOW).is_err(),
            "intermediate missing"
        );
        assert!(
            verify_chain(
                &leaf,
                std::slice::from_ref(&middle),
                &authorities,
                &[],
                100_000_000_000
            )
            .is_err(),
            "expired"
        );
        let (other, _, _) = issue(&[], None, true);
        assert!(verify_chain(&leaf, &[middle], &[Authority::parse(&other).unwrap()], &[], NOW).is_err());

        for yes in [
            "gw.example.org",
            "GW.EXAMPLE.org",
            "a.vpn.example.org",
            "192.0.2.1",
        ] {
            assert!(leaf.names(&Identity::from_text(yes)), "{yes}");
        }
        for no in [
            "example.org",
            "a.b.vpn.example.org",
            ".vpn.example.org",
            "192.0.2.2",
            "x@gw.example.org",
        ] {
            assert!(!leaf.names(&Identity::from_text(no)), "{no}");
        }
        assert!(leaf.names(&leaf.subject()));
        assert!(leaf.names(&Identity::from_text("cn=GW.example.org")));
        assert!(!leaf.names(&Identity::from_text("CN=gw.example.net")));
        assert!(!leaf.names(&Identity::KeyId(vec![])));
        assert!(!leaf.names(&Identity::DistinguishedName(vec![])));
    }

    #[test]
    fn fault_36_name_constraints_hold_and_unknown_ones_refuse() {
        let constrained = |subtree: rcgen::GeneralSubtree, names: &[&str]| {
            let (_, mut params, key) = issue(&[], None, true);
            params.name_constraints = Some(rcgen::NameConstraints {
                permitted_subtrees: vec![subtree],
                excluded_subtrees: vec![],
            });
            let ca = params.self_signed(&key).unwrap().der().to_vec();
            let issuer = rcgen::Issuer::new(params, key);
            let (leaf, ..) = issue(names, Some(&issuer), false);
            let authorities = [Authority::parse(&ca).unwrap()];
            verify_chain(&Certificate::parse(&leaf).unwrap(), &[], &authorities, &[], NOW)
        };
        let below = || rcgen::GeneralSubtree::DnsName("example.org".into());
        assert!(constrained(below(), &["gw.example.org"]).is_ok());
        assert!(constrained(below(), &["gw.example.net"]).is_err());
        assert!(constrained(below(), &["gw.example.org", "gw.example.net"]).is_err());
        let net = rcgen::GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
        assert!(constrained(net.clone(), &["10.1.2.3"]).is_ok());
        assert!(constrained(net, &["192.0.2.1"]).is_err());
    }

    #[test]
    fn revoked_certificates_are_refused() {
        let (ca, mut ca_params, ca_key) = issue(&[], None, true);
        ca_params.key_usages = vec![
            rcgen::KeyUsagePurpose::CrlSign,
            rcgen::KeyUsagePurpose::KeyCertSign,
        ];
        let issuer = rcgen::Issuer::new(ca_params, ca_key);
        let certificate = |serial: u64| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.serial_number = Some(serial.into());
            // One usage of those that will do: the others are no reason to give.
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            Certificate::parse(params.signed_by(&key, &issuer).unwrap().der()).unwrap()
        };
        let (good, bad) = (certificate(7), certificate(8));
        let day = |day| rcgen::date_time_ymd(2026, 1, day);
        let list = rcgen::CertificateRevocationListParams {
            this_update: day(1),
            next_update: day(30),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: 8.into(),
                revocation_time: day(1),
                reason_code: Some(rcgen::RevocationReason::KeyCompromise),
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).unwrap();
        let list = [RevocationList::parse(list.der()).unwrap()];
        let authorities = [Authority::parse(&ca).unwrap()];
        assert!(verify_chain(&good, &[], &authorities, &list, NOW).is_ok());
        assert!(verify_chain(&bad, &[], &authorities, &[], NOW).is_ok());
        let refused = verify_chain(&bad, &[], &authorities, &list, NOW).unwrap_err();
        assert!(
            refused.to_string().to_lowercase().contains("revoked"),
            "{refused}"
        );
        assert!(RevocationList::parse(&[0x30, 0x80]).is_err());
    }

    #[test]
    fn fault_35_unreadable_certificates_and_short_names() {
        let (leaf, _, _) = issue(&["a.example"], None, false);
        for end in 0..leaf.len() {
            assert!(Certificate::parse(&leaf[..end]).is_err());
        }
        for name in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 2, 0x31, 9]] {
            assert!(!name::display(name).is_empty() || name.is_empty());
        }
    }
}
