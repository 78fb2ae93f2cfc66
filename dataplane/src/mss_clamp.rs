//! Clamping of the maximum segment size that a TCP SYN announces, so that the segments it provokes fit the tunnel
//! without fragmentation and without path MTU discovery, which too many networks break (RFC 4459 section 3.2).
//!
//! Only ever lowered, and only where the option is there: a SYN without it means 536 or 1220 bytes (RFC 9293 section
//! 3.7.1), and an option cannot be inserted without lengthening the packet.

use wire::tcp::{self, CHECKSUM_AT, Flags};
use wire::{Cursor, IpProtocol, SliceCursor, checksum, ipv4, ipv6};

/// The least value that is written, whatever the MTU: below it a connection would hardly move.
const MIN_MSS_BYTES: u16 = 88;

/// Why a packet that may be a SYN was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an IP packet, or one whose lengths or extension headers do not hold up.
    BadHeader,
    /// The TCP header or its options are wrong or cut short.
    BadSegment,
}

/// Lowers the MSS option of the IP packet at the front of `packet` to what fits `mtu_bytes` without IP or TCP options
/// (RFC 6691), and mends the TCP checksum. True if something was changed.
///
/// Anything but a SYN with the option (SYN-ACKs count) is left as it is and no error: other protocols, other segments,
/// later fragments.
pub fn clamp(packet: &mut [u8], mtu_bytes: u16) -> Result<bool, Error> {
    let Some((segment_at, end, header_bytes)) = find_segment(packet)? else {
        return Ok(false);
    };
    let segment = packet.get_mut(segment_at..end).ok_or(Error::BadHeader)?;
    let fixed_bytes = (header_bytes + tcp::HEADER_BYTES) as u16;
    clamp_segment(segment, mtu_bytes.saturating_sub(fixed_bytes).max(MIN_MSS_BYTES))
}

/// Where a TCP segment begins and ends, and how long the IP header without options is.
#[inline]
fn find_segment(packet: &[u8]) -> Result<Option<(usize, usize, usize)>, Error> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::parse(packet).map_err(|_| Error::BadHeader)?;
            let header = packet.header;
            let has_header = header.protocol() == IpProtocol::TCP && header.fragment_offset_bytes() == 0;
            Ok(has_header.then_some((header.header_bytes(), packet.bytes().len(), ipv4::HEADER_BYTES)))
        }
        Some(6) => {
            let packet = ipv6::Packet::parse(packet).map_err(|_| Error::BadHeader)?;
            let upper = packet.upper().map_err(|_| Error::BadHeader)?;
            let has_header = upper.protocol == IpProtocol::TCP && upper.has_upper_header();
            Ok(has_header.then_some((upper.offset_bytes, packet.bytes().len(), ipv6::HEADER_BYTES)))
        }
        _ => Err(Error::BadHeader),
    }
}

