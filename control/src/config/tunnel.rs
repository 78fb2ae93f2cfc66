//! Tunnels that are keyed by hand.

use std::net::IpAddr;

use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Encapsulation, IpPrefix, KeyMaterial, LabelSpaceId, Lifetime,
    LifetimeLimit, Mode, ReplayWindow, SaDirection, SaRef, SaSpec, SelectorPair, Transform, TransformError,
    TtlPolicy, TunnelId, TunnelSpec, UdpEncapsulation, VrfId,
};
use toml::Spanned;

use super::file::{
    Df, Ecn, LifetimeSection, SaSection, TunnelEncapsulation, TunnelMode, TunnelSection, WordOrNumber,
};
use super::key_file::{self, KeyAccess};
use super::policy::DEFAULT_PRIORITY;
use super::port::label_space;
use super::selector::pairs;
use super::source::Source;

/// The port of ESP in UDP (RFC 3948 section 2.1).
const NAT_TRAVERSAL_PORT: u16 = 4500;

/// The least MTU of IPv6 (RFC 8200 section 5) is what every tunnel must at least offer, but a tunnel that
/// only carries IPv4 may go down to that protocol's own floor.
pub(super) const MIN_MTU_BYTES: u16 = 576;

/// A pair of manual SAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualSa {
    /// The SPI of packets to us.
    pub spi_in: u32,
    /// The SPI of packets to the peer.
    pub spi_out: u32,
    /// Cipher and integrity.
    pub transform: Transform,
    /// The key of packets to us; absent only where the check could not read it.
    pub key_in: Option<KeyMaterial>,
    /// The key of packets to the peer; absent only where the check could not read it.
    pub key_out: Option<KeyMaterial>,
    /// Extended sequence numbers.
    pub extended_sequence_numbers: bool,
    /// The anti-replay window; `None` is no protection.
    pub replay_window: Option<ReplayWindow>,
    /// Limits of use.
    pub lifetime: Lifetime,
    /// The operator accepts that a repeated nonce may reveal plaintext, after a dataplane's restart.
    pub accept_nonce_reuse_risk: bool,
}

/// A tunnel, complete but for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name, unique.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What its packets stand in.
    pub encapsulation: Encapsulation,
    /// The space of labelled packets out of it, where it carries any.
    pub labels: Option<LabelSpaceId>,
    /// The table of inner packets.
    pub inner_vrf: VrfId,
    /// The table of ESP packets.
    pub outer_vrf: VrfId,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// ESP in UDP.
    pub udp: Option<UdpEncapsulation>,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// ECN over the tunnel.
    pub ecn: EcnPolicy,
    /// Outer don't-fragment.
    pub df: DfPolicy,
    /// Outer TTL or hop limit.
    pub ttl: TtlPolicy,
    /// Largest inner packet in bytes, where fixed.
    pub mtu_bytes: Option<u16>,
    /// Clamp the MSS of TCP.
    pub clamp_mss: bool,
    /// Negotiate SAs for each worker that sends.
    pub per_worker: bool,
    /// What may come out of the tunnel, and what goes in where it is policy-based.
    pub selectors: Vec<SelectorPair>,
    /// The priority of its protecting policies, where it is policy-based.
    pub policy_priority: Option<u32>,
    /// The destinations behind it, where it is route-based.
    pub routes: Vec<IpPrefix>,
    /// The destinations that the host's own packets reach through it.
    pub host_routes: Vec<IpPrefix>,
    /// Its SAs; the first sends. Those of a negotiated tunnel are not the configuration's.
    pub sas: Vec<ManualSa>,
    /// Its SAs are negotiated: its outer addresses here are only what is known beforehand.
    pub is_negotiated: bool,
}

