//! The IKE header and the message around a payload chain (RFC 7296 section 3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       IKE SA Initiator's SPI                  |
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                       IKE SA Responder's SPI                  |
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                          Message ID                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                            Length                             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::fmt;

use crate::error::{Error, Result};
use crate::payload::{Chain, Payload, emit_chain, parse_chain};
use crate::reader::Reader;

/// Length of the IKE header.
pub const HEADER_BYTES: usize = 28;

/// Exchange types; unknown values survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeType(pub u8);

impl ExchangeType {
    /// The first exchange.
    pub const IKE_SA_INIT: Self = Self(34);
    /// Authentication and the first Child SA.
    pub const IKE_AUTH: Self = Self(35);
    /// New and rekeyed SAs.
    pub const CREATE_CHILD_SA: Self = Self(36);
    /// Everything else.
    pub const INFORMATIONAL: Self = Self(37);
    /// Between IKE_SA_INIT and IKE_AUTH (RFC 9242).
    pub const IKE_INTERMEDIATE: Self = Self(43);
    /// Additional key exchanges after CREATE_CHILD_SA (RFC 9370).
    pub const IKE_FOLLOWUP_KE: Self = Self(44);
}

impl fmt::Debug for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::IKE_SA_INIT => "IKE_SA_INIT",
            Self::IKE_AUTH => "IKE_AUTH",
            Self::CREATE_CHILD_SA => "CREATE_CHILD_SA",
            Self::INFORMATIONAL => "INFORMATIONAL",
            Self::IKE_INTERMEDIATE => "IKE_INTERMEDIATE",
            Self::IKE_FOLLOWUP_KE => "IKE_FOLLOWUP_KE",
            Self(other) => return write!(f, "exchange {other}"),
        })
    }
}

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;
const VERSION_2_0: u8 = 0x20;

/// A parsed header whose version and length were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// SPI of the original initiator; never zero.
    pub initiator_spi: u64,
    /// SPI of the original responder; zero in the first message.
    pub responder_spi: u64,
    /// Type of the first payload.
    pub next_payload: u8,
    /// What the message is part of.
    pub exchange: ExchangeType,
    /// The sender is the original initiator of the IKE SA.
    pub from_initiator: bool,
    /// The message answers one with the same message ID.
    pub is_response: bool,
    /// Message ID.
    pub message_id: u32,
}

impl Header {
    /// Parses the header of a datagram; its length field must be the datagram's length.
    pub fn parse(datagram: &[u8]) -> Result<Self> {
        match datagram.get(17).map(|version| version >> 4) {
            Some(2) => Self::parse_any_version(datagram),
            Some(1) => Err(Error::Malformed("IKE version 1")),
            Some(major @ 3..) => Err(Error::UnsupportedVersion(major)),
            _ => Err(Error::Malformed("IKE header")),
        }
    }

    /// The same of whatever version: the header of a later one is what tells it that it is not understood.
    pub(crate) fn parse_any_version(datagram: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(datagram);
        let initiator_spi = reader.u64("IKE header")?;
        let responder_spi = reader.u64("IKE header")?;
        let next_payload = reader.u8("IKE header")?;
        let _version = reader.u8("IKE header")?;
        let exchange = ExchangeType(reader.u8("IKE header")?);
        let flags = reader.u8("IKE header")?;
        let message_id = reader.u32("IKE header")?;
        let length = reader.u32("IKE header")?;
        if usize::try_from(length) != Ok(datagram.len()) {
            return Err(Error::Malformed("IKE length"));
        }
        if initiator_spi == 0 {
            return Err(Error::Malformed("zero initiator SPI"));
        }
        Ok(Self {
            initiator_spi,
            responder_spi,
            next_payload,
            exchange,
            from_initiator: flags & FLAG_INITIATOR != 0,
            is_response: flags & FLAG_RESPONSE != 0,
            message_id,
        })
    }

    /// Writes the header with a length that [`finish_length`] fills in.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.initiator_spi.to_be_bytes());
        out.extend_from_slice(&self.responder_spi.to_be_bytes());
        let mut flags = 0;
        if self.from_initiator {
            flags |= FLAG_INITIATOR;
        }
        if self.is_response {
            flags |= FLAG_RESPONSE;
        }
        out.extend_from_slice(&[self.next_payload, VERSION_2_0, self.exchange.0, flags]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

/// Fills in the header's length field with `length` bytes.
pub(crate) fn set_length(message: &mut [u8], length: usize) {
    if let Some(field) = message.get_mut(24..28) {
        field.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Fills in the header's length field with the message's own length.
pub fn finish_length(message: &mut [u8]) {
    set_length(message, message.len());
}

/// Parses the outer chain of a whole message.
pub fn parse_message(datagram: &[u8]) -> Result<(Header, Chain)> {
    let header = Header::parse(datagram)?;
    let body = datagram
        .get(HEADER_BYTES..)
        .ok_or(Error::Malformed("IKE header"))?;
    Ok((header, parse_chain(header.next_payload, body)?))
}

/// Emits a message in clear.
pub fn emit_message(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let first = payloads.first().map_or(0, Payload::number);
    Header {
        next_payload: first,
        ..*header
    }
    .emit(&mut out);
    emit_chain(payloads, &mut out);
    finish_length(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let header = Header {
            initiator_spi: 1,
            responder_spi: 2,
            next_payload: 0,
            exchange: ExchangeType::IKE_SA_INIT,
            from_initiator: true,
            is_response: false,
            message_id: 0,
        };
        emit_message(&header, &[Payload::Nonce(vec![1; 16])])
    }

    #[test]
    fn fault_01_short_datagram_or_wrong_length() {
        let good = sample();
        assert!(parse_message(&good).is_ok());
        for end in 0..good.len() {
            assert!(parse_message(&good[..end]).is_err());
        }
        let mut long = good.clone();
        long.push(0);
        assert_eq!(parse_message(&long), Err(Error::Malformed("IKE length")));
    }

    #[test]
    fn fault_11_versions_and_flags() {
        let mut bytes = sample();
        bytes[17] = 0x2f;
        assert!(parse_message(&bytes).is_ok(), "minor versions are ignored");
        bytes[17] = 0x30;
        assert_eq!(parse_message(&bytes), Err(Error::UnsupportedVersion(3)));
        bytes[17] = 0x10;
        assert!(parse_message(&bytes).is_err());
        bytes[17] = 0x20;
        bytes[19] = 0xff;
        assert!(parse_message(&bytes).is_ok(), "reserved flags are ignored");
    }
}
