//! The connections, found by name, by peer and by tunnel: thousands of them cost a look-up and not a walk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use southbound::TunnelId;

use crate::config::{Connection, RemoteAuth};

/// Every loaded connection, in the order in which they were first loaded.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    all: Vec<Arc<Connection>>,
    by_name: HashMap<String, usize>,
    /// Connections that only peers of these addresses may use.
    by_remote: HashMap<IpAddr, Vec<usize>>,
    /// Connections for networks of peers, or for any.
    general: Vec<usize>,
    by_tunnel: HashMap<TunnelId, usize>,
    /// Some connection uses a post-quantum preshared key.
    pub(crate) any_ppk: bool,
}

impl Directory {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.all.iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Connection>> {
        self.all.get(*self.by_name.get(name)?)
    }

    /// The connection with a child that carries this tunnel.
    pub(crate) fn of_tunnel(&self, tunnel: TunnelId) -> Option<&Arc<Connection>> {
        self.all.get(*self.by_tunnel.get(&tunnel)?)
    }

    /// The connections that a peer at `remote`, reached at `local`, may use, in their order.
    pub(crate) fn near(&self, local: IpAddr, remote: IpAddr) -> Vec<&Arc<Connection>> {
        let of_remote = self.by_remote.get(&remote).into_iter().flatten();
        let mut indices: Vec<usize> = of_remote.chain(&self.general).copied().collect();
        indices.sort_unstable();
        indices
            .into_iter()
            .filter_map(|index| self.all.get(index))
            .filter(|connection| connection.accepts_addresses(local, remote))
            .collect()
    }

    /// Whether one of them asks for a certificate.
    pub(crate) fn wants_certificate(near: &[&Arc<Connection>]) -> bool {
        near.iter().any(|c| c.remote_auth == RemoteAuth::Certificate)
    }

    /// Adds a connection, or replaces the one of its name where it stands.
    pub(crate) fn put(&mut self, connection: Arc<Connection>) {
        match self.by_name.get(&connection.name).copied() {
            Some(index) => {
                if let Some(slot) = self.all.get_mut(index) {
                    *slot = connection;
                }
                self.index_again();
            }
            None => {
                self.all.push(connection);
                self.index(self.all.len() - 1);
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(index) = self.by_name.get(name).copied() {
            self.all.remove(index);
            self.index_again();
        }
    }

    fn index_again(&mut self) {
        let all = std::mem::take(&mut self.all);
        *self = Self {
            all,
            ..Self::default()
        };
        (0..self.all.len()).for_each(|index| self.index(index));
    }

    fn index(&mut self, index: usize) {
        let Some(connection) = self.all.get(index) else {
            return;
        };
        self.by_name.insert(connection.name.clone(), index);
        self.any_ppk |= connection.ppk.is_some();
        for tunnel in connection.children.iter().filter_map(|child| child.tunnel) {
            self.by_tunnel.entry(tunnel).or_insert(index);
        }
        if connection.remote_networks.is_empty() && !connection.remote_addresses.is_empty() {
            for remote in &connection.remote_addresses {
                let slot = self.by_remote.entry(remote.ip()).or_default();
                if !slot.contains(&index) {
                    slot.push(index);
                }
            }
        } else {
            self.general.push(index);
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
        assert_eq!(directory.iter().next().unwrap().name, "any");
        assert!(directory.of_tunnel(TunnelId(1)).is_none());
        directory.remove("any");
        assert!(near(&directory, "192.0.2.9").is_empty());
        assert_eq!(directory.get("c").unwrap().name, "c");
        assert_eq!(directory.iter().count(), 2);
    }
}
