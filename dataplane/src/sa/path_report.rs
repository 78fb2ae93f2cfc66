//! What a router says of one of our outer packets, on its way from a worker to the writer, who can tell whether it was
//! ours.

use std::net::IpAddr;

use crate::tables::{TunnelHeader, VrfIndex};

/// An ICMP error "too big" with the outer packet that it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// The table that the error came by.
    pub vrf: VrfIndex,
    /// The quoted packet's source: the tunnel's address here.
    pub source: IpAddr,
    /// The quoted packet's destination: the peer.
    pub destination: IpAddr,
    /// What stands behind the quoted packet's IP header.
    pub quoted: Quoted,
    /// Length of the quoted packet.
    pub packet_bytes: u16,
    /// The MTU that the router names; 0 where it names none (RFC 1191 section 4).
    pub claimed_bytes: u16,
}

/// The header behind the quoted IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted {
    /// ESP.
    Esp {
        /// Its SPI.
        spi: u32,
        /// The low half of its sequence number.
        sequence_low: u32,
    },
    /// That of a tunnel in the clear.
    Clear(TunnelHeader),
}

/// How far behind the last number a quoted one may be: a second or so at the highest rates.
const PLAUSIBLE_PACKETS: u64 = 1 << 24;

/// Whether an SA whose last sequence number is `last` sent a packet with this number lately: somebody off the path can
/// hardly know.
#[must_use]
pub fn is_plausible(sequence_low: u32, last: u64) -> bool {
    let behind = u64::from((last as u32).wrapping_sub(sequence_low));
    behind < PLAUSIBLE_PACKETS && behind < last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_58_only_numbers_that_were_given_out_lately_are_believed() {
        assert!(!is_plausible(1, 0), "nothing was sent yet");
        assert!(is_plausible(1, 1));
        assert!(is_plausible(1, 100) && is_plausible(100, 100));
        assert!(!is_plausible(101, 100), "not sent yet");
        assert!(!is_plausible(0, 100), "never sent");
        assert!(
            is_plausible(u32::MAX, (1 << 32) + 5),
            "across the wrap of the low half"
        );
        assert!(!is_plausible(1, (1 << 24) + 1), "long ago");
    }
}
