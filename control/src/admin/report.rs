//! Records for people and scripts, from what the dataplane answers: names in place of numbers, never a key.

use serde_json::{Value, json};
use southbound::{
    CopyMode, DropReason, Endpoint, LabelOperation, LabelVia, NeighbourState, NextHop, Nhlfe, PORT_SLOTS,
    PolicyAction, PortCounter, PortPhase, PortRole, ProtocolMatch, SaDirection, Status, TunnelStatus, VrfId,
    WorkerCounter, XdpMode,
};

use crate::config::{Gateway, Port};
use crate::install::Installer;
use crate::plane::{Desired, Object, WorkerBlock};

/// Knows the names.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// The running configuration.
    pub gateway: &'a Gateway,
    /// Numbers and refusals.
    pub installer: &'a Installer,
    /// Where the kernel's VRF devices have ports.
    pub desired: &'a Desired,
}

impl Reporter<'_> {
    /// The record of one answer.
    #[must_use]
    pub fn record(&self, status: &Status) -> Value {
        match status {
            Status::Sa(sa) => json!({
                "tunnel": self.tunnel(sa.tunnel),
                "direction": match sa.sa.direction { SaDirection::Inbound => "in", SaDirection::Outbound => "out" },
                "spi": spi(sa.sa.spi),
                "destination": sa.sa.destination,
                "algorithm": sa.transform.to_string(),
                "state": if sa.expired { "expired" } else if sa.selected || sa.sa.direction == SaDirection::Inbound { "active" } else { "standby" },
                "worker": sa.worker,
                "packets": sa.packets,
                "bytes": sa.bytes,
                "sequence": sa.sequence,
                "replay_drops": sa.replay_drops,
                "integrity_failures": sa.integrity_failures,
                "selector_drops": sa.selector_drops,
                "age_seconds": sa.age_seconds,
            }),
            Status::Tunnel(tunnel) => {
                let configured = self
                    .gateway
                    .tunnels
                    .iter()
                    .find(|known| known.name == tunnel.name);
                let refusals = self.installer.refusals().get(&tunnel.name);
                let ends = self.installer.ends(tunnel.tunnel);
                json!({
                    "name": tunnel.name,
                    "state": tunnel_state(tunnel, refusals.is_some()),
                    "local": ends.and_then(|(local, _)| local).or(configured.map(|tunnel| tunnel.local)),
                    "remote": ends.map(|(_, remote)| remote).or(configured.map(|tunnel| tunnel.remote)),
                    "spi_out": tunnel.outbound.map(|sa| spi(sa.spi)),
                    "outer_mtu_bytes": tunnel.outer_mtu_bytes,
                    "inner_mtu_bytes": tunnel.inner_mtu_bytes,
                    "in_packets": tunnel.totals.in_packets,
                    "in_bytes": tunnel.totals.in_bytes,
                    "out_packets": tunnel.totals.out_packets,
                    "out_bytes": tunnel.totals.out_bytes,
                    "drop_packets": tunnel.totals.drop_packets,
                    "reasons": refusals.cloned().unwrap_or_default(),
                })
            }
            Status::Port(port) => {
                let configured = self
                    .gateway
                    .ports
                    .iter()
                    .find(|known| known.interface == port.interface);
                json!({
                    "interface": port.interface,
                    "role": configured.map(|port| match port.role {
                        PortRole::Protected => "protected",
                        PortRole::Internet => "internet",
                        PortRole::Trunk => "trunk",
                    }),
                    "vrf": configured.map(|port| self.vrf(self.port_vrf(port))),
                    "state": match port.phase {
                        PortPhase::Absent => "absent",
                        PortPhase::LinkDown => "down",
                        PortPhase::Binding => "binding",
                        PortPhase::Up => "up",
                        PortPhase::Draining => "draining",
                        PortPhase::Refused => "refused",
                    },
                    "xdp": port.xdp.map(|mode| match mode { XdpMode::Driver => "driver", XdpMode::Generic => "generic" }),
                    "queues": port.queues.iter().map(|mode| match mode {
                        CopyMode::ZeroCopy => "zero-copy",
                        CopyMode::Copy => "copy",
                    }).collect::<Vec<_>>(),
                    "parent": port.vlan.map(|vlan| self.port(vlan.parent)),
                    "vlan": port.vlan.map(|vlan| vlan.id),
                    "mtu_bytes": port.mtu_bytes,
                    "rebinds": port.rebinds,
                    "error": port.error,
                })
            }
            Status::Route(route) => json!({
                "vrf": self.vrf(route.vrf),
                "prefix": route.prefix.to_string(),
                "next_hops": route.next_hops.iter().map(|hop| self.next_hop(hop)).collect::<Vec<_>>(),
            }),
            Status::Neighbour(neighbour) => json!({
                "interface": self.port(neighbour.port),
                "address": neighbour.address,
                "state": match neighbour.state {
                    None => "resolving",
                    Some(NeighbourState::Failed) => "failed",
                    Some(NeighbourState::Resolved(_)) => "resolved",
                },
                "link_address": match neighbour.state {
                    Some(NeighbourState::Resolved(bytes)) => Some(link_address(bytes)),
                    _ => None,
                },
            }),
            Status::Policy(policy) => {
                let policy = &policy.policy;
                json!({
                    "vrf": self.vrf(policy.vrf),
                    "priority": policy.priority,
                    "action": match policy.action {
                        PolicyAction::Protect(_) => "protect",
                        PolicyAction::Bypass => "bypass",
                        PolicyAction::Discard => "discard",
                    },
                    "tunnel": match policy.action { PolicyAction::Protect(id) => Some(self.tunnel(id)), _ => None },
                    "local": endpoint(&policy.selector.local),
                    "remote": endpoint(&policy.selector.remote),
                    "protocol": match policy.selector.protocol { ProtocolMatch::Any => None, ProtocolMatch::Only(number) => Some(number) },
                })
            }
            Status::Label(label) => json!({
                "space": label.ilm.space.0,
                "label": label.ilm.label.value(),
                "next_hops": self.label_operation(&label.ilm.operation),
                "source": if self.installer.wants(&Object::Label(label.ilm.space, label.ilm.label)) {
                    "configuration"
                } else {
                    "fpm"
                },
                "packets": label.packets,
                "bytes": label.bytes,
            }),
            // Told to the client that follows packets, with names of its own.
            Status::Trace(_) => Value::Null,
            Status::Vrf(vrf) => json!({
                "vrf": self.vrf_name(vrf),
                "id": vrf.vrf.0,
                "ports": self.gateway.ports.iter().filter(|port| self.port_vrf(port) == vrf.vrf)
                    .map(|port| port.interface.as_str()).collect::<Vec<_>>(),
                "routes_v4": vrf.routes_v4,
                "routes_v6": vrf.routes_v6,
                "packets": vrf.packets,
                "bytes": vrf.bytes,
            }),
            Status::Worker(worker) => json!({
                "worker": worker.worker,
                "cpu": worker.cpu,
                "frames": worker.frames,
                "huge_pages": worker.huge_pages,
            }),
        }
    }

    /// The name of a table.
    #[must_use]
    pub fn vrf_name(&self, vrf: &southbound::VrfStatus) -> String {
        if vrf.name.is_empty() {
            self.vrf(vrf.vrf)
        } else {
            vrf.name.clone()
        }
    }

    /// A worker's record with its counters.
    #[must_use]
    pub fn worker(&self, status: &Status, blocks: &[WorkerBlock]) -> Value {
        let mut record = self.record(status);
        if let (Status::Worker(worker), Some(fields)) = (status, record.as_object_mut())
            && let Some(block) = blocks.get(usize::from(worker.worker))
        {
            for counter in WorkerCounter::ALL {
                fields.insert(counter.name().into(), block.worker(*counter).into());
            }
            let drops: u64 = DropReason::ALL.iter().map(|reason| block.drops(*reason)).sum();
            fields.insert("dropped_packets".into(), drops.into());
        }
        record
    }

    /// A port's record with its counters, a VLAN's packets being its parent's as well.
    #[must_use]
    pub fn port_use(&self, status: &Status, blocks: &[WorkerBlock]) -> Value {
        let mut record = self.record(status);
        if let (Status::Port(port), Some(fields)) = (status, record.as_object_mut()) {
            let slot = usize::from(port.slot);
            for counter in PortCounter::ALL.iter().filter(|_| slot < PORT_SLOTS) {
                let sum: u64 = blocks.iter().map(|block| block.port(slot, *counter)).sum();
                fields.insert(counter.name().into(), sum.into());
            }
        }
        record
    }

    /// Every drop reason, those that never happened too.
    #[must_use]
    pub fn drops(blocks: &[WorkerBlock]) -> Vec<Value> {
        DropReason::ALL
            .iter()
            .map(|reason| {
                json!({
                    "stage": reason.stage().name(),
                    "reason": reason.name(),
                    "packets": blocks.iter().map(|block| block.drops(*reason)).sum::<u64>(),
                    "help": reason.help().trim(),
                })
            })
            .collect()
    }

    fn tunnel(&self, id: southbound::TunnelId) -> String {
        self.installer
            .tunnel_name(id)
            .map_or_else(|| format!("#{}", id.0), str::to_owned)
    }

    fn port(&self, id: southbound::PortId) -> String {
        self.installer
            .port_name(id)
            .map_or_else(|| format!("#{}", id.0), str::to_owned)
    }

    fn port_vrf(&self, port: &Port) -> VrfId {
        let followed = self
            .installer
            .port_id(&port.interface)
            .and_then(|id| self.desired.followed_vrf(id));
        followed.unwrap_or(port.vrf)
    }

    fn vrf(&self, vrf: VrfId) -> String {
        if vrf == VrfId::MAIN {
            return "main".into();
        }
        self.desired
            .vrf_name(vrf)
            .map_or_else(|| format!("#{}", vrf.0), str::to_owned)
    }

    fn nhlfe(&self, nhlfe: &Nhlfe) -> String {
        let labels = nhlfe
            .stack
            .labels()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("/");
        let way = match nhlfe.via {
            LabelVia::Port { port, gateway } => format!("via {gateway} dev {}", self.port(port)),
            LabelVia::Tunnel(tunnel) => format!("tunnel {}", self.tunnel(tunnel)),
        };
        if labels.is_empty() {
            way
        } else {
            format!("labels {labels} {way}")
        }
    }

    fn label_operation(&self, operation: &LabelOperation) -> Vec<String> {
        match operation {
            LabelOperation::PopAndLookup(vrf) => vec![format!("vrf {}", self.vrf(*vrf))],
            LabelOperation::Pop => vec!["pop".into()],
            LabelOperation::Forward { next_hops, .. } => {
                next_hops.iter().map(|nhlfe| self.nhlfe(nhlfe)).collect()
            }
            LabelOperation::Host => vec!["host".into()],
            LabelOperation::Discard => vec!["discard".into()],
        }
    }

    fn next_hop(&self, hop: &NextHop) -> String {
        match hop {
            NextHop::Port {
                port,
                gateway: Some(gateway),
            } => format!("via {gateway} dev {}", self.port(*port)),
            NextHop::Port { port, gateway: None } => format!("dev {}", self.port(*port)),
            NextHop::Tunnel(tunnel) => format!("tunnel {}", self.tunnel(*tunnel)),
            NextHop::Labelled(nhlfe) => self.nhlfe(nhlfe),
            NextHop::Vrf(vrf) => format!("vrf {}", self.vrf(*vrf)),
            NextHop::Local => "local".into(),
            NextHop::Kernel => "kernel".into(),
            NextHop::Unreachable => "unreachable".into(),
            NextHop::Blackhole => "blackhole".into(),
        }
    }
}

/// How a tunnel stands; some of its SAs may be refused.
#[must_use]
pub fn tunnel_state(tunnel: &TunnelStatus, is_refused: bool) -> &'static str {
    match (&tunnel.outbound, is_refused) {
        (Some(_), false) => "up",
        (Some(_), true) => "degraded",
        (None, true) => "refused",
        (None, false) => "down",
    }
}

fn spi(spi: u32) -> String {
    format!("{spi:#010x}")
}

fn link_address(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn endpoint(endpoint: &Endpoint) -> String {
    let addresses = if endpoint.addresses.first == endpoint.addresses.last {
        endpoint.addresses.first.to_string()
    } else {
        format!("{}-{}", endpoint.addresses.first, endpoint.addresses.last)
    };
    if endpoint.matches_any_port() {
        addresses
    } else {
        format!("{addresses}[{}-{}]", endpoint.ports.first, endpoint.ports.last)
    }
}
