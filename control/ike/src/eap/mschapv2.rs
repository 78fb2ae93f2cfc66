//! The computations of MS-CHAPv2 (RFC 2759 section 8) and of the keys that come from it (RFC 3079 section 3).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use southbound::KeyMaterial;

/// Operation codes.
pub(crate) mod opcode {
    pub(crate) const CHALLENGE: u8 = 1;
    pub(crate) const RESPONSE: u8 = 2;
    pub(crate) const SUCCESS: u8 = 3;
    pub(crate) const FAILURE: u8 = 4;
}

const MAGIC_SERVER: &[u8] = b"Magic server to client signing constant";
const MAGIC_PAD: &[u8] = b"Pad to make it do more than one iteration";
const MAGIC_MASTER: &[u8] = b"This is the MPPE Master Key";
const MAGIC_CLIENT_SEND: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const MAGIC_CLIENT_RECEIVE: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 20];
    out.iter_mut()
        .zip(context.finish().as_ref())
        .for_each(|(to, from)| *to = *from);
    out
}

/// The challenges and the name of one authentication.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) authenticator_challenge: [u8; 16],
    pub(crate) peer_challenge: [u8; 16],
    /// As the peer wrote it; a leading domain does not count.
    pub(crate) user: String,
}

/// The user without a leading `DOMAIN\`.
pub(crate) fn without_domain(user: &str) -> &str {
    user.rsplit_once('\\').map_or(user, |(_, user)| user)
}

/// MD4 of the password in UTF-16, little endian.
fn password_hash(password: &KeyMaterial) -> KeyMaterial {
    let text = String::from_utf8_lossy(password.expose());
    let wide = KeyMaterial::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    KeyMaterial::new(Md4::digest(wide.expose()).to_vec())
}

fn hash_of_hash(hash: &KeyMaterial) -> KeyMaterial {
    KeyMaterial::new(Md4::digest(hash.expose()).to_vec())
}

/// DES with a key of 7 bytes: a parity bit is put after every 7 bits.
fn des_encrypt(key: &[u8], block: [u8; 8]) -> [u8; 8] {
    let mut bits = 0_u64;
    for byte in key.iter().take(7) {
        bits = bits << 8 | u64::from(*byte);
    }
    let mut expanded = [0_u8; 8];
    for (index, byte) in expanded.iter_mut().enumerate() {
        *byte = ((bits >> (49 - 7 * index)) as u8 & 0x7f) << 1;
    }
    let mut array = Array::from(block);
    Des::new(&Array::from(expanded)).encrypt_block(&mut array);
    array.into()
}

impl Exchange {
    fn challenge(&self) -> [u8; 8] {
        let user = without_domain(&self.user);
        let digest = sha1(&[
            &self.peer_challenge,
            &self.authenticator_challenge,
            user.as_bytes(),
        ]);
        let mut challenge = [0; 8];
        challenge.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        challenge
    }

    /// The peer's proof (RFC 2759 section 8.1).
    pub(crate) fn nt_response(&self, password: &KeyMaterial) -> [u8; 24] {
        let hash = password_hash(password);
        let mut key = hash.expose().to_vec();
        key.resize(21, 0);
        let mut out = [0; 24];
        for (slot, part) in out.as_chunks_mut::<8>().0.iter_mut().zip(key.as_chunks::<7>().0) {
            *slot = des_encrypt(part, self.challenge());
        }
        zeroize::Zeroize::zeroize(&mut key);
        out
    }

    /// The authenticator's proof, in text (RFC 2759 section 8.7).
    pub(crate) fn authenticator_response(&self, password: &KeyMaterial, nt_response: &[u8; 24]) -> String {
        let hash = hash_of_hash(&password_hash(password));
        let digest = sha1(&[hash.expose(), nt_response, MAGIC_SERVER]);
        let digest = sha1(&[&digest, &self.challenge(), MAGIC_PAD]);
        digest
            .iter()
            .fold("S=".to_owned(), |text, byte| format!("{text}{byte:02X}"))
    }
}

/// The master session key: both start keys of 16 bytes, then zeroes.
pub(crate) fn master_session_key(password: &KeyMaterial, nt_response: &[u8; 24]) -> KeyMaterial {
    let hash = hash_of_hash(&password_hash(password));
    let master = sha1(&[hash.expose(), nt_response, MAGIC_MASTER]);
    let master = master.get(..16).unwrap_or_default();
    let start_key = |magic: &[u8]| sha1(&[master, &[0; 40], magic, &[0xf2; 40]]);
    let mut msk = Vec::with_capacity(64);
    for magic in [MAGIC_CLIENT_SEND, MAGIC_CLIENT_RECEIVE] {
        msk.extend_from_slice(start_key(magic).get(..16).unwrap_or_default());
    }
    msk.resize(64, 0);
    KeyMaterial::new(msk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let all: Vec<_> = (0..N)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        all.try_into().unwrap()
    }

    #[test]
    fn rfc_2759_section_9_2_and_rfc_3079_section_3_5_3() {
        let password = KeyMaterial::new(b"clientPass".to_vec());
        let exchange = Exchange {
            authenticator_challenge: bytes("5B5D7C7D7B3F2F3E3C2C602132262628"),
            peer_challenge: bytes("21402324255E262A28295F2B3A337C7E"),
            user: "User".into(),
        };
        assert_eq!(exchange.challenge(), bytes("D02E4386BCE91226"));
        assert_eq!(
            password_hash(&password).expose(),
            bytes::<16>("44EBBA8D5312B8D611474411F56989AE")
        );
        let response = exchange.nt_response(&password);
        assert_eq!(
            response,
            bytes("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")
        );
        assert_eq!(
            exchange.authenticator_response(&password, &response),
            "S=407A5589115FD0D6209F510FE9C04566932CDA56"
        );
        // The server's send key (128 bit) of RFC 3079 is the second half here.
        let msk = master_session_key(&password, &response);
        assert_eq!(
            &msk.expose()[16..32],
            bytes::<16>("8B7CDC149B993A1BA118CB153F56DCCB")
        );
        assert_eq!(&msk.expose()[32..], [0; 32]);
    }

    #[test]
    fn a_leading_domain_does_not_count() {
        assert_eq!(without_domain("CORP\\alice"), "alice");
        assert_eq!(without_domain("alice"), "alice");
    }
}
