//! The payloads of IKEv2 (RFC 7296 section 3), one a file: owned values, `parse` and `emit`.

pub mod auth;
pub mod cert;
pub mod configuration;
pub mod delete;
pub mod eap;
pub mod id;
pub mod key_exchange;
pub mod notify;
pub mod sa;
pub mod traffic_selector;

use crate::error::{Error, Result};
use crate::reader::Reader;

use auth::AuthPayload;
use cert::{CertPayload, CertRequestPayload};
use configuration::ConfigurationPayload;
use delete::DeletePayload;
use eap::EapPacket;
use id::Identity;
use key_exchange::KePayload;
use notify::NotifyPayload;
use sa::SaPayload;
use traffic_selector::TsPayload;

/// More payloads than this in one message are refused (real messages have at most some twenty).
pub const MAX_PAYLOADS: usize = 100;

/// Bounds of a nonce (RFC 7296 section 2.10).
pub const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

/// Payload type numbers (IANA "IKEv2 Payload Types").
pub mod number {
    /// No next payload.
    pub const NONE: u8 = 0;
    /// Security Association.
    pub const SA: u8 = 33;
    /// Key Exchange.
    pub const KE: u8 = 34;
    /// Identification of the initiator.
    pub const ID_I: u8 = 35;
    /// Identification of the responder.
    pub const ID_R: u8 = 36;
    /// Certificate.
    pub const CERT: u8 = 37;
    /// Certificate Request.
    pub const CERTREQ: u8 = 38;
    /// Authentication.
    pub const AUTH: u8 = 39;
    /// Nonce.
    pub const NONCE: u8 = 40;
    /// Notify.
    pub const NOTIFY: u8 = 41;
    /// Delete.
    pub const DELETE: u8 = 42;
    /// Vendor ID.
    pub const VENDOR_ID: u8 = 43;
    /// Traffic Selector of the initiator.
    pub const TS_I: u8 = 44;
    /// Traffic Selector of the responder.
    pub const TS_R: u8 = 45;
    /// Encrypted and Authenticated.
    pub const SK: u8 = 46;
    /// Configuration.
    pub const CP: u8 = 47;
    /// Extensible Authentication.
    pub const EAP: u8 = 48;
    /// Encrypted and Authenticated Fragment (RFC 7383).
    pub const SKF: u8 = 53;
}

/// A payload in clear. What `parse` gave is structurally sound; whether it makes sense is the exchange's to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each variant is named after its payload in RFC 7296 section 3"
)]
pub enum Payload {
    Sa(SaPayload),
    Ke(KePayload),
    IdI(Identity),
    IdR(Identity),
    Cert(CertPayload),
    CertRequest(CertRequestPayload),
    Auth(AuthPayload),
    Nonce(Vec<u8>),
    Notify(NotifyPayload),
    Delete(DeletePayload),
    VendorId(Vec<u8>),
    TsI(TsPayload),
    TsR(TsPayload),
    Configuration(ConfigurationPayload),
    Eap(EapPacket),
}

impl Payload {
    /// The payload type number.
    pub fn number(&self) -> u8 {
        match self {
            Payload::Sa(_) => number::SA,
            Payload::Ke(_) => number::KE,
            Payload::IdI(_) => number::ID_I,
            Payload::IdR(_) => number::ID_R,
            Payload::Cert(_) => number::CERT,
            Payload::CertRequest(_) => number::CERTREQ,
            Payload::Auth(_) => number::AUTH,
            Payload::Nonce(_) => number::NONCE,
            Payload::Notify(_) => number::NOTIFY,
            Payload::Delete(_) => number::DELETE,
            Payload::VendorId(_) => number::VENDOR_ID,
            Payload::TsI(_) => number::TS_I,
            Payload::TsR(_) => number::TS_R,
            Payload::Configuration(_) => number::CP,
            Payload::Eap(_) => number::EAP,
        }
    }

    fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Sa(p) => p.emit(out),
            Payload::Ke(p) => p.emit(out),
            Payload::IdI(p) | Payload::IdR(p) => p.emit(out),
            Payload::Cert(p) => p.emit(out),
            Payload::CertRequest(p) => p.emit(out),
            Payload::Auth(p) => p.emit(out),
            Payload::Nonce(bytes) | Payload::VendorId(bytes) => out.extend_from_slice(bytes),
            Payload::Notify(p) => p.emit(out),
            Payload::Delete(p) => p.emit(out),
            Payload::TsI(p) | Payload::TsR(p) => p.emit(out),
            Payload::Configuration(p) => p.emit(out),
            Payload::Eap(p) => p.emit(out),
        }
    }
}

