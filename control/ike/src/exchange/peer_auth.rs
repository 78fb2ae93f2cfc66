//! Proving our identity and checking the peer's, by whatever method the connection names (RFC 7296 section 2.15).

use crate::auth::{SignedParts, shared_key_auth, verify_shared_key};
use crate::certificate::{Certificate, verify_chain};
use crate::config::{Connection, LocalAuth, RemoteAuth};
use crate::credential::Credentials;
use crate::crypto::signature::verify;
use crate::error::{Error, Result};
use crate::ike_sa::{Context, Handshake, IkeSa, Keyed, Phase};
use crate::payload::Payload;
use crate::payload::auth::AuthPayload;
use crate::payload::cert::{CertPayload, CertRequestPayload, X509_SIGNATURE};
use crate::payload::id::Identity;

/// Certificates beyond the end entity's that are looked at.
const MAX_INTERMEDIATES: usize = 10;

impl IkeSa {
    /// The identity to show: configured, else that of the certificate, else our address.
    pub(crate) fn own_identity(&self, credentials: &Credentials, connection: &Connection) -> Identity {
        if let Some(identity) = &connection.local_id {
            return identity.clone();
        }
        match &connection.local_auth {
            LocalAuth::Certificate { credential, .. } | LocalAuth::EapTls { credential } => {
                match credentials.own(credential) {
                    Some(own) => own.certificate.default_identity(),
                    None => Identity::Address(self.local.ip()),
                }
            }
            LocalAuth::EapMschapv2 { user } => Identity::from_text(user),
            LocalAuth::Psk => Identity::Address(self.local.ip()),
        }
    }

    /// The identity to show to a peer that asks for one: that one where our certificate bears it, so that a gateway with
    /// several names is found under each.
    pub(crate) fn identity_for(
        &self,
        credentials: &Credentials,
        connection: &Connection,
        asked: Option<&Identity>,
    ) -> Identity {
        let own = self.own_identity(credentials, connection);
        let LocalAuth::Certificate { credential, .. } = &connection.local_auth else {
            return own;
        };
        match (asked, credentials.own(credential)) {
            (Some(asked), Some(held)) if *asked != own && held.certificate.names(asked) => asked.clone(),
            // A name from the configuration is sent as the certificate has it, to the byte.
            (_, Some(held)) if held.certificate.subject() == own => held.certificate.subject(),
            _ => own,
        }
    }

