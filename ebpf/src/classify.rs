//! Whose packet is it: Penstock's, or the kernel's?
//!
//! The decision is made on headers alone and leaves to the kernel whatever it does not understand. Only what
//! Penstock surely handles is taken:
//!
//! | to                 | on a port that is | what                                                          |
//! |--------------------|-------------------|---------------------------------------------------------------|
//! | a local address    | internet          | ESP; ESP in UDP; UDP fragments; ICMP errors about these       |
//! | a tunnel's end     | tunnels           | GRE, IP in IP, MPLS in IP and UDP; their ICMP errors          |
//! | any other unicast  | protected         | everything but neighbour discovery                            |
//! | (labelled frames)  | MPLS              | unicast MPLS                                                  |
//!
//! Fragments of one datagram all take the same way, or no reassembler would ever see all of them: that is why
//! a fragment is judged by its protocol alone, never by ports that only the first one shows.

use core::net::{Ipv4Addr, Ipv6Addr};

use wire::ipv6::{MAX_EXTENSION_BYTES, MAX_EXTENSIONS};
use wire::udp::{MPLS_PORT, NAT_KEEPALIVE, NAT_TRAVERSAL_PORT, NON_ESP_MARKER};
use wire::{Cursor, EtherType, IpProtocol, MacAddr, ethernet, ipv4, ipv6, udp};

use crate::maps::{Local, Role, VlanKey};
use crate::verdict::{Drop, Pass, Redirect, Verdict};

/// What the decision asks of the port that a frame came in by.
pub trait Steering {
    /// The port's MAC address.
    fn mac(&self) -> MacAddr;
    /// What untagged frames are taken for.
    fn role(&self) -> Role;
    /// What frames of this VLAN are taken for; [`Role::NONE`] where the VLAN is not ours.
    fn vlan_role(&self, vlan: VlanKey) -> Role;
    /// What this address is to the gateway.
    fn local_v4(&self, address: Ipv4Addr) -> Local;
    /// What this address is to the gateway.
    fn local_v6(&self, address: Ipv6Addr) -> Local;
}

/// Decides what becomes of a frame.
///
/// A frame that is cut short within a header that the decision needs, or whose header contradicts itself, is
/// left to the kernel, which drops and counts it.
#[inline(always)]
pub fn classify<'p>(frame: impl Cursor<'p>, steering: &impl Steering) -> Verdict {
    match decide(frame, steering) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// A header that the decision needs is cut short or contradicts itself: the one error on the way to a verdict. It is a
/// verdict itself, for an empty error would leave an undefined one beside it, which strict verifiers do not let the
/// compiler read, not even past a branch that is never taken.
const MALFORMED: Verdict = Verdict::Pass(Pass::Malformed);

const NOT_OURS: Verdict = Verdict::Pass(Pass::NotOurs);

#[inline(always)]
fn take<'p, const N: usize>(from: &mut impl Cursor<'p>) -> Result<&'p [u8; N], Verdict> {
    from.take::<N>().ok_or(MALFORMED)
}

#[inline(always)]
fn decide<'p>(mut frame: impl Cursor<'p>, steering: &impl Steering) -> Result<Verdict, Verdict> {
    let header = take::<{ ethernet::HEADER_BYTES }>(&mut frame)?;
    // Broadcast, multicast and frames flooded by a switch for someone else: not ours to forward.
    let [d0, d1, d2, d3, d4, d5, ..] = *header;
    if MacAddr([d0, d1, d2, d3, d4, d5]) != steering.mac() {
        return Ok(NOT_OURS);
    }
    let mut ether_type = EtherType(u16::from_be_bytes([header[12], header[13]]));
    let mut vlan = VlanKey::default();
    // By hand and not by `ethernet::Header`: of an absent tag that leaves an `Option` whose content is undefined, and
    // the compiler may carry undefined registers about, which the verifier does not let it do.
    if ether_type.is_tag() {
        (vlan.outer, ether_type) = tag(take(&mut frame)?);
        if ether_type.is_tag() {
            (vlan.inner, ether_type) = tag(take(&mut frame)?);
        }
    }
    let role = if vlan == VlanKey::default() {
        steering.role()
    } else {
        steering.vlan_role(vlan)
    };
    match ether_type {
        EtherType::IPV4 => ipv4(frame, role, steering),
        EtherType::IPV6 => ipv6(frame, role, steering),
        EtherType::MPLS if role.has(Role::MPLS) => {
            // One label stack entry at least (RFC 3032 section 2.1).
            take::<4>(&mut frame)?;
            Ok(Verdict::Redirect(Redirect::Mpls))
        }
        _ => Ok(NOT_OURS),
    }
}

