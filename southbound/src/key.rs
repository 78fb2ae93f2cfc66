//! Key material that is never printed and does not outlive its use.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Secret bytes: zeroed on drop, redacted in `Debug`, compared in constant time.
///
/// For an SA these are the bytes that IKEv2 takes from KEYMAT (RFC 7296 section 2.17): the encryption
/// key, its salt or nonce where the cipher has one, then the integrity key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial(Vec<u8>);

impl KeyMaterial {
    /// Takes the bytes over; the caller's own copies remain the caller's to erase.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes, which is not secret.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl PartialEq for KeyMaterial {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .fold(0u8, |difference, (a, b)| difference | (a ^ b))
                == 0
    }
}

impl Eq for KeyMaterial {}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyMaterial([redacted], {} bytes)", self.0.len())
    }
}

impl Serialize for KeyMaterial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyMaterial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte_of_the_key() {
        let key = KeyMaterial::new(vec![0xab; 20]);
        assert_eq!(format!("{key:?}"), "KeyMaterial([redacted], 20 bytes)");
    }

    #[test]
    fn equality_looks_at_every_byte_and_the_length() {
        let key = KeyMaterial::new(vec![1, 2, 3]);
        assert_eq!(key, KeyMaterial::new(vec![1, 2, 3]));
        assert_ne!(key, KeyMaterial::new(vec![1, 2, 4]));
        assert_ne!(key, KeyMaterial::new(vec![1, 2]));
    }
}
