//! The bytes of an outbound ESP packet around and within the frame, all but IV, ciphertext and ICV.

use southbound::{DfPolicy, DropReason, TtlPolicy};
use wire::checksum::Sum;
use wire::{IpProtocol, SliceCursor, TrafficClass, esp, ipv4, ipv6, udp};

use super::ecn;
use crate::batch::{Flags, Meta};
use crate::sa::{EspSizes, OuterTemplate, Tunnel};
use crate::xsk::Frame;

/// The IPv4 flag "don't fragment", in the word of flags and offset.
const DONT_FRAGMENT: u16 = 0x4000;

/// What every link carries of IPv6 (RFC 8200 section 5), so also a tunnel whose path is narrower: its outer IPv4 packets
/// are then fragmented (RFC 2473 section 7.1).
pub const IPV6_MINIMUM_BYTES: u16 = 1280;

/// How the packets of one SA in tunnel mode are laid out: the tunnel's rules made into masks, once for each run of
/// packets.
pub struct TunnelLayout<'w> {
    template: &'w OuterTemplate,
    // Headers, sequence number and IV.
    front_bytes: usize,
    // Pad length, next header, ICV.
    behind_bytes: usize,
    align_mask: usize,
    // An outer field is the inner one's bits of the first mask, and those of the second.
    class: (u8, u8),
    hops: (u8, u8),
    fragment: (u16, u16),
}

impl<'w> TunnelLayout<'w> {
    /// With the headers and sizes of an SA, by the rules of its tunnel.
    #[inline]
    #[must_use]
    pub fn new(template: &'w OuterTemplate, sizes: EspSizes, tunnel: &Tunnel) -> Self {
        let all = ecn::encapsulate(TrafficClass(u8::MAX), tunnel.dscp, tunnel.ecn).0;
        let set = ecn::encapsulate(TrafficClass(0), tunnel.dscp, tunnel.ecn).0;
        Self {
            template,
            front_bytes: template.bytes().len() + 4 + usize::from(sizes.iv_bytes),
            behind_bytes: esp::TRAILER_BYTES + usize::from(sizes.icv_bytes),
            align_mask: usize::from(sizes.align_bytes) - 1,
            class: (all & !set, set),
            hops: match tunnel.ttl {
                TtlPolicy::Set(hops) => (0, hops),
                TtlPolicy::Copy => (u8::MAX, 0),
            },
            fragment: match tunnel.df {
                DfPolicy::Copy => (DONT_FRAGMENT, 0),
                DfPolicy::Set => (0, DONT_FRAGMENT),
                DfPolicy::Clear => (0, 0),
            },
        }
    }

    /// The `N` of [`Self::apply`].
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.template.bytes().len()
    }

    /// Puts the outer headers, `N` bytes to the end of the SPI, before the inner packet and padding, trailer and room for
    /// the ICV behind it; answers where the ESP header begins.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`] where the frame has no room.
    #[inline(always)]
    pub fn apply<const N: usize>(
        &self,
        frame: &mut Frame<'_>,
        meta: &mut Meta,
        sequence: u64,
    ) -> Result<usize, DropReason> {
        let inner_is_ipv6 = meta.flags.has(Flags::IPV6);
        let inner = InnerFields::of(frame.bytes(), inner_is_ipv6);
        let next_header = if inner_is_ipv6 {
            IpProtocol::IPV6
        } else {
            IpProtocol::IPV4
        };
        let inner_bytes = frame.len();
        let pad_bytes = inner_bytes.wrapping_add(esp::TRAILER_BYTES).wrapping_neg() & self.align_mask;
        let bytes = frame
            .grow_both(self.front_bytes, pad_bytes + self.behind_bytes)
            .ok_or(DropReason::NoHeadroom)?;
        if let Some(behind) = bytes.get_mut(self.front_bytes + inner_bytes..) {
            write_trailer(behind, pad_bytes, next_header);
        }
        let class = TrafficClass(inner.class.0 & self.class.0 | self.class.1);
        let hops = inner.hops & self.hops.0 | self.hops.1;
        let ip_bytes = if N > V4_BYTES + UDP_BYTES {
            meta.flags.set(Flags::IPV6);
            write_headers::<N>(bytes, self.template, sequence);
            write_v6(bytes, class, hops, inner.label);
            ipv6::HEADER_BYTES
        } else {
            meta.flags.clear(Flags::IPV6);
            let fragment = inner.fragment & self.fragment.0 | self.fragment.1;
            let fields = FieldsV4 {
                class,
                total_bytes: bytes.len() as u16,
                hops,
                // RFC 6864 section 4.1: what is never fragmented needs no identification; what may be takes the
                // sequence number's.
                identification: if fragment == 0 { sequence as u16 } else { 0 },
                fragment,
            };
            write_headers_v4::<N>(bytes, self.template, sequence, &fields);
            ipv4::HEADER_BYTES
        };
        meta.upper_bytes = ip_bytes as u16;
        if N == V4_BYTES || N == V6_BYTES {
            return Ok(ip_bytes);
        }
        write_udp_length(bytes, ip_bytes);
        Ok(ip_bytes + UDP_BYTES)
    }
}

