//! Notify payload (RFC 7296 section 3.10) and its types.
//!
//! ```text
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Protocol ID  |   SPI Size    |      Notify Message Type      |
//! +---------------+---------------+-------------------------------+
//! |                Security Parameter Index (SPI)                 ~
//! +---------------------------------------------------------------+
//! |                       Notification Data                       ~
//! ```

use std::fmt;

use crate::error::{Error, Result};
use crate::reader::Reader;

use super::sa::Protocol;

/// A Notify message type; unknown values survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifyType(pub u16);

macro_rules! notify_types {
    ($($name:ident = $value:literal),* $(,)?) => {
        #[expect(missing_docs, reason = "the IANA registry \"IKEv2 Notify Message Types\" gives each name its RFC")]
        impl NotifyType {
            $(pub const $name: Self = Self($value);)*

            /// The registered name, where known.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

notify_types! {
    UNSUPPORTED_CRITICAL_PAYLOAD = 1,
    INVALID_IKE_SPI = 4,
    INVALID_MAJOR_VERSION = 5,
    INVALID_SYNTAX = 7,
    INVALID_MESSAGE_ID = 9,
    INVALID_SPI = 11,
    NO_PROPOSAL_CHOSEN = 14,
    INVALID_KE_PAYLOAD = 17,
    AUTHENTICATION_FAILED = 24,
    SINGLE_PAIR_REQUIRED = 34,
    NO_ADDITIONAL_SAS = 35,
    INTERNAL_ADDRESS_FAILURE = 36,
    FAILED_CP_REQUIRED = 37,
    TS_UNACCEPTABLE = 38,
    INVALID_SELECTORS = 39,
    UNACCEPTABLE_ADDRESSES = 40,
    UNEXPECTED_NAT_DETECTED = 41,
    TEMPORARY_FAILURE = 43,
    CHILD_SA_NOT_FOUND = 44,
    STATE_NOT_FOUND = 47,
    TS_MAX_QUEUE = 48,
    INITIAL_CONTACT = 16384,
    SET_WINDOW_SIZE = 16385,
    ADDITIONAL_TS_POSSIBLE = 16386,
    IPCOMP_SUPPORTED = 16387,
    NAT_DETECTION_SOURCE_IP = 16388,
    NAT_DETECTION_DESTINATION_IP = 16389,
    COOKIE = 16390,
    USE_TRANSPORT_MODE = 16391,
    HTTP_CERT_LOOKUP_SUPPORTED = 16392,
    REKEY_SA = 16393,
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
    NON_FIRST_FRAGMENTS_ALSO = 16395,
    MOBIKE_SUPPORTED = 16396,
    ADDITIONAL_IP4_ADDRESS = 16397,
    ADDITIONAL_IP6_ADDRESS = 16398,
    NO_ADDITIONAL_ADDRESSES = 16399,
    UPDATE_SA_ADDRESSES = 16400,
    COOKIE2 = 16401,
    NO_NATS_ALLOWED = 16402,
    AUTH_LIFETIME = 16403,
    MULTIPLE_AUTH_SUPPORTED = 16404,
    REDIRECT_SUPPORTED = 16406,
    REDIRECT = 16407,
    REDIRECTED_FROM = 16408,
    EAP_ONLY_AUTHENTICATION = 16417,
    CHILDLESS_IKEV2_SUPPORTED = 16418,
    IKEV2_FRAGMENTATION_SUPPORTED = 16430,
    SIGNATURE_HASH_ALGORITHMS = 16431,
    USE_PPK = 16435,
    PPK_IDENTITY = 16436,
    NO_PPK_AUTH = 16437,
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
    ADDITIONAL_KEY_EXCHANGE = 16441,
    SA_RESOURCE_INFO = 16444,
}

impl NotifyType {
    /// Types below 16384 report an error (RFC 7296 section 3.10.1).
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl fmt::Display for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "notify {}", self.0),
        }
    }
}

impl fmt::Debug for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyPayload {
    /// The protocol of the SA meant, where there is an SPI; otherwise zero.
    pub protocol: Protocol,
    /// The SA meant: empty or, for a Child SA, 4 bytes.
    pub spi: Vec<u8>,
    /// The type.
    pub kind: NotifyType,
    /// Data whose form the type fixes.
    pub data: Vec<u8>,
}

impl NotifyPayload {
    /// A notification that concerns no particular Child SA.
    pub fn status(kind: NotifyType, data: Vec<u8>) -> Self {
        Self {
            protocol: Protocol(0),
            spi: Vec::new(),
            kind,
            data,
        }
    }

    /// A notification about the ESP SA that the sender receives on `spi`.
    pub fn about_child(kind: NotifyType, spi: u32) -> Self {
        Self {
            protocol: Protocol::ESP,
            spi: spi.to_be_bytes().to_vec(),
            kind,
            data: Vec::new(),
        }
    }

    /// The SPI of an ESP SA, if this is what the notification names.
    pub fn esp_spi(&self) -> Option<u32> {
        match (self.protocol, <[u8; 4]>::try_from(self.spi.as_slice())) {
            (Protocol::ESP, Ok(spi)) => Some(u32::from_be_bytes(spi)),
            _ => None,
        }
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let protocol = Protocol(reader.u8("notify protocol")?);
        let spi_size = usize::from(reader.u8("notify SPI size")?);
        let kind = NotifyType(reader.u16("notify type")?);
        // RFC 7296 section 3.10: 0 for the IKE SA, 4 for AH and ESP; 8 is seen from some for the IKE SA.
        if !matches!(spi_size, 0 | 4 | 8) {
            return Err(Error::Malformed("notify SPI size"));
        }
        let spi = reader.take(spi_size, "notify SPI")?.to_vec();
        let data = reader.finish().to_vec();
        match kind {
            // SHA-1 digests by definition (RFC 7296 section 2.23).
            NotifyType::NAT_DETECTION_SOURCE_IP | NotifyType::NAT_DETECTION_DESTINATION_IP
                if data.len() != 20 =>
            {
                Err(Error::Malformed("NAT detection hash"))
            }
            _ => Ok(Self {
                protocol,
                spi,
                kind,
                data,
            }),
        }
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.protocol.0);
        out.push(u8::try_from(self.spi.len()).unwrap_or(0));
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_07_truncated_notify_and_nat_hash() {
        assert!(NotifyPayload::parse(&[0, 0, 64]).is_err());
        assert!(NotifyPayload::parse(&[3, 4, 64, 9, 1, 2, 3]).is_err());
        for length in [0, 19, 21] {
            let mut bytes = vec![0, 0, 0x40, 0x04];
            bytes.extend(vec![0; length]);
            assert_eq!(
                NotifyPayload::parse(&bytes),
                Err(Error::Malformed("NAT detection hash"))
            );
        }
    }

    #[test]
    fn fault_09_rekey_sa_of_another_protocol_names_no_child() {
        for protocol in [0, 1, 2, 200] {
            let notify = NotifyPayload::parse(&[protocol, 4, 0x40, 0x09, 1, 2, 3, 4]).unwrap();
            assert_eq!(notify.esp_spi(), None);
        }
        assert_eq!(
            NotifyPayload::parse(&[3, 4, 0x40, 0x09, 0, 0, 1, 2])
                .unwrap()
                .esp_spi(),
            Some(0x102)
        );
    }
}
