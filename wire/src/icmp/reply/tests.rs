use super::*;
use crate::icmp::ErrorMessage;
use crate::{Label, Spi, esp};
use proptest::prelude::*;
use std::vec::Vec;

const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1);

fn packet_v4(protocol: IpProtocol, offset_bytes: u16, ends: (Ipv4Addr, Ipv4Addr), payload: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0; 20];
    bytes.extend(payload);
    ipv4::Repr {
        traffic_class: TrafficClass(0),
        total_bytes: bytes.len() as u16,
        identification: 9,
        dont_fragment: false,
        more_fragments: offset_bytes != 0,
        fragment_offset_bytes: offset_bytes,
        ttl: 1,
        protocol,
        source: ends.0,
        destination: ends.1,
    }
    .emit(bytes.first_chunk_mut().unwrap());
    bytes
}

fn packet_v6(next_header: IpProtocol, ends: (Ipv6Addr, Ipv6Addr), payload: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0; 40];
    bytes.extend(payload);
    ipv6::Repr {
        traffic_class: TrafficClass(0),
        flow_label: 0,
        payload_bytes: payload.len() as u16,
        next_header,
        hop_limit: 1,
        source: ends.0,
        destination: ends.1,
    }
    .emit(bytes.first_chunk_mut().unwrap());
    bytes
}

fn reply4(cause: Cause, labels: &[Lse]) -> Reply<'_, Ipv4Addr> {
    Reply {
        cause,
        source: ROUTER4,
        ttl: 64,
        labels,
    }
}

fn reply6(cause: Cause, labels: &[Lse]) -> Reply<'_, Ipv6Addr> {
    Reply {
        cause,
        source: ROUTER6,
        ttl: 64,
        labels,
    }
}

fn answer_v4(offending: &[u8], reply: &Reply<'_, Ipv4Addr>) -> Vec<u8> {
    let mut out = [0xaa; MAX_V4_BYTES];
    let length = write_v4(offending, reply, &mut out).unwrap();
    let packet = ipv4::Packet::parse(&out[..length]).unwrap();
    assert_eq!(packet.verify_checksum(), Ok(()));
    assert_eq!(
        (packet.header.source(), packet.header.destination()),
        (ROUTER4, A4)
    );
    assert_eq!(
        (packet.header.protocol(), packet.header.ttl()),
        (IpProtocol::ICMP, 64)
    );
    packet.payload.to_vec()
}

fn answer_v6(offending: &[u8], reply: &Reply<'_, Ipv6Addr>) -> Vec<u8> {
    let mut out = [0xaa; MAX_V6_BYTES];
    let length = write_v6(offending, reply, &mut out).unwrap();
    let packet = ipv6::Packet::parse(&out[..length]).unwrap();
    assert_eq!(
        (packet.header.source(), packet.header.destination()),
        (ROUTER6, A6)
    );
    assert_eq!(
        (packet.header.next_header(), packet.header.hop_limit()),
        (IpProtocol::ICMPV6, 64)
    );
    packet.payload.to_vec()
}

#[test]
fn fault_59_time_exceeded_quotes_the_packet_as_received() {
    let offending = packet_v4(IpProtocol::UDP, 0, (A4, B4), &[7; 100]);
    let answer = answer_v4(&offending, &reply4(Cause::TimeExceeded, &[]));
    let message = ErrorMessage::parse_v4(&answer).unwrap();
    assert_eq!(
        (message.kind, message.code, message.quoted),
        (11, 0, &offending[..])
    );

    let offending = packet_v6(IpProtocol::UDP, (A6, B6), &[7; 100]);
    let answer = answer_v6(&offending, &reply6(Cause::TimeExceeded, &[]));
    let message = ErrorMessage::parse_v6(&answer, ROUTER6, A6).unwrap();
    assert_eq!(
        (message.kind, message.code, message.quoted),
        (3, 0, &offending[..])
    );
}

