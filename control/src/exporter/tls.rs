//! TLS for the endpoint.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::MetricsTls;

/// The acceptor of a certificate and its key, both PEM; TLS 1.2 and 1.3.
///
/// # Errors
/// Where a file cannot be read, holds something else, or the key is not the certificate's.
pub fn acceptor(configuration: &MetricsTls) -> io::Result<TlsAcceptor> {
    let fault = |file: &std::path::Path, error: &dyn std::fmt::Display| {
        io::Error::other(format!("{}: {error}", file.display()))
    };
    let (certificate, key) = (&configuration.certificate_file, &configuration.key_file);
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(certificate, &error))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| fault(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}
