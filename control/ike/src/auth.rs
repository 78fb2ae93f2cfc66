//! The octets that AUTH covers, and AUTH by shared keys (RFC 7296 sections 2.15 and 2.16).

use southbound::KeyMaterial;

use crate::crypto::prf::Prf;
use crate::error::{Error, Result};
use crate::payload::auth::{AuthMethod, AuthPayload};
use crate::payload::id::Identity;

/// What IKE_INTERMEDIATE exchanges add to the octets (RFC 9242 section 3.3.2).
#[derive(Debug, Clone, Default)]
pub(crate) struct IntermediateAuth {
    initiator: Vec<u8>,
    responder: Vec<u8>,
    used: bool,
}

impl IntermediateAuth {
    /// Adds one message: prf(SK_p of its sender, previous value | message octets).
    pub(crate) fn add(&mut self, from_initiator: bool, prf: Prf, sk_p: &KeyMaterial, octets: &[u8]) {
        let slot = if from_initiator {
            &mut self.initiator
        } else {
            &mut self.responder
        };
        *slot = prf.compute(sk_p.expose(), &[slot, octets]).expose().to_vec();
        self.used = true;
    }

    fn suffix(&self, auth_message_id: u32) -> Vec<u8> {
        if !self.used {
            return Vec::new();
        }
        [
            self.initiator.as_slice(),
            &self.responder,
            &auth_message_id.to_be_bytes(),
        ]
        .concat()
    }
}

/// Everything that one side's AUTH covers but its identity.
#[derive(Debug, Clone)]
pub(crate) struct SignedParts<'a> {
    /// That side's IKE_SA_INIT message.
    pub(crate) message: &'a [u8],
    /// The other side's nonce.
    pub(crate) nonce: &'a [u8],
    pub(crate) prf: Prf,
    /// SK_pi or SK_pr.
    pub(crate) sk_p: &'a KeyMaterial,
    pub(crate) intermediate: &'a IntermediateAuth,
    /// Message ID of the (first) IKE_AUTH exchange.
    pub(crate) auth_message_id: u32,
}

impl SignedParts<'_> {
    /// RealMessage | Nonce | prf(SK_p, ID body) [| IntAuth].
    pub(crate) fn octets(&self, id: &Identity) -> Vec<u8> {
        let maced_id = self.prf.compute(self.sk_p.expose(), &[&id.body()]);
        let suffix = self.intermediate.suffix(self.auth_message_id);
        [self.message, self.nonce, maced_id.expose(), &suffix].concat()
    }
}

/// prf(prf(secret, "Key Pad for IKEv2"), octets).
pub(crate) fn shared_key_auth(prf: Prf, secret: &KeyMaterial, octets: &[u8]) -> AuthPayload {
    let key = prf.compute(secret.expose(), &[b"Key Pad for IKEv2"]);
    AuthPayload {
        method: AuthMethod::SHARED_KEY,
        data: prf.compute(key.expose(), &[octets]).expose().to_vec(),
    }
}

/// Checks AUTH by a shared key, in constant time.
pub(crate) fn verify_shared_key(
    prf: Prf,
    secret: &KeyMaterial,
    octets: &[u8],
    auth: &AuthPayload,
) -> Result<()> {
    let expected = shared_key_auth(prf, secret, octets);
    let equal = aws_lc_rs::constant_time::verify_slices_are_equal(&expected.data, &auth.data).is_ok();
    if auth.method == AuthMethod::SHARED_KEY && equal {
        Ok(())
    } else {
        Err(Error::AuthenticationFailed("preshared key does not match".into()))
    }
}
