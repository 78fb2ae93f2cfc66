//! NAT detection (RFC 7296 section 2.23).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest;

use crate::payload::Payload;
use crate::payload::notify::{NotifyPayload, NotifyType};

/// Where a NAT stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Nat {
    /// Between us and the world.
    pub(crate) here: bool,
    /// Between the peer and the world.
    pub(crate) there: bool,
}

impl Nat {
    pub(crate) fn any(self) -> bool {
        self.here || self.there
    }
}

/// SHA-1 of SPIs, address and port.
pub(crate) fn detection_hash(initiator_spi: u64, responder_spi: u64, address: SocketAddr) -> Vec<u8> {
    let mut input = Vec::with_capacity(34);
    input.extend_from_slice(&initiator_spi.to_be_bytes());
    input.extend_from_slice(&responder_spi.to_be_bytes());
    match address.ip() {
        IpAddr::V4(v4) => input.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => input.extend_from_slice(&v6.octets()),
    }
    input.extend_from_slice(&address.port().to_be_bytes());
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &input)
        .as_ref()
        .to_vec()
}

/// The two notifications; a forced encapsulation lies about our own address.
pub(crate) fn announce(
    initiator_spi: u64,
    responder_spi: u64,
    local: SocketAddr,
    remote: SocketAddr,
    force: bool,
) -> [Payload; 2] {
    let claimed = if force {
        SocketAddr::new(local.ip(), 0)
    } else {
        local
    };
    [
        (NotifyType::NAT_DETECTION_SOURCE_IP, claimed),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, remote),
    ]
    .map(|(kind, address)| {
        Payload::Notify(NotifyPayload::status(
            kind,
            detection_hash(initiator_spi, responder_spi, address),
        ))
    })
}

/// Compares the peer's notifications with what we see; `None` where it sent none, and does no NAT traversal.
pub(crate) fn detect(
    notifies: &[&NotifyPayload],
    initiator_spi: u64,
    responder_spi: u64,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<Nat> {
    let of = |kind| {
        notifies
            .iter()
            .filter(move |n| n.kind == kind)
            .map(|n| n.data.as_slice())
    };
    let source = detection_hash(initiator_spi, responder_spi, remote);
    let destination = detection_hash(initiator_spi, responder_spi, local);
    let mut sources = of(NotifyType::NAT_DETECTION_SOURCE_IP).peekable();
    let mut destinations = of(NotifyType::NAT_DETECTION_DESTINATION_IP).peekable();
    sources.peek()?;
    destinations.peek()?;
    Some(Nat {
        there: !sources.any(|hash| hash == source),
        here: !destinations.any(|hash| hash == destination),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_side_of_the_nat() {
        let a: SocketAddr = "192.0.2.1:500".parse().unwrap();
        let b: SocketAddr = "198.51.100.1:500".parse().unwrap();
        let translated: SocketAddr = "203.0.113.9:1024".parse().unwrap();
        let sent = announce(1, 0, a, b, false);
        let notifies: Vec<_> = sent
            .iter()
            .map(|p| match p {
                Payload::Notify(n) => n,
                _ => unreachable!(),
            })
            .collect();
        assert_eq!(detect(&notifies, 1, 0, b, a), Some(Nat::default()));
        assert_eq!(
            detect(&notifies, 1, 0, b, translated),
            Some(Nat {
                here: false,
                there: true
            })
        );
        assert_eq!(
            detect(&notifies, 1, 0, translated, a),
            Some(Nat {
                here: true,
                there: false
            })
        );
        assert_eq!(detect(&[], 1, 0, b, a), None);
    }
}
