//! VRFs, static routes and labels of the configuration.

use southbound::{
    ClassMapSpec, IlmSpec, LabelOperation, LabelVia, NextHop, Nhlfe, PortId, RouteSpec, TunnelId, Update,
    VrfSpec,
};

use super::{Installer, Plan};
use crate::config::{Gateway, Hop, LabelAction, RouteTarget, Via};

impl Installer {
    pub(super) fn plan_labels(&mut self, gateway: &Gateway, plan: &mut Plan) {
        for (name, vrf) in &gateway.vrfs {
            plan.updates.push(Update::PutVrf(VrfSpec {
                id: *vrf,
                name: name.clone(),
            }));
        }
        for map in &gateway.class_maps {
            plan.updates.push(Update::PutClassMap(ClassMapSpec {
                id: map.id,
                dscp_to_tc: map.dscp_to_tc.clone(),
                tc_to_dscp: map.tc_to_dscp,
            }));
        }
        for route in &gateway.routes {
            let (next_hops, weights) = match &route.target {
                RouteTarget::Hops(hops) => {
                    (hops.iter().map(|hop| self.next_hop(hop)).collect(), shares(hops))
                }
                RouteTarget::Vrf(vrf) => (vec![NextHop::Vrf(*vrf)], Vec::new()),
                RouteTarget::Blackhole => (vec![NextHop::Blackhole], Vec::new()),
                RouteTarget::Unreachable => (vec![NextHop::Unreachable], Vec::new()),
            };
            plan.updates.push(Update::PutRoute(RouteSpec {
                vrf: route.vrf,
                prefix: route.prefix,
                next_hops,
                weights,
            }));
        }
        for label in &gateway.labels {
            let operation = match &label.action {
                LabelAction::Vrf(vrf) => LabelOperation::PopAndLookup(*vrf),
                LabelAction::Pop => LabelOperation::Pop,
                LabelAction::Host => LabelOperation::Host,
                LabelAction::Discard => LabelOperation::Discard,
                LabelAction::Forward(hops) => LabelOperation::Forward {
                    next_hops: hops.iter().filter_map(|hop| self.nhlfe(hop)).collect(),
                    weights: shares(hops),
                },
            };
            plan.updates.push(Update::PutIlm(IlmSpec {
                space: label.space,
                label: label.label,
                operation,
                ttl: label.ttl,
                class: label.class,
            }));
        }
    }

    fn next_hop(&mut self, hop: &Hop) -> NextHop {
        if !hop.stack.labels().is_empty()
            && let Some(nhlfe) = self.nhlfe(hop)
        {
            return NextHop::Labelled(nhlfe);
        }
        match &hop.via {
            Via::Tunnel(name) => NextHop::Tunnel(TunnelId(self.tunnels.number(name))),
            Via::Port { interface, gateway } => NextHop::Port {
                port: PortId(self.ports.number(interface)),
                gateway: *gateway,
            },
        }
    }

    /// `None` where there is no neighbour to send labels to, which the configuration refuses.
    fn nhlfe(&mut self, hop: &Hop) -> Option<Nhlfe> {
        let via = match &hop.via {
            Via::Tunnel(name) => LabelVia::Tunnel(TunnelId(self.tunnels.number(name))),
            Via::Port { interface, gateway } => LabelVia::Port {
                port: PortId(self.ports.number(interface)),
                gateway: (*gateway)?,
            },
        };
        Some(Nhlfe {
            stack: hop.stack,
            via,
            ttl: hop.ttl,
            class: hop.class,
            entropy_beneath: hop.entropy_beneath,
        })
    }
}

/// Shares as the contract wants them: none where all are the same.
fn shares(hops: &[Hop]) -> Vec<u8> {
    if hops.windows(2).all(|pair| pair[0].weight == pair[1].weight) {
        return Vec::new();
    }
    hops.iter().map(|hop| hop.weight).collect()
}
