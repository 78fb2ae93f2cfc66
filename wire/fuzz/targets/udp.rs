//! UDP: a computed checksum verifies, and port 4500 comes apart.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use wire::udp::{self, NatTraversal, Packet, Repr};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::parse(data) else { return };
    match NatTraversal::parse(packet.payload) {
        NatTraversal::Esp(esp) => assert!(esp.len() >= 4 && esp[..4] != udp::NON_ESP_MARKER),
        NatTraversal::Ike(message) => assert_eq!(message.len() + 4, packet.payload.len()),
        NatTraversal::Keepalive => assert_eq!(packet.payload, [0xff]),
        NatTraversal::Runt => assert!(packet.payload.len() < 4),
    }
    let mut whole = data[..usize::from(packet.header.length_bytes())].to_vec();
    let unsummed = Repr {
        checksum: 0,
        ..packet.header.repr()
    };
    let mut summed = |checksum: fn(&[u8]) -> u16| {
        unsummed.emit(whole.first_chunk_mut().expect("a header"));
        let checksum = checksum(&whole);
        assert_ne!(checksum, 0);
        Repr { checksum, ..unsummed }.emit(whole.first_chunk_mut().expect("a header"));
        whole.clone()
    };
    let (a4, b4, a6, b6) = (
        Ipv4Addr::new(192, 0, 2, 1),
        Ipv4Addr::LOCALHOST,
        Ipv6Addr::LOCALHOST,
        Ipv6Addr::UNSPECIFIED,
    );
    let v4 = summed(|bytes| udp::checksum_v4(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST, bytes));
    assert_eq!(
        Packet::parse(&v4).expect("the same").verify_checksum_v4(a4, b4),
        Ok(())
    );
    let v6 = summed(|bytes| udp::checksum_v6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, bytes));
    assert_eq!(
        Packet::parse(&v6).expect("the same").verify_checksum_v6(a6, b6),
        Ok(())
    );
});
