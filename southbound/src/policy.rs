//! The security policy database (RFC 4301 section 4.4.1).

use serde::{Deserialize, Serialize};

use crate::{PolicyId, SelectorPair, TunnelId, VrfId};

/// What becomes of a matching packet (RFC 4301 section 4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicyAction {
    /// Into this tunnel; inbound, the packet must have come from it.
    Protect(TunnelId),
    /// Forwarded in clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// What becomes of a packet that crosses between the protected side and the rest of the world, tunnels
/// included, and that no rule of its table matches (RFC 4301 section 4.4.1: without a match it is discarded).
///
/// A table that nobody set a default for discards where it has any rule, and has no say where it has none:
/// then routes alone decide, and a route into a tunnel protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PolicyDefault {
    /// Routes decide: forwarded in clear, or into a tunnel that a route leads to.
    Bypass,
    /// Dropped, whether or not there are rules.
    Discard,
}

/// An ordered rule; the lowest `priority` that matches decides, ties by the lower id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// Its name in updates.
    pub id: PolicyId,
    /// The routing table whose packets it looks at.
    pub vrf: VrfId,
    /// Lower is looked at first.
    pub priority: u32,
    /// What it matches, from this gateway's point of view; the same pair mirrored serves inbound.
    pub selector: SelectorPair,
    /// What to do.
    pub action: PolicyAction,
}
