//! INFORMATIONAL: deletion, liveness, address updates (RFC 7296 section 1.4, RFC 4555).

use crate::child_sa::ChildState;
use crate::error::Result;
use crate::ike_sa::{Context, IkeSa, Phase, Task};
use crate::message::ExchangeType;
use crate::nat;
use crate::payload::Payload;
use crate::payload::delete::DeletePayload;
use crate::payload::notify::NotifyType;
use crate::payload::sa::Protocol;

use super::Exchange;
use super::eap_responder::PEER_REFUSED;
use super::parts::{Parts, status};

/// SPIs remembered of pairs that were deleted before they were known.
const MAX_DELETED_EARLY: usize = 32;

impl IkeSa {
    pub(crate) fn start_child_delete(&mut self, ctx: &mut Context<'_>, spi_in: u32) -> Result<()> {
        if let Some(child) = self.child_by_spi_in_mut(spi_in) {
            if child.state == ChildState::Deleting {
                return Ok(());
            }
            child.state = ChildState::Deleting;
        }
        // A pair that was never installed is deleted, too: the redundant one of a collision.
        let payloads = [Payload::Delete(DeletePayload::Children {
            protocol: Protocol::ESP,
            spis: vec![spi_in],
        })];
        self.request(
            ctx,
            ExchangeType::INFORMATIONAL,
            &payloads,
            Exchange::DeleteChild(spi_in),
        )
    }

    /// The peer confirmed that it deleted a pair.
    pub(crate) fn finish_child_delete(&mut self, ctx: &mut Context<'_>, spi_in: u32) {
        if self.child_by_spi_in(spi_in).is_none() {
            ctx.registry.release_child_spi(spi_in);
            return;
        }
        self.remove_child(ctx, spi_in);
        if self.is_established() && self.delete_reason.is_none() {
            self.enqueue_expired_children(ctx);
        }
    }

    /// A child whose lifetime ended without a successor comes back where the configuration wants it up.
    fn enqueue_expired_children(&mut self, ctx: &mut Context<'_>) {
        if !self.connection.remote_addresses.is_empty() && !self.held_down {
            self.enqueue_missing_children(ctx.now);
        }
    }

    pub(crate) fn start_ike_delete(&mut self, ctx: &mut Context<'_>, reason: String) -> Result<()> {
        self.delete_reason = Some(reason);
        let payloads = [Payload::Delete(DeletePayload::IkeSa)];
        self.request(ctx, ExchangeType::INFORMATIONAL, &payloads, Exchange::DeleteIke)?;
        self.phase = Phase::Deleting;
        Ok(())
    }

    pub(crate) fn start_liveness(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        self.request(ctx, ExchangeType::INFORMATIONAL, &[], Exchange::Liveness)
    }

    /// Tells the peer that we are reached elsewhere now (RFC 4555 section 3.5).
    pub(crate) fn start_address_update(&mut self, ctx: &mut Context<'_>) -> Result<()> {
        let (spi_i, spi_r) = self.spis();
        let mut payloads = vec![status(NotifyType::UPDATE_SA_ADDRESSES, Vec::new())];
        let force = self.connection.force_udp_encapsulation;
        payloads.extend(nat::announce(spi_i, spi_r, self.local, self.remote, force));
        self.request(
            ctx,
            ExchangeType::INFORMATIONAL,
            &payloads,
            Exchange::UpdateAddresses,
        )
    }

    pub(crate) fn take_address_update(&mut self, ctx: &mut Context<'_>, parts: &Parts) -> Result<()> {
        if let Some(refusal) = parts.refusal() {
            return Err(crate::error::Error::PeerRefused(refusal));
        }
        let (local, remote) = (self.local, self.remote);
        self.redetect_nat(parts, local, remote);
        self.update_child_addresses(ctx);
        Ok(())
    }

    /// NAT detection inside the IKE SA, where both SPIs are known.
    fn redetect_nat(&mut self, parts: &Parts, local: std::net::SocketAddr, remote: std::net::SocketAddr) {
        let (spi_i, spi_r) = self.spis();
        let notifies: Vec<_> = parts.notifies.iter().collect();
        if let Some(nat) = nat::detect(&notifies, spi_i, spi_r, local, remote) {
            self.nat = nat;
            self.nat.here |= self.connection.force_udp_encapsulation;
        }
    }

