//! Child SAs: in IKE_AUTH and by CREATE_CHILD_SA, new and renewed, as either side (RFC 7296 sections 1.3.1, 1.3.3,
//! 2.8 and 2.25).

use std::collections::VecDeque;

use southbound::{KeyMaterial, Mode};

use crate::child_sa::{ChildState, Collision, narrow_both};
use crate::config::ChildConfig;
use crate::crypto::key_exchange::{KeMethod, Offer};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ike_sa::{Context, IkeSa, NewChild, Task};
use crate::message::ExchangeType;
use crate::payload::Payload;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::{NotifyPayload, NotifyType};
use crate::payload::sa::SaPayload;
use crate::payload::traffic_selector::{TrafficSelector, TsPayload};
use crate::proposal::{EspSuite, choose_esp, single};

use super::Exchange;
use super::ike_sa_init::draw_nonce;
use super::parts::{Parts, status};

/// Child SAs that one IKE SA may have, those being replaced included.
pub(crate) const MAX_CHILDREN: usize = 1024;

/// A Child SA that we asked for.
#[derive(Debug)]
pub(crate) struct ChildExchange {
    pub(crate) config: ChildConfig,
    pub(crate) spi_in: u32,
    nonce: Vec<u8>,
    offer: Option<Offer>,
    /// Methods to try where the peer cannot read the one of `offer`.
    further_methods: VecDeque<KeMethod>,
    renews: Option<u32>,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
    pub(crate) resource: Option<u16>,
    restarts: u8,
}

/// A Child SA on which both sides agree; its keys may still await further key exchanges.
#[derive(Debug)]
pub(crate) struct NegotiatedChild {
    pub(crate) config: ChildConfig,
    pub(crate) suite: EspSuite,
    pub(crate) mode: Mode,
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    pub(crate) renews: Option<u32>,
    pub(crate) resource: Option<u16>,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    pub(crate) we_initiated: bool,
}

impl IkeSa {
    /// Draws SPI, nonce and key exchange for a child of the configuration.
    pub(crate) fn draft_child(
        &mut self,
        ctx: &mut Context<'_>,
        name: &str,
        renews: Option<u32>,
        with_exchange: bool,
    ) -> Result<ChildExchange> {
        let connection = self.connection.clone();
        let config = connection.child(name).cloned();
        let config = config.ok_or_else(|| Error::Local(format!("no child named {name:?}")))?;
        let (mut local_ts, remote_ts) = self.allowed_selectors(&config);
        let (v4, v6) = connection.request_addresses;
        if (v4 || v6) && self.own_addresses.is_empty() {
            // The address is yet to be assigned: ask for any and be narrowed to it (RFC 7296 section 2.19).
            local_ts.clear();
            local_ts.extend(v4.then(|| TrafficSelector::any_like(std::net::Ipv4Addr::UNSPECIFIED.into())));
            local_ts.extend(v6.then(|| TrafficSelector::any_like(std::net::Ipv6Addr::UNSPECIFIED.into())));
        }
        let mut methods = VecDeque::new();
        if with_exchange {
            methods = self.methods_to_try(&config, renews);
        }
        let offer = match methods.pop_front() {
            Some(method) => Some(Offer::new(method, ctx.random)?),
            None => None,
        };
        let spi_in = ctx.registry.new_child_spi(ctx.random);
        let nonce = draw_nonce(ctx);
        let resource = match renews.and_then(|spi_in| self.child_by_spi_in(spi_in)) {
            Some(old) => old.resource,
            None => self.free_resource(&config),
        };
        Ok(ChildExchange {
            config,
            spi_in,
            nonce,
            offer,
            further_methods: methods,
            renews,
            local_ts,
            remote_ts,
            resource,
            restarts: 0,
        })
    }

