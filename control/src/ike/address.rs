//! Where peers are, and which of our addresses leads there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::books::Plane;
use super::driver::Driver;
use crate::config::Remote;

/// How often peers that are down are looked for anew, and names asked at the most.
pub(super) const REFRESH: Duration = Duration::from_secs(2);
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);

/// What the resolver said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) connection: String,
    index: usize,
    found: Result<Vec<SocketAddr>, String>,
}

/// Our address towards `remote`, as the kernel's routes say; nothing is sent.
pub(super) fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any = match remote.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// Asks the host's resolver.
pub(super) async fn resolve(name: String, port: u16) -> Result<Vec<SocketAddr>, String> {
    match tokio::net::lookup_host((name.as_str(), port)).await {
        Ok(found) => {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                return Err(format!("the name {name:?} has no address"));
            }
            Ok(addresses)
        }
        Err(error) => Err(format!("the name {name:?} does not resolve: {error}")),
    }
}

impl Driver {
    /// Looks where peers are, and which of our addresses leads there.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.open_sockets();
        for (name, loaded) in &mut self.loaded {
            let is_up = self.endpoint.is_up(name);
            let is_due = |asked: Instant| now.duration_since(asked) >= RESOLVE_AGAIN;
            if !is_up && loaded.open_questions == 0 && loaded.asked_at.is_none_or(is_due) {
                for (index, remote) in loaded.config.remotes.iter().enumerate() {
                    if let Remote::Name(host, port) = remote {
                        loaded.asked_at = Some(now);
                        loaded.open_questions += 1;
                        let (sender, connection) = (self.answers.0.clone(), name.clone());
                        let (host, port) = (host.clone(), *port);
                        tokio::spawn(async move {
                            let found = resolve(host, port).await;
                            // A daemon that stops needs no answer.
                            let _ = sender
                                .send(Answer {
                                    connection,
                                    index,
                                    found,
                                })
                                .await;
                        });
                    }
                }
            }
            if is_up && loaded.is_loaded {
                continue;
            }
            let remotes: Vec<SocketAddr> = loaded.found.iter().flatten().copied().collect();
            if remotes.is_empty() && !loaded.config.remotes.is_empty() {
                continue;
            }
            let mut sources: Vec<IpAddr> = Vec::new();
            if loaded.engine.local_addresses.is_empty() {
                for source in remotes.iter().filter_map(|remote| source_towards(*remote)) {
                    if !sources.contains(&source) {
                        sources.push(source);
                    }
                }
            }
            if !loaded.is_loaded
                || loaded.engine.remote_addresses != remotes
                || loaded.engine.source_addresses != sources
            {
                loaded.engine.remote_addresses = remotes;
                loaded.engine.source_addresses = sources;
                loaded.is_loaded = true;
                self.endpoint.add_connection(now, loaded.engine.clone());
            }
            // What an earlier process left serves until this one has negotiated its own.
            for tunnel in loaded.engine.children.iter().filter_map(|child| child.tunnel) {
                if self.unserved.remove(&tunnel) | self.books.has_inherited(tunnel) {
                    // A tunnel whose peer alone initiates waits for the peer.
                    let _ = self.endpoint.acquire(now, tunnel);
                }
            }
        }
    }

    pub(super) fn resolved(&mut self, answer: Answer) {
        let Some(loaded) = self.loaded.get_mut(&answer.connection) else {
            return;
        };
        loaded.open_questions = loaded.open_questions.saturating_sub(1);
        match answer.found {
            Ok(addresses) => {
                if let Some(found) = loaded.found.get_mut(answer.index)
                    && !same_addresses(found, &addresses)
                {
                    *found = addresses;
                    self.refresh_at = Instant::now();
                }
            }
            Err(reason) => {
                warn!(connection = answer.connection, "{reason}");
                self.journal.fail(Some(&answer.connection), reason);
            }
        }
    }

    /// The connection is tried anew: its names may lead elsewhere by now.
    pub(super) fn ask_again(&mut self, connection: &str) {
        if let Some(loaded) = self.loaded.get_mut(connection)
            && loaded
                .asked_at
                .is_some_and(|asked| asked.elapsed() >= RESOLVE_PAUSE)
        {
            loaded.asked_at = None;
            self.refresh_at = Instant::now();
        }
    }

    /// IKE SAs whose own address went move to the one that now leads to their peer (RFC 4555).
    pub(super) fn follow_addresses(&mut self, now: Instant, plane: &Plane<'_>) {
        for sa in self.endpoint.ike_sas() {
            if plane.desired.is_local(sa.local.ip()) {
                continue;
            }
            if let Some(source) = source_towards(sa.remote)
                && source != sa.local.ip()
            {
                info!(connection = sa.connection, from = %sa.local.ip(), to = %source, "our address changed");
                self.endpoint.local_address_changed(now, sa.local.ip(), source);
            }
        }
        self.refresh_at = now;
    }
}

pub(super) fn known_address(remote: &Remote) -> Vec<SocketAddr> {
    match remote {
        Remote::Address(address) => vec![*address],
        Remote::Name(..) => Vec::new(),
    }
}

fn same_addresses(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|address| other.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_without_an_address_is_told_with_the_name() {
        let found = resolve("localhost".to_owned(), 500).await.unwrap();
        assert!(
            found
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 500)
        );
        let error = resolve("no-such-host.invalid".to_owned(), 500).await.unwrap_err();
        assert!(error.contains("no-such-host.invalid"), "{error}");
    }

    #[test]
    fn the_source_is_the_route_s() {
        let remote = SocketAddr::from(([127, 0, 0, 1], 500));
        assert_eq!(source_towards(remote), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