/// Identifier and next EtherType; the priority is not looked at.
#[inline(always)]
fn tag(bytes: &[u8; ethernet::TAG_BYTES]) -> (u16, EtherType) {
    (
        u16::from_be_bytes([bytes[0] & 0x0f, bytes[1]]),
        EtherType(u16::from_be_bytes([bytes[2], bytes[3]])),
    )
}

/// Elsewhere than at their ends the kernel may have tunnels of its own.
#[inline(always)]
fn role_at(role: Role, local: Local) -> Role {
    if local.is_tunnel_end() {
        role
    } else {
        role.without(Role::TUNNELS)
    }
}

/// An upper-layer packet to a local address.
struct ToLocal<A> {
    protocol: IpProtocol,
    is_fragment: bool,
    destination: A,
}

#[inline(always)]
fn ipv4<'p>(mut packet: impl Cursor<'p>, role: Role, steering: &impl Steering) -> Result<Verdict, Verdict> {
    let header = ipv4::Header::parse(&mut packet).map_err(|_| MALFORMED)?;
    let destination = header.destination();
    let local = steering.local_v4(destination);
    let verdict = if local.is_own() {
        let role = role_at(role, local);
        let upper = ToLocal {
            protocol: header.protocol(),
            is_fragment: header.is_fragment(),
            destination,
        };
        to_local(packet, role, &upper, icmpv4_error)?
    } else if role.has(Role::PROTECTED) && is_forwardable_v4(destination) {
        Verdict::Redirect(Redirect::Transit)
    } else {
        NOT_OURS
    };
    Ok(match verdict {
        Verdict::Redirect(_) if !is_host_v4(header.source()) => Verdict::Drop(Drop::MartianSource),
        verdict => verdict,
    })
}

/// Whether a host can have this address: not "this network", loopback, multicast or broadcast.
#[inline(always)]
fn is_host_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first & 0xf0 != 224 && address.to_bits() != u32::MAX
}

/// Whether a router may forward to this address: additionally not link-local (RFC 3927 section 2.6.2).
#[inline(always)]
fn is_forwardable_v4(address: Ipv4Addr) -> bool {
    is_host_v4(address) && address.to_bits() >> 16 != 0xa9fe
}

#[inline(always)]
fn ipv6<'p>(mut packet: impl Cursor<'p>, role: Role, steering: &impl Steering) -> Result<Verdict, Verdict> {
    let header = ipv6::Header::parse(&mut packet).map_err(|_| MALFORMED)?;
    let destination = header.destination();
    let local = steering.local_v6(destination);
    let verdict = if local.is_own() {
        let role = role_at(role, local);
        ipv6_to_local(packet, role, header.next_header(), destination)?
    } else if role.has(Role::PROTECTED) && is_forwardable_v6(destination) {
        ipv6_transit(packet, header.next_header())?
    } else {
        NOT_OURS
    };
    Ok(match verdict {
        Verdict::Redirect(_) if !is_host_v6(header.source()) => Verdict::Drop(Drop::MartianSource),
        verdict => verdict,
    })
}

/// Everything in transit is taken but neighbour discovery, which no router forwards.
#[inline(always)]
fn ipv6_transit<'p>(mut packet: impl Cursor<'p>, next_header: IpProtocol) -> Result<Verdict, Verdict> {
    let is_discovery =
        next_header == IpProtocol::ICMPV6 && is_neighbour_discovery(take::<1>(&mut packet)?[0]);
    Ok(if is_discovery {
        NOT_OURS
    } else {
        Verdict::Redirect(Redirect::Transit)
    })
}

