//! EAP-TLS (RFC 5216, with TLS 1.3 RFC 9190): TLS records in EAP packets, and the keys that come of them.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-+-+-+-+-+-+-+-----------------------+-------------------
//! |L|M|S|reserved | TLS message length (L) | TLS data ...
//! +-+-+-+-+-+-+-+-+-----------------------+-------------------
//! ```

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{Connection as TlsConnection, ProtocolVersion};
use southbound::KeyMaterial;

use crate::certificate::Certificate;
use crate::credential::Credentials;
use crate::error::{Error, Result};
use crate::reader::Reader;

use super::tls_trust::{ClientTrust, ServerTrust};

const LENGTH_INCLUDED: u8 = 0x80;
const MORE_FRAGMENTS: u8 = 0x40;
const START: u8 = 0x20;

/// TLS data in one EAP packet: fits one IKE packet with its headers everywhere.
const FRAGMENT_BYTES: usize = 1000;
/// A TLS flight never has more.
const MAX_FLIGHT_BYTES: usize = 64 * 1024;

/// What an EAP packet brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// More of the flight follows once this is acknowledged.
    Partial,
    /// Nothing: the other side acknowledges, and waits for our next fragment or for the end.
    Acknowledgement,
    /// A flight, which TLS took.
    Flight,
}

/// One end of a TLS session within EAP.
pub(crate) struct TlsSession {
    connection: TlsConnection,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    /// RFC 9190 section 2.5: the server's word that the handshake is over, sent or received.
    committed: bool,
}

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSession([redacted])")
    }
}

fn refused(error: &rustls::Error) -> Error {
    let text: String = error.to_string().chars().filter(|c| !c.is_control()).collect();
    Error::AuthenticationFailed(format!("EAP-TLS: {text}"))
}

