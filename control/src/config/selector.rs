//! Traffic selectors as the configuration writes them, in the words of strongSwan's `local_ts` and
//! `remote_ts`: `10.1.0.0/16`, `10.1.0.0/16[tcp/443]`, `10.1.0.4-10.1.0.9[udp/1000-2000]`,
//! `2001:db8::/48[icmp6/128]`.

use std::net::IpAddr;
use std::str::FromStr;

use southbound::{Endpoint, IpPrefix, ProtocolMatch, SelectorPair, ValueRange};
use toml::Spanned;

use super::source::Source;

pub(super) const EXPECTED: &str = "a prefix (10.1.0.0/16), an address or a range of addresses (10.1.0.4-10.1.0.9), and \
                        optionally a protocol with a port or port range ([tcp/443], [udp/1000-2000], [icmp])";

const ALL_PORTS: ValueRange<u16> = ValueRange {
    first: 0,
    last: u16::MAX,
};

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// One side of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrafficSelector {
    pub(super) endpoint: Endpoint,
    pub(super) protocol: ProtocolMatch,
}

impl FromStr for TrafficSelector {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (addresses, service) = match text.split_once('[') {
            Some((addresses, rest)) => (addresses, Some(rest.strip_suffix(']').ok_or(())?)),
            None => (text, None),
        };
        let addresses = match addresses.split_once('-') {
            Some((first, last)) => {
                let first: IpAddr = first.parse().map_err(|_| ())?;
                let last: IpAddr = last.parse().map_err(|_| ())?;
                if first.is_ipv4() != last.is_ipv4() {
                    return Err(());
                }
                ValueRange::new(first, last).ok_or(())?
            }
            None => {
                let prefix: IpPrefix = addresses.parse().map_err(|_| ())?;
                ValueRange::new(prefix.network(), prefix.last()).ok_or(())?
            }
        };
        let (protocol, ports) = match service {
            None => (ProtocolMatch::Any, ALL_PORTS),
            Some(service) => parse_service(service).ok_or(())?,
        };
        Ok(Self {
            endpoint: Endpoint { addresses, ports },
            protocol,
        })
    }
}

fn parse_service(text: &str) -> Option<(ProtocolMatch, ValueRange<u16>)> {
    let (name, port) = match text.split_once('/') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let protocol = match name {
        "icmp" => ICMP,
        "tcp" => 6,
        "udp" => 17,
        "gre" => 47,
        "icmp6" | "ipv6-icmp" => ICMP_V6,
        "ospf" => 89,
        "sctp" => 132,
        number => number.parse().ok().filter(|number| *number != 0)?,
    };
    let ports = match port {
        None => ALL_PORTS,
        // RFC 4301 section 4.4.1.1: type in the upper byte, code in the lower; a type alone is every code.
        Some(kind) if protocol == ICMP || protocol == ICMP_V6 => {
            let kind: u8 = kind.parse().ok()?;
            ValueRange::new(u16::from(kind) << 8, u16::from(kind) << 8 | 0xff)?
        }
        Some(range) => match range.split_once('-') {
            Some((first, last)) => ValueRange::new(first.parse().ok()?, last.parse().ok()?)?,
            None => {
                let port = range.parse().ok()?;
                ValueRange::new(port, port)?
            }
        },
    };
    Some((ProtocolMatch::Only(protocol), ports))
}

/// Every local with every remote selector of its family; absent lists stand for everything.
pub(super) fn pairs(
    source: &Source,
    local_ts: Option<&[Spanned<String>]>,
    remote_ts: Option<&[Spanned<String>]>,
) -> Vec<SelectorPair> {
    let everything = ["0.0.0.0/0", "::/0"];
    let read = |list: Option<&[Spanned<String>]>| -> Vec<(Option<Spanned<String>>, TrafficSelector)> {
        match list {
            None => everything
                .iter()
                .filter_map(|text| Some((None, text.parse().ok()?)))
                .collect(),
            Some(list) => list
                .iter()
                .filter_map(|text| Some((Some(text.clone()), source.value(text, EXPECTED)?)))
                .collect(),
        }
    };
    let (locals, remotes) = (read(local_ts), read(remote_ts));
    let mut pairs = Vec::new();
    for (text, local) in &locals {
        let mut matched = false;
        for (remote_text, remote) in &remotes {
            if local.endpoint.addresses.first.is_ipv4() != remote.endpoint.addresses.first.is_ipv4() {
                continue;
            }
            matched = true;
            let protocol = match (local.protocol, remote.protocol) {
                (ProtocolMatch::Any, other) | (other, ProtocolMatch::Any) => other,
                (one, other) if one == other => one,
                _ => {
                    if let Some(text) = remote_text {
                        source.problem(
                            text.span(),
                            format!(
                                "found {:?}: expected the protocol of every local_ts, or none",
                                text.get_ref()
                            ),
                        );
                    }
                    continue;
                }
            };
            pairs.push(SelectorPair {
                local: local.endpoint,
                remote: remote.endpoint,
                protocol,
            });
        }
        if let (false, Some(text)) = (matched, text) {
            source.problem(
                text.span(),
                format!(
                    "found {:?}: expected a remote_ts of the same address family",
                    text.get_ref()
                ),
            );
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let plain = parse("10.1.2.3/16");
        assert_eq!(plain.protocol, ProtocolMatch::Any);
        assert_eq!(plain.endpoint, Endpoint::any_port("10.1.0.0/16".parse().unwrap()));
        let service = parse("10.1.0.4-10.1.0.9[udp/1000-2000]");
        assert_eq!(service.protocol, ProtocolMatch::Only(17));
        assert_eq!(
            service.endpoint.ports,
            ValueRange {
                first: 1000,
                last: 2000
            }
        );
        assert_eq!(
            service.endpoint.addresses.last,
            "10.1.0.9".parse::<IpAddr>().unwrap()
        );
        assert_eq!(parse("::/0[icmp6/128]").endpoint.ports.first, 0x8000);
        assert_eq!(parse("192.0.2.1[tcp]").endpoint.ports, ALL_PORTS);
        assert_eq!(parse("192.0.2.1[112]").protocol, ProtocolMatch::Only(112));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            "10.1.0.0/33",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.0/8[",
            "10.0.0.0/8[]",
            "10.0.0.0/8[tcp/70000]",
            "10.0.0.0/8[tcp/9-1]",
            "10.0.0.0/8[icmp/300]",
            "10.0.0.0/8[0]",
            "10.0.0.0/8[http]",
            "10.0.0.0/8[tcp]x",
        ] {
            assert!(text.parse::<TrafficSelector>().is_err(), "{text:?}");
        }
    }
}