/// Templates to the end of the SPI, without UDP.
pub const V4_BYTES: usize = ipv4::HEADER_BYTES + 4;
/// The same for IPv6.
pub const V6_BYTES: usize = ipv6::HEADER_BYTES + 4;
/// What UDP adds.
pub const UDP_BYTES: usize = udp::HEADER_BYTES;

/// The template's `N` bytes and the low half of the sequence number at the packet's front. The compiler knows the length,
/// for the copy to be a store or two.
#[inline(always)]
fn write_headers<const N: usize>(bytes: &mut [u8], template: &OuterTemplate, sequence: u64) {
    if let Some((front, rest)) = bytes.split_first_chunk_mut::<N>() {
        *front = *template.first();
        if let Some(low) = rest.first_chunk_mut() {
            *low = (sequence as u32).to_be_bytes();
        }
    }
}

/// What differs from packet to packet in an outer IPv4 header.
struct FieldsV4 {
    class: TrafficClass,
    total_bytes: u16,
    identification: u16,
    fragment: u16,
    hops: u8,
}

/// The same for an IPv4 header, its fields put between the template's, where that is zero: in whole words, which cost
/// one store each.
#[inline(always)]
fn write_headers_v4<const N: usize>(
    bytes: &mut [u8],
    template: &OuterTemplate,
    sequence: u64,
    fields: &FieldsV4,
) {
    let Some((front, rest)) = bytes.split_first_chunk_mut::<N>() else {
        return;
    };
    let headers = template.first::<N>();
    // Summed from the fields: reading the header back would wait for the stores.
    let checksum = Sum::new()
        .word(template.header_sum())
        .word(u16::from(fields.class.0))
        .word(fields.total_bytes)
        .word(fields.identification)
        .word(fields.fragment)
        .word(u16::from(fields.hops) << 8)
        .checksum();
    let first = u64::from(fields.class.0) << 48
        | u64::from(fields.total_bytes) << 32
        | u64::from(fields.identification) << 16
        | u64::from(fields.fragment);
    let second = u64::from(fields.hops) << 56 | u64::from(checksum) << 32;
    let word = |at: usize| headers[at..].first_chunk().copied().unwrap_or_default();
    front[..8].copy_from_slice(&(u64::from_ne_bytes(word(0)) | first.to_be()).to_ne_bytes());
    front[8..16].copy_from_slice(&(u64::from_ne_bytes(word(8)) | second.to_be()).to_ne_bytes());
    front[16..].copy_from_slice(&headers[16..]);
    if let Some(low) = rest.first_chunk_mut() {
        *low = (sequence as u32).to_be_bytes();
    }
}

