//! Children of a connection: what is negotiated, and the tunnel that carries it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike::{ChildConfig, RemoteId, StartAction, TrafficSelector, TsSide, UseLimit, default_esp_proposals};
use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Encapsulation, IpPrefix, MAX_WORKERS, Mode, ProtocolMatch, ReplayWindow,
    SelectorPair, TtlPolicy,
};
use toml::Spanned;

use super::section::{ChildSection, ConnectionSection, StartWord};
use super::{ChildTunnel, Connection, Remote, proposals, rekey_time};
use crate::config::file::{Df, Ecn, TunnelMode};
use crate::config::gateway::Builder;
use crate::config::policy::{DEFAULT_PRIORITY, Policy, PolicyTarget};
use crate::config::selector::{self, pairs};
use crate::config::source::Source;
use crate::config::tunnel::{MIN_MTU_BYTES, Tunnel, prefixes, word_or_number};

/// The word for the outer address of a side, or its assigned virtual address.
const DYNAMIC: &str = "dynamic";

/// Before every rule of the operator's: IKE itself is never protected by what it negotiates (RFC 7296 section 2.23).
const IKE_PRIORITY: u32 = 0;

impl Builder {
    pub(super) fn child(
        &mut self,
        source: &Source,
        parent: &ConnectionSection,
        section: &ChildSection,
        connection: &mut Connection,
    ) {
        let name = section.name.as_ref().unwrap_or(&parent.name);
        let connection_name = parent.name.get_ref();
        let tunnel_name = match &section.name {
            Some(name) if name.get_ref() != connection_name => {
                format!("{connection_name}/{}", name.get_ref())
            }
            _ => connection_name.clone(),
        };
        let text = Spanned::new(name.span(), tunnel_name);
        let named = self.name(source, "tunnel", &text);
        let inner_vrf = self.vrf(source, section.vrf.as_ref());
        let outer_vrf = self.vrf(source, section.outer_vrf.as_ref());
        let (Some(inner_vrf), Some(outer_vrf)) = (inner_vrf, outer_vrf) else {
            return;
        };
        let ends = Ends::of(connection);
        let mut child = ChildConfig::new(
            name.get_ref(),
            None,
            sides(source, &section.local_ts),
            sides(source, &section.remote_ts),
        );
        child.mode = match section.mode {
            TunnelMode::Tunnel => Mode::Tunnel,
            TunnelMode::Transport => Mode::Transport,
        };
        terms(source, section, &mut child);
        if child.start == StartAction::Start && connection.remotes.is_empty() {
            source.problem(
                name.span(),
                "found start = \"start\" in a connection without a remote address: expected \"traffic\" or \"none\"",
            );
        }
        let is_sound = child.local_ts.len() >= section.local_ts.len()
            && child.remote_ts.len() >= section.remote_ts.len();
        let pinned = (
            ends.pin(&section.local_ts, ends.local),
            ends.pin(&section.remote_ts, ends.remote),
        );
        let (selectors, follows_selectors) = match &pinned {
            (Some(local), Some(remote)) if is_sound => (pairs(source, Some(local), Some(remote)), false),
            _ => (Vec::new(), true),
        };
        let is_narrow = |pair: &SelectorPair| {
            pair.protocol != ProtocolMatch::Any
                || !pair.local.matches_any_port()
                || !pair.remote.matches_any_port()
        };
        let is_policy = section
            .policy
            .unwrap_or(child.mode == Mode::Transport || selectors.iter().any(is_narrow));
        let routes = match &section.routes {
            Some(list) => prefixes(source, Some(list)),
            None if is_policy => Vec::new(),
            None => destinations(&selectors),
        };
        let host_routes = match &section.host_routes {
            Some(list) => prefixes(source, Some(list)),
            None if child.mode == Mode::Transport => destinations(&selectors),
            None => routes.clone(),
        };
        if child.mode == Mode::Transport {
            self.leave_ike_alone(&text, inner_vrf, &ends);
        }
        let unspecified = |like: Option<IpAddr>| match like {
            Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let remote = ends.remote.unwrap_or_else(|| unspecified(ends.local));
        let local = ends.local.filter(|local| local.is_ipv4() == remote.is_ipv4());
        let tunnel = Tunnel {
            name: text.get_ref().clone(),
            encapsulation: Encapsulation::Esp,
            labels: None,
            mode: child.mode,
            inner_vrf,
            outer_vrf,
            local: local.unwrap_or_else(|| unspecified(Some(remote))),
            remote,
            udp: None,
            dscp: word_or_number(source, section.dscp.as_ref(), 0..=63)
                .map_or(DscpPolicy::Copy, DscpPolicy::Set),
            ecn: match section.ecn {
                Ecn::Normal => EcnPolicy::Normal,
                Ecn::Compatibility => EcnPolicy::Compatibility,
            },
            df: match section.df {
                Df::Copy => DfPolicy::Copy,
                Df::Set => DfPolicy::Set,
                Df::Clear => DfPolicy::Clear,
            },
            ttl: match &section.ttl {
                None => TtlPolicy::default(),
                Some(_) => word_or_number(source, section.ttl.as_ref(), 1..=255)
                    .map_or(TtlPolicy::Copy, TtlPolicy::Set),
            },
            mtu_bytes: section
                .mtu
                .as_ref()
                .and_then(|mtu| source.within(mtu, MIN_MTU_BYTES..=u16::MAX)),
            clamp_mss: section.clamp_mss.unwrap_or(true),
            per_worker: section.per_worker,
            selectors,
            policy_priority: is_policy.then(|| {
                section
                    .priority
                    .as_ref()
                    .map_or(DEFAULT_PRIORITY, |priority| *priority.get_ref())
            }),
            routes,
            host_routes,
            sas: Vec::new(),
            is_negotiated: true,
        };
        let is_per_peer = !connection.engine.pools.is_empty()
            || (connection.remotes.is_empty()
                && !matches!(connection.engine.remote_id, RemoteId::Exactly(_)));
        if !is_per_peer {
            self.unique_routes(source, &tunnel, section.routes.as_deref());
        }
        if named {
            connection.engine.children.push(child);
            connection.tunnels.push(ChildTunnel {
                tunnel,
                is_per_peer,
                follows_selectors,
            });
        }
    }

    /// Transport mode protects the very addresses that IKE uses: its own packets go in clear.
    fn leave_ike_alone(&mut self, name: &Spanned<String>, vrf: southbound::VrfId, ends: &Ends) {
        let (Some(local), Some(remote)) = (ends.local, ends.remote) else {
            return;
        };
        let selector = |port: u16| -> Option<SelectorPair> {
            let local: selector::TrafficSelector = format!("{local}[udp/{port}]").parse().ok()?;
            let remote: selector::TrafficSelector = remote.to_string().parse().ok()?;
            Some(SelectorPair {
                local: local.endpoint,
                remote: remote.endpoint,
                protocol: ProtocolMatch::Only(17),
            })
        };
        self.gateway.policies.push(Policy {
            name: format!("IKE of {}", name.get_ref()),
            priority: IKE_PRIORITY,
            vrf,
            selectors: [500, 4500].into_iter().filter_map(selector).collect(),
            target: PolicyTarget::Bypass,
        });
    }
}

/// The outer addresses, as far as they are known beforehand.
struct Ends {
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
    has_virtual_addresses: bool,
}

impl Ends {
    fn of(connection: &Connection) -> Self {
        let engine = &connection.engine;
        let remote = match connection.remotes.as_slice() {
            [Remote::Address(address), ..] => Some(address.ip()),
            _ => None,
        };
        let fits = |local: &&IpAddr| remote.is_none_or(|remote| remote.is_ipv4() == local.is_ipv4());
        Self {
            local: engine.local_addresses.iter().find(fits).copied(),
            remote,
            has_virtual_addresses: !engine.pools.is_empty()
                || engine.request_addresses != (false, false)
                || connection.remotes.len() > 1
                || engine.local_addresses.len() > 1,
        }
    }

