//! Distinguished names: from text, as text, and compared (RFC 5280 section 7.1).

use std::collections::BTreeSet;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{Name, RdnSequence};

/// The value of an attribute as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    /// Text without case, with single spaces, whatever string type it came in.
    Text(String),
    /// Anything else, byte by byte.
    Other(Tag, Vec<u8>),
}

impl Value {
    fn of(attribute: &AttributeTypeAndValue) -> Self {
        let (tag, bytes) = (attribute.value.tag(), attribute.value.value());
        let text = match tag {
            Tag::Utf8String
            | Tag::PrintableString
            | Tag::Ia5String
            | Tag::NumericString
            | Tag::VisibleString => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
            Tag::BmpString if bytes.len().is_multiple_of(2) => {
                let units: Vec<u16> = bytes
                    .chunks_exact(2)
                    .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                    .collect();
                String::from_utf16(&units).ok()
            }
            _ => None,
        };
        match text {
            Some(text) => {
                let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
                Self::Text(words.join(" "))
            }
            None => Self::Other(tag, bytes.to_vec()),
        }
    }
}

/// A name as it is compared: its relative names in order, each a set of attributes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Comparable(Vec<BTreeSet<(ObjectIdentifier, Value)>>);

impl Comparable {
    /// Of a name in DER; `None` where it is none.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let name = Name::from_der(der).ok()?;
        let attributes = name.iter_rdn().map(|relative| {
            let pairs = relative.iter().map(|pair| (pair.oid, Value::of(pair)));
            pairs.collect()
        });
        Some(Self(attributes.collect()))
    }

    fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }

    /// The same for a name and for the one in the opposite order.
    pub(crate) fn without_direction(self) -> Self {
        let reversed = self.reversed();
        self.min(reversed)
    }
}

/// Whether two names in DER are the same (RFC 5280 section 7.1): the same attributes in the same order; string types, case
/// and runs of spaces do not count. Unicode is not normalised beyond case.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a == b || matches!((Comparable::of(a), Comparable::of(b)), (Some(a), Some(b)) if a == b)
}

/// The same, where one of them may have been written in the opposite order.
pub(crate) fn same_in_either_order(a: &[u8], b: &[u8]) -> bool {
    match (Comparable::of(a), Comparable::of(b)) {
        (Some(a), Some(b)) => a.without_direction() == b.without_direction(),
        _ => a == b,
    }
}

/// How general the attribute of a relative name is: countries come before organisations before people.
fn generality(relative: &str) -> u8 {
    let name = relative.split_once('=').map_or("", |(name, _)| name);
    match name.trim().to_ascii_uppercase().as_str() {
        "C" | "DC" => 0,
        "ST" => 1,
        "L" => 2,
        "STREET" => 3,
        "O" => 4,
        "OU" => 5,
        _ => 6,
    }
}

/// The DER of a name in text, in either of the ways that people write names: the most particular attribute first (RFC
/// 4514, `CN=gw, O=Example, C=DE`), or the most general one first, as certificates have them and strongSwan and OpenSSL
/// print them (`C=DE, O=Example, CN=gw`). `None` where it is no name.
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    // Spaces about commas and equals signs are common, and not in the grammar.
    let mut packed = text.trim().to_owned();
    for (spaced, tight) in [(", ", ","), (" ,", ","), (" =", "="), ("= ", "=")] {
        while packed.contains(spaced) {
            packed = packed.replace(spaced, tight);
        }
    }
    let parsed: RdnSequence = packed.parse().ok()?;
    let (first, last) = (packed.split(',').next()?, packed.rsplit(',').next()?);
    let mut relative: Vec<_> = parsed.iter().cloned().collect();
    if generality(first) < generality(last) {
        // The parser took it for RFC 4514's order.
        relative.reverse();
    }
    let mut name = RdnSequence::default();
    relative.into_iter().for_each(|part| name.push(part));
    name.to_der().ok().filter(|_| !name.is_empty())
}

/// A distinguished name in DER as text for logs; control characters never get through.
pub(crate) fn display(der: &[u8]) -> String {
    match Name::from_der(der) {
        Ok(name) => printable(&name),
        Err(_) => format!("unreadable name of {} bytes", der.len()),
    }
}

/// The same of a name that was read.
pub(crate) fn printable(name: &Name) -> String {
    name.to_string().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(text: &str) -> Vec<u8> {
        from_text(text).unwrap()
    }

    /// A name of one commonName with this string type.
    fn common_name(tag: u8, value: &[u8]) -> Vec<u8> {
        let length = value.len() as u8;
        let mut der = vec![
            0x30,
            length + 11,
            0x31,
            length + 9,
            0x30,
            length + 7,
            6,
            3,
            0x55,
            4,
            3,
            tag,
            length,
        ];
        der.extend_from_slice(value);
        der
    }

    #[test]
    fn both_orders_of_text_are_the_certificate_s() {
        let openssl = der("C = DE, O = Example Org, CN = gw");
        assert_eq!(openssl, der("CN=gw,O=Example Org,C=DE"));
        assert_eq!(openssl[4..11], [0x30, 9, 6, 3, 0x55, 4, 6], "country first");
        assert_eq!(der("DC=org,DC=example,CN=gw"), der("CN=gw,DC=example,DC=org"));
        for no in ["gw", "frob=gw", "", "CN", "C=DE,,CN=gw"] {
            assert!(from_text(no).is_none(), "{no}");
        }
    }

    #[test]
    fn rfc_5280_section_7_1() {
        assert!(same(&der("CN=GW  One, O=Example"), &der("cn=gw one, o=EXAMPLE")));
        assert!(!same(&der("CN=gw, O=Example"), &der("CN=gw, OU=Example")));
        assert!(!same(&der("CN=gw, O=Example"), &der("CN=gw")));
        assert!(!same(&der("CN=gw one"), &der("CN=gwone")));
        // The order of relative names counts, that of attributes in one does not.
        let (a, b) = (der("CN=a,CN=b"), der("CN=b,CN=a"));
        assert!(!same(&a, &b));
        assert!(same_in_either_order(&a, &b));
        assert!(same(&der("CN=a+UID=b,O=c"), &der("UID=b+CN=a,O=c")));
        assert!(!same(&der("CN=a+UID=b,O=c"), &der("CN=a,UID=b,O=c")));
        // String types do not count: PrintableString, UTF8String, TeletexString, BMPString.
        let utf8 = common_name(12, "Gär".as_bytes());
        assert!(same(&utf8, &common_name(20, b"g\xe4r")));
        assert!(same(&utf8, &common_name(30, b"\0G\0\xc4\0R")));
        assert!(same(&common_name(19, b"GW "), &common_name(12, b"gw")));
        assert!(!same(&common_name(30, b"\0G\0"), &common_name(12, b"G")));
        // What is no text is compared as it is.
        assert!(!same(&common_name(4, b"gw"), &common_name(4, b"GW")));
        assert!(!same(&[0x30, 0x80], &[0x30]));
    }
}
