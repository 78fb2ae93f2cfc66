//! Whole packets, both ways: parsed header by header and emitted again, and cut at every byte.

mod packets;
mod walk;

use std::net::{Ipv4Addr, Ipv6Addr};

use packets::*;
use proptest::prelude::*;
use walk::{Layer, walk, walk_exact};
use wire::flow::{Tuple, UpperSelector};
use wire::{Ecn, EtherType, IpProtocol, Label, SliceCursor, Spi, icmp, ipv4, mpls, tcp};

const SITE_A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SITE_B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SITE_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SITE_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

#[test]
fn vlan_udp() {
    let layers = walk_exact(&bytes(VLAN_UDP), true);
    let [Layer::Ethernet(ethernet), Layer::Ipv4(ip), Layer::Udp(udp)] = &layers[..] else {
        panic!("{layers:?}")
    };
    let tag = ethernet.outer_tag.unwrap();
    assert_eq!((tag.tpid, tag.vid(), tag.pcp()), (EtherType::VLAN, 100, 5));
    assert_eq!(ethernet.ether_type, EtherType::IPV4);
    assert_eq!(
        (ip.source, ip.destination, ip.total_bytes),
        (SITE_A4, SITE_B4, 33)
    );
    assert_eq!(
        (ip.traffic_class.dscp(), ip.dont_fragment, ip.identification),
        (46, true, 7)
    );
    assert_eq!(
        (udp.source_port, udp.destination_port, udp.length_bytes),
        (40_000, 53, 13)
    );
}

#[test]
fn double_tagged_ipv6_tcp() {
    let layers = walk_exact(&bytes(QINQ_IPV6_TCP), true);
    let [
        Layer::Ethernet(ethernet),
        Layer::Ipv6(ip, upper),
        Layer::Tcp(flags, mss),
    ] = &layers[..]
    else {
        panic!("{layers:?}")
    };
    assert_eq!(
        ethernet.outer_tag.map(|tag| (tag.tpid, tag.vid())),
        Some((EtherType::SERVICE_VLAN, 200))
    );
    assert_eq!(
        ethernet.inner_tag.map(|tag| (tag.tpid, tag.vid())),
        Some((EtherType::VLAN, 300))
    );
    assert_eq!((ip.flow_label, ip.hop_limit), (0x1_2345, 63));
    assert_eq!((ip.traffic_class.dscp(), ip.traffic_class.ecn()), (11, Ecn::Ect0));
    assert_eq!((upper.protocol, upper.offset_bytes), (IpProtocol::TCP, 40));
    assert_eq!((*flags, *mss), (tcp::Flags::SYN, Some(1440)));
}

#[test]
fn ipv4_options_are_passed_over() {
    let frame = bytes(IPV4_OPTIONS_ICMP);
    let layers = walk_exact(&frame, true);
    assert_eq!(
        layers[2],
        Layer::Icmp {
            kind: icmp::v4::ECHO_REQUEST,
            mtu_bytes: None
        }
    );
    let packet = ipv4::Packet::parse(&frame[14..]).unwrap();
    assert_eq!((packet.header.header_bytes(), packet.options[0]), (28, 7));
    let upper = Tuple::parse(&frame[14..]).unwrap().upper;
    assert_eq!(upper, UpperSelector::Icmp { kind: 8, code: 0 });
}

#[test]
fn fault_57_esp_behind_ipv6_extension_headers() {
    let layers = walk_exact(&bytes(IPV6_EXTENSIONS_ESP), true);
    let [_, Layer::Ipv6(ip, upper), Layer::Esp(esp)] = &layers[..] else {
        panic!("{layers:?}")
    };
    assert_eq!(ip.next_header, IpProtocol::HOP_BY_HOP);
    assert_eq!(
        (upper.protocol, upper.offset_bytes),
        (IpProtocol::ESP, 40 + 8 + 24 + 16)
    );
    assert_eq!(esp.spi, Spi(0xc0ff_ee01));
}

#[test]
fn fault_56_fragments() {
    let first = ipv4::Packet::parse(&bytes(IPV4_FIRST_FRAGMENT))
        .unwrap()
        .header
        .fragment()
        .unwrap();
    assert_eq!(
        (first.identification, first.offset_bytes, first.more),
        (0x4242, 0, true)
    );
    let last = ipv4::Packet::parse(&bytes(IPV4_LAST_FRAGMENT))
        .unwrap()
        .header
        .fragment()
        .unwrap();
    assert_eq!(
        (last.identification, last.offset_bytes, last.more),
        (0x4242, 24, false)
    );

    let tuple = Tuple::parse(&bytes(IPV4_FIRST_FRAGMENT)).unwrap();
    assert_eq!(
        tuple.upper,
        UpperSelector::Ports {
            source: 4500,
            destination: 4500
        }
    );
    assert_eq!(
        Tuple::parse(&bytes(IPV4_LAST_FRAGMENT)).unwrap().upper,
        UpperSelector::Opaque
    );

    let tuple = Tuple::parse(&bytes(IPV6_LAST_FRAGMENT)).unwrap();
    let fragment = tuple.fragment.unwrap();
    assert_eq!(
        (fragment.identification, fragment.offset_bytes, fragment.more),
        (0xdead_beef, 1440, false)
    );
    assert_eq!(
        (tuple.protocol, tuple.upper),
        (IpProtocol::ESP, UpperSelector::Opaque)
    );
}

