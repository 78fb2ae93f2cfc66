//! Authentication payload (RFC 7296 section 3.8, RFC 7427 section 3).

use crate::error::{Error, Result};
use crate::reader::Reader;

/// Authentication method numbers (IANA "IKEv2 Authentication Method").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthMethod(pub u8);

impl AuthMethod {
    /// RSA with PKCS#1 v1.5 padding; SHA-1 unless the peers know better.
    pub const RSA: Self = Self(1);
    /// Shared key message integrity code.
    pub const SHARED_KEY: Self = Self(2);
    /// ECDSA with SHA-256 on P-256 (RFC 4754).
    pub const ECDSA_256: Self = Self(9);
    /// ECDSA with SHA-384 on P-384 (RFC 4754).
    pub const ECDSA_384: Self = Self(10);
    /// ECDSA with SHA-512 on P-521 (RFC 4754).
    pub const ECDSA_521: Self = Self(11);
    /// NULL authentication (RFC 7619); never accepted.
    pub const NULL: Self = Self(13);
    /// Digital signature with an algorithm identifier (RFC 7427).
    pub const DIGITAL_SIGNATURE: Self = Self(14);
}

/// The authentication data of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthPayload {
    /// How it was computed.
    pub method: AuthMethod,
    /// The data itself, never empty.
    pub data: Vec<u8>,
}

impl AuthPayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let method = AuthMethod(reader.u8("auth method")?);
        reader.array::<3>("auth reserved")?;
        let data = reader.finish().to_vec();
        if data.is_empty() {
            return Err(Error::Malformed("empty auth data"));
        }
        Ok(Self { method, data })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }
}
