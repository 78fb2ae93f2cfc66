//! A Child SA pair: its specifications for the dataplane, its selectors, and how selectors are narrowed.

use std::time::Instant;

use southbound::{
    Endpoint as SelectorSide, KeyMaterial, Lifetime, LifetimeLimit, Mode, ProtocolMatch, SaDirection, SaSpec,
    SelectorPair, TunnelId, UdpEncapsulation, ValueRange,
};

use crate::config::{ChildConfig, TsSide};
use crate::error::{Error, Result};
use crate::event::ChildSummary;
use crate::payload::traffic_selector::TrafficSelector;
use crate::proposal::EspSuite;

/// Selectors of one side beyond this many are left out of an answer: the product of both sides goes to the dataplane.
pub(crate) const MAX_SELECTORS_PER_SIDE: usize = 32;

/// Where a Child SA stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildState {
    /// In use.
    Active,
    /// Our request to rekey it is out.
    Rekeying,
    /// Another took over; it waits to be deleted.
    Replaced,
    /// Our request to delete it is out.
    Deleting,
}

/// The peer rekeyed a Child SA while we did (RFC 7296 section 2.8.1).
#[derive(Debug, Clone)]
pub(crate) struct Collision {
    /// Inbound SPI of the pair that the peer's exchange made.
    pub(crate) spi_in: u32,
    /// The lower of its two nonces.
    pub(crate) lowest_nonce: Vec<u8>,
}

/// An installed pair.
#[derive(Debug)]
pub(crate) struct ChildSa {
    pub(crate) name: String,
    pub(crate) inbound: SaSpec,
    pub(crate) outbound: SaSpec,
    pub(crate) suite: EspSuite,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    pub(crate) state: ChildState,
    /// Which of several pairs with the same selectors it is (RFC 9611): 0 is for all workers, each further one for the
    /// worker of the number before.
    pub(crate) resource: Option<u16>,
    /// Inbound SPI of the pair that took over.
    pub(crate) successor: Option<u32>,
    pub(crate) collision: Option<Collision>,
    pub(crate) rekey_at: Instant,
    pub(crate) expire_at: Instant,
    /// The outbound SA is selected at the latest then, if nothing did so before.
    pub(crate) select_at: Option<Instant>,
}

impl ChildSa {
    pub(crate) fn spi_in(&self) -> u32 {
        self.inbound.spi
    }

    pub(crate) fn spi_out(&self) -> u32 {
        self.outbound.spi
    }

    /// The worker whose alone it is to send with (RFC 9611); the first of several is for all.
    pub(crate) fn worker(&self) -> Option<u16> {
        self.resource?.checked_sub(1)
    }

    pub(crate) fn tunnel(&self) -> TunnelId {
        self.inbound.tunnel
    }

    pub(crate) fn summary(&self) -> ChildSummary {
        ChildSummary {
            name: self.name.clone(),
            tunnel: self.tunnel(),
            spi_in: self.spi_in(),
            spi_out: self.spi_out(),
            suite: self.suite.to_string(),
            local_ts: self.local_ts.clone(),
            remote_ts: self.remote_ts.clone(),
            udp: self.inbound.udp.is_some(),
            resource: self.resource,
        }
    }
}

/// What both directions of a pair share.
pub(crate) struct PairParameters<'a> {
    pub(crate) config: &'a ChildConfig,
    pub(crate) tunnel: TunnelId,
    pub(crate) mode: Mode,
    pub(crate) local: std::net::IpAddr,
    pub(crate) remote: std::net::IpAddr,
    pub(crate) udp: Option<UdpEncapsulation>,
    pub(crate) suite: &'a EspSuite,
    pub(crate) local_ts: &'a [TrafficSelector],
    pub(crate) remote_ts: &'a [TrafficSelector],
}

impl PairParameters<'_> {
    pub(crate) fn spec(&self, direction: SaDirection, spi: u32, key: KeyMaterial) -> SaSpec {
        let inbound = direction == SaDirection::Inbound;
        let limit = |stop: bool| LifetimeLimit {
            bytes: self
                .config
                .bytes
                .map(|limit| if stop { limit.stop_at } else { limit.renew_at }),
            packets: self
                .config
                .packets
                .map(|limit| if stop { limit.stop_at } else { limit.renew_at }),
            seconds: stop.then_some(self.config.rekey.give_up_after.as_secs().saturating_add(1)),
        };
        SaSpec {
            direction,
            spi,
            tunnel: self.tunnel,
            mode: self.mode,
            local: self.local,
            remote: self.remote,
            udp: self.udp,
            transform: self.suite.transform,
            key,
            extended_sequence_numbers: self.suite.esn,
            replay_window: inbound.then_some(self.config.replay_window),
            selectors: if inbound {
                selector_pairs(self.local_ts, self.remote_ts)
            } else {
                Vec::new()
            },
            lifetime: Lifetime {
                soft: limit(false),
                hard: limit(true),
            },
            last_sequence: 0,
        }
    }
}

