//! Renewal of the IKE SA by CREATE_CHILD_SA, and the collision of two renewals (RFC 7296 sections 1.3.2, 2.8, 2.8.2
//! and 2.25.2).

use std::time::Duration;

use southbound::KeyMaterial;

use crate::crypto::key_exchange::{Offer, answer};
use crate::error::{Error, Result};
use crate::event::{Event, SaId};
use crate::ike_sa::{Context, Effect, IkeCollision, IkeSa, Keyed, Phase, Task};
use crate::keymat::{IkeKeys, Seed, rekey_seed};
use crate::message::ExchangeType;
use crate::payload::Payload;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::NotifyType;
use crate::payload::sa::{Proposal, Protocol, SaPayload};
use crate::proposal::{IkeSuite, choose_ike, single};
use crate::window::Inbox;

use super::Exchange;
use super::followup::Purpose;
use super::ike_sa_init::{draw_nonce, wanted_method};
use super::parts::Parts;

/// A replaced SA that its peer never deletes is closed after this.
const LINGER: Duration = Duration::from_secs(120);

/// Our request to renew the IKE SA.
#[derive(Debug)]
pub(crate) struct RekeyExchange {
    id: SaId,
    spi: u64,
    nonce: Vec<u8>,
    offer: Offer,
    restarts: u8,
}

/// An IKE SA on which both sides agree; its keys may still await further key exchanges.
#[derive(Debug)]
pub(crate) struct NegotiatedIke {
    id: SaId,
    suite: IkeSuite,
    local_spi: u64,
    remote_spi: u64,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    we_initiated: bool,
}

impl IkeSa {
    pub(crate) fn start_ike_rekey(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        // The method in use first: some peers renew with nothing else.
        let method = self.keyed()?.suite.method;
        let offer = Offer::new(method, ctx.random)?;
        let id = ctx.registry.new_sa();
        let spi = ctx.registry.new_ike_spi(id, ctx.random);
        let nonce = draw_nonce(ctx);
        self.send_ike_rekey(
            ctx,
            RekeyExchange {
                id,
                spi,
                nonce,
                offer,
                restarts: 0,
            },
        )
    }

    fn send_ike_rekey(&mut self, ctx: &mut Context<'_>, exchange: RekeyExchange) -> Result<()> {
        let connection = self.connection.clone();
        let spi = exchange.spi.to_be_bytes().to_vec();
        let mut ordered: Vec<_> = connection.proposals.iter().collect();
        // Proposals that hold the method in use come first, so that the guess in KE is the first choice.
        ordered.sort_by_key(|proposal| !proposal.methods.contains(&exchange.offer.method));
        let proposals = (1..)
            .zip(ordered)
            .map(|(n, p)| p.to_wire(n, spi.clone()))
            .collect();
        let payloads = [
            Payload::Sa(SaPayload { proposals }),
            Payload::Nonce(exchange.nonce.clone()),
            Payload::Ke(KePayload {
                method: exchange.offer.method.id(),
                data: exchange.offer.public.clone(),
            }),
        ];
        self.request(
            ctx,
            ExchangeType::CREATE_CHILD_SA,
            &payloads,
            Exchange::RekeyIke(Box::new(exchange)),
        )
    }

    pub(crate) fn take_ike_rekey(
        &mut self,
        ctx: &mut Context<'_>,
        mut exchange: RekeyExchange,
        parts: &Parts,
    ) -> Result<()> {
        if let Some(wanted) = parts
            .notify(NotifyType::INVALID_KE_PAYLOAD)
            .filter(|_| exchange.restarts < 3)
            && let Ok(method) = wanted_method(wanted, &self.connection.proposals)
        {
            exchange.offer = Offer::new(method, ctx.random)?;
            exchange.restarts += 1;
            return self.send_ike_rekey(ctx, exchange);
        }
        let spi = exchange.spi;
        if let Err(error) = self.take_ike_answer(ctx, exchange, parts) {
            ctx.registry.by_spi.remove(&spi);
            self.ike_rekey_refused(ctx, &error);
        }
        Ok(())
    }

