//! One datagram being put together.

use wire::{Ecn, Fragment, IpProtocol, TrafficClass, ipv4, ipv6};

/// Room for the longest header before the payload: IPv6 with every extension header that is walked.
pub(super) const HEADER_ROOM_BYTES: usize = ipv6::HEADER_BYTES + ipv6::MAX_EXTENSION_BYTES;
/// Fragments begin at multiples of this.
const UNIT_BYTES: usize = 8;
/// The longest datagram's payload: IPv4's total length and IPv6's payload length have 16 bits.
pub(super) const MAX_PAYLOAD_BYTES: usize = 65_535;

/// Why a fragment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an IP packet, or one whose lengths, checksum or extension headers do not hold up.
    BadHeader,
    /// Not a fragment.
    NotAFragment,
    /// No payload, or one whose length is not a multiple of 8 in a fragment that is not the last.
    BadLength,
    /// A first fragment without the upper protocol's header (RFC 1858, RFC 7112).
    TinyFirst,
    /// The datagram would end beyond 65535 bytes, or beyond the limit.
    TooLong,
    /// The very same fragment is there already (RFC 8200 section 4.5): dropped alone.
    Duplicate,
    /// It overlaps another, or ends elsewhere than another said: the datagram is spoiled, what is still to come of it
    /// too (RFC 5722 section 4).
    Overlap,
    /// Its datagram is spoiled.
    Spoiled,
    /// Congestion was experienced by a datagram that is not ECN-capable: it is dropped (RFC 3168 section 5.3).
    EcnMixed,
    /// More bytes wait than are allowed, and giving up every other datagram would not help.
    Full,
}

/// A fragment taken apart.
#[derive(Clone, Copy)]
pub(super) struct Piece<'p> {
    pub(super) fragment: Fragment,
    /// The header that the whole datagram has if this is the first fragment; IPv6: up to the fragment header.
    pub(super) header: &'p [u8],
    /// In `header`, the byte that names what follows it: IPv4's protocol, or the last next-header byte.
    pub(super) protocol_at: usize,
    pub(super) protocol: IpProtocol,
    /// The upper protocol of a first fragment, behind extension headers, and how much of it is there.
    upper: IpProtocol,
    upper_bytes: usize,
    pub(super) class: TrafficClass,
    pub(super) payload: &'p [u8],
}

impl<'p> Piece<'p> {
    pub(super) fn parse_v4(packet: &ipv4::Packet<'p>) -> Result<Self, Error> {
        packet.verify_checksum().map_err(|_| Error::BadHeader)?;
        let header = packet.header;
        Self {
            fragment: header.fragment().ok_or(Error::NotAFragment)?,
            header: packet
                .bytes()
                .get(..header.header_bytes())
                .ok_or(Error::BadHeader)?,
            protocol_at: 9,
            protocol: header.protocol(),
            upper: header.protocol(),
            upper_bytes: packet.payload.len(),
            class: header.traffic_class(),
            payload: packet.payload,
        }
        .checked()
    }

    pub(super) fn parse_v6(packet: &ipv6::Packet<'p>) -> Result<Self, Error> {
        let upper = packet.upper().map_err(|error| match error {
            // Behind the fragment header, the chain of headers has to be complete (RFC 7112 section 5).
            ipv6::Error::Truncated => Error::TinyFirst,
            _ => Error::BadHeader,
        })?;
        let (Some(fragment), Some(at)) = (upper.fragment, upper.fragment_at) else {
            return Err(Error::NotAFragment);
        };
        let (header, rest) = packet
            .bytes()
            .split_at_checked(at.header_at)
            .ok_or(Error::BadHeader)?;
        let (fragment_header, payload) = rest
            .split_first_chunk::<{ ipv6::FRAGMENT_HEADER_BYTES }>()
            .ok_or(Error::BadHeader)?;
        Self {
            fragment,
            header,
            protocol_at: at.named_at,
            protocol: IpProtocol(fragment_header[0]),
            upper: upper.protocol,
            upper_bytes: packet.bytes().len().saturating_sub(upper.offset_bytes),
            class: packet.header.traffic_class(),
            payload,
        }
        .checked()
    }

