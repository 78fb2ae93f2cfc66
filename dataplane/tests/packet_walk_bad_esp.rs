//! ESP that is damaged, forged or ill-mannered: each kind ends in its own drop reason, and nothing of it moves the window.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::DropReason::{self, *};
use southbound::{Encryption, Event, Integrity, Mode, Transform, Update, WorkerCounter};
use walk::forge;
use walk::gateway::{Gateway, LAN, WAN};
use walk::packets::{Ip, udp};
use walk::pair::Pair;
use walk::specs;

fn gcm() -> Transform {
    Transform::new(Encryption::AesGcm128, None).unwrap()
}

fn pair() -> Pair {
    Pair::new(gcm(), Mode::Tunnel, false, false, true)
}

fn inner() -> Ip {
    Ip::udp("10.1.0.5", "10.2.0.5", 100)
}

/// What becomes of one packet at the internet port: packets out of the LAN, and drops.
fn fate(gateway: &mut Gateway, packet: &[u8]) -> (usize, Vec<DropReason>) {
    let before = gateway.drops();
    let out = gateway.pass(WAN, packet);
    (out.len(), gateway.dropped_since(&before))
}

fn dropped(gateway: &mut Gateway, packet: &[u8]) -> DropReason {
    let (out, reasons) = fate(gateway, packet);
    assert_eq!((out, reasons.len()), (0, 1), "{reasons:?}");
    reasons[0]
}

fn passes(gateway: &mut Gateway, packet: &[u8]) {
    assert_eq!(fate(gateway, packet), (1, vec![]));
}

#[test]
fn fault_39_pad_length() {
    let mut pair = pair();
    let mut text = forge::text(&inner().bytes(), 4);
    let at = text.len() - 2;
    for (index, pad_length) in [255, 200, text.len() as u8 - 1].into_iter().enumerate() {
        text[at] = pad_length;
        let packet = forge::packet(&pair.forth, 1 + index as u64, &text);
        assert_eq!(
            dropped(&mut pair.two, &packet),
            BadPadding,
            "pad length {pad_length}"
        );
    }
    // Within the packet, but not 1, 2, 3.
    text[at] = 4;
    let packet = forge::packet(&pair.forth, 9, &text);
    assert_eq!(dropped(&mut pair.two, &packet), BadPadding);
    // A trailer and nothing else: no inner packet.
    let packet = forge::packet(&pair.forth, 10, &[1, 2, 2, 4]);
    assert_eq!(dropped(&mut pair.two, &packet), InnerMalformed);
    passes(
        &mut pair.two,
        &forge::packet(&pair.forth, 11, &forge::text(&inner().bytes(), 4)),
    );
}

#[test]
fn fault_40_truncated_at_every_byte() {
    let mut pair = pair();
    let whole = pair.one.pass(LAN, &inner().bytes()).remove(0);
    for length in 0..whole.len() {
        // The frame ends early.
        let reason = dropped(&mut pair.two, &whole[..length.max(1)]);
        assert!(
            matches!(reason, Truncated | MalformedIp | UnknownEtherType),
            "{length}: {reason:?}"
        );
    }
    // The IP header says so as well: the packet was short from the start.
    let runt_bytes = 8 + 8 + 16 + 2;
    for esp_bytes in 0..whole.len() - 20 {
        let packet = Ip::new("192.0.2.1", "192.0.2.2", 50, whole[20..20 + esp_bytes].to_vec());
        let reason = dropped(&mut pair.two, &packet.bytes());
        let expected = match esp_bytes {
            bytes if bytes < runt_bytes => EspRunt,
            bytes if bytes % 4 != 0 => EspAlignment,
            _ => IntegrityFailed,
        };
        assert_eq!(reason, expected, "{esp_bytes} bytes of ESP");
    }
    passes(&mut pair.two, &whole);
}

