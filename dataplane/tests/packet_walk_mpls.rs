//! Label operations, one by one: what arrives, what leaves, entry by entry.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{
    ClassMapId, ClassMapSpec, IlmSpec, LabelOperation, LabelSpaceId, NextHop, Nhlfe, PopClass, PushClass,
    Status, TtlModel, Update, VrfId, WorkerCounter,
};
use walk::gateway::{Gateway, neighbour_mac, port_mac};
use walk::packets::Ip;
use walk::provider::{
    CUSTOMER_A, CUSTOMER_B, EAST, HERE, THERE, VRF_A, WEST, entries, forward, ilm, label, labelled, lookup,
    nhlfe, router,
};
use wire::Lse;

/// A customer's packet from the other site to this one, and the reverse, of each family.
fn inbound(family: usize, hops: u8) -> Ip {
    Ip {
        hops,
        ..Ip::udp(THERE[family], HERE[family], 200)
    }
}

fn outbound(family: usize, hops: u8) -> Ip {
    Ip {
        hops,
        ..Ip::udp(HERE[family], THERE[family], 200)
    }
}

fn with_hops(packet: &Ip, hops: u8) -> Vec<u8> {
    Ip {
        hops,
        ..packet.clone()
    }
    .bytes()
}

const ETHER_TYPE: [u16; 2] = [0x0800, 0x86dd];

#[test]
fn a_label_is_swapped_and_nothing_else_changes() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200], EAST)));
    for family in [0, 1] {
        let packet = inbound(family, 9).bytes();
        let mut stack = entries(&[(100, 64), (5000, 33)]);
        stack[0].traffic_class = 5;
        router.deliver_labelled(WEST, &labelled(&stack, &packet));
        router.turn();
        let frames = router.collect_frames(EAST);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0][..6], neighbour_mac(EAST));
        assert_eq!(frames[0][6..12], port_mac(EAST));
        stack[0] = Lse {
            label: wire::Label::new(200).unwrap(),
            ttl: 63,
            ..stack[0]
        };
        assert_eq!(
            frames[0][12..],
            [&[0x88, 0x47], &labelled(&stack, &packet)[..]].concat()
        );
    }
    assert_eq!(router.count(WorkerCounter::MplsSwap), 2);
    let Status::Label(status) = router.writer.label_status().remove(0) else {
        panic!("a label");
    };
    let bytes = 8 + 200;
    assert_eq!((status.packets, status.bytes), (2, 2 * bytes));
}

#[test]
fn the_greatest_and_the_least_label_have_entries() {
    let mut router = router();
    let greatest = (1 << 20) - 1;
    router.apply(forward(16, nhlfe(&[greatest], EAST)));
    router.apply(forward(greatest, nhlfe(&[16], EAST)));
    let packet = inbound(0, 9).bytes();
    for (from, to) in [(16, greatest), (greatest, 16)] {
        let left = router.pass_labelled(WEST, &labelled(&entries(&[(from, 64)]), &packet), EAST);
        assert_eq!(left[0].labels(), [(to, 63)]);
        assert!(left[0].entries[0].bottom);
    }
    router.apply(Update::RemoveIlm {
        space: LabelSpaceId::PLATFORM,
        label: label(16),
    });
    let left = router.pass_labelled(WEST, &labelled(&entries(&[(16, 64)]), &packet), EAST);
    assert!(left.is_empty());
    assert_eq!(router.drops(), [(southbound::DropReason::LabelUnknown, 1)]);
}

#[test]
fn up_to_eight_labels_are_pushed_on_a_packet() {
    let mut router = router();
    for depth in 1..=8u32 {
        let labels: Vec<u32> = (0..depth).map(|place| 1000 + place).collect();
        for (family, prefix) in ["192.168.102.0/24", "fd00:102::/64"].iter().enumerate() {
            router.route_in(VRF_A, prefix, vec![NextHop::Labelled(nhlfe(&labels, WEST))]);
            let packet = outbound(family, 64);
            let left = router.pass_to(CUSTOMER_A, &packet.bytes(), WEST);
            assert_eq!(left.len(), 1, "{depth} labels");
            assert_eq!(left[0].ether_type, 0x8847);
            let expected: Vec<_> = labels.iter().map(|label| (*label, 63)).collect();
            assert_eq!(left[0].labels(), expected);
            assert!(left[0].entries.iter().rev().skip(1).all(|entry| !entry.bottom));
            assert_eq!(left[0].packet, with_hops(&packet, 63));
        }
    }
    assert_eq!(router.count(WorkerCounter::MplsPush), 2 * 36);
}

