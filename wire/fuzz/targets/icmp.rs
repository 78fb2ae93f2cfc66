//! ICMP errors received: the checksum is mended first, for no input would ever pass it.
#![no_main]

use std::net::Ipv6Addr;

use libfuzzer_sys::fuzz_target;
use wire::IpProtocol;
use wire::checksum::Sum;
use wire::icmp::{ErrorMessage, extension};

fuzz_target!(|data: &[u8]| {
    let mut message = data.to_vec();
    let (source, destination) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
    let length = message.len() as u32;
    let pseudo = Sum::pseudo_header_v6(source, destination, IpProtocol::ICMPV6, length);
    let mut parsed = |pseudo: Sum, v6: bool| {
        if let Some(field) = message.get_mut(2..4) {
            field.fill(0);
            let checksum = pseudo.bytes(&message).checksum();
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let error = if v6 {
            ErrorMessage::parse_v6(&message, source, destination)
        } else {
            ErrorMessage::parse_v4(&message)
        };
        let Ok(error) = error else { return };
        assert_eq!(
            error.quoted.len() + error.extension.map_or(0, <[u8]>::len) + 8,
            message.len()
        );
        if let Some(structure) = error.extension {
            let _ = extension::find_label_stack(structure);
        }
    };
    parsed(Sum::new(), false);
    parsed(pseudo, true);
});