/// What followed the generic header of an SK or SKF payload (RFC 7296 section 3.14, RFC 7383 section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptedPart {
    /// Type of the first payload inside.
    pub first_inner: u8,
    /// Fragment number and total where this is an SKF payload; both at least 1.
    pub fragment: Option<(u16, u16)>,
    /// Where the generic payload header starts, counted from the start of the parsed chain.
    pub header_offset_bytes: usize,
    /// Where the initialisation vector starts, counted from the start of the parsed chain.
    pub body_offset_bytes: usize,
}

/// A parsed chain: the payloads in clear, and where the encrypted one is, which always ends the chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Known payloads in order of arrival.
    pub payloads: Vec<Payload>,
    /// The SK or SKF payload, if any.
    pub encrypted: Option<EncryptedPart>,
}

/// Parses a chain of payloads that starts with type `first` and fills `bytes` exactly.
///
/// Unknown payloads are skipped unless critical (RFC 7296 section 2.5); the critical bit of known ones is ignored.
pub fn parse_chain(first: u8, bytes: &[u8]) -> Result<Chain> {
    let mut chain = Chain::default();
    let mut reader = Reader::new(bytes);
    let mut next = first;
    let mut count = 0_usize;
    while next != number::NONE {
        count += 1;
        if count > MAX_PAYLOADS {
            return Err(Error::Malformed("too many payloads"));
        }
        let header_offset_bytes = bytes.len() - reader.remaining();
        let this = next;
        next = reader.u8("payload header")?;
        let critical = reader.u8("payload header")? & 0x80 != 0;
        let length = usize::from(reader.u16("payload header")?);
        let body_length = length.checked_sub(4).ok_or(Error::Malformed("payload length"))?;
        let body = reader.take(body_length, "payload length")?;
        if this == number::SK || this == number::SKF {
            let mut body_offset_bytes = header_offset_bytes + 4;
            let mut fragment = None;
            if this == number::SKF {
                let mut head = Reader::new(body);
                let (index, total) = (head.u16("fragment number")?, head.u16("total fragments")?);
                if index == 0 || total == 0 || index > total {
                    return Err(Error::Malformed("fragment number"));
                }
                fragment = Some((index, total));
                body_offset_bytes += 4;
            }
            if !reader.is_empty() {
                return Err(Error::Malformed("bytes after the encrypted payload"));
            }
            chain.encrypted = Some(EncryptedPart {
                first_inner: next,
                fragment,
                header_offset_bytes,
                body_offset_bytes,
            });
            return Ok(chain);
        }
        match parse_body(this, body)? {
            Some(payload) => chain.payloads.push(payload),
            None if critical => return Err(Error::UnsupportedCriticalPayload(this)),
            None => {}
        }
    }
    if !reader.is_empty() {
        return Err(Error::Malformed("bytes after the last payload"));
    }
    Ok(chain)
}

fn parse_body(this: u8, body: &[u8]) -> Result<Option<Payload>> {
    Ok(Some(match this {
        number::SA => Payload::Sa(SaPayload::parse(body)?),
        number::KE => Payload::Ke(KePayload::parse(body)?),
        number::ID_I => Payload::IdI(Identity::parse(body)?),
        number::ID_R => Payload::IdR(Identity::parse(body)?),
        number::CERT => Payload::Cert(CertPayload::parse(body)?),
        number::CERTREQ => Payload::CertRequest(CertRequestPayload::parse(body)?),
        number::AUTH => Payload::Auth(AuthPayload::parse(body)?),
        number::NONCE => {
            if !NONCE_BYTES.contains(&body.len()) {
                return Err(Error::Malformed("nonce length"));
            }
            Payload::Nonce(body.to_vec())
        }
        number::NOTIFY => Payload::Notify(NotifyPayload::parse(body)?),
        number::DELETE => Payload::Delete(DeletePayload::parse(body)?),
        number::VENDOR_ID => Payload::VendorId(body.to_vec()),
        number::TS_I => Payload::TsI(TsPayload::parse(body)?),
        number::TS_R => Payload::TsR(TsPayload::parse(body)?),
        number::CP => Payload::Configuration(ConfigurationPayload::parse(body)?),
        number::EAP => Payload::Eap(EapPacket::parse(body)?),
        _ => return Ok(None),
    }))
}

