//! What the driver may ask for: connections loaded and unloaded, SAs brought up, renewed and closed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use southbound::TunnelId;

use crate::config::{Connection, StartAction};
use crate::credential::Credentials;
use crate::error::{Error, Result};
use crate::event::{EapAnswer, SaId};
use crate::ike_sa::Task;

use super::Endpoint;

impl Endpoint {
    /// Loads a connection, or replaces one of the same name: IKE SAs that are up keep the old configuration until they
    /// are renewed from the start. Children that start by themselves are brought up.
    pub fn add_connection(&mut self, now: Instant, connection: Connection) {
        let starts = connection
            .children
            .iter()
            .any(|child| child.start == StartAction::Start);
        let initiates = starts && !connection.remote_addresses.is_empty();
        let name = connection.name.clone();
        self.connections.put(Arc::new(connection));
        let live = self.live_sa(&name).is_some();
        self.states.entry(name.clone()).or_default().wanted = initiates;
        self.set_retry(&name, (initiates && !live).then_some(now));
    }

    /// Replaces a connection that differs from the loaded one in its children only; IKE SAs that are up take it over at
    /// once. Children that went are closed, children that start by themselves are brought up.
    pub fn update_children(&mut self, now: Instant, connection: Connection) {
        let name = connection.name.clone();
        let kept: Vec<_> = connection.children.clone();
        let known = self.connections.get(&name).into_iter();
        let stale: Vec<String> = known
            .flat_map(|known| known.children.iter())
            .filter(|child| !kept.contains(child))
            .map(|child| child.name.clone())
            .collect();
        for child in &stale {
            self.terminate_child(now, &name, child);
        }
        let shared = Arc::new(connection.clone());
        for id in self.census.of_connection(&name) {
            if let Some(sa) = self.sas.get_mut(&id) {
                sa.connection = shared.clone();
            }
        }
        self.add_connection(now, connection);
        if self.live_sa(&name).is_some() {
            // What cannot be initiated has no address, and waits for its peer.
            let _ = self.initiate(now, &name, None);
        }
    }

    /// Unloads a connection and closes its IKE SAs.
    pub fn remove_connection(&mut self, now: Instant, name: &str) {
        self.terminate(now, name);
        self.set_retry(name, None);
        self.states.remove(name);
        self.connections.remove(name);
    }

