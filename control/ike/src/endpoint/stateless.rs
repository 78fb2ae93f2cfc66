//! Messages outside any IKE SA: what is answered without remembering anything, and what unprotected notifications are
//! worth (RFC 7296 sections 1.5, 2.5 and 2.21.4).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::Transmit;
use crate::exchange::parts::{Parts, refuse, status};
use crate::ike_sa::with_marker;
use crate::message::{Header, emit_message};
use crate::payload::Payload;
use crate::payload::notify::NotifyType;

use super::Endpoint;

/// Unprotected answers a second: more would serve a flood with forged senders.
const ANSWERS_PER_SECOND: u32 = 50;

/// An unprotected hint makes us ask a peer for a sign of life no more often than this.
const HINT_INTERVAL: Duration = Duration::from_secs(10);

/// So many a second and no more.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    since: Option<Instant>,
    count: u32,
}

impl RateLimit {
    pub(super) fn allows(&mut self, now: Instant, per_second: u32) -> bool {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1))
        {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= per_second
    }
}

impl Endpoint {
    /// Whether another unprotected answer may be sent now.
    fn may_answer(&mut self, now: Instant) -> bool {
        let may = self.stateless_answers.allows(now, ANSWERS_PER_SECOND);
        self.counters.rate_limited += u64::from(!may);
        may
    }

    /// An unprotected answer that leaves nothing behind. It is never longer than a request by more than a cookie.
    pub(super) fn answer_statelessly(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        payloads: &[Payload],
    ) {
        let answer = Header {
            is_response: true,
            from_initiator: !header.from_initiator,
            ..*header
        };
        let bytes = with_marker(&self.config, local, &emit_message(&answer, payloads));
        self.transmits.push_back(Transmit { local, remote, bytes });
    }

    /// The version is above ours: says so, where it was a request (RFC 7296 section 2.5).
    pub(super) fn refuse_version(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
    ) {
        let Ok(header) = Header::parse_any_version(message) else {
            return;
        };
        if !header.is_response && self.may_answer(now) {
            let notify = status(NotifyType::INVALID_MAJOR_VERSION, Vec::new());
            self.answer_statelessly(local, remote, &header, &[notify]);
        }
    }

    /// A first request that cannot be read: an unknown critical payload in it is named (RFC 7296 section 2.5).
    pub(super) fn refuse_first_request(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        error: &Error,
    ) {
        if matches!(error, Error::UnsupportedCriticalPayload(_)) && self.may_answer(now) {
            let payloads: Vec<_> = refuse(error).into_iter().collect();
            self.answer_statelessly(local, remote, header, &payloads);
        }
    }

    /// A request for an IKE SA that we do not have, as after a restart (RFC 7296 section 2.21.4).
    pub(super) fn refuse_spi(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
    ) {
        self.counters.unknown_spi += 1;
        if !header.is_response && self.may_answer(now) {
            let notify = status(NotifyType::INVALID_IKE_SPI, Vec::new());
            self.answer_statelessly(local, remote, header, &[notify]);
        }
    }

    /// An unprotected message: INVALID_IKE_SPI in an answer, or INVALID_SPI, says that the peer may have lost its SAs.
    /// Anyone can forge it, so all it does is make us ask for a sign of life.
    pub(super) fn take_hint(&mut self, now: Instant, remote: SocketAddr, header: &Header, parts: &Parts) {
        let lost_ike = header.is_response && parts.has(NotifyType::INVALID_IKE_SPI);
        let lost_child = parts.notify(NotifyType::INVALID_SPI).and_then(|notify| {
            let spi = <[u8; 4]>::try_from(notify.data.as_slice()).ok()?;
            Some(u32::from_be_bytes(spi))
        });
        let id = match lost_child {
            _ if lost_ike => {
                let ours = if header.from_initiator {
                    header.responder_spi
                } else {
                    header.initiator_spi
                };
                self.registry.by_spi.get(&ours).copied()
            }
            Some(spi) => {
                let has = |id: &crate::event::SaId| {
                    let sa = self.sas.get(id);
                    sa.is_some_and(|sa| sa.remote.ip() == remote.ip() && sa.child_by_spi_out(spi).is_some())
                };
                self.registry.homes(spi).find(has)
            }
            None => None,
        };
        let Some(id) = id else {
            self.counters.malformed += 1;
            return;
        };
        self.with_sa(now, id, |sa, ctx| {
            let fresh = now.saturating_duration_since(sa.hinted.unwrap_or(sa.last_heard)) >= HINT_INTERVAL;
            if sa.remote.ip() == remote.ip() && sa.is_established() && fresh {
                sa.hinted = Some(now);
                sa.enqueue(ctx.now, crate::ike_sa::Task::Liveness);
                sa.run_tasks(ctx);
            }
        });
    }
}