impl Tunnel {
    pub(super) fn new(
        source: &Source,
        section: &TunnelSection,
        keys: KeyAccess,
        inner_vrf: Option<VrfId>,
        outer_vrf: Option<VrfId>,
    ) -> Option<Self> {
        let local = outer_address(source, &section.local);
        let remote = outer_address(source, &section.remote);
        if let (Some(local), Some(remote)) = (local, remote)
            && (local.is_ipv4() != remote.is_ipv4() || local == remote)
        {
            source.problem(
                section.remote.span(),
                format!("found {remote}: expected another address of the family of local, which is {local}"),
            );
        }
        let policy_priority = match (section.policy, &section.priority) {
            (true, priority) => Some(
                priority
                    .as_ref()
                    .map_or(DEFAULT_PRIORITY, |number| *number.get_ref()),
            ),
            (false, None) => None,
            (false, Some(priority)) => {
                source.problem(
                    priority.span(),
                    "found a priority in a tunnel without policies: expected policy = true beside it",
                );
                None
            }
        };
        if section.policy {
            for (list, name) in [(&section.local_ts, "local_ts"), (&section.remote_ts, "remote_ts")] {
                if list.as_ref().is_none_or(Vec::is_empty) {
                    source.problem(
                        section.name.span(),
                        format!("found a policy-based tunnel without {name}: expected the traffic it protects, or routes instead of policy = true"),
                    );
                }
            }
        }
        let selectors = pairs(source, section.local_ts.as_deref(), section.remote_ts.as_deref());
        let routes = prefixes(source, section.routes.as_deref());
        let host_routes = match &section.host_routes {
            Some(list) => prefixes(source, Some(list)),
            None => routes.clone(),
        };
        let sas = section
            .sa
            .iter()
            .filter_map(|sa| ManualSa::new(source, sa.get_ref(), keys))
            .collect();
        let dscp = match word_or_number(source, section.dscp.as_ref(), 0..=63) {
            None => DscpPolicy::Copy,
            Some(value) => DscpPolicy::Set(value),
        };
        let ttl = match &section.ttl {
            None => TtlPolicy::default(),
            Some(_) => {
                word_or_number(source, section.ttl.as_ref(), 1..=255).map_or(TtlPolicy::Copy, TtlPolicy::Set)
            }
        };
        let udp = section.udp_encapsulation.as_ref().map(|udp| UdpEncapsulation {
            local_port: udp_port(source, udp.local_port.as_ref()),
            remote_port: udp_port(source, udp.remote_port.as_ref()),
            checksum: udp.checksum,
        });
        let mtu_bytes = section
            .mtu
            .as_ref()
            .and_then(|mtu| source.within(mtu, MIN_MTU_BYTES..=u16::MAX));
        Some(Self {
            name: section.name.get_ref().clone(),
            mode: match section.mode {
                TunnelMode::Tunnel => Mode::Tunnel,
                TunnelMode::Transport => Mode::Transport,
            },
            encapsulation: encapsulation(source, section),
            labels: label_space(source, section.mpls, section.label_space.as_ref()),
            inner_vrf: inner_vrf?,
            outer_vrf: outer_vrf?,
            local: local?,
            remote: remote?,
            udp,
            dscp,
            ecn: match section.ecn {
                Ecn::Normal => EcnPolicy::Normal,
                Ecn::Compatibility => EcnPolicy::Compatibility,
            },
            df: match section.df {
                Df::Copy => DfPolicy::Copy,
                Df::Set => DfPolicy::Set,
                Df::Clear => DfPolicy::Clear,
            },
            ttl,
            mtu_bytes,
            clamp_mss: section.clamp_mss,
            per_worker: false,
            selectors,
            policy_priority,
            routes,
            host_routes,
            sas,
            is_negotiated: false,
        })
    }

    /// The tunnel as the dataplane takes it.
    #[must_use]
    pub fn spec(&self, id: TunnelId) -> TunnelSpec {
        TunnelSpec {
            id,
            name: self.name.clone(),
            mode: self.mode,
            encapsulation: self.encapsulation,
            // One with SAs is never sent in clear.
            protected: self.encapsulation == Encapsulation::Esp || !self.sas.is_empty(),
            labels: self.labels,
            inner_vrf: self.inner_vrf,
            outer_vrf: self.outer_vrf,
            local: self.local,
            remote: self.remote,
            dscp: self.dscp,
            ecn: self.ecn,
            df: self.df,
            ttl: self.ttl,
            inner_mtu_bytes: self.mtu_bytes,
            clamp_mss: self.clamp_mss,
            per_worker: self.per_worker,
        }
    }

    /// The name of one of its SAs.
    #[must_use]
    pub fn reference(&self, sa: &ManualSa, direction: SaDirection) -> SaRef {
        let (spi, destination) = match direction {
            SaDirection::Inbound => (sa.spi_in, self.local),
            SaDirection::Outbound => (sa.spi_out, self.remote),
        };
        SaRef {
            direction,
            spi,
            destination,
        }
    }

    /// One of its SAs as the dataplane takes it; `None` where its key was not read.
    #[must_use]
    pub fn sa_spec(&self, id: TunnelId, sa: &ManualSa, direction: SaDirection) -> Option<SaSpec> {
        let (spi, key, replay_window, selectors) = match direction {
            SaDirection::Inbound => (sa.spi_in, &sa.key_in, sa.replay_window, self.selectors.clone()),
            SaDirection::Outbound => (sa.spi_out, &sa.key_out, None, Vec::new()),
        };
        Some(SaSpec {
            direction,
            spi,
            tunnel: id,
            mode: self.mode,
            local: self.local,
            remote: self.remote,
            udp: self.udp,
            transform: sa.transform,
            key: key.clone()?,
            extended_sequence_numbers: sa.extended_sequence_numbers,
            replay_window,
            selectors,
            lifetime: sa.lifetime,
            last_sequence: 0,
        })
    }
}

