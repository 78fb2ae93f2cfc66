//! What the tests of the tables share: a writer, updates by name, and what workers see of them.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses another part"
)]

pub use std::net::IpAddr;
pub use std::sync::Arc;

pub use dataplane::sa::Flow;
pub use dataplane::tables::{
    Adjacency, AdjacencyIndex, Decision, Limits, PortLink, PortSlot, Tables, View, VrfIndex, Writer,
};
pub use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Endpoint, Event, IpPrefix, KeyMaterial, Lifetime, LifetimeKind,
    LifetimeLimit, LocalAddress, Mode, Neighbour, NeighbourState, NextHop, PolicyAction, PolicyId,
    PolicySpec, PortId, PortRole, PortSpec, ProtocolMatch, Rejection, ReplayWindow, RouteSpec, SaDirection,
    SaSpec, SelectorPair, Status, TtlPolicy, TunnelId, TunnelSpec, UdpEncapsulation, Update, VrfId,
    XdpPreference,
};

pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub fn writer() -> Writer {
    Writer::new(Arc::new(Tables::new(Limits::default())))
}

pub fn port(id: u32, vrf: VrfId) -> Update {
    Update::PutPort(PortSpec {
        id: PortId(id),
        interface: format!("eth{id}"),
        role: PortRole::Internet,
        vrf,
        xdp: XdpPreference::Auto,
        require_zero_copy: false,
        mpls: None,
    })
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn route_in(vrf: VrfId, prefix: &str, next_hops: Vec<NextHop>) -> Update {
    Update::PutRoute(RouteSpec {
        vrf,
        prefix: prefix.parse().unwrap(),
        next_hops,
        weights: Vec::new(),
    })
}

pub fn route(prefix: &str, next_hop: NextHop) -> Update {
    route_in(VrfId::MAIN, prefix, vec![next_hop])
}

pub fn no_route(prefix: &str) -> Update {
    Update::RemoveRoute {
        vrf: VrfId::MAIN,
        prefix: prefix.parse().unwrap(),
    }
}

pub fn connected(port: u32) -> NextHop {
    NextHop::Port {
        port: PortId(port),
        gateway: None,
    }
}

pub fn via(port: u32, gateway: &str) -> NextHop {
    NextHop::Port {
        port: PortId(port),
        gateway: Some(address(gateway)),
    }
}

pub fn neighbour(port: u32, of: &str, state: NeighbourState) -> Update {
    Update::PutNeighbour(Neighbour {
        port: PortId(port),
        address: address(of),
        state,
    })
}

pub fn tunnel(id: u32, remote: &str) -> TunnelSpec {
    TunnelSpec {
        id: TunnelId(id),
        name: format!("tunnel{id}"),
        mode: Mode::Tunnel,
        encapsulation: southbound::Encapsulation::Esp,
        protected: true,
        labels: None,
        inner_vrf: VrfId::MAIN,
        outer_vrf: VrfId::MAIN,
        local: address(if remote.contains(':') {
            "2001:db8::1"
        } else {
            "192.0.2.1"
        }),
        remote: address(remote),
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Normal,
        df: DfPolicy::Copy,
        ttl: TtlPolicy::Set(64),
        inner_mtu_bytes: None,
        clamp_mss: true,
        per_worker: false,
    }
}

pub fn sa(direction: SaDirection, spi: u32, key: u8) -> SaSpec {
    SaSpec {
        direction,
        spi,
        tunnel: TunnelId(1),
        mode: Mode::Tunnel,
        local: address("192.0.2.1"),
        remote: address("198.51.100.1"),
        udp: None,
        transform: "aes128gcm16".parse().unwrap(),
        key: KeyMaterial::new(vec![key; 20]),
        extended_sequence_numbers: true,
        replay_window: Some(ReplayWindow::DEFAULT),
        selectors: vec![],
        lifetime: Lifetime::default(),
        last_sequence: 0,
    }
}

pub fn apply(writer: &mut Writer, updates: impl IntoIterator<Item = Update>) {
    for update in updates {
        let shown = format!("{update:?}");
        writer
            .apply(1, update)
            .unwrap_or_else(|rejection| panic!("{shown}: {rejection}"));
    }
}

/// What the workers see now.
pub fn see<T>(writer: &Writer, look: impl FnOnce(View<'_>) -> T) -> T {
    let mut reader = writer.tables().reader();
    look(reader.pin())
}

pub fn way(writer: &Writer, destination: &str) -> String {
    see(writer, |view| {
        let index = view.route(VrfIndex::MAIN, address(destination));
        describe(view, index)
    })
}

pub fn describe(view: View<'_>, index: AdjacencyIndex) -> String {
    match view.adjacency(index, 0) {
        Adjacency::Neighbour(neighbour) => format!("{}:{:x?}", neighbour.port.get(), &neighbour.rewrite[..6]),
        Adjacency::Incomplete(incomplete) => format!(
            "ask {}{}",
            incomplete.address,
            if incomplete.failed { " again" } else { "" }
        ),
        Adjacency::Glean(glean) => format!("glean {}", glean.port_id.0),
        Adjacency::Midchain(index) => {
            format!("tunnel {}", view.tunnel(index).map_or(0, |tunnel| tunnel.id.0))
        }
        other => format!("{other:?}"),
    }
}

pub fn two_ports() -> Writer {
    let mut writer = writer();
    apply(&mut writer, [port(1, VrfId::MAIN), port(2, VrfId::MAIN)]);
    for number in 0..2 {
        let link = PortLink {
            mtu_bytes: 1500,
            mac: OUR_MAC,
            up: true,
            vlan: None,
        };
        writer.set_port_link(PortSlot::new(number).unwrap(), link);
    }
    writer
}

pub fn with_tunnel() -> Writer {
    let mut writer = two_ports();
    apply(&mut writer, [Update::PutTunnel(tunnel(1, "198.51.100.1"))]);
    writer
}

pub fn selector(local: &str, remote: &str) -> SelectorPair {
    SelectorPair {
        local: Endpoint::any_port(local.parse().unwrap()),
        remote: Endpoint::any_port(remote.parse().unwrap()),
        protocol: ProtocolMatch::Any,
    }
}

pub fn policy(id: u32, priority: u32, local: &str, remote: &str, action: PolicyAction) -> Update {
    Update::PutPolicy(PolicySpec {
        id: PolicyId(id),
        vrf: VrfId::MAIN,
        priority,
        selector: selector(local, remote),
        action,
    })
}

pub fn flow(source: &str, destination: &str) -> Flow {
    Flow {
        source: address(source),
        destination: address(destination),
        protocol: 17,
        ports: Some((1000, 53)),
    }
}
