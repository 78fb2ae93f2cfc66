//! The incoming label map and the mappings of traffic classes, as told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use southbound::{
    ClassMapId, ClassMapSpec, IlmSpec, Label, LabelOperation, LabelSpaceId, LabelStatus, NextHop, Rejection,
    Status,
};

use super::{Writer, table_full};
use crate::tables::Kind;
use crate::tables::label_hop::ClassMap;
use crate::tables::lfib::{LabelAction, LabelEntry, Lfib};
use crate::tables::publish::Guard;

struct IlmState {
    spec: IlmSpec,
    /// The next hops in use.
    group: Option<u32>,
    generation: u64,
}

/// What was told of labels.
#[derive(Default)]
pub(super) struct Labels {
    entries: HashMap<(LabelSpaceId, Label), IlmState>,
    class_maps: BTreeMap<ClassMapId, u64>,
}

fn wire_label(label: Label) -> wire::Label {
    // A label of the contract has no more than 20 bits.
    wire::Label::new(label.value()).unwrap_or(wire::Label::IMPLICIT_NULL)
}

impl Writer {
    pub(super) fn put_ilm(&mut self, generation: u64, spec: IlmSpec, guard: &Guard) -> Result<(), Rejection> {
        if spec.label.is_reserved() {
            return Err(Rejection::Inconsistent(format!(
                "label {} is reserved: 16 and above are free",
                spec.label
            )));
        }
        self.check_label_space(Some(spec.space))?;
        let name = (spec.space, spec.label);
        if let Some(known) = self.labels.entries.get_mut(&name)
            && known.spec == spec
        {
            known.generation = generation;
            return Ok(());
        }
        let limit = self.tables.limits.labels;
        if !self.labels.entries.contains_key(&name) && self.labels.entries.len() >= limit {
            return Err(table_full("labels", limit));
        }
        let full = |_| table_full("label next hops", limit);
        self.tables
            .tallies
            .make_label(spec.space, wire_label(spec.label))
            .map_err(full)?;
        let mut group = None;
        let action = match &spec.operation {
            LabelOperation::PopAndLookup(vrf) => LabelAction::Lookup(self.vrf(*vrf, guard)?),
            LabelOperation::Pop => LabelAction::Pop,
            LabelOperation::Host => LabelAction::Host,
            LabelOperation::Discard => LabelAction::Discard,
            LabelOperation::Forward { next_hops, weights } => {
                let next_hops: Vec<_> = next_hops.iter().copied().map(NextHop::Labelled).collect();
                self.check_paths(&next_hops, weights)?;
                let number = self.use_group(&next_hops, weights, guard).map_err(full)?;
                group = Some(number);
                self.action_of(number, guard)
            }
        };
        let entry = LabelEntry::new(action, spec.ttl, spec.class);
        self.lfib(spec.space).set(wire_label(spec.label), entry);
        let state = IlmState {
            spec,
            group,
            generation,
        };
        // The new use before the old one ends, so that what both use stays.
        if let Some(before) = self.labels.entries.insert(name, state)
            && let Some(group) = before.group
        {
            self.release_group(group, guard);
        }
        Ok(())
    }

    /// A swap or a pop to one neighbour is whole in its entry.
    fn action_of(&self, group: u32, guard: &Guard) -> LabelAction {
        let adjacency = self.groups.adjacency(group);
        let single = match adjacency.kind() {
            Kind::Labelled(number) => self.tables.hops.get(number, guard),
            _ => None,
        };
        match single {
            Some(hop) if hop.entropy_beneath.is_none() && matches!(hop.adjacency.kind(), Kind::Link(_)) => {
                match hop.labels() {
                    [] => LabelAction::Swap(wire::Label::IMPLICIT_NULL, hop.adjacency),
                    [label] => LabelAction::Swap(*label, hop.adjacency),
                    _ => LabelAction::Hops(adjacency),
                }
            }
            _ => LabelAction::Hops(adjacency),
        }
    }

    fn lfib(&self, space: LabelSpaceId) -> &Lfib {
        let place = space.0 as usize % self.tables.lfibs.len();
        self.tables.lfibs[place].get_or_init(Lfib::new)
    }

    pub(super) fn remove_ilm(&mut self, space: LabelSpaceId, label: Label, guard: &Guard) -> bool {
        let Some(state) = self.labels.entries.remove(&(space, label)) else {
            return false;
        };
        self.lfib(space).set(wire_label(label), LabelEntry::NONE);
        if let Some(group) = state.group {
            self.release_group(group, guard);
        }
        true
    }

    pub(super) fn put_class_map(
        &mut self,
        generation: u64,
        spec: &ClassMapSpec,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        let inconsistent = |text: &str| Err(Rejection::Inconsistent(text.to_owned()));
        if spec.id.0 == 0 || spec.id > ClassMapId::MAX {
            return inconsistent("class maps are numbered from 1 to 15");
        }
        if spec.dscp_to_tc.len() != 64 || spec.dscp_to_tc.iter().any(|class| *class > 7) {
            return inconsistent("a class map has a traffic class of 0 to 7 for each of 64 DSCPs");
        }
        if spec.tc_to_dscp.iter().flatten().any(|dscp| *dscp > 63) {
            return inconsistent("a DSCP is 0 to 63");
        }
        self.labels.class_maps.insert(spec.id, generation);
        if let Some(slot) = self.tables.class_maps.get(usize::from(spec.id.0)) {
            slot.replace(Some(Arc::new(ClassMap::new(spec))), guard);
        }
        Ok(())
    }

    pub(super) fn remove_class_map(&mut self, id: ClassMapId, guard: &Guard) -> bool {
        let was_there = self.labels.class_maps.remove(&id).is_some();
        if let Some(slot) = self
            .tables
            .class_maps
            .get(usize::from(id.0))
            .filter(|_| was_there)
        {
            slot.replace(None, guard);
        }
        was_there
    }

    /// Every entry that is older than `generation`.
    pub(super) fn labels_older_than(&self, generation: u64) -> Vec<(LabelSpaceId, Label)> {
        self.labels
            .entries
            .iter()
            .filter(|(_, state)| state.generation < generation)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Every class map that is older than `generation`.
    pub(super) fn class_maps_older_than(&self, generation: u64) -> Vec<ClassMapId> {
        self.labels
            .class_maps
            .iter()
            .filter(|(_, marked)| **marked < generation)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Every entry of the incoming label maps.
    #[must_use]
    pub fn label_status(&self) -> Vec<Status> {
        self.labels
            .entries
            .values()
            .map(|state| {
                let (packets, bytes) = self
                    .tables
                    .tallies
                    .label(state.spec.space, wire_label(state.spec.label));
                Status::Label(LabelStatus {
                    ilm: state.spec.clone(),
                    packets,
                    bytes,
                })
            })
            .collect()
    }
}
