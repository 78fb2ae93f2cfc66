//! IKE_SA_INIT as initiator (RFC 7296 section 1.2), and what both sides announce in it.

use crate::config::Fragmentation;
use crate::cookie::COOKIE_BYTES;
use crate::crypto::key_exchange::{KeMethod, Offer};
use crate::crypto::random::Draw;
use crate::crypto::signature::SignatureHash;
use crate::error::{Error, Result};
use crate::ike_sa::{Context, Effect, IkeSa, Keyed};
use crate::keymat::{IkeKeys, Seed, first_seed};
use crate::message::{ExchangeType, Header, emit_message};
use crate::nat;
use crate::payload::Payload;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::{NotifyPayload, NotifyType};
use crate::payload::sa::SaPayload;
use crate::proposal::{choose_ike, single};

use super::Exchange;
use super::parts::{Parts, status};

/// Times that a peer may answer with a cookie or another key exchange method before it is given up.
const MAX_RESTARTS: u8 = 4;

/// How Windows names itself, before its version: MD5 of "MS NT5 ISAKMPOAKLEY".
const WINDOWS_VENDOR_ID: [u8; 16] = [
    0x1e, 0x2b, 0x51, 0x69, 0x05, 0x99, 0x1c, 0x7d, 0x7c, 0x96, 0xfc, 0xbf, 0xb5, 0x87, 0xe4, 0x61,
];

/// Our IKE_SA_INIT request in flight.
#[derive(Debug)]
pub(crate) struct InitExchange {
    offer: Offer,
    nonce: Vec<u8>,
    request: Vec<u8>,
    cookie: Option<Vec<u8>>,
    restarts: u8,
}

/// A nonce of twice the strength of anything we negotiate (RFC 7296 section 2.10).
pub(crate) fn draw_nonce(ctx: &mut Context<'_>) -> Vec<u8> {
    ctx.random.bytes::<32>().to_vec()
}