    fn take_ike_answer(
        &mut self,
        ctx: &mut Context<'_>,
        exchange: RekeyExchange,
        parts: &Parts,
    ) -> Result<()> {
        if parts.sa.is_none() {
            return Err(parts
                .refusal()
                .map_or(Error::MissingPayload("SA"), Error::PeerRefused));
        }
        let (suite, proposal) = choose_ike(&self.connection.proposals, single(parts.proposals()?)?)?;
        let remote_spi = proposal.ike_spi()?;
        let ke = parts.ke()?;
        if suite.method != exchange.offer.method || ke.method != suite.method.id() {
            return Err(Error::Malformed("key exchange method of the answer"));
        }
        let shared = vec![exchange.offer.complete(&ke.data)?];
        let additional: Vec<_> = suite.additional_methods().collect();
        let negotiated = NegotiatedIke {
            id: exchange.id,
            suite,
            local_spi: exchange.spi,
            remote_spi,
            nonce_i: exchange.nonce,
            nonce_r: parts.nonce()?.to_vec(),
            we_initiated: true,
        };
        if additional.is_empty() {
            self.complete_ike_rekey(ctx, negotiated, &shared)
        } else {
            self.start_followup(ctx, Purpose::Ike(Box::new(negotiated)), shared, additional, parts)
        }
    }

    /// The peer did not renew with us. Where it renewed by itself meanwhile, that SA takes over.
    pub(crate) fn ike_rekey_refused(&mut self, ctx: &mut Context<'_>, error: &Error) {
        if let Some(collision) = self.collision.take() {
            self.hand_over(ctx, collision.successor);
            return;
        }
        match error {
            Error::PeerRefused(NotifyType::TEMPORARY_FAILURE) => self.retry_later(ctx, Task::RekeyIke),
            error => {
                let (connection, remote) = (Some(self.connection.name.clone()), self.remote);
                let reason = format!("rekeying the IKE SA: {error}");
                ctx.events.push_back(Event::Failed {
                    connection,
                    remote,
                    reason,
                });
                self.enqueue_at(ctx.now + Duration::from_secs(60), Task::RekeyIke);
            }
        }
    }

    /// Passes everything to another IKE SA and waits to be deleted.
    pub(crate) fn hand_over(&mut self, ctx: &mut Context<'_>, to: SaId) {
        let estate = self.take_estate();
        ctx.events.push_back(Event::IkeRekeyed {
            old: self.id,
            new: to,
            connection: self.connection.name.clone(),
        });
        ctx.effects.push(Effect::HandOver { to, estate });
        self.replaced(ctx);
    }

    fn replaced(&mut self, ctx: &Context<'_>) {
        self.phase = Phase::Replaced;
        self.superseded = true;
        self.expires = Some(ctx.now + LINGER);
    }

    pub(crate) fn answer_ike_rekey(&mut self, ctx: &mut Context<'_>, parts: &Parts) -> Result<Vec<Payload>> {
        if self.outbox.exchanges().any(Exchange::concerns_child) {
            return Err(Error::TemporaryFailure("a Child SA is being negotiated"));
        }
        if self.collision.is_some() {
            return Err(Error::TemporaryFailure("the IKE SA was rekeyed"));
        }
        let (suite, offer) = choose_ike(&self.connection.proposals, parts.proposals()?)?;
        let remote_spi = offer.ike_spi()?;
        let ke = parts.ke()?;
        if ke.method != suite.method.id() {
            return Err(Error::InvalidKe(suite.method.id()));
        }
        let (public, shared) = answer(suite.method, &ke.data, ctx.random)?;
        let id = ctx.registry.new_sa();
        let local_spi = ctx.registry.new_ike_spi(id, ctx.random);
        let nonce_r = draw_nonce(ctx);
        let mut payloads = vec![
            Payload::Sa(SaPayload {
                proposals: vec![Proposal {
                    number: offer.number,
                    protocol: Protocol::IKE,
                    spi: local_spi.to_be_bytes().to_vec(),
                    transforms: suite.transforms(),
                }],
            }),
            Payload::Nonce(nonce_r.clone()),
            Payload::Ke(KePayload {
                method: suite.method.id(),
                data: public,
            }),
        ];
        let additional: Vec<_> = suite.additional_methods().collect();
        let negotiated = NegotiatedIke {
            id,
            suite,
            local_spi,
            remote_spi,
            nonce_i: parts.nonce()?.to_vec(),
            nonce_r,
            we_initiated: false,
        };
        if additional.is_empty() {
            self.complete_ike_rekey(ctx, negotiated, &[shared])?;
        } else {
            let purpose = Purpose::Ike(Box::new(negotiated));
            payloads.push(self.expect_followup(ctx, purpose, vec![shared], additional));
        }
        Ok(payloads)
    }

