use super::*;
use crate::Ecn;
use proptest::prelude::*;
use std::vec::Vec;

/// The header of an empty UDP datagram.
const BYTES: [u8; 20] = [
    0x45, 0x00, 0x00, 0x1c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x11, 0x52, 0x55, 10, 0, 0, 1, 192, 0, 2, 53,
];
const REPR: Repr = Repr {
    traffic_class: TrafficClass(0),
    total_bytes: 28,
    identification: 0x1c46,
    dont_fragment: true,
    more_fragments: false,
    fragment_offset_bytes: 0,
    ttl: 64,
    protocol: IpProtocol::UDP,
    source: Ipv4Addr::new(10, 0, 0, 1),
    destination: Ipv4Addr::new(192, 0, 2, 53),
};

fn packet() -> Vec<u8> {
    [&BYTES[..], &[0; 8]].concat()
}

#[test]
fn both_ways() {
    let bytes = packet();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.header.repr(), REPR);
    let mut out = [0xaa; HEADER_BYTES];
    REPR.emit(&mut out);
    assert_eq!(out, BYTES);
    assert_eq!(packet.verify_checksum(), Ok(()));
}

#[test]
fn every_error() {
    fn after(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let mut bytes = packet();
        change(&mut bytes);
        Packet::parse(&bytes)?.verify_checksum()
    }
    assert_eq!(after(|_| ()), Ok(()));
    assert_eq!(after(|b| b.truncate(19)), Err(Error::Truncated));
    assert_eq!(after(|b| b[0] = 0x65), Err(Error::BadVersion));
    assert_eq!(after(|b| b[0] = 0x44), Err(Error::BadHeaderLength));
    assert_eq!(
        after(|b| b[0] = 0x48),
        Err(Error::Truncated),
        "options beyond the end"
    );
    assert_eq!(after(|b| b[0] = 0x47), Err(Error::BadChecksum));
    assert_eq!(after(|b| b[3] = 19), Err(Error::BadTotalLength));
    assert_eq!(after(|b| b[3] = 29), Err(Error::BadTotalLength));
    assert_eq!(after(|b| b[8] = 63), Err(Error::BadChecksum));
}

#[test]
fn padding_is_cut_and_options_come_apart() {
    let mut bytes = packet();
    bytes[0] = 0x46;
    bytes.extend([0xee; 18]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(
        (packet.options.len(), packet.payload.len(), packet.bytes().len()),
        (4, 4, 28)
    );
}

#[test]
fn fault_59_ttl_is_decremented_with_its_checksum() {
    let mut header = BYTES;
    assert_eq!(decrement_ttl(&mut header), Ok(63));
    let mut whole = [0; HEADER_BYTES];
    Repr { ttl: 63, ..REPR }.emit(&mut whole);
    assert_eq!(header, whole);
    for ttl in [0, 1] {
        let mut expired = [0; HEADER_BYTES];
        Repr { ttl, ..REPR }.emit(&mut expired);
        let before = expired;
        assert_eq!(decrement_ttl(&mut expired), Err(TtlExpired));
        assert_eq!(expired, before);
    }
}

#[test]
fn one_hop_less_mends_every_checksum() {
    for checksum in 0..=u16::MAX {
        let mut header = [0; HEADER_BYTES];
        header[0] = 0x45;
        header[8] = 64;
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(decrement_ttl(&mut header), Ok(63));
        let expected = crate::checksum::updated(checksum, 64 << 8, 63 << 8);
        assert_eq!(header[10..12], expected.to_be_bytes(), "{checksum:04x}");
    }
}

proptest! {
    #[test]
    fn a_header_is_valid_where_its_sum_is(mut header in any::<[u8; HEADER_BYTES]>(), mend in any::<bool>()) {
        if mend {
            header[10..12].fill(0);
            let checksum = Sum::new().bytes(&header).checksum();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        prop_assert_eq!(is_checksum_valid(&header), Sum::new().bytes(&header).is_valid());
    }

    #[test]
    fn an_address_is_of_no_unicast_host_as_its_first_octet_says(first in any::<u8>()) {
        let address = core::net::Ipv4Addr::new(first, 1, 2, 3);
        let is_none = first == 0 || first >= 240 || address.is_loopback() || address.is_multicast();
        prop_assert_eq!(is_no_unicast(first), is_none);
    }
}

fn repr() -> impl Strategy<Value = Repr> {
    (
        (
            any::<u8>(),
            20..=u16::MAX,
            any::<u16>(),
            any::<bool>(),
            any::<bool>(),
        ),
        (
            0..0x2000u16,
            any::<u8>(),
            any::<u8>(),
            any::<[u8; 4]>(),
            any::<[u8; 4]>(),
        ),
    )
        .prop_map(
            |((class, total_bytes, identification, df, mf), (offset, ttl, protocol, s, d))| Repr {
                traffic_class: TrafficClass(class),
                total_bytes,
                identification,
                dont_fragment: df,
                more_fragments: mf,
                fragment_offset_bytes: offset << 3,
                ttl,
                protocol: IpProtocol(protocol),
                source: s.into(),
                destination: d.into(),
            },
        )
}

proptest! {
    #[test]
    fn emit_then_parse_is_identity(repr in repr()) {
        let mut bytes = [0; HEADER_BYTES];
        repr.emit(&mut bytes);
        let header = Header::parse(&mut crate::SliceCursor::new(&bytes)).unwrap();
        prop_assert_eq!(header.repr(), repr);
        prop_assert!(Sum::new().bytes(&bytes).is_valid());
    }

    #[test]
    fn rewriters_equal_emitting(
        before in repr(), class in any::<u8>(), ttl in 2..=255u8, total in 20..=u16::MAX,
        offset in 0..0x2000u16, more in any::<bool>(), protocol in any::<u8>(),
    ) {
        let before = Repr { ttl, ..before };
        let after = Repr {
            traffic_class: TrafficClass(class).with_ecn(Ecn::Ce),
            ttl: ttl - 1,
            total_bytes: total,
            fragment_offset_bytes: offset << 3,
            more_fragments: more,
            protocol: IpProtocol(protocol),
            ..before
        };
        let (mut changed, mut whole) = ([0; HEADER_BYTES], [0; HEADER_BYTES]);
        before.emit(&mut changed);
        after.emit(&mut whole);
        set_traffic_class(&mut changed, after.traffic_class);
        prop_assert_eq!(decrement_ttl(&mut changed), Ok(ttl - 1));
        set_total_bytes(&mut changed, total);
        set_fragment(&mut changed, offset << 3, more);
        set_protocol(&mut changed, after.protocol);
        prop_assert_eq!(changed, whole);
    }

    #[test]
    fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), ihl in 0..16u8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 0x40 | ihl;
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = packet.verify_checksum();
            prop_assert_eq!(
                packet.header.header_bytes() + packet.payload.len(),
                usize::from(packet.header.total_bytes())
            );
        }
    }
}