#[test]
fn fault_41_next_header_lies() {
    let mut pair = pair();
    let payload = inner().bytes();
    let cases = [
        (59, Dummy),
        (41, InnerMalformed),
        (137, NextHeaderRefused),
        (17, NextHeaderRefused),
        (47, NextHeaderRefused),
        (50, NextHeaderRefused),
        (0, NextHeaderRefused),
    ];
    for (index, (next_header, expected)) in cases.into_iter().enumerate() {
        let packet = forge::packet(&pair.forth, 1 + index as u64, &forge::text(&payload, next_header));
        assert_eq!(
            dropped(&mut pair.two, &packet),
            expected,
            "next header {next_header}"
        );
    }
    let six = Ip::udp("fd01::5", "fd02::5", 100).bytes();
    let packet = forge::packet(&pair.forth, 100, &forge::text(&six, 4));
    assert_eq!(dropped(&mut pair.two, &packet), InnerMalformed);
    passes(
        &mut pair.two,
        &forge::packet(&pair.forth, 101, &forge::text(&six, 41)),
    );
}

#[test]
fn fault_42_tfc_padding_and_lying_inner_lengths() {
    let mut pair = pair();
    let payload = inner().bytes();
    let packet = forge::packet(&pair.forth, 1, &forge::text_padded(&payload, &[0xee; 300], 4));
    let out = pair.two.pass(WAN, &packet);
    assert_eq!(out, [Ip { hops: 63, ..inner() }.bytes()], "the tail is cut off");
    let mut sequence = 1;
    for total_bytes in [0u16, 19, 101, 117, 1500, 65535] {
        let mut lying = payload.clone();
        lying[2..4].copy_from_slice(&total_bytes.to_be_bytes());
        lying[10..12].fill(0);
        let checksum = wire::checksum::Sum::new().bytes(&lying[..20]).checksum();
        lying[10..12].copy_from_slice(&checksum.to_be_bytes());
        sequence += 1;
        let packet = forge::packet(&pair.forth, sequence, &forge::text(&lying, 4));
        assert_eq!(
            dropped(&mut pair.two, &packet),
            InnerMalformed,
            "total length {total_bytes}"
        );
    }
    // IPv6, whose payload length may lie as well.
    let mut six = Ip::udp("fd01::5", "fd02::5", 100).bytes();
    six[4..6].copy_from_slice(&200u16.to_be_bytes());
    let packet = forge::packet(&pair.forth, 90, &forge::text(&six, 41));
    assert_eq!(dropped(&mut pair.two, &packet), InnerMalformed);
    // A wrong checksum of the inner header.
    let mut broken = payload.clone();
    broken[10] ^= 1;
    let packet = forge::packet(&pair.forth, 91, &forge::text(&broken, 4));
    assert_eq!(dropped(&mut pair.two, &packet), InnerMalformed);
    // Truncated inner packets at every byte.
    for length in 0..payload.len() {
        let packet = forge::packet(
            &pair.forth,
            1000 + length as u64,
            &forge::text(&payload[..length], 4),
        );
        assert_eq!(dropped(&mut pair.two, &packet), InnerMalformed, "{length} bytes");
    }
}

#[test]
fn fault_43_replays() {
    let mut pair = Pair::new(gcm(), Mode::Tunnel, false, false, false);
    let text = forge::text(&inner().bytes(), 4);
    let packet = |sequence| forge::packet(&pair.forth, sequence, &text);
    let (first, next, far, left, gone) = (packet(1), packet(2), packet(5000), packet(905), packet(904));
    passes(&mut pair.two, &first);
    assert_eq!(dropped(&mut pair.two, &first), Replayed);
    passes(&mut pair.two, &far);
    assert_eq!(dropped(&mut pair.two, &far), Replayed);
    assert_eq!(dropped(&mut pair.two, &next), TooOld, "4096 packets behind");
    passes(&mut pair.two, &left);
    assert_eq!(dropped(&mut pair.two, &gone), TooOld, "the left edge");
    // The same packet twice in one batch: checked again after decryption.
    let twice = packet(5001);
    let before = pair.two.drops();
    pair.two.deliver(WAN, &twice);
    pair.two.deliver(WAN, &twice);
    pair.two.turn();
    assert_eq!(pair.two.collect(LAN).len(), 1);
    assert_eq!(pair.two.dropped_since(&before), [Replayed]);
}