    /// The key exchange methods for a new pair, the likeliest first: none where the configuration prefers none.
    ///
    /// A peer that chooses another one than ours must name it (RFC 7296 section 1.3). But libreswan 4.10, which takes
    /// what the IKE SA had with its first renewal, reads our public value as one of that method and answers
    /// INVALID_SYNTAX for its length.
    fn methods_to_try(&self, config: &ChildConfig, renews: Option<u32>) -> VecDeque<KeMethod> {
        let Some(proposal) = config.proposals.first() else {
            return VecDeque::new();
        };
        if proposal.methods.first().copied().flatten().is_none() {
            return VecDeque::new();
        }
        let old = renews.and_then(|spi_in| self.child_by_spi_in(spi_in));
        let likely = [
            old.and_then(|old| old.suite.method),
            self.keyed.as_ref().map(|keyed| keyed.suite.method),
        ];
        let likely = likely
            .into_iter()
            .filter(|method| method.is_some() && proposal.methods.contains(method));
        let mut methods = VecDeque::new();
        for method in likely.chain(proposal.methods.iter().copied()).flatten() {
            if !methods.contains(&method) {
                methods.push_back(method);
            }
        }
        methods
    }

    /// SA, TSi and TSr, and what goes with them.
    pub(crate) fn child_payloads(&self, child: &ChildExchange, with_exchange: bool, out: &mut Vec<Payload>) {
        let proposals = (1..)
            .zip(&child.config.proposals)
            .map(|(number, proposal)| proposal.to_wire(number, child.spi_in, with_exchange))
            .collect();
        if child.config.mode == Mode::Transport {
            out.push(status(NotifyType::USE_TRANSPORT_MODE, Vec::new()));
        }
        if let Some(resource) = child.resource {
            out.push(resource_info(resource));
        }
        out.push(Payload::Sa(SaPayload { proposals }));
        if with_exchange {
            out.push(Payload::Nonce(child.nonce.clone()));
            out.extend(child.offer.as_ref().map(|offer| {
                Payload::Ke(KePayload {
                    method: offer.method.id(),
                    data: offer.public.clone(),
                })
            }));
        }
        out.push(Payload::TsI(TsPayload {
            selectors: child.local_ts.clone(),
        }));
        out.push(Payload::TsR(TsPayload {
            selectors: child.remote_ts.clone(),
        }));
    }

    pub(crate) fn start_child(&mut self, ctx: &mut Context<'_>, name: &str) -> Result<()> {
        // Meanwhile one may have come up, by the peer or by a collision that ended well.
        let have = self
            .children
            .iter()
            .filter(|child| child.name == name && child.successor.is_none())
            .count();
        let full = self.full_children.iter().any(|full| full == name);
        let config = self.connection.child(name);
        if have >= config.map_or(1, |config| config.pairs_at_once(full)) {
            return Ok(());
        }
        let child = self.draft_child(ctx, name, None, true)?;
        self.send_child(ctx, child)
    }

    /// Asks for a further pair of a child, unless it is there, the peer takes no more, or there is not even the first.
    pub(crate) fn start_child_for_resource(
        &mut self,
        ctx: &mut Context<'_>,
        name: &str,
        resource: u16,
    ) -> Result<()> {
        let config = self.connection.child(name);
        let is_wanted = config.is_some_and(|config| resource < config.resources)
            && self.children.iter().any(|child| child.name == name)
            && !self.full_children.iter().any(|full| full == name)
            && !self.has_resource(name, resource)
            && !self
                .outbox
                .exchanges()
                .any(|exchange| exchange.asks_for(name, resource));
        if !is_wanted {
            return Ok(());
        }
        let mut child = self.draft_child(ctx, name, None, true)?;
        child.resource = Some(resource);
        self.send_child(ctx, child)
    }

