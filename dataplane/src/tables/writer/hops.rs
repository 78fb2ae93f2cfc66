//! Next hops with labels: counted by use, each the adjacency of one NHLFE.

use std::collections::HashMap;

use southbound::{LabelSpaceId, LabelVia, NextHop, Nhlfe, PushClass, Rejection, TtlModel};

use super::Writer;
use crate::tables::adjacency::AdjacencyIndex;
use crate::tables::label_hop::LabelHop;
use crate::tables::publish::{Full, Guard};

struct Use {
    number: u32,
    count: u32,
}

/// The labelled next hops in use.
pub(super) struct Hops {
    uses: HashMap<Nhlfe, Use>,
}

impl Hops {
    pub(super) fn new() -> Self {
        Self { uses: HashMap::new() }
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
        match self.tables.hops.insert(LabelHop::new(nhlfe, adjacency)) {
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
        // A worker that looked its route up before the change must still find it.
        self.tables.hops.retire_later(number, guard);
        self.release_next_hop(&way(nhlfe.via), guard);
    }
}
