//! Identification payload (RFC 7296 section 3.5).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::name;
use crate::reader::Reader;

/// Who a peer says it is. Equality is of the wire form, except that names compare without case, and distinguished names
/// by their attributes (RFC 5280 section 7.1), in either order: whoever wrote the configuration may have seen the name either
/// way. Whether a certificate bears a name is asked more strictly, by [`crate::Certificate::names`].
#[derive(Clone, Eq)]
pub enum Identity {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A fully qualified domain name.
    Fqdn(String),
    /// A mail address (ID_RFC822_ADDR).
    Email(String),
    /// The DER encoding of a distinguished name.
    DistinguishedName(Vec<u8>),
    /// Opaque bytes (ID_KEY_ID).
    KeyId(Vec<u8>),
    /// Any other type.
    Other(u8, Vec<u8>),
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(a), Self::Address(b)) => a == b,
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::Email(a), Self::Email(b)) => a.eq_ignore_ascii_case(b),
            (Self::DistinguishedName(a), Self::DistinguishedName(b)) => name::same_in_either_order(a, b),
            (Self::KeyId(a), Self::KeyId(b)) => a == b,
            (Self::Other(x, a), Self::Other(y, b)) => x == y && a == b,
            _ => false,
        }
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind().hash(state);
        match self {
            Self::Address(address) => address.hash(state),
            Self::Fqdn(text) | Self::Email(text) => text.to_ascii_lowercase().hash(state),
            Self::DistinguishedName(der) => match name::Comparable::of(der) {
                Some(comparable) => comparable.without_direction().hash(state),
                None => der.hash(state),
            },
            Self::KeyId(data) | Self::Other(_, data) => data.hash(state),
        }
    }
}

impl FromStr for Identity {
    type Err = Error;

    /// As [`Self::from_text`], but text that looks like a distinguished name has to be one.
    fn from_str(text: &str) -> Result<Self> {
        let identity = Self::from_text(text);
        let is_name = text.contains('=') && !text.starts_with('@');
        match &identity {
            _ if text.trim().is_empty() => Err(Error::Local("an identity cannot be empty".into())),
            Self::Fqdn(_) | Self::Email(_) if is_name => Err(Error::Local(format!(
                "{text:?} is no distinguished name: expected attributes as in \"CN=gw, O=Example, C=DE\" (RFC 4514)"
            ))),
            _ => Ok(identity),
        }
    }
}

impl Identity {
    /// Guesses the type from text: an address, `keyid:` (or strongSwan's `@#`) with hexadecimal digits, a distinguished name (with `=`, as
    /// `CN=gw, O=Example`, RFC 4514, or the other way round), a mail address (with `@`), else a domain name.
    pub fn from_text(text: &str) -> Self {
        if let Ok(address) = text.parse() {
            return Self::Address(address);
        }
        if let Some(hex) = text.strip_prefix("keyid:").or_else(|| text.strip_prefix("@#")) {
            let digits: Option<Vec<u8>> = (hex.len() % 2 == 0)
                .then(|| {
                    (0..hex.len())
                        .step_by(2)
                        .map(|i| {
                            hex.get(i..i + 2)
                                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                        })
                        .collect::<Option<Vec<u8>>>()
                })
                .flatten();
            return Self::KeyId(digits.unwrap_or_else(|| hex.as_bytes().to_vec()));
        }
        if let Some(name) = text.strip_prefix('@') {
            return Self::Fqdn(name.to_owned());
        }
        if let Some(der) = text.contains('=').then(|| name::from_text(text)).flatten() {
            return Self::DistinguishedName(der);
        }
        if text.contains('@') {
            Self::Email(text.to_owned())
        } else {
            Self::Fqdn(text.to_owned())
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Address(IpAddr::V4(_)) => 1,
            Self::Fqdn(_) => 2,
            Self::Email(_) => 3,
            Self::Address(IpAddr::V6(_)) => 5,
            Self::DistinguishedName(_) => 9,
            Self::KeyId(_) => 11,
            Self::Other(kind, _) => *kind,
        }
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let kind = reader.u8("identification type")?;
        reader.array::<3>("identification reserved")?;
        let data = reader.finish();
        let text = || {
            // Text with control characters would reach logs; a name has none.
            std::str::from_utf8(data)
                .ok()
                .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
                .map(str::to_owned)
                .ok_or(Error::Malformed("identification text"))
        };
        Ok(match kind {
            1 => Self::Address(Ipv4Addr::from(address(data)?).into()),
            5 => Self::Address(Ipv6Addr::from(address(data)?).into()),
            2 => Self::Fqdn(text()?),
            3 => Self::Email(text()?),
            9 => Self::DistinguishedName(data.to_vec()),
            11 => Self::KeyId(data.to_vec()),
            other => Self::Other(other, data.to_vec()),
        })
    }

