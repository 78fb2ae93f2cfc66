//! IPv6 and its extension headers (RFC 8200).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+---------------+---------------------------------------+
//! |   6   | traffic class |              flow label               |
//! +-------+---------------+-------+---------------+---------------+
//! |        payload length         |  next header  |   hop limit   |
//! +-------------------------------+---------------+---------------+
//! |                        source, 16 bytes                       |
//! +---------------------------------------------------------------+
//! |                     destination, 16 bytes                     |
//! +---------------------------------------------------------------+
//!
//! an extension header:  | next header (8) | length in 8-byte units beyond the first (8) | ...
//! the fragment header:  | next header (8) | 0 (8) | offset (13) | 0 (2) | M (1) | identification (32) |
//! ```

use core::net::Ipv6Addr;

use crate::{Cursor, Fragment, IpProtocol, TrafficClass};

/// The fixed header.
pub const HEADER_BYTES: usize = 40;
/// The fragment header.
pub const FRAGMENT_HEADER_BYTES: usize = 8;
/// The least MTU of any IPv6 link (RFC 8200 section 5).
pub const MIN_MTU_BYTES: usize = 1280;
/// The most extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 8;
/// The most bytes of extension headers that are walked.
pub const MAX_EXTENSION_BYTES: usize = 512;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet ends inside the header or an extension header.
    Truncated,
    /// The version is not 6.
    BadVersion,
    /// The payload length is more than was received.
    BadPayloadLength,
    /// More extension headers, or more bytes of them, than are walked.
    TooManyExtensions,
    /// A hop-by-hop header elsewhere than first (RFC 8200 section 4.1), or a second fragment header.
    BadExtensionOrder,
}

/// The hop limit does not allow another hop: answer with time exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopLimitExpired;

/// A view of the fixed header.
///
/// Checked when taken: the version is 6. Not checked: that the packet is as long as the payload
/// length says; [`Packet`] does.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(&'p [u8; HEADER_BYTES]);

impl<'p> Header<'p> {
    /// Takes the header; the cursor then stands at the first extension header or the payload.
    #[inline(always)]
    pub fn parse<C: Cursor<'p>>(cursor: &mut C) -> Result<Self, Error> {
        let bytes = cursor.take::<HEADER_BYTES>().ok_or(Error::Truncated)?;
        if bytes[0] >> 4 != 6 {
            return Err(Error::BadVersion);
        }
        Ok(Self(bytes))
    }

    /// The header as it stands.
    #[inline]
    pub const fn bytes(&self) -> &'p [u8; HEADER_BYTES] {
        self.0
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(&self) -> TrafficClass {
        TrafficClass(self.0[0] << 4 | self.0[1] >> 4)
    }

    /// The flow label, 20 bits.
    #[inline]
    pub const fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.0[1] & 0x0f, self.0[2], self.0[3]])
    }

    /// What follows the fixed header, extension headers included.
    #[inline]
    pub const fn payload_bytes(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The kind of the header that follows.
    #[inline]
    pub const fn next_header(&self) -> IpProtocol {
        IpProtocol(self.0[6])
    }

    /// Hops left.
    #[inline]
    pub const fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> Ipv6Addr {
        self.address::<8>()
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv6Addr {
        self.address::<24>()
    }

    #[inline(always)]
    const fn address<const AT: usize>(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        let mut i = 0;
        while i < 16 {
            octets[i] = self.0[AT + i];
            i += 1;
        }
        Ipv6Addr::from_octets(octets)
    }

    /// The header as plain values.
    #[inline]
    pub const fn repr(&self) -> Repr {
        Repr {
            traffic_class: self.traffic_class(),
            flow_label: self.flow_label(),
            payload_bytes: self.payload_bytes(),
            next_header: self.next_header(),
            hop_limit: self.hop_limit(),
            source: self.source(),
            destination: self.destination(),
        }
    }
}

/// Where the extension headers end and what they said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The upper protocol: the first header that is not walked (ESP, AH and no-next-header among them).
    pub protocol: IpProtocol,
    /// The cursor's position there. In a fragment other than the first, the upper header is not there.
    pub offset_bytes: usize,
    /// The fragment header, if there was one.
    pub fragment: Option<Fragment>,
    /// Where the next-header byte that names `protocol` stands.
    pub next_header_at: usize,
    /// Where the fragment header stands, if there was one.
    pub fragment_at: Option<FragmentAt>,
}