    pub(crate) fn start_child_rekey(&mut self, ctx: &mut Context<'_>, spi_in: u32) -> Result<()> {
        let Some(old) = self.child_by_spi_in(spi_in) else {
            return Ok(());
        };
        if old.state != ChildState::Active || old.successor.is_some() {
            return Ok(());
        }
        if self.support.windows && self.nat.there {
            // It refuses, and renews by itself in time.
            return Ok(());
        }
        let name = old.name.clone();
        let child = self.draft_child(ctx, &name, Some(spi_in), true)?;
        if let Some(old) = self.child_by_spi_in_mut(spi_in) {
            old.state = ChildState::Rekeying;
        }
        self.send_child(ctx, child)
    }

    fn send_child(&mut self, ctx: &mut Context<'_>, child: ChildExchange) -> Result<()> {
        let mut payloads = Vec::new();
        if let Some(renews) = child.renews {
            // RFC 7296 section 1.3.3: named by the SPI that the sender of the request receives on.
            payloads.push(Payload::Notify(NotifyPayload::about_child(
                NotifyType::REKEY_SA,
                renews,
            )));
        }
        self.child_payloads(&child, true, &mut payloads);
        self.request(
            ctx,
            ExchangeType::CREATE_CHILD_SA,
            &payloads,
            Exchange::Child(Box::new(child)),
        )
    }

    /// Takes the answer to CREATE_CHILD_SA. Refusals leave the IKE SA as it is.
    pub(crate) fn take_child(
        &mut self,
        ctx: &mut Context<'_>,
        mut child: ChildExchange,
        parts: &Parts,
    ) -> Result<()> {
        let (spi_in, renews, name) = (child.spi_in, child.renews, child.config.name.clone());
        if let Some(wanted) = parts
            .notify(NotifyType::INVALID_KE_PAYLOAD)
            .filter(|_| child.restarts < 3)
        {
            let id = wanted.data.as_slice().try_into().map(u16::from_be_bytes).ok();
            let offered = |method: &KeMethod| {
                child
                    .config
                    .proposals
                    .iter()
                    .any(|p| p.methods.contains(&Some(*method)))
            };
            if let Some(method) = id.and_then(KeMethod::from_id).filter(offered) {
                child.offer = Some(Offer::new(method, ctx.random)?);
                child.restarts += 1;
                return self.send_child(ctx, child);
            }
        }
        if parts.has(NotifyType::INVALID_SYNTAX)
            && child.offer.is_some()
            && child.restarts < 3
            && let Some(method) = child.further_methods.pop_front()
        {
            child.offer = Some(Offer::new(method, ctx.random)?);
            child.restarts += 1;
            return self.send_child(ctx, child);
        }
        let nonces = (child.nonce.clone(), parts.nonce.clone().unwrap_or_default());
        let Err(error) = self.take_child_answer(ctx, child, parts, &nonces, true) else {
            return Ok(());
        };
        ctx.registry.release_child_spi(spi_in);
        if parts.sa.is_some() {
            // The responder has a pair that we cannot use: it must go (RFC 7296 section 2.21.2).
            self.enqueue(ctx.now, Task::DeleteChild { spi_in });
        }
        self.child_refused(ctx, &name, renews, &error);
        Ok(())
    }

