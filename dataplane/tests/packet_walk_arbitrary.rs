//! Anything at either port, and anything behind a right ICV: nothing panics, no frame is lost, every packet is accounted
//! for. The fuzz target `esp_decap` does the same for longer.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use southbound::{Encryption, Mode, Transform};
use walk::forge;
use walk::gateway::{Gateway, LAN, WAN, port_mac};
use walk::packets::{Ip, ethernet, syn, udp};
use walk::pair::Pair;

fn settle(gateway: &mut Gateway) {
    // The books are checked at the end of each turn.
    gateway.turn();
    gateway.collect(LAN);
    gateway.collect(WAN);
    gateway.host_got();
    gateway.events();
}

/// Changes to a packet: a byte set, an end cut off, bytes put behind.
#[derive(Clone, Debug)]
struct Damage {
    bytes: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
    tail: Vec<u8>,
}

impl Damage {
    fn apply(&self, mut packet: Vec<u8>) -> Vec<u8> {
        for (at, value) in &self.bytes {
            // Headers, mostly.
            let length = packet.len().min(80);
            packet[at.index(length)] = *value;
        }
        if let Some(cut) = self.cut {
            packet.truncate(cut.index(packet.len()).max(1));
        }
        packet.extend(&self.tail);
        packet
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    (
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        proptest::option::weighted(0.3, any::<prop::sample::Index>()),
        prop_oneof![3 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 0..40)],
    )
        .prop_map(|(bytes, cut, tail)| Damage { bytes, cut, tail })
}

/// With the IPv4 header's checksum made right again, half of the time, or the checksum would hide everything else.
fn mend(mut frame: Vec<u8>, mend: bool) -> Vec<u8> {
    if mend && frame.len() >= 34 && frame[12..14] == [8, 0] {
        let header_bytes = (usize::from(frame[14] & 15) * 4).max(20);
        if let Some(header) = frame.get_mut(14..14 + header_bytes) {
            header[10..12].fill(0);
            let checksum = wire::checksum::Sum::new().bytes(header).checksum();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }
    frame
}

#[test]
fn damaged_frames_at_both_ports() {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    let mut four = Pair::new(gcm, Mode::Tunnel, false, false, true);
    let mut six = Pair::new(gcm, Mode::Tunnel, true, true, true);
    let sealed_four = four
        .one
        .pass(LAN, &Ip::udp("10.1.0.5", "10.2.0.5", 200).bytes())
        .remove(0);
    let sealed_six = six
        .one
        .pass(LAN, &Ip::udp("fd01::5", "fd02::5", 200).bytes())
        .remove(0);
    let mut tcp = Ip::new("10.2.0.5", "10.1.0.5", 6, vec![]);
    tcp.payload = syn(&tcp, 1460);
    let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0];
    error.extend(&sealed_four[..60]);
    let mut fragment = sealed_four.clone();
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    let six_chain = Ip::new(
        "2001:db8::1",
        "2001:db8::2",
        0,
        [
            &[60, 0, 1, 4, 0, 0, 0, 0, 50, 0, 1, 4, 0, 0, 0, 0][..],
            &sealed_six[48..],
        ]
        .concat(),
    );
    let packets = [
        (WAN, sealed_four),
        (WAN, sealed_six),
        (WAN, six_chain.bytes()),
        (WAN, fragment),
        (WAN, Ip::new("198.51.100.1", "192.0.2.2", 1, error).bytes()),
        (LAN, tcp.bytes()),
        (LAN, Ip::udp("10.2.0.5", "10.1.0.5", 300).bytes()),
        (
            LAN,
            Ip {
                dont_fragment: false,
                ..Ip::udp("10.2.0.5", "10.1.0.5", 2500)
            }
            .bytes(),
        ),
        (
            LAN,
            Ip {
                hops: 1,
                ..Ip::udp("fd02::5", "fd01::5", 300)
            }
            .bytes(),
        ),
        (LAN, Ip::udp("10.2.0.5", "10.2.0.99", 100).bytes()),
    ];
    let mut runner = TestRunner::new(Config {
        cases: 20_000,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (
        any::<prop::sample::Index>(),
        damage(),
        any::<bool>(),
        any::<bool>(),
    );
    let gateways = std::cell::RefCell::new((four.two, six.two));
    runner
        .run(&strategy, |(which, damage, mended, whole_frame)| {
            let (port, packet) = &packets[which.index(packets.len())];
            let frame = if whole_frame {
                damage.apply(ethernet(port_mac(*port), packet))
            } else {
                ethernet(port_mac(*port), &damage.apply(packet.clone()))
            };
            let frame = mend(frame, mended);
            let (four, six) = &mut *gateways.borrow_mut();
            for gateway in [four, six] {
                gateway.deliver_frame(*port, &frame);
                settle(gateway);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_text_behind_a_right_icv() {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    let tunnel = Pair::new(gcm, Mode::Tunnel, false, false, true);
    let transport = Pair::new(gcm, Mode::Transport, false, true, true);
    let good = forge::text(&Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes(), 4);
    let mut runner = TestRunner::new(Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 4..200),
            damage().prop_map(move |damage| damage.apply(good.clone())),
        ],
        0u8..8,
        prop::sample::select(&[4u8, 41, 59, 17, 6, 0, 50, 255][..]),
        any::<bool>(),
    );
    let gateways = std::cell::RefCell::new((tunnel.two, transport.two, 0u64));
    runner
        .run(&strategy, |(mut text, pad_bytes, next_header, has_trailer)| {
            if has_trailer {
                text.extend(1..=pad_bytes);
                text.extend([pad_bytes, next_header]);
            }
            text.truncate(text.len() / 4 * 4);
            if text.is_empty() {
                return Ok(());
            }
            let mut gateways = gateways.borrow_mut();
            gateways.2 += 1;
            let sequence = gateways.2;
            gateways
                .0
                .deliver(WAN, &forge::packet(&tunnel.forth, sequence, &text));
            let mut carrier = Ip::new("192.0.2.1", "192.0.2.2", 17, vec![]);
            carrier.payload = udp(
                &carrier,
                4500,
                4500,
                &forge::esp(&transport.forth, sequence, &text),
            );
            gateways.1.deliver(WAN, &carrier.bytes());
            settle(&mut gateways.0);
            settle(&mut gateways.1);
            Ok(())
        })
        .unwrap();
}
