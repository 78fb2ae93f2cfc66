//! Security Association payload: proposals and their transforms (RFC 7296 section 3.3).

use std::fmt;

use crate::error::{Error, Result};
use crate::reader::Reader;

/// Proposals beyond this many in one payload are refused.
pub const MAX_PROPOSALS: usize = 128;

/// Protocol identifiers (RFC 7296 section 3.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// The IKE SA.
    pub const IKE: Self = Self(1);
    /// Authentication Header.
    pub const AH: Self = Self(2);
    /// Encapsulating Security Payload.
    pub const ESP: Self = Self(3);
}

/// Transform types (RFC 7296 section 3.3.2, RFC 9370 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransformType(pub u8);

impl TransformType {
    /// Encryption.
    pub const ENCR: Self = Self(1);
    /// Pseudorandom function.
    pub const PRF: Self = Self(2);
    /// Integrity.
    pub const INTEG: Self = Self(3);
    /// Key exchange method.
    pub const KE: Self = Self(4);
    /// Extended sequence numbers.
    pub const ESN: Self = Self(5);
    /// First additional key exchange; the following six are numbered on from it.
    pub const ADDKE1: Self = Self(6);
    /// Last additional key exchange.
    pub const ADDKE7: Self = Self(12);
}

/// One transform as it is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transform {
    /// The type.
    pub kind: TransformType,
    /// The identifier within the type.
    pub id: u16,
    /// Key length attribute in bits.
    pub key_bits: Option<u16>,
    /// An attribute was present that this implementation does not know: the transform must not be chosen
    /// (RFC 7296 section 3.3.6).
    pub unknown_attribute: bool,
}

impl Transform {
    /// A transform without attributes.
    pub const fn new(kind: TransformType, id: u16) -> Self {
        Self {
            kind,
            id,
            key_bits: None,
            unknown_attribute: false,
        }
    }

    /// A transform with a key length.
    pub const fn with_key(kind: TransformType, id: u16, key_bits: u16) -> Self {
        Self {
            kind,
            id,
            key_bits: Some(key_bits),
            unknown_attribute: false,
        }
    }
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.0, self.id)?;
        match self.key_bits {
            Some(bits) => write!(f, "/{bits}"),
            None => Ok(()),
        }
    }
}

/// One proposal: any one transform of each type may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The sender's number for it, which a choice repeats.
    pub number: u8,
    /// IKE, AH or ESP.
    pub protocol: Protocol,
    /// The sender's SPI: empty, 4 or 8 bytes.
    pub spi: Vec<u8>,
    /// The transforms in the sender's order.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The transforms of one type, in order.
    pub fn of_type(&self, kind: TransformType) -> impl Iterator<Item = Transform> + '_ {
        self.transforms.iter().copied().filter(move |t| t.kind == kind)
    }

    /// The SPI as that of an ESP SA; 0 to 255 are reserved and refused (RFC 4303 section 2.1).
    pub fn esp_spi(&self) -> Result<u32> {
        let spi = <[u8; 4]>::try_from(self.spi.as_slice()).map_err(|_| Error::Malformed("ESP SPI size"))?;
        match u32::from_be_bytes(spi) {
            0..=255 => Err(Error::Malformed("reserved ESP SPI")),
            spi => Ok(spi),
        }
    }

    /// The SPI as that of an IKE SA, which is never zero.
    pub fn ike_spi(&self) -> Result<u64> {
        let spi = <[u8; 8]>::try_from(self.spi.as_slice()).map_err(|_| Error::Malformed("IKE SPI size"))?;
        match u64::from_be_bytes(spi) {
            0 => Err(Error::Malformed("zero IKE SPI")),
            spi => Ok(spi),
        }
    }
}

/// The proposals of one negotiation, in the sender's order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaPayload {
    /// At least one proposal.
    pub proposals: Vec<Proposal>,
}

impl SaPayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let mut proposals = Vec::new();
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(Error::Malformed("too many proposals"));
            }
            let last = more_follows(reader.u8("proposal header")?, 2)?;
            reader.u8("proposal header")?;
            let length = usize::from(reader.u16("proposal length")?);
            let rest = length.checked_sub(4).ok_or(Error::Malformed("proposal length"))?;
            proposals.push(parse_proposal(reader.take(rest, "proposal length")?)?);
            if !last {
                break;
            }
        }
        if !reader.is_empty() {
            return Err(Error::Malformed("bytes after the last proposal"));
        }
        Ok(Self { proposals })
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        for (index, proposal) in self.proposals.iter().enumerate() {
            let start = out.len();
            let more = if index + 1 < self.proposals.len() { 2 } else { 0 };
            out.extend_from_slice(&[more, 0, 0, 0, proposal.number, proposal.protocol.0]);
            out.push(u8::try_from(proposal.spi.len()).unwrap_or(0));
            out.push(u8::try_from(proposal.transforms.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(&proposal.spi);
            for (index, transform) in proposal.transforms.iter().enumerate() {
                let more = if index + 1 < proposal.transforms.len() {
                    3
                } else {
                    0
                };
                let length = if transform.key_bits.is_some() { 12 } else { 8 };
                out.extend_from_slice(&[more, 0, 0, length, transform.kind.0, 0]);
                out.extend_from_slice(&transform.id.to_be_bytes());
                if let Some(bits) = transform.key_bits {
                    out.extend_from_slice(&(0x8000_u16 | ATTRIBUTE_KEY_LENGTH).to_be_bytes());
                    out.extend_from_slice(&bits.to_be_bytes());
                }
            }
            let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX).to_be_bytes();
            if let Some(field) = out.get_mut(start + 2..start + 4) {
                field.copy_from_slice(&length);
            }
        }
    }
}

