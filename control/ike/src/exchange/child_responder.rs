//! Child SAs that the peer asks for, in IKE_AUTH and by CREATE_CHILD_SA (RFC 7296 sections 1.3.1, 1.3.3, 2.9 and 2.25).

use southbound::Mode;

use crate::child_sa::{ChildState, narrow_both};
use crate::config::ChildConfig;
use crate::crypto::key_exchange::answer;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ike_sa::{Context, IkeSa};
use crate::payload::Payload;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::NotifyType;
use crate::payload::sa::{Proposal, Protocol, SaPayload};
use crate::payload::traffic_selector::{TrafficSelector, TsPayload};
use crate::proposal::choose_esp;

use super::Exchange;
use super::create_child::{MAX_CHILDREN, NegotiatedChild, resource_info};
use super::ike_sa_init::draw_nonce;
use super::parts::{Parts, status};

impl IkeSa {
    /// Answers CREATE_CHILD_SA, for a Child SA or for the IKE SA.
    pub(crate) fn answer_create_child(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &Parts,
    ) -> Result<Vec<Payload>> {
        if parts
            .proposals()?
            .iter()
            .any(|proposal| proposal.protocol == Protocol::IKE)
        {
            return self.answer_ike_rekey(ctx, parts);
        }
        if self.outbox.exchanges().any(Exchange::renews_ike) || self.collision.is_some() {
            return Err(Error::TemporaryFailure("the IKE SA is being rekeyed"));
        }
        let renews = match parts.notify(NotifyType::REKEY_SA) {
            None => None,
            Some(notify) => {
                let old = notify.esp_spi().and_then(|spi| self.child_by_spi_out(spi));
                let Some(old) = old else {
                    // It may be one whose making the peer has answered already, in an answer that was lost.
                    return Err(match self.outbox.exchanges().any(Exchange::concerns_child) {
                        true => Error::TemporaryFailure("a Child SA is being negotiated"),
                        false => Error::ChildSaNotFound,
                    });
                };
                match old.state {
                    ChildState::Deleting => {
                        return Err(Error::TemporaryFailure("the Child SA is being deleted"));
                    }
                    // Our renewal of it is complete and it is about to be deleted.
                    ChildState::Replaced => return Err(Error::TemporaryFailure("the Child SA was replaced")),
                    ChildState::Active | ChildState::Rekeying => Some(old.spi_in()),
                }
            }
        };
        let outcome = self.answer_child(ctx, parts, renews, None);
        if let Err(error) = &outcome {
            ctx.events.push_back(Event::Failed {
                connection: Some(self.connection.name.clone()),
                remote: self.remote,
                reason: format!("child asked for by the peer: {error}"),
            });
        }
        outcome
    }

