use super::*;
use crate::fragment::Fragmenter;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::{Ecn, Fragment, TrafficClass};

const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn v4(id: u16, offset_bytes: u16, more: bool, class: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 20][..], payload].concat();
    ipv4::Repr {
        traffic_class: TrafficClass(class),
        total_bytes: bytes.len() as u16,
        identification: id,
        dont_fragment: false,
        more_fragments: more,
        fragment_offset_bytes: offset_bytes,
        ttl: 60,
        protocol: IpProtocol::ESP,
        source: A4,
        destination: B4,
    }
    .emit(bytes.first_chunk_mut().unwrap());
    bytes
}

/// With `before`, extension headers the first of which is destination options and the last names the fragment header.
fn v6(id: u32, offset_bytes: u16, more: bool, before: &[u8], next: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 40][..], before, &[0; 8], payload].concat();
    ipv6::Repr {
        traffic_class: TrafficClass(2),
        flow_label: 0x1_2345,
        payload_bytes: (bytes.len() - 40) as u16,
        next_header: if before.is_empty() {
            IpProtocol::FRAGMENT
        } else {
            IpProtocol::DESTINATION_OPTIONS
        },
        hop_limit: 60,
        source: A6,
        destination: B6,
    }
    .emit(bytes.first_chunk_mut().unwrap());
    let fragment = Fragment {
        identification: id,
        offset_bytes,
        more,
    };
    let head = bytes[40 + before.len()..].first_chunk_mut().unwrap();
    ipv6::emit_fragment(next, fragment, head);
    bytes
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 253) as u8).collect()
}

fn small() -> Reassembly {
    Reassembly::new(Limits {
        slots: 4,
        datagram_bytes: 4000,
        held_bytes: 10_000,
        ..Limits::default()
    })
}

/// Held, whole, or refused; for comparing.
fn push(table: &mut Reassembly, packet: &[u8], now_ns: u64) -> Result<Option<Vec<u8>>, Error> {
    table
        .push(packet, now_ns)
        .map(|whole| whole.map(|whole| whole.packet.to_vec()))
}

#[test]
fn fault_56_fragments_of_esp_come_together_in_any_order() {
    let whole = v4(7, 0, false, 0, &data(2000));
    let fragmenter = Fragmenter::new(&whole, 700).unwrap();
    let pieces: Vec<Vec<u8>> = (0..fragmenter.count())
        .map(|index| {
            let mut out = vec![0; 700];
            let length = fragmenter.write(index, &mut out).unwrap();
            out.truncate(length);
            out
        })
        .collect();
    assert_eq!(pieces.len(), 3);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut table = small();
        assert_eq!(push(&mut table, &pieces[order[0]], 0), Ok(None));
        assert_eq!(push(&mut table, &pieces[order[1]], 1), Ok(None));
        assert_eq!(table.held_packets(), 2);
        let result = table.push(&pieces[order[2]], 2).unwrap().unwrap();
        assert_eq!(
            (result.packet, result.fragments_packets),
            (&whole[..], 3),
            "{order:?}"
        );
        assert_eq!((table.held_packets(), table.held_bytes()), (0, 0));
        assert_eq!(table.take_discarded(), Discarded::default());
    }
}