#[test]
fn fault_58_too_big_tells_the_mtu() {
    let cause = Cause::TooBig { mtu_bytes: 1400 };
    let offending = packet_v4(IpProtocol::TCP, 0, (A4, B4), &[7; 1480]);
    let answer = answer_v4(&offending, &reply4(cause, &[]));
    assert_eq!(answer.len(), 576 - 20, "quotes no more than 576 bytes hold");
    let message = ErrorMessage::parse_v4(&answer).unwrap();
    assert_eq!(
        (message.kind, message.code, message.mtu_bytes),
        (3, 4, Some(1400))
    );
    assert_eq!(message.quoted, &offending[..548]);

    let offending = packet_v6(IpProtocol::TCP, (A6, B6), &[7; 1460]);
    let answer = answer_v6(&offending, &reply6(cause, &[]));
    assert_eq!(answer.len(), 1280 - 40);
    let message = ErrorMessage::parse_v6(&answer, ROUTER6, A6).unwrap();
    assert_eq!((message.kind, message.mtu_bytes), (2, Some(1400)));
    assert_eq!(message.quoted, &offending[..1232]);
}

#[test]
fn every_cause_has_its_numbers() {
    let (p4, p6) = (
        packet_v4(IpProtocol::UDP, 0, (A4, B4), &[7; 8]),
        packet_v6(IpProtocol::UDP, (A6, B6), &[7; 8]),
    );
    for (cause, numbers_v4, numbers_v6) in [
        (Cause::NetUnreachable, (3, 0), (1, 0)),
        (Cause::HostUnreachable, (3, 1), (1, 3)),
        (Cause::PortUnreachable, (3, 3), (1, 4)),
        (Cause::AdminProhibited, (3, 13), (1, 1)),
    ] {
        let answer = answer_v4(&p4, &reply4(cause, &[]));
        assert_eq!((answer[0], answer[1]), numbers_v4);
        let answer = answer_v6(&p6, &reply6(cause, &[]));
        assert_eq!((answer[0], answer[1]), numbers_v6);
    }
}