#[test]
fn fault_43_a_window_of_zero_takes_every_number_again() {
    let mut pair = Pair::without_sas(gcm(), Mode::Tunnel, false, false, true);
    let spec = southbound::SaSpec {
        replay_window: None,
        ..specs::inbound(&pair.forth)
    };
    pair.two.apply(Update::InstallSa(spec));
    let packet = forge::packet(&pair.forth, 7, &forge::text(&inner().bytes(), 4));
    passes(&mut pair.two, &packet);
    passes(&mut pair.two, &packet);
}

#[test]
fn fault_44_the_high_half_is_authenticated() {
    let mut pair = pair();
    let text = forge::text(&inner().bytes(), 4);
    // Sealed under another high half than the receiver infers.
    let wrong = forge::packet(&pair.forth, (1 << 32) + 1, &text);
    assert_eq!(dropped(&mut pair.two, &wrong), IntegrityFailed);
    // Left of the window with extended numbers: taken for the next lap, and not authentic as such.
    passes(&mut pair.two, &forge::packet(&pair.forth, 5000, &text));
    assert_eq!(
        dropped(&mut pair.two, &forge::packet(&pair.forth, 2, &text)),
        IntegrityFailed
    );
    // Across the wrap: the receiver follows.
    for sequence in [
        1 << 31,
        u64::from(u32::MAX) - 10,
        u64::from(u32::MAX),
        1 << 32,
        (1 << 32) + 1,
    ] {
        passes(&mut pair.two, &forge::packet(&pair.forth, sequence, &text));
    }
    assert_eq!(
        dropped(&mut pair.two, &forge::packet(&pair.forth, 1 << 32, &text)),
        Replayed
    );
}

#[test]
fn fault_45_a_failed_icv_moves_nothing() {
    let mut pair = pair();
    let text = forge::text(&inner().bytes(), 4);
    let mut forged = forge::packet(&pair.forth, 1_000_000, &text);
    let last = forged.len() - 1;
    forged[last] ^= 0x80;
    assert_eq!(dropped(&mut pair.two, &forged), IntegrityFailed);
    // Had the window moved, this would be too old; had the peer moved, there would be an event.
    passes(&mut pair.two, &forge::packet(&pair.forth, 1, &text));
    assert_eq!(pair.two.events(), []);
    // SPI 0, reserved ones, unknown ones.
    for (spi, expected) in [
        (0u32, SpiReserved),
        (1, SpiReserved),
        (255, SpiReserved),
        (256, SpiUnknown),
        (0x0bad_cafe, SpiUnknown),
    ] {
        let mut packet = forge::packet(&pair.forth, 2, &text);
        packet[20..24].copy_from_slice(&spi.to_be_bytes());
        assert_eq!(dropped(&mut pair.two, &packet), expected, "SPI {spi:#x}");
    }
}

#[test]
fn fault_46_a_flood_of_forgeries_harms_no_other() {
    let mut pair = pair();
    let text = forge::text(&inner().bytes(), 4);
    let mut forged = forge::packet(&pair.forth, 500, &text);
    forged[40] ^= 1;
    for round in 0..50 {
        for _ in 0..40 {
            pair.two.deliver(WAN, &forged);
        }
        pair.two
            .deliver(WAN, &forge::packet(&pair.forth, 1 + round, &text));
        pair.two.turn();
        assert_eq!(pair.two.collect(LAN).len(), 1);
    }
    assert_eq!(pair.two.drops(), [(IntegrityFailed, 2000)]);
}

#[test]
fn fault_47_cbc_ivs_do_not_repeat_or_count() {
    let transform = Transform::new(Encryption::AesCbc128, Some(Integrity::HmacSha256)).unwrap();
    let mut pair = Pair::new(transform, Mode::Tunnel, false, false, true);
    let mut ivs = Vec::new();
    for _ in 0..200 {
        let outer = pair.one.pass(LAN, &inner().bytes()).remove(0);
        ivs.push(u128::from_be_bytes(*outer[28..].first_chunk().unwrap()));
    }
    let distinct: std::collections::HashSet<_> = ivs.iter().collect();
    assert_eq!(distinct.len(), ivs.len());
    // Neither the step from one to the next nor the change of bits repeats.
    let steps: std::collections::HashSet<_> =
        ivs.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let changes: std::collections::HashSet<_> = ivs.windows(2).map(|pair| pair[1] ^ pair[0]).collect();
    assert!(steps.len() > 190 && changes.len() > 190);
}

