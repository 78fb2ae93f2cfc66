//! The decision about any frame: what is taken is held against `wire`'s slice parsers, which walk on their own.
//!
//! Input: one octet of roles (low half: untagged frames, high half: VLANs), then the frame.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ebpf::classify::{Steering, classify};
use ebpf::maps::{Local, Role, VlanKey};
use ebpf::verdict::{Drop, Pass, Redirect, Verdict};
use libfuzzer_sys::fuzz_target;
use wire::{EtherType, IpProtocol, MacAddr, SliceCursor, ethernet, ipv4, ipv6};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);

struct Port {
    role: Role,
    vlan_role: Role,
}

impl Steering for Port {
    fn mac(&self) -> MacAddr {
        MAC
    }
    fn role(&self) -> Role {
        self.role
    }
    fn vlan_role(&self, vlan: VlanKey) -> Role {
        assert_ne!(
            vlan,
            VlanKey::default(),
            "untagged frames and priority tags are never looked up"
        );
        self.vlan_role
    }
    fn local_v4(&self, address: Ipv4Addr) -> Local {
        if address == LOCAL_V4 { Local::TUNNEL_END } else { Local::NONE }
    }
    fn local_v6(&self, address: Ipv6Addr) -> Local {
        if address == LOCAL_V6 { Local::TUNNEL_END } else { Local::NONE }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&roles, frame)) = data.split_first() else {
        return;
    };
    let port = Port {
        role: Role(u32::from(roles & 0x0f)),
        vlan_role: Role(u32::from(roles >> 4)),
    };
    let verdict = classify(SliceCursor::new(frame), &port);
    check(frame, &port, verdict);

    // What a shorter frame is taken for, the longer one is too, but for an error about IKE, whose marker shows late.
    let shorter = classify(SliceCursor::new(&frame[..frame.len() / 2]), &port);
    if shorter != Verdict::Pass(Pass::Malformed) && verdict != Verdict::Pass(Pass::Ike) {
        assert_eq!(shorter, verdict);
    }
    // A port without a role takes and drops nothing.
    let nothing = Port {
        role: Role::NONE,
        vlan_role: Role::NONE,
    };
    assert!(matches!(
        classify(SliceCursor::new(frame), &nothing),
        Verdict::Pass(_)
    ));
});

fn check(frame: &[u8], port: &Port, verdict: Verdict) {
    let why = match verdict {
        Verdict::Pass(_) => return,
        Verdict::Drop(why) => {
            assert!(why == Drop::MartianSource || why == Drop::NatKeepalive);
            return;
        }
        Verdict::Redirect(why) => why,
    };
    let mut cursor = SliceCursor::new(frame);
    let header = ethernet::Header::parse(&mut cursor).expect("it was read");
    assert_eq!(header.destination(), MAC);
    let is_tagged = [header.outer_tag, header.inner_tag]
        .iter()
        .flatten()
        .any(|tag| tag.vid() != 0);
    let role = if is_tagged { port.vlan_role } else { port.role };
    if header.ether_type == EtherType::MPLS {
        assert!(why == Redirect::Mpls && role.has(Role::MPLS));
        return;
    }
    let packet = Packet::parse(header.ether_type, &mut cursor);
    if why == Redirect::Transit {
        assert!(role.has(Role::PROTECTED) && !packet.is_local());
        match packet.destination {
            IpAddr::V4(address) => assert!(
                !address.is_multicast()
                    && !address.is_loopback()
                    && !address.is_link_local()
                    && !address.is_broadcast()
            ),
            IpAddr::V6(address) => {
                assert!(!address.is_multicast() && !address.is_loopback() && !address.is_unicast_link_local())
            }
        }
        return;
    }
    assert!(
        packet.is_local() && role.has_any(Role::INTERNET.with(Role::TUNNELS)),
        "{why:?}"
    );
    match why {
        Redirect::Esp => assert!(packet.is_whole(IpProtocol::ESP) && role.has(Role::INTERNET)),
        Redirect::EspInUdp => assert!(packet.is_whole(IpProtocol::UDP) && role.has(Role::INTERNET)),
        Redirect::IcmpError => {
            assert!(packet.is_whole(IpProtocol::ICMP) || packet.is_whole(IpProtocol::ICMPV6))
        }
        Redirect::Fragment => assert!(packet.is_fragment),
        Redirect::Tunnel => assert!(!packet.is_fragment && role.has(Role::TUNNELS)),
        Redirect::Transit | Redirect::Mpls => unreachable!(),
    }
}

/// What `wire` says of the packet.
struct Packet {
    destination: IpAddr,
    protocol: IpProtocol,
    is_fragment: bool,
}

impl Packet {
    fn parse(ether_type: EtherType, cursor: &mut SliceCursor<'_>) -> Self {
        if ether_type == EtherType::IPV4 {
            let header = ipv4::Header::parse(cursor).expect("it was read");
            Self {
                destination: header.destination().into(),
                protocol: header.protocol(),
                is_fragment: header.is_fragment(),
            }
        } else {
            assert_eq!(ether_type, EtherType::IPV6);
            let header = ipv6::Header::parse(cursor).expect("it was read");
            // Transit is not walked, so it may be anything.
            let upper = ipv6::walk_extensions(cursor, header.next_header()).ok();
            let fragment = upper.and_then(|upper| upper.fragment);
            Self {
                destination: header.destination().into(),
                protocol: upper.map_or(IpProtocol::NO_NEXT_HEADER, |upper| upper.protocol),
                is_fragment: fragment.is_some_and(|fragment| !fragment.is_atomic()),
            }
        }
    }

    fn is_local(&self) -> bool {
        self.destination == IpAddr::V4(LOCAL_V4) || self.destination == IpAddr::V6(LOCAL_V6)
    }

    fn is_whole(&self, protocol: IpProtocol) -> bool {
        !self.is_fragment && self.protocol == protocol
    }
}