#[test]
fn the_label_stack_goes_along() {
    let lse = |label, bottom| Lse {
        label: Label::new(label).unwrap(),
        traffic_class: 0,
        bottom,
        ttl: 1,
    };
    let labels = [lse(16, false), lse(1_000_000, true)];
    let expected = [labels[0].to_bytes(), labels[1].to_bytes()];

    // Short packets are padded to 128 bytes, long ones cut there.
    for payload in [&[7; 8][..], &[7; 1400]] {
        let offending = packet_v4(IpProtocol::UDP, 0, (A4, B4), payload);
        let answer = answer_v4(&offending, &reply4(Cause::TimeExceeded, &labels));
        let message = ErrorMessage::parse_v4(&answer).unwrap();
        assert_eq!(message.quoted.len(), 128);
        let copied = offending.len().min(128);
        assert_eq!(message.quoted[..copied], offending[..copied]);
        assert!(message.quoted[copied..].iter().all(|&byte| byte == 0));
        let found = extension::find_label_stack(message.extension.unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(found, &expected);

        let offending = packet_v6(IpProtocol::UDP, (A6, B6), payload);
        let answer = answer_v6(&offending, &reply6(Cause::TimeExceeded, &labels));
        let message = ErrorMessage::parse_v6(&answer, ROUTER6, A6).unwrap();
        assert_eq!(message.quoted.len(), 128);
        let found = extension::find_label_stack(message.extension.unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(found, &expected);
    }

    // Fragmentation needed keeps its MTU beside the length; packet too big has no room for it.
    let cause = Cause::TooBig { mtu_bytes: 1500 };
    let offending = packet_v4(IpProtocol::UDP, 0, (A4, B4), &[7; 1400]);
    let answer = answer_v4(&offending, &reply4(cause, &labels));
    let message = ErrorMessage::parse_v4(&answer).unwrap();
    assert_eq!(
        (message.mtu_bytes, message.extension.is_some()),
        (Some(1500), true)
    );
    let offending = packet_v6(IpProtocol::UDP, (A6, B6), &[7; 1400]);
    let answer = answer_v6(&offending, &reply6(cause, &labels));
    let message = ErrorMessage::parse_v6(&answer, ROUTER6, A6).unwrap();
    assert_eq!((message.mtu_bytes, message.extension), (Some(1500), None));
}

#[test]
fn never_answers_v4() {
    let ask = |offending: &[u8]| {
        write_v4(
            offending,
            &reply4(Cause::TimeExceeded, &[]),
            &mut [0; MAX_V4_BYTES],
        )
        .map(|_| ())
    };
    let udp = |source, destination| ask(&packet_v4(IpProtocol::UDP, 0, (source, destination), &[7; 8]));
    assert_eq!(udp(A4, B4), Ok(()));
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
    ] {
        assert_eq!(
            udp(source.parse().unwrap(), B4),
            Err(Unanswerable::SourceNotUnicast),
            "{source}"
        );
    }
    for destination in ["224.0.0.5", "255.255.255.255"] {
        assert_eq!(
            udp(A4, destination.parse().unwrap()),
            Err(Unanswerable::DestinationNotUnicast)
        );
    }
    assert_eq!(
        ask(&packet_v4(IpProtocol::UDP, 8, (A4, B4), &[7; 8])),
        Err(Unanswerable::LaterFragment)
    );
    for (kind, verdict) in [
        (v4::ECHO_REQUEST, Ok(())),
        (v4::ECHO_REPLY, Ok(())),
        (v4::UNREACHABLE, Err(Unanswerable::IcmpError)),
        (v4::SOURCE_QUENCH, Err(Unanswerable::IcmpError)),
        (v4::REDIRECT, Err(Unanswerable::IcmpError)),
        (v4::TIME_EXCEEDED, Err(Unanswerable::IcmpError)),
        (v4::PARAMETER_PROBLEM, Err(Unanswerable::IcmpError)),
    ] {
        let message = [kind, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            ask(&packet_v4(IpProtocol::ICMP, 0, (A4, B4), &message)),
            verdict,
            "{kind}"
        );
    }
    assert_eq!(
        ask(&packet_v4(IpProtocol::ICMP, 0, (A4, B4), &[])),
        Err(Unanswerable::IcmpError)
    );
    assert_eq!(ask(&[0x45; 19]), Err(Unanswerable::BadHeader));
    let offending = packet_v4(IpProtocol::UDP, 0, (A4, B4), &[7; 8]);
    assert_eq!(
        write_v4(&offending, &reply4(Cause::TimeExceeded, &[]), &mut [0; 55]),
        Err(Unanswerable::BufferTooSmall)
    );
}

#[test]
fn never_answers_v6() {
    let ask = |offending: &[u8], cause| {
        write_v6(offending, &reply6(cause, &[]), &mut [0; MAX_V6_BYTES]).map(|_| ())
    };
    let (exceeded, too_big) = (Cause::TimeExceeded, Cause::TooBig { mtu_bytes: 1280 });
    let udp =
        |source, destination, cause| ask(&packet_v6(IpProtocol::UDP, (source, destination), &[7; 8]), cause);
    assert_eq!(udp(A6, B6, exceeded), Ok(()));
    for source in ["::", "::1", "ff02::1"] {
        assert_eq!(
            udp(source.parse().unwrap(), B6, exceeded),
            Err(Unanswerable::SourceNotUnicast)
        );
    }
    let group = "ff0e::1".parse().unwrap();
    assert_eq!(udp(A6, group, exceeded), Err(Unanswerable::DestinationNotUnicast));
    assert_eq!(udp(A6, group, too_big), Ok(()));
    for (kind, verdict) in [
        (v6::ECHO_REQUEST, Ok(())),
        (v6::ECHO_REPLY, Ok(())),
        (v6::UNREACHABLE, Err(Unanswerable::IcmpError)),
        (100, Err(Unanswerable::IcmpError)),
        (v6::REDIRECT, Err(Unanswerable::IcmpError)),
    ] {
        // Behind an extension header, too.
        let message = [kind, 0, 0, 0, 0, 0, 0, 0];
        let hidden = [&[IpProtocol::ICMPV6.0, 0, 0, 0, 0, 0, 0, 0][..], &message].concat();
        assert_eq!(
            ask(&packet_v6(IpProtocol::ICMPV6, (A6, B6), &message), exceeded),
            verdict
        );
        assert_eq!(
            ask(
                &packet_v6(IpProtocol::DESTINATION_OPTIONS, (A6, B6), &hidden),
                exceeded
            ),
            verdict
        );
    }
    let later = [IpProtocol::UDP.0, 0, 0, 8, 0, 0, 0, 1, 7, 7];
    assert_eq!(
        ask(&packet_v6(IpProtocol::FRAGMENT, (A6, B6), &later), too_big),
        Err(Unanswerable::LaterFragment)
    );
    assert_eq!(ask(&[0x60; 39], exceeded), Err(Unanswerable::BadHeader));
    assert_eq!(
        ask(&packet_v6(IpProtocol::ICMPV6, (A6, B6), &[]), exceeded),
        Err(Unanswerable::IcmpError)
    );
}

#[test]
fn a_quoted_esp_packet_shows_its_spi() {
    let mut esp_packet = [7; 100];
    esp::Repr {
        spi: Spi(0xc0de),
        sequence: esp::Sequence(5),
    }
    .emit(esp_packet.first_chunk_mut().unwrap());
    let offending = packet_v4(IpProtocol::ESP, 0, (A4, B4), &esp_packet);
    let answer = answer_v4(&offending, &reply4(Cause::TooBig { mtu_bytes: 1400 }, &[]));
    let message = ErrorMessage::parse_v4(&answer).unwrap();
    let mut cursor = SliceCursor::new(message.quoted);
    let quoted = ipv4::Header::parse(&mut cursor).unwrap();
    assert_eq!((quoted.protocol(), quoted.destination()), (IpProtocol::ESP, B4));
    assert_eq!(esp::Header::parse(&mut cursor).unwrap().spi(), Spi(0xc0de));
}

proptest! {
    #[test]
    fn never_panics_and_always_checks_out(
        mut offending in proptest::collection::vec(any::<u8>(), 0..1600),
        depth in 0..20usize, mtu_bytes in any::<u32>(), room in 0..1400usize, which in 0..3u8, six in any::<bool>(),
    ) {
        let labels: Vec<Lse> = (0..depth)
            .map(|i| Lse { label: Label::MAX, traffic_class: 1, bottom: i + 1 == depth, ttl: 2 })
            .collect();
        let cause = match which {
            0 => Cause::TimeExceeded,
            1 => Cause::TooBig { mtu_bytes },
            _ => Cause::NetUnreachable,
        };
        if let Some(first) = offending.first_mut() {
            *first = if six { 0x60 } else { 0x45 };
        }
        let mut out = std::vec![0; room];
        if six {
            if offending.len() >= 40 {
                let payload_bytes = (offending.len() - 40) as u16;
                offending[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
            }
            if let Ok(length) = write_v6(&offending, &reply6(cause, &labels), &mut out) {
                let packet = ipv6::Packet::parse(&out[..length]).unwrap();
                let message = ErrorMessage::parse_v6(packet.payload, ROUTER6, packet.header.destination());
                prop_assert!(message.is_ok());
                prop_assert!(length <= MAX_V6_BYTES);
            }
        } else {
            if offending.len() >= 20 {
                let total_bytes = offending.len() as u16;
                offending[2..4].copy_from_slice(&total_bytes.to_be_bytes());
            }
            if let Ok(length) = write_v4(&offending, &reply4(cause, &labels), &mut out) {
                let packet = ipv4::Packet::parse(&out[..length]).unwrap();
                prop_assert!(packet.verify_checksum().is_ok());
                prop_assert!(ErrorMessage::parse_v4(packet.payload).is_ok());
                prop_assert!(length <= MAX_V4_BYTES);
            }
        }
    }
}