const ATTRIBUTE_KEY_LENGTH: u16 = 14;

/// The "last substructure" byte: `more` where another follows, 0 at the end.
fn more_follows(byte: u8, more: u8) -> Result<bool> {
    match byte {
        0 => Ok(false),
        b if b == more => Ok(true),
        _ => Err(Error::Malformed("last substructure")),
    }
}

fn parse_proposal(bytes: &[u8]) -> Result<Proposal> {
    let mut reader = Reader::new(bytes);
    let number = reader.u8("proposal number")?;
    let protocol = Protocol(reader.u8("proposal protocol")?);
    let spi_size = usize::from(reader.u8("proposal SPI size")?);
    if !matches!(spi_size, 0 | 4 | 8) {
        return Err(Error::Malformed("proposal SPI size"));
    }
    let count = usize::from(reader.u8("transform count")?);
    let spi = reader.take(spi_size, "proposal SPI")?.to_vec();
    let mut transforms = Vec::with_capacity(count);
    for index in 0..count {
        let more = more_follows(reader.u8("transform header")?, 3)?;
        if more != (index + 1 < count) {
            return Err(Error::Malformed("transform count"));
        }
        reader.u8("transform header")?;
        let length = usize::from(reader.u16("transform length")?);
        let rest = length
            .checked_sub(4)
            .ok_or(Error::Malformed("transform length"))?;
        transforms.push(parse_transform(reader.take(rest, "transform length")?)?);
    }
    if !reader.is_empty() {
        return Err(Error::Malformed("bytes after the last transform"));
    }
    Ok(Proposal {
        number,
        protocol,
        spi,
        transforms,
    })
}

fn parse_transform(bytes: &[u8]) -> Result<Transform> {
    let mut reader = Reader::new(bytes);
    let kind = TransformType(reader.u8("transform type")?);
    reader.u8("transform reserved")?;
    let mut transform = Transform::new(kind, reader.u16("transform id")?);
    while !reader.is_empty() {
        let attribute = reader.u16("transform attribute")?;
        if attribute & 0x8000 == 0 {
            // Variable length form: none is defined for IKEv2.
            let length = usize::from(reader.u16("attribute length")?);
            reader.take(length, "attribute value")?;
            transform.unknown_attribute = true;
            continue;
        }
        let value = reader.u16("attribute value")?;
        match attribute & 0x7fff {
            ATTRIBUTE_KEY_LENGTH if transform.key_bits.is_none() => transform.key_bits = Some(value),
            _ => transform.unknown_attribute = true,
        }
    }
    Ok(transform)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SaPayload {
        SaPayload {
            proposals: vec![
                Proposal {
                    number: 1,
                    protocol: Protocol::ESP,
                    spi: vec![1, 2, 3, 4],
                    transforms: vec![
                        Transform::with_key(TransformType::ENCR, 20, 256),
                        Transform::new(TransformType::ESN, 0),
                    ],
                },
                Proposal {
                    number: 7,
                    protocol: Protocol::ESP,
                    spi: vec![0, 0, 0, 255],
                    transforms: vec![Transform::new(TransformType::ENCR, 28)],
                },
            ],
        }
    }

    #[test]
    fn round_trip() {
        let mut bytes = Vec::new();
        sample().emit(&mut bytes);
        assert_eq!(SaPayload::parse(&bytes), Ok(sample()));
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut bytes = Vec::new();
        sample().emit(&mut bytes);
        for end in 0..bytes.len() {
            assert!(SaPayload::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn spi_zero_and_reserved_are_refused() {
        let sample = sample();
        assert_eq!(sample.proposals[0].esp_spi(), Ok(0x0102_0304));
        assert!(sample.proposals[1].esp_spi().is_err());
        assert!(sample.proposals[0].ike_spi().is_err());
    }

    #[test]
    fn unknown_attributes_mark_the_transform() {
        // AES-CBC with key length and an attribute of type 99.
        let bytes = [1, 0, 0, 12, 0x80, 14, 0, 128, 0x80, 99, 0, 1];
        let transform = parse_transform(&bytes).unwrap();
        assert!(transform.unknown_attribute);
        assert_eq!(transform.key_bits, Some(128));
    }
}
