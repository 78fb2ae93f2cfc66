//! IPv6: the fixed header comes out the same, and the extension walk stays within the packet and its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ipv6::{HEADER_BYTES, MAX_EXTENSION_BYTES, Packet};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::parse(data) else { return };
    let mut out = [0; HEADER_BYTES];
    packet.header.repr().emit(&mut out);
    assert_eq!(&out, packet.header.bytes());
    let Ok(upper) = packet.upper() else { return };
    assert!(upper.offset_bytes <= packet.bytes().len());
    assert!(upper.offset_bytes <= HEADER_BYTES + MAX_EXTENSION_BYTES);
    assert_eq!(packet.bytes()[upper.next_header_at], upper.protocol.0);
    assert_eq!(upper.fragment.is_some(), upper.fragment_at.is_some());
    if let Some(at) = upper.fragment_at {
        assert!(at.named_at < at.header_at && at.header_at < upper.offset_bytes);
    }
});