/// Where a fragment header stands, as cursor positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentAt {
    /// The fragment header's first byte.
    pub header_at: usize,
    /// The next-header byte that names it.
    pub named_at: usize,
}

impl Upper {
    /// Whether the upper protocol's header stands at `offset_bytes`.
    #[inline]
    pub const fn has_upper_header(&self) -> bool {
        match self.fragment {
            Some(fragment) => fragment.is_first(),
            None => true,
        }
    }
}

/// Walks hop-by-hop, routing, fragment and destination-options headers from where the cursor stands
/// after the fixed header, which is `HEADER_BYTES` behind. AH is not walked: it is the upper protocol.
///
/// At most [`MAX_EXTENSIONS`] headers and [`MAX_EXTENSION_BYTES`] bytes. The walk ends at a fragment
/// header whose offset is not zero, for what follows it is the middle of something.
#[inline(always)]
pub fn walk_extensions<'p, C: Cursor<'p>>(cursor: &mut C, next_header: IpProtocol) -> Result<Upper, Error> {
    let start = cursor.position();
    let mut upper = Upper {
        protocol: next_header,
        offset_bytes: start,
        fragment: None,
        // The fixed header's next-header byte is its seventh.
        next_header_at: start.wrapping_sub(HEADER_BYTES - 6),
        fragment_at: None,
    };
    let mut walked_bytes = 0;
    for count in 0..=MAX_EXTENSIONS {
        match upper.protocol {
            IpProtocol::HOP_BY_HOP if count != 0 => return Err(Error::BadExtensionOrder),
            IpProtocol::FRAGMENT if upper.fragment.is_some() => return Err(Error::BadExtensionOrder),
            IpProtocol::HOP_BY_HOP
            | IpProtocol::ROUTING
            | IpProtocol::FRAGMENT
            | IpProtocol::DESTINATION_OPTIONS => {}
            _ => return Ok(upper),
        }
        if count == MAX_EXTENSIONS {
            break;
        }
        let at = upper.offset_bytes;
        // Every extension header is at least 8 bytes long.
        let head = cursor.take::<8>().ok_or(Error::Truncated)?;
        let mut length_bytes = 8;
        if upper.protocol == IpProtocol::FRAGMENT {
            upper.fragment = Some(parse_fragment(head));
            upper.fragment_at = Some(FragmentAt {
                header_at: at,
                named_at: upper.next_header_at,
            });
        } else {
            let rest_bytes = usize::from(head[1]) * 8;
            length_bytes += rest_bytes;
            if walked_bytes + length_bytes > MAX_EXTENSION_BYTES {
                break;
            }
            if rest_bytes != 0 {
                cursor.skip(rest_bytes).ok_or(Error::Truncated)?;
            }
        }
        walked_bytes += length_bytes;
        upper.protocol = IpProtocol(head[0]);
        upper.next_header_at = at;
        upper.offset_bytes = at + length_bytes;
        if !upper.has_upper_header() {
            return Ok(upper);
        }
    }
    Err(Error::TooManyExtensions)
}

#[inline]
const fn parse_fragment(head: &[u8; FRAGMENT_HEADER_BYTES]) -> Fragment {
    Fragment {
        identification: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        offset_bytes: u16::from_be_bytes([head[2], head[3]]) & 0xfff8,
        more: head[3] & 1 != 0,
    }
}

