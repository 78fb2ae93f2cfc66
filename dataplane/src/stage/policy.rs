//! The security policy database, on both ways (RFC 4301 sections 4.4.1, 5.1, 5.2).
//!
//! | in | rule | out |
//! |---|---|---|
//! | [`Next::PolicyOut`], a plain packet | protect | [`Next::Midchain`] of that tunnel, whatever the routes say |
//! | | bypass | [`Next::Forward`] |
//! | | none | [`Next::Forward`], by the default to the protected side or the host only |
//! | | discard | dropped |
//! | the same, from a port | the mirrored rule says protect | dropped: it should have come through the tunnel |
//! | [`Next::PolicyIn`], out of a tunnel | protect by another tunnel, discard, by the default none | dropped |
//! | | anything else | [`Next::Forward`]; multicast, which no route leads on, to the host: [`Next::Punt`] |
//!
//! The default discards where a table has rules and nobody said otherwise. It is about what crosses between the protected
//! side and the rest (RFC 4301 section 3.1), so where no rule matches, the packet is marked, and ends where its way turns
//! out to lead into a tunnel, out of a port that is not protected, or to an interface of the kernel's: packets between
//! protected ports, or to the host itself, cross nothing.
//!
//! A table without rules costs one question a batch. That a route leads into a tunnel protects as well: such a packet
//! waits or is dropped where the tunnel has no SA, and never leaves in clear.

use southbound::{DropReason, WorkerCounter};

use super::{Context, esp_inner, hop};
use crate::batch::{Batch, Flags, Ingress, Meta, Next, SenderError, Slots};
use crate::sa::TunnelIndex;
use crate::tables::{Decision, VrfIndex};

/// Runs the outbound half.
pub fn run_out(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let slots = batch.take(Next::PolicyOut);
    if slots == 0 {
        return;
    }
    if !context.view.any_policies() {
        batch.send_all(slots, Next::Forward);
        return;
    }
    let mut unruled = 0;
    let mut ruled = RuledTable::default();
    for slot in Slots::of(slots) {
        if !ruled.has_policies(batch.meta(slot).vrf, context) {
            unruled |= 1 << slot;
            continue;
        }
        batch.meta_mut(slot).flags.clear(Flags::UNRULED);
        match rule_out(batch.bytes(slot), batch.meta(slot), context) {
            Ok(Ruled::Bypassed) => unruled |= 1 << slot,
            Ok(Ruled::Unmatched) => {
                batch.meta_mut(slot).flags.set(Flags::UNRULED);
                unruled |= 1 << slot;
            }
            Ok(Ruled::Protected(tunnel)) => protect(batch, slot, tunnel),
            Err(DropReason::PolicyDiscard) => {
                batch.refuse(slot, DropReason::PolicyDiscard, SenderError::Prohibited);
            }
            Err(reason) => batch.discard(slot, reason),
        }
    }
    batch.send_all(unruled, Next::Forward);
}

/// The answer for the table asked for last: most batches have one.
#[derive(Default)]
struct RuledTable(Option<(VrfIndex, bool)>);

impl RuledTable {
    #[inline(always)]
    fn has_policies(&mut self, vrf: VrfIndex, context: &Context<'_, '_>) -> bool {
        match self.0 {
            Some((known, answer)) if known == vrf => answer,
            _ => {
                let answer = context.view.has_policies(vrf);
                self.0 = Some((vrf, answer));
                answer
            }
        }
    }
}

/// What rules make of a plain packet that goes on.
enum Ruled {
    /// Into this tunnel.
    Protected(TunnelIndex),
    /// Routes decide.
    Bypassed,
    /// Routes decide, but it may not cross to the other side.
    Unmatched,
}

fn rule_out(bytes: &[u8], meta: &Meta, context: &mut Context<'_, '_>) -> Result<Ruled, DropReason> {
    let flow = esp_inner::flow(bytes).map_err(|_| DropReason::MalformedIp)?;
    let mut ruled = Ruled::Bypassed;
    match context.view.policy_out(meta.vrf, &flow) {
        Decision::Protect(tunnel) => return Ok(Ruled::Protected(tunnel)),
        Decision::Discard => return Err(DropReason::PolicyDiscard),
        Decision::Bypass => context.counters.add(WorkerCounter::PolicyBypass, 1),
        Decision::NoMatch => ruled = Ruled::Unmatched,
        Decision::NoRule => {}
    }
    let from_port = matches!(meta.ingress, Ingress::Port(_));
    match context.view.policy_in(meta.vrf, &flow) {
        Decision::Protect(_) if from_port => Err(DropReason::UnprotectedInbound),
        Decision::Discard if from_port => Err(DropReason::PolicyDiscard),
        // A rule about the other direction lets pass what answers.
        Decision::Bypass => Ok(Ruled::Bypassed),
        _ => Ok(ruled),
    }
}

fn protect(batch: &mut Batch<'_>, slot: usize, tunnel: TunnelIndex) {
    let Some((frame, meta)) = batch.packet_mut(slot) else {
        return;
    };
    meta.into = Some(tunnel);
    meta.flags.set(Flags::PROTECTED);
    if hop::take(frame.bytes_mut(), meta) {
        batch.send(slot, Next::Midchain);
    } else {
        batch.refuse(slot, DropReason::TtlExceeded, SenderError::TimeExceeded);
    }
}

/// Runs the inbound half.
pub fn run_in(batch: &mut Batch<'_>, context: &mut Context<'_, '_>) {
    let mut ruled = RuledTable::default();
    let mut forwarded = 0;
    for slot in Slots::of(batch.take(Next::PolicyIn)) {
        let is_ruled = ruled.has_policies(batch.meta(slot).vrf, context);
        match rule_in(batch.bytes(slot), batch.meta(slot), is_ruled, context) {
            Ok(Next::Forward) => forwarded |= 1 << slot,
            Ok(next) => batch.send(slot, next),
            Err(reason) => batch.discard(slot, reason),
        }
    }
    batch.send_all(forwarded, Next::Forward);
}

#[inline(always)]
fn rule_in(bytes: &[u8], meta: &Meta, is_ruled: bool, context: &Context<'_, '_>) -> Result<Next, DropReason> {
    if is_ruled {
        let flow = esp_inner::flow(bytes)?;
        match context.view.policy_in(meta.vrf, &flow) {
            Decision::Protect(tunnel) if Some(tunnel) != meta.out_of => {
                return Err(DropReason::SelectorMismatch);
            }
            Decision::Discard => return Err(DropReason::PolicyDiscard),
            Decision::NoMatch => return Err(DropReason::PolicyNoMatch),
            _ => {}
        }
    }
    let is_multicast = if meta.flags.has(Flags::IPV6) {
        bytes.get(24) == Some(&0xff)
    } else {
        bytes.get(16).is_some_and(|first| *first >> 4 == 0xe)
    };
    Ok(if is_multicast { Next::Punt } else { Next::Forward })
}
