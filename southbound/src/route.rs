//! Routes: a prefix to its next hops.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{IpPrefix, PortId, TunnelId, VrfId};

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
    /// To this gateway itself.
    Local,
    /// Out of an interface that is not a port: handed to the kernel.
    Kernel,
    /// Dropped, and the sender told.
    Unreachable,
    /// Dropped in silence.
    Blackhole,
}

/// A route; several next hops share the traffic by flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The table it is in.
    pub vrf: VrfId,
    /// The destinations.
    pub prefix: IpPrefix,
    /// Where to, at least one, at most 16.
    pub next_hops: Vec<NextHop>,
}
