//! What proves identities, read from files of their own.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use ike::{Authority, Certificate, Credential, Identity, RevocationList, SigningKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use southbound::KeyMaterial;
use toml::Spanned;
use zeroize::Zeroizing;

use super::section::{AuthoritySection, CredentialSection, RadiusSection, SecretKind, SecretSection};
use super::{RadiusServer, identity, period};
use crate::config::gateway::Builder;
use crate::config::key_file::KeyAccess;
use crate::config::secret_file;
use crate::config::source::Source;

/// The port of RADIUS authentication (RFC 2865 section 3).
const RADIUS_PORT: u16 = 1812;

/// Longest certificate or revocation list file in bytes.
const MAX_PUBLIC_BYTES: u64 = 16 * 1024 * 1024;

/// Longest secret in bytes.
const MAX_SECRET_BYTES: u16 = 16 * 1024;

impl Builder {
    pub(super) fn authority(&mut self, source: &Source, section: &AuthoritySection) {
        for der in self.public(source, &section.certificate_file, "certificate") {
            match Authority::parse(&der) {
                Ok(authority) => self.gateway.credentials.add_authority(authority),
                Err(error) => source.problem(
                    section.certificate_file.span(),
                    format!(
                        "found no authority in {:?}: {error}",
                        section.certificate_file.get_ref()
                    ),
                ),
            }
        }
        for file in &section.revocation_files {
            for der in self.public(source, file, "revocation list") {
                match RevocationList::parse(&der) {
                    Ok(list) => self.gateway.credentials.add_revocation_list(list),
                    Err(error) => source.problem(
                        file.span(),
                        format!("found no revocation list in {:?}: {error}", file.get_ref()),
                    ),
                }
            }
        }
    }

    pub(super) fn credential(&mut self, source: &Source, section: &CredentialSection) {
        if !self.name(source, "credential", &section.name) {
            return;
        }
        let mut chain = self
            .public(source, &section.certificate_file, "certificate")
            .into_iter();
        let key = self.secret_bytes(source, &section.key_file);
        let (Some(own), Some(key)) = (chain.next(), key) else {
            return;
        };
        let span = section.key_file.span();
        let certificate = match Certificate::parse(&own) {
            Ok(certificate) => certificate,
            Err(error) => {
                let found = section.certificate_file.get_ref();
                source.problem(
                    section.certificate_file.span(),
                    format!("found no certificate in {found:?}: {error}"),
                );
                return;
            }
        };
        let key = match private_key(&key) {
            Some(der) => SigningKey::from_der(&der).map_err(|error| error.to_string()),
            None => Err("expected a private key in PEM or DER, without a password".to_owned()),
        };
        let paired = key.and_then(|key| {
            Credential::new(certificate, chain.collect(), key).map_err(|error| error.to_string())
        });
        match paired {
            Ok(credential) => self
                .gateway
                .credentials
                .add_credential(section.name.get_ref(), credential),
            Err(message) => source.problem(
                span,
                format!(
                    "found no usable key in {:?}: {message}",
                    section.key_file.get_ref()
                ),
            ),
        }
    }

    pub(super) fn secret(&mut self, source: &Source, section: &SecretSection) {
        let ids: Vec<&str> = section.id.iter().map(|id| id.get_ref().as_str()).collect();
        match (section.kind, ids.as_slice()) {
            (SecretKind::Psk, _) => {
                let identities = section.id.iter().filter_map(|id| identity(source, id));
                let identities = identities.collect();
                self.preshared(source, &section.file, identities);
            }
            (SecretKind::Eap, [user]) => {
                let user = (*user).to_owned();
                if let Some(secret) = self.text_secret(source, &section.file) {
                    match std::str::from_utf8(&secret) {
                        Ok(password) => self.gateway.credentials.add_eap_user(&user, password),
                        Err(_) => source.problem(
                            section.file.span(),
                            "found a password that is no text: expected UTF-8",
                        ),
                    }
                }
            }
            (SecretKind::Ppk, [id]) => {
                self.take(source, "ppk", id, span_of(section));
                let id = id.as_bytes().to_vec();
                if let Some(secret) = self.text_secret(source, &section.file) {
                    self.gateway.credentials.add_ppk(id, &secret);
                }
            }
            (SecretKind::Eap | SecretKind::Ppk, _) => source.problem(
                span_of(section),
                format!("found {} ids: expected exactly one, as id = [\"...\"]", ids.len()),
            ),
        }
    }

