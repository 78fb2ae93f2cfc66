//! What a router says of one of our outer packets, on its way from a worker to the writer, who can tell whether it was
//! ours.

use std::net::IpAddr;

/// An ICMP error "too big" with the outer packet that it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// The quoted packet's source: the tunnel's address here.
    pub source: IpAddr,
    /// The quoted packet's destination: the peer.
    pub destination: IpAddr,
    /// The quoted SPI.
    pub spi: u32,
    /// The low half of the quoted sequence number.
    pub sequence_low: u32,
    /// Length of the quoted packet.
    pub packet_bytes: u16,
    /// The MTU that the router names; 0 where it names none (RFC 1191 section 4).
    pub claimed_bytes: u16,
}

/// How far behind the last number a quoted one may be: a second or so at the highest rates.
const PLAUSIBLE_PACKETS: u64 = 1 << 24;

impl PathReport {
    /// Whether an SA whose last sequence number is `last` sent a packet with this number lately: somebody off the path
    /// can hardly know.
    #[must_use]
    pub fn is_plausible(&self, last: u64) -> bool {
        let behind = u64::from((last as u32).wrapping_sub(self.sequence_low));
        behind < PLAUSIBLE_PACKETS && behind < last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_58_only_numbers_that_were_given_out_lately_are_believed() {
        let report = |sequence_low| PathReport {
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            spi: 0x1000,
            sequence_low,
            packet_bytes: 1500,
            claimed_bytes: 1400,
        };
        assert!(!report(1).is_plausible(0), "nothing was sent yet");
        assert!(report(1).is_plausible(1));
        assert!(report(1).is_plausible(100) && report(100).is_plausible(100));
        assert!(!report(101).is_plausible(100), "not sent yet");
        assert!(!report(0).is_plausible(100), "never sent");
        assert!(
            report(u32::MAX).is_plausible((1 << 32) + 5),
            "across the wrap of the low half"
        );
        assert!(!report(1).is_plausible((1 << 24) + 1), "long ago");
    }
}
