//! What the dataplane answers when asked.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    IpPrefix, LabelStatus, NeighbourState, NextHop, PolicySpec, PortId, SaRef, TraceRecord, Transform,
    TunnelId, VrfId, VrfStatus,
};

/// SAs that a dataplane holds at most, of each direction.
pub const SAD_CAPACITY: usize = 1 << 21;

/// A question; the answer is a list of [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// Every SA.
    Sas,
    /// Every tunnel.
    Tunnels,
    /// Every port.
    Ports,
    /// Every route, as installed.
    Routes,
    /// Every neighbour.
    Neighbours,
    /// Every rule of the SPD.
    Policies,
    /// Every worker.
    Workers,
    /// Packets that were watched since the last such question (see [`crate::TraceSpec`]).
    Traces,
    /// Every entry of the incoming label maps.
    Labels,
    /// Every routing table.
    Vrfs,
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// To [`Query::Sas`].
    Sa(SaStatus),
    /// To [`Query::Tunnels`].
    Tunnel(TunnelStatus),
    /// To [`Query::Ports`].
    Port(PortStatus),
    /// To [`Query::Routes`].
    Route(RouteStatus),
    /// To [`Query::Neighbours`].
    Neighbour(NeighbourStatus),
    /// To [`Query::Policies`].
    Policy(PolicyStatus),
    /// To [`Query::Workers`].
    Worker(WorkerStatus),
    /// To [`Query::Traces`].
    Trace(TraceRecord),
    /// To [`Query::Labels`].
    Label(LabelStatus),
    /// To [`Query::Vrfs`].
    Vrf(VrfStatus),
}

/// An SA and its use. No key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaStatus {
    /// Its name.
    pub sa: SaRef,
    /// Its tunnel.
    pub tunnel: TunnelId,
    /// Cipher and integrity.
    pub transform: Transform,
    /// Whether it is an outbound SA that its tunnel uses.
    pub selected: bool,
    /// The worker that alone sends with it (RFC 9611).
    pub worker: Option<u16>,
    /// Whether a hard limit stopped it.
    pub expired: bool,
    /// Packets carried.
    pub packets: u64,
    /// Bytes of inner packets carried.
    pub bytes: u64,
    /// Outbound: the last sequence number used. Inbound: the highest one accepted.
    pub sequence: u64,
    /// Sequence numbers after it until the last that there is.
    pub remaining_sequence: u64,
    /// Packets dropped as replayed or too old.
    pub replay_drops: u64,
    /// Packets whose ICV was wrong.
    pub integrity_failures: u64,
    /// Packets whose inner header no selector covers.
    pub selector_drops: u64,
    /// Seconds since installation.
    pub age_seconds: u64,
}

/// What a tunnel carried, over all the SAs that it ever had in this instance of the dataplane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelTotals {
    /// Packets opened and accepted.
    pub in_packets: u64,
    /// Bytes of inner packets opened and accepted.
    pub in_bytes: u64,
    /// Packets sealed.
    pub out_packets: u64,
    /// Bytes of inner packets sealed.
    pub out_bytes: u64,
    /// Packets dropped as replayed, too old, damaged or outside the selectors.
    pub drop_packets: u64,
}

impl std::ops::AddAssign for TunnelTotals {
    fn add_assign(&mut self, other: Self) {
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
        self.out_packets += other.out_packets;
        self.out_bytes += other.out_bytes;
        self.drop_packets += other.drop_packets;
    }
}

/// A tunnel and what its path allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Its name in updates.
    pub tunnel: TunnelId,
    /// Its name for people.
    pub name: String,
    /// The outbound SA in use.
    pub outbound: Option<SaRef>,
    /// Largest outer packet in bytes.
    pub outer_mtu_bytes: u16,
    /// Largest inner packet in bytes.
    pub inner_mtu_bytes: u16,
    /// What it carried.
    pub totals: TunnelTotals,
}

/// Where a port is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PortPhase {
    /// No interface of that name.
    Absent,
    /// The interface is there and down.
    LinkDown,
    /// Sockets are being bound.
    Binding,
    /// Carrying traffic.
    Up,
    /// On its way out: frames are coming home.
    Draining,
    /// Refused; `PortStatus::error` says why.
    Refused,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum XdpMode {
    /// In the driver.
    Driver,
    /// In the kernel's generic hook.
    Generic,
}

/// How packets reach user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CopyMode {
    /// The NIC writes into the UMEM.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// Which VLAN a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VlanStatus {
    /// The port that carries it.
    pub parent: PortId,
    /// Its identifier, 1 to 4094.
    pub id: u16,
}

/// A port as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its name in updates.
    pub port: PortId,
    /// Its place among the counters of ports (`CounterLayout::port_cell`).
    pub slot: u16,
    /// The interface.
    pub interface: String,
    /// Which VLAN of which port, where it is one.
    pub vlan: Option<VlanStatus>,
    /// Its phase.
    pub phase: PortPhase,
    /// Where the program runs, once attached.
    pub xdp: Option<XdpMode>,
    /// What each queue was granted, in order of queue.
    pub queues: Vec<CopyMode>,
    /// The interface's MTU in bytes.
    pub mtu_bytes: u16,
    /// How often it was bound anew.
    pub rebinds: u64,
    /// Why it is refused or last failed.
    pub error: Option<String>,
}

/// A route as installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The table.
    pub vrf: VrfId,
    /// The destinations.
    pub prefix: IpPrefix,
    /// Where to.
    pub next_hops: Vec<NextHop>,
    /// Their shares; empty where all have the same.
    pub weights: Vec<u8>,
}

/// A neighbour as installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourStatus {
    /// The port it is behind.
    pub port: PortId,
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address; `None` while it is being resolved.
    pub state: Option<NeighbourState>,
}

/// A rule and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The rule.
    pub policy: PolicySpec,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number, which is also its block in the counters.
    pub worker: u16,
    /// The CPU it is pinned to.
    pub cpu: u16,
    /// Frames of its UMEM.
    pub frames: u32,
    /// Whether the UMEM lies in huge pages.
    pub huge_pages: bool,
}
