//! IKE_INTERMEDIATE with additional key exchanges (RFC 9242, RFC 9370).

use southbound::KeyMaterial;

use crate::crypto::key_exchange::{KeMethod, Offer, answer};
use crate::error::{Error, Result};
use crate::fragment::intermediate_octets;
use crate::ike_sa::{Context, Handshake, IkeSa, Keyed, Phase};
use crate::keymat::{IkeKeys, additional_seed};
use crate::message::{ExchangeType, Header};
use crate::payload::key_exchange::KePayload;
use crate::payload::{Payload, emit_chain};

use super::Exchange;
use super::parts::Parts;

impl Handshake {
    /// Notes one of our own messages for AUTH.
    pub(crate) fn cover(&mut self, header: &Header, payloads: &[Payload], _request: bool, keyed: &Keyed) {
        let mut inner = Vec::new();
        let first = emit_chain(payloads, &mut inner);
        self.cover_inner(header, first, &inner, keyed);
    }

    fn cover_inner(&mut self, header: &Header, first: u8, inner: &[u8], keyed: &Keyed) {
        let octets = intermediate_octets(header, first, inner);
        let sk_p = if header.from_initiator {
            &keyed.keys.sk_pi
        } else {
            &keyed.keys.sk_pr
        };
        self.intermediate
            .add(header.from_initiator, keyed.suite.prf, sk_p, &octets);
    }
}

impl IkeSa {
    pub(crate) fn start_intermediate(&mut self, ctx: &mut Context<'_>, method: KeMethod) -> Result<()> {
        let offer = Offer::new(method, ctx.random)?;
        let payloads = [Payload::Ke(KePayload {
            method: method.id(),
            data: offer.public.clone(),
        })];
        self.request(
            ctx,
            ExchangeType::IKE_INTERMEDIATE,
            &payloads,
            Exchange::Intermediate(Box::new(offer)),
        )
    }

    pub(crate) fn take_intermediate(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        first: u8,
        inner: &[u8],
        offer: &Offer,
        parts: &Parts,
    ) -> Result<()> {
        if let Some(refusal) = parts.refusal() {
            return Err(Error::PeerRefused(refusal));
        }
        let ke = parts.ke()?;
        if ke.method != offer.method.id() {
            return Err(Error::Malformed("key exchange method of the answer"));
        }
        let shared = offer.complete(&ke.data)?;
        self.cover_received(header, first, inner)?;
        self.take_shared(ctx, &shared)?;
        self.continue_handshake(ctx)
    }

    pub(crate) fn answer_intermediate(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        first: u8,
        inner: &[u8],
        parts: &Parts,
    ) -> Result<Vec<Payload>> {
        let result = self.try_answer_intermediate(ctx, header, first, inner, parts);
        if let Err(error) = &result {
            self.close_reason = Some(error.to_string());
        }
        result
    }

    fn try_answer_intermediate(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        first: u8,
        inner: &[u8],
        parts: &Parts,
    ) -> Result<Vec<Payload>> {
        let method = self.handshake()?.additional.pop_front();
        let method = method.ok_or(Error::Malformed("IKE_INTERMEDIATE that was not negotiated"))?;
        let ke = parts.ke()?;
        if ke.method != method.id() {
            return Err(Error::Malformed("additional key exchange out of order"));
        }
        let (public, shared) = answer(method, &ke.data, ctx.random)?;
        self.cover_received(header, first, inner)?;
        self.handshake()?.next_shared = Some(shared);
        Ok(vec![Payload::Ke(KePayload {
            method: method.id(),
            data: public,
        })])
    }

    fn cover_received(&mut self, header: &Header, first: u8, inner: &[u8]) -> Result<()> {
        let keyed = self
            .keyed
            .as_ref()
            .ok_or(Error::Malformed("exchange out of order"))?;
        match &mut self.phase {
            Phase::Handshake(handshake) => handshake.cover_inner(header, first, inner, keyed),
            _ => return Err(Error::Malformed("exchange out of order")),
        }
        Ok(())
    }

    /// New keys from SK_d and a further shared secret.
    fn take_shared(&mut self, ctx: &mut Context<'_>, shared: &KeyMaterial) -> Result<()> {
        let seed = self.handshake()?.seed.clone();
        let keyed = self.keyed()?;
        let suite = keyed.suite.clone();
        let skeyseed = additional_seed(suite.prf, &keyed.keys.sk_d, &seed, shared);
        let keys = IkeKeys::derive(&suite, &skeyseed, &seed);
        let mut fresh = Keyed::new(suite, keys, self.initiator)?;
        fresh.previous_receive = self.keyed.take().map(|old| old.receive);
        self.keyed = Some(fresh);
        self.log_keys(ctx);
        Ok(())
    }

    /// What waits for an answer to be out: the change of keys after IKE_INTERMEDIATE.
    pub(crate) fn after_response(&mut self, ctx: &mut Context<'_>) {
        let shared = match &mut self.phase {
            Phase::Handshake(handshake) => handshake.next_shared.take(),
            _ => None,
        };
        if let Some(error) = shared.and_then(|shared| self.take_shared(ctx, &shared).err()) {
            self.close_reason = Some(error.to_string());
        }
    }
}
