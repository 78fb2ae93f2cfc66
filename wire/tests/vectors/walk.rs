//! A walk over every header of a packet, with all of the crate's parsers.

use std::net::IpAddr;

use wire::icmp::ErrorMessage;
use wire::udp::NatTraversal;
use wire::{
    Cursor, EtherType, IpProtocol, SliceCursor, esp, ethernet, gre, icmp, ipv4, ipv6, mpls, tcp, udp,
};

/// What a walk over all headers met, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Layer {
    Ethernet(ethernet::Repr),
    Stack(Vec<wire::Lse>),
    Ipv4(ipv4::Repr),
    Ipv6(ipv6::Repr, ipv6::Upper),
    Udp(udp::Repr),
    Tcp(tcp::Flags, Option<u16>),
    Gre(gre::Repr),
    Esp(esp::Repr),
    Icmp { kind: u8, mtu_bytes: Option<u32> },
    Ike,
    Opaque,
}

/// A walk from the outermost header to the innermost, as the gateway does it.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) layers: Vec<Layer>,
    /// Headers that came out different when they were emitted again.
    altered: Vec<String>,
}

impl Walk {
    fn compare(&mut self, emitted: &[u8], received: &[u8]) {
        if emitted != received {
            self.altered.push(format!("{emitted:02x?} was {received:02x?}"));
        }
    }
}

/// The layers of a packet whose headers all come out the same when they are emitted again.
pub(crate) fn walk_exact(packet: &[u8], ethernet: bool) -> Vec<Layer> {
    let walk = walk(packet, ethernet).expect("a packet that parses");
    assert_eq!(walk.altered, Vec::<String>::new());
    walk.layers
}

/// `Err` names the layer that would not parse.
pub(crate) fn walk(packet: &[u8], ethernet: bool) -> Result<Walk, String> {
    let mut walk = Walk::default();
    let payload = if ethernet {
        let mut cursor = SliceCursor::new(packet);
        let header = ethernet::Header::parse(&mut cursor).map_err(|e| format!("{e:?}"))?;
        let mut out = [0; ethernet::Repr::MAX_BYTES];
        let length = header.repr().emit(&mut out);
        walk.compare(&out[..length], &packet[..cursor.position()]);
        walk.layers.push(Layer::Ethernet(header.repr()));
        walk_ether_type(header.ether_type, cursor.rest(), &mut walk)
    } else {
        walk_ip(packet, &mut walk)
    };
    payload.map(|()| walk)
}

fn walk_ether_type(ether_type: EtherType, packet: &[u8], walk: &mut Walk) -> Result<(), String> {
    match ether_type {
        EtherType::IPV4 | EtherType::IPV6 => walk_ip(packet, walk),
        EtherType::MPLS => {
            let mut cursor = SliceCursor::new(packet);
            let stack = mpls::Stack::parse(&mut cursor).map_err(|e| format!("mpls {e:?}"))?;
            let again: Vec<u8> = stack
                .entries()
                .iter()
                .flat_map(|entry| entry.to_bytes())
                .collect();
            walk.compare(&again, &packet[..cursor.position()]);
            walk.layers.push(Layer::Stack(stack.entries().to_vec()));
            walk_ip(cursor.rest(), walk)
        }
        other => Err(format!("{other:?}")),
    }
}

fn walk_ip(packet: &[u8], walk: &mut Walk) -> Result<(), String> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::parse(packet).map_err(|e| format!("ipv4 {e:?}"))?;
            packet.verify_checksum().map_err(|e| format!("ipv4 {e:?}"))?;
            let header = packet.header;
            if packet.options.is_empty() {
                let mut out = [0; ipv4::HEADER_BYTES];
                header.repr().emit(&mut out);
                walk.compare(&out, header.bytes());
            }
            walk.layers.push(Layer::Ipv4(header.repr()));
            if header.fragment().is_some_and(|fragment| !fragment.is_first()) {
                walk.layers.push(Layer::Opaque);
                return Ok(());
            }
            let ends = (IpAddr::V4(header.source()), IpAddr::V4(header.destination()));
            walk_upper(
                header.protocol(),
                packet.payload,
                ends,
                header.is_fragment(),
                walk,
            )
        }
        Some(6) => {
            let packet = ipv6::Packet::parse(packet).map_err(|e| format!("ipv6 {e:?}"))?;
            let header = packet.header;
            let mut out = [0; ipv6::HEADER_BYTES];
            header.repr().emit(&mut out);
            walk.compare(&out, header.bytes());
            let upper = packet.upper().map_err(|e| format!("ipv6 {e:?}"))?;
            assert_eq!(packet.bytes()[upper.next_header_at], upper.protocol.0);
            walk.layers.push(Layer::Ipv6(header.repr(), upper));
            if let (Some(fragment), Some(at)) = (upper.fragment, upper.fragment_at) {
                let mut out = [0; ipv6::FRAGMENT_HEADER_BYTES];
                ipv6::emit_fragment(upper.protocol, fragment, &mut out);
                walk.compare(&out, &packet.bytes()[at.header_at..at.header_at + 8]);
            }
            if !upper.has_upper_header() {
                walk.layers.push(Layer::Opaque);
                return Ok(());
            }
            let ends = (IpAddr::V6(header.source()), IpAddr::V6(header.destination()));
            let payload = &packet.bytes()[upper.offset_bytes..];
            walk_upper(upper.protocol, payload, ends, upper.fragment.is_some(), walk)
        }
        other => Err(format!("version {other:?}")),
    }
}

