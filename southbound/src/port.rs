//! Ports: the interfaces under the dataplane.

use serde::{Deserialize, Serialize};

use crate::{LabelSpaceId, PortId, VrfId};

/// What side of the gateway a port is on, which decides what the XDP program steers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PortRole {
    /// The plain side: packets through the gateway are taken over as well as tunnel traffic.
    Protected,
    /// The tunnel side: only tunnel traffic to this gateway is taken over.
    Internet,
    /// Carries VLANs that are ports; untagged packets are left to the kernel.
    Trunk,
}

/// Which XDP attachment is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum XdpPreference {
    /// Best first: zero-copy driver, copying driver, generic.
    #[default]
    Auto,
    /// The driver's hook, with or without copies.
    Driver,
    /// The kernel's generic hook.
    Generic,
}

/// One port: a device with sockets of its own, or a VLAN of one (IEEE 802.1Q).
///
/// Which of the two it is says the kernel: an interface that is a VLAN link there is a port of its own under
/// the port of its parent, with its own role, routing table, address, MTU and counters. The dataplane reads
/// parent and VLAN identifier from the kernel's link itself, so that both may change while the control process
/// is away. A VLAN whose parent is no port is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Its name in updates.
    pub id: PortId,
    /// The interface's name; it may come later or go and return.
    pub interface: String,
    /// Its side.
    pub role: PortRole,
    /// The routing table of packets that it receives.
    pub vrf: VrfId,
    /// The attachment to try; a VLAN has its parent's.
    pub xdp: XdpPreference,
    /// Refuse the port where the driver does not grant zero-copy on every queue; a VLAN has its parent's.
    pub require_zero_copy: bool,
    /// Take labelled packets (EtherType 0x8847) over, in this label space; without one they stay with the kernel, and
    /// none are sent by this port.
    pub mpls: Option<LabelSpaceId>,
}
