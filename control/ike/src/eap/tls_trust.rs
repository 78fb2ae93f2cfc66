//! Whose certificates EAP-TLS takes: those that IKE itself would take (RFC 5216 section 5.3).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::{Authority, Certificate, RevocationList, verify_chain};
use crate::credential::Credentials;

/// The authorities, their revocation lists and the time of day as of one authentication.
struct Trust {
    authorities: Vec<Authority>,
    lists: Vec<RevocationList>,
    unix_seconds: u64,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({:?})", self.authorities)
    }
}

impl Trust {
    fn new(credentials: &Credentials, unix_seconds: u64, provider: &Arc<CryptoProvider>) -> Self {
        Self {
            authorities: credentials.authorities.clone(),
            lists: credentials.revocation_lists.clone(),
            unix_seconds,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let certificate = Certificate::parse(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let intermediates: Vec<_> = intermediates.iter().take(10).map(|der| der.to_vec()).collect();
        verify_chain(
            &certificate,
            &intermediates,
            &self.authorities,
            &self.lists,
            self.unix_seconds,
        )
        .map_err(|error| rustls::Error::General(error.to_string()))
    }
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, certificate, signed, &self.0.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signed, &self.0.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.algorithms.supported_schemes()
        }
    };
}

/// For the authenticator: the peer must show a certificate.
#[derive(Debug)]
pub(super) struct ClientTrust(Trust, Vec<DistinguishedName>);

impl ClientTrust {
    pub(super) fn new(credentials: &Credentials, unix_seconds: u64, provider: &Arc<CryptoProvider>) -> Self {
        let names = credentials.authorities.iter().take(100);
        let hints = names
            .map(|authority| DistinguishedName::from(authority.subject().to_vec()))
            .collect();
        Self(Trust::new(credentials, unix_seconds, provider), hints)
    }
}

impl ClientCertVerifier for ClientTrust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.1
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// For the peer.
#[derive(Debug)]
pub(super) struct ServerTrust(Trust);

impl ServerTrust {
    pub(super) fn new(credentials: &Credentials, unix_seconds: u64, provider: &Arc<CryptoProvider>) -> Self {
        Self(Trust::new(credentials, unix_seconds, provider))
    }
}

impl ServerCertVerifier for ServerTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
