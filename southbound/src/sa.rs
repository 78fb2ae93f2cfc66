//! Security associations as the dataplane takes them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{KeyMaterial, SaDirection, SaRef, SelectorPair, Transform, TunnelId};

/// Tunnel or transport mode (RFC 4301 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The whole inner packet is protected, within an outer IP header of the gateways.
    Tunnel,
    /// The payload of a packet between the two ends themselves is protected.
    Transport,
}

/// ESP in UDP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UdpEncapsulation {
    /// Our port, usually 4500.
    pub local_port: u16,
    /// The peer's port as seen here, which a NAT may have changed.
    pub remote_port: u16,
    /// Send a UDP checksum instead of zero. Zero is usual over IPv4 (RFC 3948 section 2.1) and allowed over
    /// IPv6 for tunnels (RFC 6935 section 5), where some middleboxes drop it.
    pub checksum: bool,
}

/// A limit that an SA's use is measured against; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LifetimeLimit {
    /// Bytes of inner packets.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Seconds since installation.
    pub seconds: Option<u64>,
}

/// When an SA should be replaced and when it must stop (RFC 4301 section 4.4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lifetime {
    /// Crossing it raises [`crate::Event::LifetimeReached`] once; traffic goes on.
    pub soft: LifetimeLimit,
    /// Crossing it stops the SA.
    pub hard: LifetimeLimit,
}

/// The width of the anti-replay window in packets (RFC 4303 section 3.4.3): 64 to 65536, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ReplayWindow(u32);

/// A width that no window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a replay window is a power of two from 64 to 65536 packets")]
pub struct ReplayWindowError;

impl ReplayWindow {
    /// What an SA gets that names none.
    pub const DEFAULT: Self = Self(4096);

    /// A window of `packets`.
    ///
    /// # Errors
    /// [`ReplayWindowError`] where `packets` is not a power of two from 64 to 65536.
    pub const fn new(packets: u32) -> Result<Self, ReplayWindowError> {
        if packets >= 64 && packets <= 65536 && packets.is_power_of_two() {
            Ok(Self(packets))
        } else {
            Err(ReplayWindowError)
        }
    }

    /// The width in packets.
    #[must_use]
    pub const fn packets(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for ReplayWindow {
    type Error = ReplayWindowError;

    fn try_from(packets: u32) -> Result<Self, Self::Error> {
        Self::new(packets)
    }
}

impl From<ReplayWindow> for u32 {
    fn from(window: ReplayWindow) -> Self {
        window.packets()
    }
}

/// One security association, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaSpec {
    /// Which way it carries traffic.
    pub direction: SaDirection,
    /// The SPI on the wire.
    pub spi: u32,
    /// The tunnel whose traffic it carries; the tunnel must exist.
    pub tunnel: TunnelId,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// Outer addresses: ours.
    pub local: IpAddr,
    /// Outer addresses: the peer's. Inbound SAs accept any source (RFC 4301 section 4.1: the SPI alone
    /// selects) and report a change of it as [`crate::Event::PeerMoved`].
    pub remote: IpAddr,
    /// Ports, where ESP travels in UDP.
    pub udp: Option<UdpEncapsulation>,
    /// Cipher and integrity.
    pub transform: Transform,
    /// Exactly [`Transform::key_bytes`] bytes.
    pub key: KeyMaterial,
    /// Extended (64-bit) sequence numbers (RFC 4303 section 2.2.1).
    pub extended_sequence_numbers: bool,
    /// Anti-replay, where wanted; always for inbound SAs of a counter mode negotiated by IKE.
    pub replay_window: Option<ReplayWindow>,
    /// What an inbound packet must match after decryption (RFC 4301 section 5.2, step 4); empty for
    /// outbound SAs.
    pub selectors: Vec<SelectorPair>,
    /// Limits of use.
    pub lifetime: Lifetime,
    /// The first outbound sequence number less one; 0 for a fresh key.
    pub last_sequence: u64,
}

impl SaSpec {
    /// The name of this SA.
    #[must_use]
    pub fn reference(&self) -> SaRef {
        let destination = match self.direction {
            SaDirection::Inbound => self.local,
            SaDirection::Outbound => self.remote,
        };
        SaRef {
            direction: self.direction,
            spi: self.spi,
            destination,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_widths_are_powers_of_two_within_bounds() {
        for packets in [64, 128, 1024, 4096, 65536] {
            assert_eq!(ReplayWindow::new(packets).unwrap().packets(), packets);
        }
        for packets in [0, 1, 32, 63, 65, 100, 65537, 131_072] {
            assert_eq!(ReplayWindow::new(packets), Err(ReplayWindowError), "{packets}");
        }
    }
}