/// Good packets among all kinds of bad ones, in one batch: each has its own fate.
#[test]
fn fault_48_one_bad_packet_spoils_no_other() {
    let mut pair = pair();
    let text = forge::text(&inner().bytes(), 4);
    let mut damaged = forge::packet(&pair.forth, 30, &text);
    damaged[50] ^= 4;
    let mut unknown = forge::packet(&pair.forth, 31, &text);
    unknown[23] ^= 0x55;
    let bad = [
        damaged,
        unknown,
        forge::packet(&pair.forth, 32, &forge::text(&inner().bytes(), 59)),
        forge::packet(
            &pair.forth,
            33,
            &forge::text(&Ip::udp("10.9.0.5", "10.2.0.5", 60).bytes(), 4),
        ),
        Ip::new("192.0.2.1", "192.0.2.2", 50, vec![0x10, 0, 0, 1, 0, 0, 0, 9]).bytes(),
    ];
    for (index, packet) in bad.iter().enumerate() {
        pair.two
            .deliver(WAN, &forge::packet(&pair.forth, 1 + index as u64, &text));
        pair.two.deliver(WAN, packet);
    }
    pair.two.turn();
    assert_eq!(
        pair.two.collect(LAN),
        vec![Ip { hops: 63, ..inner() }.bytes(); bad.len()]
    );
    assert_eq!(
        pair.two.drops(),
        [
            (EspRunt, 1),
            (SpiUnknown, 1),
            (IntegrityFailed, 1),
            (Dummy, 1),
            (SelectorMismatch, 1)
        ]
    );
}

#[test]
fn fault_50_the_last_sequence_number_is_the_last() {
    let mut pair = Pair::without_sas(gcm(), Mode::Tunnel, false, false, false);
    let last_sequence = u64::from(u32::MAX) - 2;
    pair.forth.last_sequence = last_sequence;
    pair.install();
    for _ in 0..5 {
        pair.one.deliver(LAN, &inner().bytes());
    }
    pair.one.turn();
    let outer = pair.one.collect(WAN);
    let numbers: Vec<_> = outer.iter().map(|packet| packet[24..28].to_vec()).collect();
    assert_eq!(numbers, [[0xff, 0xff, 0xff, 0xfe], [0xff; 4]]);
    assert_eq!(pair.one.drops(), [(SequenceExhausted, 3)]);
    assert!(
        pair.one
            .events()
            .iter()
            .any(|event| matches!(event, Event::SequenceNearEnd { remaining: 0, .. }))
    );
}

#[test]
fn fault_50_a_hard_limit_stops_and_a_soft_one_tells() {
    let mut pair = Pair::without_sas(gcm(), Mode::Tunnel, false, false, true);
    pair.forth.lifetime.soft.packets = Some(2);
    pair.forth.lifetime.hard.packets = Some(4);
    pair.install();
    let mut sent = 0;
    for _ in 0..6 {
        sent += pair.one.pass(LAN, &inner().bytes()).len();
    }
    assert_eq!(sent, 4);
    assert_eq!(pair.one.drops(), [(SaExpired, 2)]);
    let kinds: Vec<_> = pair
        .one
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::LifetimeReached { kind, .. } => Some(kind),
            _ => None,
        })
        .collect();
    assert_eq!(
        kinds,
        [southbound::LifetimeKind::Soft, southbound::LifetimeKind::Hard]
    );
}

/// A removed SA is not found by the next batch, and one that is replaced keeps nothing of the other.
#[test]
fn fault_52_a_removed_sa_is_gone_at_the_next_batch() {
    let mut pair = pair();
    let packet = pair.one.pass(LAN, &inner().bytes()).remove(0);
    pair.two
        .apply(Update::RemoveSa(specs::inbound(&pair.forth).reference()));
    assert_eq!(dropped(&mut pair.two, &packet), SpiUnknown);
}

