//! Fragmentation of an outer IPv6 packet by its source, which a gateway is of what it seals (RFC 8200 section 4.5).
//!
//! Only of what must pass a path that is too narrow for it: an inner packet of no more than IPv6's least MTU, in its
//! headers (RFC 2473 section 7.1). What can be cut or refused before it is sealed, is.

use wire::{Fragment, IpProtocol, ipv6};

/// Fragments begin at multiples of this in the payload.
const UNIT_BYTES: usize = 8;
/// What stands before each piece of the payload.
const HEADERS_BYTES: usize = ipv6::HEADER_BYTES + ipv6::FRAGMENT_HEADER_BYTES;

/// How one packet without extension headers is cut.
#[derive(Clone, Debug)]
pub struct Fragmenter<'p> {
    packet: ipv6::Packet<'p>,
    /// Payload of each piece but the last.
    piece_bytes: usize,
    identification: u32,
}

impl<'p> Fragmenter<'p> {
    /// Decides how `packet` is cut into pieces of at most `mtu_bytes`; the identification must not come back between the
    /// same addresses while pieces may be on their way. `None` where this is not IPv6 or the MTU has no room for eight
    /// bytes of payload.
    #[must_use]
    pub fn new(packet: &'p [u8], mtu_bytes: usize, identification: u32) -> Option<Self> {
        let packet = ipv6::Packet::parse(packet).ok()?;
        let piece_bytes = mtu_bytes.checked_sub(HEADERS_BYTES)? / UNIT_BYTES * UNIT_BYTES;
        (piece_bytes != 0 && !packet.payload.is_empty()).then_some(Self {
            packet,
            piece_bytes,
            identification,
        })
    }

    /// How many pieces there are; one at least.
    #[must_use]
    pub fn count(&self) -> usize {
        self.packet.payload.len().div_ceil(self.piece_bytes)
    }

    /// Writes piece `index` (from 0) at the front of `out` and returns its length; `None` where there is no such piece or
    /// no room for it.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Option<usize> {
        let start = index.checked_mul(self.piece_bytes)?;
        let rest = self.packet.payload.get(start..).filter(|rest| !rest.is_empty())?;
        let payload = rest.get(..self.piece_bytes).unwrap_or(rest);
        let length = HEADERS_BYTES + payload.len();
        let (header, behind) = out.get_mut(..length)?.split_first_chunk_mut()?;
        let (fragment_header, place) = behind.split_first_chunk_mut()?;
        let before = self.packet.header;
        ipv6::Repr {
            payload_bytes: (length - ipv6::HEADER_BYTES) as u16,
            next_header: IpProtocol::FRAGMENT,
            ..before.repr()
        }
        .emit(header);
        let fragment = Fragment {
            identification: self.identification,
            offset_bytes: start as u16,
            more: payload.len() < rest.len(),
        };
        ipv6::emit_fragment(before.next_header(), fragment, fragment_header);
        place.copy_from_slice(payload);
        Some(length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::reassembly::{Limits, Reassembly};
    use proptest::prelude::*;

    fn packet(payload_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; ipv6::HEADER_BYTES];
        bytes.extend((0..payload_bytes).map(|i| (i % 251) as u8));
        ipv6::Repr {
            traffic_class: wire::TrafficClass(0xb9),
            flow_label: 0x1_2345,
            payload_bytes: payload_bytes as u16,
            next_header: IpProtocol::ESP,
            hop_limit: 63,
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
        }
        .emit(bytes.first_chunk_mut().unwrap());
        bytes
    }

    #[test]
    fn what_cannot_be_cut() {
        let whole = packet(100);
        assert!(Fragmenter::new(&whole, 55, 1).is_none(), "no room for a unit");
        assert!(Fragmenter::new(&whole, 56, 1).is_some());
        assert!(Fragmenter::new(&whole[..139], 1280, 1).is_none(), "cut short");
        assert!(Fragmenter::new(&packet(0), 1280, 1).is_none());
        assert!(Fragmenter::new(&[0x45; 60], 1280, 1).is_none());
        let fragmenter = Fragmenter::new(&whole, 104, 1).unwrap();
        assert_eq!(fragmenter.count(), 2);
        assert_eq!(fragmenter.write(2, &mut [0; 200]), None);
        assert_eq!(fragmenter.write(usize::MAX, &mut [0; 200]), None);
        assert_eq!(fragmenter.write(0, &mut [0; 103]), None);
    }

    proptest! {
        #[test]
        fn the_pieces_make_up_the_packet(payload_bytes in 64..1500usize, mtu_bytes in 120..1500usize, id in any::<u32>()) {
            let whole = packet(payload_bytes);
            let fragmenter = Fragmenter::new(&whole, mtu_bytes, id).unwrap();
            let mut reassembly = Reassembly::new(Limits::default());
            let mut out = [0; 1600];
            for index in 0..fragmenter.count() {
                let length = fragmenter.write(index, &mut out).unwrap();
                prop_assert!(length <= mtu_bytes);
                let done = reassembly.push(&out[..length], 0).unwrap();
                match done {
                    Some(done) => prop_assert_eq!(done.packet, &whole[..]),
                    None => prop_assert!(index + 1 < fragmenter.count()),
                }
            }
            prop_assert_eq!(reassembly.held_packets(), 0);
        }
    }
}
