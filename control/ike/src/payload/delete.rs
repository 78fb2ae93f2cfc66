//! Delete payload (RFC 7296 section 3.11).

use crate::error::{Error, Result};
use crate::reader::Reader;

use super::sa::Protocol;

/// The SAs that the sender closes: the IKE SA itself, or the sender's inbound Child SAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletePayload {
    /// The IKE SA of this message.
    IkeSa,
    /// Child SAs by the SPIs that the sender receives on.
    Children {
        /// AH or ESP.
        protocol: Protocol,
        /// The sender's inbound SPIs.
        spis: Vec<u32>,
    },
}

impl DeletePayload {
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let protocol = Protocol(reader.u8("delete protocol")?);
        let spi_size = reader.u8("delete SPI size")?;
        let count = usize::from(reader.u16("delete SPI count")?);
        match (protocol, spi_size) {
            (Protocol::IKE, 0) if count == 0 && reader.is_empty() => Ok(Self::IkeSa),
            (Protocol::AH | Protocol::ESP, 4) => {
                if reader.remaining() != count * 4 {
                    return Err(Error::Malformed("delete SPI count"));
                }
                let spis = (0..count)
                    .map(|_| reader.u32("delete SPI"))
                    .collect::<Result<_>>()?;
                Ok(Self::Children { protocol, spis })
            }
            _ => Err(Error::Malformed("delete protocol or SPI size")),
        }
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::IkeSa => out.extend_from_slice(&[Protocol::IKE.0, 0, 0, 0]),
            Self::Children { protocol, spis } => {
                out.extend_from_slice(&[protocol.0, 4]);
                out.extend_from_slice(&u16::try_from(spis.len()).unwrap_or(u16::MAX).to_be_bytes());
                spis.iter()
                    .for_each(|spi| out.extend_from_slice(&spi.to_be_bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_28_delete_count_must_match() {
        let wanted = DeletePayload::Children {
            protocol: Protocol::ESP,
            spis: vec![1, 2],
        };
        let mut bytes = Vec::new();
        wanted.emit(&mut bytes);
        assert_eq!(DeletePayload::parse(&bytes), Ok(wanted));
        bytes[3] = 3;
        assert!(DeletePayload::parse(&bytes).is_err());
        assert!(DeletePayload::parse(&[3, 8, 0, 0]).is_err());
        assert!(DeletePayload::parse(&[1, 0, 0, 1]).is_err());
    }
}