/// Puts UDP and ESP header between the IP header, with the extension headers that stay before ESP, and the payload, and
/// padding, trailer and room for the ICV behind it; answers where the ESP header begins.
///
/// # Errors
/// [`DropReason::NoHeadroom`] where the frame has no room; [`DropReason::NotForwardable`] for a fragment, which transport
/// mode does not carry (RFC 4303 section 3.3.4); [`DropReason::ExtensionHeaders`].
pub fn transport(
    frame: &mut Frame<'_>,
    meta: &mut Meta,
    template: &OuterTemplate,
    sizes: EspSizes,
    sequence: u64,
) -> Result<usize, DropReason> {
    let is_ipv6 = meta.flags.has(Flags::IPV6);
    let place = UpperPlace::of(frame.bytes(), is_ipv6)?;
    append_trailer(frame, frame.len() - place.offset_bytes, place.protocol, sizes)?;
    let headers = template.bytes();
    let iv_bytes = usize::from(sizes.iv_bytes);
    let gap_bytes = headers.len() + 4 + iv_bytes;
    frame.grow_front(gap_bytes).ok_or(DropReason::NoHeadroom)?;
    let bytes = frame.bytes_mut();
    bytes.copy_within(gap_bytes..gap_bytes + place.offset_bytes, 0);
    let Some(gap) = bytes.get_mut(place.offset_bytes..place.offset_bytes + headers.len() + 4) else {
        return Err(DropReason::NoHeadroom);
    };
    let (front, low) = gap.split_at_mut(headers.len());
    front.copy_from_slice(headers);
    low.copy_from_slice(&(sequence as u32).to_be_bytes());
    let protocol = if template.udp_bytes() == 0 {
        IpProtocol::ESP
    } else {
        IpProtocol::UDP
    };
    let total_bytes = bytes.len() as u16;
    if is_ipv6 {
        if let Some(byte) = bytes.get_mut(place.next_header_at) {
            *byte = protocol.0;
        }
        if let Some(header) = bytes.first_chunk_mut() {
            ipv6::set_payload_bytes(header, total_bytes - ipv6::HEADER_BYTES as u16);
        }
    } else if let Some(header) = bytes.first_chunk_mut() {
        ipv4::set_protocol(header, protocol);
        ipv4::set_total_bytes(header, total_bytes);
    }
    meta.upper_bytes = place.offset_bytes as u16;
    if template.udp_bytes() != 0 {
        write_udp_length(bytes, place.offset_bytes);
    }
    Ok(place.offset_bytes + template.udp_bytes())
}

/// Padding, pad length, next header (RFC 4303 sections 2.4 to 2.6), and room for the ICV.
fn append_trailer(
    frame: &mut Frame<'_>,
    payload_bytes: usize,
    next_header: IpProtocol,
    sizes: EspSizes,
) -> Result<(), DropReason> {
    let pad_bytes = usize::from(esp::pad_bytes(payload_bytes, usize::from(sizes.align_bytes)));
    let behind = frame
        .grow_back(pad_bytes + esp::TRAILER_BYTES + usize::from(sizes.icv_bytes))
        .ok_or(DropReason::NoHeadroom)?;
    write_trailer(behind, pad_bytes, next_header);
    Ok(())
}

/// Writes padding and trailer at the beginning of what lies behind the payload; what is written beyond them lies in the
/// room for the ICV.
#[inline(always)]
fn write_trailer(behind: &mut [u8], pad_bytes: usize, next_header: IpProtocol) {
    match behind.first_chunk_mut::<8>() {
        Some(word) if pad_bytes <= 6 => {
            let trailer = pad_bytes as u64 | u64::from(next_header.0) << 8;
            let padding = PADDING & !(u64::MAX << (8 * pad_bytes));
            *word = (padding | trailer << (8 * pad_bytes)).to_le_bytes();
        }
        _ => {
            if let Some((padding, rest)) = behind.split_at_mut_checked(pad_bytes) {
                esp::fill_padding(padding);
                if let Some(trailer) = rest.first_chunk_mut() {
                    *trailer = [pad_bytes as u8, next_header.0];
                }
            }
        }
    }
}

/// The first bytes of any padding (RFC 4303 section 2.4), the first one lowest.
const PADDING: u64 = 0x0807_0605_0403_0201;

/// What the outer header takes from the inner one.
struct InnerFields {
    class: TrafficClass,
    hops: u8,
    // The word of flags and offset, of which only "don't fragment" is meant.
    fragment: u16,
    label: [u8; 3],
}

