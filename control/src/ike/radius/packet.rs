//! RADIUS packets (RFC 2865 section 3), as far as EAP needs them.
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  |     Code      |  Identifier   |            Length             |
//!  |                         Authenticator (16)                    |
//!  |  Attributes: type, length, value ...
//! ```

use md5::{Digest, Md5};
use zeroize::Zeroizing;

pub(super) const ACCESS_REQUEST: u8 = 1;
pub(super) const ACCESS_ACCEPT: u8 = 2;
pub(super) const ACCESS_REJECT: u8 = 3;
pub(super) const ACCESS_CHALLENGE: u8 = 11;

pub(super) const USER_NAME: u8 = 1;
pub(super) const SERVICE_TYPE: u8 = 6;
pub(super) const FRAMED_IP_ADDRESS: u8 = 8;
pub(super) const REPLY_MESSAGE: u8 = 18;
pub(super) const STATE: u8 = 24;
const VENDOR_SPECIFIC: u8 = 26;
pub(super) const CALLED_STATION: u8 = 30;
pub(super) const CALLING_STATION: u8 = 31;
pub(super) const NAS_IDENTIFIER: u8 = 32;
pub(super) const NAS_PORT_TYPE: u8 = 61;
pub(super) const EAP_MESSAGE: u8 = 79;
const MESSAGE_AUTHENTICATOR: u8 = 80;
pub(super) const FRAMED_IPV6_ADDRESS: u8 = 168;

const MICROSOFT: [u8; 4] = 311_u32.to_be_bytes();
const MS_MPPE_SEND_KEY: u8 = 16;
const MS_MPPE_RECV_KEY: u8 = 17;

const HEADER_BYTES: usize = 20;
pub(super) const MAX_PACKET_BYTES: usize = 4096;
pub(super) const MAX_VALUE_BYTES: usize = 253;

/// An Access-Request.
#[derive(Debug)]
pub(super) struct Request {
    authenticator: [u8; 16],
    attributes: Vec<u8>,
}

/// An answer whose authenticators were checked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u8,
    authenticator_of_request: [u8; 16],
    attributes: Vec<(u8, Vec<u8>)>,
}

impl Request {
    /// A request with an unpredictable authenticator. Its Message-Authenticator comes first, so that no attribute can
    /// be put before it (draft-ietf-radext-deprecating-radius section 5.2.4).
    pub(super) fn new(authenticator: [u8; 16]) -> Self {
        let mut attributes = vec![MESSAGE_AUTHENTICATOR, 18];
        attributes.extend([0; 16]);
        Self {
            authenticator,
            attributes,
        }
    }

    /// Adds an attribute; what is longer than one takes is cut.
    pub(super) fn add(&mut self, kind: u8, value: &[u8]) {
        let value = value.get(..MAX_VALUE_BYTES).unwrap_or(value);
        self.attributes.extend([kind, value.len() as u8 + 2]);
        self.attributes.extend(value);
    }

    /// The bytes for a server with which `secret` is shared.
    pub(super) fn emit(&self, secret: &[u8]) -> Vec<u8> {
        let length = u16::try_from(HEADER_BYTES + self.attributes.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![ACCESS_REQUEST, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.authenticator);
        bytes.extend(&self.attributes);
        // RFC 3579 section 3.2: over the packet with zeroes in its place.
        let code = hmac_md5(secret, &[&bytes]);
        bytes[HEADER_BYTES + 2..HEADER_BYTES + 18].copy_from_slice(&code);
        bytes
    }

    /// The answer in `bytes`, if a server that knows `secret` made it for this request.
    pub(super) fn check(&self, bytes: &[u8], secret: &[u8]) -> Option<Answer> {
        let length_bytes = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let bytes = bytes
            .get(..length_bytes)
            .filter(|bytes| bytes.len() >= HEADER_BYTES)?;
        let (header, body) = bytes.split_at(HEADER_BYTES);
        let (head, authenticator) = header.split_at(4);
        if head[1] != 0 {
            return None;
        }
        let mut hash = Md5::new();
        for part in [head, &self.authenticator, body, secret] {
            hash.update(part);
        }
        if !equal(&hash.finalize(), authenticator) {
            return None;
        }
        let mut attributes = Vec::new();
        let mut rest = body;
        let mut zeroed = body.to_vec();
        let mut given: Option<[u8; 16]> = None;
        while let [kind, length, ..] = rest {
            let at = body.len() - rest.len();
            let value = rest.get(2..usize::from(*length))?;
            if *kind == MESSAGE_AUTHENTICATOR {
                given = Some(value.try_into().ok()?);
                zeroed.get_mut(at + 2..at + 18)?.fill(0);
            }
            attributes.push((*kind, value.to_vec()));
            rest = rest.get(usize::from(*length)..)?;
        }
        if !rest.is_empty() {
            return None;
        }
        let code = hmac_md5(secret, &[head, &self.authenticator, &zeroed]);
        // Without it an answer could be forged (RFC 3579 section 3.2).
        equal(&given?, &code).then(|| Answer {
            code: head[0],
            authenticator_of_request: self.authenticator,
            attributes,
        })
    }
}

impl Answer {
    /// The values of an attribute, in order.
    pub(super) fn values(&self, kind: u8) -> impl Iterator<Item = &[u8]> {
        self.attributes
            .iter()
            .filter(move |(known, _)| *known == kind)
            .map(|(_, value)| value.as_slice())
    }