    /// The rules that a fragment has to keep whatever else there is of its datagram.
    fn checked(self) -> Result<Self, Error> {
        let length = self.payload.len();
        if length == 0 || self.fragment.more && !length.is_multiple_of(UNIT_BYTES) {
            return Err(Error::BadLength);
        }
        if self.end() > MAX_PAYLOAD_BYTES {
            return Err(Error::TooLong);
        }
        if self.fragment.is_first() && self.fragment.more && self.upper_bytes < self.least_upper_bytes() {
            return Err(Error::TinyFirst);
        }
        Ok(self)
    }

    /// Where it ends in the datagram's payload.
    pub(super) fn end(&self) -> usize {
        usize::from(self.fragment.offset_bytes) + self.payload.len()
    }

    /// The upper protocol's header at its shortest: a filter that reads it in the first fragment has seen it.
    fn least_upper_bytes(&self) -> usize {
        match self.upper {
            IpProtocol::TCP => wire::tcp::HEADER_BYTES,
            // ESP's header and as much again: there is no transform without an IV, a block or an ICV.
            IpProtocol::ESP => 2 * wire::esp::HEADER_BYTES,
            _ => UNIT_BYTES,
        }
    }
}

/// A datagram's buffer and what is known of it.
pub(super) struct Slot {
    buffer: Box<[u8]>,
    /// A bit for every 8 bytes of payload that are there.
    there: Box<[u64]>,
    /// Payload bytes that are there.
    pub(super) held_bytes: usize,
    /// Fragments that are there.
    pub(super) held_packets: u32,
    /// The payload's length, once the last fragment is there.
    end: Option<usize>,
    /// The greatest end of any fragment that is there.
    furthest: usize,
    /// The first fragment's header, once it is there.
    header_bytes: Option<usize>,
    protocol_at: usize,
    protocol: IpProtocol,
    /// Every ECN codepoint that a fragment had, a bit each.
    ecn_seen: u8,
}

impl Slot {
    /// Room for `payload_bytes` of payload.
    pub(super) fn new(payload_bytes: usize) -> Self {
        Self {
            buffer: vec![0; HEADER_ROOM_BYTES + payload_bytes].into_boxed_slice(),
            there: vec![0; payload_bytes.div_ceil(UNIT_BYTES).div_ceil(64)].into_boxed_slice(),
            held_bytes: 0,
            held_packets: 0,
            end: None,
            furthest: 0,
            header_bytes: None,
            protocol_at: 0,
            protocol: IpProtocol::NO_NEXT_HEADER,
            ecn_seen: 0,
        }
    }

    /// Forgets the datagram.
    pub(super) fn clear(&mut self) {
        self.there.fill(0);
        self.held_bytes = 0;
        self.held_packets = 0;
        self.end = None;
        self.furthest = 0;
        self.header_bytes = None;
        self.ecn_seen = 0;
    }

    /// Adds a fragment; nothing is changed where it is refused.
    pub(super) fn add(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        let (start, end) = (usize::from(piece.fragment.offset_bytes), piece.end());
        let place = HEADER_ROOM_BYTES + start..HEADER_ROOM_BYTES + end;
        let units = start / UNIT_BYTES..end.div_ceil(UNIT_BYTES);
        let there = self.buffer.get(place.clone()).ok_or(Error::TooLong)?;
        let count = self.count(units.clone());
        if count != 0 {
            let same = count == units.len() && there == piece.payload && self.end_agrees(piece);
            return Err(if same { Error::Duplicate } else { Error::Overlap });
        }
        let beyond = self.end.is_some_and(|last| end > last);
        let short = !piece.fragment.more && (self.end.is_some() || self.furthest > end);
        if beyond || short {
            return Err(Error::Overlap);
        }
        self.buffer
            .get_mut(place)
            .ok_or(Error::TooLong)?
            .copy_from_slice(piece.payload);
        for unit in units {
            if let Some(word) = self.there.get_mut(unit / 64) {
                *word |= 1 << (unit % 64);
            }
        }
        if piece.fragment.is_first() {
            let room = self.buffer.get_mut(..HEADER_ROOM_BYTES).ok_or(Error::TooLong)?;
            let from = room
                .len()
                .checked_sub(piece.header.len())
                .ok_or(Error::BadHeader)?;
            room.get_mut(from..)
                .ok_or(Error::BadHeader)?
                .copy_from_slice(piece.header);
            self.header_bytes = Some(piece.header.len());
            self.protocol_at = piece.protocol_at;
            self.protocol = piece.protocol;
        }
        if !piece.fragment.more {
            self.end = Some(end);
        }
        self.furthest = self.furthest.max(end);
        self.held_bytes += piece.payload.len();
        self.held_packets += 1;
        self.ecn_seen |= 1 << piece.class.ecn() as u8;
        Ok(())
    }

