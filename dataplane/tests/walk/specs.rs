//! Tunnels and SAs for the walks: gateway 1 has 10.1.0.0/16 and fd01::/16 behind it, gateway 2 has 10.2 and fd02.

use std::net::IpAddr;

use dataplane::xsk::{Umem, UmemConfig};
use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Endpoint, IpPrefix, KeyMaterial, Lifetime, Mode, PolicyAction, PolicyId,
    PolicySpec, ProtocolMatch, ReplayWindow, SaDirection, SaSpec, SelectorPair, Transform, TtlPolicy,
    TunnelId, TunnelSpec, UdpEncapsulation, VrfId,
};

/// Packet memory that lives as long as the test's process.
pub fn umem(frame_count: u32) -> &'static Umem {
    Box::leak(Box::new(
        Umem::new(&UmemConfig {
            frame_count,
            ..UmemConfig::default()
        })
        .unwrap(),
    ))
}

/// The outer addresses of gateways 1 and 2.
pub fn outer(is_ipv6: bool) -> [&'static str; 2] {
    if is_ipv6 {
        ["2001:db8::1", "2001:db8::2"]
    } else {
        ["192.0.2.1", "192.0.2.2"]
    }
}

/// The tunnel of gateway 1.
pub fn tunnel(mode: Mode, outer_is_ipv6: bool) -> TunnelSpec {
    let [local, remote] = outer(outer_is_ipv6);
    TunnelSpec {
        id: TunnelId(1),
        name: "site".to_owned(),
        mode,
        encapsulation: southbound::Encapsulation::Esp,
        protected: true,
        labels: None,
        inner_vrf: VrfId::MAIN,
        outer_vrf: VrfId::MAIN,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Normal,
        df: DfPolicy::Copy,
        ttl: TtlPolicy::Set(64),
        inner_mtu_bytes: None,
        clamp_mss: true,
        per_worker: false,
    }
}

/// The SA from gateway 1 to gateway 2, as gateway 1 has it.
pub fn sa(transform: Transform, mode: Mode, outer_is_ipv6: bool, in_udp: bool, esn: bool) -> SaSpec {
    let [local, remote] = outer(outer_is_ipv6);
    SaSpec {
        direction: SaDirection::Outbound,
        spi: 0x1000_0001,
        tunnel: TunnelId(1),
        mode,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        udp: in_udp.then_some(UdpEncapsulation {
            local_port: 4500,
            remote_port: 4500,
            checksum: false,
        }),
        transform,
        key: KeyMaterial::new(
            (0..transform.key_bytes())
                .map(|index| index as u8 ^ 0x5a)
                .collect(),
        ),
        extended_sequence_numbers: esn,
        replay_window: None,
        selectors: vec![],
        lifetime: Lifetime::default(),
        last_sequence: 0,
    }
}

/// The SA the other way, as gateway 2 has it.
pub fn sa_back(forth: &SaSpec) -> SaSpec {
    SaSpec {
        spi: 0x2000_0002,
        local: forth.remote,
        remote: forth.local,
        key: KeyMaterial::new(forth.key.expose().iter().map(|byte| byte ^ 0xc3).collect()),
        ..forth.clone()
    }
}

/// The tunnel of gateway 2.
pub fn tunnel_back(tunnel: &TunnelSpec) -> TunnelSpec {
    TunnelSpec {
        local: tunnel.remote,
        remote: tunnel.local,
        ..tunnel.clone()
    }
}

/// Everything between the two gateways themselves goes through the tunnel.
pub fn transport_policy(remote: IpAddr, _length: u8) -> PolicySpec {
    let any = if remote.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
    PolicySpec {
        id: PolicyId(1),
        vrf: VrfId::MAIN,
        priority: 10,
        selector: SelectorPair {
            local: Endpoint::any_port(any.parse().unwrap()),
            remote: Endpoint::any_port(IpPrefix::host(remote)),
            protocol: ProtocolMatch::Any,
        },
        action: PolicyAction::Protect(TunnelId(1)),
    }
}

/// An SA as its receiver has it: what comes from the sender's network, or the sender itself in transport mode.
pub fn inbound(out: &SaSpec) -> SaSpec {
    let any = |prefix: String| Endpoint::any_port(prefix.parse().unwrap());
    let pair = |local: String, remote: String| SelectorPair {
        local: any(local),
        remote: any(remote),
        protocol: ProtocolMatch::Any,
    };
    let sender = if out.local == out.local.min(out.remote) {
        1
    } else {
        2
    };
    let receiver = 3 - sender;
    let selectors = match out.mode {
        Mode::Tunnel => vec![
            pair(format!("10.{receiver}.0.0/16"), format!("10.{sender}.0.0/16")),
            pair(format!("fd0{receiver}::/16"), format!("fd0{sender}::/16")),
        ],
        Mode::Transport => vec![pair(out.remote.to_string(), out.local.to_string())],
    };
    SaSpec {
        direction: SaDirection::Inbound,
        local: out.remote,
        remote: out.local,
        replay_window: Some(ReplayWindow::DEFAULT),
        selectors,
        ..out.clone()
    }
}
