//! VLANs: a tag makes a packet one of another port, and leaves with what leaves by that port.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use dataplane::tables::{PortLink, VlanLink};
use southbound::{
    DropReason, LocalAddress, Neighbour, NeighbourState, NextHop, PortCounter, PortId, PortRole, PortSpec,
    RouteSpec, Update, VrfId, XdpPreference,
};
use walk::gateway::{Gateway, LAN, WAN, port_mac};
use walk::packets::Ip;

/// VLAN 100 of the protected port, in a table of its own; VLAN 200 of it, in the main table.
const BLUE: u32 = 100;
const PLAIN: u32 = 200;

fn vrf_of(port: u32) -> VrfId {
    if port == BLUE { VrfId(7) } else { VrfId::MAIN }
}

fn put_vlan(gateway: &mut Gateway, port: u32, vrf: VrfId) {
    gateway.apply(Update::PutPort(PortSpec {
        id: PortId(port),
        interface: format!("test1.{port}"),
        role: PortRole::Protected,
        vrf,
        xdp: XdpPreference::Auto,
        require_zero_copy: false,
        mpls: None,
    }));
    let slot = gateway.writer.port_slot(PortId(port)).unwrap();
    let link = PortLink {
        mtu_bytes: 1400,
        mac: port_mac(LAN),
        up: true,
        vlan: Some(VlanLink {
            parent: PortId(LAN),
            id: port as u16,
        }),
    };
    gateway.writer.set_port_link(slot, link);
}

/// Gateway 1 with both VLANs; each has 10.9.0.0/24 behind it, which in the main table is VLAN 200's.
fn gateway() -> Gateway {
    let mut gateway = Gateway::numbered(1);
    for port in [BLUE, PLAIN] {
        let vrf = vrf_of(port);
        put_vlan(&mut gateway, port, vrf);
        gateway.apply(Update::PutLocalAddress(LocalAddress {
            vrf,
            address: "10.9.0.1".parse().unwrap(),
            port: Some(PortId(port)),
        }));
        gateway.apply(Update::PutNeighbour(Neighbour {
            port: PortId(port),
            address: "10.9.0.5".parse().unwrap(),
            state: NeighbourState::Resolved([2, 0, 0, 0, 9, port as u8]),
        }));
        gateway.apply(Update::PutRoute(RouteSpec {
            vrf,
            prefix: "10.9.0.0/24".parse().unwrap(),
            next_hops: vec![NextHop::Port {
                port: PortId(port),
                gateway: None,
            }],
            weights: vec![],
        }));
    }
    gateway
}

/// A frame to our protected port with these tags.
fn frame(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let mut bytes = port_mac(LAN).to_vec();
    bytes.extend([2, 0, 0, 0, 0, 0x99]);
    for (tpid, tci) in tags {
        bytes.extend(tpid.to_be_bytes());
        bytes.extend(tci.to_be_bytes());
    }
    bytes.extend([8, 0]);
    bytes.extend(packet);
    bytes
}

/// Destination, tag and packet of a frame that left.
fn parse(frame: &[u8]) -> ([u8; 6], Option<u16>, Vec<u8>) {
    let destination = *frame.first_chunk().unwrap();
    assert_eq!(frame[6..12], port_mac(LAN));
    match frame[12..14] {
        [0x81, 0] => {
            assert_eq!(frame[16..18], [8, 0]);
            let tci = u16::from_be_bytes([frame[14], frame[15]]);
            (destination, Some(tci), frame[18..].to_vec())
        }
        [8, 0] => (destination, None, frame[14..].to_vec()),
        _ => panic!("{frame:02x?}"),
    }
}

fn count(gateway: &Gateway, port: u32, counter: PortCounter) -> u64 {
    let slot = gateway.writer.port_slot(PortId(port)).unwrap();
    gateway.worker.counters().get_port(slot, counter)
}