/// Writes the generic header of a payload whose body is yet to come; returns where its length field is.
pub(crate) fn begin_payload(next: u8, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[next, 0, 0, 0]);
    out.len() - 2
}

/// Fills in the length of the payload begun at `length_at`. A body beyond 64 KiB cannot be expressed and is cut
/// short by the field: callers keep every body below that.
pub(crate) fn end_payload(length_at: usize, out: &mut [u8]) {
    let length = out.len() + 2 - length_at;
    let field = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(slot) = out.get_mut(length_at..length_at + 2) {
        slot.copy_from_slice(&field);
    }
}

/// Emits a chain; returns the type of the first payload, for the header before it.
pub fn emit_chain(payloads: &[Payload], out: &mut Vec<u8>) -> u8 {
    for (index, payload) in payloads.iter().enumerate() {
        let next = payloads.get(index + 1).map_or(number::NONE, Payload::number);
        let length_at = begin_payload(next, out);
        payload.emit_body(out);
        end_payload(length_at, out);
    }
    payloads.first().map_or(number::NONE, Payload::number)
}

#[cfg(test)]
mod tests {
    use super::notify::NotifyType;
    use super::*;

    fn notify(n: u16) -> Payload {
        Payload::Notify(NotifyPayload::status(NotifyType(n), vec![1, 2]))
    }

    #[test]
    fn chain_round_trips() {
        let payloads = vec![
            Payload::Nonce(vec![7; 32]),
            notify(16384),
            Payload::VendorId(b"penstock".to_vec()),
        ];
        let mut bytes = Vec::new();
        let first = emit_chain(&payloads, &mut bytes);
        assert_eq!(parse_chain(first, &bytes).unwrap().payloads, payloads);
    }

    #[test]
    fn fault_10_more_payloads_than_the_bound() {
        let payloads: Vec<_> = (0..MAX_PAYLOADS + 1).map(|_| notify(1)).collect();
        let mut bytes = Vec::new();
        let first = emit_chain(&payloads, &mut bytes);
        assert_eq!(
            parse_chain(first, &bytes),
            Err(Error::Malformed("too many payloads"))
        );
        let mut bytes = Vec::new();
        let first = emit_chain(&payloads[1..], &mut bytes);
        assert_eq!(parse_chain(first, &bytes).unwrap().payloads.len(), MAX_PAYLOADS);
    }

    #[test]
    fn fault_11_unknown_critical_payload() {
        assert_eq!(
            parse_chain(200, &[0, 0x80, 0, 4]),
            Err(Error::UnsupportedCriticalPayload(200))
        );
        assert_eq!(parse_chain(200, &[0, 0x7f, 0, 4]).unwrap(), Chain::default());
        // A known payload with the critical and reserved bits set is read as usual.
        let mut bytes = vec![0, 0xff, 0, 20];
        bytes.extend_from_slice(&[9; 16]);
        assert_eq!(
            parse_chain(number::NONCE, &bytes).unwrap().payloads,
            vec![Payload::Nonce(vec![9; 16])]
        );
    }

    #[test]
    fn fault_03_ikev1_payload_types_are_unknown() {
        // 1 (SA) to 13 (Vendor ID), 20 (NAT-D), 130 (draft NAT-D) of IKEv1.
        for old in (1..=13).chain([20, 21, 130, 131]) {
            assert_eq!(
                parse_chain(old, &[0, 0, 0, 8, 1, 2, 3, 4]).unwrap(),
                Chain::default()
            );
        }
    }

    #[test]
    fn fault_13_fragment_numbers() {
        for (index, total) in [(0, 1), (1, 0), (3, 2), (0, 0)] {
            let mut body = vec![35, 0, 0, 40, 0, index, 0, total];
            body.extend_from_slice(&[0; 32]);
            assert_eq!(
                parse_chain(number::SKF, &body),
                Err(Error::Malformed("fragment number"))
            );
        }
    }

    #[test]
    fn fault_17_payload_length_below_its_header() {
        for length in 0..4 {
            assert_eq!(
                parse_chain(number::NONCE, &[0, 0, 0, length]),
                Err(Error::Malformed("payload length"))
            );
        }
        assert_eq!(
            parse_chain(number::NONCE, &[0, 0, 0xff, 0xff, 1]),
            Err(Error::Malformed("payload length"))
        );
    }
}
