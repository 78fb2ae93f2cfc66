//! ICMP errors sent: whatever is answered is answered with a packet that parses, and no answer is ever
//! answered itself.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use wire::icmp::ErrorMessage;
use wire::icmp::reply::{Cause, MAX_V4_BYTES, MAX_V6_BYTES, Reply, Unanswerable, write_v4, write_v6};
use wire::{Lse, ipv4, ipv6};

fuzz_target!(|input: (u8, u32, u8, &[u8])| {
    let (cause, mtu_bytes, depth, offending) = input;
    let cause = match cause % 6 {
        0 => Cause::TimeExceeded,
        1 => Cause::TooBig { mtu_bytes },
        2 => Cause::NetUnreachable,
        3 => Cause::HostUnreachable,
        4 => Cause::AdminProhibited,
        _ => Cause::PortUnreachable,
    };
    let labels = vec![Lse::from_bytes(mtu_bytes.to_be_bytes()); usize::from(depth % 20)];
    let mut out = [0xaa; MAX_V6_BYTES];
    let mut again = [0; MAX_V6_BYTES];

    let source = Ipv4Addr::new(203, 0, 113, 1);
    let reply = Reply {
        cause,
        source,
        ttl: 64,
        labels: &labels,
    };
    if let Ok(length) = write_v4(offending, &reply, &mut out) {
        assert!(length <= MAX_V4_BYTES);
        let packet = ipv4::Packet::parse(&out[..length]).expect("an IPv4 packet");
        assert_eq!(packet.verify_checksum(), Ok(()));
        let message = ErrorMessage::parse_v4(packet.payload).expect("an error message");
        assert_eq!(message.extension.is_some(), !labels.is_empty());
        assert_eq!(
            write_v4(&out[..length], &reply, &mut again),
            Err(Unanswerable::IcmpError)
        );
    }

    let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let reply = Reply {
        cause,
        source,
        ttl: 64,
        labels: &labels,
    };
    if let Ok(length) = write_v6(offending, &reply, &mut out) {
        let packet = ipv6::Packet::parse(&out[..length]).expect("an IPv6 packet");
        let destination = packet.header.destination();
        ErrorMessage::parse_v6(packet.payload, source, destination).expect("an error message");
        assert_eq!(
            write_v6(&out[..length], &reply, &mut again),
            Err(Unanswerable::IcmpError)
        );
    }
});
