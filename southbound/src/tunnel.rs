//! Tunnels: what a route or a policy sends packets into.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{LabelSpaceId, Mode, TunnelId, VrfId};

/// The DSCP of the outer header (RFC 2983).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DscpPolicy {
    /// Copied from the inner header at encapsulation; the inner one stands at decapsulation.
    #[default]
    Copy,
    /// This value, 0 to 63.
    Set(u8),
}

/// Explicit congestion notification over the tunnel (RFC 6040).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EcnPolicy {
    /// Copied out, combined back in (normal mode).
    #[default]
    Normal,
    /// Outer Not-ECT (compatibility mode); what comes is combined back in as ever.
    Compatibility,
}

/// The outer IPv4 header's don't-fragment bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DfPolicy {
    /// Copied from the inner IPv4 header; set for inner IPv6 above 1280 bytes, which every link has to carry.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Always clear.
    Clear,
}

/// The outer TTL or hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TtlPolicy {
    /// This value.
    Set(u8),
    /// Copied from the inner header.
    Copy,
}

impl Default for TtlPolicy {
    fn default() -> Self {
        Self::Set(64)
    }
}

/// What stands between the packets of a tunnel and the outer IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Encapsulation {
    /// Nothing but ESP: IP packets, in tunnel or transport mode.
    #[default]
    Esp,
    /// Nothing: IPv4 (protocol 4, RFC 2003), IPv6 (41, RFC 4213) and labels (137, RFC 4023 section 3).
    Ip,
    /// GRE (RFC 2784, RFC 2890): IPv4, IPv6 and labels (RFC 4023 section 4).
    Gre {
        /// Sent, and wanted of what is received; without one only packets without one are taken.
        key: Option<u32>,
        /// Send a checksum. One that is received is always checked.
        checksum: bool,
    },
    /// UDP to port 6635 from a port made of the flow's hash: labels only (RFC 7510).
    Udp,
}

/// A tunnel: the lasting thing that routes and policies name, whatever SAs carry it at the moment.
///
/// Without a selected outbound SA its packets wait (a bounded few) while [`crate::Event::Acquire`] is
/// raised, and are then dropped with a reason: they never leave in clear.
///
/// With another [`Encapsulation`] than ESP a packet first gets that header and an outer IP header between `local` and
/// `remote`, to which `dscp`, `ecn`, `df` and `ttl` apply; where the tunnel is `protected` the result is sealed by the
/// tunnel's SA, in transport mode as it is, in tunnel mode within one more header. `mode` says which; received packets
/// must come the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSpec {
    /// Its name in updates.
    pub id: TunnelId,
    /// Its name for people.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What its packets stand in.
    pub encapsulation: Encapsulation,
    /// Whether its packets are sealed by an SA; always for [`Encapsulation::Esp`], whatever this says.
    pub protected: bool,
    /// The space that labelled packets out of it are looked up in; without one it carries none, either way.
    pub labels: Option<LabelSpaceId>,
    /// The table that decapsulated packets are routed in.
    pub inner_vrf: VrfId,
    /// The table that ESP packets are routed in.
    pub outer_vrf: VrfId,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// ECN on both ways.
    pub ecn: EcnPolicy,
    /// Outer don't-fragment.
    pub df: DfPolicy,
    /// Outer TTL or hop limit.
    pub ttl: TtlPolicy,
    /// Largest inner packet in bytes, where the operator fixes it; else derived from the outer path.
    pub inner_mtu_bytes: Option<u16>,
    /// Rewrite the MSS of TCP SYNs to what fits.
    pub clamp_mss: bool,
    /// Ask for an outbound SA of its own for each worker that sends ([`crate::Event::WorkerAcquire`], RFC 9611).
    pub per_worker: bool,
}
