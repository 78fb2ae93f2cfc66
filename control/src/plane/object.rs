//! Names of what the dataplane holds.

use std::fmt;
use std::net::IpAddr;

use southbound::{
    ClassMapId, IpPrefix, Label, LabelSpaceId, LocalAddress, PolicyId, PortId, SaRef, TunnelId, Update, VrfId,
};

/// An object of the dataplane. The order of the variants is the order of installation: nothing names what
/// comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A routing table's name.
    Vrf(VrfId),
    /// A mapping of traffic classes.
    ClassMap(ClassMapId),
    /// A port.
    Port(PortId),
    /// An address of this gateway.
    LocalAddress(VrfId, IpAddr),
    /// A neighbour.
    Neighbour(PortId, IpAddr),
    /// A tunnel.
    Tunnel(TunnelId),
    /// An SA.
    Sa(SaRef),
    /// The outbound SA that a tunnel uses.
    Outbound(TunnelId),
    /// The outbound SA that one worker uses for a tunnel.
    WorkerOutbound(TunnelId, u16),
    /// A route.
    Route(VrfId, IpPrefix),
    /// What is done with a label.
    Label(LabelSpaceId, Label),
    /// What becomes of packets that no rule of a table matches.
    PolicyDefault(VrfId),
    /// A rule of the SPD.
    Policy(PolicyId),
}

impl Object {
    /// The object that an update brings about; `None` for removals.
    #[must_use]
    pub fn of(update: &Update) -> Option<Self> {
        Some(match update {
            Update::PutVrf(vrf) => Self::Vrf(vrf.id),
            Update::PutClassMap(map) => Self::ClassMap(map.id),
            Update::PutIlm(ilm) => Self::Label(ilm.space, ilm.label),
            Update::PutPort(port) => Self::Port(port.id),
            Update::PutLocalAddress(local) => Self::LocalAddress(local.vrf, local.address),
            Update::PutNeighbour(neighbour) => Self::Neighbour(neighbour.port, neighbour.address),
            Update::PutTunnel(tunnel) => Self::Tunnel(tunnel.id),
            Update::InstallSa(sa) => Self::Sa(sa.reference()),
            Update::KeepSa(sa) => Self::Sa(*sa),
            Update::SelectOutbound { tunnel, .. } => Self::Outbound(*tunnel),
            Update::SelectForWorker { tunnel, worker, .. } => Self::WorkerOutbound(*tunnel, *worker),
            Update::PutRoute(route) => Self::Route(route.vrf, route.prefix),
            Update::PutPolicyDefault { vrf, .. } => Self::PolicyDefault(*vrf),
            Update::PutPolicy(policy) => Self::Policy(policy.id),
            _ => return None,
        })
    }

    /// The update that takes it away; `None` where it goes with what it belongs to.
    #[must_use]
    pub fn removal(&self) -> Option<Update> {
        Some(match *self {
            Self::Vrf(vrf) => Update::RemoveVrf(vrf),
            Self::ClassMap(map) => Update::RemoveClassMap(map),
            Self::Label(space, label) => Update::RemoveIlm { space, label },
            Self::Port(port) => Update::RemovePort(port),
            Self::LocalAddress(vrf, address) => Update::RemoveLocalAddress(LocalAddress {
                vrf,
                address,
                port: None,
            }),
            Self::Neighbour(port, address) => Update::RemoveNeighbour { port, address },
            Self::Tunnel(tunnel) => Update::RemoveTunnel(tunnel),
            Self::Sa(sa) => Update::RemoveSa(sa),
            Self::Outbound(_) | Self::WorkerOutbound(..) => return None,
            Self::Route(vrf, prefix) => Update::RemoveRoute { vrf, prefix },
            Self::PolicyDefault(vrf) => Update::RemovePolicyDefault { vrf },
            Self::Policy(policy) => Update::RemovePolicy(policy),
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vrf(vrf) => write!(formatter, "table {}", vrf.0),
            Self::ClassMap(map) => write!(formatter, "class map {}", map.0),
            Self::Label(space, label) => write!(formatter, "label {label} of space {}", space.0),
            Self::Port(port) => write!(formatter, "port {}", port.0),
            Self::LocalAddress(_, address) => write!(formatter, "local address {address}"),
            Self::Neighbour(port, address) => write!(formatter, "neighbour {address} on port {}", port.0),
            Self::Tunnel(tunnel) => write!(formatter, "tunnel {}", tunnel.0),
            Self::Sa(sa) => write!(
                formatter,
                "{} SA {:#010x} to {}",
                match sa.direction {
                    southbound::SaDirection::Inbound => "inbound",
                    southbound::SaDirection::Outbound => "outbound",
                },
                sa.spi,
                sa.destination
            ),
            Self::Outbound(tunnel) => write!(formatter, "choice of SA of tunnel {}", tunnel.0),
            Self::WorkerOutbound(tunnel, worker) => {
                write!(
                    formatter,
                    "choice of SA of tunnel {} for worker {worker}",
                    tunnel.0
                )
            }
            Self::Route(vrf, prefix) => write!(formatter, "route {prefix} in table {}", vrf.0),
            Self::PolicyDefault(vrf) => write!(formatter, "default of policies in table {}", vrf.0),
            Self::Policy(policy) => write!(formatter, "policy {}", policy.0),
        }
    }
}