    /// Makes the new IKE SA, and decides who carries on where both sides made one.
    pub(crate) fn complete_ike_rekey(
        &mut self,
        ctx: &mut Context<'_>,
        n: NegotiatedIke,
        shared: &[KeyMaterial],
    ) -> Result<()> {
        let (spi_i, spi_r) = if n.we_initiated {
            (n.local_spi, n.remote_spi)
        } else {
            (n.remote_spi, n.local_spi)
        };
        let lowest_nonce = n.nonce_i.clone().min(n.nonce_r.clone());
        let seed = Seed {
            nonce_i: n.nonce_i,
            nonce_r: n.nonce_r,
            spi_i,
            spi_r,
        };
        let keys = IkeKeys::derive(&n.suite, &rekey_seed(&self.keyed()?.keys, &seed, shared), &seed);
        let connection = self.connection.clone();
        let mut fresh = IkeSa::new(
            n.id,
            connection,
            n.we_initiated,
            n.local_spi,
            n.remote_spi,
            self.local,
            self.remote,
            ctx.now,
        );
        fresh.inbox = Inbox::new(self.connection.window, 0);
        fresh.keyed = Some(Keyed::new(n.suite, keys, n.we_initiated)?);
        fresh.local_id = self.local_id.clone();
        fresh.remote_id = self.remote_id.clone();
        fresh.nat = self.nat;
        fresh.support = self.support.clone();
        fresh.phase = Phase::Established;
        // Authentication is as old as it was (RFC 7296 section 2.8.3).
        fresh.reauthenticate_at = self.reauthenticate_at;
        fresh.start_lifetime(ctx);
        fresh.log_keys(ctx);
        let delete = Task::DeleteIke {
            reason: "rekeyed".into(),
        };
        let fresh_id = fresh.id;
        ctx.counters.ike_rekeys[usize::from(!n.we_initiated)] += 1;
        if !n.we_initiated {
            if self.outbox.exchanges().any(Exchange::renews_ike) {
                ctx.counters.ike_rekey_collisions += 1;
                // Ours is undecided: which of the two SAs carries on is seen from its answer.
                fresh.dormant = true;
                self.collision = Some(IkeCollision {
                    successor: fresh_id,
                    lowest_nonce,
                });
                ctx.effects.push(Effect::Spawn(Box::new(fresh)));
            } else {
                ctx.effects.push(Effect::Spawn(Box::new(fresh)));
                self.hand_over(ctx, fresh_id);
            }
            return Ok(());
        }
        match self.collision.take() {
            Some(theirs) if lowest_nonce < theirs.lowest_nonce => {
                // RFC 7296 section 2.8.2: ours is redundant and ours to delete; the peer deletes the old one.
                fresh.replaced(ctx);
                fresh.enqueue(ctx.now, delete);
                ctx.effects.push(Effect::Spawn(Box::new(fresh)));
                self.hand_over(ctx, theirs.successor);
            }
            theirs => {
                ctx.effects.push(Effect::Spawn(Box::new(fresh)));
                self.hand_over(ctx, fresh_id);
                if let Some(theirs) = theirs {
                    ctx.effects.push(Effect::Abandon { sa: theirs.successor });
                }
                self.enqueue(ctx.now, delete);
            }
        }
        Ok(())
    }

    /// The peer will delete this SA, which lost a collision.
    pub(crate) fn abandon(&mut self, now: std::time::Instant) {
        self.phase = Phase::Replaced;
        self.superseded = true;
        self.dormant = false;
        self.expires = Some(now + LINGER);
    }
}
