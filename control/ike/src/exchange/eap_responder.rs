//! IKE_AUTH by EAP as responder (RFC 7296 section 2.16): terminated here, or relayed to an authentication server.

use std::net::{IpAddr, SocketAddr};

use southbound::KeyMaterial;

use crate::eap::server::{EapServer, Verdict};
use crate::error::{Error, Result};
use crate::event::{EapAnswer, Event};
use crate::ike_sa::{Context, IkeSa};
use crate::message::{ExchangeType, Header};
use crate::payload::Payload;
use crate::payload::eap::EapPacket;
use crate::payload::id::Identity;

use super::parts::Parts;

/// What an AUTHENTICATION_FAILED of the initiator says (RFC 7296 section 2.21.2).
pub(crate) const PEER_REFUSED: &str = "the peer refused how we proved who we are";

/// An authentication of the peer by EAP.
#[derive(Debug)]
pub(crate) struct EapProgress {
    server: EapServer,
    own: Identity,
    /// The first request: its SA, TS and CP payloads are answered in the last round.
    first: Parts,
    msk: Option<KeyMaterial>,
    /// Addresses that the authentication server chose for the peer.
    addresses: Vec<IpAddr>,
    /// The request that waits for the authentication server.
    parked: Option<Parked>,
}

/// Where to send an answer that comes later.
#[derive(Debug, Clone, Copy)]
struct Parked {
    exchange: ExchangeType,
    message_id: u32,
    path: Option<(SocketAddr, SocketAddr)>,
}

impl IkeSa {
    /// First round of EAP: we prove ourselves, and ask who the user is.
    pub(crate) fn begin_eap(
        &mut self,
        ctx: &mut Context<'_>,
        own: Identity,
        first: Parts,
    ) -> Result<Vec<Payload>> {
        let connection = self.connection.clone();
        let mut payloads = vec![Payload::IdR(own.clone())];
        payloads.extend(self.own_certificates(ctx.credentials, &connection));
        payloads.push(Payload::Auth(self.own_auth(
            ctx.credentials,
            &connection,
            &own,
            self.remote_id.as_ref(),
        )?));
        let (server, packet) = EapServer::new(&connection, ctx.random)?;
        payloads.push(Payload::Eap(packet));
        self.handshake()?.eap = Some(Box::new(EapProgress {
            server,
            own,
            first,
            msk: None,
            addresses: Vec::new(),
            parked: None,
        }));
        Ok(payloads)
    }

    /// A further round: the peer's packet, or its AUTH once the method is done. `None` where the authentication server
    /// has to answer first.
    pub(crate) fn continue_eap(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        mut progress: EapProgress,
        parts: Parts,
    ) -> Result<Option<Vec<Payload>>> {
        if progress.parked.is_some() {
            return Err(Error::Malformed("EAP packet while another is being answered"));
        }
        if let Some(msk) = &progress.msk {
            let auth = parts.auth.as_ref().ok_or(Error::MissingPayload("AUTH"))?;
            let peer = self.remote_id.clone().ok_or(Error::MissingPayload("IDi"))?;
            self.verify_eap(&peer, msk, auth)?;
            let mut payloads = vec![Payload::Auth(self.eap_auth(&progress.own, msk)?)];
            // From here on the peer is the user that EAP authenticated (RFC 7296 section 2.16).
            self.remote_id = Some(progress.server.identity());
            let first = std::mem::take(&mut progress.first);
            self.finish_auth(ctx, progress.own, &first, &progress.addresses, &mut payloads)?;
            return Ok(Some(payloads));
        }
        let packet = parts.eap.as_ref().ok_or(Error::MissingPayload("EAP"))?;
        let verdict = progress
            .server
            .receive(packet, ctx.credentials, ctx.unix_seconds, ctx.random)?;
        if let Verdict::Relay(packet) = verdict {
            progress.parked = Some(Parked {
                exchange: header.exchange,
                message_id: header.message_id,
                path: self.request_path,
            });
            self.inbox.postpone(header.message_id);
            let peer = self.remote_id.clone().ok_or(Error::MissingPayload("IDi"))?;
            let user = progress.server.user().to_owned();
            self.handshake()?.eap = Some(Box::new(progress));
            ctx.events.push_back(Event::EapRequest {
                sa: self.id,
                connection: self.connection.name.clone(),
                local: self.local,
                remote: self.remote,
                peer,
                user,
                packet: KeyMaterial::new(packet.to_bytes()),
            });
            return Ok(None);
        }
        self.conclude_eap(ctx, progress, verdict).map(Some)
    }

    /// The authentication server's answer to [`Event::EapRequest`].
    pub(crate) fn take_eap_answer(&mut self, ctx: &mut Context<'_>, answer: EapAnswer) {
        let Ok(handshake) = self.handshake() else { return };
        let Some(mut progress) = handshake.eap.take_if(|progress| progress.parked.is_some()) else {
            return;
        };
        let Some(parked) = progress.parked.take() else {
            return;
        };
        self.request_path = parked.path;
        if let EapAnswer::Success { addresses, .. } = &answer {
            progress.addresses.clone_from(addresses);
        }
        let outcome = progress
            .server
            .relayed(answer)
            .and_then(|verdict| self.conclude_eap(ctx, *progress, verdict));
        if let Err(error) = &outcome {
            self.close_reason = Some(error.to_string());
        }
        self.answer(ctx, parked.exchange, parked.message_id, outcome);
        if let Some(reason) = self.close_reason.take() {
            self.close(ctx, &reason);
        }
    }

    /// The peer gave up before it was authenticated: a client that EAP refused, or one that refuses us.
    pub(crate) fn peer_gave_up(&mut self, ctx: &mut Context<'_>) {
        ctx.counters.authentication_failed += 1;
        let eap = self.handshake().ok().and_then(|handshake| handshake.eap.as_ref());
        let refusal = eap.and_then(|progress| progress.server.refusal().map(str::to_owned));
        self.close_reason = Some(refusal.unwrap_or_else(|| PEER_REFUSED.to_owned()));
    }

    fn conclude_eap(
        &mut self,
        ctx: &mut Context<'_>,
        mut progress: EapProgress,
        verdict: Verdict,
    ) -> Result<Vec<Payload>> {
        let packet: EapPacket = match verdict {
            Verdict::Continue(packet) | Verdict::Relay(packet) => packet,
            Verdict::Success(packet, msk) => {
                progress.msk = Some(msk);
                packet
            }
            Verdict::Failure(packet, reason) => {
                ctx.counters.authentication_failed += 1;
                self.close_reason = Some(reason);
                return Ok(vec![Payload::Eap(packet)]);
            }
        };
        self.handshake()?.eap = Some(Box::new(progress));
        Ok(vec![Payload::Eap(packet)])
    }
}
