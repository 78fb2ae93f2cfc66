//! IPv4 fragmentation (RFC 791 section 3.2) of an inner packet before it is encrypted.
//!
//! Fragmenting before encryption spares the peer's gateway the reassembly: each fragment is an ESP packet of its own,
//! and the destination host puts the datagram together (RFC 4301 section 8.2.1). IPv6 has no such thing: routers never
//! fragment it (RFC 8200 section 5).
//!
//! [`Fragmenter::new`] decides how the packet is cut, so that the caller can get that many frames or none;
//! [`Fragmenter::write`] then writes any of the fragments into the caller's buffer.

use wire::ipv4;

/// Fragments begin at multiples of this in the datagram (RFC 791 section 3.1).
const UNIT_BYTES: usize = 8;
/// A datagram's payload ends before this (RFC 791 section 3.1: the total length has 16 bits).
const MAX_END_BYTES: usize = 65_535;

/// An option kind's flag: it stands in every fragment (RFC 791 section 3.1, "copied").
const OPTION_COPIED: u8 = 0x80;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;

/// Why a packet is not fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an IPv4 packet, or one whose lengths do not hold up.
    BadHeader,
    /// DF is set: the sender is to be told (RFC 1191).
    DontFragment,
    /// The MTU has no room for the header and eight bytes of payload.
    MtuTooSmall,
    /// An option's length is less than 2 or reaches beyond the header.
    BadOption,
    /// A fragment that is not the last has a length that is not a multiple of 8, or the datagram would end beyond
    /// 65535 bytes.
    BadFragment,
    /// The caller's buffer is too short, or there is no fragment of this number.
    BadBuffer,
}

/// How one packet is cut.
#[derive(Clone, Debug)]
pub struct Fragmenter<'p> {
    packet: ipv4::Packet<'p>,
    /// The options of every fragment but the first.
    later_options: Options,
    /// Payload of the first fragment, and of each after it but the last.
    first_bytes: usize,
    later_bytes: usize,
    count: usize,
}

impl<'p> Fragmenter<'p> {
    /// Decides how the IPv4 packet at the front of `packet` is cut into fragments of at most `mtu_bytes` each, as few
    /// as there can be. A packet that fits is one fragment: itself, whether DF is set or not.
    pub fn new(packet: &'p [u8], mtu_bytes: usize) -> Result<Self, Error> {
        let packet = ipv4::Packet::parse(packet).map_err(|_| Error::BadHeader)?;
        let header = packet.header;
        let payload_bytes = packet.payload.len();
        if packet.bytes().len() <= mtu_bytes {
            return Ok(Self {
                packet,
                later_options: Options::NONE,
                first_bytes: payload_bytes,
                later_bytes: 0,
                count: 1,
            });
        }
        if header.dont_fragment() {
            return Err(Error::DontFragment);
        }
        let end_bytes = usize::from(header.fragment_offset_bytes()) + payload_bytes;
        if end_bytes > MAX_END_BYTES || header.more_fragments() && !payload_bytes.is_multiple_of(UNIT_BYTES) {
            return Err(Error::BadFragment);
        }
        let later_options = Options::copied(packet.options)?;
        let room = |header_bytes: usize| {
            let bytes = mtu_bytes.saturating_sub(header_bytes) / UNIT_BYTES * UNIT_BYTES;
            if bytes == 0 {
                Err(Error::MtuTooSmall)
            } else {
                Ok(bytes)
            }
        };
        let first_bytes = room(header.header_bytes())?;
        let later_bytes = room(ipv4::HEADER_BYTES + later_options.bytes().len())?;
        let count = 1 + payload_bytes.saturating_sub(first_bytes).div_ceil(later_bytes);
        Ok(Self {
            packet,
            later_options,
            first_bytes,
            later_bytes,
            count,
        })
    }

    /// How many fragments there are; one at least.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The fragment's length with its header, or 0 if there is no fragment of this number.
    pub fn length_bytes(&self, index: usize) -> usize {
        match self.part(index) {
            Some((options, _, payload)) => ipv4::HEADER_BYTES + options.len() + payload.len(),
            None => 0,
        }
    }

    /// Writes fragment `index` (from 0) at the front of `out` and returns its length.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Result<usize, Error> {
        let (options, start, payload) = self.part(index).ok_or(Error::BadBuffer)?;
        let length = ipv4::HEADER_BYTES + options.len() + payload.len();
        let out = out.get_mut(..length).ok_or(Error::BadBuffer)?;
        let (head, rest) = out
            .split_first_chunk_mut::<{ ipv4::HEADER_BYTES }>()
            .ok_or(Error::BadBuffer)?;
        let (to_options, to_payload) = rest.split_at_mut_checked(options.len()).ok_or(Error::BadBuffer)?;
        to_options.copy_from_slice(options);
        to_payload.copy_from_slice(payload);
        let header = self.packet.header;
        let repr = ipv4::Repr {
            total_bytes: length as u16,
            fragment_offset_bytes: header.fragment_offset_bytes() + start as u16,
            // A fragment's own last piece is followed by whatever followed the fragment.
            more_fragments: header.more_fragments() || index + 1 < self.count,
            ..header.repr()
        };
        repr.emit(head);
        if !options.is_empty() {
            ipv4::set_options(head, to_options);
        }
        Ok(length)
    }

    /// Options, where the payload begins in the packet's, and the payload.
    fn part(&self, index: usize) -> Option<(&[u8], usize, &'p [u8])> {
        if index >= self.count {
            return None;
        }
        let payload = self.packet.payload;
        if index == 0 {
            return Some((
                self.packet.options,
                0,
                payload.get(..self.first_bytes.min(payload.len()))?,
            ));
        }
        let start = self.first_bytes + (index - 1) * self.later_bytes;
        let end = (start + self.later_bytes).min(payload.len());
        Some((self.later_options.bytes(), start, payload.get(start..end)?))
    }
}

