//! Watching single packets on their way: for an operator who asks what becomes of them.

use serde::{Deserialize, Serialize};

use crate::{IpPrefix, TunnelId};

/// Most bytes that are kept of a packet at each end of its way.
pub const MAX_SNAP_BYTES: u16 = 2048;

/// Which packets are watched: those for which everything that is named holds, at any point of their way. So a
/// filter for an inner address finds a packet that came in encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFilter {
    /// Source or destination.
    pub prefix: Option<IpPrefix>,
    /// The upper protocol.
    pub protocol: Option<u8>,
    /// Source or destination port.
    pub port: Option<u16>,
    /// A label of its stack.
    pub label: Option<u32>,
    /// Only packets that are dropped.
    pub drops_only: bool,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSpec {
    /// Which packets.
    pub filter: TraceFilter,
    /// How many of them, by each worker.
    pub packets: u32,
    /// Bytes kept at each end, at most [`MAX_SNAP_BYTES`].
    pub snap_bytes: u16,
}

/// Where a watched packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TracePoint {
    /// A port, by its slot ([`crate::PortStatus::slot`]); its bytes begin with the Ethernet header.
    Port(u16),
    /// The host, over the TAP; its bytes begin with the IP header.
    Host,
    /// This gateway made it, or it waited and went on; its bytes begin with the IP header.
    Gateway,
}

/// A packet at one end of its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEnd {
    /// Where.
    pub point: TracePoint,
    /// Its whole length.
    pub length_bytes: u32,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

/// A step: what a stage decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The stage.
    pub stage: String,
    /// Where the packet went next.
    pub next: String,
    /// The label stack that it went there under, top first, each entry as on the wire (RFC 3032 section 2.1).
    pub labels: Vec<u32>,
}

/// A packet's way through one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// The worker.
    pub worker: u16,
    /// When, in nanoseconds of the epoch.
    pub at_ns: u64,
    /// How it came.
    pub entry: TraceEnd,
    /// What became of it, stage by stage.
    pub steps: Vec<TraceStep>,
    /// How it left; `None` where it was dropped, waits, or became part of another packet.
    pub exit: Option<TraceEnd>,
    /// The name of the reason why it was dropped.
    pub reason: Option<String>,
    /// The tunnel that it came out of.
    pub out_of: Option<TunnelId>,
    /// The tunnel that it went into.
    pub into: Option<TunnelId>,
    /// Watched packets before this one that found no room.
    pub lost: u64,
}