    pub(crate) fn answer_informational(
        &mut self,
        ctx: &mut Context<'_>,
        parts: &Parts,
    ) -> Result<Vec<Payload>> {
        if !self.initiator && parts.has(NotifyType::AUTHENTICATION_FAILED) {
            self.close_reason = Some(PEER_REFUSED.to_owned());
            return Ok(Vec::new());
        }
        let mut answer = Vec::new();
        let mut deleted = Vec::new();
        for delete in &parts.deletes {
            match delete {
                DeletePayload::IkeSa => {
                    self.peer_deletes_ike(ctx);
                    return Ok(Vec::new());
                }
                DeletePayload::Children {
                    protocol: Protocol::ESP,
                    spis,
                } => {
                    deleted.extend(spis.iter().filter_map(|spi| self.peer_deletes_child(ctx, *spi)));
                }
                DeletePayload::Children { .. } => {}
            }
        }
        if !deleted.is_empty() {
            answer.push(Payload::Delete(DeletePayload::Children {
                protocol: Protocol::ESP,
                spis: deleted,
            }));
        }
        if let Some(cookie) = parts
            .notify(NotifyType::COOKIE2)
            .filter(|notify| notify.data.len() <= 64)
        {
            answer.push(status(NotifyType::COOKIE2, cookie.data.clone()));
        }
        if self.support.mobike {
            self.note_additional_addresses(parts);
        }
        if parts.has(NotifyType::UPDATE_SA_ADDRESSES) {
            answer.extend(self.peer_updates_addresses(ctx, parts));
        }
        self.redirected_by_gateway(ctx, parts)?;
        self.peer_lost_child(ctx, parts);
        Ok(answer)
    }

    /// The pair goes; the answer names our SPI of it, unless our own request to delete it crossed the peer's
    /// (RFC 7296 section 1.4.1).
    fn peer_deletes_child(&mut self, ctx: &mut Context<'_>, spi_out: u32) -> Option<u32> {
        let Some(child) = self.child_by_spi_out(spi_out) else {
            if self.outbox.exchanges().any(Exchange::concerns_child)
                && self.deleted_early.len() < MAX_DELETED_EARLY
            {
                self.deleted_early.push(spi_out);
            }
            return None;
        };
        let (spi_in, name, state) = (child.spi_in(), child.name.clone(), child.state);
        let renewed = child.successor.is_some() || state == ChildState::Rekeying;
        if state == ChildState::Rekeying
            && child.collision.is_some()
            && self.lost_rekeys.len() < MAX_DELETED_EARLY
        {
            self.lost_rekeys.push(spi_in);
        }
        self.remove_child(ctx, spi_in);
        let wanted = self
            .connection
            .child(&name)
            .is_some_and(|c| c.start == crate::config::StartAction::Start);
        let lost = !renewed && state == ChildState::Active;
        if lost && wanted && !self.connection.remote_addresses.is_empty() && !self.held_down {
            self.retry_later(ctx, Task::CreateChild { name });
        }
        (state != ChildState::Deleting).then_some(spi_in)
    }

    /// The peer got ESP that it has no SA for, and says so under the protection of the IKE SA (RFC 7296 section 1.5):
    /// the pair is of no more use to it.
    fn peer_lost_child(&mut self, ctx: &mut Context<'_>, parts: &Parts) {
        let named = parts.notify(NotifyType::INVALID_SPI).and_then(|notify| {
            let spi = <[u8; 4]>::try_from(notify.data.as_slice()).ok()?;
            self.child_by_spi_out(u32::from_be_bytes(spi))
        });
        let Some(child) =
            named.filter(|child| child.state == ChildState::Active && child.successor.is_none())
        else {
            return;
        };
        let (spi_in, name) = (child.spi_in(), child.name.clone());
        self.enqueue(ctx.now, Task::DeleteChild { spi_in });
        self.enqueue(ctx.now, Task::CreateChild { name });
    }

    fn peer_deletes_ike(&mut self, ctx: &mut Context<'_>) {
        // The peer's renewal succeeded and ours did not reach it: its SA carries on.
        if let Some(collision) = self.collision.take() {
            self.hand_over(ctx, collision.successor);
        }
        self.close_reason = Some("the peer closed it".to_owned());
    }

    /// RFC 4555 section 3.5: the new addresses are those that the authenticated request came from.
    fn peer_updates_addresses(&mut self, ctx: &mut Context<'_>, parts: &Parts) -> Vec<Payload> {
        if !self.support.mobike || self.initiator {
            return Vec::new();
        }
        let Some((local, remote)) = self.request_path else {
            return Vec::new();
        };
        if Self::finds_unwanted_nat(parts, local, remote) {
            return vec![status(NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new())];
        }
        let elsewhere = remote.ip() != self.remote.ip();
        self.redetect_nat(parts, local, remote);
        if elsewhere {
            self.enqueue(ctx.now, Task::ProbePath);
        }
        if (local, remote) != (self.local, self.remote) || parts.has(NotifyType::NAT_DETECTION_SOURCE_IP) {
            self.move_to(ctx, local, remote);
        }
        let (spi_i, spi_r) = self.spis();
        nat::announce(
            spi_i,
            spi_r,
            local,
            remote,
            self.connection.force_udp_encapsulation,
        )
        .into()
    }
}
