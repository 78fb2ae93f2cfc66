//! What zebra's tables mean to the dataplane.

use std::collections::BTreeSet;

use southbound::{
    IlmSpec, Label, LabelOperation, LabelSpaceId, LabelStatus, LabelVia, NextHop, Nhlfe, PopClass, RouteSpec,
    Status, TtlModel, Update, VrfId,
};

use super::message::{RouteKey, TABLE_MAIN, Way};
use super::model::{Item, Model, Resolved};
use crate::netlink::{InterfaceRole, Mirror};
use crate::plane::{Desired, Object};

/// What of the configuration decides how routes and labels are taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// From which VRF (second) routes may lead into which (first) other.
    pub leaks: BTreeSet<(VrfId, VrfId)>,
    /// Labels that the configuration decides.
    pub labels: BTreeSet<Label>,
    /// Routes that the configuration decides.
    pub routes: BTreeSet<(VrfId, southbound::IpPrefix)>,
    /// The TTL model of labels pushed and popped.
    pub ttl: TtlModel,
}

/// Carries changes of the model over, and remembers what it told.
#[derive(Debug, Default)]
pub struct Projection {
    rules: Rules,
    routes: BTreeSet<(VrfId, southbound::IpPrefix)>,
    labels: BTreeSet<Label>,
    /// The kernel's interfaces as last looked at.
    meaning: u64,
}

impl Projection {
    /// Another configuration: everything is looked at anew.
    pub fn set_rules(&mut self, rules: Rules, model: &mut Model) {
        self.rules = rules;
        model.mark_all();
    }

    /// Tells `desired` what changed in the model, or because interfaces mean something else.
    pub fn flush(&mut self, model: &mut Model, mirror: &Mirror, desired: &mut Desired) {
        if !mirror.is_primed() {
            return;
        }
        if self.meaning != mirror.meaning() {
            self.meaning = mirror.meaning();
            model.mark_all();
        }
        for item in model.take_changed() {
            match item {
                Item::Route(key) => self.route(key, model, mirror, desired),
                Item::Label(label) => self.label(label, model, mirror, desired),
            }
        }
    }

    /// Takes over what FRR told a control process before this one, as the dataplane still has it.
    pub fn adopt(&mut self, held: &[Status], desired: &mut Desired) {
        for status in held {
            match status {
                Status::Label(LabelStatus { ilm, .. })
                    if ilm.space == LabelSpaceId::PLATFORM && !self.rules.labels.contains(&ilm.label) =>
                {
                    self.labels.insert(ilm.label);
                    desired.put(Update::PutIlm(ilm.clone()));
                }
                // Routes without labels are the kernel's as well.
                Status::Route(route)
                    if !self.rules.routes.contains(&(route.vrf, route.prefix))
                        && route
                            .next_hops
                            .iter()
                            .any(|hop| matches!(hop, NextHop::Labelled(_))) =>
                {
                    self.routes.insert((route.vrf, route.prefix));
                    desired.claim(route.vrf, route.prefix, true);
                    desired.put(Update::PutRoute(RouteSpec {
                        vrf: route.vrf,
                        prefix: route.prefix,
                        next_hops: route.next_hops.clone(),
                        weights: route.weights.clone(),
                    }));
                }
                _ => {}
            }
        }
    }

    /// Takes back what was told and the model does not have: what was adopted and never told again.
    pub fn reconcile(&mut self, model: &Model, mirror: &Mirror, desired: &mut Desired) {
        for (vrf, prefix) in self.routes.clone() {
            let table = if vrf == VrfId::MAIN { TABLE_MAIN } else { vrf.0 };
            self.route(RouteKey { table, prefix }, model, mirror, desired);
        }
        for label in self.labels.clone() {
            self.label(label, model, mirror, desired);
        }
    }

    fn route(&mut self, key: RouteKey, model: &Model, mirror: &Mirror, desired: &mut Desired) {
        let vrf = match key.table {
            TABLE_MAIN => VrfId::MAIN,
            table => VrfId(table),
        };
        let name = (vrf, key.prefix);
        let is_ours = self.routes.contains(&name);
        let is_decided =
            mirror.is_configured(vrf, key.prefix) || (desired.is_claimed(vrf, key.prefix) && !is_ours);
        let target = if is_decided || mirror.vrf(key.table) != Some(vrf) {
            None
        } else {
            model.route_target(&key)
        };
        match target {
            Some(target) => {
                let (next_hops, weights) = self.next_hops(vrf, &target, mirror);
                self.routes.insert(name);
                desired.claim(vrf, key.prefix, true);
                desired.put(Update::PutRoute(RouteSpec {
                    vrf,
                    prefix: key.prefix,
                    next_hops,
                    weights,
                }));
            }
            None if is_ours => {
                self.routes.remove(&name);
                if is_decided {
                    return;
                }
                desired.claim(vrf, key.prefix, false);
                desired.remove(Object::Route(vrf, key.prefix));
                mirror.restore(desired, vrf, key.prefix);
            }
            None => {}
        }
    }