#[test]
fn a_route_bound_to_implicit_null_has_no_label() {
    let mut router = router();
    router.route_in(
        VRF_A,
        "192.168.102.0/24",
        vec![NextHop::Labelled(nhlfe(&[3], WEST))],
    );
    let packet = outbound(0, 64);
    let left = router.pass_to(CUSTOMER_A, &packet.bytes(), WEST);
    assert_eq!(
        (left[0].ether_type, left[0].packet.clone()),
        (0x0800, with_hops(&packet, 63))
    );
}

#[test]
fn a_label_is_swapped_and_others_are_pushed_on_it() {
    let mut router = router();
    for (ttl, expected) in [
        (TtlModel::Uniform, [(300, 29), (301, 29), (302, 29), (77, 5)]),
        (TtlModel::Pipe(200), [(300, 200), (301, 200), (302, 29), (77, 5)]),
    ] {
        let hop = Nhlfe {
            ttl,
            class: PushClass::Set(6),
            ..nhlfe(&[300, 301, 302], EAST)
        };
        router.apply(forward(100, hop));
        let mut stack = entries(&[(100, 30), (77, 5)]);
        stack[0].traffic_class = 2;
        let packet = inbound(0, 9).bytes();
        let left = router.pass_labelled(WEST, &labelled(&stack, &packet), EAST);
        assert_eq!(left[0].labels(), expected);
        let classes: Vec<_> = left[0].entries.iter().map(|entry| entry.traffic_class).collect();
        assert_eq!(classes, [6, 6, 2, 0]);
        assert_eq!(left[0].packet, packet);
    }
}

#[test]
fn the_penultimate_hop_pops() {
    let mut router = router();
    for (ttl, label_ttl, hops, expected) in [
        // The label's TTL goes on in the packet, where it is less.
        (TtlModel::Uniform, 10, 64, 9),
        (TtlModel::Uniform, 200, 64, 64),
        // The packet's TTL is taken at the end of the LSP, which is one hop on.
        (TtlModel::Pipe(255), 10, 64, 64),
    ] {
        router.apply(Update::PutIlm(IlmSpec {
            ttl,
            ..ilm(
                100,
                LabelOperation::Forward {
                    next_hops: vec![nhlfe(&[], EAST)],
                    weights: vec![],
                },
            )
        }));
        for family in [0, 1] {
            let packet = inbound(family, hops);
            let left = router.pass_labelled(
                WEST,
                &labelled(&entries(&[(100, label_ttl)]), &packet.bytes()),
                EAST,
            );
            assert_eq!(left.len(), 1);
            assert_eq!(left[0].ether_type, ETHER_TYPE[family]);
            assert_eq!(
                left[0].packet,
                with_hops(&packet, expected),
                "{ttl:?} {label_ttl}"
            );
        }
        // What is beneath another label goes on under that one.
        let packet = inbound(0, hops).bytes();
        let stack = entries(&[(100, label_ttl), (77, 50)]);
        let left = router.pass_labelled(WEST, &labelled(&stack, &packet), EAST);
        let beneath = if ttl == TtlModel::Uniform {
            50.min(label_ttl - 1)
        } else {
            50
        };
        assert_eq!(left[0].labels(), [(77, beneath)]);
        assert_eq!(left[0].packet, packet);
    }
    assert_eq!(router.count(WorkerCounter::MplsPop), 9);
}

