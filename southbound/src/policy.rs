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
