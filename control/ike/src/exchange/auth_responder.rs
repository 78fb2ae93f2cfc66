//! IKE_AUTH as responder (RFC 7296 section 1.2): which connection the peer may use, whether it is who it says, and
//! its first Child SA.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Connection, RemoteAuth, RemoteId};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ike_sa::{Context, IkeSa};
use crate::message::Header;
use crate::payload::Payload;
use crate::payload::auth::AuthMethod;
use crate::payload::configuration::{ConfigurationPayload, attribute, kind};
use crate::payload::id::Identity;
use crate::payload::notify::NotifyType;
use crate::proposal::choose_ike;

use super::parts::{Parts, refuse, status};

impl IkeSa {
    /// Answers IKE_AUTH. Whatever fails before the peer is authenticated also ends the SA, at once.
    pub(crate) fn answer_auth(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        parts: Parts,
    ) -> Result<Option<Vec<Payload>>> {
        let result = self.try_answer_auth(ctx, header, parts);
        if let Err(error) = &result {
            if matches!(error, Error::AuthenticationFailed(_)) {
                ctx.counters.authentication_failed += 1;
            }
            self.close_reason = Some(error.to_string());
        }
        result
    }

    fn try_answer_auth(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        parts: Parts,
    ) -> Result<Option<Vec<Payload>>> {
        let handshake = self.handshake()?;
        if !handshake.additional.is_empty() {
            return Err(Error::Malformed("IKE_AUTH before the additional key exchanges"));
        }
        if let Some(progress) = handshake.eap.take() {
            return self.continue_eap(ctx, header, *progress, parts);
        }
        handshake.auth_message_id = header.message_id;
        let peer = parts.id_i.clone().ok_or(Error::MissingPayload("IDi"))?;
        self.connection = self.connection_for(ctx, &peer, &parts)?;
        let connection = self.connection.clone();
        let own = self.identity_for(ctx.credentials, &connection, parts.id_r.as_ref());
        self.remote_id = Some(peer.clone());
        let Some(auth) = &parts.auth else {
            return self.begin_eap(ctx, own, parts).map(Some);
        };
        let auth = self.responder_ppk(ctx, &parts, auth.clone())?;
        self.verify_peer(ctx, &connection, &own, &peer, &auth.0, &parts.certs)?;
        let mut payloads = vec![Payload::IdR(own.clone())];
        payloads.extend(self.own_certificates(ctx.credentials, &connection));
        payloads.push(Payload::Auth(self.own_auth(
            ctx.credentials,
            &connection,
            &own,
            Some(&peer),
        )?));
        if auth.1 {
            payloads.push(status(NotifyType::PPK_IDENTITY, Vec::new()));
        }
        self.finish_auth(ctx, own, &parts, &[], &mut payloads)?;
        Ok(Some(payloads))
    }

