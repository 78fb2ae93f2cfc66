//! Which IKE SAs belong to which connection and which peer.

use std::collections::{BTreeSet, HashMap};

use crate::event::SaId;
use crate::ike_sa::IkeSa;
use crate::payload::id::Identity;

/// What an SA is listed under.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    connection: String,
    /// Once it is authenticated.
    peer: Option<String>,
}

/// The listings. They are brought up to date whenever an SA has acted.
#[derive(Debug, Default)]
pub(super) struct Census {
    entries: HashMap<SaId, Entry>,
    of_connection: HashMap<String, BTreeSet<SaId>>,
    of_peer: HashMap<String, BTreeSet<SaId>>,
}

fn strike(listing: &mut HashMap<String, BTreeSet<SaId>>, key: &str, id: SaId) {
    if let Some(ids) = listing.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            listing.remove(key);
        }
    }
}

/// A peer of a connection. Its names compare without case.
fn peer_key(connection: &str, identity: &Identity) -> String {
    format!("{connection}\n{}", identity.to_string().to_ascii_lowercase())
}

impl Census {
    pub(super) fn note(&mut self, sa: &IkeSa) {
        let authenticated = !sa.is_half_open();
        if let Some(entry) = self.entries.get(&sa.id)
            && entry.connection == sa.connection.name
            && entry.peer.is_some() == (authenticated && sa.remote_id.is_some())
        {
            // An identity does not change once it is authenticated.
            return;
        }
        self.forget(sa.id);
        let entry = Entry {
            connection: sa.connection.name.clone(),
            peer: sa
                .remote_id
                .as_ref()
                .filter(|_| authenticated)
                .map(|identity| peer_key(&sa.connection.name, identity)),
        };
        self.of_connection
            .entry(entry.connection.clone())
            .or_default()
            .insert(sa.id);
        if let Some(peer) = &entry.peer {
            self.of_peer.entry(peer.clone()).or_default().insert(sa.id);
        }
        self.entries.insert(sa.id, entry);
    }

    pub(super) fn forget(&mut self, id: SaId) {
        if let Some(entry) = self.entries.remove(&id) {
            strike(&mut self.of_connection, &entry.connection, id);
            if let Some(peer) = &entry.peer {
                strike(&mut self.of_peer, peer, id);
            }
        }
    }

    /// Oldest first.
    pub(super) fn of_connection(&self, name: &str) -> impl Iterator<Item = SaId> + '_ {
        self.of_connection.get(name).into_iter().flatten().copied()
    }

    /// Authenticated SAs of a connection with one peer, oldest first.
    pub(super) fn of_peer(&self, connection: &str, identity: &Identity) -> impl Iterator<Item = SaId> + '_ {
        let ids = self.of_peer.get(&peer_key(connection, identity));
        ids.into_iter().flatten().copied()
    }
}
