//! Routing tables: made where something names them, and their names.

use std::collections::HashMap;
use std::sync::Arc;

use southbound::{Rejection, Status, VrfId, VrfSpec, VrfStatus};

use super::rib::Rib;
use super::{VrfState, Writer};
use crate::tables::VrfIndex;
use crate::tables::fib_v4::TableV4;
use crate::tables::fib_v6::TableV6;
use crate::tables::publish::{Guard, Slot};
use crate::tables::vrf::Vrf;

/// A table's name, and who told it.
pub(super) struct VrfName {
    name: String,
    pub(super) generation: u64,
}

impl Writer {
    /// The table of `id`, made where it is new.
    pub(super) fn vrf(&mut self, id: VrfId, guard: &Guard) -> Result<VrfIndex, Rejection> {
        if let Some(index) = self.vrf_indices.get(&id) {
            return Ok(*index);
        }
        let limit = self.tables.limits.vrfs;
        let full = || Rejection::TableFull {
            table: "routing tables".to_owned(),
            limit: limit as u64,
        };
        let number = u32::try_from(self.vrfs.len()).map_err(|_| full())?;
        if self.vrfs.len() >= limit {
            return Err(full());
        }
        let slot = self
            .tables
            .vrfs
            .get_or_grow(number, Slot::empty)
            .map_err(|_| full())?;
        self.tables
            .tallies
            .make_vrf(VrfIndex(number))
            .map_err(|_| full())?;
        slot.replace(Some(Arc::new(Vrf::new())), guard);
        self.vrfs.push(VrfState {
            id,
            rib: Rib::default(),
            v4: TableV4::new(),
            v6: TableV6::default(),
            policies: HashMap::new(),
            policy_default: None,
            stale_policies: false,
        });
        self.vrf_indices.insert(id, VrfIndex(number));
        Ok(VrfIndex(number))
    }

    /// The number of a table that something was put in.
    #[must_use]
    pub fn vrf_index(&self, id: VrfId) -> Option<VrfIndex> {
        self.vrf_indices.get(&id).copied()
    }

    pub(super) fn put_vrf(&mut self, generation: u64, spec: VrfSpec, guard: &Guard) -> Result<(), Rejection> {
        self.vrf(spec.id, guard)?;
        let name = VrfName {
            name: spec.name,
            generation,
        };
        self.vrf_names.insert(spec.id, name);
        Ok(())
    }

    /// Forgets a table's name, and the table itself where nothing is in it and nothing leads into it any more.
    pub(super) fn remove_vrf(&mut self, id: VrfId, _guard: &Guard) -> bool {
        self.vrf_names.remove(&id).is_some()
    }

    /// Every table.
    #[must_use]
    pub fn vrf_status(&self) -> Vec<Status> {
        self.vrfs
            .iter()
            .zip(0..)
            .map(|(state, number)| {
                let routes = |is_ipv4: bool| {
                    state
                        .rib
                        .iter()
                        .filter(|(prefix, known)| {
                            prefix.network().is_ipv4() == is_ipv4 && known.route.is_some()
                        })
                        .count() as u64
                };
                let (packets, bytes) = self.tables.tallies.vrf(VrfIndex(number));
                Status::Vrf(VrfStatus {
                    vrf: state.id,
                    name: self
                        .vrf_names
                        .get(&state.id)
                        .map_or_else(String::new, |name| name.name.clone()),
                    routes_v4: routes(true),
                    routes_v6: routes(false),
                    packets,
                    bytes,
                })
            })
            .collect()
    }
}
