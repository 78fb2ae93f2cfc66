//! What the dataplane tells: what it holds when it is met, packets that wait for a tunnel, SAs at their limits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use southbound::{LifetimeKind, Query, SaRef, Status, TunnelId};
use tracing::info;

use super::books::{Finding, Plane};
use super::driver::{Driver, MAX_HELD, patterns};
use crate::config::Gateway;

impl Driver {
    /// What a dataplane is to be asked for when it is met: by the first process's first, the routes of single peers.
    pub(crate) fn wanted_of_the_past(&self, gateway: &Gateway) -> &'static [Query] {
        let mut children = gateway
            .connections
            .iter()
            .flat_map(|connection| &connection.tunnels);
        if self.books.is_first() && children.any(|child| child.is_per_peer) {
            &[Query::Routes]
        } else {
            &[]
        }
    }

    /// A dataplane is there and holds this.
    pub(crate) fn learn(&mut self, instance: u64, held: &[Status], plane: &mut Plane<'_>) {
        let negotiated: BTreeSet<TunnelId> = self
            .loaded
            .values()
            .flat_map(|loaded| loaded.engine.children.iter().filter_map(|child| child.tunnel))
            .collect();
        let now = Instant::now();
        let patterns = patterns(&self.loaded);
        match self
            .books
            .learn(now, instance, held, &negotiated, &patterns, plane)
        {
            Finding::Known => {}
            Finding::Inherited(tunnels) => {
                for tunnel in &tunnels {
                    self.endpoint.reserve_tunnel(*tunnel);
                }
                if !tunnels.is_empty() {
                    info!(
                        tunnels = tunnels.len(),
                        "SAs of an earlier control process serve until they are replaced"
                    );
                }
                self.refresh_at = now;
            }
            Finding::Restarted => self.renew_everything(now),
        }
    }

    /// A packet waits for a tunnel; whether a connection carries it.
    pub(crate) fn acquire(&mut self, tunnel: TunnelId) -> bool {
        let is_served = self.endpoint.acquire(Instant::now(), tunnel).is_ok();
        if !is_served && self.unserved.len() < MAX_HELD {
            // Its connection may wait for an address, or not be loaded yet.
            self.unserved.insert(tunnel);
        }
        is_served
    }

    /// A worker sends through a tunnel without an SA of its own.
    pub(crate) fn acquire_for_worker(&mut self, tunnel: TunnelId, worker: u16) {
        self.endpoint.acquire_for_worker(Instant::now(), tunnel, worker);
    }

    /// An SA crossed a limit; whether it was one of ours.
    pub(crate) fn limit_reached(&mut self, sa: &SaRef, kind: LifetimeKind, plane: &mut Plane<'_>) -> bool {
        if self.books.holds(sa) {
            self.endpoint.limit_reached(Instant::now(), sa.spi);
            return true;
        }
        if kind == LifetimeKind::Hard && self.books.inherited() > 0 {
            self.books.forget_inherited(sa, plane);
        }
        false
    }

    /// An authentic packet of an inbound SA came from elsewhere; whether the SA was one of ours.
    pub(crate) fn peer_moved(&mut self, sa: &SaRef, address: IpAddr, port: Option<u16>) -> bool {
        let is_ours = self.books.holds(sa);
        if is_ours {
            self.endpoint.peer_moved(Instant::now(), sa.spi, address, port);
        }
        is_ours
    }

    /// The dataplane refused an SA; whether it was one of ours.
    pub(crate) fn refused(&mut self, sa: &SaRef, reason: &str, plane: &mut Plane<'_>) -> bool {
        let is_ours = self.books.holds(sa);
        if is_ours {
            self.journal.fail(
                None,
                format!("the dataplane refused SPI {:08x}: {reason}", sa.spi),
            );
        } else {
            self.books.forget_inherited(sa, plane);
        }
        is_ours
    }
}