    /// The connection for a peer that says it is `peer`: the most particular one that names it, agrees with the
    /// algorithms of the IKE SA, and expects the kind of authentication that the peer uses.
    fn connection_for(&self, ctx: &Context<'_>, peer: &Identity, parts: &Parts) -> Result<Arc<Connection>> {
        let offered = [crate::payload::sa::Proposal {
            number: 1,
            protocol: crate::payload::sa::Protocol::IKE,
            spi: Vec::new(),
            transforms: self.keyed()?.suite.transforms(),
        }];
        let uses = match &parts.auth {
            None => None,
            Some(auth) if auth.method == AuthMethod::SHARED_KEY => Some(RemoteAuth::Psk),
            Some(_) => Some(RemoteAuth::Certificate),
        };
        let used = |connection: &Connection| match &uses {
            None => connection.remote_auth.is_eap(),
            Some(method) => connection.remote_auth == *method,
        };
        let using = match &uses {
            None => "EAP".to_owned(),
            Some(method) => format!("{method:?}"),
        };
        let near = ctx.connections.near(self.local.ip(), self.remote.ip());
        let fits = |connection: &Connection| {
            let asked = parts.id_r.as_ref();
            let named = asked.is_none_or(|id| *id == self.identity_for(ctx.credentials, connection, asked));
            let expected = match &connection.remote_id {
                // An unnamed peer of a fixed address may still show that address.
                RemoteId::Any => true,
                id => id.matches(peer),
            };
            named && expected && used(connection) && choose_ike(&connection.proposals, &offered).is_ok()
        };
        let rank = |connection: &Connection| match connection.remote_id {
            RemoteId::Exactly(_) => 0,
            RemoteId::Any => 2,
            _ => 1,
        };
        near.iter()
            .filter(|c| fits(c))
            .min_by_key(|c| rank(c))
            .map(|c| (*c).clone())
            .ok_or_else(|| {
                let expected: Vec<_> = near
                    .iter()
                    .take(8)
                    .map(|c| {
                        format!(
                            "{} by {:?} as {}",
                            c.remote_id,
                            c.remote_auth,
                            self.own_identity(ctx.credentials, c)
                        )
                    })
                    .collect();
                let asked = parts
                    .id_r
                    .as_ref()
                    .map(|id| format!(" asking for {id}"))
                    .unwrap_or_default();
                Error::AuthenticationFailed(format!(
                    "peer is {peer} by {using}{asked}; expected one of: {}",
                    expected.join(", ")
                ))
            })
    }

    /// RFC 8784 section 3: which AUTH to check, and whether the PPK is in use.
    fn responder_ppk(
        &mut self,
        ctx: &Context<'_>,
        parts: &Parts,
        auth: crate::payload::auth::AuthPayload,
    ) -> Result<(crate::payload::auth::AuthPayload, bool)> {
        let required = self.connection.ppk.as_ref().is_some_and(|ppk| ppk.required);
        if let Some(identity) = parts.notify(NotifyType::PPK_IDENTITY) {
            let id = identity.data.get(1..).unwrap_or_default();
            if let (Some(secret), Some(keyed)) = (ctx.credentials.ppk(id), self.keyed.as_mut()) {
                keyed.keys.mix_ppk(secret);
                return Ok((auth, true));
            }
            if let Some(plain) = parts.notify(NotifyType::NO_PPK_AUTH).filter(|_| !required) {
                return Ok((
                    crate::payload::auth::AuthPayload {
                        method: auth.method,
                        data: plain.data.clone(),
                    },
                    false,
                ));
            }
            return Err(Error::AuthenticationFailed("the peer's PPK is unknown".into()));
        }
        if required {
            return Err(Error::AuthenticationFailed(
                "the peer did not use the required PPK".into(),
            ));
        }
        Ok((auth, false))
    }

    /// The peer is authenticated: the IKE SA is up, and its first child is negotiated.
    pub(crate) fn finish_auth(
        &mut self,
        ctx: &mut Context<'_>,
        own: Identity,
        parts: &Parts,
        fixed: &[IpAddr],
        payloads: &mut Vec<Payload>,
    ) -> Result<()> {
        self.local_id = Some(own);
        let assigned = self.assign_addresses(ctx, parts, fixed);
        self.establish(ctx, parts, parts.has(NotifyType::INITIAL_CONTACT));
        let connection = self.connection.clone();
        if self.support.mobike {
            payloads.push(status(NotifyType::MOBIKE_SUPPORTED, Vec::new()));
            payloads.extend(self.additional_addresses(false));
        }
        // RFC 4478: we cannot authenticate such a peer anew, it has to.
        if let Some(after) = connection
            .reauthenticate_after
            .filter(|_| connection.remote_addresses.is_empty())
        {
            let seconds = u32::try_from(after.as_secs()).unwrap_or(u32::MAX);
            payloads.push(status(NotifyType::AUTH_LIFETIME, seconds.to_be_bytes().to_vec()));
        }
        if connection.window > 1 {
            payloads.push(status(
                NotifyType::SET_WINDOW_SIZE,
                connection.window.to_be_bytes().to_vec(),
            ));
        }
        if parts.sa.is_none() {
            payloads.extend(assigned.unwrap_or(None));
            return Ok(());
        }
        let nonces = std::mem::take(&mut self.auth_nonces);
        let negotiated = match assigned {
            Ok(reply) => {
                payloads.extend(reply);
                self.answer_child(ctx, parts, None, Some(nonces))
            }
            Err(error) => Err(error),
        };
        match negotiated {
            Ok(child) => payloads.extend(child),
            Err(error) => {
                ctx.events.push_back(Event::Failed {
                    connection: Some(connection.name.clone()),
                    remote: self.remote,
                    reason: format!("first child: {error}"),
                });
                payloads.extend(refuse(&error));
            }
        }
        Ok(())
    }

