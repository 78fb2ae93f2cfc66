//! What the dataplane tells the control process unasked.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{PortId, SaRef, TunnelId};

/// Which of an SA's limits was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LifetimeKind {
    /// The SA should be replaced.
    Soft,
    /// The SA has stopped.
    Hard,
}

/// An event; events of one kind about one object are raised once until it changes, so that a flood of
/// packets is not a flood of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A packet wants a tunnel that has no outbound SA.
    Acquire {
        /// The tunnel.
        tunnel: TunnelId,
        /// Inner source of the packet that asked.
        source: IpAddr,
        /// Inner destination of the packet that asked.
        destination: IpAddr,
        /// Its IP protocol.
        protocol: u8,
        /// Its ports, where it has any.
        ports: Option<(u16, u16)>,
    },
    /// A worker sends through a tunnel that wants an SA for each, and has none of its own (RFC 9611): until it has, it
    /// uses the one of all.
    WorkerAcquire {
        /// The tunnel.
        tunnel: TunnelId,
        /// The worker's number.
        worker: u16,
    },
    /// An SA crossed a limit of bytes, packets or seconds.
    LifetimeReached {
        /// The SA.
        sa: SaRef,
        /// Which limit.
        kind: LifetimeKind,
    },
    /// An outbound SA has few sequence numbers left; it stops at the last one (RFC 4303 section 3.3.3).
    SequenceNearEnd {
        /// The SA.
        sa: SaRef,
        /// How many numbers are left.
        remaining: u64,
    },
    /// A packet waits for the link-layer address of a neighbour.
    NeighbourNeeded {
        /// The egress port.
        port: PortId,
        /// Whom to ask for.
        address: IpAddr,
    },
    /// An authenticated ICMP error, or the egress port, changed the path MTU of a tunnel.
    PathMtuChanged {
        /// The tunnel.
        tunnel: TunnelId,
        /// Largest outer packet in bytes.
        outer_mtu_bytes: u16,
    },
    /// An authentic, fresh packet of an SA came from another outer address or port than expected
    /// (RFC 7296 section 2.23).
    PeerMoved {
        /// The inbound SA.
        sa: SaRef,
        /// The address it came from.
        address: IpAddr,
        /// The UDP port it came from, for ESP in UDP.
        port: Option<u16>,
    },
    /// A port changed its phase or what the driver granted: query it.
    PortChanged {
        /// The port.
        port: PortId,
    },
    /// Events were lost because the reader was slow: query what matters.
    EventsLost {
        /// How many.
        count: u64,
    },
}