    fn parts_of<'a>(&'a self, from_initiator: bool) -> Result<SignedParts<'a>> {
        let (Phase::Handshake(handshake), Some(keyed)) = (&self.phase, &self.keyed) else {
            return Err(Error::Malformed("exchange out of order"));
        };
        Ok(signed_parts(handshake, keyed, from_initiator))
    }

    /// Our AUTH payload.
    pub(crate) fn own_auth(
        &self,
        credentials: &Credentials,
        connection: &Connection,
        own: &Identity,
        peer: Option<&Identity>,
    ) -> Result<AuthPayload> {
        let parts = self.parts_of(self.initiator)?;
        let octets = parts.octets(own);
        match &connection.local_auth {
            LocalAuth::Psk => {
                let nobody = Identity::Address(self.remote.ip());
                let peer = peer.unwrap_or(&nobody);
                let secret = credentials.psk(own, peer);
                let secret =
                    secret.ok_or_else(|| Error::Local(format!("no preshared key for {own} and {peer}")))?;
                Ok(shared_key_auth(parts.prf, secret, &octets))
            }
            LocalAuth::Certificate {
                credential,
                rsa_scheme,
            } => {
                let found = credentials.own(credential);
                let own = found.ok_or_else(|| Error::Local(format!("no credential named {credential:?}")))?;
                own.key()
                    .sign(&octets, &self.support.signature_hashes, *rsa_scheme)
            }
            LocalAuth::EapMschapv2 { .. } | LocalAuth::EapTls { .. } => {
                Err(Error::Local("EAP authenticates later".into()))
            }
        }
    }

    /// AUTH by the key that an EAP method made (RFC 7296 section 2.16).
    pub(crate) fn eap_auth(&self, own: &Identity, msk: &southbound::KeyMaterial) -> Result<AuthPayload> {
        let parts = self.parts_of(self.initiator)?;
        Ok(shared_key_auth(parts.prf, msk, &parts.octets(own)))
    }

    /// Checks the peer's AUTH by the key that an EAP method made.
    pub(crate) fn verify_eap(
        &self,
        peer: &Identity,
        msk: &southbound::KeyMaterial,
        auth: &AuthPayload,
    ) -> Result<()> {
        let parts = self.parts_of(!self.initiator)?;
        verify_shared_key(parts.prf, msk, &parts.octets(peer), auth)
    }

    /// Our certificates to send, the end entity's first (always sent: some peers ask for none and need them).
    pub(crate) fn own_certificates(
        &self,
        credentials: &Credentials,
        connection: &Connection,
    ) -> Vec<Payload> {
        let LocalAuth::Certificate { credential, .. } = &connection.local_auth else {
            return Vec::new();
        };
        let Some(own) = credentials.own(credential) else {
            return Vec::new();
        };
        std::iter::once(own.certificate.der())
            .chain(own.intermediates.iter().map(Vec::as_slice))
            .map(|der| {
                Payload::Cert(CertPayload {
                    encoding: X509_SIGNATURE,
                    data: der.to_vec(),
                })
            })
            .collect()
    }

    /// The authorities that we trust, where the peer is to show a certificate.
    pub(crate) fn certificate_request(credentials: &Credentials, connection: &Connection) -> Option<Payload> {
        (connection.remote_auth == RemoteAuth::Certificate)
            .then(|| trusted_authorities(credentials))
            .flatten()
    }

    /// Checks that the peer is `peer`, by the method the connection demands and no other.
    pub(crate) fn verify_peer(
        &self,
        ctx: &Context<'_>,
        connection: &Connection,
        own: &Identity,
        peer: &Identity,
        auth: &AuthPayload,
        certs: &[CertPayload],
    ) -> Result<()> {
        let parts = self.parts_of(!self.initiator)?;
        let octets = parts.octets(peer);
        match connection.remote_auth {
            RemoteAuth::Psk => {
                let secret = ctx.credentials.psk(own, peer);
                let secret = secret.ok_or_else(|| {
                    Error::AuthenticationFailed(format!("no preshared key for {own} and {peer}"))
                })?;
                verify_shared_key(parts.prf, secret, &octets, auth).map_err(|_| {
                    Error::AuthenticationFailed(format!("preshared key of {peer} does not match"))
                })
            }
            RemoteAuth::Certificate => {
                let mut ders = certs
                    .iter()
                    .filter(|cert| cert.encoding == X509_SIGNATURE)
                    .map(|cert| &cert.data);
                let end_entity = ders
                    .next()
                    .ok_or_else(|| Error::AuthenticationFailed(format!("{peer} sent no certificate")))?;
                let certificate = Certificate::parse(end_entity)?;
                if !certificate.names(peer) {
                    return Err(Error::AuthenticationFailed(format!(
                        "{certificate:?} does not name {peer}"
                    )));
                }
                let intermediates: Vec<_> = ders.take(MAX_INTERMEDIATES).cloned().collect();
                let (authorities, lists) = (&ctx.credentials.authorities, &ctx.credentials.revocation_lists);
                verify_chain(&certificate, &intermediates, authorities, lists, ctx.unix_seconds)?;
                let (kind, key) = certificate.public_key();
                verify(kind, key, &octets, auth)
            }
            RemoteAuth::EapMschapv2 | RemoteAuth::EapTls | RemoteAuth::EapRelay => {
                Err(Error::AuthenticationFailed(format!("{peer} has to use EAP")))
            }
        }
    }
}

/// A certificate request that names every authority we trust.
pub(crate) fn trusted_authorities(credentials: &Credentials) -> Option<Payload> {
    // A payload holds no more; who trusts more than that asks for any.
    const MOST: usize = 200;
    let authorities = credentials.authorities.iter();
    let names: Vec<_> = authorities
        .take(MOST)
        .map(|authority| authority.key_hash)
        .collect();
    (!names.is_empty()).then_some(Payload::CertRequest(CertRequestPayload {
        encoding: X509_SIGNATURE,
        authorities: names,
    }))
}

fn signed_parts<'a>(handshake: &'a Handshake, keyed: &'a Keyed, from_initiator: bool) -> SignedParts<'a> {
    let (message, nonce, sk_p) = if from_initiator {
        (
            &handshake.init_request,
            &handshake.seed.nonce_r,
            &keyed.keys.sk_pi,
        )
    } else {
        (
            &handshake.init_response,
            &handshake.seed.nonce_i,
            &keyed.keys.sk_pr,
        )
    };
    SignedParts {
        message,
        nonce,
        prf: keyed.suite.prf,
        sk_p,
        intermediate: &handshake.intermediate,
        auth_message_id: handshake.auth_message_id,
    }
}
