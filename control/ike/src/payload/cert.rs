//! Certificate and Certificate Request payloads (RFC 7296 sections 3.6 and 3.7).

use crate::error::{Error, Result};
use crate::reader::Reader;

/// Certificate encoding of a DER X.509 certificate for signatures.
pub const X509_SIGNATURE: u8 = 4;
/// Certificate encoding of a certificate revocation list.
pub const CRL: u8 = 7;
/// Length of a certification authority hash: SHA-1 of its subject public key info.
pub const AUTHORITY_HASH_BYTES: usize = 20;

/// A certificate as the peer sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertPayload {
    /// Certificate encoding.
    pub encoding: u8,
    /// The encoded certificate.
    pub data: Vec<u8>,
}

impl CertPayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let encoding = reader.u8("certificate encoding")?;
        Ok(Self {
            encoding,
            data: reader.finish().to_vec(),
        })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding);
        out.extend_from_slice(&self.data);
    }
}

/// The authorities a peer trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertRequestPayload {
    /// Certificate encoding wanted.
    pub encoding: u8,
    /// Hashes of the authorities' keys; may be empty, which asks for any.
    pub authorities: Vec<[u8; AUTHORITY_HASH_BYTES]>,
}

impl CertRequestPayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let encoding = reader.u8("certificate encoding")?;
        let mut authorities = Vec::new();
        if encoding == X509_SIGNATURE {
            if !reader.remaining().is_multiple_of(AUTHORITY_HASH_BYTES) {
                return Err(Error::Malformed("certification authority hashes"));
            }
            while !reader.is_empty() {
                authorities.push(reader.array("certification authority hash")?);
            }
        }
        Ok(Self {
            encoding,
            authorities,
        })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding);
        self.authorities
            .iter()
            .for_each(|hash| out.extend_from_slice(hash));
    }
}