fn walk_upper(
    protocol: IpProtocol,
    payload: &[u8],
    ends: (IpAddr, IpAddr),
    fragment: bool,
    walk: &mut Walk,
) -> Result<(), String> {
    let mut cursor = SliceCursor::new(payload);
    match protocol {
        IpProtocol::UDP if fragment => {
            let header = udp::Header::parse(&mut cursor).map_err(|e| format!("udp {e:?}"))?;
            walk.layers.push(Layer::Udp(header.repr()));
            Ok(())
        }
        IpProtocol::UDP => {
            let packet = udp::Packet::parse(payload).map_err(|e| format!("udp {e:?}"))?;
            match ends {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    packet.verify_checksum_v4(source, destination)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    packet.verify_checksum_v6(source, destination)
                }
                _ => unreachable!("one version"),
            }
            .map_err(|e| format!("udp {e:?}"))?;
            let repr = packet.header.repr();
            let mut out = [0; udp::HEADER_BYTES];
            repr.emit(&mut out);
            walk.compare(&out, &payload[..8]);
            walk.layers.push(Layer::Udp(repr));
            if repr.destination_port != udp::NAT_TRAVERSAL_PORT {
                return Ok(());
            }
            match NatTraversal::parse(packet.payload) {
                NatTraversal::Esp(esp) => walk_upper(IpProtocol::ESP, esp, ends, false, walk),
                NatTraversal::Ike(_) => {
                    walk.layers.push(Layer::Ike);
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        }
        IpProtocol::TCP => {
            let header = tcp::Header::parse(&mut cursor).map_err(|e| format!("tcp {e:?}"))?;
            let options = &payload[tcp::HEADER_BYTES..header.header_bytes()];
            let mss = tcp::find_mss(options).map_err(|e| format!("tcp {e:?}"))?;
            walk.layers
                .push(Layer::Tcp(header.flags(), mss.map(|mss| mss.bytes)));
            Ok(())
        }
        IpProtocol::ESP => {
            let header = esp::Header::parse(&mut cursor).map_err(|e| format!("esp {e:?}"))?;
            let mut out = [0; esp::HEADER_BYTES];
            header.repr().emit(&mut out);
            walk.compare(&out, &payload[..8]);
            walk.layers.push(Layer::Esp(header.repr()));
            Ok(())
        }
        IpProtocol::GRE => {
            let repr = gre::Repr::parse(&mut cursor).map_err(|e| format!("gre {e:?}"))?;
            if repr.has_checksum {
                gre::verify_checksum(payload).map_err(|e| format!("gre {e:?}"))?;
            }
            let mut out = [0; gre::MAX_HEADER_BYTES];
            let length = repr.emit(&mut out);
            let mut again = [&out[..length], cursor.rest()].concat();
            if repr.has_checksum {
                let _ = gre::fill_checksum(&mut again);
            }
            walk.compare(&again, payload);
            walk.layers.push(Layer::Gre(repr));
            walk_ether_type(repr.protocol, cursor.rest(), walk)
        }
        IpProtocol::ICMP | IpProtocol::ICMPV6 => {
            let message = match ends {
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    ErrorMessage::parse_v6(payload, source, destination)
                }
                _ => ErrorMessage::parse_v4(payload),
            };
            match message {
                Ok(message) => {
                    walk.layers.push(Layer::Icmp {
                        kind: message.kind,
                        mtu_bytes: message.mtu_bytes,
                    });
                    // The quoted packet is cut short, so only its headers can be read.
                    let mut quoted = SliceCursor::new(message.quoted);
                    match ipv4::Header::parse(&mut quoted) {
                        Ok(header) => walk.layers.push(Layer::Ipv4(header.repr())),
                        Err(_) => {
                            let mut quoted = SliceCursor::new(message.quoted);
                            let header =
                                ipv6::Header::parse(&mut quoted).map_err(|e| format!("quoted {e:?}"))?;
                            let upper = ipv6::walk_extensions(&mut quoted, header.next_header())
                                .map_err(|e| format!("quoted {e:?}"))?;
                            walk.layers.push(Layer::Ipv6(header.repr(), upper));
                        }
                    }
                    Ok(())
                }
                Err(icmp::Error::NotAnError) => {
                    walk.layers.push(Layer::Icmp {
                        kind: payload[0],
                        mtu_bytes: None,
                    });
                    Ok(())
                }
                Err(error) => Err(format!("icmp {error:?}")),
            }
        }
        IpProtocol::NO_NEXT_HEADER => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
