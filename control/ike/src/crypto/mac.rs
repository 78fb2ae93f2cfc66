//! Message authentication by AES-128: XCBC (RFC 3566, RFC 4434) and CMAC (RFC 4493, RFC 4494, RFC 4615), which old and
//! small peers have in place of HMAC.

use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::cmac;
use aws_lc_rs::iv::FixedLength;
use southbound::KeyMaterial;
use zeroize::Zeroize;

use crate::error::{Error, Result};

/// Bytes of a block, of a key and of a tag before it is cut.
pub(crate) const BLOCK_BYTES: usize = 16;

const FAILED: Error = Error::Crypto("AES message authentication");

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AesMacKind {
    Xcbc,
    Cmac,
}

enum Keyed {
    Xcbc {
        /// K1, K2 and K3 of RFC 3566 section 4.
        chain: Box<EncryptingKey>,
        whole: [u8; BLOCK_BYTES],
        padded: [u8; BLOCK_BYTES],
    },
    Cmac(cmac::Key),
}

/// A key.
pub(crate) struct AesMac(Keyed);

impl Drop for AesMac {
    fn drop(&mut self) {
        if let Keyed::Xcbc { whole, padded, .. } = &mut self.0 {
            whole.zeroize();
            padded.zeroize();
        }
    }
}

impl AesMac {
    /// A key of exactly 16 bytes, as integrity transforms have it.
    pub(crate) fn new(kind: AesMacKind, key: &[u8]) -> Result<Self> {
        let key: &[u8; BLOCK_BYTES] = key.try_into().map_err(|_| FAILED)?;
        Ok(Self(match kind {
            AesMacKind::Cmac => Keyed::Cmac(cmac::Key::new(cmac::AES_128, key).map_err(|_| FAILED)?),
            AesMacKind::Xcbc => {
                let base = chain_key(key)?;
                let derived = |byte: u8| {
                    let mut block = [byte; BLOCK_BYTES];
                    encrypt(&base, &mut block)?;
                    Ok(block)
                };
                let mut first = derived(1)?;
                let chain = Box::new(chain_key(&first)?);
                first.zeroize();
                Keyed::Xcbc {
                    chain,
                    whole: derived(2)?,
                    padded: derived(3)?,
                }
            }
        }))
    }

    /// A key of any length, as pseudorandom functions have it (RFC 4434 section 2, RFC 4615 section 3).
    pub(crate) fn of_any_length(kind: AesMacKind, key: &[u8]) -> Result<Self> {
        let mut exact = [0; BLOCK_BYTES];
        match (kind, key.len()) {
            (_, BLOCK_BYTES) => return Self::new(kind, key),
            (AesMacKind::Xcbc, 0..BLOCK_BYTES) => {
                exact.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
            }
            _ => exact = Self::new(kind, &exact)?.sign(&[key])?,
        }
        let made = Self::new(kind, &exact);
        exact.zeroize();
        made
    }

    /// The whole tag of the concatenation of `parts`.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> Result<[u8; BLOCK_BYTES]> {
        match &self.0 {
            Keyed::Cmac(key) => {
                let mut context = cmac::Context::with_key(key);
                for part in parts {
                    context.update(part).map_err(|_| FAILED)?;
                }
                let tag = context.sign().map_err(|_| FAILED)?;
                tag.as_ref().try_into().map_err(|_| FAILED)
            }
            Keyed::Xcbc { chain, whole, padded } => {
                let mut message = parts.concat();
                let partial = message.is_empty() || !message.len().is_multiple_of(BLOCK_BYTES);
                if partial {
                    message.push(0x80);
                    message.resize(message.len().next_multiple_of(BLOCK_BYTES), 0);
                }
                let mask = if partial { padded } else { whole };
                if let Some(last) = message.last_chunk_mut::<BLOCK_BYTES>() {
                    last.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
                }
                encrypt(chain, &mut message)?;
                let tag = message.last_chunk::<BLOCK_BYTES>().copied().ok_or(FAILED);
                message.zeroize();
                tag
            }
        }
    }

    /// The tag as key material: what a pseudorandom function yields.
    pub(crate) fn secret(&self, parts: &[&[u8]]) -> Result<KeyMaterial> {
        let mut tag = self.sign(parts)?;
        let secret = KeyMaterial::new(tag.to_vec());
        tag.zeroize();
        Ok(secret)
    }
}

