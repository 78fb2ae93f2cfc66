//! Next hops with labels: counted by use, each the adjacency of one NHLFE.

use std::collections::HashMap;
use std::sync::Arc;

use southbound::{LabelSpaceId, LabelVia, NextHop, Nhlfe, PushClass, Rejection, TtlModel};

use super::Writer;
use crate::tables::adjacency::AdjacencyIndex;
use crate::tables::label_hop::LabelHop;
use crate::tables::publish::{Full, Guard, Numbers, Slot};

struct Use {
    number: u32,
    count: u32,
}

/// The labelled next hops in use.
pub(super) struct Hops {
    uses: HashMap<Nhlfe, Use>,
    numbers: Numbers,
}

impl Hops {
    pub(super) fn new() -> Self {
        Self {
            uses: HashMap::new(),
            numbers: Numbers::from(0),
        }
    }
}

/// The way on as a next hop without labels.
pub(super) fn way(via: LabelVia) -> NextHop {
    match via {
        LabelVia::Port { port, gateway } => NextHop::Port {
            port,
            gateway: Some(gateway),
        },
        LabelVia::Tunnel(tunnel) => NextHop::Tunnel(tunnel),
    }
}

impl Writer {
    /// Whether an NHLFE names what is there and can be written.
    pub(super) fn check_nhlfe(&self, nhlfe: &Nhlfe) -> Result<(), Rejection> {
        match nhlfe.via {
            LabelVia::Port { port, .. } if !self.ports.contains_key(&port) => {
                return Err(Rejection::UnknownPort(port));
            }
            LabelVia::Tunnel(tunnel) if !self.has_tunnel(tunnel) => {
                return Err(Rejection::UnknownTunnel(tunnel));
            }
            _ => {}
        }
        if let Some(above) = nhlfe.entropy_beneath
            && (above == 0 || usize::from(above) > nhlfe.stack.labels().len())
        {
            return Err(Rejection::Inconsistent(format!(
                "an entropy label beneath {above} of {} labels",
                nhlfe.stack.labels().len()
            )));
        }
        if nhlfe.ttl == TtlModel::Pipe(0) {
            return Err(Rejection::Inconsistent(
                "a label TTL of 0 leads nowhere".to_owned(),
            ));
        }
        if let PushClass::Set(class @ 8..) = nhlfe.class {
            return Err(Rejection::Inconsistent(format!(
                "traffic class {class} is beyond 7"
            )));
        }
        Ok(())
    }

    pub(super) fn check_label_space(&self, space: Option<LabelSpaceId>) -> Result<(), Rejection> {
        match space {
            Some(space) if space > LabelSpaceId::MAX => Err(Rejection::Inconsistent(format!(
                "label space {} is beyond {}",
                space.0,
                LabelSpaceId::MAX.0
            ))),
            _ => Ok(()),
        }
    }

    /// Uses the adjacency of `nhlfe`, made where it is new; [`Self::release_hop`] ends the use.
    pub(super) fn use_hop(&mut self, nhlfe: &Nhlfe, guard: &Guard) -> Result<AdjacencyIndex, Full> {
        if let Some(hop) = self.hops.uses.get_mut(nhlfe) {
            hop.count += 1;
            return Ok(AdjacencyIndex::labelled(hop.number));
        }
        let way = way(nhlfe.via);
        let adjacency = self.use_next_hop(&way, guard)?;
        let made = self.make_hop(LabelHop::new(nhlfe, adjacency), guard);
        match made {
            Ok(number) => {
                self.hops.uses.insert(*nhlfe, Use { number, count: 1 });
                Ok(AdjacencyIndex::labelled(number))
            }
            Err(Full) => {
                self.release_next_hop(&way, guard);
                Err(Full)
            }
        }
    }

    fn make_hop(&mut self, hop: LabelHop, guard: &Guard) -> Result<u32, Full> {
        let limit = u32::try_from(self.tables.hops.limit()).unwrap_or(u32::MAX);
        let number = self.hops.numbers.take(limit)?;
        let slot = self.tables.hops.get_or_grow(number, Slot::empty)?;
        slot.replace(Some(Arc::new(hop)), guard);
        Ok(number)
    }

    /// Ends a use; the last one frees the adjacency once no worker can remember it.
    pub(super) fn release_hop(&mut self, nhlfe: &Nhlfe, guard: &Guard) {
        let Some(hop) = self.hops.uses.get_mut(nhlfe) else {
            return;
        };
        hop.count -= 1;
        if hop.count > 0 {
            return;
        }
        let number = hop.number;
        self.hops.uses.remove(nhlfe);
        // The hop stays where it is until its number is given out again: a worker that looked its route up before the
        // change must still find it.
        self.hops.numbers.give_back(number, guard);
        self.release_next_hop(&way(nhlfe.via), guard);
    }
}
