//! The endpoint's SAs as operators see them. No secret is in any of it.

use std::net::{IpAddr, SocketAddr};

use southbound::SaSpec;

use crate::event::{ChildSummary, SaId};
use crate::ike_sa::{IkeSa, Phase};
use crate::payload::id::Identity;

use super::Endpoint;

/// An IKE SA as it is shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeSummary {
    /// The SA.
    pub id: SaId,
    /// Its connection.
    pub connection: String,
    /// `handshake`, `established`, `replaced` or `deleting`.
    pub state: &'static str,
    /// We are the original initiator.
    pub initiator: bool,
    /// SPI of the original initiator.
    pub initiator_spi: u64,
    /// SPI of the original responder.
    pub responder_spi: u64,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Who we are.
    pub local_id: Option<Identity>,
    /// Who the peer is; before `established` this is a claim.
    pub remote_id: Option<Identity>,
    /// Algorithms.
    pub suite: String,
    /// A NAT stands before us, before the peer.
    pub nat: (bool, bool),
    /// Addresses leased to the peer.
    pub virtual_addresses: Vec<IpAddr>,
    /// Its Child SA pairs.
    pub children: Vec<ChildSummary>,
}

impl IkeSa {
    fn state(&self) -> &'static str {
        match self.phase {
            Phase::Handshake(_) => "handshake",
            Phase::Established => "established",
            Phase::Replaced => "replaced",
            Phase::Deleting => "deleting",
            Phase::Closed => "closed",
        }
    }

    fn summary(&self) -> IkeSummary {
        let (initiator_spi, responder_spi) = self.spis();
        IkeSummary {
            id: self.id,
            connection: self.connection.name.clone(),
            state: self.state(),
            initiator: self.initiator,
            initiator_spi,
            responder_spi,
            local: self.local,
            remote: self.remote,
            local_id: self.local_id.clone(),
            remote_id: self.remote_id.clone(),
            suite: self
                .keyed
                .as_ref()
                .map(|keyed| keyed.suite.to_string())
                .unwrap_or_default(),
            nat: (self.nat.here, self.nat.there),
            virtual_addresses: self.virtual_addresses.clone(),
            children: self
                .children
                .iter()
                .map(crate::child_sa::ChildSa::summary)
                .collect(),
        }
    }
}

impl Endpoint {
    /// Every IKE SA, oldest first.
    pub fn ike_sas(&self) -> Vec<IkeSummary> {
        let mut all: Vec<_> = self.sas.values().map(|sa| sa.summary()).collect();
        all.sort_by_key(|sa| sa.id);
        all
    }

    /// The IKE SAs of one connection, oldest first.
    pub fn ike_sas_of(&self, connection: &str) -> Vec<IkeSummary> {
        let ids = self.census.of_connection(connection);
        ids.filter_map(|id| self.sas.get(&id))
            .map(|sa| sa.summary())
            .collect()
    }

    /// Whether a connection has an IKE SA that is up.
    pub fn is_up(&self, connection: &str) -> bool {
        let mut ids = self.census.of_connection(connection);
        ids.any(|id| self.sas.get(&id).is_some_and(|sa| sa.is_established()))
    }

    /// The state of every IKE SA, as [`IkeSummary::state`] has it.
    pub fn states(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.sas.values().map(|sa| sa.state())
    }

    /// Every SA that the dataplane should have, inbound before outbound: for a dataplane that kept its keys while the
    /// connection to it was lost.
    pub fn installed_sas(&self) -> Vec<SaSpec> {
        let children = self.sas.values().flat_map(|sa| sa.children.iter());
        children
            .flat_map(|child| [child.inbound.clone(), child.outbound.clone()])
            .collect()
    }

    /// Bytes of fragments that wait for the rest of their message.
    pub fn reassembly_bytes(&self) -> usize {
        self.fragment_bytes
    }

    /// IKE SAs of peers that have not authenticated yet.
    pub fn half_open(&self) -> usize {
        self.admission.half_open()
    }
}