#[test]
fn fault_57_extension_headers_before_and_behind_the_fragment_header() {
    // Destination options of 16 bytes before the fragment header, of 8 behind it.
    let before = [44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let payload = [&[50, 0, 1, 4, 0, 0, 0, 0][..], &data(100)].concat();
    let behind = IpProtocol::DESTINATION_OPTIONS;
    for before in [&before[..], &[]] {
        let mut table = small();
        let last = v6(9, 64, false, before, behind, &payload[64..]);
        assert_eq!(push(&mut table, &last, 0), Ok(None));
        let first = v6(9, 0, true, before, behind, &payload[..64]);
        let whole = push(&mut table, &first, 0).unwrap().unwrap();
        let packet = ipv6::Packet::parse(&whole).unwrap();
        assert_eq!(packet.bytes().len(), whole.len());
        assert_eq!(packet.header.flow_label(), 0x1_2345);
        let upper = packet.upper().unwrap();
        assert_eq!((upper.protocol, upper.fragment), (IpProtocol::ESP, None));
        assert_eq!(whole[40 + before.len()..], payload);
    }
}

#[test]
fn fault_56_an_atomic_fragment_waits_for_nobody() {
    let mut table = small();
    // Another datagram of the same identification is not touched (RFC 6946 section 4).
    assert_eq!(
        push(&mut table, &v6(9, 64, true, &[], IpProtocol::ESP, &data(64)), 0),
        Ok(None)
    );
    let whole = push(&mut table, &v6(9, 0, false, &[], IpProtocol::ESP, &data(30)), 0)
        .unwrap()
        .unwrap();
    let packet = ipv6::Packet::parse(&whole).unwrap();
    assert_eq!(
        (packet.header.next_header(), packet.payload),
        (IpProtocol::ESP, &data(30)[..])
    );
    assert_eq!(table.held_packets(), 1);
}

#[test]
fn fault_56_an_overlap_spoils_the_datagram() {
    let bytes = data(96);
    for (offset, more, payload) in [
        (0, true, &bytes[..40]),    // covers the first and more
        (24, true, &bytes[24..48]), // reaches into both
        (0, true, &data(33)[1..]),  // the same place, other bytes
        (64, true, &bytes[64..96]), // beyond the end that the last one told
        (40, false, &bytes[40..48]),
    ] {
        let mut table = small();
        assert_eq!(push(&mut table, &v4(1, 0, true, 0, &bytes[..32]), 0), Ok(None));
        assert_eq!(
            push(&mut table, &v4(1, 48, false, 0, &bytes[48..64]), 0),
            Ok(None)
        );
        assert_eq!(
            push(&mut table, &v4(1, offset, more, 0, payload), 0),
            Err(Error::Overlap),
            "{offset}"
        );
        assert_eq!(
            table.take_discarded(),
            Discarded {
                spoiled_packets: 2,
                ..Discarded::default()
            }
        );
        assert_eq!((table.held_packets(), table.held_bytes()), (0, 0));
        // What would have completed it is refused, but not for ever.
        assert_eq!(
            push(&mut table, &v4(1, 32, true, 0, &bytes[32..48]), 1),
            Err(Error::Spoiled)
        );
        assert_eq!(
            push(&mut table, &v4(1, 32, true, 0, &bytes[32..48]), SPOILED_V4_NS),
            Ok(None)
        );
    }
}

#[test]
fn fault_56_an_earlier_end_spoils_the_datagram() {
    let mut table = small();
    assert_eq!(push(&mut table, &v4(1, 64, true, 0, &data(32)), 0), Ok(None));
    assert_eq!(
        push(&mut table, &v4(1, 32, false, 0, &data(8)), 0),
        Err(Error::Overlap)
    );
}

#[test]
fn fault_56_the_same_fragment_twice_is_dropped_alone() {
    let bytes = data(64);
    let mut table = small();
    let (first, last) = (v4(1, 0, true, 0, &bytes[..32]), v4(1, 32, false, 0, &bytes[32..]));
    assert_eq!(push(&mut table, &first, 0), Ok(None));
    assert_eq!(push(&mut table, &first, 0), Err(Error::Duplicate));
    assert_eq!(push(&mut table, &last, 0), Ok(Some(v4(1, 0, false, 0, &bytes))));
}

#[test]
fn fault_56_tiny_first_fragments_are_refused() {
    let mut table = small();
    assert_eq!(
        push(&mut table, &v4(1, 0, true, 0, &data(8)), 0),
        Err(Error::TinyFirst)
    );
    assert_eq!(push(&mut table, &v4(1, 0, true, 0, &data(16)), 0), Ok(None));
    let mut tcp = v4(2, 0, true, 0, &data(16));
    ipv4::set_protocol(tcp.first_chunk_mut().unwrap(), IpProtocol::TCP);
    assert_eq!(push(&mut table, &tcp, 0), Err(Error::TinyFirst));
    // IPv6: a chain of headers that does not end in the first fragment, or ends without the upper header.
    let options = IpProtocol::DESTINATION_OPTIONS;
    let chain = [50, 1, 1, 12, 0, 0, 0, 0];
    assert_eq!(
        push(&mut table, &v6(1, 0, true, &[], options, &chain), 0),
        Err(Error::TinyFirst)
    );
    let chain = [50, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(
        push(&mut table, &v6(1, 0, true, &[], options, &chain), 0),
        Err(Error::TinyFirst)
    );
    assert_eq!(table.held_packets(), 1);
}

#[test]
fn fault_56_the_table_is_bounded_and_the_newest_win() {
    let mut table = small();
    for id in 0..4 {
        assert_eq!(
            push(&mut table, &v4(id, 0, true, 0, &data(64)), u64::from(id)),
            Ok(None)
        );
    }
    assert_eq!(push(&mut table, &v4(4, 0, true, 0, &data(64)), 4), Ok(None));
    assert_eq!(
        table.take_discarded(),
        Discarded {
            evicted_packets: 1,
            ..Discarded::default()
        }
    );
    assert_eq!(table.held_packets(), 4);
    // Number 0 was the oldest; 1 is still there.
    assert!(
        push(&mut table, &v4(1, 64, false, 0, &data(8)), 5)
            .unwrap()
            .is_some()
    );

    // A flood of first fragments: the honest datagram in its midst comes through.
    for id in 1000..2000 {
        let _ = push(&mut table, &v4(id, 0, true, 0, &data(512)), 6);
        assert!(table.held_packets() <= 4 && table.held_bytes() <= 10_000);
    }
    assert_eq!(push(&mut table, &v4(7, 0, true, 0, &data(64)), 7), Ok(None));
    assert_eq!(push(&mut table, &v4(3000, 0, true, 0, &data(512)), 8), Ok(None));
    assert!(
        push(&mut table, &v4(7, 64, false, 0, &data(8)), 9)
            .unwrap()
            .is_some()
    );
}

#[test]
fn fault_56_bytes_are_bounded() {
    let mut table = Reassembly::new(Limits {
        slots: 4,
        datagram_bytes: 4000,
        held_bytes: 3000,
        ..Limits::default()
    });
    assert_eq!(push(&mut table, &v4(1, 0, true, 0, &data(1600)), 1), Ok(None));
    assert_eq!(push(&mut table, &v4(2, 0, true, 0, &data(1600)), 2), Ok(None));
    assert_eq!(
        table.take_discarded(),
        Discarded {
            evicted_packets: 1,
            ..Discarded::default()
        }
    );
    assert_eq!(table.held_bytes(), 1600);
    assert_eq!(
        push(&mut table, &v4(2, 1600, true, 0, &data(1600)), 3),
        Err(Error::Full)
    );
    assert_eq!(
        table.take_discarded(),
        Discarded {
            evicted_packets: 1,
            ..Discarded::default()
        }
    );
    assert_eq!((table.held_packets(), table.held_bytes()), (0, 0));
}

#[test]
fn fault_56_the_rest_never_comes() {
    let mut table = small();
    assert_eq!(push(&mut table, &v4(1, 0, true, 0, &data(64)), 0), Ok(None));
    assert_eq!(
        push(&mut table, &v6(1, 0, true, &[], IpProtocol::ESP, &data(64)), 0),
        Ok(None)
    );
    table.expire(30 * NS_PER_S - 1);
    assert_eq!(table.held_packets(), 2);
    table.expire(30 * NS_PER_S);
    assert_eq!(
        table.take_discarded(),
        Discarded {
            timed_out_packets: 1,
            ..Discarded::default()
        }
    );
    // A push does it too: what comes too late begins anew.
    let last = v6(1, 64, false, &[], IpProtocol::ESP, &data(8));
    assert_eq!(push(&mut table, &last, 60 * NS_PER_S), Ok(None));
    assert_eq!(
        table.take_discarded(),
        Discarded {
            timed_out_packets: 1,
            ..Discarded::default()
        }
    );
}

#[test]
fn fault_58_a_datagram_beyond_the_limit_is_refused() {
    let mut table = small();
    assert_eq!(push(&mut table, &v4(1, 0, true, 0, &data(2000)), 0), Ok(None));
    assert_eq!(
        push(&mut table, &v4(1, 2000, false, 0, &data(2001)), 0),
        Err(Error::TooLong)
    );
    assert_eq!(
        table.take_discarded(),
        Discarded {
            spoiled_packets: 1,
            ..Discarded::default()
        }
    );
    // The payload fits, the header makes it too long.
    assert_eq!(push(&mut table, &v4(2, 0, true, 0, &data(2000)), 0), Ok(None));
    assert_eq!(
        push(&mut table, &v4(2, 2000, false, 0, &data(1990)), 0),
        Err(Error::TooLong)
    );
    assert_eq!(
        table.take_discarded(),
        Discarded {
            spoiled_packets: 1,
            ..Discarded::default()
        }
    );
    assert_eq!((table.held_packets(), table.held_bytes()), (0, 0));
    // Beyond what IP has numbers for.
    assert_eq!(
        push(&mut table, &v4(3, 65_528, false, 0, &data(9)), 0),
        Err(Error::TooLong)
    );
}

#[test]
fn fault_56_lengths_that_lie() {
    let mut table = small();
    assert_eq!(
        push(&mut table, &v4(1, 0, true, 0, &data(33)), 0),
        Err(Error::BadLength)
    );
    assert_eq!(
        push(&mut table, &v4(1, 8, false, 0, &[]), 0),
        Err(Error::BadLength)
    );
    assert_eq!(
        push(&mut table, &v4(1, 0, false, 0, &data(33)), 0),
        Err(Error::NotAFragment)
    );
    assert_eq!(push(&mut table, &[], 0), Err(Error::BadHeader));
    let mut wrong = v4(1, 0, true, 0, &data(32));
    wrong[10] ^= 1;
    assert_eq!(push(&mut table, &wrong, 0), Err(Error::BadHeader));
    let fragment = v6(1, 8, true, &[44, 0, 1, 4, 0, 0, 0, 0], IpProtocol::ESP, &data(32));
    for length in 0..fragment.len() {
        assert_eq!(
            push(&mut table, &fragment[..length], 0),
            Err(Error::BadHeader),
            "{length}"
        );
    }
    assert_eq!(table.held_packets(), 0);
}

#[test]
fn congestion_survives_and_is_not_invented() {
    let (not_ect, ect0, ce) = (Ecn::NotEct as u8, Ecn::Ect0 as u8, Ecn::Ce as u8);
    for (first, last, expected) in [
        (ect0, ect0, Ok(Ecn::Ect0)),
        (ect0, ce, Ok(Ecn::Ce)),
        (ce, ect0, Ok(Ecn::Ce)),
        (not_ect, not_ect, Ok(Ecn::NotEct)),
        (not_ect, ce, Err(Error::EcnMixed)),
    ] {
        let mut table = small();
        assert_eq!(push(&mut table, &v4(1, 0, true, first, &data(32)), 0), Ok(None));
        let whole = push(&mut table, &v4(1, 32, false, last, &data(8)), 0).map(|whole| {
            let whole = whole.unwrap();
            let packet = ipv4::Packet::parse(&whole).unwrap();
            assert_eq!(packet.verify_checksum(), Ok(()));
            packet.header.traffic_class().ecn()
        });
        assert_eq!(whole, expected);
        assert_eq!(table.held_packets(), 0);
    }
}

/// What a slot held before must not be taken for what it holds now.
#[test]
fn a_slot_forgets_its_last_datagram() {
    let bytes = data(80);
    let mut table = small();
    assert_eq!(push(&mut table, &v4(1, 0, true, 0, &bytes[..64]), 0), Ok(None));
    assert!(
        push(&mut table, &v4(1, 64, false, 0, &bytes[64..]), 0)
            .unwrap()
            .is_some()
    );
    // The new datagram ends at 63; a fragment that ends at 64 is not the same, though its 64th byte still lies there.
    assert_eq!(
        push(&mut table, &v4(1, 16, false, 0, &bytes[16..63]), 0),
        Ok(None)
    );
    assert_eq!(
        push(&mut table, &v4(1, 48, false, 0, &bytes[48..64]), 0),
        Err(Error::Overlap)
    );
}

/// Byte by byte, in a map, without bounds: slow and plain.
#[derive(Default)]
struct ModelDatagram {
    bytes: Vec<Option<u8>>,
    end: Option<usize>,
    packets: u32,
}

#[derive(Default)]
struct Model {
    datagrams: HashMap<u16, ModelDatagram>,
    spoiled: Vec<u16>,
}

impl Model {
    fn push(&mut self, id: u16, start: usize, more: bool, payload: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if self.spoiled.contains(&id) {
            return Err(Error::Spoiled);
        }
        let ModelDatagram { bytes, end, packets } = self.datagrams.entry(id).or_default();
        let stop = start + payload.len();
        if bytes.len() < stop {
            bytes.resize(stop, None);
        }
        let there = &bytes[start..stop];
        let ends_elsewhere = match *end {
            Some(end) => stop > end || !more && stop != end,
            None => !more && bytes[stop..].iter().any(Option::is_some),
        };
        if there.iter().any(Option::is_some) || ends_elsewhere || (!more && end.is_some()) {
            let same = there.iter().zip(payload).all(|(there, new)| *there == Some(*new));
            let says_the_same = if more {
                end.is_none_or(|end| stop < end)
            } else {
                *end == Some(stop)
            };
            if same && says_the_same {
                return Err(Error::Duplicate);
            }
            self.datagrams.remove(&id);
            self.spoiled.push(id);
            return Err(Error::Overlap);
        }
        for (to, byte) in bytes[start..stop].iter_mut().zip(payload) {
            *to = Some(*byte);
        }
        *packets += 1;
        if !more {
            *end = Some(stop);
        }
        let whole = end.and_then(|end| bytes[..end].iter().copied().collect::<Option<Vec<u8>>>());
        if whole.is_some() {
            self.datagrams.remove(&id);
        }
        Ok(whole)
    }

    fn held_packets(&self) -> u64 {
        self.datagrams
            .values()
            .map(|datagram| u64::from(datagram.packets))
            .sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Fragments of three datagrams, honest and not, in any order: the table says what the model says, and every
    /// fragment is accounted for.
    #[test]
    fn fault_56_equals_the_slow_model(
        pieces in proptest::collection::vec(
            (0..3u16, 0..8usize, 1..5usize, any::<bool>(), prop::bool::weighted(0.1), 0..8usize), 1..40),
    ) {
        let mut table = small();
        let mut model = Model::default();
        let mut accounted = 0;
        for (id, unit, units, more, altered, cut) in &pieces {
            let start = unit * 16;
            let mut payload = data(1000)[start..start + units * 16].to_vec();
            if *altered {
                payload[0] ^= 1;
            }
            if !more {
                payload.truncate(payload.len() - cut);
            }
            if !more && start == 0 {
                continue; // Not a fragment.
            }
            let expected = model.push(*id, start, *more, &payload);
            let result = table.push(&v4(*id, start as u16, *more, 0, &payload), 0);
            match &result {
                Ok(None) => {}
                Ok(Some(whole)) => accounted += u64::from(whole.fragments_packets),
                Err(_) => accounted += 1,
            }
            let result = result.map(|whole| whole.map(|whole| whole.packet[20..].to_vec()));
            prop_assert_eq!(result, expected);
            prop_assert_eq!(table.held_packets(), model.held_packets());
        }
        let discarded = table.take_discarded();
        let pushed = pieces.iter().filter(|(_, unit, _, more, _, _)| *more || *unit != 0).count() as u64;
        prop_assert_eq!(pushed, accounted + discarded.spoiled_packets + table.held_packets());
    }

    /// Any bytes, any pace, a table of two slots: bounded, accounted for, never a panic.
    #[test]
    fn fault_56_stays_bounded(
        packets in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..120), any::<bool>(), 0..3u32, 0..6u16, any::<bool>(), 0..20u64),
            0..60),
    ) {
        let limits = Limits { slots: 2, datagram_bytes: 300, held_bytes: 250, ..Limits::default() };
        let mut table = Reassembly::new(limits);
        let (mut now_ns, mut pushed, mut accounted) = (0, 0, 0);
        for (payload, six, id, unit, more, seconds) in packets {
            now_ns += seconds * NS_PER_S;
            let offset = unit * 24;
            let packet = if six {
                v6(id, offset, more, &[], IpProtocol::ESP, &payload)
            } else {
                v4(id as u16, offset, more, 0, &payload)
            };
            pushed += 1;
            match table.push(&packet, now_ns) {
                Ok(None) => {}
                Ok(Some(whole)) => {
                    prop_assert!(whole.packet.len() <= 300);
                    accounted += u64::from(whole.fragments_packets);
                }
                Err(_) => accounted += 1,
            }
            prop_assert!(table.held_bytes() <= 250);
            let gone = table.take_discarded();
            accounted += gone.timed_out_packets + gone.evicted_packets + gone.spoiled_packets;
            prop_assert_eq!(pushed, accounted + table.held_packets());
        }
        table.expire(u64::MAX);
        prop_assert_eq!((table.held_packets(), table.held_bytes()), (0, 0));
    }
}
