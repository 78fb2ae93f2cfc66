//! The ESP transforms and their sizes.
//!
//! Every size a caller needs to lay out a packet or to cut IKEv2 KEYMAT is a `const fn` here, taken from
//! the RFC that defines the transform. Key material is expected in the order of RFC 7296 §2.17:
//! the encryption key, its salt or nonce if the transform has one, then the integrity key.

/// The length of an AES key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AesKey {
    /// AES-128.
    Bits128,
    /// AES-192.
    Bits192,
    /// AES-256.
    Bits256,
}

impl AesKey {
    /// Every key length.
    pub const ALL: [Self; 3] = [Self::Bits128, Self::Bits192, Self::Bits256];

    /// Length of the key in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits192 => 24,
            Self::Bits256 => 32,
        }
    }
}

/// A keyed hash that protects integrity beside a cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hmac {
    /// HMAC-SHA1-96 (RFC 2404).
    Sha1_96,
    /// HMAC-SHA-256-128 (RFC 4868).
    Sha256_128,
    /// HMAC-SHA-384-192 (RFC 4868).
    Sha384_192,
    /// HMAC-SHA-512-256 (RFC 4868).
    Sha512_256,
}

impl Hmac {
    /// Every hash.
    pub const ALL: [Self; 4] = [
        Self::Sha1_96,
        Self::Sha256_128,
        Self::Sha384_192,
        Self::Sha512_256,
    ];

    /// Length of the integrity key in bytes: the hash's output length (RFC 2404 §3, RFC 4868 §2.1.1).
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Sha1_96 => 20,
            Self::Sha256_128 => 32,
            Self::Sha384_192 => 48,
            Self::Sha512_256 => 64,
        }
    }

    /// Length of the truncated ICV in bytes (RFC 2404 §2, RFC 4868 §2.3).
    #[must_use]
    pub const fn icv_bytes(self) -> usize {
        match self {
            Self::Sha1_96 => 12,
            Self::Sha256_128 => 16,
            Self::Sha384_192 => 24,
            Self::Sha512_256 => 32,
        }
    }
}

/// An ESP transform: a combined-mode algorithm, or a cipher with a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// AES-GCM with a 16-byte ICV (RFC 4106).
    AesGcm16(AesKey),
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-GMAC: integrity only (RFC 4543).
    AesGmac(AesKey),
    /// AES-CBC (RFC 3602) with a HMAC.
    AesCbc(AesKey, Hmac),
    /// AES-CTR (RFC 3686) with a HMAC.
    AesCtr(AesKey, Hmac),
    /// No encryption (RFC 2410) with a HMAC.
    Null(Hmac),
}

/// Length of the ESP header: SPI and sequence number (RFC 4303 §2).
pub const ESP_HEADER_BYTES: usize = 8;

/// The longest packet a job may carry, from the ESP header to the end of the ICV.
pub const MAX_PACKET_BYTES: usize = 1 << 16;

impl Algorithm {
    /// Every transform this crate implements.
    pub const ALL: [Self; Self::COUNT] = Self::all();
    const COUNT: usize = 3 + 1 + 3 + 12 + 12 + 4;

    const fn all() -> [Self; Self::COUNT] {
        let mut all = [Self::ChaCha20Poly1305; Self::COUNT];
        let mut next = 1;
        let mut k = 0;
        while k < AesKey::ALL.len() {
            let key = AesKey::ALL[k];
            all[next] = Self::AesGcm16(key);
            all[next + 1] = Self::AesGmac(key);
            next += 2;
            let mut h = 0;
            while h < Hmac::ALL.len() {
                all[next] = Self::AesCbc(key, Hmac::ALL[h]);
                all[next + 1] = Self::AesCtr(key, Hmac::ALL[h]);
                next += 2;
                h += 1;
            }
            k += 1;
        }
        let mut h = 0;
        while h < Hmac::ALL.len() {
            all[next] = Self::Null(Hmac::ALL[h]);
            next += 1;
            h += 1;
        }
        assert!(next == Self::COUNT);
        all
    }

    /// Length of the IV that each packet carries after the ESP header.
    #[must_use]
    pub const fn iv_bytes(self) -> usize {
        match self {
            // RFC 4106 §3.1, RFC 7634 §2, RFC 4543 §3.1, RFC 3686 §3.1.
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 | Self::AesGmac(_) | Self::AesCtr(..) => 8,
            // RFC 3602 §3.
            Self::AesCbc(..) => 16,
            Self::Null(_) => 0,
        }
    }