    fn child_refused(&mut self, ctx: &mut Context<'_>, name: &str, renews: Option<u32>, error: &Error) {
        let again = match renews {
            Some(spi_in) => Task::RekeyChild { spi_in },
            None => Task::CreateChild {
                name: name.to_owned(),
            },
        };
        let mut superseded = false;
        if let Some(old) = renews.and_then(|spi_in| self.child_by_spi_in_mut(spi_in)) {
            if old.state == ChildState::Rekeying {
                old.state = ChildState::Active;
            }
            // The peer's own rekey of it, accepted meanwhile, stands.
            superseded = old.collision.take().is_some() || old.successor.is_some();
        }
        match error {
            _ if superseded => {}
            Error::PeerRefused(NotifyType::TEMPORARY_FAILURE) => self.retry_later(ctx, again),
            // RFC 9611 section 5: what there is suffices the peer.
            Error::PeerRefused(NotifyType::TS_MAX_QUEUE | NotifyType::NO_ADDITIONAL_SAS)
                if renews.is_none() && self.children.iter().any(|child| child.name == name) =>
            {
                self.full_children.push(name.to_owned());
            }
            // RFC 7296 section 2.25.1: the peer no longer has what we renew; start over without it.
            Error::PeerRefused(NotifyType::CHILD_SA_NOT_FOUND) => {
                if let Some(spi_in) = renews.filter(|spi_in| self.child_by_spi_in(*spi_in).is_some()) {
                    self.remove_child(ctx, spi_in);
                    self.enqueue(
                        ctx.now,
                        Task::CreateChild {
                            name: name.to_owned(),
                        },
                    );
                }
            }
            error => {
                let (connection, remote) = (Some(self.connection.name.clone()), self.remote);
                let reason = format!("child {name}: {error}");
                ctx.events.push_back(Event::Failed {
                    connection,
                    remote,
                    reason,
                });
                let wanted = self
                    .connection
                    .child(name)
                    .is_some_and(|c| c.start == crate::config::StartAction::Start);
                if renews.is_some() || wanted {
                    self.enqueue_at(ctx.now + std::time::Duration::from_secs(30), again);
                }
            }
        }
    }

    /// What both sides agreed on, from the answer's payloads.
    pub(crate) fn take_child_answer(
        &mut self,
        ctx: &mut Context<'_>,
        child: ChildExchange,
        parts: &Parts,
        nonces: &(Vec<u8>, Vec<u8>),
        with_exchange: bool,
    ) -> Result<()> {
        if parts.sa.is_none() {
            return Err(parts
                .refusal()
                .map_or(Error::MissingPayload("SA"), Error::PeerRefused));
        }
        let answers = single(parts.proposals()?)?;
        let (suite, proposal) = choose_esp(&child.config.proposals, answers, with_exchange)?;
        let spi_out = proposal.esp_spi()?;
        let (answered_local, answered_remote) = (parts.ts_i()?, parts.ts_r()?);
        let (local_ts, remote_ts) =
            narrow_both(answered_local, answered_remote, &child.local_ts, &child.remote_ts)?;
        let transport = child.config.mode == Mode::Transport && parts.has(NotifyType::USE_TRANSPORT_MODE);
        let mut shared = Vec::new();
        if let Some(method) = suite.method {
            let ke = parts.ke()?;
            let offer = child
                .offer
                .filter(|offer| offer.method == method && ke.method == method.id());
            let offer = offer.ok_or(Error::Malformed("key exchange method of the answer"))?;
            shared.push(offer.complete(&ke.data)?);
        }
        if nonces.1.is_empty() {
            return Err(Error::MissingPayload("Nonce"));
        }
        if child.resource.is_some()
            && child.renews.is_none()
            && !parts.has(NotifyType::SA_RESOURCE_INFO)
            && !self.full_children.contains(&child.config.name)
        {
            // The peer does not know what a further pair is for: it gets no more of them.
            self.full_children.push(child.config.name.clone());
        }
        let additional: Vec<_> = suite.additional_methods().collect();
        let negotiated = NegotiatedChild {
            config: child.config,
            suite,
            mode: if transport { Mode::Transport } else { Mode::Tunnel },
            spi_in: child.spi_in,
            spi_out,
            local_ts,
            remote_ts,
            renews: child.renews,
            resource: child.resource,
            nonce_i: nonces.0.clone(),
            nonce_r: nonces.1.clone(),
            we_initiated: true,
        };
        if additional.is_empty() {
            self.complete_child(ctx, negotiated, &shared)
        } else {
            self.start_followup(
                ctx,
                super::followup::Purpose::Child(Box::new(negotiated)),
                shared,
                additional,
                parts,
            )
        }
    }

