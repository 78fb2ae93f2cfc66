//! First requests: repeated ones, cookies by load, limits on half-open SAs (RFC 7296 sections 2.1 and 2.6).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::event::{Event, SaId};
use crate::exchange::init_responder::{Outcome, answer_init};
use crate::exchange::parts::{Parts, refuse, status};
use crate::exchange_tally::{ExchangeFailure, ExchangeRole};
use crate::ike_sa::Phase;
use crate::message::{ExchangeType, Header};
use crate::payload::notify::NotifyType;
use crate::payload::parse_chain;

use super::Endpoint;
use super::stateless::RateLimit;

/// Half-open SAs and where they come from.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// By peer and its SPI, so that a repeated first request finds its SA.
    index: HashMap<(SocketAddr, u64), SaId>,
    keys: HashMap<SaId, (SocketAddr, u64)>,
    half_open: HashSet<SaId>,
    per_address: HashMap<IpAddr, usize>,
    /// Reports of refused strangers.
    reports: RateLimit,
}

/// Refusals of strangers reported in a second: more would let anyone fill the log.
const REPORTS_PER_SECOND: u32 = 10;

impl Admission {
    fn admit(&mut self, id: SaId, remote: SocketAddr, spi: u64) {
        self.index.insert((remote, spi), id);
        self.keys.insert(id, (remote, spi));
        self.half_open.insert(id);
        *self.per_address.entry(remote.ip()).or_default() += 1;
    }

    /// The SA is no longer half open.
    pub(super) fn finished(&mut self, id: SaId) {
        if !self.half_open.remove(&id) {
            return;
        }
        let Some((remote, _)) = self.keys.get(&id) else {
            return;
        };
        if let Some(count) = self.per_address.get_mut(&remote.ip()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&remote.ip());
            }
        }
    }

    /// The SA is gone.
    pub(super) fn forget(&mut self, id: SaId) {
        self.finished(id);
        if let Some(key) = self.keys.remove(&id) {
            self.index.remove(&key);
        }
    }

    pub(super) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    fn of_address(&self, address: IpAddr) -> usize {
        self.per_address.get(&address).copied().unwrap_or(0)
    }
}

impl Endpoint {
    pub(super) fn take_first_request(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        message: &[u8],
        body: &[u8],
    ) -> Result<()> {
        if header.responder_spi != 0 {
            return Err(Error::Malformed("responder SPI of a first request"));
        }
        if let Some(id) = self.admission.index.get(&(remote, header.initiator_spi)).copied() {
            self.repeat_first_answer(now, id, message);
            return Ok(());
        }
        let chain = match parse_chain(header.next_payload, body) {
            Ok(chain) => chain,
            Err(error) => {
                self.refuse_first_request(now, local, remote, header, &error);
                return Err(error);
            }
        };
        if chain.encrypted.is_some() {
            return Err(Error::Malformed("first request is protected"));
        }
        let parts = Parts::sort(chain.payloads)?;
        let nonce = parts.nonce()?;
        let (all, own) = (self.admission.half_open(), self.admission.of_address(remote.ip()));
        if all >= self.config.half_open_limit
            || own >= self.config.half_open_per_address
            || self.sas.len() >= self.config.ike_sa_limit
        {
            self.counters.half_open_refused += 1;
            return Ok(());
        }
        if all >= self.config.cookie_threshold || own >= self.config.cookie_threshold_per_address {
            let (address, spi) = (remote.ip(), header.initiator_spi);
            let returned = parts.notify(NotifyType::COOKIE);
            if !returned.is_some_and(|cookie| self.cookies.check(&cookie.data, nonce, address, spi)) {
                self.counters.cookies_invalid += u64::from(returned.is_some());
                let cookie = self.cookies.make(now, nonce, address, spi, self.random.as_mut());
                self.counters.cookies_sent += 1;
                self.answer_statelessly(local, remote, header, &[status(NotifyType::COOKIE, cookie)]);
                return Ok(());
            }
        }
        let (outcome, effects) = self.with_context(now, |ctx| {
            answer_init(ctx, local, remote, header, message, &parts)
        });
        let failure = outcome.as_ref().err().map(ExchangeFailure::from);
        let exchange = ExchangeType::IKE_SA_INIT;
        self.counters
            .exchanges
            .end(exchange, ExchangeRole::Responder, failure, None);
        match outcome {
            Ok(Outcome::Accepted(sa)) => {
                let id = sa.id;
                self.admission.admit(id, remote, header.initiator_spi);
                self.settle(now, sa, true);
                self.perform(now, id, effects);
            }
            Ok(Outcome::Redirected(payloads)) => self.answer_statelessly(local, remote, header, &payloads),
            Err(error) => {
                if let Error::NoProposalChosen(_) = &error
                    && self.admission.reports.allows(now, REPORTS_PER_SECOND)
                {
                    self.events.push_back(Event::Failed {
                        connection: None,
                        remote,
                        reason: error.to_string(),
                    });
                }
                if let Error::Malformed(_) | Error::MissingPayload(_) | Error::BadPublicValue(_) = &error {
                    return Err(error);
                }
                if let Some(payload) = refuse(&error) {
                    self.answer_statelessly(local, remote, header, &[payload]);
                }
            }
        }
        Ok(())
    }

    /// A first request that was answered gets the same answer again; anything else under its SPI is ignored.
    fn repeat_first_answer(&mut self, now: Instant, id: SaId, message: &[u8]) {
        self.with_sa(now, id, |sa, ctx| {
            let Phase::Handshake(handshake) = &sa.phase else {
                return;
            };
            if handshake.init_request == message {
                let answer = vec![handshake.init_response.clone()];
                ctx.counters.retransmits_answered += 1;
                sa.transmit(ctx, &answer);
            }
        });
    }
}
