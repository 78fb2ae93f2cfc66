//! IKE_AUTH as initiator (RFC 7296 section 1.2), with EAP (section 2.16), PPKs (RFC 8784) and childless initiation
//! (RFC 6023).

use southbound::KeyMaterial;

use crate::config::{Childless, StartAction};
use crate::eap::client::EapClient;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ike_sa::{Context, Effect, IkeSa, Phase, Task};
use crate::message::ExchangeType;
use crate::payload::Payload;
use crate::payload::configuration::{ConfigurationPayload, attribute, kind};
use crate::payload::id::Identity;
use crate::payload::notify::NotifyType;

use super::Exchange;
use super::create_child::ChildExchange;
use super::parts::{Parts, status};

/// Our IKE_AUTH request in flight.
#[derive(Debug)]
pub(crate) struct AuthExchange {
    own: Identity,
    child: Option<ChildExchange>,
    /// Keys before a PPK was mixed in, for a peer that does not know the PPK and need not.
    without_ppk: Option<crate::keymat::IkeKeys>,
    eap: Option<EapClient>,
    /// The key of a finished EAP method: the next answer has to prove it.
    msk: Option<KeyMaterial>,
    /// The responder proved itself already, in the first answer of an EAP exchange.
    verified: bool,
}

impl IkeSa {
    /// The child to ask for together with authentication.
    fn first_child(&mut self) -> Option<String> {
        let queued = self
            .tasks
            .iter()
            .position(|queued| matches!(queued.task, Task::CreateChild { .. }));
        if self.connection.childless == Childless::Prefer && self.support.childless {
            return None;
        }
        if let Some(Task::CreateChild { name }) = queued.and_then(|i| self.tasks.remove(i)).map(|q| q.task) {
            return Some(name);
        }
        let children = &self.connection.children;
        let started = children.iter().find(|child| child.start == StartAction::Start);
        let any = if self.support.childless {
            started
        } else {
            started.or(children.first())
        };
        any.map(|child| child.name.clone())
    }

    pub(crate) fn start_auth(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        let connection = self.connection.clone();
        let own = self.identity_for(ctx.credentials, &connection, None);
        let next_id = self.outbox.next_id();
        self.handshake()?.auth_message_id = next_id;
        let without_ppk = self.mix_ppk(ctx)?;
        let mut payloads = vec![Payload::IdI(own.clone())];
        payloads.extend(self.own_certificates(ctx.credentials, &connection));
        payloads.extend(Self::certificate_request(ctx.credentials, &connection));
        payloads.extend(connection.remote_id.expected().cloned().map(Payload::IdR));
        let mut eap = None;
        if connection.local_auth.is_eap() {
            eap = Some(EapClient::new(&connection.local_auth, ctx.credentials)?);
        } else {
            let peer = connection.remote_id.expected();
            payloads.push(Payload::Auth(self.own_auth(
                ctx.credentials,
                &connection,
                &own,
                peer,
            )?));
        }
        payloads.extend(address_request(
            connection.request_addresses,
            &self.wished_addresses,
        ));
        let child = match self.first_child() {
            Some(name) => {
                let child = self.draft_child(ctx, &name, None, false)?;
                self.child_payloads(&child, false, &mut payloads);
                Some(child)
            }
            None => None,
        };
        if self.initial_contact {
            payloads.push(status(NotifyType::INITIAL_CONTACT, Vec::new()));
        }
        if connection.mobike {
            payloads.push(status(NotifyType::MOBIKE_SUPPORTED, Vec::new()));
            payloads.extend(self.additional_addresses(false));
        }
        if connection.window > 1 {
            payloads.push(status(
                NotifyType::SET_WINDOW_SIZE,
                connection.window.to_be_bytes().to_vec(),
            ));
        }
        if let (Some(old), Some(ppk)) = (&without_ppk, &connection.ppk) {
            // RFC 8784 section 5.1: PPK_ID_FIXED.
            payloads.push(status(
                NotifyType::PPK_IDENTITY,
                [&[2], ppk.id.as_slice()].concat(),
            ));
            if !ppk.required && eap.is_none() {
                let mixed = self.swap_keys(old.clone())?;
                let auth = self.own_auth(
                    ctx.credentials,
                    &connection,
                    &own,
                    connection.remote_id.expected(),
                );
                self.swap_keys(mixed)?;
                payloads.push(status(NotifyType::NO_PPK_AUTH, auth?.data));
            }
        }
        let exchange = AuthExchange {
            own,
            child,
            without_ppk,
            eap,
            msk: None,
            verified: false,
        };
        self.request(
            ctx,
            ExchangeType::IKE_AUTH,
            &payloads,
            Exchange::Auth(Box::new(exchange)),
        )
    }

