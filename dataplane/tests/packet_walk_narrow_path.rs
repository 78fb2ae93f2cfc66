//! A path narrower than what IPv6 may rely on: 1280 bytes pass all the same, in fragments outside (RFC 2473 section 7.1).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{DfPolicy, DropReason, Encryption, Mode, Transform, Update, WorkerCounter};
use walk::gateway::{LAN, WAN};
use walk::packets::Ip;
use walk::pair::Pair;
use walk::specs;

fn pair() -> Pair {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    let mut pair = Pair::new(gcm, Mode::Tunnel, false, false, true);
    pair.one.set_mtu(WAN, 1300);
    pair
}

#[test]
fn fault_58_ipv6_of_1280_bytes_passes_a_path_of_1300() {
    let mut pair = pair();
    for total_bytes in [1246, 1247, 1280] {
        let inner = Ip::udp("fd01::5", "fd02::5", total_bytes);
        let pieces = pair.one.pass(LAN, &inner.bytes());
        let is_cut = total_bytes > 1246;
        assert_eq!(pieces.len(), 1 + usize::from(is_cut), "{:?}", pair.one.drops());
        assert!(pieces.iter().all(|piece| piece.len() <= 1300 && piece[9] == 50));
        assert_eq!(pieces[0][6] & 0x40, 0, "DF is clear");
        pieces.iter().for_each(|piece| pair.two.deliver(WAN, piece));
        pair.two.turn();
        let arrived = pair.two.collect(LAN);
        let expected = Ip {
            hops: inner.hops - 2,
            ..inner
        };
        assert_eq!(arrived, [expected.bytes()], "{:?}", pair.two.drops());
    }
    assert_eq!(pair.one.count(WorkerCounter::Fragmented), 2);
    // One byte more is the sender's to cut, and it is told a size that it may believe (RFC 8201 section 4).
    pair.one
        .deliver(LAN, &Ip::udp("fd01::5", "fd02::5", 1281).bytes());
    pair.one.turn();
    let errors = pair.one.collect(LAN);
    assert_eq!((errors.len(), errors[0][40]), (1, 2), "packet too big");
    assert_eq!(errors[0][44..48], 1280u32.to_be_bytes());
    // IPv4 keeps to what fits.
    pair.one
        .deliver(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 1247).bytes());
    pair.one.turn();
    let errors = pair.one.collect(LAN);
    assert_eq!(errors[0][26..28], 1246u16.to_be_bytes());
}

#[test]
fn fault_58_ipv6_of_1280_bytes_passes_an_ipv6_path_of_1280() {
    for in_udp in [false, true] {
        let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
        let mut pair = Pair::new(gcm, Mode::Tunnel, true, in_udp, true);
        pair.one.set_mtu(WAN, 1280);
        let inner = Ip::udp("fd01::5", "fd02::5", 1280);
        for turn in 1..=2u64 {
            let pieces = pair.one.pass(LAN, &inner.bytes());
            assert_eq!(pieces.len(), 2, "{:?}", pair.one.drops());
            assert!(pieces.iter().all(|piece| piece.len() <= 1280 && piece[6] == 44));
            pieces.iter().rev().for_each(|piece| pair.two.deliver(WAN, piece));
            pair.two.turn();
            let expected = Ip {
                hops: inner.hops - 2,
                ..inner.clone()
            };
            assert_eq!(
                pair.two.collect(LAN),
                [expected.bytes()],
                "{:?}",
                pair.two.drops()
            );
            assert_eq!(pair.one.count(WorkerCounter::Fragmented), turn);
        }
        // What fits goes whole.
        let narrow = pair.one.pass(LAN, &Ip::udp("fd01::5", "fd02::5", 1190).bytes());
        assert_eq!((narrow.len(), narrow[0][6] == 44), (1, false));
        // One byte more is the sender's to cut.
        pair.one
            .deliver(LAN, &Ip::udp("fd01::5", "fd02::5", 1281).bytes());
        pair.one.turn();
        let errors = pair.one.collect(LAN);
        assert_eq!(errors[0][44..48], 1280u32.to_be_bytes());
    }
}

#[test]
fn where_df_is_always_set_nothing_is_cut_outside() {
    let mut pair = pair();
    pair.one.apply(Update::PutTunnel(southbound::TunnelSpec {
        df: DfPolicy::Set,
        ..specs::tunnel(Mode::Tunnel, false)
    }));
    assert_eq!(
        pair.one
            .pass(LAN, &Ip::udp("fd01::5", "fd02::5", 1280).bytes())
            .len(),
        0
    );
    assert_eq!(pair.one.drops(), [(DropReason::TooBig, 1)]);
    pair.one.collect(LAN);
    // Inner packets that fit keep DF.
    let outer = pair.one.pass(LAN, &Ip::udp("fd01::5", "fd02::5", 1200).bytes());
    assert_eq!(outer[0][6] & 0x40, 0x40);
}