/// Every combination of one local and one remote selector that some packet can match.
pub(crate) fn selector_pairs(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Vec<SelectorPair> {
    let side = |ts: &TrafficSelector| SelectorSide {
        addresses: ValueRange {
            first: ts.start,
            last: ts.end,
        },
        ports: ValueRange {
            first: ts.start_port,
            last: ts.end_port.max(ts.start_port),
        },
    };
    let mut pairs = Vec::new();
    for l in local {
        for r in remote {
            let protocol = match (l.protocol, r.protocol) {
                (0, 0) => ProtocolMatch::Any,
                (0, p) | (p, 0) => ProtocolMatch::Only(p),
                (p, q) if p == q => ProtocolMatch::Only(p),
                _ => continue,
            };
            if l.start.is_ipv4() == r.start.is_ipv4() {
                pairs.push(SelectorPair {
                    local: side(l),
                    remote: side(r),
                    protocol,
                });
            }
        }
    }
    pairs
}

/// The configured selectors of a side with its dynamic ones filled in.
pub(crate) fn resolve(sides: &[TsSide], dynamic: &[std::net::IpAddr]) -> Vec<TrafficSelector> {
    let mut out = Vec::new();
    for side in sides {
        match side {
            TsSide::Fixed(ts) => out.push(*ts),
            TsSide::Dynamic => out.extend(dynamic.iter().map(|address| TrafficSelector::host(*address))),
        }
    }
    out
}

/// The part of an offer that the configuration allows (RFC 7296 section 2.9), without repetition.
pub(crate) fn narrow(offered: &[TrafficSelector], allowed: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut out: Vec<TrafficSelector> = Vec::new();
    for joined in offered
        .iter()
        .flat_map(|o| allowed.iter().filter_map(move |a| o.intersection(a)))
    {
        if out.iter().any(|have| have.covers(&joined)) {
            continue;
        }
        out.retain(|have| !joined.covers(have));
        out.push(joined);
        if out.len() == MAX_SELECTORS_PER_SIDE {
            break;
        }
    }
    out
}

/// Narrows both sides, or tells what was offered and expected.
pub(crate) fn narrow_both(
    offered_local: &[TrafficSelector],
    offered_remote: &[TrafficSelector],
    allowed_local: &[TrafficSelector],
    allowed_remote: &[TrafficSelector],
) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>)> {
    let (local, remote) = (
        narrow(offered_local, allowed_local),
        narrow(offered_remote, allowed_remote),
    );
    if local.is_empty() || remote.is_empty() || selector_pairs(&local, &remote).is_empty() {
        return Err(Error::TsUnacceptable(format!(
            "peer offered {offered_local:?} here and {offered_remote:?} there; expected {allowed_local:?} and \
             {allowed_remote:?}"
        )));
    }
    Ok((local, remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(text: &str) -> TrafficSelector {
        let prefix: southbound::IpPrefix = text.parse().unwrap();
        TrafficSelector::addresses(prefix.network(), prefix.last())
    }

    #[test]
    fn narrowing_keeps_the_common_part_once() {
        let offered = [ts("10.1.2.3/32"), ts("10.0.0.0/8"), ts("fd00::/8")];
        assert_eq!(narrow(&offered, &[ts("10.1.0.0/16")]), [ts("10.1.0.0/16")]);
        assert_eq!(
            narrow(&offered, &[ts("10.1.0.0/16"), ts("fd01::/16")]),
            [ts("10.1.0.0/16"), ts("fd01::/16")]
        );
        assert!(narrow(&offered, &[ts("192.0.2.0/24")]).is_empty());
        assert!(narrow_both(&offered, &offered, &[ts("10.0.0.0/8")], &[ts("192.0.2.0/24")]).is_err());
    }

    #[test]
    fn pairs_join_protocols_and_families() {
        let tcp = TrafficSelector {
            protocol: 6,
            ..ts("10.0.0.0/8")
        };
        let udp = TrafficSelector {
            protocol: 17,
            ..ts("10.0.0.0/8")
        };
        assert_eq!(selector_pairs(&[tcp], &[udp]).len(), 0);
        assert_eq!(
            selector_pairs(&[tcp], &[ts("10.0.0.0/8"), ts("fd00::/8")]).len(),
            1
        );
    }

    #[test]
    fn answers_are_bounded() {
        let offered: Vec<_> = (0..200_u8)
            .map(|i| TrafficSelector::host([10, 0, 0, i].into()))
            .collect();
        assert_eq!(
            narrow(&offered, &[ts("10.0.0.0/8")]).len(),
            MAX_SELECTORS_PER_SIDE
        );
    }
}
