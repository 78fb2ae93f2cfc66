//! RSASSA-PKCS1-v1_5 with SHA-1, which Windows wants of a gateway (RFC 7296 section 3.8, method 1). The crypto library
//! makes no such signatures any more; it checks each one made here before it goes out, so that a fault in the
//! computation gives no key away.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, Uint};
use southbound::KeyMaterial;

use crate::error::{Error, Result};
use crate::reader::Reader;

use super::modp::from_be_bytes;

/// DigestInfo of a SHA-1 digest, without the digest.
const DIGEST_INFO: [u8; 15] = [0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 0x14];

const BAD_KEY: Error = Error::Crypto("RSA private key");

/// Modulus and private exponent, both of the modulus's length.
struct PrivateKey<'a> {
    modulus: &'a [u8],
    exponent: &'a [u8],
}

/// One DER element of this tag.
fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<&'a [u8]> {
    if reader.u8("DER tag")? != tag {
        return Err(BAD_KEY);
    }
    let length = match reader.u8("DER length")? {
        short @ 0..=0x7f => usize::from(short),
        0x81 => usize::from(reader.u8("DER length")?),
        0x82 => usize::from(reader.u16("DER length")?),
        _ => return Err(BAD_KEY),
    };
    reader.take(length, "DER element")
}

fn unsigned<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let bytes = element(reader, 2)?;
    Ok(bytes.strip_prefix(&[0]).unwrap_or(bytes))
}

/// Reads PKCS#8 (RFC 5208) or PKCS#1 (RFC 8017 appendix A.1.2).
fn parse(der: &[u8]) -> Result<PrivateKey<'_>> {
    let mut outer = Reader::new(element(&mut Reader::new(der), 0x30)?);
    element(&mut outer, 2)?;
    let mut inner = outer.clone();
    let mut fields = match element(&mut inner, 0x30) {
        Ok(_) => {
            let mut key = Reader::new(element(&mut Reader::new(element(&mut inner, 4)?), 0x30)?);
            element(&mut key, 2)?;
            key
        }
        Err(_) => outer,
    };
    let modulus = unsigned(&mut fields)?;
    unsigned(&mut fields)?;
    let exponent = unsigned(&mut fields)?;
    Ok(PrivateKey { modulus, exponent })
}

/// Signs a message; the caller checks the signature.
pub(super) fn sign_sha1(der: &KeyMaterial, message: &[u8]) -> Result<Vec<u8>> {
    let key = parse(der.expose())?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, message);
    let length = key.modulus.len();
    let tail = [&DIGEST_INFO, digest.as_ref()].concat();
    let padding = length.checked_sub(tail.len() + 3).ok_or(BAD_KEY)?;
    let mut block = vec![0, 1];
    block.resize(2 + padding, 0xff);
    block.push(0);
    block.extend_from_slice(&tail);
    macro_rules! sized {
        ($bits:literal) => {
            power::<{ $bits / crypto_bigint::Limb::BITS as usize }>(&key, &block)
        };
    }
    match length * 8 {
        2048 => sized!(2048),
        3072 => sized!(3072),
        4096 => sized!(4096),
        _ => None,
    }
    .ok_or(BAD_KEY)
}

/// block^exponent mod modulus, constant time in the exponent.
fn power<const LIMBS: usize>(key: &PrivateKey<'_>, block: &[u8]) -> Option<Vec<u8>> {
    let modulus = from_be_bytes::<LIMBS>(key.modulus)?;
    let base = from_be_bytes::<LIMBS>(block)?;
    let mut wide = vec![0; key.modulus.len().checked_sub(key.exponent.len())?];
    wide.extend_from_slice(key.exponent);
    let mut exponent = from_be_bytes::<LIMBS>(&wide)?;
    zeroize::Zeroize::zeroize(&mut wide);
    let odd: Odd<Uint<LIMBS>> = Odd::new(modulus).into_option()?;
    let params = FixedMontyParams::new_vartime(odd);
    let result = FixedMontyForm::new(&base, &params).pow(&exponent).retrieve();
    zeroize::Zeroize::zeroize(&mut exponent);
    let words = result.as_words().iter().rev();
    Some(words.flat_map(|word| word.to_be_bytes()).collect())
}
