//! Protected messages of an IKE SA: opened, checked against the windows, handed to their exchange.

use std::net::SocketAddr;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::exchange::parts::{Parts, refuse};
use crate::exchange_tally::{ExchangeFailure, ExchangeRole};
use crate::message::{ExchangeType, HEADER_BYTES, Header};
use crate::payload::notify::NotifyType;
use crate::payload::{EncryptedPart, Payload, parse_chain};
use crate::window::Arrival;

use super::{Context, IkeSa, Phase};

/// What arrived, opened: the type of the first payload and the payloads in clear.
type Opened = (u8, Vec<u8>);

impl IkeSa {
    /// Takes a protected message. Nothing about the SA changes before its integrity was verified.
    pub(crate) fn receive(
        &mut self,
        ctx: &mut Context<'_>,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        part: EncryptedPart,
        datagram: &[u8],
    ) {
        if header.from_initiator == self.initiator || matches!(self.phase, Phase::Closed) {
            ctx.counters.malformed += 1;
            return;
        }
        let Some(keyed) = &self.keyed else {
            ctx.counters.malformed += 1;
            return;
        };
        let body_offset_bytes = HEADER_BYTES + part.body_offset_bytes;
        let plaintext = match keyed.receive.open(datagram, body_offset_bytes) {
            Ok(plaintext) => plaintext,
            Err(_) => {
                let before = keyed.previous_receive.as_ref();
                let repeated = !header.is_response
                    && matches!(self.inbox.classify(header.message_id), Arrival::Answered(_))
                    && before.is_some_and(|previous| previous.open(datagram, body_offset_bytes).is_ok());
                if !repeated {
                    ctx.counters.integrity_failed += 1;
                    return;
                }
                Vec::new()
            }
        };
        if header.is_response {
            if !self.outbox.awaits(header.message_id) {
                ctx.counters.out_of_window += 1;
                return;
            }
        } else {
            match self.inbox.classify(header.message_id) {
                Arrival::New => {}
                Arrival::Answered(answer) => {
                    // RFC 7383 section 2.6.1: only the first fragment of a repeated request is answered.
                    if part.fragment.is_none_or(|(index, _)| index == 1) {
                        let answer = answer.clone();
                        ctx.counters.retransmits_answered += 1;
                        self.request_path = Some((local, remote));
                        self.transmit_answer(ctx, &answer);
                    }
                    return;
                }
                Arrival::Pending => {
                    ctx.counters.retransmits_answered += 1;
                    return;
                }
                Arrival::Outside => {
                    ctx.counters.out_of_window += 1;
                    return;
                }
            }
        }
        self.last_heard = ctx.now;
        self.paths_tried.clear();
        let Some((first, inner)) = self.reassemble(ctx, header, part, plaintext) else {
            return;
        };
        self.request_path = Some((local, remote));
        self.follow_peer(ctx, header, local, remote);
        if header.is_response {
            self.receive_response(ctx, header, first, &inner);
        } else {
            self.receive_request(ctx, header, first, &inner);
        }
        if let Some(reason) = self.close_reason.take() {
            self.close(ctx, &reason);
        } else {
            self.run_tasks(ctx);
        }
    }

    fn reassemble(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        part: EncryptedPart,
        plaintext: Vec<u8>,
    ) -> Option<Opened> {
        let Some(fragment) = part.fragment else {
            return Some((part.first_inner, plaintext));
        };
        let slot = if header.is_response {
            &mut self.responses
        } else {
            &mut self.requests
        };
        ctx.counters.fragments_received += 1;
        match slot.add(
            header.message_id,
            fragment,
            part.first_inner,
            plaintext,
            ctx.fragment_budget_bytes,
        ) {
            Ok(whole) => whole,
            Err(_) => {
                ctx.counters.fragments_dropped += 1;
                None
            }
        }
    }

