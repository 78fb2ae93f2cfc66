//! What no rule matches (RFC 4301 sections 4.4.1 and 5): discarded where it crosses between the protected side and the
//! rest, unless the default says otherwise.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{
    DropReason, Encryption, Endpoint, Mode, NextHop, PolicyAction, PolicyDefault, PolicyId, PolicySpec,
    PortId, ProtocolMatch, SelectorPair, Transform, TunnelId, Update, VrfId, WorkerCounter,
};
use walk::gateway::{Gateway, LAN, WAN, neighbour_mac};
use walk::packets::Ip;
use walk::pair::Pair;

fn pair() -> Pair {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    Pair::new(gcm, Mode::Tunnel, false, false, true)
}

fn rule(id: u32, local: &str, remote: &str, action: PolicyAction) -> Update {
    Update::PutPolicy(PolicySpec {
        id: PolicyId(id),
        vrf: VrfId::MAIN,
        priority: id,
        selector: SelectorPair {
            local: Endpoint::any_port(local.parse().unwrap()),
            remote: Endpoint::any_port(remote.parse().unwrap()),
            protocol: ProtocolMatch::Any,
        },
        action,
    })
}

fn default(default: PolicyDefault) -> Update {
    Update::PutPolicyDefault {
        vrf: VrfId::MAIN,
        default,
    }
}

/// What becomes of one packet at `port`: how many left by WAN and by LAN (errors too), and the drops.
fn fate(gateway: &mut Gateway, port: u32, packet: &[u8]) -> (usize, usize, Vec<DropReason>) {
    let before = gateway.drops();
    gateway.deliver(port, packet);
    gateway.turn();
    let left = (gateway.collect(WAN).len(), gateway.collect(LAN).len());
    (left.0, left.1, gateway.dropped_since(&before))
}

const NO_MATCH: DropReason = DropReason::PolicyNoMatch;

#[test]
fn without_rules_routes_decide_and_with_one_what_it_does_not_match_may_not_cross() {
    let mut pair = pair();
    let into_tunnel = Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes();
    let in_clear = Ip::udp("10.1.0.5", "198.51.100.7", 100).bytes();
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (1, 0, vec![]));
    assert_eq!(fate(&mut pair.one, LAN, &in_clear), (1, 0, vec![]));
    // Any rule makes the table one that says what may cross; the sender is told (RFC 1812 section 5.2.7.1).
    let elsewhere = rule(1, "10.1.0.0/16", "203.0.113.0/24", PolicyAction::Discard);
    pair.one.apply(elsewhere);
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (0, 1, vec![NO_MATCH]));
    assert_eq!(fate(&mut pair.one, LAN, &in_clear), (0, 1, vec![NO_MATCH]));
    // Rules of the other family do not matter less.
    let into_tunnel_v6 = Ip::udp("fd01::5", "fd02::5", 100).bytes();
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel_v6), (0, 1, vec![NO_MATCH]));
    // A rule for it, and it goes.
    pair.one
        .apply(rule(2, "10.1.0.0/16", "198.51.100.0/24", PolicyAction::Bypass));
    assert_eq!(fate(&mut pair.one, LAN, &in_clear), (1, 0, vec![]));
    assert_eq!(pair.one.count(WorkerCounter::PolicyBypass), 1);
    pair.one.apply(rule(
        3,
        "10.1.0.0/16",
        "10.2.0.0/16",
        PolicyAction::Protect(TunnelId(1)),
    ));
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (1, 0, vec![]));
    // With the last rule the table has no say any more.
    for id in 1..=3 {
        pair.one.apply(Update::RemovePolicy(PolicyId(id)));
    }
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel_v6), (1, 0, vec![]));
}

#[test]
fn the_default_can_be_set_and_taken_back() {
    let mut pair = pair();
    let into_tunnel = Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes();
    pair.one
        .apply(rule(1, "10.1.0.0/16", "203.0.113.0/24", PolicyAction::Discard));
    pair.one.apply(default(PolicyDefault::Bypass));
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (1, 0, vec![]));
    pair.one.apply(default(PolicyDefault::Discard));
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (0, 1, vec![NO_MATCH]));
    // Without rules too, until nobody says so any more.
    pair.one.apply(Update::RemovePolicy(PolicyId(1)));
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (0, 1, vec![NO_MATCH]));
    pair.one.apply(Update::RemovePolicyDefault { vrf: VrfId::MAIN });
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (1, 0, vec![]));
    // What a resynchronisation does not name is gone as well.
    pair.one.apply(default(PolicyDefault::Discard));
    assert_eq!(fate(&mut pair.one, LAN, &into_tunnel), (0, 1, vec![NO_MATCH]));
    let mut writer = Gateway::bare().writer;
    writer.apply(1, default(PolicyDefault::Discard)).unwrap();
    assert_eq!(writer.sweep(2), 3, "two ports and a default");
}