/// Passes over the extension headers before the fragment header or the upper layer (RFC 8200 section 4.1).
///
/// What it takes is what `ipv6::walk_extensions` walks through as well, for that is what the dataplane does next.
/// Unlike that it stops behind a fragment header, because only what that says is said by
/// every fragment, and at a routing header that is not at its end, because that is the kernel's to follow.
#[inline(always)]
fn ipv6_to_local<'p>(
    mut packet: impl Cursor<'p>,
    role: Role,
    next_header: IpProtocol,
    destination: Ipv6Addr,
) -> Result<Verdict, Verdict> {
    let mut protocol = next_header;
    let mut walked_headers = 0;
    let mut walked_bytes = 0;
    while walked_headers < MAX_EXTENSIONS && is_extension(protocol) {
        // Elsewhere than first it is no hop-by-hop header (RFC 8200 section 4.1).
        if protocol == IpProtocol::HOP_BY_HOP && walked_headers != 0 {
            return Ok(NOT_OURS);
        }
        let extension = take::<8>(&mut packet)?;
        // Segments left: this is not the last destination (RFC 8200 section 4.4).
        if protocol == IpProtocol::ROUTING && extension[3] != 0 {
            return Ok(NOT_OURS);
        }
        let rest_bytes = usize::from(extension[1]) * 8;
        walked_bytes += 8 + rest_bytes;
        if walked_bytes > MAX_EXTENSION_BYTES {
            return Ok(NOT_OURS);
        }
        packet.skip(rest_bytes).ok_or(MALFORMED)?;
        protocol = IpProtocol(extension[0]);
        walked_headers += 1;
    }
    let mut is_fragment = false;
    if protocol == IpProtocol::FRAGMENT {
        if walked_headers == MAX_EXTENSIONS {
            return Ok(NOT_OURS);
        }
        let fragment = take_fragment(&mut packet)?;
        protocol = fragment.protocol;
        // With offset zero and none to follow this is a whole packet (RFC 6946).
        is_fragment = fragment.offset_and_more != 0;
    }
    to_local(
        packet,
        role,
        &ToLocal {
            protocol,
            is_fragment,
            destination,
        },
        icmpv6_error,
    )
}

/// A header between IPv6's own and the upper layer's, other than a fragment's.
#[inline(always)]
fn is_extension(protocol: IpProtocol) -> bool {
    matches!(
        protocol,
        IpProtocol::HOP_BY_HOP | IpProtocol::ROUTING | IpProtocol::DESTINATION_OPTIONS
    )
}

/// What the fragment header says (RFC 8200 section 4.5).
struct FragmentHeader {
    protocol: IpProtocol,
    offset_and_more: u16,
}

#[inline(always)]
fn take_fragment<'p>(packet: &mut impl Cursor<'p>) -> Result<FragmentHeader, Verdict> {
    let bytes = take::<{ ipv6::FRAGMENT_HEADER_BYTES }>(packet)?;
    Ok(FragmentHeader {
        protocol: IpProtocol(bytes[0]),
        offset_and_more: u16::from_be_bytes([bytes[2], bytes[3]]) & 0xfff9,
    })
}

/// Whether a host can have this address: not multicast, unspecified or loopback.
#[inline(always)]
fn is_host_v6(address: Ipv6Addr) -> bool {
    address.octets()[0] != 0xff && address.to_bits() > 1
}

/// Whether a router may forward to this address: additionally not link-local (RFC 4291 section 2.5.6).
#[inline(always)]
fn is_forwardable_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    is_host_v6(address) && !(first == 0xfe && second & 0xc0 == 0x80)
}

/// Router and neighbour solicitation and advertisement, and redirect (RFC 4861 section 4).
#[inline(always)]
fn is_neighbour_discovery(icmpv6_type: u8) -> bool {
    matches!(icmpv6_type, 133..=137)
}

#[inline(always)]
fn to_local<'p, A, C: Cursor<'p>>(
    packet: C,
    role: Role,
    upper: &ToLocal<A>,
    icmp_error: impl Fn(C, Role, &ToLocal<A>) -> Result<Verdict, Verdict>,
) -> Result<Verdict, Verdict> {
    if !role.has_any(Role::INTERNET.with(Role::TUNNELS)) {
        return Ok(NOT_OURS);
    }
    if upper.is_fragment {
        let taken = upper.protocol == IpProtocol::UDP || taken_by_number(upper.protocol, role).is_some();
        return Ok(if taken {
            Verdict::Redirect(Redirect::Fragment)
        } else {
            NOT_OURS
        });
    }
    match upper.protocol {
        IpProtocol::UDP => to_local_udp(packet, role),
        IpProtocol::ICMP | IpProtocol::ICMPV6 => icmp_error(packet, role, upper),
        protocol => Ok(taken_by_number(protocol, role).map_or(NOT_OURS, Verdict::Redirect)),
    }
}

/// Protocols that are taken by their number alone.
#[inline(always)]
fn taken_by_number(protocol: IpProtocol, role: Role) -> Option<Redirect> {
    match protocol {
        // A packet too short for an SPI is taken too: the dataplane counts it as a runt, where the kernel
        // would answer a stranger that it has no ESP.
        IpProtocol::ESP if role.has(Role::INTERNET) => Some(Redirect::Esp),
        IpProtocol::GRE | IpProtocol::IPV4 | IpProtocol::IPV6 | IpProtocol::MPLS
            if role.has(Role::TUNNELS) =>
        {
            Some(Redirect::Tunnel)
        }
        _ => None,
    }
}

