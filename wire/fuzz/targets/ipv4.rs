//! IPv4: lengths hold, and every rewriter keeps the checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ipv4::{self, Packet};
use wire::{IpProtocol, TrafficClass};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::parse(data) else { return };
    let header = packet.header;
    assert_eq!(ipv4::HEADER_BYTES + packet.options.len(), header.header_bytes());
    assert_eq!(
        header.header_bytes() + packet.payload.len(),
        usize::from(header.total_bytes())
    );
    if packet.verify_checksum().is_err() {
        return;
    }
    let mut changed = packet.bytes().to_vec();
    let bytes = changed.first_chunk_mut().expect("a header");
    let ttl = ipv4::decrement_ttl(bytes);
    assert_eq!(ttl.ok(), header.ttl().checked_sub(1).filter(|&left| left != 0));
    ipv4::set_traffic_class(bytes, TrafficClass(header.ttl()));
    ipv4::set_fragment(bytes, header.identification() & 0xfff8, header.ttl() & 1 != 0);
    ipv4::set_protocol(bytes, IpProtocol(header.traffic_class().0));
    let again = Packet::parse(&changed).expect("lengths are unchanged");
    assert_eq!(again.verify_checksum(), Ok(()));
    assert_eq!(
        again.header.fragment_offset_bytes(),
        header.identification() & 0xfff8
    );
    assert_eq!(again.header.dont_fragment(), header.dont_fragment());
});