    /// Leases addresses to a peer that asks for them (RFC 7296 section 3.15).
    /// `fixed` are those that an authentication server chose for it.
    fn assign_addresses(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &Parts,
        fixed: &[IpAddr],
    ) -> Result<Option<Payload>> {
        let Some(request) = parts.configuration.as_ref().filter(|cp| cp.kind == kind::REQUEST) else {
            return Ok(None);
        };
        let connection = self.connection.clone();
        let holder = self.remote_id.clone().ok_or(Error::MissingPayload("IDi"))?;
        let at = self.remote.ip();
        let mut attributes = Vec::new();
        let (mut asked, mut got) = (false, false);
        for (v4, wanted_attribute) in [
            (true, attribute::INTERNAL_IP4_ADDRESS),
            (false, attribute::INTERNAL_IP6_ADDRESS),
        ] {
            let Some(wish) = request.value(wanted_attribute) else {
                continue;
            };
            let pools = connection
                .pools
                .iter()
                .filter(|pool| pool.network().is_ipv4() == v4);
            asked |= !connection.pools.is_empty();
            let wish = address_of(wish);
            let chosen = fixed.iter().copied().find(|address| address.is_ipv4() == v4);
            let leased = match chosen {
                Some(address) => ctx.registry.lease_fixed(address, &holder, at),
                None => pools
                    .into_iter()
                    .find_map(|pool| ctx.registry.lease(pool, &holder, wish, at)),
            };
            let Some(address) = leased else { continue };
            got = true;
            self.virtual_addresses.push(address);
            attributes.push((
                wanted_attribute,
                match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => [&v6.octets()[..], &[128]].concat(),
                },
            ));
        }
        if asked && !got {
            return Err(Error::InternalAddressFailure);
        }
        for dns in connection.dns.iter().filter(|_| got) {
            attributes.push(match dns {
                IpAddr::V4(v4) => (attribute::INTERNAL_IP4_DNS, v4.octets().to_vec()),
                IpAddr::V6(v6) => (attribute::INTERNAL_IP6_DNS, v6.octets().to_vec()),
            });
        }
        for network in connection.announced_networks.iter().filter(|_| got) {
            attributes.push(match network.network() {
                IpAddr::V4(v4) => {
                    let mask = u32::MAX
                        .checked_shl(32 - u32::from(network.length_bits()))
                        .unwrap_or(0);
                    (
                        attribute::INTERNAL_IP4_SUBNET,
                        [v4.octets(), mask.to_be_bytes()].concat(),
                    )
                }
                IpAddr::V6(v6) => (
                    attribute::INTERNAL_IP6_SUBNET,
                    [&v6.octets()[..], &[network.length_bits()]].concat(),
                ),
            });
        }
        Ok((!attributes.is_empty()).then_some({
            Payload::Configuration(ConfigurationPayload {
                kind: kind::REPLY,
                attributes,
            })
        }))
    }
}

fn address_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 | 17 => value
            .get(..16)
            .and_then(|v| <[u8; 16]>::try_from(v).ok())
            .map(IpAddr::from),
        _ => None,
    }
}