    /// RFC 7296 section 2.23: a host that is not behind a NAT follows a peer that is, once a fresh message proved to be
    /// from it. With MOBIKE only the port of a NAT mapping moves this way (RFC 4555 section 3.8).
    fn follow_peer(&mut self, ctx: &mut Context<'_>, header: &Header, local: SocketAddr, remote: SocketAddr) {
        if self.is_half_open() {
            // The responder floats with its peer to the NAT traversal port.
            if !self.initiator && !header.is_response {
                (self.local, self.remote) = (local, remote);
            }
            return;
        }
        let moved = remote != self.remote || local != self.local;
        let may_follow = self.nat.there && !self.nat.here && !header.is_response;
        let by_mobike = self.support.mobike && remote.ip() != self.remote.ip();
        if moved && may_follow && !by_mobike && local.port() == ctx.config.nat_t_port {
            self.move_to(ctx, local, remote);
        }
    }

    /// Changes the path, and the Child SAs with it.
    pub(crate) fn move_to(&mut self, ctx: &mut Context<'_>, local: SocketAddr, remote: SocketAddr) {
        (self.local, self.remote) = (local, remote);
        self.update_child_addresses(ctx);
        ctx.events
            .push_back(crate::event::Event::PeerMoved { sa: self.id, remote });
    }

    fn receive_request(&mut self, ctx: &mut Context<'_>, header: &Header, first: u8, inner: &[u8]) {
        let parts = parse_chain(first, inner).and_then(|chain| Parts::sort(chain.payloads));
        let outcome = match parts {
            Ok(parts) => self.answer_request(ctx, header, first, inner, parts),
            Err(error) => {
                // An authenticated peer sends what we cannot read: RFC 7296 section 2.21.3 ends the SA over it, but
                // for unknown critical payloads.
                if matches!(error, Error::Malformed(_)) {
                    self.close_reason = Some(error.to_string());
                }
                Err(error)
            }
        };
        match outcome {
            Ok(Some(payloads)) => self.answer(ctx, header.exchange, header.message_id, Ok(payloads)),
            Ok(None) => {}
            Err(error) => self.answer(ctx, header.exchange, header.message_id, Err(error)),
        }
    }

    /// Sends what came of a request.
    pub(crate) fn answer(
        &mut self,
        ctx: &mut Context<'_>,
        exchange: ExchangeType,
        message_id: u32,
        outcome: Result<Vec<Payload>>,
    ) {
        let failure = outcome.as_ref().err().map(ExchangeFailure::from);
        ctx.counters
            .exchanges
            .end(exchange, ExchangeRole::Responder, failure, None);
        let payloads = outcome.unwrap_or_else(|error| refuse(&error).into_iter().collect());
        if self.respond(ctx, exchange, message_id, &payloads).is_err() {
            self.close_reason.get_or_insert_with(|| "cannot send".to_owned());
        }
        self.after_response(ctx);
    }

    /// The payloads of the answer; `None` where none may be given now.
    fn answer_request(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        first: u8,
        inner: &[u8],
        parts: Parts,
    ) -> Result<Option<Vec<Payload>>> {
        match (&self.phase, header.exchange) {
            (Phase::Handshake(_), ExchangeType::IKE_INTERMEDIATE) if !self.initiator => self
                .answer_intermediate(ctx, header, first, inner, &parts)
                .map(Some),
            (Phase::Handshake(_), ExchangeType::IKE_AUTH) if !self.initiator => {
                self.answer_auth(ctx, header, parts)
            }
            (Phase::Handshake(_), ExchangeType::INFORMATIONAL)
                if !self.initiator && parts.has(NotifyType::AUTHENTICATION_FAILED) =>
            {
                self.peer_gave_up(ctx);
                Ok(Some(Vec::new()))
            }
            (Phase::Handshake(_) | Phase::Closed, _) => {
                ctx.counters.malformed += 1;
                Ok(None)
            }
            (_, ExchangeType::INFORMATIONAL)
                if self.dormant && !parts.deletes.is_empty() && !deletes_ike(&parts) =>
            {
                Ok(None)
            }
            (_, ExchangeType::INFORMATIONAL) => self.answer_informational(ctx, &parts).map(Some),
            // The peer repeats the request, and by then it is decided which IKE SA the Child SAs went to.
            (_, ExchangeType::CREATE_CHILD_SA) if self.dormant => Ok(None),
            (Phase::Established, ExchangeType::CREATE_CHILD_SA) => {
                self.answer_create_child(ctx, &parts).map(Some)
            }
            (Phase::Established, ExchangeType::IKE_FOLLOWUP_KE) => {
                self.answer_followup(ctx, &parts).map(Some)
            }
            (Phase::Replaced | Phase::Deleting, ExchangeType::CREATE_CHILD_SA) => {
                Err(Error::TemporaryFailure("the IKE SA is being replaced or closed"))
            }
            _ => {
                ctx.counters.malformed += 1;
                Err(Error::Malformed("exchange type"))
            }
        }
    }

