//! Multicast between the hosts of two gateways, through the tunnel and no other way.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use southbound::{
    DropReason, Encryption, Endpoint, Mode, NextHop, PolicyAction, PolicyId, PolicySpec, ProtocolMatch,
    SelectorPair, Transform, TunnelId, Update, VrfId,
};
use walk::gateway::WAN;
use walk::packets::Ip;
use walk::pair::Pair;

/// A greeting as OSPF sends it: to its group, with a TTL of 1.
fn greeting(group: &str) -> Ip {
    let source = if group.contains(':') {
        "fe80::1"
    } else {
        "10.1.0.1"
    };
    Ip {
        hops: 1,
        ..Ip::new(source, group, 89, vec![2, 1, 0, 44, 0, 0, 0, 0])
    }
}

fn pair() -> Pair {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    let mut pair = Pair::without_sas(gcm, Mode::Tunnel, false, false, true);
    pair.install();
    // What comes out of the tunnel may be anything, as for a route-based tunnel.
    let any = |prefix: &str| Endpoint::any_port(prefix.parse().unwrap());
    let mut inbound = walk::specs::inbound(&pair.forth);
    inbound.selectors = ["0.0.0.0/0", "::/0"]
        .map(|all| SelectorPair {
            local: any(all),
            remote: any(all),
            protocol: ProtocolMatch::Any,
        })
        .to_vec();
    pair.two.apply(Update::InstallSa(inbound));
    pair
}

#[test]
fn greetings_cross_the_tunnel_that_a_route_leads_them_into_and_keep_their_ttl() {
    let mut pair = pair();
    for (group, route) in [("224.0.0.5", "224.0.0.0/24"), ("ff02::5", "ff02::/16")] {
        let packet = greeting(group).bytes();
        // The default route leads out in clear: not for these.
        let before = pair.one.drops();
        pair.one.host_sends(&packet);
        assert_eq!(pair.one.dropped_since(&before), [DropReason::NotForwardable]);
        assert_eq!(pair.one.collect(WAN).len(), 0);
        pair.one.route(route, NextHop::Tunnel(TunnelId(1)));
        pair.one.host_sends(&packet);
        let outer = pair.one.collect(WAN);
        assert_eq!(outer.len(), 1, "{:?}", pair.one.drops());
        assert_eq!(
            (outer[0][9], outer[0][8]),
            (50, 64),
            "ESP, with the tunnel's own TTL"
        );
        pair.two.deliver(WAN, &outer[0]);
        pair.two.turn();
        assert_eq!(pair.two.host_got(), [packet], "{:?}", pair.two.drops());
    }
}

#[test]
fn a_rule_leads_them_as_well_and_a_rule_for_others_does_not() {
    let mut pair = pair();
    let rule = |remote: &str| {
        Update::PutPolicy(PolicySpec {
            id: PolicyId(1),
            vrf: VrfId::MAIN,
            priority: 1,
            selector: SelectorPair {
                local: Endpoint::any_port("0.0.0.0/0".parse().unwrap()),
                remote: Endpoint::any_port(remote.parse().unwrap()),
                protocol: ProtocolMatch::Only(89),
            },
            action: PolicyAction::Protect(TunnelId(1)),
        })
    };
    let packet = greeting("224.0.0.5").bytes();
    pair.one.apply(rule("224.0.0.6/32"));
    pair.one.host_sends(&packet);
    assert_eq!(pair.one.drops(), [(DropReason::NotForwardable, 1)]);
    pair.one.apply(rule("224.0.0.5/32"));
    pair.one.host_sends(&packet);
    assert_eq!(pair.one.collect(WAN).len(), 1);
}
