//! A forwarding plane that remembers: for tests of whatever drives one.

use std::collections::BTreeMap;

use crate::{Event, ForwardingPlane, Query, Rejection, Status, Update};

/// Keeps every update under the name of its object, as the dataplane's tables would, and obeys
/// mark-and-sweep; carries no traffic and answers no query.
#[derive(Debug, Default)]
pub struct Recorder {
    objects: BTreeMap<String, (u64, Update)>,
    events: Vec<Event>,
    refusals: BTreeMap<String, Rejection>,
    applied: u64,
    unsettled: u64,
}

impl Recorder {
    /// What is installed, in order of name.
    pub fn installed(&self) -> impl Iterator<Item = &Update> {
        self.objects.values().map(|(_, update)| update)
    }

    /// How many updates were applied in all.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// How many updates were applied since it was last told to settle.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// Raises an event.
    pub fn raise(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Refuses the next updates of the object that `update` names.
    pub fn refuse(&mut self, update: &Update, rejection: Rejection) {
        self.refusals.insert(object(update).0, rejection);
    }
}

/// The name of the object of an update, and whether the update removes it.
fn object(update: &Update) -> (String, bool) {
    match update {
        Update::PutPort(port) => (format!("port {}", port.id.0), false),
        Update::RemovePort(id) => (format!("port {}", id.0), true),
        Update::PutLocalAddress(local) => (format!("local {} {}", local.vrf.0, local.address), false),
        Update::RemoveLocalAddress(local) => (format!("local {} {}", local.vrf.0, local.address), true),
        Update::PutNeighbour(neighbour) => (
            format!("neighbour {} {}", neighbour.port.0, neighbour.address),
            false,
        ),
        Update::RemoveNeighbour { port, address } => (format!("neighbour {} {address}", port.0), true),
        Update::PutRoute(route) => (format!("route {} {}", route.vrf.0, route.prefix), false),
        Update::RemoveRoute { vrf, prefix } => (format!("route {} {prefix}", vrf.0), true),
        Update::PutTunnel(tunnel) => (format!("tunnel {}", tunnel.id.0), false),
        Update::RemoveTunnel(id) => (format!("tunnel {}", id.0), true),
        Update::InstallSa(sa) => (format!("sa {:?}", sa.reference()), false),
        Update::KeepSa(sa) => (format!("sa {sa:?}"), false),
        Update::RemoveSa(sa) => (format!("sa {sa:?}"), true),
        Update::SelectOutbound { tunnel, .. } => (format!("outbound {}", tunnel.0), false),
        Update::SelectForWorker { tunnel, worker, .. } => {
            (format!("outbound {} of worker {worker}", tunnel.0), false)
        }
        Update::PutPolicy(policy) => (format!("policy {}", policy.id.0), false),
        Update::RemovePolicy(id) => (format!("policy {}", id.0), true),
        Update::PutVrf(vrf) => (format!("vrf {}", vrf.id.0), false),
        Update::RemoveVrf(id) => (format!("vrf {}", id.0), true),
        Update::PutIlm(ilm) => (format!("ilm {} {}", ilm.space.0, ilm.label), false),
        Update::RemoveIlm { space, label } => (format!("ilm {} {label}", space.0), true),
        Update::PutClassMap(map) => (format!("class map {}", map.id.0), false),
        Update::RemoveClassMap(id) => (format!("class map {}", id.0), true),
        Update::PutPolicyDefault { vrf, .. } => (format!("policy default {}", vrf.0), false),
        Update::RemovePolicyDefault { vrf } => (format!("policy default {}", vrf.0), true),
    }
}

impl ForwardingPlane for Recorder {
    fn begin_sync(&mut self, _generation: u64) {}

    fn apply(&mut self, generation: u64, update: Update) -> Result<(), Rejection> {
        let (name, removes) = object(&update);
        if let Some(rejection) = self.refusals.get(&name) {
            return Err(rejection.clone());
        }
        self.applied += 1;
        self.unsettled += 1;
        if let Update::KeepSa(sa) = &update {
            let (marked, _) = self.objects.get_mut(&name).ok_or(Rejection::UnknownSa(*sa))?;
            *marked = generation;
        } else if removes {
            self.objects.remove(&name);
        } else {
            self.objects.insert(name, (generation, update));
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.unsettled = 0;
    }

    fn end_sync(&mut self, generation: u64) -> u64 {
        let before = self.objects.len();
        self.objects.retain(|_, (marked, _)| *marked >= generation);
        (before - self.objects.len()) as u64
    }

    fn drain_events(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.events);
    }

    fn query(&self, _query: Query) -> Vec<Status> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NextHop, RouteSpec, VrfId};

    fn route(prefix: &str) -> Update {
        Update::PutRoute(RouteSpec {
            vrf: VrfId::MAIN,
            prefix: prefix.parse().unwrap(),
            next_hops: vec![NextHop::Blackhole],
            weights: vec![],
        })
    }

    #[test]
    fn what_a_new_generation_does_not_name_is_swept() {
        let mut plane = Recorder::default();
        plane.apply(1, route("10.0.0.0/8")).unwrap();
        plane.apply(1, route("10.1.0.0/16")).unwrap();
        plane.begin_sync(2);
        plane.apply(2, route("10.1.0.0/16")).unwrap();
        assert_eq!(plane.end_sync(2), 1);
        assert_eq!(plane.installed().collect::<Vec<_>>(), [&route("10.1.0.0/16")]);
    }
}