impl InnerFields {
    /// The header was checked to be there; an empty frame gives zeros.
    #[inline(always)]
    fn of(bytes: &[u8], is_ipv6: bool) -> Self {
        let Some(head) = bytes.first_chunk::<12>() else {
            return Self {
                class: TrafficClass(0),
                hops: 64,
                fragment: DONT_FRAGMENT,
                label: [0; 3],
            };
        };
        if is_ipv6 {
            Self {
                class: TrafficClass(head[0] << 4 | head[1] >> 4),
                hops: head[7],
                fragment: if is_narrow_v6(head) { 0 } else { DONT_FRAGMENT },
                // RFC 6438: the flow label keeps the flows within the tunnel apart for those who share load.
                label: [head[1] & 0x0f, head[2], head[3]],
            }
        } else {
            Self {
                class: TrafficClass(head[1]),
                hops: head[8],
                fragment: u16::from_be_bytes([head[6], 0]),
                label: [0; 3],
            }
        }
    }
}

/// IPv6 packets are fragmented by their sender only; but what every link has to carry may be cut outside.
#[inline(always)]
fn is_narrow_v6(head: &[u8; 12]) -> bool {
    let payload_bytes = usize::from(u16::from_be_bytes([head[4], head[5]]));
    payload_bytes + ipv6::HEADER_BYTES <= usize::from(IPV6_MINIMUM_BYTES)
}

#[inline(always)]
fn write_v6(bytes: &mut [u8], class: TrafficClass, hops: u8, label: [u8; 3]) {
    let payload_bytes = (bytes.len() - ipv6::HEADER_BYTES) as u16;
    let Some(header) = bytes.first_chunk_mut::<{ ipv6::HEADER_BYTES }>() else {
        return;
    };
    header[0] = 0x60 | class.0 >> 4;
    header[1] = class.0 << 4 | label[0];
    header[2..4].copy_from_slice(&label[1..]);
    header[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    header[7] = hops;
}

/// The UDP checksum of a sealed packet whose UDP header stands at `at` (RFC 768, RFC 8200 section 8.1).
pub fn write_udp_checksum(bytes: &mut [u8], at: usize, is_ipv6: bool) {
    let Some((header, udp)) = bytes.split_at_mut_checked(at) else {
        return;
    };
    let addresses = if is_ipv6 {
        header.get(8..40)
    } else {
        header.get(12..20)
    };
    let (Some(addresses), Ok(length)) = (addresses, u16::try_from(udp.len())) else {
        return;
    };
    // Its own field is zero so far.
    let sum = Sum::new()
        .bytes(addresses)
        .word(u16::from(IpProtocol::UDP.0))
        .word(length)
        .bytes(udp);
    // Zero would say that there is none.
    let checksum = match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = udp.get_mut(6..8) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The UDP length; the checksum stays zero until all else is written.
#[inline(always)]
fn write_udp_length(bytes: &mut [u8], at: usize) {
    let length = (bytes.len() - at) as u16;
    if let Some(field) = bytes.get_mut(at + 4..at + 6) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Where the payload of transport mode begins.
struct UpperPlace {
    offset_bytes: usize,
    protocol: IpProtocol,
    next_header_at: usize,
}

impl UpperPlace {
    fn of(bytes: &[u8], is_ipv6: bool) -> Result<Self, DropReason> {
        let mut cursor = SliceCursor::new(bytes);
        if is_ipv6 {
            let header = ipv6::Header::parse(&mut cursor).map_err(|_| DropReason::Truncated)?;
            // RFC 4303 section 3.1.1: ESP stands behind the extension headers that routers look at.
            let upper = ipv6::walk_extensions(&mut cursor, header.next_header())
                .map_err(|_| DropReason::ExtensionHeaders)?;
            if upper.fragment.is_some() {
                return Err(DropReason::NotForwardable);
            }
            Ok(Self {
                offset_bytes: upper.offset_bytes,
                protocol: upper.protocol,
                next_header_at: upper.next_header_at,
            })
        } else {
            let header = ipv4::Header::parse(&mut cursor).map_err(|_| DropReason::Truncated)?;
            if header.is_fragment() {
                return Err(DropReason::NotForwardable);
            }
            Ok(Self {
                offset_bytes: header.header_bytes(),
                protocol: header.protocol(),
                next_header_at: 9,
            })
        }
    }
}