    /// Derives the keys and installs the pair; decides a collision where both sides renewed the same pair.
    pub(crate) fn complete_child(
        &mut self,
        ctx: &mut Context<'_>,
        negotiated: NegotiatedChild,
        shared: &[KeyMaterial],
    ) -> Result<()> {
        let n = negotiated;
        if n.we_initiated && self.deleted_early.contains(&n.spi_out) {
            // The peer's request to delete it overtook the peer's answer.
            ctx.registry.release_child_spi(n.spi_in);
            if let Some(old) = n.renews.and_then(|spi_in| self.child_by_spi_in_mut(spi_in)) {
                old.state = ChildState::Active;
            }
            return Ok(());
        }
        if n.we_initiated && n.renews.is_some_and(|spi_in| self.lost_rekeys.contains(&spi_in)) {
            // RFC 7296 section 2.8.1: the peer's renewal stands, as its deletion of the old pair says; ours goes.
            self.enqueue(ctx.now, Task::DeleteChild { spi_in: n.spi_in });
            return Ok(());
        }
        let keyed = self.keyed()?;
        let (forth, back) = keyed
            .keys
            .child(&n.nonce_i, &n.nonce_r, shared, n.suite.transform.key_bytes());
        let (key_in, key_out) = if n.we_initiated {
            (back, forth)
        } else {
            (forth, back)
        };
        let lowest_nonce = n.nonce_i.clone().min(n.nonce_r.clone());
        let mut select = n.we_initiated || n.renews.is_none();
        let mut delete_old = false;
        let spi_in = n.spi_in;
        let old = n.renews.and_then(|spi| self.child_by_spi_in_mut(spi));
        // The pair renewed may be gone by now: then this is simply a new one.
        let renews = old.as_ref().map(|old| old.spi_in());
        ctx.counters.child_rekeys[usize::from(!n.we_initiated)] += u64::from(renews.is_some());
        if let Some(old) = old {
            if n.we_initiated {
                old.state = ChildState::Replaced;
                match old.collision.take() {
                    Some(theirs) if lowest_nonce < theirs.lowest_nonce => {
                        // RFC 7296 section 2.8.1: the exchange with the lowest nonce made the redundant pair, and who
                        // made it deletes it. The peer deletes the old pair.
                        self.enqueue(ctx.now, Task::DeleteChild { spi_in });
                        return Ok(());
                    }
                    Some(theirs) => {
                        delete_old = true;
                        if let Some(redundant) = self.child_by_spi_in_mut(theirs.spi_in) {
                            redundant.state = ChildState::Replaced;
                            redundant.successor = Some(spi_in);
                            redundant.select_at = None;
                        }
                    }
                    None => delete_old = true,
                }
            } else {
                select = false;
                if old.state == ChildState::Rekeying {
                    ctx.counters.child_rekey_collisions += 1;
                    old.collision = Some(Collision { spi_in, lowest_nonce });
                }
            }
        } else if n.renews.is_some() {
            select = true;
        }
        self.install_child(
            ctx,
            NewChild {
                config: n.config,
                suite: n.suite,
                mode: n.mode,
                spi_in,
                spi_out: n.spi_out,
                key_in,
                key_out,
                local_ts: n.local_ts,
                remote_ts: n.remote_ts,
                renews,
                resource: n.resource,
                select,
                by_peer: !n.we_initiated,
            },
        )?;
        if let Some(old) = renews.filter(|_| delete_old) {
            self.enqueue(ctx.now, Task::DeleteChild { spi_in: old });
        }
        Ok(())
    }
}

/// Which pair of several it is (RFC 9611 section 6.1): without data the first, which all workers may use.
pub(super) fn resource_info(resource: u16) -> Payload {
    let data = match resource {
        0 => Vec::new(),
        resource => u32::from(resource).to_be_bytes().to_vec(),
    };
    status(NotifyType::SA_RESOURCE_INFO, data)
}