    /// Length of the ICV at the end of each packet.
    #[must_use]
    pub const fn icv_bytes(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 | Self::AesGmac(_) => 16,
            Self::AesCbc(_, hmac) | Self::AesCtr(_, hmac) | Self::Null(hmac) => hmac.icv_bytes(),
        }
    }

    /// What the length of payload, padding, pad length and next header together must be a multiple of:
    /// the cipher's block, and never less than 4 (RFC 4303 §2.4).
    #[must_use]
    pub const fn alignment_bytes(self) -> usize {
        match self {
            Self::AesCbc(..) => 16,
            _ => 4,
        }
    }

    /// Length of the cipher key, without salt; 0 for NULL.
    #[must_use]
    pub const fn cipher_key_bytes(self) -> usize {
        match self {
            Self::AesGcm16(key) | Self::AesGmac(key) | Self::AesCbc(key, _) | Self::AesCtr(key, _) => {
                key.bytes()
            }
            Self::ChaCha20Poly1305 => 32,
            Self::Null(_) => 0,
        }
    }

    /// Length of the salt or nonce that follows the cipher key in KEYMAT
    /// (RFC 4106 §8.1, RFC 7634 §2, RFC 4543 §5.2, RFC 3686 §5.1).
    #[must_use]
    pub const fn salt_bytes(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::AesGmac(_) | Self::ChaCha20Poly1305 | Self::AesCtr(..) => 4,
            Self::AesCbc(..) | Self::Null(_) => 0,
        }
    }

    /// Length of the integrity key; 0 for combined modes.
    #[must_use]
    pub const fn integrity_key_bytes(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::AesGmac(_) | Self::ChaCha20Poly1305 => 0,
            Self::AesCbc(_, hmac) | Self::AesCtr(_, hmac) | Self::Null(hmac) => hmac.key_bytes(),
        }
    }

    /// Length of the whole key material: cipher key, salt, integrity key.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        self.cipher_key_bytes() + self.salt_bytes() + self.integrity_key_bytes()
    }

    /// Bytes a packet has besides the ciphertext: ESP header, IV and ICV.
    #[must_use]
    pub const fn overhead_bytes(self) -> usize {
        ESP_HEADER_BYTES + self.iv_bytes() + self.icv_bytes()
    }

    /// Length of the ciphertext (payload, padding, pad length, next header) in a packet of `packet_bytes`,
    /// or `None` where the length is impossible for this transform.
    #[must_use]
    pub const fn text_bytes(self, packet_bytes: usize) -> Option<usize> {
        if packet_bytes > MAX_PACKET_BYTES {
            return None;
        }
        let Some(text) = packet_bytes.checked_sub(self.overhead_bytes()) else {
            return None;
        };
        match self {
            Self::AesCbc(..) if text == 0 || !text.is_multiple_of(16) => None,
            _ => Some(text),
        }
    }
}

/// An algorithm together with what is authenticated beside the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Extended sequence numbers: the high half of the 64-bit number is authenticated
    /// (RFC 4303 §2.2.1, RFC 4106 §5).
    pub esn: bool,
}

impl Transform {
    /// A transform of `algorithm`, with or without extended sequence numbers.
    #[must_use]
    pub const fn new(algorithm: Algorithm, esn: bool) -> Self {
        Self { algorithm, esn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transform_is_listed_once() {
        for (i, a) in Algorithm::ALL.iter().enumerate() {
            assert!(!Algorithm::ALL[..i].contains(a), "{a:?} twice");
        }
    }

    #[test]
    fn keymat_lengths_are_those_of_the_rfcs() {
        // RFC 4106 §8.1: 20, 28, 36 octets; RFC 7634 §2: 36 octets; RFC 3686 §5.1: 20 for AES-128.
        assert_eq!(Algorithm::AesGcm16(AesKey::Bits128).key_bytes(), 20);
        assert_eq!(Algorithm::AesGcm16(AesKey::Bits192).key_bytes(), 28);
        assert_eq!(Algorithm::AesGmac(AesKey::Bits256).key_bytes(), 36);
        assert_eq!(Algorithm::ChaCha20Poly1305.key_bytes(), 36);
        assert_eq!(Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha1_96).key_bytes(), 36);
        assert_eq!(
            Algorithm::AesCtr(AesKey::Bits128, Hmac::Sha512_256).key_bytes(),
            84
        );
        assert_eq!(Algorithm::Null(Hmac::Sha384_192).key_bytes(), 48);
    }

    #[test]
    fn impossible_lengths_have_no_text() {
        for a in Algorithm::ALL {
            assert_eq!(a.text_bytes(a.overhead_bytes() - 1), None);
            assert_eq!(a.text_bytes(MAX_PACKET_BYTES + 1), None);
            assert_eq!(a.text_bytes(a.overhead_bytes() + 16), Some(16));
        }
        let cbc = Algorithm::AesCbc(AesKey::Bits128, Hmac::Sha1_96);
        assert_eq!(cbc.text_bytes(cbc.overhead_bytes()), None);
        assert_eq!(cbc.text_bytes(cbc.overhead_bytes() + 20), None);
    }
}
