//! The path between two gateways that move (MOBIKE, RFC 4555): where else the peer is reached, whether it can be reached
//! where it says it is, and another way where the present one fails.

use std::net::{IpAddr, SocketAddr};

use crate::crypto::random::Draw;
use crate::error::{Error, Result};
use crate::ike_sa::{Context, IkeSa, Task};
use crate::message::ExchangeType;
use crate::payload::Payload;
use crate::payload::notify::{NotifyPayload, NotifyType};

use super::Exchange;
use super::parts::{Parts, status};

/// Addresses of a peer beyond this many are not remembered.
const MAX_ADDITIONAL: usize = 8;

/// Retransmissions on one path before another one is tried.
const TRIES_PER_PATH: u32 = 3;

fn address_of(notify: &NotifyPayload) -> Option<IpAddr> {
    match notify.kind {
        NotifyType::ADDITIONAL_IP4_ADDRESS => {
            let octets = <[u8; 4]>::try_from(notify.data.as_slice()).ok()?;
            Some(octets.into())
        }
        NotifyType::ADDITIONAL_IP6_ADDRESS => {
            let octets = <[u8; 16]>::try_from(notify.data.as_slice()).ok()?;
            Some(octets.into())
        }
        _ => None,
    }
}

impl IkeSa {
    /// Our further addresses, for IKE_AUTH or when they changed (RFC 4555 section 3.6).
    pub(crate) fn additional_addresses(&self, of_all_kinds: bool) -> Vec<Payload> {
        let others = self.connection.local_addresses.iter();
        let mut payloads: Vec<_> = others
            .filter(|address| **address != self.local.ip())
            .take(MAX_ADDITIONAL)
            .map(|address| match address {
                IpAddr::V4(v4) => status(NotifyType::ADDITIONAL_IP4_ADDRESS, v4.octets().to_vec()),
                IpAddr::V6(v6) => status(NotifyType::ADDITIONAL_IP6_ADDRESS, v6.octets().to_vec()),
            })
            .collect();
        if payloads.is_empty() && of_all_kinds {
            payloads.push(status(NotifyType::NO_ADDITIONAL_ADDRESSES, Vec::new()));
        }
        payloads
    }

    /// Remembers where else the peer is, as an authenticated message says.
    pub(crate) fn note_additional_addresses(&mut self, parts: &Parts) {
        let mut addresses: Vec<_> = parts.notifies.iter().filter_map(address_of).collect();
        if addresses.is_empty() && !parts.has(NotifyType::NO_ADDITIONAL_ADDRESSES) {
            return;
        }
        // The address that says so counts, too: it may be new.
        addresses.extend(self.request_path.map(|(_, remote)| remote.ip()));
        addresses.truncate(MAX_ADDITIONAL);
        self.support.additional_addresses = addresses;
    }

    /// RFC 4555 section 3.9: an initiator that wants no NAT says what it put into the headers.
    pub(crate) fn finds_unwanted_nat(parts: &Parts, local: SocketAddr, remote: SocketAddr) -> bool {
        let Some(notify) = parts.notify(NotifyType::NO_NATS_ALLOWED) else {
            return false;
        };
        let mut seen = Vec::new();
        for address in [remote.ip(), local.ip()] {
            match address {
                IpAddr::V4(v4) => seen.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => seen.extend_from_slice(&v6.octets()),
            }
        }
        seen.extend_from_slice(&remote.port().to_be_bytes());
        seen.extend_from_slice(&local.port().to_be_bytes());
        seen != notify.data
    }

    /// Return routability (RFC 4555 section 3.7): a cookie to the address that the peer claims, which only someone there
    /// can return.
    pub(crate) fn start_probe(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        let cookie = ctx.random.bytes::<16>().to_vec();
        self.request(
            ctx,
            ExchangeType::INFORMATIONAL,
            &[status(NotifyType::COOKIE2, cookie.clone())],
            Exchange::Probe(cookie),
        )
    }

    pub(crate) fn take_probe(&self, cookie: &[u8], parts: &Parts) -> Result<()> {
        match parts.notify(NotifyType::COOKIE2) {
            Some(returned) if returned.data == cookie => Ok(()),
            _ => Err(Error::AuthenticationFailed(
                "the peer cannot be reached at the address it gave".into(),
            )),
        }
    }

    /// Tells the peer where else we are.
    pub(crate) fn start_announcement(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        let payloads = self.additional_addresses(true);
        self.request(ctx, ExchangeType::INFORMATIONAL, &payloads, Exchange::Liveness)
    }

    /// The pairs of addresses between which the initiator may choose, the present one first.
    fn paths(&self) -> Vec<(IpAddr, IpAddr)> {
        let present = (self.local.ip(), self.remote.ip());
        let mut locals = vec![present.0];
        locals.extend(&self.connection.local_addresses);
        let mut remotes = vec![present.1];
        remotes.extend(&self.support.additional_addresses);
        remotes.extend(self.connection.remote_addresses.iter().map(SocketAddr::ip));
        let mut paths = Vec::new();
        for remote in &remotes {
            for local in &locals {
                if local.is_ipv4() == remote.is_ipv4() && !paths.contains(&(*local, *remote)) {
                    paths.push((*local, *remote));
                }
            }
        }
        paths
    }

    /// The peer does not answer here: the initiator of an SA with MOBIKE tries another pair of addresses, each once,
    /// and sends what is unanswered there. The peer learns of it once it answers.
    pub(crate) fn try_another_path(&mut self, ctx: &mut Context<'_>) {
        if !self.support.mobike
            || !self.initiator
            || !self.is_established()
            || self.outbox.most_sent() <= TRIES_PER_PATH
        {
            return;
        }
        let present = (self.local.ip(), self.remote.ip());
        if !self.paths_tried.contains(&present) {
            self.paths_tried.push(present);
        }
        let next = self
            .paths()
            .into_iter()
            .find(|path| !self.paths_tried.contains(path));
        let Some((local, remote)) = next else {
            return;
        };
        self.paths_tried.push((local, remote));
        let port = ctx.config.nat_t_port;
        let remote_port = if self.remote.port() == ctx.config.port {
            port
        } else {
            self.remote.port()
        };
        self.local = SocketAddr::new(local, port);
        self.remote = SocketAddr::new(remote, remote_port);
        self.outbox.hasten(ctx.now);
        self.enqueue(ctx.now, Task::UpdateAddresses);
    }
}
