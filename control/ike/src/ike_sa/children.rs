//! The Child SAs of an IKE SA as the dataplane sees them: installed make-before-break, selected, drained, removed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use southbound::{KeyMaterial, Mode, SaDirection, SaRef, TunnelId, UdpEncapsulation, Update};

use crate::child_sa::{ChildSa, ChildState, PairParameters, resolve};
use crate::config::ChildConfig;
use crate::crypto::random::Draw;
use crate::error::{Error, Result};
use crate::event::{Event, SaId};
use crate::payload::traffic_selector::TrafficSelector;
use crate::proposal::EspSuite;

use super::{Context, Effect, IkeSa};

/// How long an inbound SA outlives its pair, for packets under way.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// A rekeyed pair whose initiator never deletes the old one is switched to after this.
const SELECT_FALLBACK: Duration = Duration::from_secs(4);

/// A pair as negotiated.
pub(crate) struct NewChild {
    pub(crate) config: ChildConfig,
    pub(crate) suite: EspSuite,
    pub(crate) mode: Mode,
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) key_in: KeyMaterial,
    pub(crate) key_out: KeyMaterial,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Inbound SPI of the pair that it renews.
    pub(crate) renews: Option<u32>,
    pub(crate) resource: Option<u16>,
    /// Use it for sending at once: a first pair, or a renewal of ours. A renewal of the peer's waits until the peer
    /// deletes the old pair, by which time it can certainly receive.
    pub(crate) select: bool,
    /// The peer asked for it: it can receive with it only once our answer is there, so a pair in use stays so.
    pub(crate) by_peer: bool,
}

impl IkeSa {
    pub(crate) fn child_by_spi_in(&self, spi_in: u32) -> Option<&ChildSa> {
        self.children.iter().find(|child| child.spi_in() == spi_in)
    }