    /// The selectors with the dynamic ones replaced; `None` where one is not known yet.
    fn pin(&self, list: &[Spanned<String>], address: Option<IpAddr>) -> Option<Vec<Spanned<String>>> {
        let address = address.filter(|_| !self.has_virtual_addresses);
        if list.is_empty() {
            return Some(vec![Spanned::new(0..0, address?.to_string())]);
        }
        list.iter()
            .map(|text| match text.get_ref().as_str() {
                DYNAMIC => Some(Spanned::new(text.span(), address?.to_string())),
                _ => Some(text.clone()),
            })
            .collect()
    }
}

fn sides(source: &Source, list: &[Spanned<String>]) -> Vec<TsSide> {
    let side = |text: &Spanned<String>| {
        if text.get_ref() == DYNAMIC {
            return Some(TsSide::Dynamic);
        }
        let read: selector::TrafficSelector = match text.get_ref().parse() {
            Ok(read) => read,
            Err(()) => {
                source.problem(
                    text.span(),
                    format!(
                        "found {:?}: expected {}, or \"dynamic\"",
                        text.get_ref(),
                        selector::EXPECTED
                    ),
                );
                return None;
            }
        };
        Some(TsSide::Fixed(TrafficSelector {
            protocol: match read.protocol {
                ProtocolMatch::Any => 0,
                ProtocolMatch::Only(protocol) => protocol,
            },
            start_port: read.endpoint.ports.first,
            end_port: read.endpoint.ports.last,
            start: read.endpoint.addresses.first,
            end: read.endpoint.addresses.last,
        }))
    };
    if list.is_empty() {
        return vec![TsSide::Dynamic];
    }
    list.iter().filter_map(side).collect()
}

fn terms(source: &Source, section: &ChildSection, child: &mut ChildConfig) {
    child.start = match section.start {
        StartWord::Traffic => StartAction::OnTraffic,
        StartWord::Start => StartAction::Start,
        StartWord::None => StartAction::None,
    };
    if let Some(list) = &section.proposals {
        child.proposals = proposals(source, list, default_esp_proposals);
    }
    if let Some(rekey) = &section.rekey {
        child.rekey = rekey_time(source, rekey, child.rekey);
        let limit = |value: &Option<Spanned<u64>>| {
            let renew_at = source.within(value.as_ref()?, 1..=i64::MAX as u64)?;
            Some(UseLimit {
                renew_at,
                stop_at: renew_at.saturating_add((renew_at / 4).max(1)),
            })
        };
        child.bytes = limit(&rekey.bytes);
        child.packets = limit(&rekey.packets);
    }
    if let Some(packets) = &section.replay_window {
        match ReplayWindow::new(*packets.get_ref()) {
            Ok(window) => child.replay_window = window,
            Err(error) => source.problem(
                packets.span(),
                format!("found {}: expected another: {error}", packets.get_ref()),
            ),
        }
    }
    // The first pair is for all workers.
    let most = MAX_WORKERS as u16 + 1;
    child.resources_on_demand = section.per_worker;
    child.resources = match &section.resources {
        Some(resources) => source.within(resources, 1..=most).unwrap_or(1),
        None if section.per_worker => most,
        None => 1,
    };
}

/// The prefixes that the remote sides of selectors are made of.
pub(crate) fn destinations(selectors: &[SelectorPair]) -> Vec<IpPrefix> {
    let mut out: Vec<IpPrefix> = Vec::new();
    for range in selectors.iter().map(|pair| pair.remote.addresses) {
        for prefix in IpPrefix::covering(range.first, range.last) {
            if !out.contains(&prefix) {
                out.push(prefix);
            }
        }
    }
    out
}