#[inline(always)]
fn to_local_udp<'p>(mut packet: impl Cursor<'p>, role: Role) -> Result<Verdict, Verdict> {
    let header = udp::Header::parse(&mut packet).map_err(|_| MALFORMED)?;
    let port = header.destination_port();
    if port == MPLS_PORT && role.has(Role::TUNNELS) {
        return Ok(Verdict::Redirect(Redirect::Tunnel));
    }
    if port != NAT_TRAVERSAL_PORT || !role.has(Role::INTERNET) {
        return Ok(NOT_OURS);
    }
    // Ethernet pads short frames, so only the UDP length tells a keepalive (RFC 3948 section 2.3).
    if usize::from(header.length_bytes()) == udp::HEADER_BYTES + 1 {
        let is_keepalive = take::<1>(&mut packet)?[0] == NAT_KEEPALIVE;
        return Ok(if is_keepalive {
            Verdict::Drop(Drop::NatKeepalive)
        } else {
            NOT_OURS
        });
    }
    Ok(if *take::<4>(&mut packet)? == NON_ESP_MARKER {
        Verdict::Pass(Pass::Ike)
    } else {
        Verdict::Redirect(Redirect::EspInUdp)
    })
}

/// Destination unreachable, time exceeded and parameter problem (RFC 792) about a packet of ours.
#[inline(always)]
fn icmpv4_error<'p>(
    mut packet: impl Cursor<'p>,
    role: Role,
    upper: &ToLocal<Ipv4Addr>,
) -> Result<Verdict, Verdict> {
    let icmp = take::<8>(&mut packet)?;
    if upper.protocol != IpProtocol::ICMP || !matches!(icmp[0], 3 | 11 | 12) {
        return Ok(NOT_OURS);
    }
    let quoted = ipv4::Header::parse(&mut packet).map_err(|_| MALFORMED)?;
    // We sent what is quoted, from the address that the error came to (RFC 5927 section 4.1).
    if quoted.source() != upper.destination {
        return Ok(NOT_OURS);
    }
    quoted_upper(
        packet,
        role,
        quoted.protocol(),
        quoted.fragment_offset_bytes() != 0,
    )
}

/// The error messages of RFC 4443 section 3 about a packet of ours.
#[inline(always)]
fn icmpv6_error<'p>(
    mut packet: impl Cursor<'p>,
    role: Role,
    upper: &ToLocal<Ipv6Addr>,
) -> Result<Verdict, Verdict> {
    let icmp = take::<8>(&mut packet)?;
    if upper.protocol != IpProtocol::ICMPV6 || !matches!(icmp[0], 1..=4) {
        return Ok(NOT_OURS);
    }
    let quoted = ipv6::Header::parse(&mut packet).map_err(|_| MALFORMED)?;
    if quoted.source() != upper.destination {
        return Ok(NOT_OURS);
    }
    // What we send has no extension header but that of a fragment.
    if quoted.next_header() == IpProtocol::FRAGMENT {
        let fragment = take_fragment(&mut packet)?;
        quoted_upper(
            packet,
            role,
            fragment.protocol,
            fragment.offset_and_more >> 3 != 0,
        )
    } else {
        quoted_upper(packet, role, quoted.next_header(), false)
    }
}

/// Whether the quoted packet may be one that Penstock sent.
#[inline(always)]
fn quoted_upper<'p>(
    mut packet: impl Cursor<'p>,
    role: Role,
    protocol: IpProtocol,
    is_later_fragment: bool,
) -> Result<Verdict, Verdict> {
    if protocol != IpProtocol::UDP {
        return Ok(match taken_by_number(protocol, role) {
            Some(_) => Verdict::Redirect(Redirect::IcmpError),
            None => NOT_OURS,
        });
    }
    if is_later_fragment {
        return Ok(NOT_OURS);
    }
    let header = udp::Header::parse(&mut packet).map_err(|_| MALFORMED)?;
    if header.destination_port() == MPLS_PORT && role.has(Role::TUNNELS) {
        return Ok(Verdict::Redirect(Redirect::IcmpError));
    }
    // Our side of ESP in UDP is always port 4500; the peer's may be a NAT's choice.
    if header.source_port() != NAT_TRAVERSAL_PORT || !role.has(Role::INTERNET) {
        return Ok(NOT_OURS);
    }
    // A quotation need not go on beyond the UDP header (RFC 792); where it does, IKE shows its marker.
    Ok(match packet.take::<4>() {
        Some(marker) if *marker == NON_ESP_MARKER => Verdict::Pass(Pass::Ike),
        _ => Verdict::Redirect(Redirect::IcmpError),
    })
}
