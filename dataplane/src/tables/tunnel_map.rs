//! Which tunnel a packet in GRE, IP or UDP came out of: by its ends, the kind of header and the key.

use std::collections::HashMap;
use std::net::IpAddr;

use southbound::Encapsulation;

use super::VrfIndex;
use crate::sa::TunnelIndex;

/// The header between outer and inner packet, as it tells tunnels apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelHeader {
    /// None: IP or labels directly.
    Ip,
    /// GRE, with its key.
    Gre(Option<u32>),
    /// UDP to port 6635.
    Udp,
}

impl TunnelHeader {
    /// That of a tunnel; none for ESP alone.
    #[must_use]
    pub fn of(encapsulation: Encapsulation) -> Option<Self> {
        match encapsulation {
            Encapsulation::Esp => None,
            Encapsulation::Ip => Some(Self::Ip),
            Encapsulation::Gre { key, .. } => Some(Self::Gre(key)),
            Encapsulation::Udp => Some(Self::Udp),
        }
    }
}

/// What a received packet shows of its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelEnds {
    /// The table in which its outer destination is ours.
    pub vrf: VrfIndex,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// The header.
    pub header: TunnelHeader,
}

/// Tunnels by their ends; made whole by the writer and replaced whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct TunnelMap {
    tunnels: HashMap<TunnelEnds, TunnelIndex>,
}

impl TunnelMap {
    pub(crate) fn new(tunnels: HashMap<TunnelEnds, TunnelIndex>) -> Self {
        Self { tunnels }
    }

    #[inline]
    pub(crate) fn find(&self, ends: &TunnelEnds) -> Option<TunnelIndex> {
        self.tunnels.get(ends).copied()
    }
}
