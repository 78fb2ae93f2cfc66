//! Mark-and-sweep: what a resynchronisation did not name goes.

use southbound::{IpPrefix, VrfId};

use super::Writer;
use crate::tables::publish::Guard;

impl Writer {
    /// Removes every object whose generation is older than `generation`, those that others name last;
    /// returns how many went.
    pub fn sweep(&mut self, generation: u64) -> u64 {
        let guard = &Guard::pin();
        self.generation = self.generation.max(generation);
        let mut removed = 0;
        for sa in self.sas.older_than(generation) {
            removed += u64::from(self.remove_sa(&sa, guard));
        }
        for policy in self.policies_older_than(generation) {
            removed += u64::from(self.remove_policy(policy));
        }
        removed += self.sweep_policy_defaults(generation);
        for (vrf, prefix) in self.routes_older_than(generation) {
            removed += u64::from(self.remove_route(vrf, prefix, guard));
        }
        for (space, label) in self.labels_older_than(generation) {
            removed += u64::from(self.remove_ilm(space, label, guard));
        }
        for map in self.class_maps_older_than(generation) {
            removed += u64::from(self.remove_class_map(map, guard));
        }
        let old: Vec<_> = self
            .tunnels
            .iter()
            .filter(|(_, tunnel)| tunnel.spec.is_some() && tunnel.generation < generation)
            .map(|(id, _)| *id)
            .collect();
        for tunnel in old {
            removed += u64::from(self.remove_tunnel(tunnel, guard));
        }
        let old: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, neighbour)| neighbour.generation < generation)
            .map(|(name, _)| *name)
            .collect();
        for (port, address) in old {
            removed += u64::from(self.remove_neighbour(port, address, guard));
        }
        for local in self.locals_older_than(generation) {
            removed += u64::from(self.remove_local(&local, guard));
        }
        for port in self.ports_older_than(generation) {
            removed += u64::from(self.remove_port(port, guard));
        }
        let old: Vec<_> = self
            .vrf_names
            .iter()
            .filter(|(_, name)| name.generation < generation)
            .map(|(id, _)| *id)
            .collect();
        for vrf in old {
            removed += u64::from(self.remove_vrf(vrf, guard));
        }
        self.compile_policies(guard);
        self.publish_tunnel_ends(guard);
        removed
    }

    /// Every port that is older than `generation`.
    #[must_use]
    pub fn ports_older_than(&self, generation: u64) -> Vec<southbound::PortId> {
        self.ports
            .iter()
            .filter(|(_, port)| port.generation < generation)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Every address of ours that is older than `generation`.
    #[must_use]
    pub fn locals_older_than(&self, generation: u64) -> Vec<southbound::LocalAddress> {
        self.locals
            .iter()
            .filter(|(_, marked)| **marked < generation)
            .map(|(local, _)| *local)
            .collect()
    }

    fn routes_older_than(&self, generation: u64) -> Vec<(VrfId, IpPrefix)> {
        self.vrfs
            .iter()
            .flat_map(|vrf| {
                vrf.rib
                    .iter()
                    .map(|(prefix, known)| (vrf.id, *prefix, known.route))
            })
            .filter(|(_, _, route)| route.is_some_and(|route| route.generation < generation))
            .map(|(vrf, prefix, _)| (vrf, prefix))
            .collect()
    }
}