#[test]
fn fault_54_inner_packets_outside_the_selectors() {
    let mut pair = pair();
    let cases = [
        Ip::udp("10.9.0.5", "10.2.0.5", 100),
        Ip::udp("10.1.0.5", "10.3.0.5", 100),
        Ip::udp("10.2.0.7", "10.2.0.5", 100),
        Ip::udp("fd09::5", "fd02::5", 100),
        Ip::udp("192.0.2.1", "10.2.0.5", 100),
    ];
    for (index, inner) in cases.iter().enumerate() {
        let next_header = if inner.source.is_ipv4() { 4 } else { 41 };
        let packet = forge::packet(
            &pair.forth,
            1 + index as u64,
            &forge::text(&inner.bytes(), next_header),
        );
        assert_eq!(dropped(&mut pair.two, &packet), SelectorMismatch, "{inner:?}");
    }
    let martian = Ip::udp("127.0.0.1", "10.2.0.5", 100);
    let packet = forge::packet(&pair.forth, 20, &forge::text(&martian.bytes(), 4));
    assert_eq!(dropped(&mut pair.two, &packet), MartianSource);
}

/// Neither IP in IP nor anything else is taken apart that no SA stands for.
#[test]
fn fault_55_no_tunnel_that_nobody_configured() {
    let mut pair = pair();
    // IP-in-IP to the gateway's own address: for the host, as it is.
    let nested = Ip::new(
        "192.0.2.1",
        "192.0.2.2",
        4,
        Ip::udp("10.1.0.5", "10.2.0.5", 60).bytes(),
    );
    pair.two.deliver(WAN, &nested.bytes());
    pair.two.turn();
    assert_eq!(pair.two.collect(LAN), Vec::<Vec<u8>>::new());
    assert_eq!(pair.two.host_got(), [nested.bytes()]);
    // A tunnel within the tunnel is an inner packet like any other: its outer addresses decide.
    let inside = Ip::new(
        "10.1.0.5",
        "10.2.0.5",
        4,
        Ip::udp("10.9.0.5", "10.2.0.9", 60).bytes(),
    );
    let packet = forge::packet(&pair.forth, 1, &forge::text(&inside.bytes(), 4));
    assert_eq!(pair.two.pass(WAN, &packet), [Ip { hops: 63, ..inside }.bytes()]);
    // ESP in UDP where the SA is bare.
    let mut carrier = Ip::new("192.0.2.1", "192.0.2.2", 17, vec![]);
    let esp = forge::esp(&pair.forth, 2, &forge::text(&inner().bytes(), 4));
    carrier.payload = udp(&carrier, 4500, 4500, &esp);
    assert_eq!(dropped(&mut pair.two, &carrier.bytes()), EncapsulationMismatch);
    // And in transport mode a whole packet is refused.
    let mut hosts = Pair::new(gcm(), Mode::Transport, false, false, true);
    let packet = forge::packet(&hosts.forth, 1, &forge::text(&inner().bytes(), 4));
    assert_eq!(dropped(&mut hosts.two, &packet), NextHeaderRefused);
}