    /// The master session key: what this end receives with, then what it sends with (RFC 2548 section 2.4).
    pub(super) fn session_key(&self, secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut key = Zeroizing::new(Vec::with_capacity(2 * MAX_VALUE_BYTES));
        for kind in [MS_MPPE_RECV_KEY, MS_MPPE_SEND_KEY] {
            key.extend_from_slice(&self.microsoft_key(kind, secret)?);
        }
        Some(key)
    }

    fn microsoft_key(&self, kind: u8, secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let hidden = self.values(VENDOR_SPECIFIC).find_map(|value| {
            let (vendor, rest) = value.split_at_checked(4)?;
            match rest {
                [found, length, ..] if vendor == MICROSOFT && *found == kind => {
                    rest.get(2..usize::from(*length))
                }
                _ => None,
            }
        })?;
        let (salt, blocks) = hidden.split_at_checked(2)?;
        if blocks.is_empty() || !blocks.len().is_multiple_of(16) {
            return None;
        }
        let mut plain = Zeroizing::new(Vec::with_capacity(blocks.len()));
        let mut before: Vec<u8> = [&self.authenticator_of_request[..], salt].concat();
        for block in blocks.chunks_exact(16) {
            let mut hash = Md5::new();
            hash.update(secret);
            hash.update(&before);
            let pad = hash.finalize();
            plain.extend(block.iter().zip(pad.iter()).map(|(byte, pad)| byte ^ pad));
            before = block.to_vec();
        }
        let length_bytes = usize::from(*plain.first()?);
        Some(Zeroizing::new(plain.get(1..1 + length_bytes)?.to_vec()))
    }
}

/// HMAC (RFC 2104) with MD5, which RADIUS is bound to.
fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut block = Zeroizing::new([0_u8; 64]);
    if key.len() > 64 {
        block[..16].copy_from_slice(&Md5::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Md5::new();
    inner.update(block.map(|byte| byte ^ 0x36));
    for part in parts {
        inner.update(part);
    }
    let mut outer = Md5::new();
    outer.update(block.map(|byte| byte ^ 0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

/// Compares in time that does not depend on where the difference is.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"between us";

    /// An answer as a server makes it.
    fn answer(request: &Request, code: u8, attributes: &[(u8, Vec<u8>)], secret: &[u8]) -> Vec<u8> {
        let mut body = vec![MESSAGE_AUTHENTICATOR, 18];
        body.extend([0; 16]);
        for (kind, value) in attributes {
            body.extend([*kind, value.len() as u8 + 2]);
            body.extend(value);
        }
        let mut head = vec![code, 0];
        head.extend(u16::try_from(HEADER_BYTES + body.len()).unwrap().to_be_bytes());
        let code = hmac_md5(secret, &[&head, &request.authenticator, &body]);
        body[2..18].copy_from_slice(&code);
        let mut hash = Md5::new();
        for part in [&head, &request.authenticator[..], &body, secret] {
            hash.update(part);
        }
        [&head, &hash.finalize()[..], &body].concat()
    }

    #[test]
    fn hmac_md5_is_that_of_rfc_2202() {
        let hex = |bytes: [u8; 16]| bytes.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(hmac_md5(&[0x0b; 16], &[b"Hi There"])),
            "9294727a3638bb1c13f48ef8158bfc9d"
        );
        assert_eq!(
            hex(hmac_md5(
                &[0xaa; 80],
                &[b"Test Using Larger Than Block-Size Key - Hash Key First"]
            )),
            "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"
        );
    }

    #[test]
    fn only_an_answer_of_who_knows_the_secret_is_taken() {
        let request = Request::new([7; 16]);
        let good = answer(
            &request,
            ACCESS_CHALLENGE,
            &[(EAP_MESSAGE, vec![1, 2, 3])],
            SECRET,
        );
        let read = request.check(&good, SECRET).unwrap();
        assert_eq!(
            (read.code, read.values(EAP_MESSAGE).next().unwrap()),
            (ACCESS_CHALLENGE, &[1, 2, 3][..])
        );
        assert!(request.check(&good, b"another").is_none());
        assert!(Request::new([8; 16]).check(&good, SECRET).is_none());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(request.check(&bad, SECRET).is_none(), "byte {at}");
            assert!(request.check(&good[..at], SECRET).is_none(), "{at} bytes");
        }
    }

    proptest! {
        /// Whatever a server sends that knows the secret is read without a panic.
        #[test]
        fn anything_is_survived(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let request = Request::new([1; 16]);
            let mut bytes = vec![ACCESS_ACCEPT, 0];
            bytes.extend(((HEADER_BYTES + body.len()) as u16).to_be_bytes());
            let mut hash = Md5::new();
            for part in [&bytes[..], &request.authenticator, &body, SECRET] {
                hash.update(part);
            }
            bytes.extend(hash.finalize());
            bytes.extend(&body);
            let _ = request.check(&bytes, SECRET);
            let sealed = answer(&request, ACCESS_ACCEPT, &[(VENDOR_SPECIFIC, body.into_iter().take(250).collect())], SECRET);
            if let Some(answer) = request.check(&sealed, SECRET) {
                let _ = answer.session_key(SECRET);
            }
        }
    }
}
