//! Routes: a prefix to its next hops.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{IpPrefix, Nhlfe, PortId, TunnelId, VrfId};

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NextHop {
    /// Through a port to a gateway, or to the destination itself where there is none.
    Port {
        /// The egress port.
        port: PortId,
        /// The neighbour that forwards; absent where the prefix is on the link.
        gateway: Option<IpAddr>,
    },
    /// Into a tunnel.
    Tunnel(TunnelId),
    /// Under labels (the FTN of RFC 3031 section 3.12).
    Labelled(Nhlfe),
    /// Looked up once more in another table: a leak from one VRF into another, where it is configured. What is found
    /// there may not lead into a third.
    Vrf(VrfId),
    /// To this gateway itself.
    Local,
    /// Out of an interface that is not a port: handed to the kernel.
    Kernel,
    /// Dropped, and the sender told.
    Unreachable,
    /// Dropped in silence.
    Blackhole,
}

/// A route; several next hops share the traffic by flow, so that packets of one flow take one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The table it is in.
    pub vrf: VrfId,
    /// The destinations.
    pub prefix: IpPrefix,
    /// Where to, at least one, at most 16.
    pub next_hops: Vec<NextHop>,
    /// The share of each next hop, 1 to 255; empty where all have the same.
    pub weights: Vec<u8>,
}