fn chain_key(key: &[u8]) -> Result<EncryptingKey> {
    let key = UnboundCipherKey::new(&cipher::AES_128, key).map_err(|_| FAILED)?;
    EncryptingKey::cbc(key).map_err(|_| FAILED)
}

/// CBC from an initialisation vector of zeroes: on one block this is the cipher itself.
fn encrypt(key: &EncryptingKey, blocks: &mut [u8]) -> Result<()> {
    let context = EncryptionContext::Iv128(FixedLength::from(&[0; BLOCK_BYTES]));
    key.less_safe_encrypt(blocks, context).map_err(|_| FAILED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }

    fn tag(kind: AesMacKind, key: &str, message: &str) -> Vec<u8> {
        let key = AesMac::of_any_length(kind, &bytes(key)).unwrap();
        let message = bytes(message);
        let (head, tail) = message.split_at(message.len() / 3);
        key.sign(&[head, tail]).unwrap().to_vec()
    }

    #[test]
    fn rfc_3566_section_4_6() {
        let key = "000102030405060708090a0b0c0d0e0f";
        for (message, wanted) in [
            ("", "75f0251d528ac01c4573dfd584d79f29"),
            ("000102", "5b376580ae2f19afe7219ceef172756f"),
            (
                "000102030405060708090a0b0c0d0e0f",
                "d2a246fa349b68a79998a4394ff7a263",
            ),
            (
                "000102030405060708090a0b0c0d0e0f10111213",
                "47f51b4564966215b8985c63055ed308",
            ),
        ] {
            assert_eq!(tag(AesMacKind::Xcbc, key, message), bytes(wanted), "{message}");
        }
    }

    #[test]
    fn rfc_4434_section_3() {
        let message = "000102030405060708090a0b0c0d0e0f10111213";
        for (key, wanted) in [
            (
                "000102030405060708090a0b0c0d0e0f",
                "47f51b4564966215b8985c63055ed308",
            ),
            ("00010203040506070809", "0fa087af7d866e7653434e602fdde835"),
            (
                "000102030405060708090a0b0c0d0e0fedcb",
                "8cd3c93ae598a9803006ffb67c40e9e4",
            ),
        ] {
            assert_eq!(tag(AesMacKind::Xcbc, key, message), bytes(wanted), "{key}");
        }
    }

    #[test]
    fn rfc_4493_section_4_and_rfc_4615_section_4() {
        let key = "2b7e151628aed2a6abf7158809cf4f3c";
        for (message, wanted) in [
            ("", "bb1d6929e95937287fa37d129b756746"),
            (
                "6bc1bee22e409f96e93d7e117393172a",
                "070a16b46b4d4144f79bdd9dd04a287c",
            ),
            (
                "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
                "dfa66747de9ae63030ca32611497c827",
            ),
        ] {
            assert_eq!(tag(AesMacKind::Cmac, key, message), bytes(wanted), "{message}");
        }
        let message = "000102030405060708090a0b0c0d0e0f10111213";
        for (key, wanted) in [
            (
                "000102030405060708090a0b0c0d0e0fedcb",
                "84a348a4a45d235babfffc0d2b4da09a",
            ),
            (
                "000102030405060708090a0b0c0d0e0f",
                "980ae87b5f4c9c5214f5b6a8455e4c2d",
            ),
            ("00010203040506070809", "290d9e112edb09ee141fcf64c0b72f3d"),
        ] {
            assert_eq!(tag(AesMacKind::Cmac, key, message), bytes(wanted), "{key}");
        }
    }
}
