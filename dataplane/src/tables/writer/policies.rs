//! Rules of the SPD: kept by table, compiled for the workers when they changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use southbound::{Endpoint, PolicyAction, PolicyDefault, PolicyId, PolicySpec, Rejection, TunnelId, VrfId};

use super::{Writer, table_full};
use crate::tables::publish::Guard;
use crate::tables::spd::{Classifier, Rule};
use crate::tables::{Decision, VrfIndex};

/// Up to this many rules a table is compiled at each change, beyond it at the end of a message.
const SMALL_POLICIES: usize = 64;

/// A rule as the writer keeps it.
pub(super) struct PolicyState {
    pub(super) spec: PolicySpec,
    pub(super) generation: u64,
    decision: Decision,
}

impl Writer {
    pub(super) fn put_policy(&mut self, generation: u64, spec: PolicySpec) -> Result<(), Rejection> {
        let guard = &Guard::pin();
        check_endpoint("local", &spec.selector.local)?;
        check_endpoint("remote", &spec.selector.remote)?;
        if spec.selector.local.addresses.first.is_ipv4() != spec.selector.remote.addresses.first.is_ipv4() {
            return Err(Rejection::Inconsistent(
                "the sides of a selector are of two families".to_owned(),
            ));
        }
        let decision = match spec.action {
            PolicyAction::Bypass => Decision::Bypass,
            PolicyAction::Discard => Decision::Discard,
            PolicyAction::Protect(id) => match self.tunnels.get(&id).filter(|tunnel| tunnel.spec.is_some()) {
                Some(tunnel) => Decision::Protect(tunnel.index),
                None => return Err(Rejection::UnknownTunnel(id)),
            },
        };
        let id = spec.id;
        let before = self.policy_vrfs.get(&id).copied();
        let limit = self.tables.limits.policies;
        if before.is_none() && self.policy_vrfs.len() >= limit {
            return Err(table_full("policies", limit));
        }
        let vrf = self.vrf(spec.vrf, guard)?;
        if before == Some(vrf)
            && let Some(known) = self.vrfs[vrf.0 as usize].policies.get_mut(&id)
            && known.spec == spec
            && known.decision == decision
        {
            known.generation = generation;
            return Ok(());
        }
        // The new use before the old one ends, so that a tunnel between them keeps its number.
        if let PolicyAction::Protect(tunnel) = spec.action {
            self.use_tunnel(tunnel);
        }
        if before.is_some() {
            self.remove_policy(id);
        }
        self.policy_vrfs.insert(id, vrf);
        let state = &mut self.vrfs[vrf.0 as usize];
        state.stale_policies = true;
        state.policies.insert(
            id,
            PolicyState {
                spec,
                generation,
                decision,
            },
        );
        Ok(())
    }

    pub(super) fn remove_policy(&mut self, id: PolicyId) -> bool {
        let guard = &Guard::pin();
        let Some(vrf) = self.policy_vrfs.remove(&id) else {
            return false;
        };
        let state = &mut self.vrfs[vrf.0 as usize];
        state.stale_policies = true;
        if let Some(known) = state.policies.remove(&id)
            && let PolicyAction::Protect(tunnel) = known.spec.action
        {
            self.release_tunnel(tunnel, guard);
        }
        true
    }

    pub(super) fn put_policy_default(
        &mut self,
        generation: u64,
        vrf: VrfId,
        default: PolicyDefault,
    ) -> Result<(), Rejection> {
        let vrf = self.vrf(vrf, &Guard::pin())?;
        let state = &mut self.vrfs[vrf.0 as usize];
        let before = state.policy_default.replace((default, generation));
        state.stale_policies |= before.map(|(before, _)| before) != Some(default);
        Ok(())
    }

    pub(super) fn remove_policy_default(&mut self, vrf: VrfId) -> bool {
        let Some(vrf) = self.vrf_index(vrf) else {
            return false;
        };
        let state = &mut self.vrfs[vrf.0 as usize];
        let was_there = state.policy_default.take().is_some();
        state.stale_policies |= was_there;
        was_there
    }

    /// Takes away the defaults that are older than `generation`; returns how many went.
    pub(super) fn sweep_policy_defaults(&mut self, generation: u64) -> u64 {
        let mut removed = 0;
        for state in &mut self.vrfs {
            if state
                .policy_default
                .is_some_and(|(_, marked)| marked < generation)
            {
                state.policy_default = None;
                state.stale_policies = true;
                removed += 1;
            }
        }
        removed
    }

    /// Every rule that is older than `generation`.
    pub(super) fn policies_older_than(&self, generation: u64) -> Vec<PolicyId> {
        self.vrfs
            .iter()
            .flat_map(|vrf| &vrf.policies)
            .filter(|(_, policy)| policy.generation < generation)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Shows the workers the changed rules of tables with few.
    pub(super) fn compile_small_policies(&mut self, guard: &Guard) {
        for number in 0..self.vrfs.len() {
            let state = &self.vrfs[number];
            if state.stale_policies && state.policies.len() <= SMALL_POLICIES {
                self.compile(number, guard);
            }
        }
    }

    /// Shows the workers all changed rules.
    pub(super) fn compile_policies(&mut self, guard: &Guard) {
        for number in 0..self.vrfs.len() {
            if self.vrfs[number].stale_policies {
                self.compile(number, guard);
            }
        }
    }

    fn compile(&mut self, number: usize, guard: &Guard) {
        let state = &mut self.vrfs[number];
        state.stale_policies = false;
        let rules: Vec<_> = state
            .policies
            .iter()
            .map(|(id, policy)| Rule {
                priority: policy.spec.priority,
                id: id.0,
                selector: policy.spec.selector,
                decision: policy.decision,
            })
            .collect();
        let default = match state.policy_default {
            Some((PolicyDefault::Discard, _)) => Decision::NoMatch,
            Some((PolicyDefault::Bypass, _)) => Decision::NoRule,
            None if rules.is_empty() => Decision::NoRule,
            None => Decision::NoMatch,
        };
        let compiled = (!rules.is_empty() || default == Decision::NoMatch)
            .then(|| Arc::new(Classifier::new(rules, default)));
        let index = VrfIndex(number as u32);
        if let Some(vrf) = self.tables.vrfs.get(index.0).and_then(|slot| slot.load(guard)) {
            let ruled_vrfs = &self.tables.ruled_vrfs;
            let (was_ruled, is_ruled) = (vrf.spd.load(guard).is_some(), compiled.is_some());
            if is_ruled && !was_ruled {
                ruled_vrfs.fetch_add(1, Ordering::AcqRel);
            }
            vrf.spd.replace(compiled, guard);
            if was_ruled && !is_ruled {
                ruled_vrfs.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn use_tunnel(&mut self, id: TunnelId) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.uses += 1;
        }
    }
}

fn check_endpoint(side: &str, endpoint: &Endpoint) -> Result<(), Rejection> {
    let (addresses, ports) = (&endpoint.addresses, &endpoint.ports);
    if addresses.first.is_ipv4() != addresses.last.is_ipv4() {
        return Err(Rejection::Inconsistent(format!(
            "the {side} addresses are of two families"
        )));
    }
    if addresses.first > addresses.last || ports.first > ports.last {
        return Err(Rejection::Inconsistent(format!("a {side} range is reversed")));
    }
    Ok(())
}
