//! One packet out and in again, for every transform, mode, family and encapsulation: what one gateway lays out and seals,
//! the other opens and takes out, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use dataplane::batch::{Flags, Ingress, Meta};
use dataplane::sa::{EspSizes, OuterTemplate, Tunnel, TunnelIndex, algorithm};
use dataplane::stage::{esp_inner, esp_layout};
use dataplane::tables::VrfIndex;
use dataplane::xsk::Umem;
use esp_aead::{OpenJob, OpenKey, SealJob, SealKey, Verdict};
use southbound::{Encryption, Integrity, Mode, Transform};
use walk::packets::{Ip, upper_checksum_holds};
use walk::specs;

fn transforms() -> impl Iterator<Item = Transform> {
    Encryption::ALL.into_iter().flat_map(|encryption| {
        [None]
            .into_iter()
            .chain(Integrity::ALL.map(Some))
            .filter_map(move |integrity| Transform::new(encryption, integrity).ok())
    })
}

struct Case {
    transform: Transform,
    mode: Mode,
    inner_is_ipv6: bool,
    outer_is_ipv6: bool,
    in_udp: bool,
    esn: bool,
    total_bytes: usize,
}

fn round_trip(umem: &'static Umem, case: &Case) {
    let mut pool = umem.pool().unwrap();
    let spec = specs::sa(
        case.transform,
        case.mode,
        case.outer_is_ipv6,
        case.in_udp,
        case.esn,
    );
    let tunnel = Tunnel::new(
        &specs::tunnel(case.mode, case.outer_is_ipv6),
        TunnelIndex::for_tests(3),
        VrfIndex::MAIN,
        VrfIndex::MAIN,
    );
    let (template, sizes) = (OuterTemplate::new(&spec), EspSizes::of(case.transform));
    let sequence = if case.esn { (7 << 32) + 9 } else { 9 };
    let inner = match (case.mode, case.inner_is_ipv6) {
        (Mode::Tunnel, false) => Ip::udp("10.1.0.5", "10.2.0.5", case.total_bytes),
        (Mode::Tunnel, true) => Ip::udp("fd01::5", "fd02::5", case.total_bytes),
        (Mode::Transport, false) => Ip::udp("192.0.2.1", "192.0.2.2", case.total_bytes),
        (Mode::Transport, true) => Ip::udp("2001:db8::1", "2001:db8::2", case.total_bytes),
    }
    .bytes();
    let mut frame = pool.take().unwrap();
    assert!(frame.copy_from(&inner));
    let mut meta = Meta::new(Ingress::Host, VrfIndex::MAIN);
    if case.inner_is_ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    let at = match case.mode {
        Mode::Tunnel => {
            let layout = esp_layout::TunnelLayout::new(&template, sizes, &tunnel);
            match layout.header_bytes() {
                24 => layout.apply::<24>(&mut frame, &mut meta, sequence),
                32 => layout.apply::<32>(&mut frame, &mut meta, sequence),
                44 => layout.apply::<44>(&mut frame, &mut meta, sequence),
                _ => layout.apply::<52>(&mut frame, &mut meta, sequence),
            }
        }
        Mode::Transport => esp_layout::transport(&mut frame, &mut meta, &template, sizes, sequence),
    }
    .unwrap();
    let keyed = esp_aead::Transform::new(algorithm(case.transform), case.esn);
    let seal_key = SealKey::new(keyed, spec.key.expose()).unwrap();
    let mut jobs = [SealJob::new(&seal_key, &mut frame.bytes_mut()[at..], sequence)];
    esp_aead::seal(&mut jobs);
    assert_eq!(jobs[0].verdict, Verdict::Done);

    // On the wire: a sound IP packet of the right lengths.
    let outer = frame.bytes();
    if case.outer_is_ipv6 {
        let packet = wire::ipv6::Packet::parse(outer).unwrap();
        assert_eq!(packet.bytes().len(), outer.len());
    } else {
        let packet = wire::ipv4::Packet::parse(outer).unwrap();
        assert_eq!(packet.bytes().len(), outer.len());
        packet.verify_checksum().unwrap();
    }
    assert_eq!(outer[at..at + 4], spec.spi.to_be_bytes());
    assert_eq!(outer[at + 4..at + 8], [0, 0, 0, 9]);
    if case.in_udp {
        let length = u16::from_be_bytes([outer[at - 4], outer[at - 3]]);
        assert_eq!(usize::from(length), outer.len() - at + 8);
    }

    let mut meta = Meta::new(Ingress::Host, VrfIndex::MAIN);
    meta.upper_bytes = at as u16;
    if case.outer_is_ipv6 {
        meta.flags.set(Flags::IPV6);
    }
    if case.in_udp {
        meta.flags.set(Flags::IN_UDP);
    }
    let open_key = OpenKey::new(keyed, spec.key.expose()).unwrap();
    let mut jobs = [OpenJob::new(&open_key, &mut frame.bytes_mut()[at..], sequence)];
    esp_aead::open(&mut jobs);
    assert_eq!(jobs[0].verdict, Verdict::Done);
    let start = at + 8 + usize::from(sizes.iv_bytes);
    let end = frame.len() - usize::from(sizes.icv_bytes);
    match case.mode {
        Mode::Tunnel => esp_inner::unwrap_tunnel(&mut frame, &mut meta, start, end),
        Mode::Transport => esp_inner::unwrap_transport(&mut frame, &mut meta, start, end, false),
    }
    .unwrap();
    assert_eq!(frame.bytes(), inner);
    assert_eq!(meta.flags.has(Flags::IPV6), case.inner_is_ipv6);
    assert!(upper_checksum_holds(frame.bytes()));
    pool.put(frame);
}

#[test]
fn every_transform_in_every_way() {
    let umem = specs::umem(8);
    let mut cases = 0;
    for transform in transforms() {
        for (outer_is_ipv6, in_udp, esn) in [false, true].into_iter().flat_map(|six| {
            [false, true]
                .into_iter()
                .flat_map(move |udp| [false, true].map(|esn| (six, udp, esn)))
        }) {
            for (mode, inner_is_ipv6) in [
                (Mode::Tunnel, false),
                (Mode::Tunnel, true),
                (Mode::Transport, outer_is_ipv6),
            ] {
                for total_bytes in [48, 49, 50, 51, 63, 64, 65, 576, 1420] {
                    let case = Case {
                        transform,
                        mode,
                        inner_is_ipv6,
                        outer_is_ipv6,
                        in_udp,
                        esn,
                        total_bytes,
                    };
                    round_trip(umem, &case);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 35 * 8 * 3 * 9);
}