#[test]
fn a_packet_is_routed_in_the_table_of_its_vlan_and_leaves_with_the_tag_of_its_way() {
    let mut gateway = gateway();
    let packet = Ip::udp("10.1.0.5", "10.9.0.5", 200).bytes();
    for (tags, expected) in [
        (&[][..], PLAIN),
        (&[(0x8100, PLAIN as u16)], PLAIN),
        (&[(0x8100, BLUE as u16)], BLUE),
        // Priority and drop eligibility are the tag's own; identifier zero states nothing but a priority.
        (&[(0x8100, 0xf000 | BLUE as u16)], BLUE),
        (&[(0x8100, 0xe000)], PLAIN),
    ] {
        gateway.deliver_frame(LAN, &frame(tags, &packet));
        gateway.turn();
        let left = gateway.collect_frames(LAN);
        assert_eq!((left.len(), gateway.drops()), (1, vec![]), "{tags:x?}");
        let (destination, tag, inner) = parse(&left[0]);
        assert_eq!(destination, [2, 0, 0, 0, 9, expected as u8], "{tags:x?}");
        assert_eq!(tag, Some(expected as u16));
        assert_eq!((inner.len(), inner[8]), (200, 63), "whole, and one hop older");
    }
    use PortCounter::{ReceivedBytes, ReceivedPackets, TransmittedBytes, TransmittedPackets};
    assert_eq!(count(&gateway, LAN, ReceivedPackets), 5);
    assert_eq!(count(&gateway, LAN, TransmittedBytes), 5 * 218);
    assert_eq!(count(&gateway, BLUE, ReceivedPackets), 2);
    assert_eq!(count(&gateway, BLUE, ReceivedBytes), 2 * 218);
    assert_eq!(count(&gateway, BLUE, TransmittedPackets), 2);
    assert_eq!(count(&gateway, PLAIN, ReceivedPackets), 1);
    assert_eq!(count(&gateway, PLAIN, TransmittedPackets), 3);
}

#[test]
fn a_tag_of_no_port_is_dropped_by_name() {
    let mut gateway = gateway();
    let packet = Ip::udp("10.1.0.5", "10.9.0.5", 200).bytes();
    for tags in [
        &[(0x8100, 101)][..],
        // The same identifier, but of a service tag, or with another tag within.
        &[(0x88a8, BLUE as u16)],
        &[(0x8100, BLUE as u16), (0x8100, PLAIN as u16)],
        &[(0x8100, 0), (0x8100, BLUE as u16)],
    ] {
        let before = gateway.drops();
        gateway.deliver_frame(LAN, &frame(tags, &packet));
        gateway.turn();
        assert_eq!(
            gateway.dropped_since(&before),
            [DropReason::UnknownVlan],
            "{tags:x?}"
        );
    }
    // The other port has no VLANs.
    let before = gateway.drops();
    let mut tagged = frame(&[(0x8100, BLUE as u16)], &packet);
    tagged[..6].copy_from_slice(&port_mac(WAN));
    gateway.deliver_frame(WAN, &tagged);
    gateway.turn();
    assert_eq!(gateway.dropped_since(&before), [DropReason::UnknownVlan]);
}

/// An error about a packet of a VLAN comes from the VLAN's address and goes back with its tag; its MTU is its own.
#[test]
fn errors_and_mtu_are_those_of_the_vlan() {
    let mut gateway = gateway();
    let late = Ip {
        hops: 1,
        ..Ip::udp("10.9.0.5", "10.1.0.5", 100)
    };
    gateway.deliver_frame(LAN, &frame(&[(0x8100, PLAIN as u16)], &late.bytes()));
    gateway.turn();
    let left = gateway.collect_frames(LAN);
    let (destination, tag, error) = parse(&left[0]);
    assert_eq!((destination[5], tag), (PLAIN as u8, Some(PLAIN as u16)));
    assert_eq!((&error[12..16], error[20]), (&[10, 9, 0, 1][..], 11));
    // 1400 bytes fit the VLAN, 1401 do not, though they fit its device.
    for (length_bytes, fits) in [(1400, true), (1401, false)] {
        let big = Ip::udp("10.1.0.5", "10.9.0.5", length_bytes);
        gateway.deliver_frame(LAN, &frame(&[], &big.bytes()));
        gateway.turn();
        let left = gateway.collect_frames(LAN);
        let (_, tag, packet) = parse(&left[0]);
        assert_eq!((tag.is_some(), packet.len() == 1400), (fits, fits));
        if !fits {
            assert_eq!((packet[20], packet[21]), (3, 4));
            assert_eq!(packet[26..28], 1400u16.to_be_bytes());
        }
    }
}

