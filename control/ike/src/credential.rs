//! What proves identities: preshared keys, certificates with their private keys, authorities, EAP users, PPKs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use southbound::KeyMaterial;

use crate::certificate::{Authority, Certificate, RevocationList};
use crate::crypto::signature::SigningKey;
use crate::error::{Error, Result};
use crate::name;
use crate::payload::id::Identity;

/// A preshared key and the identities it is for.
#[derive(Debug, Clone)]
struct PresharedKey {
    /// Both ends should be among them, or the peer at least.
    identities: Vec<Identity>,
    secret: KeyMaterial,
}

/// A certificate of ours with its key and what to send along.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The end-entity certificate.
    pub certificate: Certificate,
    /// Intermediates to send after it, in DER.
    pub intermediates: Vec<Vec<u8>>,
    key: Arc<SigningKey>,
}

impl Credential {
    /// Pairs a certificate with its private key.
    ///
    /// # Errors
    /// Where the key is not the certificate's.
    pub fn new(certificate: Certificate, intermediates: Vec<Vec<u8>>, key: SigningKey) -> Result<Self> {
        if certificate.public_key().1 != key.public_key() {
            return Err(Error::Local(format!(
                "the private key is not that of {certificate:?}"
            )));
        }
        Ok(Self {
            certificate,
            intermediates,
            key: Arc::new(key),
        })
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }
}

/// The store of all secrets and trusted certificates. `Debug` shows none of the secrets.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    preshared: Vec<PresharedKey>,
    /// The preshared keys that name an identity, as indices: thousands of peers have one each.
    by_identity: HashMap<Identity, Vec<usize>>,
    /// The preshared key of those whom none names.
    for_everyone: Option<KeyMaterial>,
    own: HashMap<String, Credential>,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) revocation_lists: Vec<RevocationList>,
    /// User name to password.
    eap_users: HashMap<String, KeyMaterial>,
    ppks: HashMap<Vec<u8>, KeyMaterial>,
}

/// When something that proves identities ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Whose: the name of a credential, or the subject of an authority.
    pub name: String,
    /// Of a revocation list: then its next is to come.
    pub is_revocation_list: bool,
    /// Seconds of the epoch.
    pub unix_seconds: u64,
}

impl Credentials {
    /// When our certificates, the authorities and their revocation lists end; each name once of either kind, with its
    /// earliest end.
    pub fn expiries(&self) -> Vec<Expiry> {
        let mut ends: BTreeMap<(bool, String), u64> = BTreeMap::new();
        let mut add = |is_list, name: String, seconds| {
            let end = ends.entry((is_list, name)).or_insert(seconds);
            *end = seconds.min(*end);
        };
        for (name, credential) in &self.own {
            add(false, name.clone(), credential.certificate.not_after());
        }
        for authority in &self.authorities {
            add(false, name::display(authority.subject()), authority.not_after());
        }
        for list in &self.revocation_lists {
            if let Some(seconds) = list.next_update {
                add(true, list.issuer.clone(), seconds);
            }
        }
        ends.into_iter()
            .map(|((is_revocation_list, name), unix_seconds)| Expiry {
                name,
                is_revocation_list,
                unix_seconds,
            })
            .collect()
    }

    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a preshared key for these identities; none stands for everyone.
    pub fn add_psk(&mut self, identities: Vec<Identity>, secret: &[u8]) {
        let secret = KeyMaterial::new(secret.to_vec());
        if identities.is_empty() {
            self.for_everyone = Some(secret);
            return;
        }
        for identity in &identities {
            let of_identity = self.by_identity.entry(identity.clone()).or_default();
            of_identity.push(self.preshared.len());
        }
        self.preshared.push(PresharedKey { identities, secret });
    }

    /// Adds a certificate of ours under a name.
    pub fn add_credential(&mut self, name: &str, credential: Credential) {
        self.own.insert(name.to_owned(), credential);
    }

    /// Trusts an authority.
    pub fn add_authority(&mut self, authority: Authority) {
        self.authorities.push(authority);
    }

    /// Adds a revocation list.
    pub fn add_revocation_list(&mut self, list: RevocationList) {
        self.revocation_lists.push(list);
    }

    /// Adds an EAP user.
    pub fn add_eap_user(&mut self, user: &str, password: &str) {
        self.eap_users
            .insert(user.to_owned(), KeyMaterial::new(password.as_bytes().to_vec()));
    }

    /// Adds a post-quantum preshared key.
    pub fn add_ppk(&mut self, id: Vec<u8>, secret: &[u8]) {
        self.ppks.insert(id, KeyMaterial::new(secret.to_vec()));
    }

    /// The key for two ends: one that names both before one that names the peer, before one for everyone.
    pub(crate) fn psk(&self, local: &Identity, remote: &Identity) -> Option<&KeyMaterial> {
        let of = |identity: &Identity| self.by_identity.get(identity).map_or(&[][..], Vec::as_slice);
        let of_peer = of(remote);
        // What names both is in either list: a hub is in the keys of all its sites, and they in few.
        let shorter = [of(local), of_peer].into_iter().min_by_key(|list| list.len());
        let keys = |list| {
            <[usize]>::iter(list)
                .rev()
                .filter_map(|index| self.preshared.get(*index))
        };
        let names_both =
            |key: &&PresharedKey| key.identities.contains(local) && key.identities.contains(remote);
        keys(shorter.unwrap_or_default())
            .find(names_both)
            .or_else(|| keys(of_peer).find(|key| key.identities.len() == 1))
            .or_else(|| keys(of_peer).next())
            .map(|key| &key.secret)
            .or(self.for_everyone.as_ref())
    }

    pub(crate) fn own(&self, name: &str) -> Option<&Credential> {
        self.own.get(name)
    }

    pub(crate) fn eap_password(&self, user: &str) -> Option<&KeyMaterial> {
        self.eap_users.get(user)
    }

    pub(crate) fn ppk(&self, id: &[u8]) -> Option<&KeyMaterial> {
        self.ppks.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_preshared_key_wins() {
        let id = Identity::from_text;
        let mut store = Credentials::new();
        store.add_psk(vec![], b"everyone");
        store.add_psk(vec![id("b")], b"peer");
        store.add_psk(vec![id("a"), id("b")], b"pair");
        store.add_psk(vec![id("c"), id("d"), id("b")], b"three");
        let key = |local: &str, remote: &str| store.psk(&id(local), &id(remote)).unwrap().expose().to_vec();
        assert_eq!(key("a", "b"), b"pair");
        assert_eq!(key("x", "b"), b"peer");
        assert_eq!(key("x", "y"), b"everyone");
        assert_eq!(key("b", "a"), b"pair");
        assert_eq!(key("x", "d"), b"three");
        assert!(Credentials::new().psk(&id("a"), &id("b")).is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut store = Credentials::new();
        store.add_psk(vec![], b"hunter2");
        store.add_eap_user("alice", "hunter2");
        store.add_ppk(b"id".to_vec(), b"hunter2");
        assert!(!format!("{store:?}").contains("hunter2"));
        assert!(!format!("{store:?}").contains(&format!("{:?}", b"hunter2")));
    }
}
