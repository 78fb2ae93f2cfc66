//! Selectors: only the bytes that the IP length covers count.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::flow::{Tuple, UpperSelector};
use wire::{ipv4, ipv6};

fuzz_target!(|data: &[u8]| {
    let Ok(tuple) = Tuple::parse(data) else { return };
    let whole = match tuple.source {
        std::net::IpAddr::V4(_) => ipv4::Packet::parse(data).expect("it parsed").bytes(),
        std::net::IpAddr::V6(_) => ipv6::Packet::parse(data).expect("it parsed").bytes(),
    };
    assert_eq!(Tuple::parse(whole), Ok(tuple));
    assert_eq!(Tuple::parse(whole).map(|again| again.hash()), Ok(tuple.hash()));
    let later = tuple.fragment.is_some_and(|fragment| !fragment.is_first());
    assert_eq!(tuple.upper == UpperSelector::Opaque, later);
});
