//! Two gateways with a tunnel between them.

use southbound::{Mode, NextHop, SaSpec, Transform, TunnelId, Update};

use super::gateway::Gateway;
use super::specs;

pub struct Pair {
    pub one: Gateway,
    pub two: Gateway,
    /// The SA from one to two, as one has it.
    pub forth: SaSpec,
    /// The SA from two to one, as two has it.
    pub back: SaSpec,
}

impl Pair {
    /// Both ways up; routes lead into the tunnel, in transport mode those to the other gateway itself.
    pub fn new(transform: Transform, mode: Mode, outer_is_ipv6: bool, in_udp: bool, esn: bool) -> Self {
        let mut pair = Self::without_sas(transform, mode, outer_is_ipv6, in_udp, esn);
        pair.install();
        pair
    }

    /// Tunnels and routes, no SAs yet.
    pub fn without_sas(
        transform: Transform,
        mode: Mode,
        outer_is_ipv6: bool,
        in_udp: bool,
        esn: bool,
    ) -> Self {
        let mut one = Gateway::numbered(1);
        let mut two = Gateway::numbered(2);
        let forth = specs::sa(transform, mode, outer_is_ipv6, in_udp, esn);
        let back = specs::sa_back(&forth);
        let tunnel = specs::tunnel(mode, outer_is_ipv6);
        let mirrored = specs::tunnel_back(&tunnel);
        for (gateway, tunnel, other) in [(&mut one, tunnel, 2), (&mut two, mirrored, 1)] {
            let remote = tunnel.remote;
            gateway.apply(Update::PutTunnel(tunnel));
            match mode {
                Mode::Tunnel => {
                    gateway.route(&format!("10.{other}.0.0/16"), NextHop::Tunnel(TunnelId(1)));
                    gateway.route(&format!("fd0{other}::/16"), NextHop::Tunnel(TunnelId(1)));
                }
                Mode::Transport => {
                    let length = if remote.is_ipv6() { 128 } else { 32 };
                    gateway.apply(Update::PutPolicy(specs::transport_policy(remote, length)));
                }
            }
        }
        Self {
            one,
            two,
            forth,
            back,
        }
    }

    pub fn install(&mut self) {
        self.one.apply(Update::InstallSa(specs::inbound(&self.back)));
        self.two.apply(Update::InstallSa(specs::inbound(&self.forth)));
        for (gateway, sa) in [(&mut self.one, &self.forth), (&mut self.two, &self.back)] {
            gateway.apply(Update::InstallSa(sa.clone()));
            gateway.apply(Update::SelectOutbound {
                tunnel: TunnelId(1),
                sa: sa.reference(),
            });
        }
    }
}