    /// Mixes the connection's PPK into the keys where both ends use one; returns the keys before.
    fn mix_ppk(&mut self, ctx: &Context<'_>) -> Result<Option<crate::keymat::IkeKeys>> {
        let Some(ppk) = self.connection.ppk.clone() else {
            return Ok(None);
        };
        let secret = ctx.credentials.ppk(&ppk.id).filter(|_| self.support.ppk);
        match (secret, &mut self.keyed) {
            (Some(secret), Some(keyed)) => {
                let before = keyed.keys.clone();
                keyed.keys.mix_ppk(secret);
                Ok(Some(before))
            }
            _ if ppk.required => Err(Error::AuthenticationFailed(
                "the peer does not use the required PPK".into(),
            )),
            _ => Ok(None),
        }
    }

    /// Replaces the derived keys (not those that protect messages, which a PPK leaves alone).
    pub(crate) fn swap_keys(&mut self, keys: crate::keymat::IkeKeys) -> Result<crate::keymat::IkeKeys> {
        let keyed = self
            .keyed
            .as_mut()
            .ok_or(Error::Malformed("exchange out of order"))?;
        Ok(std::mem::replace(&mut keyed.keys, keys))
    }

    pub(crate) fn take_auth(
        &mut self,
        ctx: &mut Context<'_>,
        mut exchange: AuthExchange,
        parts: Parts,
    ) -> Result<()> {
        let result = self.try_take_auth(ctx, &mut exchange, parts);
        if let (Err(error), Some(child)) = (&result, &exchange.child) {
            ctx.registry.release_child_spi(child.spi_in);
            if matches!(error, Error::AuthenticationFailed(_)) {
                ctx.counters.authentication_failed += 1;
            }
        }
        match result {
            // Still under way: the exchange goes on.
            Ok(Some(payloads)) => self.request(
                ctx,
                ExchangeType::IKE_AUTH,
                &payloads,
                Exchange::Auth(Box::new(exchange)),
            ),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn try_take_auth(
        &mut self,
        ctx: &mut Context<'_>,
        exchange: &mut AuthExchange,
        parts: Parts,
    ) -> Result<Option<Vec<Payload>>> {
        let connection = self.connection.clone();
        if parts.auth.is_none() && parts.eap.is_none() {
            return Err(match parts.refusal() {
                Some(NotifyType::AUTHENTICATION_FAILED) => Error::AuthenticationFailed(format!(
                    "the peer refused {} or how it was proved",
                    exchange.own
                )),
                Some(other) => Error::PeerRefused(other),
                None => Error::MissingPayload("AUTH"),
            });
        }
        if let Some(peer) = &parts.id_r {
            if !connection.remote_id.matches(peer) {
                return Err(Error::AuthenticationFailed(format!(
                    "the peer is {peer}; expected {}",
                    connection.remote_id
                )));
            }
            self.remote_id = Some(peer.clone());
        }
        let peer = self.remote_id.clone().ok_or(Error::MissingPayload("IDr"))?;
        if let (Some(old), None) = (&exchange.without_ppk, parts.notify(NotifyType::PPK_IDENTITY)) {
            if connection.ppk.as_ref().is_some_and(|ppk| ppk.required) {
                return Err(Error::AuthenticationFailed(
                    "the peer did not use the required PPK".into(),
                ));
            }
            if exchange.eap.is_none() {
                self.swap_keys(old.clone())?;
            }
        }
        if let Some(auth) = &parts.auth {
            match &exchange.msk {
                Some(msk) => self.verify_eap(&peer, msk, auth)?,
                None => {
                    if exchange.verified {
                        return Err(Error::Malformed("AUTH twice"));
                    }
                    self.verify_peer(ctx, &connection, &exchange.own, &peer, auth, &parts.certs)?;
                    exchange.verified = true;
                }
            }
        }
        if let Some(packet) = &parts.eap {
            // EAP-MSCHAPv2 alone does not authenticate the responder (RFC 7296 section 2.16): it must have done so.
            let client = exchange.eap.as_mut().filter(|_| exchange.verified);
            let client = client.ok_or(Error::AuthenticationFailed("unexpected EAP".into()))?;
            return match client.receive(packet, ctx.credentials, ctx.unix_seconds, ctx.random)? {
                Some(answer) => Ok(Some(vec![Payload::Eap(answer)])),
                None => {
                    let msk = client.msk()?;
                    let auth = self.eap_auth(&exchange.own, &msk)?;
                    exchange.msk = Some(msk);
                    Ok(Some(vec![Payload::Auth(auth)]))
                }
            };
        }
        if exchange.eap.is_some() && exchange.msk.is_none() {
            return Err(Error::AuthenticationFailed("the peer skipped EAP".into()));
        }
        if connection.remote_auth.is_eap() {
            return Err(Error::Local("a responder cannot be asked for EAP".into()));
        }
        self.redirected_in_auth(ctx, &parts)?;
        self.local_id = Some(exchange.own.clone());
        self.take_addresses(&parts);
        self.establish(ctx, &parts, false);
        if let Some(child) = exchange.child.take() {
            self.take_first_child(ctx, child, &parts);
        }
        self.enqueue_missing_children(ctx.now);
        Ok(None)
    }

    /// Tells a responder, for which the IKE SA is up, that it is not (RFC 7296 section 2.21.2). Once: where this is lost,
    /// its liveness check finds out.
    pub(crate) fn refuse_responder(&mut self, ctx: &mut Context<'_>) {
        let payloads = [status(NotifyType::AUTHENTICATION_FAILED, Vec::new())];
        // What cannot be sent leaves the responder to its liveness check, too.
        let _ = self.request(ctx, ExchangeType::INFORMATIONAL, &payloads, Exchange::DeleteIke);
    }

    /// The child asked for in IKE_AUTH: that it failed leaves the IKE SA up (RFC 7296 section 1.2).
    fn take_first_child(&mut self, ctx: &mut Context<'_>, child: ChildExchange, parts: &Parts) {
        let (name, spi_in) = (child.config.name.clone(), child.spi_in);
        let nonces = match &self.keyed {
            Some(_) => std::mem::take(&mut self.auth_nonces),
            None => Default::default(),
        };
        let outcome = self.take_child_answer(ctx, child, parts, &nonces, false);
        if let Err(error) = outcome {
            ctx.registry.release_child_spi(spi_in);
            let (connection, remote) = (Some(self.connection.name.clone()), self.remote);
            ctx.events.push_back(Event::Failed {
                connection,
                remote,
                reason: format!("child {name}: {error}"),
            });
            let wait = std::time::Duration::from_secs(30);
            self.enqueue_at(ctx.now + wait, Task::CreateChild { name });
        }
    }

    /// Both ends are authenticated.
    pub(crate) fn establish(&mut self, ctx: &mut Context<'_>, parts: &Parts, initial_contact: bool) {
        if let Phase::Handshake(handshake) = &mut self.phase {
            let seed = &handshake.seed;
            self.auth_nonces = (seed.nonce_i.clone(), seed.nonce_r.clone());
        }
        self.phase = Phase::Established;
        self.established_at = Some(ctx.now);
        self.support.mobike = self.connection.mobike && parts.has(NotifyType::MOBIKE_SUPPORTED);
        if let Some(window) = parts.notify(NotifyType::SET_WINDOW_SIZE)
            && let Ok(size) = <[u8; 4]>::try_from(window.data.as_slice())
        {
            self.outbox.set_limit(u32::from_be_bytes(size));
        }
        self.start_lifetime(ctx);
        self.reauthenticate_at = self.connection.reauthenticate_after.map(|after| ctx.now + after);
        if self.support.mobike {
            self.note_additional_addresses(parts);
        }
        if let Some(seconds) = parts
            .notify(NotifyType::AUTH_LIFETIME)
            .and_then(|notify| <[u8; 4]>::try_from(notify.data.as_slice()).ok())
            .filter(|_| self.initiator)
        {
            // RFC 4478: the responder wants us to authenticate anew by then; a tenth is left for it.
            let seconds = u64::from(u32::from_be_bytes(seconds));
            let asked = ctx.now + std::time::Duration::from_millis(seconds.saturating_mul(900));
            self.reauthenticate_at = Some(self.reauthenticate_at.map_or(asked, |own| own.min(asked)));
        }
        if let Some(keyed) = self.keyed.as_mut() {
            keyed.previous_receive = None;
        }
        ctx.counters.established += 1;
        let suite = self
            .keyed
            .as_ref()
            .map(|keyed| keyed.suite.to_string())
            .unwrap_or_default();
        let virtual_addresses = if self.own_addresses.is_empty() {
            &self.virtual_addresses
        } else {
            &self.own_addresses
        };
        if let Some(remote_id) = self.remote_id.clone() {
            ctx.events.push_back(Event::IkeUp {
                sa: self.id,
                connection: self.connection.name.clone(),
                remote_id,
                remote: self.remote,
                suite,
                virtual_addresses: virtual_addresses.clone(),
            });
        }
        ctx.effects.push(Effect::Established {
            sa: self.id,
            initial_contact,
        });
    }

    /// Addresses that the responder assigned to us.
    fn take_addresses(&mut self, parts: &Parts) {
        let Some(reply) = parts.configuration.as_ref().filter(|cp| cp.kind == kind::REPLY) else {
            return;
        };
        for (attribute, value) in reply.attributes.iter().take(32) {
            match (*attribute, value.as_slice()) {
                (attribute::INTERNAL_IP4_ADDRESS, v4) => {
                    self.own_addresses
                        .extend(<[u8; 4]>::try_from(v4).map(std::net::IpAddr::from));
                }
                (attribute::INTERNAL_IP6_ADDRESS, v6) => {
                    let octets = v6.get(..16).and_then(|v6| <[u8; 16]>::try_from(v6).ok());
                    self.own_addresses.extend(octets.map(std::net::IpAddr::from));
                }
                _ => {}
            }
        }
    }
}

fn address_request((v4, v6): (bool, bool), wished: &[std::net::IpAddr]) -> Option<Payload> {
    let mut attributes = Vec::new();
    let wish = |of_v4: bool| {
        let address = wished.iter().find(|address| address.is_ipv4() == of_v4);
        address.map_or_else(Vec::new, |address| match address {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => [&v6.octets()[..], &[128]].concat(),
        })
    };
    if v4 {
        attributes.push((attribute::INTERNAL_IP4_ADDRESS, wish(true)));
        attributes.push((attribute::INTERNAL_IP4_DNS, Vec::new()));
    }
    if v6 {
        attributes.push((attribute::INTERNAL_IP6_ADDRESS, wish(false)));
        attributes.push((attribute::INTERNAL_IP6_DNS, Vec::new()));
    }
    (!attributes.is_empty()).then_some({
        Payload::Configuration(ConfigurationPayload {
            kind: kind::REQUEST,
            attributes,
        })
    })
}