#[test]
fn what_comes_out_of_a_tunnel_crosses_as_well() {
    let mut pair = pair();
    let outer = |pair: &mut Pair| {
        let packet = Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes();
        pair.one.pass(LAN, &packet).remove(0)
    };
    let packet = outer(&mut pair);
    assert_eq!(fate(&mut pair.two, WAN, &packet), (0, 1, vec![]));
    pair.two.apply(default(PolicyDefault::Discard));
    let packet = outer(&mut pair);
    assert_eq!(fate(&mut pair.two, WAN, &packet), (0, 0, vec![NO_MATCH]));
    pair.two.apply(rule(
        1,
        "10.2.0.0/16",
        "10.1.0.0/16",
        PolicyAction::Protect(TunnelId(1)),
    ));
    let packet = outer(&mut pair);
    assert_eq!(fate(&mut pair.two, WAN, &packet), (0, 1, vec![]));
}

#[test]
fn between_protected_ports_and_to_the_host_nothing_is_crossed() {
    let mut gateway = Gateway::numbered(1);
    gateway.apply(default(PolicyDefault::Discard));
    gateway.route(
        "10.3.0.0/16",
        NextHop::Port {
            port: PortId(LAN),
            gateway: Some("10.1.0.5".parse().unwrap()),
        },
    );
    let aside = Ip::udp("10.1.0.6", "10.3.0.5", 100).bytes();
    assert_eq!(fate(&mut gateway, LAN, &aside), (0, 1, vec![]));
    let to_us = Ip::udp("10.1.0.5", "10.1.0.1", 100).bytes();
    assert_eq!(fate(&mut gateway, LAN, &to_us), (0, 0, vec![]));
    assert_eq!(gateway.host_got(), [to_us]);
    // By way of the kernel it might leave anywhere.
    gateway.route("203.0.113.0/24", NextHop::Kernel);
    let aside = Ip::udp("10.1.0.5", "203.0.113.5", 100).bytes();
    assert_eq!(fate(&mut gateway, LAN, &aside), (0, 1, vec![NO_MATCH]));
    // A neighbour that is not known yet: it would wait, and cross later.
    gateway.route(
        "198.51.100.0/24",
        NextHop::Port {
            port: PortId(WAN),
            gateway: None,
        },
    );
    let unknown = Ip::udp("10.1.0.5", "198.51.100.5", 100).bytes();
    assert_eq!(fate(&mut gateway, LAN, &unknown), (0, 1, vec![NO_MATCH]));
    // The host's own packets cross too.
    let before = gateway.drops();
    gateway.host_sends(&Ip::udp("10.1.0.1", "198.51.100.7", 100).bytes());
    assert_eq!(gateway.dropped_since(&before), [NO_MATCH]);
    // One that waits on the protected side is not forgotten to be unruled.
    let waits = Ip::udp("10.1.0.5", "10.1.0.77", 100).bytes();
    assert_eq!(fate(&mut gateway, LAN, &waits), (0, 0, vec![]));
    gateway.neighbour(LAN, "10.1.0.77", Some(neighbour_mac(LAN)));
    gateway.turn();
    assert_eq!(gateway.collect(LAN).len(), 1);
}

/// What a rule lets pass does not take along what follows it to the same neighbour in the same batch.
#[test]
fn the_rule_of_one_packet_is_not_that_of_the_next() {
    let mut gateway = Gateway::numbered(1);
    gateway.apply(rule(1, "10.1.0.0/16", "198.51.100.0/24", PolicyAction::Bypass));
    for destination in ["198.51.100.7", "203.0.113.9", "198.51.100.8", "203.0.113.9"] {
        gateway.deliver(LAN, &Ip::udp("10.1.0.5", destination, 100).bytes());
    }
    gateway.turn();
    let left: Vec<u8> = gateway.collect(WAN).iter().map(|packet| packet[19]).collect();
    assert_eq!(left, [7, 8]);
    assert_eq!(gateway.drops(), [(NO_MATCH, 2)]);
}
