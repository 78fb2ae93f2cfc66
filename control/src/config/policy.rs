//! Rules of the SPD that stand on their own.

use southbound::{SelectorPair, VrfId};

use super::file::{Action, PolicySection};
use super::selector::pairs;
use super::source::Source;

/// The priority of a rule that names none.
pub(super) const DEFAULT_PRIORITY: u32 = 1000;

/// What a rule does with a packet, tunnels by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyTarget {
    /// Into this tunnel.
    Protect(String),
    /// Forwarded in clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// A rule, for each of its selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name for people.
    pub name: String,
    /// Lower is looked at first.
    pub priority: u32,
    /// The routing table whose packets it looks at.
    pub vrf: VrfId,
    /// What it matches.
    pub selectors: Vec<SelectorPair>,
    /// What it does.
    pub target: PolicyTarget,
}

impl Policy {
    pub(super) fn new(source: &Source, section: &PolicySection, vrf: Option<VrfId>) -> Option<Self> {
        let target = match (section.action.get_ref(), &section.tunnel) {
            (Action::Protect, Some(tunnel)) => PolicyTarget::Protect(tunnel.get_ref().clone()),
            (Action::Protect, None) => {
                source.problem(
                    section.action.span(),
                    "found action \"protect\" alone: expected the name of a tunnel beside it, as tunnel = \"...\"",
                );
                return None;
            }
            (_, Some(tunnel)) => {
                source.problem(
                    tunnel.span(),
                    "found a tunnel beside an action that uses none: expected action = \"protect\"",
                );
                return None;
            }
            (Action::Bypass, None) => PolicyTarget::Bypass,
            (Action::Discard, None) => PolicyTarget::Discard,
        };
        for (list, name) in [(&section.local_ts, "local_ts"), (&section.remote_ts, "remote_ts")] {
            if list.is_empty() {
                source.problem(
                    section.name.span(),
                    format!("found an empty {name}: expected at least one traffic selector"),
                );
            }
        }
        Some(Self {
            name: section.name.get_ref().clone(),
            priority: section
                .priority
                .as_ref()
                .map_or(DEFAULT_PRIORITY, |priority| *priority.get_ref()),
            vrf: vrf?,
            selectors: pairs(source, Some(&section.local_ts), Some(&section.remote_ts)),
            target,
        })
    }
}