    /// How many of these units are there.
    fn count(&self, units: core::ops::Range<usize>) -> usize {
        units
            .filter(|unit| {
                self.there
                    .get(unit / 64)
                    .is_some_and(|word| word & 1 << (unit % 64) != 0)
            })
            .count()
    }

    /// Whether a fragment says the same about the datagram's end as what is there.
    fn end_agrees(&self, piece: &Piece<'_>) -> bool {
        if piece.fragment.more {
            self.end.is_none_or(|end| piece.end() < end)
        } else {
            self.end == Some(piece.end())
        }
    }

    /// Whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.header_bytes.is_some() && self.end == Some(self.held_bytes)
    }

    /// Completes the header of a datagram that is whole: the length of the packet in [`Self::packet`].
    pub(super) fn finish(&mut self, limit_bytes: usize) -> Result<usize, Error> {
        const NOT_ECT: u8 = 1 << Ecn::NotEct as u8;
        const CE: u8 = 1 << Ecn::Ce as u8;
        let (header_bytes, payload_bytes) = (self.header_bytes.unwrap_or(0), self.held_bytes);
        let length = header_bytes + payload_bytes;
        if length > limit_bytes {
            return Err(Error::TooLong);
        }
        if self.ecn_seen & (NOT_ECT | CE) == NOT_ECT | CE {
            return Err(Error::EcnMixed);
        }
        let congested = self.ecn_seen & CE != 0;
        let (protocol_at, protocol) = (self.protocol_at, self.protocol);
        let header = self
            .buffer
            .get_mut(HEADER_ROOM_BYTES - header_bytes..HEADER_ROOM_BYTES)
            .ok_or(Error::BadHeader)?;
        *header.get_mut(protocol_at).ok_or(Error::BadHeader)? = protocol.0;
        if let Some(fixed) = header
            .first_chunk_mut::<{ ipv6::HEADER_BYTES }>()
            .filter(|h| h[0] >> 4 == 6)
        {
            let after_fixed = length - ipv6::HEADER_BYTES;
            ipv6::set_payload_bytes(fixed, u16::try_from(after_fixed).map_err(|_| Error::TooLong)?);
            if congested {
                let class = TrafficClass(fixed[0] << 4 | fixed[1] >> 4);
                ipv6::set_traffic_class(fixed, class.with_ecn(Ecn::Ce));
            }
        } else {
            let fixed = header
                .first_chunk_mut::<{ ipv4::HEADER_BYTES }>()
                .ok_or(Error::BadHeader)?;
            ipv4::set_total_bytes(fixed, u16::try_from(length).map_err(|_| Error::TooLong)?);
            ipv4::set_fragment(fixed, 0, false);
            if congested {
                let class = TrafficClass(fixed[1]);
                ipv4::set_traffic_class(fixed, class.with_ecn(Ecn::Ce));
            }
        }
        Ok(length)
    }

    /// The packet that [`Self::finish`] completed.
    pub(super) fn packet(&self, length: usize) -> &[u8] {
        let header_bytes = self.header_bytes.unwrap_or(0);
        let from = HEADER_ROOM_BYTES - header_bytes.min(HEADER_ROOM_BYTES);
        self.buffer.get(from..from + length).unwrap_or_default()
    }
}