    /// Answers the SA and TS payloads of a child. In IKE_AUTH the nonces are those of IKE_SA_INIT, and there is no key
    /// exchange.
    pub(crate) fn answer_child(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &Parts,
        renews: Option<u32>,
        first: Option<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Vec<Payload>> {
        if self.children.len() >= MAX_CHILDREN {
            return Err(Error::NoAdditionalSas);
        }
        let with_exchange = first.is_none();
        let (config, local_ts, remote_ts) = self.child_for(parts, renews)?;
        let (suite, offer) = choose_esp(&config.proposals, parts.proposals()?, with_exchange)?;
        let spi_out = offer.esp_spi()?;
        let resource = match renews.and_then(|spi_in| self.child_by_spi_in(spi_in)) {
            Some(old) => old.resource,
            None => self.free_resource(&config),
        };
        let for_resource = parts.has(NotifyType::SA_RESOURCE_INFO);
        let is_further = renews.is_none() && self.children.iter().any(|child| child.name == config.name);
        if for_resource && is_further && resource.is_none_or(|resource| resource >= config.resources) {
            return Err(Error::TsMaxQueue);
        }
        let mut shared = Vec::new();
        let mut ke_payload = None;
        if let Some(method) = suite.method {
            let ke = parts.ke.as_ref().filter(|ke| ke.method == method.id());
            let ke = ke.ok_or(Error::InvalidKe(method.id()))?;
            let (public, secret) = answer(method, &ke.data, ctx.random)?;
            shared.push(secret);
            ke_payload = Some(Payload::Ke(KePayload {
                method: method.id(),
                data: public,
            }));
        }
        let (nonce_i, nonce_r) = match first {
            Some(nonces) => nonces,
            None => (parts.nonce()?.to_vec(), draw_nonce(ctx)),
        };
        let transport = config.mode == Mode::Transport && parts.has(NotifyType::USE_TRANSPORT_MODE);
        let spi_in = ctx.registry.new_child_spi(ctx.random);
        let mut payloads = Vec::new();
        if transport {
            payloads.push(status(NotifyType::USE_TRANSPORT_MODE, Vec::new()));
        }
        payloads.push(Payload::Sa(SaPayload {
            proposals: vec![Proposal {
                number: offer.number,
                protocol: Protocol::ESP,
                spi: spi_in.to_be_bytes().to_vec(),
                transforms: suite.transforms(),
            }],
        }));
        // Where we want one pair, the peer's wish for several goes unanswered, and it asks for no more.
        if let Some(resource) = resource.filter(|_| for_resource) {
            payloads.push(resource_info(resource));
        }
        if with_exchange {
            payloads.push(Payload::Nonce(nonce_r.clone()));
        }
        payloads.extend(ke_payload);
        payloads.push(Payload::TsI(TsPayload {
            selectors: remote_ts.clone(),
        }));
        payloads.push(Payload::TsR(TsPayload {
            selectors: local_ts.clone(),
        }));
        let additional: Vec<_> = suite.additional_methods().collect();
        let negotiated = NegotiatedChild {
            config,
            suite,
            mode: if transport { Mode::Transport } else { Mode::Tunnel },
            spi_in,
            spi_out,
            local_ts,
            remote_ts,
            renews,
            resource,
            nonce_i,
            nonce_r,
            we_initiated: false,
        };
        if additional.is_empty() {
            self.complete_child(ctx, negotiated, &shared)?;
        } else {
            let purpose = super::followup::Purpose::Child(Box::new(negotiated));
            payloads.push(self.expect_followup(ctx, purpose, shared, additional));
        }
        Ok(payloads)
    }

    /// The configured child that the peer's selectors fit: that of the pair renewed, else the one whose selectors
    /// are the offer, before one that covers it, before one that narrows it.
    fn child_for(
        &self,
        parts: &Parts,
        renews: Option<u32>,
    ) -> Result<(ChildConfig, Vec<TrafficSelector>, Vec<TrafficSelector>)> {
        let (theirs, ours) = (parts.ts_i()?, parts.ts_r()?);
        let wanted = renews
            .and_then(|spi_in| self.child_by_spi_in(spi_in))
            .map(|child| child.name.as_str());
        let connection = self.connection.clone();
        let mut refused = Error::TsUnacceptable("the connection has no child".into());
        let mut best: Option<(u8, ChildConfig, Vec<TrafficSelector>, Vec<TrafficSelector>)> = None;
        for config in connection
            .children
            .iter()
            .filter(|c| wanted.is_none_or(|name| name == c.name))
        {
            let (allowed_local, allowed_remote) = self.allowed_selectors(config);
            let (local, remote) = match narrow_both(ours, theirs, &allowed_local, &allowed_remote) {
                Ok(narrowed) => narrowed,
                Err(error) => {
                    refused = error;
                    continue;
                }
            };
            let covered = |offer: &[TrafficSelector], part: &[TrafficSelector]| {
                offer.iter().all(|o| part.iter().any(|p| p.covers(o)))
            };
            let whole = covered(ours, &local) && covered(theirs, &remote);
            let exact = whole && covered(&allowed_local, &local) && covered(&allowed_remote, &remote);
            let rank = if exact {
                0
            } else if whole {
                1
            } else {
                2
            };
            if best.as_ref().is_none_or(|(held, ..)| rank < *held) {
                best = Some((rank, config.clone(), local, remote));
            }
        }
        best.map(|(_, config, local, remote)| (config, local, remote))
            .ok_or(refused)
    }
}