#[test]
fn a_vlan_that_moves_to_another_identifier_table_or_parent_takes_its_packets_with_it() {
    let mut gateway = gateway();
    let slot = gateway.writer.port_slot(PortId(BLUE)).unwrap();
    let mut link = PortLink {
        mtu_bytes: 1400,
        mac: port_mac(LAN),
        up: true,
        vlan: Some(VlanLink {
            parent: PortId(LAN),
            id: 101,
        }),
    };
    gateway.writer.set_port_link(slot, link);
    let packet = Ip::udp("10.1.0.5", "10.9.0.5", 200).bytes();
    gateway.deliver_frame(LAN, &frame(&[(0x8100, 101)], &packet));
    gateway.turn();
    let left = gateway.collect_frames(LAN);
    assert_eq!(parse(&left[0]).1, Some(101));
    // Into the main table, where 10.9.0.0/24 is VLAN 200's.
    put_vlan(&mut gateway, BLUE, VrfId::MAIN);
    gateway.deliver_frame(LAN, &frame(&[(0x8100, BLUE as u16)], &packet));
    gateway.turn();
    let left = gateway.collect_frames(LAN);
    assert_eq!(parse(&left[0]).1, Some(PLAIN as u16));
    // To the other device: its old identifier is nobody's there any more.
    link.vlan = Some(VlanLink {
        parent: PortId(WAN),
        id: 100,
    });
    gateway.writer.set_port_link(slot, link);
    let before = gateway.drops();
    gateway.deliver_frame(LAN, &frame(&[(0x8100, BLUE as u16)], &packet));
    gateway.turn();
    assert_eq!(gateway.dropped_since(&before), [DropReason::UnknownVlan]);
    // Its parent goes: it has no ring to leave by.
    gateway.apply(Update::RemovePort(PortId(WAN)));
    gateway.apply(Update::PutRoute(RouteSpec {
        vrf: VrfId::MAIN,
        prefix: "10.9.0.0/24".parse().unwrap(),
        next_hops: vec![NextHop::Port {
            port: PortId(BLUE),
            gateway: Some("10.9.0.5".parse().unwrap()),
        }],
        weights: vec![],
    }));
    let before = gateway.drops();
    gateway.deliver_frame(LAN, &frame(&[], &packet));
    gateway.turn();
    assert_eq!(gateway.dropped_since(&before), [DropReason::PortDown]);
}

/// Queues of one port on one worker: what the kernel counts at each is summed, also over one that is bound anew.
#[test]
fn the_kernels_counts_of_all_queues_of_a_port_are_summed() {
    let mut gateway = gateway();
    let packet = frame(&[], &Ip::udp("10.1.0.5", "10.9.0.5", 200).bytes());
    let overflow = |kernel: &mut dataplane::xsk::memory::MemoryKernel<'static>| {
        (0..200).filter(|_| kernel.deliver(&packet).is_err()).count() as u64
    };
    let mut expected = overflow(gateway.kernel(LAN));
    let mut second = gateway.add_queue(LAN, 1);
    expected += overflow(&mut second);
    for round in 0..3 {
        for _ in 0..10 {
            gateway.now_ns += 200_000_000;
            gateway.turn();
            let _ = (gateway.collect_frames(LAN), second.collect());
        }
        let lost = |counter| count(&gateway, LAN, counter);
        assert_eq!(
            lost(PortCounter::ReceiveRingFull) + lost(PortCounter::FillRingEmpty),
            expected,
            "round {round}"
        );
        expected += overflow(&mut second);
    }
}