    pub(crate) fn child_by_spi_in_mut(&mut self, spi_in: u32) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.spi_in() == spi_in)
    }

    pub(crate) fn child_by_spi_out(&self, spi_out: u32) -> Option<&ChildSa> {
        self.children.iter().find(|child| child.spi_out() == spi_out)
    }

    /// Our and the peer's addresses for dynamic selectors.
    pub(crate) fn dynamic_addresses(&self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let or_outer = |virtual_ones: &[IpAddr], outer: IpAddr| {
            if virtual_ones.is_empty() {
                vec![outer]
            } else {
                virtual_ones.to_vec()
            }
        };
        (
            or_outer(&self.own_addresses, self.local.ip()),
            or_outer(&self.virtual_addresses, self.remote.ip()),
        )
    }

    /// The selectors that a child's configuration allows on this SA: ours, the peer's.
    pub(crate) fn allowed_selectors(
        &self,
        config: &ChildConfig,
    ) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let (local, remote) = self.dynamic_addresses();
        // A peer with a virtual address speaks with that alone, whatever its networks are configured as.
        let remote_ts = if self.virtual_addresses.is_empty() {
            resolve(&config.remote_ts, &remote)
        } else {
            remote
                .iter()
                .map(|address| TrafficSelector::host(*address))
                .collect()
        };
        let local_ts = if self.own_addresses.is_empty() {
            resolve(&config.local_ts, &local)
        } else {
            local
                .iter()
                .map(|address| TrafficSelector::host(*address))
                .collect()
        };
        (local_ts, remote_ts)
    }

    /// ESP travels in UDP where a NAT stands between, and our port allows it.
    pub(crate) fn udp_encapsulation(&self) -> Option<UdpEncapsulation> {
        self.nat.any().then_some(UdpEncapsulation {
            local_port: self.local.port(),
            remote_port: self.remote.port(),
            // A peer whose ESP comes through an ordinary socket hears no IPv6 datagram without one (RFC 8200
            // section 8.1); over IPv4 zero is the rule (RFC 3948 section 2.1).
            checksum: self.remote.is_ipv6(),
        })
    }

    fn tunnel_for(&self, ctx: &mut Context<'_>, new: &NewChild) -> Result<TunnelId> {
        if let Some(tunnel) = new.config.tunnel {
            return Ok(tunnel);
        }
        let same = self.children.iter().find(|child| child.name == new.config.name);
        match same {
            Some(child) => Ok(child.tunnel()),
            None => ctx
                .registry
                .new_tunnel(ctx.config)
                .ok_or(Error::Local("no dynamic tunnel is free".into())),
        }
    }

    /// Installs a negotiated pair: inbound first, then outbound, then the choice of it.
    pub(crate) fn install_child(&mut self, ctx: &mut Context<'_>, new: NewChild) -> Result<()> {
        let tunnel = self.tunnel_for(ctx, &new)?;
        let worker = new.resource.and_then(|resource| resource.checked_sub(1));
        // What the peer asked for it can take only once it has our answer: until then the pair of all carries on.
        let mut served = [worker, None].into_iter();
        let is_served = served.any(|worker| ctx.registry.has_selection(tunnel, worker));
        let select = new.select && !(new.by_peer && is_served);
        let parameters = PairParameters {
            config: &new.config,
            tunnel,
            mode: new.mode,
            local: self.local.ip(),
            remote: self.remote.ip(),
            udp: self.udp_encapsulation(),
            suite: &new.suite,
            local_ts: &new.local_ts,
            remote_ts: &new.remote_ts,
        };
        let inbound = parameters.spec(SaDirection::Inbound, new.spi_in, new.key_in);
        let outbound = parameters.spec(SaDirection::Outbound, new.spi_out, new.key_out);
        let rekey = new.config.rekey;
        let fuzz_ms = u64::try_from(rekey.fuzz.as_millis()).unwrap_or(u64::MAX);
        let early = Duration::from_millis(ctx.random.below(fuzz_ms));
        let child = ChildSa {
            name: new.config.name.clone(),
            inbound,
            outbound,
            suite: new.suite,
            local_ts: new.local_ts,
            remote_ts: new.remote_ts,
            state: ChildState::Active,
            resource: new.resource,
            successor: None,
            collision: None,
            rekey_at: ctx.now + rekey.renew_after.saturating_sub(early),
            expire_at: ctx.now + rekey.give_up_after,
            select_at: (!select).then_some(ctx.now + SELECT_FALLBACK),
        };
        let (sa, connection, summary) = (self.id, self.connection.name.clone(), child.summary());
        ctx.events.push_back(match new.renews {
            Some(old_spi_in) => Event::ChildRekeyed {
                sa,
                connection,
                old_spi_in,
                child: summary,
            },
            None => Event::ChildUp {
                sa,
                connection,
                child: summary,
            },
        });
        ctx.events
            .push_back(Event::Dataplane(Update::InstallSa(child.inbound.clone())));
        ctx.events
            .push_back(Event::Dataplane(Update::InstallSa(child.outbound.clone())));
        ctx.registry.settle(self.id, child.spi_in(), child.spi_out());
        self.children.push(child);
        if select {
            self.select_outbound(ctx, new.spi_in);
        }
        if let Some(old) = new.renews.and_then(|spi| self.child_by_spi_in_mut(spi)) {
            old.successor = Some(new.spi_in);
        } else if !new.by_peer && new.config.pairs_at_once(false) > 1 {
            // The next of several; it is not asked for once there are enough.
            self.enqueue(
                ctx.now,
                super::Task::CreateChild {
                    name: new.config.name,
                },
            );
        }
        Ok(())
    }

    /// Which of several pairs a further one of this child is: the lowest number that is free (RFC 9611). `None` where
    /// the configuration wants one pair.
    pub(crate) fn free_resource(&self, config: &ChildConfig) -> Option<u16> {
        let taken = |resource: &u16| {
            let mut asked = self.outbox.exchanges();
            self.has_resource(&config.name, *resource)
                || asked.any(|exchange| exchange.asks_for(&config.name, *resource))
        };
        (config.resources > 1)
            .then(|| (0..u16::MAX).find(|resource| !taken(resource)))
            .flatten()
    }

    /// Whether a child has a pair of this number that is not being replaced.
    pub(crate) fn has_resource(&self, name: &str, resource: u16) -> bool {
        let mut of_child = self
            .children
            .iter()
            .filter(|child| child.name == name && child.successor.is_none());
        of_child.any(|child| child.resource == Some(resource))
    }

    /// Sends with this pair from now on: all workers, or the one whose it is.
    pub(crate) fn select_outbound(&mut self, ctx: &mut Context<'_>, spi_in: u32) {
        let Some(child) = self.child_by_spi_in_mut(spi_in) else {
            return;
        };
        child.select_at = None;
        let worker = child.worker();
        self.select_for(ctx, spi_in, worker);
    }

    /// Sends with this pair from now on for one worker, or for all that have none of their own, whosever it is.
    pub(crate) fn select_for(&self, ctx: &mut Context<'_>, spi_in: u32, worker: Option<u16>) {
        let Some(child) = self.child_by_spi_in(spi_in) else {
            return;
        };
        let (tunnel, sa) = (child.tunnel(), child.outbound.reference());
        ctx.events
            .push_back(Event::Dataplane(selection(tunnel, worker, sa)));
        ctx.registry.select(tunnel, worker, spi_in);
    }

    /// Removes a pair. With a successor the change of the outbound SA comes first; inbound packets under way are still
    /// taken for a while.
    pub(crate) fn remove_child(&mut self, ctx: &mut Context<'_>, spi_in: u32) {
        let Some(index) = self.children.iter().position(|child| child.spi_in() == spi_in) else {
            return;
        };
        let child = self.children.swap_remove(index);
        ctx.registry.leave(self.id, child.spi_in());
        ctx.registry.leave(self.id, child.spi_out());
        let successor = child.successor.filter(|spi| self.child_by_spi_in(*spi).is_some());
        if let Some(worker) = child.worker()
            && ctx.registry.is_selected(child.tunnel(), Some(worker), spi_in)
        {
            match successor {
                Some(next) => self.select_for(ctx, next, Some(worker)),
                // The worker goes on with the pair of all.
                None => ctx.registry.deselect(child.tunnel(), worker),
            }
        }
        if ctx.registry.is_selected(child.tunnel(), None, spi_in) {
            // Its successor, or else another pair of the same tunnel.
            let usable = |c: &&ChildSa| c.tunnel() == child.tunnel() && c.state != ChildState::Deleting;
            let other = self.children.iter().find(usable).map(ChildSa::spi_in);
            match successor.or(other) {
                Some(next) => self.select_for(ctx, next, None),
                None => ctx.registry.orphan(child.tunnel(), None, spi_in),
            }
        }
        ctx.events
            .push_back(Event::Dataplane(Update::RemoveSa(child.outbound.reference())));
        // The pair that it renewed is still there: it was the redundant one of a collision, and nothing went down.
        let redundant = self.children.iter().any(|other| other.successor == Some(spi_in));
        // Another pair may point here as its successor (a peer that rekeyed twice): it goes on to ours.
        for other in &mut self.children {
            if other.successor == Some(spi_in) {
                other.successor = child.successor;
            }
        }
        let replaced = child
            .successor
            .is_some_and(|spi| self.child_by_spi_in(spi).is_some());
        if replaced || matches!(child.state, ChildState::Replaced) {
            self.draining.push((ctx.now + DRAIN, child.inbound.reference()));
        } else {
            ctx.events
                .push_back(Event::Dataplane(Update::RemoveSa(child.inbound.reference())));
            ctx.registry.release_child_spi(spi_in);
        }
        if !replaced && !redundant {
            self.child_gone(ctx, &child);
        }
    }

    fn child_gone(&mut self, ctx: &mut Context<'_>, child: &ChildSa) {
        let others = self.children.iter().any(|other| other.tunnel() == child.tunnel());
        if !others {
            let config = self.connection.child(&child.name);
            if config.is_none_or(|config| config.tunnel.is_none()) {
                ctx.registry.release_tunnel(ctx.config, child.tunnel());
            }
        }
        ctx.events
            .push_back(child_down(self.id, &self.connection.name, child));
    }

    /// Removes every pair at once, with the IKE SA.
    pub(crate) fn remove_all_children(&mut self, ctx: &mut Context<'_>) {
        for (_, reference) in std::mem::take(&mut self.draining) {
            ctx.registry.release_child_spi(reference.spi);
            ctx.events
                .push_back(Event::Dataplane(Update::RemoveSa(reference)));
        }
        let children = std::mem::take(&mut self.children);
        for child in &children {
            ctx.registry.leave(self.id, child.spi_in());
            ctx.registry.leave(self.id, child.spi_out());
            ctx.registry
                .orphan(child.tunnel(), child.worker(), child.spi_in());
        }
        if !children.is_empty() {
            ctx.effects.push(Effect::Bury {
                connection: self.connection.clone(),
                children,
            });
        }
    }

    /// Removes inbound SAs whose time to drain is over.
    pub(crate) fn finish_draining(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let over: Vec<_> = self.draining.extract_if(.., |(when, _)| *when <= now).collect();
        for (_, reference) in over {
            ctx.registry.release_child_spi(reference.spi);
            ctx.events
                .push_back(Event::Dataplane(Update::RemoveSa(reference)));
        }
    }

    /// The path changed: the same SAs with other addresses (MOBIKE, or a NAT that forgot us).
    pub(crate) fn update_child_addresses(&mut self, ctx: &mut Context<'_>) {
        let (local, remote, udp) = (self.local.ip(), self.remote.ip(), self.udp_encapsulation());
        for child in &mut self.children {
            let old = child.outbound.reference();
            for spec in [&mut child.inbound, &mut child.outbound] {
                (spec.local, spec.remote, spec.udp) = (local, remote, udp);
                ctx.events
                    .push_back(Event::Dataplane(Update::InstallSa(spec.clone())));
            }
            let new = child.outbound.reference();
            if new != old {
                // An outbound SA is named by its destination, too: the new name takes over, then the old one goes.
                let (tunnel, spi_in) = (child.tunnel(), child.spi_in());
                let own = child.worker().map(Some);
                for worker in [None].into_iter().chain(own) {
                    if ctx.registry.is_selected(tunnel, worker, spi_in) {
                        ctx.events
                            .push_back(Event::Dataplane(selection(tunnel, worker, new)));
                    }
                }
                ctx.events.push_back(Event::Dataplane(Update::RemoveSa(old)));
            }
        }
    }

    /// The earliest moment at which some child needs attention.
    pub(crate) fn child_deadline(&self) -> Option<Instant> {
        let of_children = self.children.iter().flat_map(|child| {
            let rekey =
                (child.state == ChildState::Active && child.successor.is_none()).then_some(child.rekey_at);
            [rekey, Some(child.expire_at), child.select_at]
                .into_iter()
                .flatten()
        });
        of_children
            .chain(self.draining.iter().map(|(when, _)| *when))
            .min()
    }
}

/// A pair of this IKE SA went.
pub(crate) fn child_down(sa: SaId, connection: &str, child: &ChildSa) -> Event {
    Event::ChildDown {
        sa,
        connection: connection.to_owned(),
        child: child.name.clone(),
        tunnel: child.tunnel(),
        spi_in: child.spi_in(),
    }
}

fn selection(tunnel: TunnelId, worker: Option<u16>, sa: SaRef) -> Update {
    match worker {
        Some(worker) => Update::SelectForWorker { tunnel, worker, sa },
        None => Update::SelectOutbound { tunnel, sa },
    }
}