#[test]
fn esp_bare_and_in_udp() {
    let esp_of = |hex, ethernet| match walk_exact(&bytes(hex), ethernet).pop() {
        Some(Layer::Esp(esp)) => (esp.spi.0, esp.sequence.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(esp_of(IPV4_ESP, true), (0x1001, 0xffff_fffe));
    assert_eq!(esp_of(IPV4_UDP_ESP, true), (0x1002, 3));
    assert_eq!(walk_exact(&bytes(IPV6_UDP_IKE), true).pop(), Some(Layer::Ike));
}

#[test]
fn label_stacks() {
    let stack = |hex| match walk_exact(&bytes(hex), true).swap_remove(1) {
        Layer::Stack(stack) => stack,
        other => panic!("{other:?}"),
    };
    let vpn = stack(MPLS_L3VPN);
    let values: Vec<_> = vpn
        .iter()
        .map(|e| (e.label.value(), e.traffic_class, e.bottom, e.ttl))
        .collect();
    assert_eq!(values, [(100, 0, false, 62), (200, 5, true, 61)]);

    let frame = bytes(MPLS_ENTROPY);
    let entropy = mpls::Stack::parse(&mut SliceCursor::new(&frame[14..])).unwrap();
    assert_eq!(entropy.entropy_label(), Label::new(654_321));
    assert_eq!(entropy.entries().last().unwrap().label, Label::IPV6_EXPLICIT_NULL);
}

#[test]
fn mpls_in_gre() {
    let layers = walk_exact(&bytes(GRE_MPLS), false);
    let [
        Layer::Ipv4(_),
        Layer::Gre(gre),
        Layer::Stack(stack),
        Layer::Ipv4(inner),
    ] = &layers[..]
    else {
        panic!("{layers:?}")
    };
    assert_eq!(
        (gre.protocol, gre.key, gre.sequence),
        (EtherType::MPLS, Some(42), Some(43))
    );
    assert_eq!((stack.len(), inner.destination), (1, Ipv4Addr::new(10, 0, 0, 2)));
}

#[test]
fn fault_58_path_mtu_messages() {
    let layers = walk_exact(&bytes(ICMP_FRAGMENTATION_NEEDED), false);
    assert_eq!(
        layers[1],
        Layer::Icmp {
            kind: 3,
            mtu_bytes: Some(1400)
        }
    );
    let Layer::Ipv4(quoted) = &layers[2] else {
        panic!("{layers:?}")
    };
    assert_eq!(
        (quoted.protocol, quoted.source, quoted.total_bytes),
        (IpProtocol::ESP, SITE_A4, 1500)
    );

    let layers = walk_exact(&bytes(ICMPV6_TOO_BIG), false);
    assert_eq!(
        layers[1],
        Layer::Icmp {
            kind: 2,
            mtu_bytes: Some(1280)
        }
    );
    let Layer::Ipv6(quoted, upper) = &layers[2] else {
        panic!("{layers:?}")
    };
    assert_eq!(
        (upper.protocol, quoted.source, quoted.destination),
        (IpProtocol::ESP, SITE_A6, SITE_B6)
    );
}

/// A packet cut anywhere is refused by some header: none of these has bytes behind its IP length.
#[test]
fn truncated_at_every_byte() {
    for (hex, ethernet) in ALL {
        let whole = bytes(hex);
        walk_exact(&whole, ethernet);
        for length in 0..whole.len() {
            let cut = walk(&whole[..length], ethernet);
            let cut = cut.map(|walk| walk.layers);
            assert!(cut.is_err(), "{length} of {}: {cut:?}", whole.len());
        }
    }
}

/// Every bit of every vector flipped: parsed or refused, never a panic.
#[test]
fn every_bit_flipped() {
    for (hex, ethernet) in ALL {
        let whole = bytes(hex);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 0x80 >> (bit % 8);
            let _ = walk(&flipped, ethernet);
        }
    }
}

proptest! {
    #[test]
    fn several_bytes_replaced(
        which in 0..ALL.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (hex, ethernet) = ALL[which];
        let mut packet = bytes(hex);
        for (at, value) in changes {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        let _ = walk(&packet, ethernet);
        let _ = Tuple::parse(&packet);
    }
}