fn unusable(error: &rustls::Error) -> Error {
    Error::Local(format!("EAP-TLS: {error}"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

impl TlsSession {
    fn new(connection: TlsConnection) -> Self {
        Self {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            committed: false,
        }
    }

    /// The authenticator's end, with our certificate and the authorities we trust.
    pub(crate) fn server(credential: &str, credentials: &Credentials, unix_seconds: u64) -> Result<Self> {
        let (chain, key) = own(credential, credentials)?;
        let provider = provider();
        let trust = ClientTrust::new(credentials, unix_seconds, &provider);
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(|e| unusable(&e))?
            .with_client_cert_verifier(Arc::new(trust))
            .with_single_cert(chain, key)
            .map_err(|e| unusable(&e))?;
        // Every authentication is a whole one: what a ticket stood for could have been revoked since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let connection = rustls::ServerConnection::new(Arc::new(config)).map_err(|e| unusable(&e))?;
        Ok(Self::new(connection.into()))
    }

    /// The peer's end. The server's name is not looked at: the gateway proved itself in IKE already.
    pub(crate) fn client(credential: &str, credentials: &Credentials, unix_seconds: u64) -> Result<Self> {
        let (chain, key) = own(credential, credentials)?;
        let provider = provider();
        let trust = ServerTrust::new(credentials, unix_seconds, &provider);
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&VERSIONS)
            .map_err(|e| unusable(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust))
            .with_client_auth_cert(chain, key)
            .map_err(|e| unusable(&e))?;
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        let name = rustls_pki_types::ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let connection = rustls::ClientConnection::new(Arc::new(config), name).map_err(|e| unusable(&e))?;
        let mut session = Self::new(connection.into());
        session.collect()?;
        Ok(session)
    }

    /// The data of the packet that starts the method.
    pub(crate) fn start() -> Vec<u8> {
        vec![START]
    }

    pub(crate) fn is_start(data: &[u8]) -> bool {
        data.first().is_some_and(|flags| flags & START != 0)
    }

    /// Takes the data of an EAP packet.
    pub(crate) fn take(&mut self, data: &[u8]) -> Result<Taken> {
        let mut reader = Reader::new(data);
        let flags = reader.u8("EAP-TLS flags")?;
        if flags & LENGTH_INCLUDED != 0 {
            let total = reader.u32("EAP-TLS length")?;
            if usize::try_from(total).is_ok_and(|total| total > MAX_FLIGHT_BYTES) {
                return Err(Error::Malformed("EAP-TLS length"));
            }
        }
        let bytes = reader.finish();
        if bytes.is_empty() && self.incoming.is_empty() {
            return Ok(Taken::Acknowledgement);
        }
        if self.incoming.len() + bytes.len() > MAX_FLIGHT_BYTES || self.next_is_due() {
            return Err(Error::Malformed("EAP-TLS data out of order"));
        }
        self.incoming.extend_from_slice(bytes);
        if flags & MORE_FRAGMENTS != 0 {
            return Ok(Taken::Partial);
        }
        let flight = std::mem::take(&mut self.incoming);
        self.feed(&flight)?;
        Ok(Taken::Flight)
    }

    fn feed(&mut self, flight: &[u8]) -> Result<()> {
        let mut rest = flight;
        while !rest.is_empty() {
            let read = self
                .connection
                .read_tls(&mut rest)
                .map_err(|_| Error::Malformed("EAP-TLS records"))?;
            let processed = self.connection.process_new_packets();
            // An alert for the peer goes out although we give up.
            self.collect()?;
            let state = processed.map_err(|e| refused(&e))?;
            if state.plaintext_bytes_to_read() > 0 {
                self.read_commitment(state.plaintext_bytes_to_read())?;
            }
            if read == 0 {
                return Err(Error::Malformed("EAP-TLS records"));
            }
        }
        Ok(())
    }

    /// The one byte of application data that the server may send (RFC 9190 section 2.5).
    fn read_commitment(&mut self, length: usize) -> Result<()> {
        let mut byte = [0xff];
        let read = self.connection.reader().read(&mut byte);
        if length != 1 || !matches!(read, Ok(1)) || byte != [0] || self.committed {
            return Err(Error::AuthenticationFailed("EAP-TLS: unexpected data".into()));
        }
        self.committed = true;
        Ok(())
    }

    /// As the server with TLS 1.3: says once that the handshake is over.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.is_complete() && self.is_tls13() && !self.committed {
            self.committed = true;
            self.connection
                .writer()
                .write_all(&[0])
                .map_err(|_| Error::Crypto("EAP-TLS"))?;
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<()> {
        while self.connection.wants_write() {
            self.connection
                .write_tls(&mut self.outgoing)
                .map_err(|_| Error::Crypto("EAP-TLS"))?;
        }
        Ok(())
    }

    fn next_is_due(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// The data of the next EAP packet, where something is to be sent.
    pub(crate) fn next_fragment(&mut self) -> Option<Vec<u8>> {
        if !self.next_is_due() {
            return None;
        }
        let rest = self.outgoing.get(self.sent..).unwrap_or_default();
        let part = rest.get(..FRAGMENT_BYTES).unwrap_or(rest);
        let more = part.len() < rest.len();
        let first = self.sent == 0;
        let mut flags = 0;
        let mut data = vec![0];
        if first && more {
            flags |= LENGTH_INCLUDED;
            let total = u32::try_from(self.outgoing.len()).unwrap_or(u32::MAX);
            data.extend_from_slice(&total.to_be_bytes());
        }
        if more {
            flags |= MORE_FRAGMENTS;
        }
        data.extend_from_slice(part);
        if let Some(slot) = data.first_mut() {
            *slot = flags;
        }
        if more {
            self.sent += part.len();
        } else {
            self.outgoing.clear();
            self.sent = 0;
        }
        Some(data)
    }

    pub(crate) fn is_complete(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// The other side said all that it has to say.
    pub(crate) fn is_committed(&self) -> bool {
        self.is_complete() && (self.committed || !self.is_tls13())
    }

    fn is_tls13(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The peer's certificate, which was verified.
    pub(crate) fn peer(&self) -> Result<Certificate> {
        let first = self
            .connection
            .peer_certificates()
            .and_then(|chain| chain.first());
        let first = first.ok_or_else(|| Error::AuthenticationFailed("EAP-TLS: no certificate".into()))?;
        Certificate::parse(first)
    }

    /// The master session key (RFC 5216 section 2.3, RFC 9190 section 2.3).
    pub(crate) fn msk(&self) -> Result<KeyMaterial> {
        let (label, context): (&[u8], Option<&[u8]>) = if self.is_tls13() {
            (b"EXPORTER_EAP_TLS_Key_Material", Some(&[13]))
        } else {
            (b"client EAP encryption", None)
        };
        let mut material = [0; 128];
        self.connection
            .export_keying_material(&mut material, label, context)
            .map_err(|_| Error::Crypto("EAP-TLS keys"))?;
        let msk = KeyMaterial::new(material.get(..64).unwrap_or_default().to_vec());
        zeroize::Zeroize::zeroize(&mut material);
        Ok(msk)
    }
}

type OwnCertificate = (
    Vec<rustls_pki_types::CertificateDer<'static>>,
    rustls_pki_types::PrivateKeyDer<'static>,
);

fn own(credential: &str, credentials: &Credentials) -> Result<OwnCertificate> {
    let found = credentials.own(credential);
    let own = found.ok_or_else(|| Error::Local(format!("no credential named {credential:?}")))?;
    let chain = std::iter::once(own.certificate.der().to_vec())
        .chain(own.intermediates.iter().cloned())
        .map(Into::into)
        .collect();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.key().der().expose().to_vec());
    let key = key.map_err(|_| Error::Local("EAP-TLS: private key".into()))?;
    Ok((chain, key))
}
