//! Every kind of packet cut at every byte, through the whole walk: each has one fate, by name, and the books balance after
//! every turn (`Gateway::turn` checks them).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use std::collections::BTreeSet;

use dataplane::tables::{PortLink, VlanLink};
use southbound::{
    DropReason, Encryption, Endpoint, Mode, PolicyAction, PolicyDefault, PolicyId, PolicySpec, PortId,
    PortRole, PortSpec, ProtocolMatch, SelectorPair, Transform, Update, ValueRange, VrfId, WorkerCounter,
    XdpPreference,
};
use walk::gateway::{Gateway, LAN, WAN, port_mac};
use walk::packets::{Ip, ethernet, syn, udp};
use walk::pair::Pair;

/// What became of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Forwarded,
    Punted,
    Held,
    Dropped(DropReason),
}

use DropReason::{
    EspAlignment, EspRunt, ExtensionHeaders, FragmentInvalid, InnerMalformed, IntegrityFailed, MalformedIp,
    MalformedUdp, Truncated,
};
use Fate::{Dropped, Forwarded, Held, Punted};

fn fate(gateway: &mut Gateway, port: u32, frame: &[u8]) -> Fate {
    let counts = |gateway: &Gateway| {
        [
            WorkerCounter::Transmitted,
            WorkerCounter::ToHost,
            WorkerCounter::Held,
        ]
        .map(|counter| gateway.count(counter))
    };
    let (before, drops) = (counts(gateway), gateway.drops());
    gateway.deliver_frame(port, frame);
    gateway.turn();
    let after = counts(gateway);
    let reasons = gateway.dropped_since(&drops);
    let (_, _, _) = (
        gateway.collect_frames(LAN),
        gateway.collect_frames(WAN),
        gateway.host_got(),
    );
    match ([0, 1, 2].map(|index| after[index] - before[index]), &reasons[..]) {
        ([1, 0, 0], []) => Forwarded,
        ([0, 1, 0], []) => Punted,
        ([0, 0, 1], []) => Held,
        ([0, 0, 0], [reason]) => Dropped(*reason),
        other => panic!("not one fate: {other:?}"),
    }
}

/// The frame as if it had been made `length` bytes long: the IP header says so, and its checksum holds.
fn shortened(frame: &[u8], link_bytes: usize, length: usize) -> Vec<u8> {
    let mut frame = frame[..length].to_vec();
    let ip = &mut frame[link_bytes..];
    let total = ip.len() as u16;
    if ip[0] >> 4 == 4 {
        let header_bytes = usize::from(ip[0] & 15) * 4;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = wire::checksum::Sum::new().bytes(&ip[..header_bytes]).checksum();
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        ip[4..6].copy_from_slice(&(total - 40).to_be_bytes());
    }
    frame
}

struct Case {
    name: &'static str,
    /// Whether the far gateway gets it.
    is_at_two: bool,
    port: u32,
    link_bytes: usize,
    frame: Vec<u8>,
    whole: Fate,
    /// What else may become of it where its length is honest.
    short: &'static [Fate],
}

fn ip_case(
    name: &'static str,
    is_at_two: bool,
    port: u32,
    packet: &[u8],
    whole: Fate,
    short: &'static [Fate],
) -> Case {
    Case {
        name,
        is_at_two,
        port,
        link_bytes: 14,
        frame: ethernet(port_mac(port), packet),
        whole,
        short,
    }
}

/// Fragments of a packet: header by header, for both families.
fn fragment(packet: &[u8], from: usize, to: usize) -> Vec<u8> {
    let more = u16::from(to < packet.len());
    if packet[0] >> 4 == 4 {
        let mut piece = packet[..20].to_vec();
        piece.extend(&packet[20 + from..(20 + to).min(packet.len())]);
        let word = (more << 13) | (from / 8) as u16;
        piece[6..8].copy_from_slice(&word.to_be_bytes());
        shortened(&piece, 0, piece.len())
    } else {
        let mut piece = packet[..40].to_vec();
        piece[6] = 44;
        piece.extend([packet[6], 0]);
        piece.extend((((from / 8) as u16) << 3 | more).to_be_bytes());
        piece.extend(0x1234_5678u32.to_be_bytes());
        piece.extend(&packet[40 + from..(40 + to).min(packet.len())]);
        shortened(&piece, 0, piece.len())
    }
}