    pub(super) fn radius(&mut self, source: &Source, section: &RadiusSection) {
        let text = section.server.get_ref();
        let address = match text.parse::<IpAddr>() {
            Ok(address) => Some(SocketAddr::new(address, RADIUS_PORT)),
            Err(_) => source.value(&section.server, "an address, with a port where it is not 1812"),
        };
        let secret = self.text_secret(source, &section.secret_file);
        let timeout = section
            .timeout
            .as_ref()
            .and_then(|timeout| period::read(source, timeout, 1));
        let tries = section
            .tries
            .as_ref()
            .and_then(|tries| source.within(tries, 1..=10));
        if let (Some(address), Some(secret)) = (address, secret) {
            self.gateway.radius.push(RadiusServer {
                address,
                secret: KeyMaterial::new(secret.to_vec()),
                timeout: timeout.unwrap_or(Duration::from_secs(2)),
                tries: tries.unwrap_or(3),
            });
        }
    }

    /// A preshared key for these identities.
    pub(super) fn preshared(&mut self, source: &Source, file: &Spanned<String>, identities: Vec<Identity>) {
        if let Some(secret) = self.text_secret(source, file) {
            if secret.len() < 16 {
                self.gateway.notes.push(format!(
                    "{}: a preshared key of {} characters can be guessed from one recorded handshake: use 32 random ones",
                    source.place(file.span()),
                    secret.len()
                ));
            }
            self.gateway.credentials.add_psk(identities, &secret);
        }
    }

    /// A secret as people write it: text up to the end of the line, or hexadecimal digits after `0x`.
    fn text_secret(&mut self, source: &Source, file: &Spanned<String>) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = self.secret_bytes(source, file)?;
        let mut text = bytes.as_slice();
        while let [rest @ .., b'\n' | b'\r'] = text {
            text = rest;
        }
        let secret = match text.strip_prefix(b"0x") {
            Some(digits) => hexadecimal(digits),
            None => Some(Zeroizing::new(text.to_vec())),
        };
        let secret = secret.filter(|secret| !secret.is_empty());
        if secret.is_none() {
            source.problem(
                file.span(),
                format!(
                    "found no secret in {:?}: expected one line of text, or 0x and hexadecimal digits",
                    file.get_ref()
                ),
            );
        }
        secret
    }

    fn secret_bytes(&mut self, source: &Source, file: &Spanned<String>) -> Option<Zeroizing<Vec<u8>>> {
        let path = source.resolve(file.get_ref());
        match secret_file::read(&path, MAX_SECRET_BYTES, self.keys) {
            Ok(Some(bytes)) => Some(bytes),
            Ok(None) => {
                self.unread(source, file);
                None
            }
            Err(message) => {
                source.problem(file.span(), message);
                None
            }
        }
    }

    /// The objects of a file of certificates or revocation lists, PEM or DER.
    fn public(&mut self, source: &Source, file: &Spanned<String>, what: &str) -> Vec<Vec<u8>> {
        let path = source.resolve(file.get_ref());
        let read = fs::metadata(&path).and_then(|metadata| {
            if metadata.len() > MAX_PUBLIC_BYTES {
                return Err(io::Error::other(format!(
                    "it has {} bytes, which is too long",
                    metadata.len()
                )));
            }
            fs::read(&path)
        });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if self.keys == KeyAccess::IfReadable && error.kind() == io::ErrorKind::NotFound => {
                self.unread(source, file);
                return Vec::new();
            }
            Err(error) => {
                source.problem(
                    file.span(),
                    format!("the {what} file {} cannot be read: {error}", path.display()),
                );
                return Vec::new();
            }
        };
        if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
            return vec![bytes];
        }
        let certificates = CertificateDer::pem_slice_iter(&bytes)
            .flatten()
            .map(|der| der.as_ref().to_vec());
        let lists = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .flatten()
            .map(|der| der.as_ref().to_vec());
        let found: Vec<_> = if what == "certificate" {
            certificates.collect()
        } else {
            lists.collect()
        };
        if found.is_empty() {
            source.problem(
                file.span(),
                format!("found no {what} in {}: expected PEM or DER", path.display()),
            );
        }
        found
    }

    fn unread(&mut self, source: &Source, file: &Spanned<String>) {
        self.gateway.notes.push(format!(
            "{}: {:?} was not checked: it is not here or not readable",
            source.place(file.span()),
            file.get_ref()
        ));
    }
}

fn span_of(section: &SecretSection) -> Range<usize> {
    section.file.span()
}

/// The DER of a private key of any kind.
fn private_key(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Some(Zeroizing::new(bytes.to_vec()));
    }
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes);
    sections.flatten().find_map(|(kind, der)| {
        let der = Zeroizing::new(der);
        matches!(
            kind,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
        )
        .then_some(der)
    })
}

fn hexadecimal(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let mut out = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks_exact(2) {
        out.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(out)
}
