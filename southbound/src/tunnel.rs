//! Tunnels: what a route or a policy sends packets into.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Mode, TunnelId, VrfId};

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
    /// Outer Not-ECT, and an outer CE dropped (compatibility mode).
    Compatibility,
}

/// The outer IPv4 header's don't-fragment bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DfPolicy {
    /// Copied from the inner IPv4 header; set for inner IPv6.
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

/// A tunnel: the lasting thing that routes and policies name, whatever SAs carry it at the moment.
///
/// Without a selected outbound SA its packets wait (a bounded few) while [`crate::Event::Acquire`] is
/// raised, and are then dropped with a reason: they never leave in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSpec {
    /// Its name in updates.
    pub id: TunnelId,
    /// Its name for people.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
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
}