    /// Never empty: what leads nowhere is unreachable rather than something else's.
    fn next_hops(&self, vrf: VrfId, target: &Resolved, mirror: &Mirror) -> (Vec<NextHop>, Vec<u8>) {
        let ways = match target {
            Resolved::Blackhole => return (vec![NextHop::Blackhole], Vec::new()),
            Resolved::Unreachable => return (vec![NextHop::Unreachable], Vec::new()),
            Resolved::Ways(ways) => ways,
        };
        let (next_hops, weights): (Vec<_>, Vec<_>) = ways
            .iter()
            .filter_map(|way| Some((self.next_hop(vrf, way, mirror)?, way.weight)))
            .unzip();
        if next_hops.is_empty() {
            return (vec![NextHop::Unreachable], Vec::new());
        }
        (next_hops, shares(weights))
    }

    fn next_hop(&self, vrf: VrfId, way: &Way, mirror: &Mirror) -> Option<NextHop> {
        let is_labelled = !way.stack.labels().is_empty();
        match (mirror.interface_role(way.interface?), way.gateway) {
            (InterfaceRole::Port(port, _), Some(gateway)) if is_labelled => {
                let mut nhlfe = Nhlfe::new(way.stack, LabelVia::Port { port, gateway });
                nhlfe.ttl = self.rules.ttl;
                Some(NextHop::Labelled(nhlfe))
            }
            (InterfaceRole::Port(port, of), gateway) if !is_labelled && self.may_lead(vrf, of) => {
                Some(NextHop::Port { port, gateway })
            }
            (InterfaceRole::Vrf(of), None) if !is_labelled && self.may_lead(vrf, of) => {
                Some(NextHop::Vrf(of))
            }
            (InterfaceRole::Host, _) if !is_labelled => Some(NextHop::Kernel),
            _ => None,
        }
    }

    /// Whether a route of `vrf` may lead into `other`: unlabelled, that is a leak.
    fn may_lead(&self, vrf: VrfId, other: VrfId) -> bool {
        vrf == other || self.rules.leaks.contains(&(vrf, other))
    }

    fn label(&mut self, label: Label, model: &Model, mirror: &Mirror, desired: &mut Desired) {
        let object = Object::Label(LabelSpaceId::PLATFORM, label);
        if self.rules.labels.contains(&label) {
            self.labels.remove(&label);
            return;
        }
        match model.label_ways(label) {
            Some(ways) => {
                self.labels.insert(label);
                desired.put(Update::PutIlm(IlmSpec {
                    space: LabelSpaceId::PLATFORM,
                    label,
                    operation: self.operation(ways, mirror),
                    ttl: self.rules.ttl,
                    class: PopClass::default(),
                }));
            }
            None if self.labels.remove(&label) => desired.remove(object),
            None => {}
        }
    }

    /// What is done with a label; one that leads where it cannot be followed is discarded.
    fn operation(&self, ways: &[Way], mirror: &Mirror) -> LabelOperation {
        let mut next_hops = Vec::new();
        let mut weights = Vec::new();
        for way in ways {
            let Some(interface) = way.interface else { continue };
            match (mirror.interface_role(interface), way.gateway) {
                (InterfaceRole::Vrf(vrf), None) if way.stack.labels().is_empty() => {
                    return LabelOperation::PopAndLookup(vrf);
                }
                // The egress of an LSP to this router itself.
                (InterfaceRole::Host, None) if way.stack.labels().is_empty() => return LabelOperation::Pop,
                (InterfaceRole::Port(port, _), Some(gateway)) => {
                    let mut nhlfe = Nhlfe::new(way.stack, LabelVia::Port { port, gateway });
                    nhlfe.ttl = self.rules.ttl;
                    next_hops.push(nhlfe);
                    weights.push(way.weight);
                }
                _ => {}
            }
        }
        if next_hops.is_empty() {
            return LabelOperation::Discard;
        }
        LabelOperation::Forward {
            next_hops,
            weights: shares(weights),
        }
    }
}

/// Shares as the contract wants them: none where all are the same.
fn shares(weights: Vec<u8>) -> Vec<u8> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    weights.into_iter().map(|weight| weight.max(1)).collect()
}
