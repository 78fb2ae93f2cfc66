//! The way of a packet whose labels are decided: out of a port, or into a tunnel, and how large it may be.

use crate::batch::{Meta, Next};
use crate::tables::{Adjacency, AdjacencyIndex};

use super::Context;

/// Largest packet, labels included; unknown where nothing is known of the way.
pub(super) fn mtu_bytes(adjacency: AdjacencyIndex, context: &Context<'_, '_>) -> Option<u16> {
    match context.view.adjacency(adjacency, 0) {
        Adjacency::Neighbour(neighbour) => Some(neighbour.mtu_bytes),
        Adjacency::Incomplete(neighbour) => Some(context.view.port(neighbour.port)?.link.mtu_bytes),
        Adjacency::Midchain(index) => {
            let tunnel = context.view.tunnel(index)?;
            let sa = context.view.outbound(tunnel).filter(|_| tunnel.protected);
            // Without an SA the packet waits and is looked at again.
            (sa.is_some() || !tunnel.protected).then(|| tunnel.inner_mtu_bytes(sa, context.now_seconds()))
        }
        _ => None,
    }
}

/// The way of the packet before and its MTU: packets of one LSP follow each other.
#[derive(Default)]
pub(super) struct Before(Option<(AdjacencyIndex, Option<u16>)>);

impl Before {
    /// As [`mtu_bytes`].
    #[inline(always)]
    pub(super) fn mtu_bytes(&mut self, adjacency: AdjacencyIndex, context: &Context<'_, '_>) -> Option<u16> {
        match self.0 {
            Some((known, mtu_bytes)) if known == adjacency => mtu_bytes,
            _ => {
                let mtu_bytes = mtu_bytes(adjacency, context);
                self.0 = Some((adjacency, mtu_bytes));
                mtu_bytes
            }
        }
    }
}

/// Notes the way and tells its stage.
#[inline(always)]
pub(super) fn take(adjacency: AdjacencyIndex, meta: &mut Meta) -> Next {
    meta.adjacency = adjacency;
    match adjacency.tunnel() {
        Some(tunnel) => {
            meta.into = Some(tunnel);
            Next::Midchain
        }
        None => Next::Egress,
    }
}
