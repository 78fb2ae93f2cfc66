//! What the control process tells the dataplane.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    ClassMapId, ClassMapSpec, IlmSpec, IpPrefix, Label, LabelSpaceId, LocalAddress, Neighbour, PolicyDefault,
    PolicyId, PolicySpec, PortId, PortSpec, RouteSpec, SaRef, SaSpec, TunnelId, TunnelSpec, VrfId, VrfSpec,
};

/// An idempotent change. `Put` creates or replaces; removing what is not there succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// A port should be there; it comes up when its interface does.
    PutPort(PortSpec),
    /// A port should go: its XDP program is detached and its frames come home.
    RemovePort(PortId),
    /// An address of this gateway.
    PutLocalAddress(LocalAddress),
    /// An address that left.
    RemoveLocalAddress(LocalAddress),
    /// What the kernel knows of a neighbour.
    PutNeighbour(Neighbour),
    /// A neighbour that the kernel forgot.
    RemoveNeighbour {
        /// The port it was behind.
        port: PortId,
        /// Its address.
        address: IpAddr,
    },
    /// A route.
    PutRoute(RouteSpec),
    /// A route that left.
    RemoveRoute {
        /// The table it was in.
        vrf: VrfId,
        /// Its destinations.
        prefix: IpPrefix,
    },
    /// A tunnel.
    PutTunnel(TunnelSpec),
    /// A tunnel that left, with its SAs.
    RemoveTunnel(TunnelId),
    /// An SA, whole. Installed again with the same key it only changes addresses, ports, selectors and
    /// lifetime; with another key under the same name it is refused.
    InstallSa(SaSpec),
    /// An SA that should stop.
    RemoveSa(SaRef),
    /// An installed SA goes on as it is through this resynchronisation: a control process that was restarted
    /// no longer knows its key, and it serves until it is replaced.
    KeepSa(SaRef),
    /// The outbound SA that a tunnel uses from now on, but for workers with one of their own.
    SelectOutbound {
        /// The tunnel.
        tunnel: TunnelId,
        /// One of its installed outbound SAs.
        sa: SaRef,
    },
    /// The outbound SA that one worker uses for a tunnel from now on, instead of the one that all use (RFC 9611). It
    /// ends with the SA.
    SelectForWorker {
        /// The tunnel.
        tunnel: TunnelId,
        /// The worker's number, below [`crate::MAX_WORKERS`]. One that is not there never uses it.
        worker: u16,
        /// One of the tunnel's installed outbound SAs.
        sa: SaRef,
    },
    /// A rule of the SPD.
    PutPolicy(PolicySpec),
    /// A rule that left.
    RemovePolicy(PolicyId),
    /// A routing table's name.
    PutVrf(VrfSpec),
    /// A routing table that left. What is in it is removed by updates of its own.
    RemoveVrf(VrfId),
    /// What is done with a label.
    PutIlm(IlmSpec),
    /// A label that is taken no longer.
    RemoveIlm {
        /// Its space.
        space: LabelSpaceId,
        /// The label.
        label: Label,
    },
    /// A mapping of traffic classes.
    PutClassMap(ClassMapSpec),
    /// A mapping that left.
    RemoveClassMap(ClassMapId),
    /// What becomes of packets that no rule of a table matches.
    PutPolicyDefault {
        /// The table.
        vrf: VrfId,
        /// What becomes of them.
        default: PolicyDefault,
    },
    /// The table has no default of its own any more.
    RemovePolicyDefault {
        /// The table.
        vrf: VrfId,
    },
}

/// Why an update was refused; nothing of it took effect.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Rejection {
    /// It names a tunnel that is not there.
    #[error("tunnel {} does not exist", .0.0)]
    UnknownTunnel(TunnelId),
    /// It names a port that is not there.
    #[error("port {} does not exist", .0.0)]
    UnknownPort(PortId),
    /// It names an SA that is not there.
    #[error("{:?} SA with SPI {:#010x} to {} does not exist", .0.direction, .0.spi, .0.destination)]
    UnknownSa(SaRef),
    /// Another key is installed under this name.
    #[error("{:?} SPI {:#010x} is in use with another key", .0.direction, .0.spi)]
    SpiInUse(SaRef),
    /// The SPI is one of the reserved ones, 0 to 255 (RFC 4303 section 2.1).
    #[error("SPI {0} is reserved: 256 and above are free")]
    ReservedSpi(u32),
    /// The key is not as long as the transform wants.
    #[error("the key has {given_bytes} bytes where the transform takes {expected_bytes}")]
    KeyLength {
        /// What came.
        given_bytes: u32,
        /// What was wanted.
        expected_bytes: u32,
    },
    /// The parts of the update contradict each other.
    #[error("inconsistent: {0}")]
    Inconsistent(String),
    /// A table is full.
    #[error("the table of {table} is full at {limit} entries")]
    TableFull {
        /// Which.
        table: String,
        /// Its size.
        limit: u64,
    },
}