/// Options kept aside, padded to a multiple of four bytes.
#[derive(Clone, Debug)]
struct Options {
    bytes: [u8; ipv4::MAX_HEADER_BYTES - ipv4::HEADER_BYTES],
    length: usize,
}

impl Options {
    const NONE: Self = Self {
        bytes: [OPTION_END; 40],
        length: 0,
    };

    /// Those that stand in every fragment.
    fn copied(options: &[u8]) -> Result<Self, Error> {
        let mut kept = Self::NONE;
        let mut at = 0;
        while let Some(&kind) = options.get(at) {
            match kind {
                OPTION_END => break,
                OPTION_NOP => at += 1,
                _ => {
                    let length = usize::from(*options.get(at + 1).ok_or(Error::BadOption)?);
                    if length < 2 {
                        return Err(Error::BadOption);
                    }
                    let option = options.get(at..at + length).ok_or(Error::BadOption)?;
                    if kind & OPTION_COPIED != 0 {
                        let to = kept
                            .bytes
                            .get_mut(kept.length..kept.length + length)
                            .ok_or(Error::BadOption)?;
                        to.copy_from_slice(option);
                        kept.length += length;
                    }
                    at += length;
                }
            }
        }
        // The end-of-options kind is zero, as the bytes beyond the kept ones are.
        kept.length = kept.length.next_multiple_of(4);
        Ok(kept)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.min(self.bytes.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::{IpProtocol, TrafficClass};

    const LOOSE_ROUTE: [u8; 7] = [0x83, 7, 4, 10, 0, 0, 9];
    const RECORD_ROUTE: [u8; 7] = [0x07, 7, 4, 0, 0, 0, 0];

    fn packet(options: &[u8], payload_bytes: usize, offset_bytes: u16, more: bool, df: bool) -> Vec<u8> {
        assert!(options.len().is_multiple_of(4));
        let mut bytes = vec![0; 20];
        bytes.extend(options);
        bytes.extend((0..payload_bytes).map(|i| (i % 251) as u8));
        let header = bytes.first_chunk_mut().unwrap();
        ipv4::Repr {
            traffic_class: TrafficClass(0xb9),
            total_bytes: (20 + options.len() + payload_bytes) as u16,
            identification: 0xbeef,
            dont_fragment: df,
            more_fragments: more,
            fragment_offset_bytes: offset_bytes,
            ttl: 63,
            protocol: IpProtocol::UDP,
            source: [10, 1, 0, 1].into(),
            destination: [10, 2, 0, 1].into(),
        }
        .emit(header);
        ipv4::set_options(header, options);
        bytes
    }

    fn fragments(packet: &[u8], mtu_bytes: usize) -> Result<Vec<Vec<u8>>, Error> {
        let fragmenter = Fragmenter::new(packet, mtu_bytes)?;
        (0..fragmenter.count())
            .map(|index| {
                let mut out = vec![0xaa; fragmenter.length_bytes(index)];
                let length = fragmenter.write(index, &mut out)?;
                assert_eq!(length, out.len());
                assert_eq!(fragmenter.write(index, &mut out[1..]), Err(Error::BadBuffer));
                Ok(out)
            })
            .collect()
    }

    #[test]
    fn fault_58_a_packet_too_long_for_the_tunnel_is_cut() {
        let whole = packet(&[], 1480, 0, false, false);
        let cut = fragments(&whole, 1438).unwrap();
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [20 + 1416, 20 + 64]);
        let [first, last] = [&cut[0], &cut[1]].map(|bytes| ipv4::Packet::parse(bytes).unwrap());
        assert_eq!(
            (
                first.header.fragment_offset_bytes(),
                first.header.more_fragments()
            ),
            (0, true)
        );
        assert_eq!(
            (last.header.fragment_offset_bytes(), last.header.more_fragments()),
            (1416, false)
        );
        assert_eq!([first.payload, last.payload].concat(), &whole[20..]);
        for part in [first, last] {
            assert_eq!(part.verify_checksum(), Ok(()));
            assert_eq!((part.header.identification(), part.header.ttl()), (0xbeef, 63));
            assert_eq!(part.header.traffic_class(), TrafficClass(0xb9));
        }
    }

    #[test]
    fn a_packet_that_fits_is_itself() {
        for df in [false, true] {
            let whole = packet(&RECORD_ROUTE_PADDED, 100, 0, false, df);
            assert_eq!(fragments(&whole, whole.len()).unwrap(), [whole]);
        }
    }

    const RECORD_ROUTE_PADDED: [u8; 8] = [0x07, 7, 4, 0, 0, 0, 0, 0];

    #[test]
    fn only_copied_options_go_along() {
        let options = [&RECORD_ROUTE[..], &[OPTION_NOP], &LOOSE_ROUTE, &[OPTION_END]].concat();
        let whole = packet(&options, 64, 0, false, false);
        let cut = fragments(&whole, 68).unwrap();
        let parts: Vec<_> = cut
            .iter()
            .map(|bytes| ipv4::Packet::parse(bytes).unwrap())
            .collect();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].options, parts[0].payload.len()), (&options[..], 32));
        assert_eq!(parts[1].options, [&LOOSE_ROUTE[..], &[OPTION_END]].concat());
        assert!(parts.iter().all(|part| part.verify_checksum().is_ok()));
    }

    #[test]
    fn a_fragment_is_cut_again() {
        let middle = packet(&[], 64, 800, true, false);
        let cut = fragments(&middle, 52).unwrap();
        let places: Vec<_> = cut
            .iter()
            .map(|bytes| {
                let header = ipv4::Packet::parse(bytes).unwrap().header;
                (header.fragment_offset_bytes(), header.more_fragments())
            })
            .collect();
        assert_eq!(places, [(800, true), (832, true)]);
    }

    #[test]
    fn every_error() {
        let cut = |packet: &[u8], mtu| fragments(packet, mtu).unwrap_err();
        assert_eq!(cut(&[0x60; 60], 1400), Error::BadHeader);
        assert_eq!(cut(&packet(&[], 100, 0, false, true), 100), Error::DontFragment);
        assert_eq!(cut(&packet(&[], 100, 0, false, false), 27), Error::MtuTooSmall);
        assert_eq!(
            fragments(&packet(&[], 100, 0, false, false), 28).unwrap().len(),
            13
        );
        assert_eq!(
            cut(&packet(&[7, 1, 0, 0], 100, 0, false, false), 60),
            Error::BadOption
        );
        assert_eq!(
            cut(&packet(&[7, 5, 0, 0], 100, 0, false, false), 60),
            Error::BadOption
        );
        assert_eq!(
            cut(&packet(&[1, 1, 1, 7], 100, 0, false, false), 60),
            Error::BadOption
        );
        assert_eq!(cut(&packet(&[], 100, 8, true, false), 60), Error::BadFragment);
        assert_eq!(
            cut(&packet(&[], 100, 65_528, false, false), 60),
            Error::BadFragment
        );
        let whole = packet(&[], 100, 0, false, false);
        let fragmenter = Fragmenter::new(&whole, 60).unwrap();
        assert_eq!(
            fragmenter.write(fragmenter.count(), &mut [0; 60]),
            Err(Error::BadBuffer)
        );
    }

    proptest! {
        /// Against the rules: every fragment fits and is full but the last, and together they are the datagram.
        #[test]
        fn fragments_make_up_the_datagram(
            payload_bytes in 1..3000usize, mtu_bytes in 68..1600usize, offset in 0..4000u16, more in any::<bool>(),
            options in prop::sample::select(vec![
                vec![], RECORD_ROUTE_PADDED.to_vec(), [&LOOSE_ROUTE[..], &[0]].concat(),
                [&RECORD_ROUTE[..], &LOOSE_ROUTE, &[1, 0]].concat(),
            ]),
        ) {
            let offset_bytes = offset * 8;
            let payload_bytes = if more { payload_bytes.next_multiple_of(8) } else { payload_bytes };
            let whole = packet(&options, payload_bytes, offset_bytes, more, false);
            let cut = fragments(&whole, mtu_bytes).unwrap();
            let mut joined: Vec<u8> = Vec::new();
            for (index, bytes) in cut.iter().enumerate() {
                let last = index + 1 == cut.len();
                let part = ipv4::Packet::parse(bytes).unwrap();
                prop_assert!(bytes.len() <= mtu_bytes);
                prop_assert!(last || bytes.len() + 8 > mtu_bytes);
                prop_assert!(last || part.payload.len().is_multiple_of(8));
                prop_assert_eq!(part.verify_checksum(), Ok(()));
                prop_assert_eq!(
                    usize::from(part.header.fragment_offset_bytes()), usize::from(offset_bytes) + joined.len()
                );
                prop_assert_eq!(part.header.more_fragments(), more || !last);
                joined.extend(part.payload);
            }
            prop_assert_eq!(&joined, &whole[20 + options.len()..]);
        }

        #[test]
        fn never_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), ihl in 5..16u8, mtu_bytes in 0..200usize,
        ) {
            if bytes.len() >= 20 {
                bytes[0] = 0x40 | ihl;
                let length = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
            }
            let _ = fragments(&bytes, mtu_bytes);
        }
    }
}
