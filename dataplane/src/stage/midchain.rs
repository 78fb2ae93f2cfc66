//! Midchain: may this packet enter its tunnel, and does it fit?
//!
//! In: [`Next::Midchain`]: a packet with its tunnel in `meta.into`. Out: [`Next::Encap`], or [`Next::EncapWide`] where it is
//! cut afterwards, or [`Next::Entunnel`] where it gets another header first; [`Next::Hold`] where the tunnel
//! has no SA yet; [`Next::Error`] where it is too big and must not be fragmented. What is too big and may be, is: before
//! it is sealed, so that the other gateway reassembles nothing (RFC 4301 section 8.2, RFC 4459 section 3.1).

use arrayvec::ArrayVec;
use southbound::{DfPolicy, DropReason, Encapsulation, Event, Mode, WorkerCounter};
use wire::IpProtocol;

use super::esp_layout::IPV6_MINIMUM_BYTES;
use super::{Context, fit};
use crate::batch::{BATCH_PACKETS, Batch, Flags, Meta, Next, SenderError, Slots};
use crate::mss_clamp;
use crate::sa::{Tunnel, TunnelIndex};

/// A tunnel that can take packets, and how large they may be.
#[derive(Clone, Copy)]
struct Open<'w> {
    tunnel: &'w Tunnel,
    mtu_bytes: u16,
}

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    // The tunnel of the packet before: packets of one flow follow each other.
    let mut before: Option<(TunnelIndex, Open<'_>)> = None;
    let mut fitting = 0;
    let slots = batch.take(Next::Midchain);
    prefetch(batch, slots, context);
    for slot in Slots::of(slots) {
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        if let Some((known, open)) = before
            && Some(known) == meta.into
            && !meta.flags.has_any(UNUSUAL)
            && open.takes(frame.bytes())
        {
            fitting |= 1 << slot;
            continue;
        }
        if meta.flags.has(Flags::OUTER) {
            batch.discard(slot, DropReason::TunnelLoop);
            continue;
        }
        if meta.flags.has(Flags::UNRULED) {
            batch.refuse(slot, DropReason::PolicyNoMatch, SenderError::Prohibited);
            continue;
        }
        let Some(index) = meta.into else {
            batch.discard(slot, DropReason::NoOutboundSa);
            continue;
        };
        let open = match before {
            Some((known, open)) if known == index => open,
            _ => match look_at(index, context) {
                Ok(open) => {
                    before = Some((index, open));
                    open
                }
                Err(None) => {
                    batch.send(slot, Next::Hold);
                    continue;
                }
                Err(Some(reason)) => {
                    batch.discard(slot, reason);
                    continue;
                }
            },
        };
        let is_labelled = meta.flags.has(Flags::LABELLED);
        let encapsulation = open.tunnel.encapsulation;
        if is_labelled && open.tunnel.labels.is_none() {
            batch.discard(slot, DropReason::LabelsRefused);
            continue;
        }
        if !is_labelled && encapsulation == Encapsulation::Udp {
            batch.discard(slot, DropReason::TunnelPayload);
            continue;
        }
        if frame.len() > usize::from(open.mtu_bytes) {
            if is_labelled {
                // It was held against the tunnel's MTU where its labels were decided.
                batch.discard(slot, DropReason::TooBig);
            } else if open.takes_minimum(meta, frame.len()) {
                batch.send(slot, open.wide_edge());
            } else {
                too_big(batch, slot, open, context);
            }
            continue;
        }
        if open.tunnel.clamp_mss
            && !is_labelled
            && may_be_tcp(frame.bytes(), meta)
            && mss_clamp::clamp(frame.bytes_mut(), open.mtu_bytes) == Ok(true)
        {
            context.counters.add(WorkerCounter::MssClamped, 1);
        }
        match encapsulation {
            Encapsulation::Esp => fitting |= 1 << slot,
            _ => batch.send(slot, Next::Entunnel),
        }
    }
    batch.send_all(fitting, Next::Encap);
}

