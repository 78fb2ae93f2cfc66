//! The connections, found by name, by peer and by tunnel: thousands of them cost a look-up and not a walk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use southbound::TunnelId;

use crate::config::{Connection, RemoteAuth};

/// A connection's place in the order in which they were first loaded.
type Place = u64;

/// Every loaded connection, in the order in which they were first loaded.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    all: BTreeMap<Place, Arc<Connection>>,
    next: Place,
    by_name: HashMap<String, Place>,
    /// Connections that only peers of these addresses may use.
    by_remote: HashMap<IpAddr, BTreeSet<Place>>,
    /// Connections for networks of peers, or for any.
    general: BTreeSet<Place>,
    by_tunnel: HashMap<TunnelId, BTreeSet<Place>>,
    with_ppk: BTreeSet<Place>,
}

impl Directory {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Connection>> {
        self.all.get(self.by_name.get(name)?)
    }

    /// The connection with a child that carries this tunnel.
    pub(crate) fn of_tunnel(&self, tunnel: TunnelId) -> Option<&Arc<Connection>> {
        self.all.get(self.by_tunnel.get(&tunnel)?.first()?)
    }

    /// Whether some connection uses a post-quantum preshared key.
    pub(crate) fn any_ppk(&self) -> bool {
        !self.with_ppk.is_empty()
    }

    /// The connections that a peer at `remote`, reached at `local`, may use, in their order.
    pub(crate) fn near(&self, local: IpAddr, remote: IpAddr) -> Vec<&Arc<Connection>> {
        let of_remote = self.by_remote.get(&remote).into_iter().flatten();
        let mut places: Vec<Place> = of_remote.chain(&self.general).copied().collect();
        places.sort_unstable();
        places
            .into_iter()
            .filter_map(|place| self.all.get(&place))
            .filter(|connection| connection.accepts_addresses(local, remote))
            .collect()
    }

    /// Whether one of them asks for a certificate.
    pub(crate) fn wants_certificate(near: &[&Arc<Connection>]) -> bool {
        near.iter().any(|c| c.remote_auth == RemoteAuth::Certificate)
    }

    /// Adds a connection, or replaces the one of its name where it stands.
    pub(crate) fn put(&mut self, connection: Arc<Connection>) {
        let known = self.by_name.get(&connection.name).copied();
        let place = known.unwrap_or(self.next);
        match self.all.insert(place, connection.clone()) {
            Some(before) => self.strike(place, &before),
            None => {
                self.next += 1;
                self.by_name.insert(connection.name.clone(), place);
            }
        }
        self.list(place, &connection);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(place) = self.by_name.remove(name)
            && let Some(connection) = self.all.remove(&place)
        {
            self.strike(place, &connection);
        }
    }

    fn list(&mut self, place: Place, connection: &Connection) {
        if connection.ppk.is_some() {
            self.with_ppk.insert(place);
        }
        for tunnel in tunnels(connection) {
            self.by_tunnel.entry(tunnel).or_default().insert(place);
        }
        if is_general(connection) {
            self.general.insert(place);
        } else {
            for remote in &connection.remote_addresses {
                self.by_remote.entry(remote.ip()).or_default().insert(place);
            }
        }
    }

    /// The inverse of [`Self::list`].
    fn strike(&mut self, place: Place, connection: &Connection) {
        self.with_ppk.remove(&place);
        self.general.remove(&place);
        for tunnel in tunnels(connection) {
            strike_under(&mut self.by_tunnel, tunnel, place);
        }
        for remote in &connection.remote_addresses {
            strike_under(&mut self.by_remote, remote.ip(), place);
        }
    }
}

/// Whether peers of more than the listed addresses may use it.
fn is_general(connection: &Connection) -> bool {
    !connection.remote_networks.is_empty() || connection.remote_addresses.is_empty()
}

fn tunnels(connection: &Connection) -> impl Iterator<Item = TunnelId> + '_ {
    connection.children.iter().filter_map(|child| child.tunnel)
}

fn strike_under<Key: Hash + Eq>(listing: &mut HashMap<Key, BTreeSet<Place>>, key: Key, place: Place) {
    if let Some(places) = listing.get_mut(&key) {
        places.remove(&place);
        if places.is_empty() {
            listing.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(name: &str, remote: Option<&str>, tunnel: u32) -> Arc<Connection> {
        let mut connection = Connection::new(name);
        connection.remote_addresses = remote
            .iter()
            .map(|r| format!("{r}:500").parse().unwrap())
            .collect();
        connection.children = vec![crate::ChildConfig::new(
            "net",
            Some(TunnelId(tunnel)),
            vec![],
            vec![],
        )];
        Arc::new(connection)
    }

    #[test]
    fn connections_keep_their_order_and_are_found_by_all_they_are() {
        let mut directory = Directory::default();
        directory.put(connection("any", None, 1));
        directory.put(connection("b", Some("192.0.2.2"), 2));
        directory.put(connection("c", Some("192.0.2.3"), 3));
        let near = |directory: &Directory, remote: &str| {
            let near = directory.near([192, 0, 2, 1].into(), remote.parse().unwrap());
            near.iter().map(|c| c.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(near(&directory, "192.0.2.2"), ["any", "b"]);
        assert_eq!(near(&directory, "192.0.2.9"), ["any"]);
        assert_eq!(directory.of_tunnel(TunnelId(3)).unwrap().name, "c");
        // Replaced where it stands, for another peer.
        directory.put(connection("any", Some("192.0.2.9"), 4));
        assert_eq!(near(&directory, "192.0.2.2"), ["b"]);
        assert_eq!(near(&directory, "192.0.2.9"), ["any"]);
        directory.put(connection("c", Some("192.0.2.2"), 3));
        directory.put(connection("b", Some("192.0.2.2"), 2));
        assert_eq!(near(&directory, "192.0.2.2"), ["b", "c"], "the order stays");
        assert!(directory.of_tunnel(TunnelId(1)).is_none());
        directory.remove("any");
        assert!(near(&directory, "192.0.2.9").is_empty());
        assert_eq!(directory.get("c").unwrap().name, "c");
        assert_eq!(directory.len(), 2);
    }
}
