//! IKE_FOLLOWUP_KE: additional key exchanges after CREATE_CHILD_SA (RFC 9370 section 2.2.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use southbound::KeyMaterial;

use crate::crypto::key_exchange::{KeMethod, Offer, answer};
use crate::crypto::random::Draw;
use crate::error::{Error, Result};
use crate::ike_sa::{Context, IkeSa};
use crate::message::ExchangeType;
use crate::payload::Payload;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::NotifyType;

use super::Exchange;
use super::create_child::NegotiatedChild;
use super::parts::{Parts, status};
use super::rekey_ike::NegotiatedIke;

/// How long the peer may take over the rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the key exchanges are for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Child(Box<NegotiatedChild>),
    Ike(Box<NegotiatedIke>),
}

/// Our IKE_FOLLOWUP_KE request in flight.
#[derive(Debug)]
pub(crate) struct FollowUp {
    purpose: Purpose,
    shared: Vec<KeyMaterial>,
    offer: Offer,
    remaining: VecDeque<KeMethod>,
}

impl FollowUp {
    pub(crate) fn is_child(&self) -> bool {
        matches!(self.purpose, Purpose::Child(_))
    }

    pub(crate) fn asks_for(&self, name: &str, resource: u16) -> bool {
        match &self.purpose {
            Purpose::Child(child) => child.config.name == name && child.resource == Some(resource),
            Purpose::Ike(_) => false,
        }
    }
}

/// Key exchanges that the peer owes us; one such negotiation at a time.
#[derive(Debug)]
pub(crate) struct PendingFollowUp {
    link: Vec<u8>,
    purpose: Purpose,
    shared: Vec<KeyMaterial>,
    remaining: VecDeque<KeMethod>,
    until: Instant,
}

impl IkeSa {
    /// Starts the additional exchanges after the answer `parts`.
    pub(crate) fn start_followup(
        &mut self,
        ctx: &mut Context<'_>,
        purpose: Purpose,
        shared: Vec<KeyMaterial>,
        methods: Vec<KeMethod>,
        parts: &Parts,
    ) -> Result<()> {
        let mut remaining: VecDeque<_> = methods.into();
        let method = remaining
            .pop_front()
            .ok_or(Error::Malformed("no additional key exchange"))?;
        let offer = Offer::new(method, ctx.random)?;
        self.send_followup(
            ctx,
            FollowUp {
                purpose,
                shared,
                offer,
                remaining,
            },
            parts,
        )
    }

    fn send_followup(&mut self, ctx: &mut Context<'_>, followup: FollowUp, parts: &Parts) -> Result<()> {
        let link = parts.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let link = link
            .ok_or(Error::MissingPayload("ADDITIONAL_KEY_EXCHANGE"))?
            .data
            .clone();
        let ke = KePayload {
            method: followup.offer.method.id(),
            data: followup.offer.public.clone(),
        };
        let payloads = [Payload::Ke(ke), status(NotifyType::ADDITIONAL_KEY_EXCHANGE, link)];
        self.request(
            ctx,
            ExchangeType::IKE_FOLLOWUP_KE,
            &payloads,
            Exchange::FollowUp(Box::new(followup)),
        )
    }

    pub(crate) fn take_followup(
        &mut self,
        ctx: &mut Context<'_>,
        followup: FollowUp,
        parts: &Parts,
    ) -> Result<()> {
        let FollowUp {
            purpose,
            mut shared,
            offer,
            mut remaining,
        } = followup;
        if let Some(refusal) = parts.refusal() {
            return self.followup_refused(ctx, purpose, &Error::PeerRefused(refusal));
        }
        let ke = parts.ke()?;
        if ke.method != offer.method.id() {
            return Err(Error::Malformed("key exchange method of the answer"));
        }
        shared.push(offer.complete(&ke.data)?);
        match remaining.pop_front() {
            Some(method) => {
                let offer = Offer::new(method, ctx.random)?;
                self.send_followup(
                    ctx,
                    FollowUp {
                        purpose,
                        shared,
                        offer,
                        remaining,
                    },
                    parts,
                )
            }
            None => self.complete_followup(ctx, purpose, &shared),
        }
    }

    fn complete_followup(
        &mut self,
        ctx: &mut Context<'_>,
        purpose: Purpose,
        shared: &[KeyMaterial],
    ) -> Result<()> {
        match purpose {
            Purpose::Child(child) => self.complete_child(ctx, *child, shared),
            Purpose::Ike(ike) => self.complete_ike_rekey(ctx, *ike, shared),
        }
    }

    fn followup_refused(&mut self, ctx: &mut Context<'_>, purpose: Purpose, error: &Error) -> Result<()> {
        match purpose {
            Purpose::Child(child) => {
                ctx.registry.release_child_spi(child.spi_in);
                if let Some(old) = child.renews.and_then(|spi_in| self.child_by_spi_in_mut(spi_in)) {
                    old.state = crate::child_sa::ChildState::Active;
                    let spi_in = old.spi_in();
                    self.retry_later(ctx, crate::ike_sa::Task::RekeyChild { spi_in });
                }
            }
            Purpose::Ike(_) => self.ike_rekey_refused(ctx, error),
        }
        Ok(())
    }

    /// Waits for the peer's additional exchanges; the notification to add to the answer.
    pub(crate) fn expect_followup(
        &mut self,
        ctx: &mut Context<'_>,
        purpose: Purpose,
        shared: Vec<KeyMaterial>,
        methods: Vec<KeMethod>,
    ) -> Payload {
        let link = ctx.random.bytes::<8>().to_vec();
        let until = ctx.now + PATIENCE;
        self.followup = Some(PendingFollowUp {
            link: link.clone(),
            purpose,
            shared,
            remaining: methods.into(),
            until,
        });
        status(NotifyType::ADDITIONAL_KEY_EXCHANGE, link)
    }

    pub(crate) fn answer_followup(&mut self, ctx: &mut Context<'_>, parts: &Parts) -> Result<Vec<Payload>> {
        let link = parts
            .notify(NotifyType::ADDITIONAL_KEY_EXCHANGE)
            .map(|notify| notify.data.as_slice());
        let pending = self
            .followup
            .take()
            .filter(|p| Some(p.link.as_slice()) == link && p.until > ctx.now);
        // RFC 9370 section 4.1: STATE_NOT_FOUND answers an unknown link.
        let Some(mut pending) = pending else {
            return Ok(vec![status(NotifyType::STATE_NOT_FOUND, Vec::new())]);
        };
        let method = pending
            .remaining
            .pop_front()
            .ok_or(Error::Malformed("additional key exchange"))?;
        let ke = parts.ke()?;
        if ke.method != method.id() {
            return Err(Error::Malformed("additional key exchange out of order"));
        }
        let (public, shared) = answer(method, &ke.data, ctx.random)?;
        pending.shared.push(shared);
        let mut payloads = vec![Payload::Ke(KePayload {
            method: method.id(),
            data: public,
        })];
        if pending.remaining.is_empty() {
            self.complete_followup(ctx, pending.purpose, &pending.shared)?;
        } else {
            payloads.push(status(NotifyType::ADDITIONAL_KEY_EXCHANGE, pending.link.clone()));
            self.followup = Some(pending);
        }
        Ok(payloads)
    }
}