/// Writes a fragment header.
#[inline]
pub fn emit_fragment(next_header: IpProtocol, fragment: Fragment, out: &mut [u8; FRAGMENT_HEADER_BYTES]) {
    out[0] = next_header.0;
    out[1] = 0;
    let offset_and_more = fragment.offset_bytes & 0xfff8 | u16::from(fragment.more);
    out[2..4].copy_from_slice(&offset_and_more.to_be_bytes());
    out[4..].copy_from_slice(&fragment.identification.to_be_bytes());
}

/// A header and its payload, cut to the payload length.
///
/// A jumbogram (RFC 2675) has payload length 0 and so appears empty: it is not supported.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'p> {
    /// The fixed header.
    pub header: Header<'p>,
    /// What follows it, extension headers included.
    pub payload: &'p [u8],
    whole: &'p [u8],
}

impl<'p> Packet<'p> {
    /// Checks the payload length against `bytes`.
    #[inline]
    pub fn parse(bytes: &'p [u8]) -> Result<Self, Error> {
        let header = Header::parse(&mut crate::SliceCursor::new(bytes))?;
        let whole = bytes
            .get(..HEADER_BYTES + usize::from(header.payload_bytes()))
            .ok_or(Error::BadPayloadLength)?;
        let payload = whole.get(HEADER_BYTES..).ok_or(Error::BadPayloadLength)?;
        Ok(Self {
            header,
            payload,
            whole,
        })
    }

    /// Walks the extension headers; offsets in the answer count from the fixed header's first byte.
    #[inline]
    pub fn upper(&self) -> Result<Upper, Error> {
        let mut cursor = crate::SliceCursor::new(self.whole);
        cursor.skip(HEADER_BYTES).ok_or(Error::Truncated)?;
        walk_extensions(&mut cursor, self.header.next_header())
    }

    /// Header and payload.
    #[inline]
    pub const fn bytes(&self) -> &'p [u8] {
        self.whole
    }
}

/// A fixed header to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// DSCP and ECN.
    pub traffic_class: TrafficClass,
    /// The flow label; the low 20 bits count.
    pub flow_label: u32,
    /// What follows the fixed header.
    pub payload_bytes: u16,
    /// The kind of the header that follows.
    pub next_header: IpProtocol,
    /// Hops allowed.
    pub hop_limit: u8,
    /// The source address.
    pub source: Ipv6Addr,
    /// The destination address.
    pub destination: Ipv6Addr,
}

impl Repr {
    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_BYTES]) {
        let first = 6 << 28 | u32::from(self.traffic_class.0) << 20 | self.flow_label & 0x000f_ffff;
        out[..4].copy_from_slice(&first.to_be_bytes());
        out[4..6].copy_from_slice(&self.payload_bytes.to_be_bytes());
        out[6] = self.next_header.0;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..40].copy_from_slice(&self.destination.octets());
    }
}

/// Takes one hop from the hop limit and returns what is left; 0 or 1 is left alone and refused.
#[inline]
pub const fn decrement_hop_limit(header: &mut [u8; HEADER_BYTES]) -> Result<u8, HopLimitExpired> {
    if header[7] <= 1 {
        return Err(HopLimitExpired);
    }
    header[7] -= 1;
    Ok(header[7])
}

/// Sets DSCP and ECN.
#[inline]
pub const fn set_traffic_class(header: &mut [u8; HEADER_BYTES], class: TrafficClass) {
    header[0] = 0x60 | class.0 >> 4;
    header[1] = class.0 << 4 | header[1] & 0x0f;
}

