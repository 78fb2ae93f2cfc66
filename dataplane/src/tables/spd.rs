//! The SPD: the first rule for a packet (RFC 4301 section 4.4.1).

use std::net::IpAddr;

use southbound::SelectorPair;

use crate::sa::TunnelIndex;

/// What the rules say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// No rule matches: routes decide.
    NoRule,
    /// Into this tunnel; inbound, it must have come out of it.
    Protect(TunnelIndex),
    /// Forwarded in clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    pub(crate) id: u32,
    pub(crate) selector: SelectorPair,
    pub(crate) decision: Decision,
}

/// The rules of one table, in order.
#[derive(Debug, Default)]
pub(crate) struct Classifier {
    rules: Box<[Rule]>,
}

impl Classifier {
    /// Of `rules` in any order.
    pub(crate) fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_unstable_by_key(|rule| (rule.priority, rule.id));
        Self {
            rules: rules.into_boxed_slice(),
        }
    }

    /// The first rule for a packet from our side to the peer's.
    pub(crate) fn decide(
        &self,
        local: IpAddr,
        remote: IpAddr,
        protocol: u8,
        ports: Option<(u16, u16)>,
    ) -> Decision {
        self.rules
            .iter()
            .find(|rule| rule.selector.covers(local, remote, protocol, ports))
            .map_or(Decision::NoRule, |rule| rule.decision)
    }
}
