//! Extensible Authentication payload: one EAP packet (RFC 7296 section 3.16, RFC 3748 section 4).

use crate::error::{Error, Result};
use crate::reader::Reader;

/// EAP codes (RFC 3748 section 4).
pub mod code {
    /// From the authenticator.
    pub const REQUEST: u8 = 1;
    /// From the peer.
    pub const RESPONSE: u8 = 2;
    /// The peer is authenticated.
    pub const SUCCESS: u8 = 3;
    /// The peer is refused.
    pub const FAILURE: u8 = 4;
}

/// EAP method types.
pub mod method {
    /// Identity.
    pub const IDENTITY: u8 = 1;
    /// Legacy Nak: the peer asks for other methods.
    pub const NAK: u8 = 3;
    /// EAP-TLS (RFC 5216).
    pub const TLS: u8 = 13;
    /// MS-CHAPv2.
    pub const MSCHAPV2: u8 = 26;
}

/// One EAP packet whose inner length agreed with the payload's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EapPacket {
    /// Request, response, success or failure.
    pub code: u8,
    /// Matches responses to requests.
    pub identifier: u8,
    /// Method type; absent in success and failure.
    pub method: Option<u8>,
    /// What follows the type.
    pub data: Vec<u8>,
}

impl EapPacket {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let code = reader.u8("EAP code")?;
        let identifier = reader.u8("EAP identifier")?;
        if usize::from(reader.u16("EAP length")?) != body.len() {
            return Err(Error::Malformed("EAP length"));
        }
        let method = match code {
            code::REQUEST | code::RESPONSE => Some(reader.u8("EAP type")?),
            code::SUCCESS | code::FAILURE if reader.is_empty() => None,
            _ => return Err(Error::Malformed("EAP code")),
        };
        Ok(Self {
            code,
            identifier,
            method,
            data: reader.finish().to_vec(),
        })
    }

    /// Reads a packet, as an authentication server or another carrier has it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes)
    }

    /// The packet alone.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.emit(&mut out);
        out
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        let length = 4 + usize::from(self.method.is_some()) + self.data.len();
        out.extend_from_slice(&[self.code, self.identifier]);
        out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(self.method);
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_31_eap_length_lies() {
        assert!(EapPacket::parse(&[1, 1, 0, 6, 1]).is_err());
        assert!(EapPacket::parse(&[1, 1, 0, 4]).is_err());
        assert!(EapPacket::parse(&[3, 1, 0, 5, 1]).is_err());
        assert!(EapPacket::parse(&[9, 1, 0, 5, 1]).is_err());
        let ok = EapPacket {
            code: 2,
            identifier: 4,
            method: Some(1),
            data: b"alice".to_vec(),
        };
        let mut bytes = Vec::new();
        ok.emit(&mut bytes);
        assert_eq!(EapPacket::parse(&bytes), Ok(ok));
    }
}