fn encapsulation(source: &Source, section: &TunnelSection) -> Encapsulation {
    let name = section.name.span();
    if section.encapsulation != TunnelEncapsulation::Gre {
        if let Some(key) = &section.key {
            source.problem(
                key.span(),
                "found a key: expected encapsulation = \"gre\" beside it",
            );
        }
        if section.checksum {
            source.problem(
                name.clone(),
                "found a checksum: expected encapsulation = \"gre\" beside it",
            );
        }
    }
    match section.encapsulation {
        TunnelEncapsulation::Esp => {
            if section.mpls {
                source.problem(
                    name,
                    "found mpls in a tunnel that only carries IP: expected encapsulation = \"gre\", \"ip\" or \"udp\" beside it",
                );
            }
            Encapsulation::Esp
        }
        TunnelEncapsulation::Ip => Encapsulation::Ip,
        TunnelEncapsulation::Gre => Encapsulation::Gre {
            key: section.key.as_ref().map(|key| *key.get_ref()),
            checksum: section.checksum,
        },
        TunnelEncapsulation::Udp => {
            // RFC 7510 section 3: what follows the UDP header is a label.
            if !section.mpls {
                source.problem(
                    name,
                    "found encapsulation \"udp\": expected mpls = true beside it",
                );
            }
            Encapsulation::Udp
        }
    }
}

impl ManualSa {
    fn new(source: &Source, section: &SaSection, keys: KeyAccess) -> Option<Self> {
        // RFC 4303 section 2.1: 0 to 255 are reserved.
        let spi_in = source.within(&section.spi_in, 256..=u32::MAX);
        let spi_out = source.within(&section.spi_out, 256..=u32::MAX);
        let transform: Option<Transform> = match section.algorithm.get_ref().parse() {
            Ok(transform) => Some(transform),
            Err(error) => {
                let found = section.algorithm.get_ref();
                let message = match &error {
                    TransformError::UnknownEncryption(_) | TransformError::UnknownIntegrity(_) => {
                        error.to_string()
                    }
                    _ => format!("found {found:?}: {error}"),
                };
                source.problem(section.algorithm.span(), message);
                None
            }
        };
        let key = |file: &Spanned<String>| -> Option<KeyMaterial> {
            let path = source.resolve(file.get_ref());
            match key_file::read(&path, transform?.key_bytes(), keys) {
                Ok(key) => key,
                Err(message) => {
                    source.problem(file.span(), message);
                    None
                }
            }
        };
        let key_in = key(&section.key_in_file);
        let key_out = key(&section.key_out_file);
        let replay_window = match &section.replay_window {
            None => Some(ReplayWindow::DEFAULT),
            Some(packets) if *packets.get_ref() == 0 => None,
            Some(packets) => match ReplayWindow::new(*packets.get_ref()) {
                Ok(window) => Some(window),
                Err(_) => {
                    source.problem(
                        packets.span(),
                        format!(
                            "found {}: expected 0 (none) or a power of two from 64 to 65536 packets",
                            packets.get_ref()
                        ),
                    );
                    None
                }
            },
        };
        Some(Self {
            spi_in: spi_in?,
            spi_out: spi_out?,
            transform: transform?,
            key_in,
            key_out,
            extended_sequence_numbers: section.esn,
            replay_window,
            lifetime: Lifetime {
                soft: limit(source, section.soft_lifetime.as_ref()),
                hard: limit(source, section.hard_lifetime.as_ref()),
            },
            accept_nonce_reuse_risk: section.accept_nonce_reuse_risk,
        })
    }
}

fn limit(source: &Source, section: Option<&LifetimeSection>) -> LifetimeLimit {
    let Some(section) = section else {
        return LifetimeLimit::default();
    };
    let bounded = |value: &Option<Spanned<u64>>| {
        value
            .as_ref()
            .and_then(|value| source.within(value, 1..=i64::MAX as u64))
    };
    LifetimeLimit {
        bytes: bounded(&section.bytes),
        packets: bounded(&section.packets),
        seconds: bounded(&section.seconds),
    }
}

fn udp_port(source: &Source, port: Option<&Spanned<u16>>) -> u16 {
    port.and_then(|port| source.within(port, 1..=u16::MAX))
        .unwrap_or(NAT_TRAVERSAL_PORT)
}

fn outer_address(source: &Source, text: &Spanned<String>) -> Option<IpAddr> {
    let address: IpAddr = source.value(text, "an IPv4 or IPv6 address")?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        source.problem(
            text.span(),
            format!("found {address}: expected a unicast address"),
        );
        return None;
    }
    Some(address)
}

pub(super) fn prefixes(source: &Source, list: Option<&[Spanned<String>]>) -> Vec<IpPrefix> {
    list.unwrap_or_default()
        .iter()
        .filter_map(|text| {
            source.value(
                text,
                "a prefix: an address, a slash and a length of at most 32 (IPv4) or 128 (IPv6) bits",
            )
        })
        .collect()
}

/// The number, or `None` for the word "copy", an absent setting, or a fault that was noted.
pub(super) fn word_or_number(
    source: &Source,
    value: Option<&Spanned<WordOrNumber>>,
    range: std::ops::RangeInclusive<u8>,
) -> Option<u8> {
    let value = value?;
    let found = match value.get_ref() {
        WordOrNumber::Word(word) if word == "copy" => return None,
        WordOrNumber::Word(word) => format!("{word:?}"),
        WordOrNumber::Number(number) => match u8::try_from(*number) {
            Ok(number) if range.contains(&number) => return Some(number),
            _ => number.to_string(),
        },
    };
    source.problem(
        value.span(),
        format!(
            "found {found}: expected \"copy\" or {} to {}",
            range.start(),
            range.end()
        ),
    );
    None
}
