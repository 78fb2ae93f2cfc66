//! Two gateways in one process, host to host: what enters one LAN leaves the other as it was, but for a hop.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{Encryption, Integrity, Mode, Transform, WorkerCounter};
use walk::gateway::{Gateway, LAN, WAN, neighbour_mac, port_mac};
use walk::packets::{Ip, upper_checksum_holds};
use walk::pair::Pair;
use walk::specs;

fn transforms() -> impl Iterator<Item = Transform> {
    Encryption::ALL.into_iter().flat_map(|encryption| {
        [None]
            .into_iter()
            .chain(Integrity::ALL.map(Some))
            .filter_map(move |integrity| Transform::new(encryption, integrity).ok())
    })
}

fn gcm() -> Transform {
    Transform::new(Encryption::AesGcm128, None).unwrap()
}

/// The packet as the last host sees it: both gateways took a hop.
fn two_hops_on(packet: &Ip) -> Vec<u8> {
    Ip {
        hops: packet.hops - 2,
        ..packet.clone()
    }
    .bytes()
}

#[test]
fn a_packet_crosses_two_gateways() {
    let mut pair = Pair::new(gcm(), Mode::Tunnel, false, false, true);
    let packet = Ip::udp("10.1.0.5", "10.2.0.5", 100);
    let outer = pair.one.pass(LAN, &packet.bytes());
    assert_eq!(outer.len(), 1, "{:?}", pair.one.drops());
    assert_eq!(outer[0].len(), 20 + 8 + 8 + 104 + 16);
    assert!(
        !outer[0]
            .windows(8)
            .any(|window| window == &packet.bytes()[28..36]),
        "nothing shows through"
    );
    let inner = pair.two.pass(WAN, &outer[0]);
    assert_eq!(inner, [two_hops_on(&packet)], "{:?}", pair.two.drops());
    assert_eq!(pair.one.count(WorkerCounter::EspOutPackets), 1);
    assert_eq!(pair.one.count(WorkerCounter::EspOutBytes), 100);
    assert_eq!(pair.two.count(WorkerCounter::EspInPackets), 1);
    assert_eq!(pair.two.count(WorkerCounter::EspInBytes), 100);
    assert_eq!((pair.one.drops(), pair.two.drops()), (vec![], vec![]));
}

#[test]
fn frames_leave_with_the_neighbours_address() {
    let mut pair = Pair::new(gcm(), Mode::Tunnel, false, false, true);
    pair.one
        .deliver(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes());
    pair.one.turn();
    let frames = pair.one.collect_frames(WAN);
    assert_eq!(frames[0][..6], neighbour_mac(WAN));
    assert_eq!(frames[0][6..12], port_mac(WAN));
    assert_eq!(frames[0][12..14], [0x08, 0x00]);
}

/// Every transform, both inner and both outer families, with and without UDP and extended numbers, several sizes, in
/// batches: 35 * 16 pairs of gateways.
#[test]
fn every_transform_crosses_two_gateways() {
    for transform in transforms() {
        let mut batches = 0;
        for outer_is_ipv6 in [false, true] {
            for (in_udp, esn) in [(false, true), (true, false)] {
                let mut pair = Pair::new(transform, Mode::Tunnel, outer_is_ipv6, in_udp, esn);
                let packets: Vec<Ip> = [48, 60, 61, 576, 1000, 1200]
                    .into_iter()
                    .flat_map(|size| {
                        [
                            Ip::udp("10.1.0.5", "10.2.0.5", size),
                            Ip::udp("fd01::5", "fd02::5", size),
                        ]
                    })
                    .collect();
                for packet in &packets {
                    pair.one.deliver(LAN, &packet.bytes());
                }
                pair.one.turn();
                let outer = pair.one.collect(WAN);
                assert_eq!(outer.len(), packets.len(), "{transform}: {:?}", pair.one.drops());
                for packet in &outer {
                    pair.two.deliver(WAN, packet);
                }
                pair.two.turn();
                let expected: Vec<_> = packets.iter().map(two_hops_on).collect();
                assert_eq!(
                    pair.two.collect(LAN),
                    expected,
                    "{transform}: {:?}",
                    pair.two.drops()
                );
                batches += 1;
            }
        }
        assert_eq!(batches, 4);
    }
}

/// Transport mode: between the gateways' own hosts, by the TAP.
#[test]
fn every_transform_in_transport_mode_between_the_hosts() {
    for transform in transforms() {
        for is_ipv6 in [false, true] {
            for in_udp in [false, true] {
                let mut pair = Pair::new(transform, Mode::Transport, is_ipv6, in_udp, true);
                let [local, remote] = specs::outer(is_ipv6);
                let packet = Ip::udp(local, remote, 200);
                pair.one.host_sends(&packet.bytes());
                let outer = pair.one.collect(WAN);
                assert_eq!(outer.len(), 1, "{transform}: {:?}", pair.one.drops());
                assert_ne!(outer[0], packet.bytes());
                pair.two.deliver(WAN, &outer[0]);
                pair.two.turn();
                let got = pair.two.host_got();
                assert_eq!(got, [packet.bytes()], "{transform}: {:?}", pair.two.drops());
                assert!(upper_checksum_holds(&got[0]));
                assert_eq!(pair.two.count(WorkerCounter::ToHost), 1);
            }
        }
    }
}

#[test]
fn plain_packets_are_forwarded_between_networks_without_a_tunnel() {
    let mut gateway = Gateway::numbered(1);
    let packet = Ip::udp("10.1.0.5", "198.51.100.7", 300);
    let out = gateway.pass(LAN, &packet.bytes());
    assert_eq!(out, [Ip { hops: 63, ..packet }.bytes()]);
    assert_eq!(gateway.drops(), []);
}