/// Starts to load the packets' tunnels and SAs where there is more than one, a step of pointers at a time.
fn prefetch(batch: &Batch<'_>, slots: u64, context: &Context<'_, '_>) {
    let mut tunnels = ArrayVec::<TunnelIndex, BATCH_PACKETS>::new();
    for slot in Slots::of(slots) {
        if let Some(index) = batch.meta(slot).into
            && tunnels.last() != Some(&index)
        {
            context.view.prefetch_tunnel_place(index);
            tunnels.push(index);
        }
    }
    if tunnels.len() < 2 {
        return;
    }
    for index in &tunnels {
        context.view.prefetch_tunnel(*index);
    }
    for index in &tunnels {
        if let Some(tunnel) = context.view.tunnel(*index) {
            context.view.prefetch_outbound(tunnel);
        }
    }
    for index in &tunnels {
        let tunnel = context.view.tunnel(*index);
        if let Some(sa) = tunnel.and_then(|tunnel| context.view.outbound(tunnel)) {
            sa.prefetch_terms(context.view.guard());
        }
    }
}

/// The tunnel, or why not; no reason where its packets are to wait for an SA.
fn look_at<'w>(index: TunnelIndex, context: &Context<'w, '_>) -> Result<Open<'w>, Option<DropReason>> {
    let tunnel = context.view.tunnel(index).ok_or(Some(DropReason::NoOutboundSa))?;
    let mut sa = if tunnel.protected {
        Some(context.view.outbound(tunnel).ok_or(None)?)
    } else {
        None
    };
    if sa.is_some_and(|sa| sa.is_expired()) && tunnel.leave_own(context.view.worker()) {
        sa = Some(context.view.outbound(tunnel).ok_or(None)?);
    }
    if sa.is_some_and(|sa| sa.is_expired()) {
        return Err(Some(DropReason::SaExpired));
    }
    if sa.is_some() && tunnel.should_acquire_for(context.view.worker(), context.now_ms()) {
        context.raise(Event::WorkerAcquire {
            tunnel: tunnel.id,
            worker: context.view.worker(),
        });
    }
    let mtu_bytes = tunnel.inner_mtu_bytes(sa, context.now_seconds());
    Ok(Open { tunnel, mtu_bytes })
}

/// What is not looked at in haste.
const UNUSUAL: Flags = Flags::OUTER
    .or(Flags::UNRULED)
    .or(Flags::LABELLED)
    .or(Flags::IPV6);

impl Open<'_> {
    /// Whether a plain IPv4 packet goes on as it is.
    #[inline(always)]
    fn takes(&self, bytes: &[u8]) -> bool {
        self.tunnel.encapsulation == Encapsulation::Esp
            && bytes.len() <= usize::from(self.mtu_bytes)
            && !(self.tunnel.clamp_mss && bytes.get(9) == Some(&IpProtocol::TCP.0))
    }

    /// Whether this is IPv6 of a size that a tunnel must carry however narrow its path is (RFC 2473 section 7.1).
    fn takes_minimum(&self, meta: &Meta, packet_bytes: usize) -> bool {
        packet_bytes <= usize::from(self.least_mtu_bytes(meta))
    }

    /// Where such a packet goes: an outer IPv4 header lets routers cut it, an IPv6 one does not.
    fn wide_edge(&self) -> Next {
        if self.tunnel.remote.is_ipv6() {
            Next::EncapWide
        } else {
            Next::Encap
        }
    }

    /// The MTU that senders can rely on, whatever the path says; 0 where they cannot.
    fn least_mtu_bytes(&self, meta: &Meta) -> u16 {
        let tunnel = self.tunnel;
        let is_cut_outside = tunnel.mode == Mode::Tunnel
            && tunnel.encapsulation == Encapsulation::Esp
            && tunnel.df != DfPolicy::Set;
        if is_cut_outside && meta.flags.has(Flags::IPV6) {
            IPV6_MINIMUM_BYTES
        } else {
            0
        }
    }
}

#[cold]
fn too_big<'u>(batch: &mut Batch<'u>, slot: usize, open: Open<'_>, context: &mut Context<'_, 'u>) {
    let mtu_bytes = open.mtu_bytes.max(open.least_mtu_bytes(batch.meta(slot)));
    if open.tunnel.mode == Mode::Transport && open.tunnel.encapsulation == Encapsulation::Esp {
        batch.refuse(slot, DropReason::TooBig, SenderError::TooBig { mtu_bytes });
    } else {
        fit::shrink(batch, slot, mtu_bytes, Next::Midchain, context);
    }
}

/// Cheaply: TCP without IPv6 extension headers, or IPv6 extension headers, behind which it may be.
#[inline(always)]
fn may_be_tcp(bytes: &[u8], meta: &Meta) -> bool {
    if meta.flags.has(Flags::IPV6) {
        bytes
            .get(6)
            .is_some_and(|next_header| *next_header != IpProtocol::UDP.0)
    } else {
        bytes.get(9) == Some(&IpProtocol::TCP.0)
    }
}