    /// The payload body: type, reserved, data. This is what is signed (RFC 7296 section 2.15).
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind(), 0, 0, 0]);
        match self {
            Self::Address(IpAddr::V4(v4)) => out.extend_from_slice(&v4.octets()),
            Self::Address(IpAddr::V6(v6)) => out.extend_from_slice(&v6.octets()),
            Self::Fqdn(text) | Self::Email(text) => out.extend_from_slice(text.as_bytes()),
            Self::DistinguishedName(data) | Self::KeyId(data) | Self::Other(_, data) => {
                out.extend_from_slice(data);
            }
        }
    }

    /// The payload body as a vector.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.emit(&mut body);
        body
    }
}

fn address<const N: usize>(data: &[u8]) -> Result<[u8; N]> {
    data.try_into()
        .map_err(|_| Error::Malformed("identification address"))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Fqdn(text) | Self::Email(text) => f.write_str(text),
            Self::DistinguishedName(der) => f.write_str(&name::display(der)),
            Self::KeyId(data) => write!(f, "keyid:{}", crate::error::Hex(data)),
            Self::Other(kind, data) => write!(f, "type {kind}:{}", crate::error::Hex(data)),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        assert_eq!(
            Identity::from_text("192.0.2.1"),
            Identity::Address("192.0.2.1".parse().unwrap())
        );
        assert_eq!(
            Identity::from_text("gw.example.org"),
            Identity::Fqdn("GW.example.org".into())
        );
        assert_eq!(
            Identity::from_text("a@example.org"),
            Identity::Email("a@example.org".into())
        );
        for text in ["keyid:0aff", "@#0aff"] {
            assert_eq!(Identity::from_text(text), Identity::KeyId(vec![10, 255]));
        }
        let name = Identity::from_text("CN=gw, O=Example Org, C=DE");
        assert!(matches!(name, Identity::DistinguishedName(_)));
        assert_eq!(name, Identity::from_text("c=de,o=example org,cn=GW"));
        assert_ne!(name, Identity::from_text("CN=gw, O=Example, C=DE"));
        assert_ne!(name, Identity::from_text("CN=gw, O=Example Org"));
        assert_eq!(Identity::parse(&name.body()), Ok(name));
        assert!("CN=gw, frob=1".parse::<Identity>().is_err());
        assert!("".parse::<Identity>().is_err());
        assert_eq!("gw.example".parse(), Ok(Identity::from_text("GW.example")));
        assert_ne!(
            Identity::from_text("a.example"),
            Identity::Email("a.example".into())
        );
    }

    #[test]
    fn what_is_equal_is_found_again() {
        let known: std::collections::HashSet<_> = [
            "CN=gw, O=Example",
            "gw.Example",
            "a@example",
            "keyid:01",
            "192.0.2.1",
        ]
        .map(Identity::from_text)
        .into();
        for same in [
            "O=example, CN=GW",
            "GW.example",
            "A@example",
            "keyid:01",
            "192.0.2.1",
        ] {
            assert!(known.contains(&Identity::from_text(same)), "{same}");
        }
        assert!(!known.contains(&Identity::from_text("CN=gw")));
    }

    #[test]
    fn bodies_round_trip_and_lies_are_refused() {
        for id in ["192.0.2.1", "2001:db8::1", "gw.example.org", "a@b", "keyid:01"] {
            let id = Identity::from_text(id);
            assert_eq!(Identity::parse(&id.body()), Ok(id));
        }
        assert!(Identity::parse(&[1, 0, 0, 0, 1, 2, 3]).is_err());
        assert!(Identity::parse(&[5, 0, 0, 0, 1, 2, 3, 4]).is_err());
        assert!(Identity::parse(&[2, 0, 0, 0]).is_err());
        assert!(Identity::parse(&[2, 0, 0, 0, b'a', b'\n']).is_err());
        assert!(Identity::parse(&[2, 0, 0]).is_err());
    }
}
