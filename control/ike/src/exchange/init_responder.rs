//! IKE_SA_INIT as responder: nothing is remembered of a request that is refused or asked for a cookie.

use std::net::SocketAddr;

use crate::config::Childless;
use crate::crypto::key_exchange::{KeMethod, answer};
use crate::endpoint::Directory;
use crate::error::{Error, Result};
use crate::ike_sa::{Context, IkeSa, Keyed};
use crate::keymat::{IkeKeys, Seed, first_seed};
use crate::message::{ExchangeType, Header, emit_message};
use crate::nat;
use crate::payload::Payload;
use crate::payload::key_exchange::KePayload;
use crate::payload::notify::NotifyType;
use crate::payload::sa::SaPayload;
use crate::proposal::choose_ike;
use crate::window::Inbox;

use super::ike_sa_init::{announcements, draw_nonce};
use super::parts::{Parts, status};
use super::peer_auth::trusted_authorities;
use super::redirect::redirect;

/// What becomes of a first request.
pub(crate) enum Outcome {
    /// An IKE SA, half open, whose answer is queued.
    Accepted(Box<IkeSa>),
    /// Sent elsewhere (RFC 5685).
    Redirected(Vec<Payload>),
}

/// Answers a first request, or tells why not.
pub(crate) fn answer_init(
    ctx: &mut Context<'_>,
    local: SocketAddr,
    remote: SocketAddr,
    header: &Header,
    datagram: &[u8],
    parts: &Parts,
) -> Result<Outcome> {
    let offers = parts.proposals()?;
    let ke = parts.ke()?;
    let nonce_i = parts.nonce()?.to_vec();
    let candidates = ctx.connections.near(local.ip(), remote.ip());
    let wants_certificate = Directory::wants_certificate(&candidates);
    if candidates.is_empty() {
        ctx.counters.no_connection += 1;
        return Err(Error::NoProposalChosen(
            "no connection is configured for this peer".into(),
        ));
    }
    if let Some(to) = candidates
        .first()
        .and_then(|c| c.redirect_to)
        .filter(|_| parts.has(NotifyType::REDIRECT_SUPPORTED) || parts.has(NotifyType::REDIRECTED_FROM))
    {
        return Ok(Outcome::Redirected(vec![redirect(to, &nonce_i)]));
    }
    let mut chosen = Err(Error::NoProposalChosen("no connection".into()));
    for connection in candidates {
        match choose_ike(&connection.proposals, offers) {
            Ok((suite, offer)) => {
                chosen = Ok((connection.clone(), suite, offer));
                break;
            }
            Err(error) => chosen = chosen.or(Err(error)),
        }
    }
    let (connection, suite, offer) = chosen?;
    if suite.additional_methods().next().is_some() && !parts.has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED)
    {
        return Err(Error::Malformed(
            "additional key exchange without IKE_INTERMEDIATE",
        ));
    }
    if ke.method != suite.method.id() || KeMethod::from_id(ke.method).is_none() {
        return Err(Error::InvalidKe(suite.method.id()));
    }
    let (public, shared) = answer(suite.method, &ke.data, ctx.random)?;
    let id = ctx.registry.new_sa();
    let local_spi = ctx.registry.new_ike_spi(id, ctx.random);
    let mut sa = IkeSa::new(
        id,
        connection,
        false,
        local_spi,
        header.initiator_spi,
        local,
        remote,
        ctx.now,
    );
    // IKE_SA_INIT was message 0 of the peer.
    sa.inbox = Inbox::new(sa.connection.window, 1);
    sa.expires = Some(ctx.now + ctx.config.half_open_timeout);
    sa.note_support(parts);
    sa.detect_nat(parts, local, remote);
    let seed = Seed {
        nonce_i,
        nonce_r: draw_nonce(ctx),
        spi_i: header.initiator_spi,
        spi_r: local_spi,
    };
    let keys = IkeKeys::derive(&suite, &first_seed(suite.prf, &seed, &shared), &seed);
    let mut payloads = vec![
        Payload::Sa(SaPayload {
            proposals: vec![crate::payload::sa::Proposal {
                number: offer.number,
                protocol: offer.protocol,
                spi: Vec::new(),
                transforms: suite.transforms(),
            }],
        }),
        Payload::Ke(KePayload {
            method: suite.method.id(),
            data: public,
        }),
        Payload::Nonce(seed.nonce_r.clone()),
    ];
    let force = sa.connection.force_udp_encapsulation;
    payloads.extend(nat::announce(
        header.initiator_spi,
        local_spi,
        local,
        remote,
        force,
    ));
    let intermediate = suite.additional_methods().next().is_some();
    let ppk = sa.support.ppk && ctx.connections.any_ppk();
    payloads.extend(announcements(&sa, intermediate, ppk));
    // RFC 7296 section 1.2: only here can the responder ask for a certificate, before it knows which connection the peer
    // will turn out to use; peers that send theirs only where asked depend on it.
    if wants_certificate {
        payloads.extend(trusted_authorities(ctx.credentials));
    }
    if sa.connection.childless != Childless::Never {
        payloads.push(status(NotifyType::CHILDLESS_IKEV2_SUPPORTED, Vec::new()));
    }
    let response = emit_message(&sa.header(ExchangeType::IKE_SA_INIT, 0, true), &payloads);
    let handshake = sa.handshake()?;
    handshake.init_request = datagram.to_vec();
    handshake.init_response = response.clone();
    handshake.seed = seed;
    handshake.additional = suite.additional_methods().collect();
    sa.keyed = Some(Keyed::new(suite, keys, false)?);
    sa.log_keys(ctx);
    sa.transmit(ctx, &vec![response]);
    Ok(Outcome::Accepted(Box::new(sa)))
}
