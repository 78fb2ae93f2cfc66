//! Configuration payload (RFC 7296 section 3.15, RFC 8598).

use crate::error::Result;
use crate::reader::Reader;

/// Configuration payload types.
pub mod kind {
    /// The sender asks.
    pub const REQUEST: u8 = 1;
    /// The answer to a request.
    pub const REPLY: u8 = 2;
    /// The sender announces.
    pub const SET: u8 = 3;
    /// The answer to a set.
    pub const ACK: u8 = 4;
}

/// Attribute types.
pub mod attribute {
    /// An IPv4 address: 0 or 4 bytes.
    pub const INTERNAL_IP4_ADDRESS: u16 = 1;
    /// An IPv4 netmask.
    pub const INTERNAL_IP4_NETMASK: u16 = 2;
    /// An IPv4 DNS server.
    pub const INTERNAL_IP4_DNS: u16 = 3;
    /// An IPv6 address and prefix length: 0 or 17 bytes.
    pub const INTERNAL_IP6_ADDRESS: u16 = 8;
    /// An IPv6 DNS server.
    pub const INTERNAL_IP6_DNS: u16 = 10;
    /// An IPv4 network behind the gateway: address and netmask.
    pub const INTERNAL_IP4_SUBNET: u16 = 13;
    /// An IPv6 network behind the gateway: address and prefix length.
    pub const INTERNAL_IP6_SUBNET: u16 = 15;
    /// A domain that the internal DNS servers serve (RFC 8598).
    pub const INTERNAL_DNS_DOMAIN: u16 = 25;
}

/// Attributes and whether they ask or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationPayload {
    /// Request, reply, set or ack.
    pub kind: u8,
    /// Attribute type and value, in order.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl ConfigurationPayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let kind = reader.u8("configuration type")?;
        reader.array::<3>("configuration reserved")?;
        let mut attributes = Vec::new();
        while !reader.is_empty() {
            let attribute = reader.u16("configuration attribute")? & 0x7fff;
            let length = usize::from(reader.u16("configuration attribute length")?);
            attributes.push((
                attribute,
                reader.take(length, "configuration attribute value")?.to_vec(),
            ));
        }
        Ok(Self { kind, attributes })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind, 0, 0, 0]);
        for (attribute, value) in &self.attributes {
            out.extend_from_slice(&attribute.to_be_bytes());
            out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(value);
        }
    }

    /// The first value of an attribute.
    pub fn value(&self, attribute: u16) -> Option<&[u8]> {
        self.attributes
            .iter()
            .find(|(kind, _)| *kind == attribute)
            .map(|(_, value)| value.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_truncation() {
        let payload = ConfigurationPayload {
            kind: kind::REQUEST,
            attributes: vec![
                (attribute::INTERNAL_IP4_ADDRESS, vec![]),
                (attribute::INTERNAL_IP4_DNS, vec![1, 1, 1, 1]),
            ],
        };
        let mut bytes = Vec::new();
        payload.emit(&mut bytes);
        assert_eq!(ConfigurationPayload::parse(&bytes), Ok(payload));
        assert!(ConfigurationPayload::parse(&bytes[..bytes.len() - 1]).is_err());
        assert!(ConfigurationPayload::parse(&[1, 0]).is_err());
    }
}