#[test]
fn popped_and_routed_in_the_labels_table() {
    let mut router = router();
    for (ttl, label_ttl, hops, expected) in [
        (TtlModel::Uniform, 10, 64, 9),
        (TtlModel::Uniform, 200, 64, 63),
        (TtlModel::Pipe(255), 10, 64, 63),
    ] {
        router.apply(Update::PutIlm(IlmSpec {
            ttl,
            ..ilm(500, LabelOperation::PopAndLookup(VRF_A))
        }));
        for family in [0, 1] {
            let packet = inbound(family, hops);
            let frame = labelled(&entries(&[(500, label_ttl)]), &packet.bytes());
            let left = router.pass_labelled(WEST, &frame, CUSTOMER_A);
            assert_eq!(left.len(), 1);
            assert_eq!(left[0].ether_type, ETHER_TYPE[family]);
            assert_eq!(
                left[0].packet,
                with_hops(&packet, expected),
                "{ttl:?} {label_ttl}"
            );
            assert!(router.left(CUSTOMER_B).is_empty());
        }
    }
    let vrfs: Vec<_> = router
        .writer
        .vrf_status()
        .into_iter()
        .filter_map(|status| match status {
            Status::Vrf(vrf) if vrf.vrf == VRF_A => Some((vrf.packets, vrf.bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(vrfs, [(6, 6 * 200)]);
}

#[test]
fn the_label_of_a_next_hop_leads_to_it_whatever_the_routes_say() {
    let mut router = router();
    let via = southbound::LabelVia::Port {
        port: southbound::PortId(CUSTOMER_A),
        gateway: HERE[0].parse().unwrap(),
    };
    let hop = Nhlfe::new(southbound::LabelStack::EMPTY, via);
    router.apply(Update::PutIlm(IlmSpec {
        ttl: TtlModel::Pipe(255),
        ..ilm(
            600,
            LabelOperation::Forward {
                next_hops: vec![hop],
                weights: vec![],
            },
        )
    }));
    let packet = Ip::udp(THERE[0], "198.18.0.1", 100);
    let left = router.pass_labelled(
        WEST,
        &labelled(&entries(&[(600, 10)]), &packet.bytes()),
        CUSTOMER_A,
    );
    // Here the LSP ends: the packet's own TTL is taken.
    assert_eq!(left[0].packet, with_hops(&packet, 63));
}

#[test]
fn transport_label_and_vpn_label_end_here_together() {
    let mut router = router();
    router.apply(lookup(500, VRF_A));
    router.apply(Update::PutIlm(ilm(100, LabelOperation::Pop)));
    let packet = inbound(0, 64);
    let frame = labelled(&entries(&[(100, 40), (500, 60)]), &packet.bytes());
    let left = router.pass_labelled(WEST, &frame, CUSTOMER_A);
    // One hop in all.
    assert_eq!(left[0].packet, with_hops(&packet, 39));
    // Without a label beneath it the packet is one of the port's own table.
    let packet = Ip::udp("172.16.2.2", "172.16.3.2", 100);
    let left = router.pass_labelled(WEST, &labelled(&entries(&[(100, 40)]), &packet.bytes()), EAST);
    assert_eq!(left[0].packet, with_hops(&packet, 39));
}

#[test]
fn explicit_null_is_popped_alone_and_above_others() {
    let mut router = router();
    router.apply(lookup(500, VRF_A));
    for (family, null) in [(0, 0), (1, 2)] {
        let packet = if family == 0 {
            Ip::udp("172.16.2.2", "172.16.3.2", 100)
        } else {
            Ip::udp("2001:db8:2::2", "2001:db8:3::2", 100)
        };
        let left = router.pass_labelled(WEST, &labelled(&entries(&[(null, 40)]), &packet.bytes()), EAST);
        assert_eq!(left[0].packet, with_hops(&packet, 39));
        let packet = inbound(family, 64);
        let frame = labelled(&entries(&[(null, 40), (500, 60)]), &packet.bytes());
        let left = router.pass_labelled(WEST, &frame, CUSTOMER_A);
        assert_eq!(left[0].packet, with_hops(&packet, 39));
    }
}

#[test]
fn a_router_alert_to_this_router_is_the_hosts() {
    let mut router = router();
    let ours = Ip::udp("172.16.2.2", "172.16.3.1", 100).bytes();
    let probe = Ip::udp("172.16.2.2", "127.0.0.1", 100).bytes();
    for packet in [&ours, &probe] {
        router.pass_labelled(WEST, &labelled(&entries(&[(1, 1), (100, 1)]), packet), EAST);
        assert_eq!(router.host_got(), std::slice::from_ref(packet));
    }
    let foreign = Ip::udp("172.16.2.2", HERE[0], 100).bytes();
    router.pass_labelled(WEST, &labelled(&entries(&[(1, 64)]), &foreign), EAST);
    assert!(router.host_got().is_empty());
    assert_eq!(router.drops(), [(southbound::DropReason::LabelReserved, 1)]);
}

#[test]
fn a_label_of_the_hosts_is_the_hosts() {
    let mut router = router();
    router.apply(Update::PutIlm(ilm(900, LabelOperation::Host)));
    let packet = Ip::udp("172.16.2.2", "172.16.3.1", 100).bytes();
    let frame = labelled(&entries(&[(900, 64)]), &packet);
    router.pass_labelled(WEST, &frame, EAST);
    let got = router.host_got();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0][12..20], packet[12..20]);
}

#[test]
fn a_short_packet_leaves_its_ethernet_padding_behind() {
    let mut router = router();
    router.apply(lookup(500, VRF_A));
    let packet = Ip::udp(THERE[0], HERE[0], 28);
    let mut frame = labelled(&entries(&[(500, 64)]), &packet.bytes());
    frame.resize(46, 0);
    let left = router.pass_labelled(WEST, &frame, CUSTOMER_A);
    assert_eq!(left[0].packet, with_hops(&packet, 63));
}

fn class_map() -> Update {
    let mut tc_to_dscp = [None; 8];
    tc_to_dscp[5] = Some(46);
    tc_to_dscp[3] = Some(26);
    Update::PutClassMap(ClassMapSpec {
        id: ClassMapId(1),
        dscp_to_tc: (0..64).map(|dscp| if dscp == 46 { 5 } else { 1 }).collect(),
        tc_to_dscp,
    })
}

fn pushed_class(router: &mut Gateway, class: PushClass, dscp: u8) -> u8 {
    let hop = Nhlfe {
        class,
        ..nhlfe(&[100, 200], WEST)
    };
    router.route_in(VRF_A, "192.168.102.0/24", vec![NextHop::Labelled(hop)]);
    let packet = Ip {
        class: dscp << 2 | 2,
        ..outbound(0, 64)
    };
    let left = router.pass_to(CUSTOMER_A, &packet.bytes(), WEST);
    assert_eq!(left[0].packet[1], dscp << 2 | 2, "the packet keeps its own");
    assert_eq!(left[0].entries[0].traffic_class, left[0].entries[1].traffic_class);
    left[0].entries[0].traffic_class
}

#[test]
fn dscp_becomes_traffic_class_as_told() {
    let mut router = router();
    assert_eq!(pushed_class(&mut router, PushClass::Copy, 46), 5);
    assert_eq!(pushed_class(&mut router, PushClass::Copy, 10), 1);
    assert_eq!(pushed_class(&mut router, PushClass::Set(3), 46), 3);
    let map = PushClass::Map(ClassMapId(1));
    assert_eq!(pushed_class(&mut router, map, 32), 4, "without the map as copied");
    router.apply(class_map());
    assert_eq!(pushed_class(&mut router, map, 46), 5);
    assert_eq!(pushed_class(&mut router, map, 32), 1);
}

#[test]
fn traffic_class_becomes_dscp_as_told() {
    let mut router = router();
    router.apply(class_map());
    for (class, traffic_class, expected) in [
        (PopClass::Keep, 5, 10),
        (PopClass::Selector, 5, 40),
        (PopClass::Map(ClassMapId(1)), 5, 46),
        (PopClass::Map(ClassMapId(1)), 3, 26),
        (PopClass::Map(ClassMapId(1)), 4, 10),
        (PopClass::Map(ClassMapId(2)), 5, 10),
    ] {
        router.apply(Update::PutIlm(IlmSpec {
            class,
            ..ilm(500, LabelOperation::PopAndLookup(VRF_A))
        }));
        for family in [0, 1] {
            let packet = Ip {
                class: 10 << 2 | 1,
                ..inbound(family, 64)
            };
            let mut stack = entries(&[(500, 200)]);
            stack[0].traffic_class = traffic_class;
            let left = router.pass_labelled(WEST, &labelled(&stack, &packet.bytes()), CUSTOMER_A);
            let expected = Ip {
                class: expected << 2 | 1,
                hops: 63,
                ..packet
            };
            assert_eq!(left[0].packet, expected.bytes(), "{class:?} {traffic_class}");
        }
    }
}

#[test]
fn a_packet_waits_under_its_labels_for_the_neighbour() {
    let mut router = router();
    router.apply(Update::RemoveNeighbour {
        port: southbound::PortId(WEST),
        address: "172.16.2.2".parse().unwrap(),
    });
    router.route_in(
        VRF_A,
        "192.168.102.0/24",
        vec![NextHop::Labelled(nhlfe(&[100, 200], WEST))],
    );
    router.apply(forward(300, nhlfe(&[301], WEST)));
    let packet = outbound(0, 64);
    assert!(router.pass_to(CUSTOMER_A, &packet.bytes(), WEST).is_empty());
    let transit = inbound(0, 64).bytes();
    router.pass_labelled(EAST, &labelled(&entries(&[(300, 64)]), &transit), WEST);
    assert_eq!(router.count(WorkerCounter::Held), 2);
    router.neighbour(WEST, "172.16.2.2", Some(neighbour_mac(WEST)));
    router.turn();
    let left = router.left(WEST);
    let labels: Vec<_> = left.iter().map(|left| left.labels()).collect();
    assert_eq!(labels, [vec![(100, 63), (200, 63)], vec![(301, 63)]]);
    assert_eq!(left[0].packet, with_hops(&packet, 63));
    assert_eq!(left[1].packet, transit);
}

#[test]
fn what_is_not_told_again_goes() {
    let mut router = router();
    router.apply(forward(100, nhlfe(&[200], EAST)));
    router.apply(class_map());
    router.apply(Update::PutVrf(southbound::VrfSpec {
        id: VRF_A,
        name: "customer-a".to_owned(),
    }));
    router.writer.apply(2, forward(101, nhlfe(&[201], EAST))).unwrap();
    // Label 100, the map, the name, and everything else of the first generation.
    let removed = router.writer.sweep(2);
    assert!(removed > 3, "{removed}");
    let labels: Vec<_> = router
        .writer
        .label_status()
        .into_iter()
        .filter_map(|status| match status {
            Status::Label(label) => Some(label.ilm.label.value()),
            _ => None,
        })
        .collect();
    assert_eq!(labels, [101]);
    assert_eq!(router.writer.sweep(3), 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut router = router();
    let mut refused = |update| router.writer.apply(1, update).unwrap_err().to_string();
    assert!(refused(forward(15, nhlfe(&[200], EAST))).contains("reserved"));
    assert!(refused(forward(100, nhlfe(&[200], 9))).contains("port 9"));
    let none = LabelOperation::Forward {
        next_hops: vec![],
        weights: vec![],
    };
    assert!(refused(Update::PutIlm(ilm(100, none))).contains("next hops"));
    let weighted = LabelOperation::Forward {
        next_hops: vec![nhlfe(&[200], EAST)],
        weights: vec![0],
    };
    assert!(refused(Update::PutIlm(ilm(100, weighted))).contains("weight"));
    let mut space = ilm(100, LabelOperation::Pop);
    space.space = LabelSpaceId(32);
    assert!(refused(Update::PutIlm(space)).contains("space 32"));
    for (entropy_beneath, ttl, class) in [
        (Some(2), TtlModel::Uniform, PushClass::Copy),
        (Some(0), TtlModel::Uniform, PushClass::Copy),
        (None, TtlModel::Pipe(0), PushClass::Copy),
        (None, TtlModel::Uniform, PushClass::Set(8)),
    ] {
        let hop = Nhlfe {
            entropy_beneath,
            ttl,
            class,
            ..nhlfe(&[200], EAST)
        };
        refused(forward(100, hop));
    }
    assert!(router.writer.label_status().is_empty());
    let _ = VrfId::MAIN;
}