#[test]
fn fault_57_ipv6_extension_headers_before_esp() {
    let mut pair = Pair::new(gcm(), Mode::Tunnel, true, false, true);
    let esp = forge::esp(&pair.forth, 1, &forge::text(&inner().bytes(), 4));
    let with_chain = |kinds: &[u8], esp: &[u8]| {
        let mut payload = Vec::new();
        for (index, _) in kinds.iter().enumerate() {
            let next = kinds.get(index + 1).copied().unwrap_or(50);
            payload.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        payload.extend(esp);
        Ip::new("2001:db8::1", "2001:db8::2", kinds[0], payload).bytes()
    };
    passes(&mut pair.two, &with_chain(&[0, 60, 43, 60], &esp));
    let next = forge::esp(&pair.forth, 2, &forge::text(&inner().bytes(), 4));
    assert_eq!(
        dropped(&mut pair.two, &with_chain(&[60; 9], &next)),
        ExtensionHeaders,
        "more than are walked"
    );
    assert_eq!(
        dropped(&mut pair.two, &with_chain(&[60, 0], &next)),
        ExtensionHeaders,
        "hop-by-hop elsewhere"
    );
    passes(&mut pair.two, &with_chain(&[60; 8], &next));
}

#[test]
fn esp_to_another_address_than_the_sas_is_refused() {
    let mut pair = pair();
    pair.two.local(WAN, "192.0.2.77");
    let esp = forge::esp(&pair.forth, 1, &forge::text(&inner().bytes(), 4));
    let elsewhere = Ip::new("192.0.2.1", "192.0.2.77", 50, esp.clone());
    assert_eq!(dropped(&mut pair.two, &elsewhere.bytes()), SaDestination);
    // To somebody else's address it is not ours: it passes through.
    let through = Ip::new("10.2.0.5", "192.0.2.1", 50, esp);
    pair.two.deliver(LAN, &through.bytes());
    pair.two.turn();
    assert_eq!(pair.two.collect(WAN), [Ip { hops: 63, ..through }.bytes()]);
}

#[test]
fn fault_27_the_peer_moves_only_by_an_authentic_packet() {
    let mut pair = Pair::new(gcm(), Mode::Tunnel, false, true, true);
    let send = |pair: &mut Pair, sequence: u64, source: &str, port: u16, damage: bool| {
        let mut esp = forge::esp(&pair.forth, sequence, &forge::text(&inner().bytes(), 4));
        if damage {
            esp[30] ^= 1;
        }
        let mut carrier = Ip::new(source, "192.0.2.2", 17, vec![]);
        carrier.payload = udp(&carrier, port, 4500, &esp);
        fate(&mut pair.two, &carrier.bytes())
    };
    assert_eq!(send(&mut pair, 1, "192.0.2.1", 4500, false), (1, vec![]));
    assert_eq!(pair.two.events(), []);
    assert_eq!(
        send(&mut pair, 2, "203.0.113.9", 1024, true),
        (0, vec![IntegrityFailed])
    );
    assert_eq!(
        send(&mut pair, 1, "203.0.113.9", 1024, false),
        (0, vec![Replayed])
    );
    assert_eq!(pair.two.events(), []);
    assert_eq!(send(&mut pair, 3, "203.0.113.9", 1024, false), (1, vec![]));
    let expected = Event::PeerMoved {
        sa: specs::inbound(&pair.forth).reference(),
        address: "203.0.113.9".parse().unwrap(),
        port: Some(1024),
    };
    assert_eq!(pair.two.events(), [expected]);
    assert_eq!(send(&mut pair, 4, "203.0.113.9", 1024, false), (1, vec![]));
    assert_eq!(pair.two.events(), [], "told once");
}

#[test]
fn udp_4500_that_is_not_esp_goes_to_the_host() {
    let mut pair = Pair::new(gcm(), Mode::Tunnel, false, true, true);
    let mut carrier = Ip::new("192.0.2.1", "192.0.2.2", 17, vec![]);
    for payload in [&[0, 0, 0, 0, 1, 2, 3, 4][..], &[0xff]] {
        carrier.payload = udp(&carrier, 4500, 4500, payload);
        pair.two.deliver(WAN, &carrier.bytes());
        pair.two.turn();
        assert_eq!(pair.two.host_got(), [carrier.bytes()]);
    }
    assert_eq!(pair.two.count(WorkerCounter::ToHost), 2);
    // A UDP length that lies, both ways.
    let esp = forge::esp(&pair.forth, 1, &forge::text(&inner().bytes(), 4));
    carrier.payload = udp(&carrier, 4500, 4500, &esp);
    for length in [
        0u16,
        7,
        8 + esp.len() as u16 - 1,
        8 + esp.len() as u16 + 1,
        u16::MAX,
    ] {
        let mut lying = carrier.clone();
        lying.payload[4..6].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            dropped(&mut pair.two, &lying.bytes()),
            MalformedUdp,
            "UDP length {length}"
        );
    }
    passes(&mut pair.two, &carrier.bytes());
}
