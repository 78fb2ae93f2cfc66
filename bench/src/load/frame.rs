//! Test frames: UDP over IPv4 with a number and a time inside.
//!
//! ```text
//!  Ethernet 14 | IPv4 20 | UDP 8 | magic 4 | stream 4 | number 8 | sent at, ns 8 | zeros
//! ```

use std::net::Ipv4Addr;

/// What begins every payload.
const MAGIC: [u8; 4] = *b"PSTK";

/// Bytes before the payload.
const HEADERS_BYTES: usize = 14 + 20 + 8;

/// Bytes of magic, stream, number and time.
const MARK_BYTES: usize = 24;

/// Shortest frame, without its check sequence.
pub const MIN_FRAME_BYTES: usize = HEADERS_BYTES + MARK_BYTES;

/// The check sequence that the NIC adds; reports count it, as RFC 2544 does.
pub const FCS_BYTES: usize = 4;

/// The sizes of RFC 2544 section 9.1, with the check sequence. The first is the least that has room for the mark.
pub const RFC_2544_SIZES: [usize; 7] = [MIN_FRAME_BYTES + FCS_BYTES, 128, 256, 512, 1024, 1280, 1518];

/// The mix that is called IMIX: bytes with the check sequence, and how many of twelve frames have them.
pub const IMIX: [(usize, u32); 3] = [(MIN_FRAME_BYTES + FCS_BYTES, 7), (570, 4), (1518, 1)];

/// Where test frames go.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The source's Ethernet address.
    pub source_mac: [u8; 6],
    /// The gateway's.
    pub destination_mac: [u8; 6],
    /// The source's address; flows count up from it.
    pub source: Ipv4Addr,
    /// The sink's address.
    pub destination: Ipv4Addr,
    /// Flows: so many source ports.
    pub flows: u16,
}

/// What a frame tells the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The trial.
    pub stream: u32,
    /// The frame's number in it, from 0.
    pub number: u64,
    /// When it was sent, of the monotonic clock.
    pub sent_ns: u64,
}

/// A frame of `frame_bytes` without its check sequence; [`stamp`] makes it the next one.
///
/// # Panics
/// Below [`MIN_FRAME_BYTES`].
#[must_use]
pub fn build(path: &Path, frame_bytes: usize) -> Vec<u8> {
    assert!(frame_bytes >= MIN_FRAME_BYTES, "{frame_bytes} bytes");
    let mut frame = vec![0; frame_bytes];
    frame[..6].copy_from_slice(&path.destination_mac);
    frame[6..12].copy_from_slice(&path.source_mac);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip_bytes = (frame_bytes - 14) as u16;
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_bytes.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&path.source.octets());
    ip[16..20].copy_from_slice(&path.destination.octets());
    let sum: u32 = ip
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Port 9 is the discard service; no checksum, which IPv4 allows (RFC 768).
    frame[36..38].copy_from_slice(&9u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_bytes - 20).to_be_bytes());
    frame[42..46].copy_from_slice(&MAGIC);
    frame
}

/// Gives a frame its flow, number and time.
pub fn stamp(frame: &mut [u8], path: &Path, mark: Mark) {
    let flow = (mark.number % u64::from(path.flows.max(1))) as u16;
    frame[34..36].copy_from_slice(&(1024 + flow).to_be_bytes());
    frame[46..50].copy_from_slice(&mark.stream.to_be_bytes());
    frame[50..58].copy_from_slice(&mark.number.to_be_bytes());
    frame[58..66].copy_from_slice(&mark.sent_ns.to_be_bytes());
}

/// The mark of a test frame; other frames have none.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Mark> {
    let payload = frame.get(HEADERS_BYTES..MIN_FRAME_BYTES)?;
    let (magic, rest) = payload.split_first_chunk::<4>()?;
    let (stream, rest) = rest.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (sent, _) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC).then(|| Mark {
        stream: u32::from_be_bytes(*stream),
        number: u64::from_be_bytes(*number),
        sent_ns: u64::from_be_bytes(*sent),
    })
}

#[cfg(test)]
mod tests {
    use wire::flow::Tuple;

    use super::*;

    #[test]
    fn a_frame_is_an_ipv4_packet_with_its_mark() {
        let path = Path {
            source_mac: [2; 6],
            destination_mac: [4; 6],
            source: Ipv4Addr::new(10, 1, 0, 10),
            destination: Ipv4Addr::new(10, 2, 0, 10),
            flows: 4,
        };
        let mark = Mark {
            stream: 7,
            number: 6,
            sent_ns: 99,
        };
        for size in RFC_2544_SIZES {
            let mut frame = build(&path, size - FCS_BYTES);
            stamp(&mut frame, &path, mark);
            assert_eq!(read(&frame), Some(mark));
            let packet = wire::ipv4::Packet::parse(&frame[14..]).unwrap();
            let sum = frame[14..34]
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum::<u32>();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{packet:?}");
            let tuple = Tuple::parse(&frame[14..]).unwrap();
            assert_eq!(tuple.destination, path.destination);
            let ports = wire::flow::UpperSelector::Ports {
                source: 1026,
                destination: 9,
            };
            assert_eq!(tuple.upper, ports);
        }
        assert_eq!(read(&[0; 60]), None);
        assert_eq!(read(&[0; 100]), None);
    }
}
