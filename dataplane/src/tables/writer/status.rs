//! Answers to questions.

use std::collections::HashMap;

use southbound::{
    NeighbourState, NeighbourStatus, PolicyStatus, RouteStatus, SaDirection, SaRef, SaStatus, Status,
    Transform, TunnelStatus, TunnelTotals,
};

use super::Writer;
use super::sas::Record;
use crate::tables::NO_WORKER;
use crate::tables::publish::Guard;

impl Writer {
    /// Every SA.
    #[must_use]
    pub fn sa_status(&self) -> Vec<Status> {
        let guard = &Guard::pin();
        self.sas
            .iter()
            .filter_map(|(name, record)| match name.direction {
                SaDirection::Inbound => self.inbound_status(name.spi, guard),
                SaDirection::Outbound => self.outbound_status(record.place, guard),
            })
            .map(Status::Sa)
            .collect()
    }

    fn inbound_status(&self, spi: u32, guard: &Guard) -> Option<SaStatus> {
        let sa = self.tables.sad.get(spi, guard)?;
        let tunnel = self.tables.view(guard).tunnel(sa.tunnel())?;
        let [replay_drops, integrity_failures, selector_drops] = sa.failures();
        let terms = sa.terms(guard);
        Some(SaStatus {
            sa: terms.sa,
            tunnel: tunnel.id,
            transform: terms.transform,
            selected: false,
            worker: None,
            expired: sa.is_expired(),
            packets: sa.usage().packets(),
            bytes: sa.usage().bytes(),
            sequence: sa.replay().top(),
            remaining_sequence: sa.replay().remaining(),
            replay_drops,
            integrity_failures,
            selector_drops,
            age_seconds: sa.age_seconds(self.now_seconds),
        })
    }

    fn outbound_status(&self, place: u32, guard: &Guard) -> Option<SaStatus> {
        let sa = self.tables.outbound.get(place, guard)?;
        let tunnel = self.tables.view(guard).tunnel(sa.tunnel())?;
        let worker = tunnel.worker_of(place);
        let terms = sa.terms(guard);
        let transform: Transform = terms.transform;
        Some(SaStatus {
            sa: terms.sa,
            tunnel: tunnel.id,
            transform,
            selected: worker.is_some() || tunnel.outbound_place(NO_WORKER) == Some(place),
            worker,
            expired: sa.is_expired(),
            packets: sa.usage().packets(),
            bytes: sa.usage().bytes(),
            sequence: sa.sequence().last(),
            remaining_sequence: sa.sequence().remaining(),
            replay_drops: 0,
            integrity_failures: 0,
            selector_drops: 0,
            age_seconds: sa.age_seconds(self.now_seconds),
        })
    }

    /// Every tunnel.
    #[must_use]
    pub fn tunnel_status(&self) -> Vec<Status> {
        let guard = &Guard::pin();
        let view = self.tables.view(guard);
        let mut live: HashMap<u32, TunnelTotals> = HashMap::with_capacity(self.tunnels.len());
        for (name, record) in self.sas.iter() {
            *live.entry(record.tunnel.0).or_default() += self.sa_totals(&name, record, guard);
        }
        self.tunnels
            .values()
            .filter_map(|state| {
                let spec = state.spec.as_ref()?;
                let tunnel = view.tunnel(state.index)?;
                let outer_mtu_bytes = tunnel.outer_mtu_bytes(self.now_seconds);
                let sa = view.outbound(tunnel);
                let inner_mtu_bytes = if sa.is_some() || !tunnel.protected {
                    tunnel.inner_mtu_bytes(sa, self.now_seconds)
                } else {
                    spec.inner_mtu_bytes.unwrap_or(0)
                };
                Some(Status::Tunnel(TunnelStatus {
                    tunnel: spec.id,
                    name: spec.name.clone(),
                    outbound: state.selected,
                    outer_mtu_bytes,
                    inner_mtu_bytes,
                    totals: {
                        let mut totals = state.retired;
                        totals += live.get(&state.index.0).copied().unwrap_or_default();
                        totals
                    },
                }))
            })
            .collect()
    }

    /// What one SA carried.
    pub(super) fn sa_totals(&self, name: &SaRef, record: &Record, guard: &Guard) -> TunnelTotals {
        match name.direction {
            SaDirection::Inbound => self.tables.sad.get(name.spi, guard).map(|sa| TunnelTotals {
                in_packets: sa.usage().packets(),
                in_bytes: sa.usage().bytes(),
                drop_packets: sa.failures().iter().sum(),
                ..TunnelTotals::default()
            }),
            SaDirection::Outbound => self
                .tables
                .outbound
                .get(record.place, guard)
                .map(|sa| TunnelTotals {
                    out_packets: sa.usage().packets(),
                    out_bytes: sa.usage().bytes(),
                    ..TunnelTotals::default()
                }),
        }
        .unwrap_or_default()
    }

    /// Every route, as installed.
    #[must_use]
    pub fn route_status(&self) -> Vec<Status> {
        self.vrfs
            .iter()
            .flat_map(|vrf| {
                vrf.rib
                    .iter()
                    .map(|(prefix, known)| (vrf.id, *prefix, known.route))
            })
            .filter_map(|(vrf, prefix, route)| {
                Some(Status::Route(RouteStatus {
                    vrf,
                    prefix,
                    next_hops: self.groups.next_hops(route?.group).to_vec(),
                    weights: self.groups.weights(route?.group).to_vec(),
                }))
            })
            .collect()
    }

    /// Every neighbour, those included that are being asked for.
    #[must_use]
    pub fn neighbour_status(&self) -> Vec<Status> {
        let known = self.neighbours.iter().map(|((port, address), record)| {
            let state: NeighbourState = record.state;
            Status::Neighbour(NeighbourStatus {
                port: *port,
                address: *address,
                state: Some(state),
            })
        });
        let asked = self
            .links
            .hosts()
            .filter(|name| !self.neighbours.contains_key(name))
            .map(|(port, address)| {
                Status::Neighbour(NeighbourStatus {
                    port,
                    address,
                    state: None,
                })
            });
        known.chain(asked).collect()
    }

    /// Every rule of the SPD.
    #[must_use]
    pub fn policy_status(&self) -> Vec<Status> {
        self.vrfs
            .iter()
            .flat_map(|vrf| vrf.policies.values())
            .map(|policy| {
                Status::Policy(PolicyStatus {
                    policy: policy.spec.clone(),
                })
            })
            .collect()
    }
}
