//! ICMP errors of our own: the sender of a packet that goes no further learns why.
//!
//! In: [`Next::Error`]: a packet with its reason and `meta.error`. The packet is counted as dropped; in its frame the error
//! is written, which goes back by the routes like any packet, or, about a packet that came out of a tunnel, into that
//! tunnel and nowhere else: it quotes what was protected. Where none may be sent (RFC 1122 section 3.2.2, RFC 4443
//! section 2.4) or the limit is reached, the frame goes home. What came under labels is answered with them (RFC 4950); an
//! error about a packet whose sender cannot be reached from here goes on along the LSP (RFC 3032 section 2.3.2).

use std::net::IpAddr;

use southbound::{DropReason, WorkerCounter};
use wire::Lse;
use wire::icmp::reply::{self, Cause, Reply};

use super::label_error::{self, Labels};
use super::{Context, esp_inner};
use crate::batch::{Batch, Flags, Ingress, Meta, Next, SenderError, Slots};
use crate::tables::PortSlot;
use crate::xsk::Frame;

/// TTL and hop limit of what we send.
const TTL: u8 = 64;

/// The longest error.
const MAX_ERROR_BYTES: usize = if reply::MAX_V4_BYTES > reply::MAX_V6_BYTES {
    reply::MAX_V4_BYTES
} else {
    reply::MAX_V6_BYTES
};

/// Runs the stage.
pub fn run<'u>(batch: &mut Batch<'u>, context: &mut Context<'_, 'u>) {
    for slot in Slots::of(batch.take(Next::Error)) {
        let reason = batch.reason(slot);
        let Some((frame, meta)) = batch.packet_mut(slot) else {
            continue;
        };
        let labels = label_error::open(frame, meta);
        let mut written = [0; MAX_ERROR_BYTES];
        let length_bytes = write(frame.bytes(), meta, labels.entries(), context, &mut written);
        let Some(error) = length_bytes.and_then(|length_bytes| written.get(..length_bytes)) else {
            batch.discard(slot, reason);
            continue;
        };
        // From here on there are two packets: the one that was dropped, and the error in its frame.
        context.counters.drop_packets(reason, 1);
        context.counters.add(WorkerCounter::Generated, 1);
        if !context.limit.allow(context.now_ns) {
            batch.discard(slot, DropReason::IcmpRateLimited);
            continue;
        }
        match replace(frame, error, context) {
            true => {
                let sent = match labels {
                    Labels::Beneath(stack) => label_error::turn_back(frame, meta, &stack, context),
                    Labels::None | Labels::Popped(_) => Ok(turn_back(meta, labels.is_none())),
                };
                match sent {
                    Ok(next) => batch.send(slot, next),
                    Err(reason) => batch.discard(slot, reason),
                }
            }
            false => batch.discard(slot, DropReason::NoHeadroom),
        }
    }
}

fn replace(frame: &mut Frame<'_>, error: &[u8], context: &Context<'_, '_>) -> bool {
    frame.reset(context.pool.umem().packet_headroom_bytes()) && frame.copy_from(error)
}

/// The way of the error about a packet with this meta: of one that came under labels by the routes of its table, and
/// not unlabelled into the tunnel that brought it.
fn turn_back(meta: &mut Meta, is_unlabelled: bool) -> Next {
    let tunnel = meta.out_of.take().filter(|_| is_unlabelled);
    let keep_ipv6 = meta.flags.has(Flags::IPV6);
    *meta = Meta::new(Ingress::Own, meta.vrf);
    if keep_ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    meta.flags.set(Flags::HOP_TAKEN);
    meta.into = tunnel;
    if tunnel.is_some() {
        // So that it waits for the SA under the same rule, should there be none.
        meta.flags.set(Flags::REPLY);
        Next::Midchain
    } else {
        Next::PolicyOut
    }
}

/// Writes the error; `None` where none is to be sent.
fn write(
    bytes: &[u8],
    meta: &Meta,
    labels: &[Lse],
    context: &Context<'_, '_>,
    out: &mut [u8],
) -> Option<usize> {
    // Our own errors and outer packets have no sender but us.
    if meta.ingress == Ingress::Own || meta.flags.has(Flags::OUTER) {
        return None;
    }
    let cause = match meta.error {
        SenderError::TimeExceeded => Cause::TimeExceeded,
        SenderError::NoRoute => Cause::NetUnreachable,
        SenderError::HostUnreachable => Cause::HostUnreachable,
        SenderError::Prohibited => Cause::AdminProhibited,
        SenderError::TooBig { mtu_bytes } => Cause::TooBig {
            mtu_bytes: u32::from(mtu_bytes),
        },
    };
    match source_address(bytes, meta, context)? {
        IpAddr::V4(source) => reply::write_v4(
            bytes,
            &Reply {
                cause,
                source,
                ttl: TTL,
                labels,
            },
            out,
        )
        .ok(),
        IpAddr::V6(source) => reply::write_v6(
            bytes,
            &Reply {
                cause,
                source,
                ttl: TTL,
                labels,
            },
            out,
        )
        .ok(),
    }
}

/// The address that the error comes from, by which traceroute shows this gateway: that of the port the packet came by;
/// for a packet out of a tunnel one of our side's, which the other side's selectors know; for the host's own packets the
/// destination's, as the host takes none from itself.
fn source_address(bytes: &[u8], meta: &Meta, context: &Context<'_, '_>) -> Option<IpAddr> {
    let is_ipv6 = meta.flags.has(Flags::IPV6);
    if meta.out_of.is_some() {
        return any_address(meta, is_ipv6, context);
    }
    match meta.ingress {
        Ingress::Port(slot) => {
            let port = context.view.port(slot)?;
            // A core link may have no address of the packet's family, or of none of its VRF.
            address_of(port, is_ipv6).or_else(|| any_address(meta, is_ipv6, context))
        }
        Ingress::Host => esp_inner::destination(bytes, meta),
        Ingress::Own => None,
    }
}

/// An address of ours in the packet's table, of the protected side first.
fn any_address(meta: &Meta, is_ipv6: bool, context: &Context<'_, '_>) -> Option<IpAddr> {
    PortSlot::all()
        .filter_map(|slot| context.view.port(slot))
        .filter(|port| port.vrf == meta.vrf)
        .filter_map(|port| {
            Some((
                port.role == southbound::PortRole::Protected,
                address_of(port, is_ipv6)?,
            ))
        })
        .max_by_key(|(is_protected, _)| *is_protected)
        .map(|(_, address)| address)
}

fn address_of(port: &crate::tables::PortInfo, is_ipv6: bool) -> Option<IpAddr> {
    if is_ipv6 {
        port.source_v6().map(IpAddr::V6)
    } else {
        port.source_v4().map(IpAddr::V4)
    }
}
