//! Pseudorandom functions and prf+ (RFC 7296 sections 2.13 and 2.14).

use aws_lc_rs::hmac;
use southbound::KeyMaterial;

use super::mac::{AesMac, AesMacKind, BLOCK_BYTES};

/// A negotiated pseudorandom function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Prf {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    AesXcbc,
    AesCmac,
}

/// A function with its key.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one computation"
)]
enum Keyed {
    Hmac(hmac::Key),
    /// `None` where the library refused: the result is then empty, and no exchange succeeds with it.
    Aes(Option<AesMac>),
}

impl Keyed {
    fn compute(&self, parts: &[&[u8]]) -> KeyMaterial {
        match self {
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                parts.iter().for_each(|part| context.update(part));
                KeyMaterial::new(context.sign().as_ref().to_vec())
            }
            Self::Aes(key) => {
                let secret = key.as_ref().and_then(|key| key.secret(parts).ok());
                secret.unwrap_or_else(|| KeyMaterial::new(Vec::new()))
            }
        }
    }
}

impl Prf {
    /// Transform type 2 identifier.
    pub(crate) fn id(self) -> u16 {
        match self {
            Self::HmacSha1 => 2,
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
            Self::AesXcbc => 4,
            Self::AesCmac => 8,
        }
    }

    /// Length of output and of preferred key.
    pub(crate) fn output_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
            Self::AesXcbc | Self::AesCmac => BLOCK_BYTES,
        }
    }

    /// How much of each nonce goes into SKEYSEED: these two came before functions took keys of any length
    /// (RFC 7296 section 2.14).
    pub(crate) fn seed_nonce(self, nonce: &[u8]) -> &[u8] {
        match self {
            Self::AesXcbc | Self::AesCmac => nonce.get(..8).unwrap_or(nonce),
            _ => nonce,
        }
    }

    fn keyed(self, key: &[u8]) -> Keyed {
        let algorithm = match self {
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            Self::AesXcbc => return Keyed::Aes(AesMac::of_any_length(AesMacKind::Xcbc, key).ok()),
            Self::AesCmac => return Keyed::Aes(AesMac::of_any_length(AesMacKind::Cmac, key).ok()),
        };
        Keyed::Hmac(hmac::Key::new(algorithm, key))
    }

    /// prf(key, concatenation of `parts`).
    pub(crate) fn compute(self, key: &[u8], parts: &[&[u8]]) -> KeyMaterial {
        self.keyed(key).compute(parts)
    }

    /// The first `length` bytes of prf+(key, concatenation of `seed`). At most 255 blocks exist (RFC 7296 section
    /// 2.13); no use in this crate comes near.
    pub(crate) fn plus(self, key: &[u8], seed: &[&[u8]], length: usize) -> KeyMaterial {
        let key = self.keyed(key);
        let mut output = Vec::with_capacity(length + self.output_bytes());
        let mut block = KeyMaterial::new(Vec::new());
        for counter in 1..=u8::MAX {
            if output.len() >= length {
                break;
            }
            let count = [counter];
            let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
            parts.push(block.expose());
            parts.extend(seed);
            parts.push(&count);
            block = key.compute(&parts);
            output.extend_from_slice(block.expose());
        }
        // The surplus stays in the buffer's spare capacity and is erased with it.
        output.truncate(length);
        KeyMaterial::new(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4231_case_2() {
        let tag = Prf::HmacSha256.compute(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            crate::error::Hex(tag.expose()).to_string(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn plus_chains_blocks() {
        let prf = Prf::HmacSha1;
        let t1 = prf.compute(b"k", &[b"seed", &[1]]);
        let t2 = prf.compute(b"k", &[t1.expose(), b"seed", &[2]]);
        let out = prf.plus(b"k", &[b"se", b"ed"], 30);
        assert_eq!(out.expose(), &[t1.expose(), &t2.expose()[..10]].concat()[..]);
    }
}