    /// Replaces all credentials; IKE SAs that are up stay up.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.credentials = credentials;
    }

    /// Sets the time of day, by which certificates are judged.
    pub fn set_wall_clock(&mut self, now: Instant, unix_seconds: u64) {
        self.wall_clock = (now, unix_seconds);
    }

    /// Brings up a connection, or one child of it.
    ///
    /// # Errors
    /// [`Error::Local`] where the connection, the child or an address to reach the peer at does not exist.
    pub fn initiate(&mut self, now: Instant, connection: &str, child: Option<&str>) -> Result<()> {
        let found = self.connections.get(connection).cloned();
        let connection = found.ok_or_else(|| Error::Local(format!("no connection named {connection:?}")))?;
        let children: Vec<String> = match child {
            Some(name) => {
                let config = connection
                    .child(name)
                    .ok_or_else(|| Error::Local(format!("no child named {name:?}")))?;
                vec![config.name.clone()]
            }
            None => {
                let started = connection
                    .children
                    .iter()
                    .filter(|child| child.start == StartAction::Start);
                started.map(|child| child.name.clone()).collect()
            }
        };
        if child.is_none() || connection.children.iter().any(|c| c.start == StartAction::Start) {
            self.states.entry(connection.name.clone()).or_default().wanted = true;
        }
        let Some(id) = self.live_sa(&connection.name) else {
            return self.launch_next(now, &connection, children);
        };
        self.with_sa(now, id, |sa, ctx| {
            sa.held_down = false;
            for name in children {
                let have = sa
                    .children
                    .iter()
                    .any(|child| child.name == name && child.successor.is_none());
                if !have {
                    sa.enqueue(ctx.now, Task::CreateChild { name });
                }
            }
            sa.run_tasks(ctx);
        });
        Ok(())
    }

    /// A packet waits for a tunnel that has no SA (the dataplane's `Acquire`): brings up its child.
    ///
    /// # Errors
    /// As [`Self::initiate`], and where no child carries the tunnel.
    pub fn acquire(&mut self, now: Instant, tunnel: TunnelId) -> Result<()> {
        let found = self.connections.of_tunnel(tunnel).and_then(|connection| {
            let mut children = connection.children.iter();
            let child = children.find(|child| child.tunnel == Some(tunnel))?;
            Some((connection.name.clone(), child.name.clone()))
        });
        let (connection, child) =
            found.ok_or_else(|| Error::Local(format!("no child carries tunnel {}", tunnel.0)))?;
        self.initiate(now, &connection, Some(&child))
    }

    /// A worker sends through a tunnel without an SA of its own (the dataplane's `WorkerAcquire`): asks the peer for a
    /// pair for it (RFC 9611), where the configuration allows one more and the peer did not refuse.
    pub fn acquire_for_worker(&mut self, now: Instant, tunnel: TunnelId, worker: u16) {
        let Some(resource) = worker.checked_add(1) else {
            return;
        };
        let Some(spi_in) = self.registry.selection(tunnel) else {
            return;
        };
        let found = self.registry.homes(spi_in).find_map(|id| {
            let child = self.sas.get(&id)?.child_by_spi_in(spi_in)?;
            Some((id, child.name.clone()))
        });
        if let Some((id, name)) = found {
            self.with_sa(now, id, |sa, ctx| {
                sa.enqueue(ctx.now, Task::CreateForResource { name, resource });
                sa.run_tasks(ctx);
            });
        }
    }

    /// Closes all IKE SAs of a connection and leaves it down.
    pub fn terminate(&mut self, now: Instant, connection: &str) {
        if let Some(state) = self.states.get_mut(connection) {
            state.wanted = false;
        }
        self.set_retry(connection, None);
        let ids: Vec<SaId> = self.census.of_connection(connection).collect();
        for id in ids {
            self.with_sa(now, id, |sa, ctx| {
                sa.held_down = true;
                if sa.is_half_open() {
                    sa.close(ctx, "closed by the operator");
                } else {
                    sa.enqueue(
                        ctx.now,
                        Task::DeleteIke {
                            reason: "closed by the operator".into(),
                        },
                    );
                    sa.run_tasks(ctx);
                }
            });
        }
    }

    /// Closes the Child SAs of one child of a connection and leaves them down.
    pub fn terminate_child(&mut self, now: Instant, connection: &str, child: &str) {
        self.for_sas_of(now, connection, |sa, ctx| {
            sa.held_down = true;
            let spis: Vec<u32> = sa
                .children
                .iter()
                .filter(|c| c.name == child)
                .map(|c| c.spi_in())
                .collect();
            for spi_in in spis {
                sa.enqueue(ctx.now, Task::DeleteChild { spi_in });
            }
            sa.run_tasks(ctx);
        });
    }

    /// Sends the peers of a connection that can follow to another gateway (RFC 5685 section 5), as before maintenance.
    /// New peers are sent there by [`Connection::redirect_to`].
    pub fn redirect_peers(&mut self, now: Instant, connection: &str, to: IpAddr) {
        self.for_sas_of(now, connection, |sa, ctx| {
            if !sa.initiator && sa.support.redirect {
                sa.enqueue(ctx.now, Task::Redirect { to });
                sa.run_tasks(ctx);
            }
        });
    }

    /// Renews the IKE SAs of a connection.
    pub fn rekey_ike(&mut self, now: Instant, connection: &str) {
        self.for_sas_of(now, connection, |sa, ctx| {
            sa.enqueue(ctx.now, Task::RekeyIke);
            sa.run_tasks(ctx);
        });
    }

    /// Renews the Child SAs of one child of a connection.
    pub fn rekey_child(&mut self, now: Instant, connection: &str, child: &str) {
        self.for_sas_of(now, connection, |sa, ctx| {
            let spis: Vec<u32> = sa
                .children
                .iter()
                .filter(|c| c.name == child && c.successor.is_none())
                .map(|c| c.spi_in())
                .collect();
            for spi_in in spis {
                sa.enqueue(ctx.now, Task::RekeyChild { spi_in });
            }
            sa.run_tasks(ctx);
        });
    }

    /// The dataplane says that an SA came near the end of its sequence numbers, bytes or packets: it is renewed. Either
    /// SPI of the pair will do.
    pub fn limit_reached(&mut self, now: Instant, spi: u32) {
        let of_spi = |child: &&crate::child_sa::ChildSa| child.spi_in() == spi || child.spi_out() == spi;
        let ids: Vec<SaId> = self.registry.homes(spi).collect();
        for id in ids {
            self.with_sa(now, id, |sa, ctx| {
                if let Some(spi_in) = sa.children.iter().find(of_spi).map(|child| child.spi_in()) {
                    sa.enqueue(ctx.now, Task::RekeyChild { spi_in });
                    sa.run_tasks(ctx);
                }
            });
        }
    }

    /// The dataplane says that an authentic packet of this inbound SA came from elsewhere (RFC 7296 section 2.23): the
    /// peer is followed where it is behind a NAT and MOBIKE does not say otherwise.
    pub fn peer_moved(&mut self, now: Instant, spi_in: u32, address: IpAddr, port: Option<u16>) {
        let mut homes = self.registry.homes(spi_in);
        let has = |id: &SaId| {
            let sa = self.sas.get(id);
            sa.is_some_and(|sa| sa.child_by_spi_in(spi_in).is_some())
        };
        let Some(id) = homes.find(has) else { return };
        drop(homes);
        self.with_sa(now, id, |sa, ctx| {
            let follows = sa.nat.there && !sa.nat.here && (!sa.support.mobike || address == sa.remote.ip());
            if let Some(port) = port.filter(|_| follows) {
                let local = sa.local;
                sa.move_to(ctx, local, SocketAddr::new(address, port));
            }
        });
    }

    /// A local address came or went: IKE SAs that use `old` move to `new` by MOBIKE where the peer can (RFC 4555), and
    /// start over where it cannot.
    pub fn local_address_changed(&mut self, now: Instant, old: IpAddr, new: IpAddr) {
        let ids: Vec<SaId> = self
            .sas
            .values()
            .filter(|sa| sa.local.ip() == old && sa.is_established() && old.is_ipv4() == new.is_ipv4())
            .map(|sa| sa.id)
            .collect();
        for id in ids {
            self.with_sa(now, id, |sa, ctx| {
                if !sa.support.mobike {
                    if sa.initiator {
                        sa.close(ctx, "the local address is gone");
                    }
                    return;
                }
                if !sa.initiator {
                    // The initiator decides on the path (RFC 4555 section 3.5): it learns of this one.
                    sa.local = SocketAddr::new(new, sa.local.port());
                    sa.update_child_addresses(ctx);
                    sa.outbox.hasten(ctx.now);
                    sa.enqueue(ctx.now, Task::AnnounceAddresses);
                    sa.handle_timeout(ctx);
                    return;
                }
                sa.local = SocketAddr::new(new, ctx.config.nat_t_port);
                if sa.remote.port() == ctx.config.port {
                    sa.remote.set_port(ctx.config.nat_t_port);
                }
                sa.outbox.hasten(ctx.now);
                sa.update_child_addresses(ctx);
                sa.enqueue(ctx.now, Task::UpdateAddresses);
                sa.handle_timeout(ctx);
            });
        }
    }

    /// What the authentication server says to an [`crate::Event::EapRequest`] of this IKE SA. An answer that comes too
    /// late is ignored.
    pub fn answer_eap(&mut self, now: Instant, sa: SaId, answer: EapAnswer) {
        self.with_sa(now, sa, |sa, ctx| sa.take_eap_answer(ctx, answer));
    }

    /// A dynamic tunnel that an earlier endpoint gave away and that is still in use: it is not given to anybody else.
    pub fn reserve_tunnel(&mut self, tunnel: TunnelId) {
        self.registry.reserve_tunnel(tunnel);
    }

    /// Leases of virtual addresses, to be kept over a restart.
    pub fn leases(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.registry.leases()
    }

    /// Takes up a lease from before a restart, so that its holder gets the same address again.
    pub fn restore_lease(&mut self, address: IpAddr, holder: String) {
        self.registry.restore_lease(address, holder);
    }

    fn for_sas_of(
        &mut self,
        now: Instant,
        connection: &str,
        mut act: impl FnMut(&mut crate::ike_sa::IkeSa, &mut crate::ike_sa::Context<'_>),
    ) {
        let ids: Vec<SaId> = self.census.of_connection(connection).collect();
        for id in ids {
            self.with_sa(now, id, |sa, ctx| {
                if sa.is_established() && !sa.dormant {
                    act(sa, ctx);
                }
            });
        }
    }
}
