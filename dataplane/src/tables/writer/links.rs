//! Link adjacencies by what they stand for, counted by use, rewritten in place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use southbound::{NeighbourState, PortId};

use super::{NeighbourRecord, PortState, Writer};
use crate::tables::PortSlot;
use crate::tables::adjacency::{
    AdjacencyIndex, GleanAdjacency, IncompleteAdjacency, Link, NeighbourAdjacency,
};
use crate::tables::publish::{Full, Guard, Numbers, Slot};

/// What a link adjacency stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LinkKey {
    /// Whatever is directly on a port's link.
    Glean(PortId),
    /// One neighbour.
    Host(PortId, IpAddr),
}

impl LinkKey {
    fn port(&self) -> PortId {
        match self {
            Self::Glean(port) | Self::Host(port, _) => *port,
        }
    }
}

struct Use {
    number: u32,
    count: u32,
}

/// The links in use.
pub(super) struct Links {
    uses: HashMap<LinkKey, Use>,
    numbers: Numbers,
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            uses: HashMap::new(),
            numbers: Numbers::from(0),
        }
    }

    /// The adjacency of `key`, where it is in use.
    pub(super) fn find(&self, key: &LinkKey) -> Option<AdjacencyIndex> {
        self.uses.get(key).map(|link| AdjacencyIndex::link(link.number))
    }

    /// The neighbours in use.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (PortId, IpAddr)> {
        self.uses.keys().filter_map(|key| match key {
            LinkKey::Host(port, address) => Some((*port, *address)),
            LinkKey::Glean(_) => None,
        })
    }
}

impl Writer {
    /// Uses the adjacency of `key`, made where it is new; [`Self::release_link`] ends the use.
    pub(super) fn use_link(&mut self, key: LinkKey, guard: &Guard) -> Result<AdjacencyIndex, Full> {
        if let Some(link) = self.links.uses.get_mut(&key) {
            link.count += 1;
            return Ok(AdjacencyIndex::link(link.number));
        }
        let limit = u32::try_from(self.tables.links.limit()).unwrap_or(u32::MAX);
        let number = self.links.numbers.take(limit)?;
        self.tables.links.get_or_grow(number, Slot::empty)?;
        self.links.uses.insert(key, Use { number, count: 1 });
        self.refresh_link(&key, guard);
        Ok(AdjacencyIndex::link(number))
    }

    /// Ends a use; the last one frees the adjacency once no worker can remember it.
    pub(super) fn release_link(&mut self, key: &LinkKey, guard: &Guard) {
        let Some(link) = self.links.uses.get_mut(key) else {
            return;
        };
        link.count -= 1;
        if link.count == 0 {
            let number = link.number;
            self.links.uses.remove(key);
            // The link stays where it is until its number is given out again: a worker that looked its route up
            // before the change must still find it.
            self.links.numbers.give_back(number, guard);
        }
    }

    /// Writes the adjacency of `key` anew, after its port or its neighbour changed.
    pub(super) fn refresh_link(&mut self, key: &LinkKey, guard: &Guard) {
        let Some(link) = self.links.uses.get(key) else {
            return;
        };
        let built = self.ports.get(&key.port()).map(|port| {
            let parent = port.link.vlan.and_then(|vlan| self.ports.get(&vlan.parent));
            // Without its parent a VLAN has no ring: what is sent there is dropped as sent to a port that is down.
            let device = parent.map_or(port.slot, |parent| parent.slot);
            let known = match key {
                LinkKey::Host(id, address) => self.neighbours.get(&(*id, *address)),
                LinkKey::Glean(_) => None,
            };
            Arc::new(build(key, port, device, known))
        });
        if let Some(slot) = self.tables.links.get(link.number) {
            slot.replace(built, guard);
        }
    }

    /// The same for everything behind a port.
    pub(super) fn refresh_links_of(&mut self, port: PortId, guard: &Guard) {
        let keys: Vec<_> = self
            .links
            .uses
            .keys()
            .filter(|key| key.port() == port)
            .copied()
            .collect();
        for key in keys {
            self.refresh_link(&key, guard);
        }
    }
}

fn build(key: &LinkKey, port: &PortState, device: PortSlot, known: Option<&NeighbourRecord>) -> Link {
    match key {
        LinkKey::Glean(id) => Link::Glean(GleanAdjacency::new(port.slot, *id)),
        LinkKey::Host(id, address) => match known.map(|known| known.state) {
            Some(NeighbourState::Resolved(destination)) => {
                let mut rewrite = [0; 12];
                rewrite[..6].copy_from_slice(&destination);
                rewrite[6..].copy_from_slice(&port.link.mac);
                Link::Neighbour(NeighbourAdjacency {
                    port: port.slot,
                    device,
                    mtu_bytes: port.link.mtu_bytes,
                    vlan: port.link.vlan.map_or(0, |vlan| vlan.id),
                    takes_labels: port.spec.mpls.is_some(),
                    rewrite,
                })
            }
            Some(NeighbourState::Failed) => {
                Link::Incomplete(IncompleteAdjacency::new(port.slot, *id, *address, true))
            }
            None => Link::Incomplete(IncompleteAdjacency::new(port.slot, *id, *address, false)),
        },
    }
}