    fn receive_response(&mut self, ctx: &mut Context<'_>, header: &Header, first: u8, inner: &[u8]) {
        let asked_at = self.outbox.asked_at(header.message_id);
        let Some(exchange) = self.outbox.complete(header.message_id) else {
            return;
        };
        let kind = exchange.kind();
        let parts = match parse_chain(first, inner).and_then(|chain| Parts::sort(chain.payloads)) {
            Ok(parts) => parts,
            Err(error) => {
                self.close_reason = Some(format!("answer of the peer: {error}"));
                return;
            }
        };
        let refusal = parts.refusal();
        let outcome = match exchange {
            Exchange::Init(_) => Ok(()),
            Exchange::Intermediate(offer) => {
                self.take_intermediate(ctx, header, first, inner, &offer, &parts)
            }
            Exchange::Auth(exchange) => self.take_auth(ctx, *exchange, parts),
            Exchange::Child(exchange) => self.take_child(ctx, *exchange, &parts),
            Exchange::RekeyIke(exchange) => self.take_ike_rekey(ctx, *exchange, &parts),
            Exchange::FollowUp(exchange) => self.take_followup(ctx, *exchange, &parts),
            Exchange::DeleteChild(spi_in) => {
                self.finish_child_delete(ctx, spi_in);
                Ok(())
            }
            Exchange::DeleteIke => {
                self.close_reason = Some(self.delete_reason.take().unwrap_or_else(|| "closed".to_owned()));
                Ok(())
            }
            Exchange::Liveness => Ok(()),
            Exchange::Probe(cookie) => self.take_probe(&cookie, &parts),
            Exchange::UpdateAddresses => self.take_address_update(ctx, &parts),
        };
        self.tally_answer(ctx, kind, asked_at, refusal, outcome.as_ref().err());
        if !self.outbox.exchanges().any(Exchange::concerns_child) {
            self.deleted_early.clear();
            self.lost_rekeys.clear();
        }
        if let Err(error) = outcome {
            if self.is_half_open() && refusal.is_none() && matches!(error, Error::AuthenticationFailed(_)) {
                self.refuse_responder(ctx);
            }
            self.close_reason = Some(error.to_string());
        }
    }
}

impl IkeSa {
    /// Counts an exchange of ours that was answered: as failed for what the peer's notification says, else for what was
    /// found in its answer.
    pub(crate) fn tally_answer(
        &self,
        ctx: &mut Context<'_>,
        kind: ExchangeType,
        asked_at: Option<Instant>,
        refusal: Option<NotifyType>,
        error: Option<&Error>,
    ) {
        let failure = refusal
            .map(ExchangeFailure::from)
            .or(error.map(ExchangeFailure::from));
        let duration = asked_at.map(|asked_at| ctx.now.saturating_duration_since(asked_at));
        ctx.counters
            .exchanges
            .end(kind, ExchangeRole::Initiator, failure, duration);
    }
}

fn deletes_ike(parts: &Parts) -> bool {
    parts
        .deletes
        .iter()
        .any(|delete| matches!(delete, crate::payload::delete::DeletePayload::IkeSa))
}