/// An ICMP error to gateway 1's outer address that quotes what it sent.
fn error_about(outer: &[u8]) -> Vec<u8> {
    if outer[0] >> 4 == 4 {
        let mut message = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
        message.extend(&outer[..28]);
        let checksum = wire::checksum::Sum::new().bytes(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Ip::new("198.51.100.1", "192.0.2.1", 1, message).bytes()
    } else {
        let mut message = vec![2, 0, 0, 0, 0, 0, 5, 0x78];
        message.extend(&outer[..60]);
        Ip::new("2001:db8:1::1", "2001:db8::1", 58, message).bytes()
    }
}

/// Both gateways have rules that look at ports, and let routes decide.
fn with_rules(pair: &mut Pair) {
    for gateway in [&mut pair.one, &mut pair.two] {
        gateway.apply(Update::PutPolicyDefault {
            vrf: VrfId::MAIN,
            default: PolicyDefault::Bypass,
        });
        for (id, any) in [(1, "0.0.0.0/0"), (2, "::/0")] {
            let mut endpoint = Endpoint::any_port(any.parse().unwrap());
            endpoint.ports = ValueRange {
                first: 60_000,
                last: 60_001,
            };
            gateway.apply(Update::PutPolicy(PolicySpec {
                id: PolicyId(id),
                vrf: VrfId::MAIN,
                priority: id,
                selector: SelectorPair {
                    local: endpoint,
                    remote: endpoint,
                    protocol: ProtocolMatch::Only(17),
                },
                action: PolicyAction::Discard,
            }));
        }
    }
}

fn vlan_case(pair: &mut Pair) -> Case {
    let id = PortId(100);
    pair.one.apply(Update::PutPort(PortSpec {
        id,
        interface: "lan.100".into(),
        role: PortRole::Protected,
        vrf: VrfId::MAIN,
        xdp: XdpPreference::Auto,
        require_zero_copy: false,
        mpls: None,
    }));
    let slot = pair.one.writer.port_slot(id).unwrap();
    pair.one.writer.set_port_link(
        slot,
        PortLink {
            mtu_bytes: 1500,
            mac: port_mac(LAN),
            up: true,
            vlan: Some(VlanLink {
                parent: PortId(LAN),
                id: 100,
            }),
        },
    );
    let plain = ethernet(port_mac(LAN), &Ip::udp("10.1.0.5", "10.2.0.5", 90).bytes());
    let frame = [&plain[..12], &[0x81, 0, 0, 100], &plain[12..]].concat();
    Case {
        name: "VLAN",
        is_at_two: false,
        port: LAN,
        link_bytes: 18,
        frame,
        whole: Forwarded,
        short: &[Forwarded, Dropped(MalformedIp)],
    }
}

/// Plain packets of the LAN: into the tunnel, or out in clear.
fn plain_cases() -> Vec<Case> {
    // A router forwards what is short behind its IP header; rules that look at ports cannot.
    const SHORT: &[Fate] = &[
        Forwarded,
        Dropped(MalformedIp),
        Dropped(ExtensionHeaders),
        Dropped(Truncated),
        Dropped(InnerMalformed),
    ];
    let mut cases = Vec::new();
    for (names, source, destination) in [
        (["IPv4 UDP", "IPv4 TCP", "IPv4 ICMP"], "10.1.0.5", "10.2.0.5"),
        (["IPv6 UDP", "IPv6 TCP", "IPv6 ICMP"], "fd01::5", "fd02::5"),
        (
            ["clear UDP", "clear TCP", "clear ICMP"],
            "10.1.0.5",
            "198.51.100.7",
        ),
    ] {
        let is_ipv6 = source.contains(':');
        let udp = Ip::udp(source, destination, 90);
        let mut tcp = Ip::new(source, destination, 6, vec![]);
        tcp.payload = syn(&tcp, 1460);
        let mut icmp = Ip::new(source, destination, if is_ipv6 { 58 } else { 1 }, vec![]);
        icmp.payload = vec![if is_ipv6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
        for (name, packet) in names.into_iter().zip([udp, tcp, icmp]) {
            cases.push(ip_case(name, false, LAN, &packet.bytes(), Forwarded, SHORT));
        }
    }
    // With options, and behind extension headers.
    let plain = Ip::udp("10.1.0.5", "10.2.0.5", 60).bytes();
    let mut options = [&plain[..20], &[1, 1, 1, 1, 1, 1, 1, 0], &plain[20..]].concat();
    options[0] = 0x47;
    let options = shortened(&options, 0, options.len());
    cases.push(ip_case("IPv4 options", false, LAN, &options, Forwarded, SHORT));
    let plain = Ip::udp("fd01::5", "fd02::5", 80).bytes();
    let mut extended = [
        &plain[..40],
        &[60, 0, 1, 4, 0, 0, 0, 0],
        &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &plain[40..],
    ]
    .concat();
    extended[6] = 0;
    let extended = shortened(&extended, 0, extended.len());
    cases.push(ip_case(
        "IPv6 extensions",
        false,
        LAN,
        &extended,
        Forwarded,
        SHORT,
    ));
    cases
}

/// ESP as gateway 2 gets it: bare and in UDP, whole and in fragments; and errors about what gateway 1 sent.
fn esp_cases(pair: &mut Pair, is_ipv6: bool, in_udp: bool) -> Vec<Case> {
    const SHORT: &[Fate] = &[
        Dropped(EspRunt),
        Dropped(EspAlignment),
        Dropped(IntegrityFailed),
        Dropped(Truncated),
        Dropped(MalformedUdp),
        Dropped(MalformedIp),
        // Of UDP to port 4500 what is too short for ESP is IKE's or a keepalive; it is the host's to tell.
        Punted,
    ];
    const SHORT_FRAGMENT: &[Fate] = &[
        Held,
        Dropped(FragmentInvalid),
        Dropped(Truncated),
        Dropped(MalformedIp),
        Dropped(ExtensionHeaders),
    ];
    const SHORT_ERROR: &[Fate] = &[
        Punted,
        // Without its type it is to us all the same.
        Dropped(Truncated),
        Dropped(MalformedIp),
    ];
    let inner = Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes();
    let mut outer = || pair.one.pass(LAN, &inner).remove(0);
    let (whole, cut, quoted) = (outer(), outer(), outer());
    let names = match (is_ipv6, in_udp) {
        (false, false) => ["ESP", "first fragment", "last fragment", "error"],
        (false, true) => ["ESP in UDP", "first of UDP", "last of UDP", "error of UDP"],
        (true, false) => [
            "ESP over IPv6",
            "first over IPv6",
            "last over IPv6",
            "error over IPv6",
        ],
        (true, true) => [
            "v6 ESP in UDP",
            "v6 first of UDP",
            "v6 last of UDP",
            "v6 error of UDP",
        ],
    };
    let end = cut.len();
    let mut cases = vec![ip_case(names[0], true, WAN, &whole, Forwarded, SHORT)];
    for (name, from, to) in [(names[1], 0, 64), (names[2], 64, end)] {
        let piece = fragment(&cut, from, to);
        cases.push(ip_case(name, true, WAN, &piece, Held, SHORT_FRAGMENT));
    }
    let error = error_about(&quoted);
    cases.push(ip_case(names[3], false, WAN, &error, Punted, SHORT_ERROR));
    cases
}

fn cut_everywhere(pair: &mut Pair, case: &Case) {
    let mut seen = BTreeSet::new();
    for length in 1..case.frame.len() {
        let gateway = if case.is_at_two {
            &mut pair.two
        } else {
            &mut pair.one
        };
        // The frame ends early, and its headers know nothing of it.
        let early = fate(gateway, case.port, &case.frame[..length]);
        assert_eq!(early, Dropped(Truncated), "{}: cut at {length}", case.name);
    }
    let ip_header_bytes = match case.frame[case.link_bytes] {
        version if version >> 4 == 6 => 40,
        first => usize::from(first & 15) * 4,
    };
    for length in case.link_bytes + ip_header_bytes..case.frame.len() {
        let gateway = if case.is_at_two {
            &mut pair.two
        } else {
            &mut pair.one
        };
        let frame = shortened(&case.frame, case.link_bytes, length);
        let short = fate(gateway, case.port, &frame);
        assert!(
            case.short.contains(&short),
            "{}: {length} bytes: {short:?}",
            case.name
        );
        seen.insert(short);
        if short == Held {
            // It waits in vain.
            gateway.pass_seconds(120);
            let before = gateway.drops();
            gateway.turn();
            let reasons = gateway.dropped_since(&before);
            assert_eq!(reasons, [DropReason::FragmentTimeout], "{}: {length}", case.name);
        }
    }
    let gateway = if case.is_at_two {
        &mut pair.two
    } else {
        &mut pair.one
    };
    assert_eq!(fate(gateway, case.port, &case.frame), case.whole, "{}", case.name);
    if case.whole == Held {
        gateway.pass_seconds(120);
        gateway.turn();
    }
    assert!(!seen.is_empty(), "{}", case.name);
}

fn pair(is_ipv6: bool, in_udp: bool) -> Pair {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    Pair::new(gcm, Mode::Tunnel, is_ipv6, in_udp, true)
}

#[test]
fn fault_40_plain_packets_with_and_without_rules() {
    for has_rules in [false, true] {
        let mut pair = pair(false, false);
        if has_rules {
            with_rules(&mut pair);
        }
        let mut cases = plain_cases();
        cases.push(vlan_case(&mut pair));
        for case in &cases {
            cut_everywhere(&mut pair, case);
        }
    }
}

#[test]
fn fault_40_esp_bare_and_in_udp_its_fragments_and_errors_about_it() {
    for is_ipv6 in [false, true] {
        for in_udp in [false, true] {
            let mut pair = pair(is_ipv6, in_udp);
            with_rules(&mut pair);
            for case in esp_cases(&mut pair, is_ipv6, in_udp) {
                cut_everywhere(&mut pair, &case);
            }
        }
    }
}

/// To the host: whatever it is, it arrives whole or is dropped by name.
#[test]
fn fault_40_packets_to_the_gateway_itself() {
    let mut pair = pair(false, false);
    for (name, payload) in [
        ("IKE", vec![0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("keepalive", vec![0xff]),
    ] {
        let mut packet = Ip::new("192.0.2.2", "192.0.2.1", 17, vec![]);
        packet.payload = udp(&packet, 4500, 4500, &payload);
        let short = &[
            Dropped(Truncated),
            Dropped(MalformedUdp),
            Dropped(MalformedIp),
            Punted,
        ];
        let case = ip_case(name, false, WAN, &packet.bytes(), Punted, short);
        cut_everywhere(&mut pair, &case);
    }
}
