//! Which tunnel received GRE, IP and UDP packets belong to.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use southbound::{Encapsulation, Rejection, TunnelId, TunnelSpec};

use super::Writer;
use crate::sa::TunnelIndex;
use crate::tables::publish::Guard;
use crate::tables::tunnel_map::{TunnelEnds, TunnelHeader, TunnelMap};

/// Up to this many tunnels are shown to the workers at each change, more at the end of a message.
const FEW_TUNNELS: usize = 64;

/// The ends of the tunnels that are not ESP alone.
#[derive(Default)]
pub(super) struct TunnelEndsState {
    ends: HashMap<TunnelEnds, (TunnelId, TunnelIndex)>,
    names: HashMap<TunnelId, TunnelEnds>,
    is_stale: bool,
}

impl Writer {
    /// Two tunnels of the same ends could not be told apart.
    pub(super) fn check_tunnel_ends(&self, spec: &TunnelSpec) -> Result<(), Rejection> {
        if spec.encapsulation == Encapsulation::Udp && spec.labels.is_none() {
            return Err(Rejection::Inconsistent(
                "a UDP tunnel carries labels only (RFC 7510)".to_owned(),
            ));
        }
        let Some(ends) = self.ends_of(spec) else {
            return Ok(());
        };
        match self.tunnel_ends.ends.get(&ends) {
            Some((other, _)) if *other != spec.id => Err(Rejection::Inconsistent(format!(
                "tunnel {} has the same ends, header and key",
                other.0
            ))),
            _ => Ok(()),
        }
    }

    fn ends_of(&self, spec: &TunnelSpec) -> Option<TunnelEnds> {
        Some(TunnelEnds {
            vrf: self.vrf_index(spec.outer_vrf)?,
            local: spec.local,
            remote: spec.remote,
            header: TunnelHeader::of(spec.encapsulation)?,
        })
    }

    /// Takes over the ends of a tunnel that was put.
    pub(super) fn note_tunnel_ends(&mut self, id: TunnelId) {
        self.forget_tunnel_ends(id);
        let Some(state) = self.tunnels.get(&id) else {
            return;
        };
        let index = state.index;
        if let Some(ends) = state.spec.as_ref().and_then(|spec| self.ends_of(spec)) {
            self.tunnel_ends.ends.insert(ends, (id, index));
            self.tunnel_ends.names.insert(id, ends);
            self.tunnel_ends.is_stale = true;
        }
    }

    pub(super) fn forget_tunnel_ends(&mut self, id: TunnelId) {
        if let Some(ends) = self.tunnel_ends.names.remove(&id) {
            self.tunnel_ends.ends.remove(&ends);
            self.tunnel_ends.is_stale = true;
        }
    }

    /// Shows the workers the changed ends of few tunnels.
    pub(super) fn publish_few_tunnel_ends(&mut self, guard: &Guard) {
        if self.tunnel_ends.ends.len() <= FEW_TUNNELS {
            self.publish_tunnel_ends(guard);
        }
    }

    /// Shows the workers all changed ends.
    pub(super) fn publish_tunnel_ends(&mut self, guard: &Guard) {
        if std::mem::take(&mut self.tunnel_ends.is_stale) {
            let ends = &self.tunnel_ends.ends;
            let map = ends.iter().map(|(ends, (_, index))| (*ends, *index)).collect();
            self.tables.tunnel_map.replace(TunnelMap::new(map), guard);
        }
    }

    /// Our ends of tunnels that are not ESP alone: what arrives there is to be steered here.
    #[must_use]
    pub fn tunnel_endpoints(&self) -> BTreeSet<IpAddr> {
        self.tunnel_ends.ends.keys().map(|ends| ends.local).collect()
    }
}
