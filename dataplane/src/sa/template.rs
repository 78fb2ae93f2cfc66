//! The outer headers of an outbound SA, written once and copied before each packet.

use std::net::IpAddr;

use southbound::{Mode, SaSpec, UdpEncapsulation};
use wire::checksum::Sum;

const IPV4_BYTES: u8 = 20;
const IPV6_BYTES: u8 = 40;
const UDP_BYTES: u8 = 8;
const SPI_BYTES: u8 = 4;
const ESP_PROTOCOL: u8 = 50;
const UDP_PROTOCOL: u8 = 17;

/// IP header, UDP header where ESP travels in UDP, and the SPI; in transport mode only UDP header and SPI.
///
/// Lengths, the traffic class, the IPv4 identification, fragment word, TTL and checksum are zero: they are
/// each packet's. So is the UDP checksum, which most SAs leave zero (RFC 3948 section 2.1; RFC 6935 for IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterTemplate {
    bytes: [u8; Self::MAX_BYTES],
    /// One's-complement sum of the IPv4 header as it stands here.
    header_sum: u16,
    ip_bytes: u8,
    udp_bytes: u8,
    udp_checksum: bool,
}

impl OuterTemplate {
    /// The longest template: IPv6, UDP, SPI.
    pub const MAX_BYTES: usize = (IPV6_BYTES + UDP_BYTES + SPI_BYTES) as usize;

    /// The headers of `spec`.
    #[must_use]
    pub fn new(spec: &SaSpec) -> Self {
        let mut template = Self {
            bytes: [0; Self::MAX_BYTES],
            header_sum: 0,
            ip_bytes: 0,
            udp_bytes: 0,
            udp_checksum: spec.udp.is_some_and(|udp| udp.checksum),
        };
        if spec.mode == Mode::Tunnel {
            template.write_ip(spec.local, spec.remote, spec.udp.is_some());
        }
        if let Some(udp) = spec.udp {
            template.write_udp(udp);
        }
        let start = usize::from(template.ip_bytes + template.udp_bytes);
        template.bytes[start..start + 4].copy_from_slice(&spec.spi.to_be_bytes());
        template
    }

    /// Everything before the sequence number.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.ip_bytes + self.udp_bytes + SPI_BYTES)]
    }

    /// Its first `N` bytes, of which [`Self::bytes`] are meant.
    #[inline]
    #[must_use]
    pub fn first<const N: usize>(&self) -> &[u8; N] {
        const { assert!(N <= Self::MAX_BYTES) };
        match self.bytes.first_chunk() {
            Some(first) => first,
            None => unreachable!("N was compared at compile time"),
        }
    }

    /// What the constant part of the IPv4 header adds to its checksum, so that no packet's header is read back.
    #[inline]
    #[must_use]
    pub fn header_sum(&self) -> u16 {
        self.header_sum
    }

    /// Bytes of the IP header: 20, 40, or none in transport mode.
    #[inline]
    #[must_use]
    pub fn ip_bytes(&self) -> usize {
        usize::from(self.ip_bytes)
    }

    /// Bytes of the UDP header: 8 or none.
    #[inline]
    #[must_use]
    pub fn udp_bytes(&self) -> usize {
        usize::from(self.udp_bytes)
    }

    /// Whether its packets are sent with a UDP checksum.
    #[inline]
    #[must_use]
    pub fn has_udp_checksum(&self) -> bool {
        self.udp_checksum
    }

    /// Whether the outer header is IPv6 (false in transport mode).
    #[inline]
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.ip_bytes == IPV6_BYTES
    }

    fn write_ip(&mut self, local: IpAddr, remote: IpAddr, in_udp: bool) {
        let protocol = if in_udp { UDP_PROTOCOL } else { ESP_PROTOCOL };
        match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                self.ip_bytes = IPV4_BYTES;
                self.bytes[0] = 0x45;
                self.bytes[9] = protocol;
                self.bytes[12..16].copy_from_slice(&local.octets());
                self.bytes[16..20].copy_from_slice(&remote.octets());
                self.header_sum = !Sum::new().bytes(&self.bytes[..20]).checksum();
            }
            // Both are of one family: checked where the SA is installed.
            (local, remote) => {
                self.ip_bytes = IPV6_BYTES;
                self.bytes[0] = 0x60;
                self.bytes[6] = protocol;
                self.bytes[8..24].copy_from_slice(&octets(local));
                self.bytes[24..40].copy_from_slice(&octets(remote));
            }
        }
    }

    fn write_udp(&mut self, udp: UdpEncapsulation) {
        self.udp_bytes = UDP_BYTES;
        let start = usize::from(self.ip_bytes);
        self.bytes[start..start + 2].copy_from_slice(&udp.local_port.to_be_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&udp.remote_port.to_be_bytes());
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