/// What both ends announce in IKE_SA_INIT.
pub(crate) fn announcements(sa: &IkeSa, with_intermediate: bool, with_ppk: bool) -> Vec<Payload> {
    let mut out = Vec::new();
    if sa.connection.fragmentation != Fragmentation::Never {
        out.push(status(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
    }
    let hashes = SignatureHash::ALL
        .iter()
        .flat_map(|hash| hash.id().to_be_bytes())
        .collect();
    out.push(status(NotifyType::SIGNATURE_HASH_ALGORITHMS, hashes));
    if with_intermediate {
        out.push(status(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, Vec::new()));
    }
    if with_ppk {
        out.push(status(NotifyType::USE_PPK, Vec::new()));
    }
    out
}

impl IkeSa {
    /// Sends the first request.
    pub(crate) fn start_init(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        let first = self
            .connection
            .proposals
            .first()
            .and_then(|proposal| proposal.methods.first());
        let method = *first.ok_or_else(|| Error::Local("the connection has no IKE proposal".into()))?;
        let offer = Offer::new(method, ctx.random)?;
        let nonce = draw_nonce(ctx);
        self.send_init(ctx, offer, nonce, None, 0);
        Ok(())
    }

    fn send_init(
        &mut self,
        ctx: &mut Context<'_>,
        offer: Offer,
        nonce: Vec<u8>,
        cookie: Option<Vec<u8>>,
        restarts: u8,
    ) {
        let connection = self.connection.clone();
        let proposals = (1..)
            .zip(&connection.proposals)
            .map(|(number, proposal)| proposal.to_wire(number, Vec::new()))
            .collect();
        let mut payloads = Vec::new();
        // RFC 7296 section 2.6: a returned cookie comes first.
        payloads.extend(cookie.clone().map(|cookie| status(NotifyType::COOKIE, cookie)));
        payloads.push(Payload::Sa(SaPayload { proposals }));
        payloads.push(Payload::Ke(KePayload {
            method: offer.method.id(),
            data: offer.public.clone(),
        }));
        payloads.push(Payload::Nonce(nonce.clone()));
        let force = connection.force_udp_encapsulation;
        payloads.extend(nat::announce(self.local_spi, 0, self.local, self.remote, force));
        let intermediate = connection
            .proposals
            .iter()
            .any(|p| p.additional.iter().any(|list| !list.is_empty()));
        payloads.extend(announcements(self, intermediate, connection.ppk.is_some()));
        payloads.push(match self.redirected_from {
            Some(gateway) => super::redirect::redirected_from(gateway),
            None => status(NotifyType::REDIRECT_SUPPORTED, Vec::new()),
        });
        self.remote_spi = 0;
        let request = emit_message(&self.header(ExchangeType::IKE_SA_INIT, 0, false), &payloads);
        self.outbox.restart();
        let datagrams = vec![request.clone()];
        self.transmit(ctx, &datagrams);
        let exchange = Exchange::Init(Box::new(InitExchange {
            offer,
            nonce,
            request,
            cookie,
            restarts,
        }));
        let policy = self.connection.retransmission;
        self.outbox
            .send(ctx.now, datagrams, exchange, &policy, ctx.random);
    }

    /// Takes an answer to IKE_SA_INIT, which nothing protects: what is malformed is ignored, so that a forged answer
    /// cannot end the negotiation that the true one continues.
    pub(crate) fn take_init(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        datagram: &[u8],
        parts: &Parts,
    ) {
        if !self
            .outbox
            .exchanges()
            .any(|exchange| matches!(exchange, Exchange::Init(_)))
            || self.keyed.is_some()
        {
            ctx.counters.out_of_window += 1;
            return;
        }
        let asked_at = self.outbox.asked_at(0);
        let Some(Exchange::Init(exchange)) = self.outbox.complete(0) else {
            return;
        };
        self.last_heard = ctx.now;
        let outcome = self.take_init_parts(ctx, *exchange, header, datagram, parts);
        self.tally_answer(
            ctx,
            ExchangeType::IKE_SA_INIT,
            asked_at,
            parts.refusal(),
            outcome.as_ref().err(),
        );
        if let Err(error) = outcome {
            self.close(ctx, &error.to_string());
        }
    }

    fn take_init_parts(
        &mut self,
        ctx: &mut Context<'_>,
        exchange: InitExchange,
        header: &Header,
        datagram: &[u8],
        parts: &Parts,
    ) -> Result<()> {
        let InitExchange {
            offer,
            nonce,
            request,
            cookie,
            restarts,
        } = exchange;
        if parts.sa.is_none() {
            if restarts >= MAX_RESTARTS {
                return Err(Error::Malformed("the peer keeps asking for another IKE_SA_INIT"));
            }
            if let Some(demand) = parts
                .notify(NotifyType::COOKIE)
                .filter(|n| COOKIE_BYTES.contains(&n.data.len()))
            {
                self.send_init(ctx, offer, nonce, Some(demand.data.clone()), restarts + 1);
                return Ok(());
            }
            if let Some(wanted) = parts.notify(NotifyType::INVALID_KE_PAYLOAD) {
                let method = wanted_method(wanted, &self.connection.proposals)?;
                let offer = Offer::new(method, ctx.random)?;
                // The same nonce and cookie: RFC 7296 section 2.6.1.
                self.send_init(ctx, offer, nonce, cookie, restarts + 1);
                return Ok(());
            }
            if let Some(redirect) = parts.notify(NotifyType::REDIRECT) {
                let to = super::redirect::target(redirect, &nonce)?;
                ctx.effects.push(Effect::Redirected {
                    connection: self.connection.name.clone(),
                    to,
                });
                return Err(Error::Local(format!("redirected to {to}")));
            }
            let refusal = parts.refusal().ok_or(Error::MissingPayload("SA"))?;
            return Err(match refusal {
                NotifyType::NO_PROPOSAL_CHOSEN => {
                    Error::NoProposalChosen("the peer accepts none of our IKE proposals".into())
                }
                other => Error::PeerRefused(other),
            });
        }
        if header.responder_spi == 0 {
            return Err(Error::Malformed("zero responder SPI"));
        }
        let answer = single(parts.proposals()?)?;
        let (suite, _) = choose_ike(&self.connection.proposals, answer)?;
        let ke = parts.ke()?;
        if suite.method != offer.method || ke.method != offer.method.id() {
            return Err(Error::Malformed("key exchange method of the answer"));
        }
        let shared = offer.complete(&ke.data)?;
        self.remote_spi = header.responder_spi;
        let seed = Seed {
            nonce_i: nonce,
            nonce_r: parts.nonce()?.to_vec(),
            spi_i: self.local_spi,
            spi_r: self.remote_spi,
        };
        let keys = IkeKeys::derive(&suite, &first_seed(suite.prf, &seed, &shared), &seed);
        let additional = suite.additional_methods().collect();
        self.keyed = Some(Keyed::new(suite, keys, true)?);
        self.note_support(parts);
        let (local, remote) = (self.local, self.remote);
        self.detect_nat(parts, local, remote);
        // RFC 7296 section 2.23: float to the NAT traversal port; with MOBIKE at once (RFC 4555 section 3.3).
        if self.nat.any() && self.local.port() == ctx.config.port {
            self.local.set_port(ctx.config.nat_t_port);
            if self.remote.port() == ctx.config.port {
                self.remote.set_port(ctx.config.nat_t_port);
            }
        }
        let handshake = self.handshake()?;
        handshake.init_request = request;
        handshake.init_response = datagram.to_vec();
        handshake.seed = seed;
        handshake.additional = additional;
        if !handshake.additional.is_empty() && !parts.has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
            return Err(Error::Malformed(
                "additional key exchange without IKE_INTERMEDIATE",
            ));
        }
        self.log_keys(ctx);
        self.continue_handshake(ctx)
    }

    /// The next exchange of the initiator: an additional key exchange, or IKE_AUTH.
    pub(crate) fn continue_handshake(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        match self.handshake()?.additional.pop_front() {
            Some(method) => self.start_intermediate(ctx, method),
            None => self.start_auth(ctx),
        }
    }

    pub(crate) fn note_support(&mut self, parts: &Parts) {
        self.support.fragmentation = parts.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        self.support.childless = parts.has(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
        self.support.ppk = parts.has(NotifyType::USE_PPK);
        self.support.redirect =
            parts.has(NotifyType::REDIRECT_SUPPORTED) || parts.has(NotifyType::REDIRECTED_FROM);
        self.support.windows = parts.vendors.iter().any(|id| id.starts_with(&WINDOWS_VENDOR_ID));
        if let Some(hashes) = parts.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS) {
            self.support.signature_hashes = hashes
                .data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| u16::from_be_bytes(*pair))
                .collect();
        }
    }

    pub(crate) fn detect_nat(
        &mut self,
        parts: &Parts,
        local: std::net::SocketAddr,
        remote: std::net::SocketAddr,
    ) {
        let (spi_i, spi_r) = self.spis();
        // The initiator hashed a responder SPI of zero.
        let spi_r = if self.initiator { spi_r } else { 0 };
        let notifies: Vec<&NotifyPayload> = parts.notifies.iter().collect();
        if let Some(nat) = nat::detect(&notifies, spi_i, spi_r, local, remote) {
            self.nat = nat;
            self.nat.here |= self.connection.force_udp_encapsulation;
        }
    }
}

/// The method that INVALID_KE_PAYLOAD asks for, where we offered it.
pub(crate) fn wanted_method(
    notify: &NotifyPayload,
    ours: &[crate::proposal::IkeProposal],
) -> Result<KeMethod> {
    let id = notify.data.as_slice().try_into().map(u16::from_be_bytes);
    id.ok()
        .and_then(KeMethod::from_id)
        .filter(|method| ours.iter().any(|proposal| proposal.methods.contains(method)))
        .ok_or_else(|| {
            Error::NoProposalChosen("the peer wants a key exchange method that was not offered".into())
        })
}