/// Sets the payload length.
#[inline]
pub fn set_payload_bytes(header: &mut [u8; HEADER_BYTES], payload_bytes: u16) {
    header[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceCursor;
    use proptest::prelude::*;
    use std::vec::Vec;

    const REPR: Repr = Repr {
        traffic_class: TrafficClass(0xb9),
        flow_label: 0x9_1234,
        payload_bytes: 8,
        next_header: IpProtocol::UDP,
        hop_limit: 64,
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };
    const BYTES: [u8; 40] = [
        0x6b, 0x99, 0x12, 0x34, 0x00, 0x08, 0x11, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 1, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    ];

    fn walk(first: IpProtocol, bytes: &[u8]) -> Result<Upper, Error> {
        let whole = [&BYTES[..], bytes].concat();
        let mut cursor = SliceCursor::new(&whole);
        cursor.skip(HEADER_BYTES).unwrap();
        walk_extensions(&mut cursor, first)
    }

    /// An extension header of `8 + 8 * more` bytes that names `next`.
    fn extension(next: IpProtocol, more: u8) -> Vec<u8> {
        let mut bytes = std::vec![0; 8 + 8 * usize::from(more)];
        bytes[0] = next.0;
        bytes[1] = more;
        bytes
    }

    #[test]
    fn both_ways() {
        assert_eq!(Header::parse(&mut SliceCursor::new(&BYTES)).unwrap().repr(), REPR);
        let mut out = [0xaa; HEADER_BYTES];
        REPR.emit(&mut out);
        assert_eq!(out, BYTES);
    }

    #[test]
    fn every_error_of_the_fixed_header() {
        let whole = [&BYTES[..], &[0; 8]].concat();
        let error = |bytes: &[u8]| Packet::parse(bytes).map(|_| ()).unwrap_err();
        assert_eq!(error(&whole[..39]), Error::Truncated);
        assert_eq!(error(&whole[..47]), Error::BadPayloadLength);
        let mut four = whole.clone();
        four[0] = 0x45;
        assert_eq!(error(&four), Error::BadVersion);
        assert_eq!(
            Packet::parse(&[&whole[..], &[1, 2]].concat()).unwrap().payload,
            &[0; 8]
        );
    }

    #[test]
    fn fault_57_extensions_before_esp_are_walked() {
        let chain = [
            extension(IpProtocol::DESTINATION_OPTIONS, 0),
            extension(IpProtocol::ROUTING, 2),
            extension(IpProtocol::ESP, 1),
            std::vec![0xee; 8],
        ]
        .concat();
        let upper = walk(IpProtocol::HOP_BY_HOP, &chain).unwrap();
        assert_eq!(
            (upper.protocol, upper.offset_bytes),
            (IpProtocol::ESP, 40 + 8 + 24 + 16)
        );
        assert_eq!((upper.fragment, upper.next_header_at), (None, 40 + 8 + 24));
        // Truncated at every byte of the chain.
        for length in 0..48 {
            assert_eq!(
                walk(IpProtocol::HOP_BY_HOP, &chain[..length]),
                Err(Error::Truncated),
                "{length}"
            );
        }
    }

    #[test]
    fn fault_57_the_walk_is_limited() {
        let options = IpProtocol::DESTINATION_OPTIONS;
        let chain = |headers: usize, more: u8, last: IpProtocol| {
            let mut bytes = Vec::new();
            for i in 0..headers {
                bytes.extend(extension(if i + 1 == headers { last } else { options }, more));
            }
            walk(options, &bytes)
        };
        assert_eq!(chain(8, 0, IpProtocol::ESP).unwrap().protocol, IpProtocol::ESP);
        assert_eq!(chain(9, 0, IpProtocol::ESP), Err(Error::TooManyExtensions));
        assert_eq!(chain(1, 63, IpProtocol::ESP).unwrap().offset_bytes, 40 + 512);
        assert_eq!(chain(1, 64, IpProtocol::ESP), Err(Error::TooManyExtensions));
        assert_eq!(chain(2, 32, IpProtocol::ESP), Err(Error::TooManyExtensions));
    }

    #[test]
    fn order_is_held() {
        let hop_by_hop_second = extension(IpProtocol::HOP_BY_HOP, 0);
        assert_eq!(
            walk(IpProtocol::DESTINATION_OPTIONS, &hop_by_hop_second),
            Err(Error::BadExtensionOrder)
        );
        let two_fragments = extension(IpProtocol::FRAGMENT, 0);
        assert_eq!(
            walk(IpProtocol::FRAGMENT, &two_fragments),
            Err(Error::BadExtensionOrder)
        );
    }

    #[test]
    fn authentication_header_and_no_next_header_end_the_walk() {
        assert_eq!(walk(IpProtocol::AH, &[]).unwrap().protocol, IpProtocol::AH);
        let upper = walk(IpProtocol::NO_NEXT_HEADER, &[]).unwrap();
        assert_eq!(
            (upper.protocol, upper.offset_bytes),
            (IpProtocol::NO_NEXT_HEADER, 40)
        );
        assert_eq!(upper.next_header_at, 6);
    }

    #[test]
    fn a_later_fragment_has_no_upper_header() {
        let mut head = [0; 8];
        let fragment = Fragment {
            identification: 0xdead_beef,
            offset_bytes: 1448,
            more: true,
        };
        emit_fragment(IpProtocol::HOP_BY_HOP, fragment, &mut head);
        let upper = walk(IpProtocol::FRAGMENT, &head).unwrap();
        assert_eq!(
            (upper.fragment, upper.fragment_at),
            (
                Some(fragment),
                Some(FragmentAt {
                    header_at: 40,
                    named_at: 6
                })
            )
        );
        assert!(!upper.has_upper_header());
        assert_eq!(upper.offset_bytes, 48);
    }

    #[test]
    fn fault_59_hop_limit_is_decremented() {
        let mut header = BYTES;
        assert_eq!(decrement_hop_limit(&mut header), Ok(63));
        assert_eq!(header[7], 63);
        for hops in [0, 1] {
            header[7] = hops;
            assert_eq!(decrement_hop_limit(&mut header), Err(HopLimitExpired));
            assert_eq!(header[7], hops);
        }
    }

    proptest! {
        #[test]
        fn emit_then_parse_is_identity(
            class in any::<u8>(), flow_label in 0..1u32 << 20, payload_bytes in any::<u16>(),
            next in any::<u8>(), hop_limit in any::<u8>(), s in any::<[u8; 16]>(), d in any::<[u8; 16]>(),
            other in any::<u8>(),
        ) {
            let repr = Repr {
                traffic_class: TrafficClass(class), flow_label, payload_bytes,
                next_header: IpProtocol(next), hop_limit, source: s.into(), destination: d.into(),
            };
            let mut bytes = [0; HEADER_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Header::parse(&mut SliceCursor::new(&bytes)).unwrap().repr(), repr);
            set_traffic_class(&mut bytes, TrafficClass(other));
            let changed = Header::parse(&mut SliceCursor::new(&bytes)).unwrap().repr();
            prop_assert_eq!(changed, Repr { traffic_class: TrafficClass(other), ..repr });
        }

        #[test]
        fn the_walk_never_panics_nor_passes_the_end(
            first in prop::sample::select(&[0u8, 43, 44, 60, 50, 17][..]),
            heads in proptest::collection::vec(
                (prop::sample::select(&[0u8, 43, 44, 60, 51, 50][..]), 0..4u8, any::<[u8; 6]>()), 0..12),
            cut in 0..200usize,
        ) {
            let mut bytes = Vec::new();
            for (next, more, rest) in heads {
                bytes.extend([next, more]);
                bytes.extend(rest);
                bytes.resize(bytes.len() + 8 * usize::from(more), 0);
            }
            bytes.truncate(cut);
            if let Ok(upper) = walk(IpProtocol(first), &bytes) {
                prop_assert!(upper.offset_bytes <= HEADER_BYTES + bytes.len());
            }
        }
    }
}