#[inline]
fn clamp_segment(segment: &mut [u8], limit_bytes: u16) -> Result<bool, Error> {
    let mut cursor = SliceCursor::new(segment);
    let header = tcp::Header::parse(&mut cursor).map_err(|_| Error::BadSegment)?;
    if !header.flags().contains(Flags::SYN) {
        return Ok(false);
    }
    let options = segment
        .get(tcp::HEADER_BYTES..cursor.position())
        .ok_or(Error::BadSegment)?;
    let Some(mss) = tcp::find_mss(options).map_err(|_| Error::BadSegment)? else {
        return Ok(false);
    };
    if mss.bytes <= limit_bytes {
        return Ok(false);
    }
    let value_at = tcp::HEADER_BYTES + mss.value_at;
    let (old, new) = (mss.bytes, limit_bytes);
    // At an odd place the value straddles two words: its bytes weigh as if they were swapped (RFC 1071 section 2 B).
    let checksum = if value_at.is_multiple_of(2) {
        checksum::updated(header.checksum(), old, new)
    } else {
        checksum::updated(header.checksum(), old.swap_bytes(), new.swap_bytes())
    };
    for (at, value) in [(value_at, new), (CHECKSUM_AT, checksum)] {
        let field = segment.get_mut(at..at + 2).ok_or(Error::BadSegment)?;
        field.copy_from_slice(&value.to_be_bytes());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use wire::TrafficClass;
    use wire::checksum::Sum;

    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;
    const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];
    const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

    fn segment(flags: u8, options: &[u8], six: bool) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = vec![
            0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0, flags, 0xfa, 0xf0, 0, 0, 0, 0,
        ];
        bytes[12] = (5 + options.len() as u8 / 4) << 4;
        bytes.extend(options);
        let checksum = pseudo(bytes.len(), six).bytes(&bytes).checksum();
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn pseudo(length: usize, six: bool) -> Sum {
        if six {
            Sum::pseudo_header_v6(A6, B6, IpProtocol::TCP, length as u32)
        } else {
            Sum::pseudo_header_v4(A4, B4, IpProtocol::TCP, length as u16)
        }
    }

    fn packet_v4(segment: &[u8], offset_bytes: u16) -> Vec<u8> {
        let mut bytes = [&[0; 20][..], segment].concat();
        ipv4::Repr {
            traffic_class: TrafficClass(0),
            total_bytes: bytes.len() as u16,
            identification: 1,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset_bytes: offset_bytes,
            ttl: 64,
            protocol: IpProtocol::TCP,
            source: A4,
            destination: B4,
        }
        .emit(bytes.first_chunk_mut().unwrap());
        bytes
    }

    /// With a destination-options header in between.
    fn packet_v6(segment: &[u8]) -> Vec<u8> {
        let mut bytes = [&[0; 40][..], &[6, 0, 1, 4, 0, 0, 0, 0], segment].concat();
        ipv6::Repr {
            traffic_class: TrafficClass(0),
            flow_label: 0,
            payload_bytes: (bytes.len() - 40) as u16,
            next_header: IpProtocol::DESTINATION_OPTIONS,
            hop_limit: 64,
            source: A6,
            destination: B6,
        }
        .emit(bytes.first_chunk_mut().unwrap());
        bytes
    }

    fn mss(segment: &[u8]) -> u16 {
        tcp::find_mss(&segment[20..]).unwrap().unwrap().bytes
    }

    #[test]
    fn fault_58_a_syn_is_clamped_to_the_tunnel() {
        for flags in [SYN, SYN_ACK] {
            let mut packet = packet_v4(&segment(flags, &MSS_1460, false), 0);
            assert_eq!(clamp(&mut packet, 1438), Ok(true));
            assert_eq!(mss(&packet[20..]), 1438 - 40);
            assert!(pseudo(24, false).bytes(&packet[20..]).is_valid());

            let mut packet = packet_v6(&segment(flags, &MSS_1460, true));
            assert_eq!(clamp(&mut packet, 1438), Ok(true));
            assert_eq!(mss(&packet[48..]), 1438 - 60);
            assert!(pseudo(24, true).bytes(&packet[48..]).is_valid());
        }
    }

    #[test]
    fn never_raised_and_never_below_the_floor() {
        let mut packet = packet_v4(&segment(SYN, &MSS_1460, false), 0);
        let before = packet.clone();
        for mtu_bytes in [1500, 9000, u16::MAX] {
            assert_eq!(clamp(&mut packet, mtu_bytes), Ok(false));
            assert_eq!(packet, before);
        }
        assert_eq!(clamp(&mut packet, 10), Ok(true));
        assert_eq!(mss(&packet[20..]), MIN_MSS_BYTES);
    }

    #[test]
    fn what_is_no_syn_with_the_option_is_left_alone() {
        let mut udp = packet_v4(&segment(SYN, &MSS_1460, false), 0);
        ipv4::set_protocol(udp.first_chunk_mut().unwrap(), IpProtocol::UDP);
        for packet in [
            packet_v4(&segment(ACK, &MSS_1460, false), 0),
            packet_v4(&segment(SYN, &[], false), 0),
            packet_v4(&segment(SYN, &MSS_1460, false), 8),
            udp,
        ] {
            let mut after = packet.clone();
            assert_eq!(clamp(&mut after, 1000), Ok(false));
            assert_eq!(after, packet);
        }
    }

    #[test]
    fn every_error() {
        assert_eq!(clamp(&mut [], 1000), Err(Error::BadHeader));
        assert_eq!(clamp(&mut [0x45; 19], 1000), Err(Error::BadHeader));
        assert_eq!(clamp(&mut [0x60; 39], 1000), Err(Error::BadHeader));
        let whole = segment(SYN, &MSS_1460, false);
        for length in 0..whole.len() {
            assert_eq!(
                clamp(&mut packet_v4(&whole[..length], 0), 1000),
                Err(Error::BadSegment),
                "{length}"
            );
        }
        let bad_option = segment(SYN, &[8, 1, 0, 0], false);
        assert_eq!(
            clamp(&mut packet_v4(&bad_option, 0), 1000),
            Err(Error::BadSegment)
        );
    }

    proptest! {
        /// The option anywhere, at odd places too: value and checksum come out right, nothing else changes.
        #[test]
        fn the_checksum_holds(
            nops in 0..9usize, announced in 100..=u16::MAX, mtu_bytes in 200..2000u16, six in any::<bool>(),
            window_scale in any::<bool>(),
        ) {
            let mut options = vec![1; nops];
            if window_scale {
                options.extend([3, 3, 7]);
            }
            options.extend([2, 4]);
            options.extend(announced.to_be_bytes());
            let segment = segment(SYN, &options, six);
            let (mut packet, at) =
                if six { (packet_v6(&segment), 48) } else { (packet_v4(&segment, 0), 20) };
            let limit = mtu_bytes - if six { 60 } else { 40 };
            prop_assert_eq!(clamp(&mut packet, mtu_bytes), Ok(announced > limit));
            let after = &packet[at..];
            prop_assert_eq!(mss(after), announced.min(limit));
            prop_assert!(pseudo(after.len(), six).bytes(after).is_valid());
            let value_at = 20 + options.len() - 2;
            for (i, (&was, &is)) in segment.iter().zip(after).enumerate() {
                prop_assert!(was == is || (16..18).contains(&i) || (value_at..value_at + 2).contains(&i));
            }
        }

        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), mtu_bytes in any::<u16>()) {
            if bytes.len() >= 20 {
                bytes[0] = 0x45;
                let length = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[6..8].fill(0);
                bytes[9] = 6;
            }
            let _ = clamp(&mut bytes, mtu_bytes);
        }
    }
}
