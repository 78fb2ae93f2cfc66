//! The UDP checksum of ESP in UDP: zero by default, computed where wanted, looked at over IPv6 (RFC 6935, RFC 6936).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{DropReason, Encryption, Mode, Transform};
use walk::gateway::{LAN, WAN};
use walk::packets::{Ip, upper_checksum_holds};
use walk::pair::Pair;

fn pair(mode: Mode, outer_is_ipv6: bool, checksum: bool) -> Pair {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    let mut pair = Pair::without_sas(gcm, mode, outer_is_ipv6, true, true);
    for sa in [&mut pair.forth, &mut pair.back] {
        sa.udp.as_mut().unwrap().checksum = checksum;
    }
    pair.install();
    pair
}

fn inner(mode: Mode, outer_is_ipv6: bool, total_bytes: usize) -> Ip {
    match (mode, outer_is_ipv6) {
        (Mode::Tunnel, _) => Ip::udp("10.1.0.5", "10.2.0.5", total_bytes),
        (Mode::Transport, true) => Ip::udp("2001:db8::1", "2001:db8::2", total_bytes),
        (Mode::Transport, false) => Ip::udp("192.0.2.1", "192.0.2.2", total_bytes),
    }
}

/// Where the checksum stands in the outer packet.
fn checksum_at(outer: &[u8]) -> usize {
    if outer[0] >> 4 == 6 { 46 } else { 26 }
}

#[test]
fn it_is_zero_by_default_and_right_where_it_is_wanted() {
    for (mode, outer_is_ipv6) in [
        (Mode::Tunnel, true),
        (Mode::Tunnel, false),
        (Mode::Transport, true),
        (Mode::Transport, false),
    ] {
        for checksum in [false, true] {
            let mut pair = pair(mode, outer_is_ipv6, checksum);
            // Even and odd lengths; several in a batch.
            for total_bytes in [100, 101, 777, 1300] {
                let packet = inner(mode, outer_is_ipv6, total_bytes).bytes();
                let sent = if mode == Mode::Tunnel {
                    pair.one.pass(LAN, &packet)
                } else {
                    pair.one.host_sends(&packet);
                    pair.one.collect(WAN)
                };
                assert_eq!(sent.len(), 1, "{mode:?} {:?}", pair.one.drops());
                let at = checksum_at(&sent[0]);
                assert_eq!(sent[0][at..at + 2] != [0, 0], checksum, "{mode:?} {total_bytes}");
                if checksum {
                    assert!(upper_checksum_holds(&sent[0]), "{mode:?} {total_bytes}");
                }
                pair.two.deliver(WAN, &sent[0]);
                pair.two.turn();
                let arrived = pair.two.collect(LAN).len() + pair.two.host_got().len();
                assert_eq!((arrived, pair.two.drops()), (1, vec![]), "{mode:?}");
            }
        }
    }
}

#[test]
fn over_ipv6_zero_and_right_are_taken_and_wrong_is_dropped_by_name() {
    let mut pair = pair(Mode::Tunnel, true, true);
    let mut outers: Vec<Vec<u8>> = (0..3)
        .map(|_| {
            pair.one
                .pass(LAN, &inner(Mode::Tunnel, true, 300).bytes())
                .remove(0)
        })
        .collect();
    let at = checksum_at(&outers[0]);
    outers[1][at..at + 2].fill(0);
    outers[2][at + 1] ^= 1;
    for outer in &outers[..2] {
        assert_eq!(pair.two.pass(WAN, outer).len(), 1, "{:?}", pair.two.drops());
    }
    assert_eq!(pair.two.pass(WAN, &outers[2]).len(), 0);
    assert_eq!(pair.two.drops(), [(DropReason::UdpChecksum, 1)]);
    // The packet was not seen by the window: its number may come again, rightly summed.
    outers[2][at + 1] ^= 1;
    assert_eq!(pair.two.pass(WAN, &outers[2]).len(), 1);
}

/// A NAT may leave an IPv4 checksum behind, and the ICV covers more (RFC 3948 section 2.1).
#[test]
fn over_ipv4_it_is_not_looked_at() {
    let mut pair = pair(Mode::Tunnel, false, true);
    let mut outer = pair
        .one
        .pass(LAN, &inner(Mode::Tunnel, false, 300).bytes())
        .remove(0);
    let at = checksum_at(&outer);
    outer[at] ^= 0x55;
    assert_eq!(pair.two.pass(WAN, &outer).len(), 1);
    assert_eq!(pair.two.drops(), []);
}
