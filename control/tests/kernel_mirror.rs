//! The mirror against the real kernel, in a namespace of its own. Needs root.

#![allow(clippy::unwrap_used)]

mod stand;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control::netlink::{HostRoute, Mirror, ROUTE_PROTOCOL, Scope};
use control::plane::{Desired, Object};
use southbound::{IpPrefix, NeighbourState, NextHop, PortId, Update, ValueRange, VrfId};
use stand::Namespace;

const LAN: PortId = PortId(1);
const WAN: PortId = PortId(2);

fn scope() -> Scope {
    Scope {
        ports: BTreeMap::from([
            ("lan".to_owned(), (LAN, VrfId::MAIN)),
            ("wan".to_owned(), (WAN, VrfId::MAIN)),
        ]),
        tap: "penstock0".into(),
        ..Scope::default()
    }
}

/// A mirror in a namespace with the ports `lan` and `wan`.
struct Stand {
    namespace: Namespace,
    runtime: tokio::runtime::Runtime,
    mirror: Mirror,
    desired: Desired,
}

impl Stand {
    fn new(scope: Scope, event_buffer_bytes: usize) -> Self {
        let namespace = Namespace::new();
        namespace.veth("lan", "lan-peer");
        namespace.veth("wan", "wan-peer");
        namespace.ip("addr add 10.1.0.1/24 dev lan");
        namespace.ip("addr add 192.0.2.1/24 dev wan");
        namespace.ip("addr add 2001:db8:1::1/64 dev wan nodad");
        namespace.enter();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mirror = {
            let _inside = runtime.enter();
            Mirror::with_buffer(scope, event_buffer_bytes).unwrap()
        };
        let mut stand = Self {
            namespace,
            runtime,
            mirror,
            desired: Desired::default(),
        };
        stand.until("the first dump", |_| true);
        assert!(stand.mirror.is_primed());
        stand
    }

    /// Steps until `condition` holds after the kernel was read at least once, at most ten seconds.
    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&Desired) -> bool) {
        let Self {
            runtime,
            mirror,
            desired,
            ..
        } = self;
        let in_time = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), async {
                loop {
                    mirror.flush(desired);
                    if mirror.is_primed() && condition(desired) {
                        return;
                    }
                    mirror.step().await.unwrap();
                }
            })
            .await
        });
        assert!(in_time.is_ok(), "waited in vain for {what}");
    }

    /// Steps for a while.
    fn settle(&mut self, time: Duration) {
        let Self {
            runtime,
            mirror,
            desired,
            ..
        } = self;
        let _ = runtime.block_on(async {
            tokio::time::timeout(time, async {
                loop {
                    mirror.step().await.unwrap();
                    mirror.flush(desired);
                }
            })
            .await
        });
        mirror.flush(desired);
    }
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn hops(desired: &Desired, text: &str) -> Option<Vec<NextHop>> {
    desired
        .next_hops(VrfId::MAIN, prefix(text))
        .map(<[NextHop]>::to_vec)
}

fn via(port: PortId, gateway: &str) -> NextHop {
    NextHop::Port {
        port,
        gateway: Some(gateway.parse().unwrap()),
    }
}

fn has_address(desired: &Desired, text: &str) -> bool {
    desired
        .update(&Object::LocalAddress(VrfId::MAIN, text.parse().unwrap()))
        .is_some()
}

fn neighbour(desired: &Desired, port: PortId, text: &str) -> Option<NeighbourState> {
    match desired.update(&Object::Neighbour(port, text.parse().unwrap())) {
        Some(Update::PutNeighbour(neighbour)) => Some(neighbour.state),
        _ => None,
    }
}

#[test]
fn the_mirror_follows_addresses_routes_neighbours_and_links() {
    let mut stand = Stand::new(scope(), 4 << 20);
    let on_link = |port| vec![NextHop::Port { port, gateway: None }];
    assert_eq!(hops(&stand.desired, "10.1.0.0/24"), Some(on_link(LAN)));
    assert_eq!(hops(&stand.desired, "2001:db8:1::/64"), Some(on_link(WAN)));
    assert_eq!(hops(&stand.desired, "10.1.0.255/32"), Some(vec![NextHop::Kernel]));
    assert!(has_address(&stand.desired, "10.1.0.1") && has_address(&stand.desired, "2001:db8:1::1"));
    assert!(!has_address(&stand.desired, "127.0.0.1"));

    stand.namespace.ip("addr add 10.1.0.2/24 dev lan");
    stand.until("an address", |desired| has_address(desired, "10.1.0.2"));
    stand.namespace.ip("addr del 10.1.0.2/24 dev lan");
    stand.until("an address to go", |desired| !has_address(desired, "10.1.0.2"));

    stand.namespace.ip("route add default via 192.0.2.254");
    stand.until("the default route", |desired| {
        hops(desired, "0.0.0.0/0") == Some(vec![via(WAN, "192.0.2.254")])
    });
    stand
        .namespace
        .ip("route replace default nexthop via 192.0.2.254 nexthop via 10.1.0.254");
    stand.until("two ways", |desired| {
        hops(desired, "0.0.0.0/0") == Some(vec![via(WAN, "192.0.2.254"), via(LAN, "10.1.0.254")])
    });
    stand.namespace.ip("route add default via 192.0.2.253 metric 50");
    stand.namespace.ip("route del default metric 0");
    stand.until("the next best route", |desired| {
        hops(desired, "0.0.0.0/0") == Some(vec![via(WAN, "192.0.2.253")])
    });
    stand
        .namespace
        .ip("-6 route add 2001:db8:9::/48 nexthop via 2001:db8:1::fe nexthop via 2001:db8:1::ff");
    stand.until("two ways of IPv6", |desired| {
        hops(desired, "2001:db8:9::/48").is_some_and(|hops| hops.len() == 2)
    });
    stand
        .namespace
        .ip("-6 route del 2001:db8:9::/48 via 2001:db8:1::fe");
    stand.until("one way of IPv6 left", |desired| {
        hops(desired, "2001:db8:9::/48") == Some(vec![via(WAN, "2001:db8:1::ff")])
    });
    for (kind, hop) in [
        ("blackhole", NextHop::Blackhole),
        ("unreachable", NextHop::Unreachable),
    ] {
        stand.namespace.ip(&format!("route add {kind} 203.0.113.0/24"));
        stand.until(kind, |desired| hops(desired, "203.0.113.0/24") == Some(vec![hop]));
        stand.namespace.ip(&format!("route del {kind} 203.0.113.0/24"));
        stand.until("it to go", |desired| hops(desired, "203.0.113.0/24").is_none());
    }
    stand.namespace.ip("link add name other type bridge");
    stand.namespace.ip("link set other up");
    stand.namespace.ip("route add 198.51.100.0/24 dev other");
    stand.until("a route out of no port", |desired| {
        hops(desired, "198.51.100.0/24") == Some(vec![NextHop::Kernel])
    });

    stand
        .namespace
        .ip("neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev lan");
    stand.until("a neighbour", |desired| {
        neighbour(desired, LAN, "10.1.0.9") == Some(NeighbourState::Resolved([2, 0, 0, 0, 0, 9]))
    });
    stand
        .namespace
        .ip("neigh replace 10.1.0.9 lladdr 02:00:00:00:00:0a dev lan");
    stand.until("its new address", |desired| {
        neighbour(desired, LAN, "10.1.0.9") == Some(NeighbourState::Resolved([2, 0, 0, 0, 0, 10]))
    });
    stand.namespace.ip("neigh del 10.1.0.9 dev lan");
    stand.until("it to be forgotten", |desired| {
        neighbour(desired, LAN, "10.1.0.9").is_none()
    });

    // The kernel says nothing of the IPv4 routes that go down with an interface.
    stand.namespace.ip("route add 203.0.113.0/24 via 10.1.0.254");
    stand.until("a route through lan", |desired| {
        hops(desired, "203.0.113.0/24").is_some()
    });
    stand.namespace.ip("link set lan down");
    stand.until("it to go with its interface", |desired| {
        hops(desired, "203.0.113.0/24").is_none()
    });
    stand.namespace.ip("link set lan up");
    stand.until("the connected route to return", |desired| {
        hops(desired, "10.1.0.0/24").is_some()
    });

    // An interface that goes and returns under its name is the same port.
    stand.namespace.ip("link del lan");
    stand.until("everything of lan to go", |desired| {
        hops(desired, "10.1.0.0/24").is_none() && !has_address(desired, "10.1.0.1")
    });
    stand.namespace.veth("lan", "lan-peer");
    stand.namespace.ip("addr add 10.1.0.1/24 dev lan");
    stand.until("the port to return", |desired| {
        hops(desired, "10.1.0.0/24") == Some(on_link(LAN))
    });
    assert_eq!(stand.mirror.statistics().overruns, 0);
    assert_eq!(stand.mirror.statistics().undecodable, 0);
}

#[test]
fn a_table_of_its_own_is_a_vrfs_and_others_are_passed_over() {
    let mut wanted = scope();
    wanted.vrfs.insert(77, "red".into());
    wanted.ports.insert("lan".into(), (LAN, VrfId(77)));
    let mut stand = Stand::new(wanted, 4 << 20);
    stand
        .namespace
        .ip("route add 203.0.113.0/24 via 10.1.0.254 table 77");
    stand
        .namespace
        .ip("route add 198.51.100.0/24 via 10.1.0.254 table 78");
    stand.namespace.ip("route add 203.0.113.0/24 via 192.0.2.254");
    stand.until("both routes", |desired| {
        desired.next_hops(VrfId(77), prefix("203.0.113.0/24")) == Some(&[via(LAN, "10.1.0.254")])
            && hops(desired, "203.0.113.0/24") == Some(vec![via(WAN, "192.0.2.254")])
    });
    let strange =
        |object: &Object| matches!(object, Object::Route(_, found) if *found == prefix("198.51.100.0/24"));
    assert!(!stand.desired.objects().any(|object| strange(&object)));
    let address = Object::LocalAddress(VrfId(77), "10.1.0.1".parse().unwrap());
    assert!(stand.desired.update(&address).is_some());
    assert!(!has_address(&stand.desired, "10.1.0.1"));
}

#[test]
fn neighbours_are_resolved_by_the_kernel_on_demand() {
    let mut stand = Stand::new(scope(), 4 << 20);
    let peer = Namespace::new();
    stand
        .namespace
        .ip(&format!("link set lan-peer netns {}", peer.name()));
    peer.ip("addr add 10.1.0.7/24 dev lan-peer");
    peer.ip("link set lan-peer up");
    assert_eq!(neighbour(&stand.desired, LAN, "10.1.0.7"), None);
    stand.until("the link", |_| true);
    stand.mirror.resolve(LAN, "10.1.0.7".parse().unwrap());
    stand.until("an answer", |desired| {
        matches!(
            neighbour(desired, LAN, "10.1.0.7"),
            Some(NeighbourState::Resolved(_))
        )
    });
    assert!(
        stand
            .namespace
            .ip("neigh show 10.1.0.7 dev lan")
            .contains("managed")
    );
    stand.mirror.resolve(LAN, "10.1.0.66".parse().unwrap());
    stand.until("a failure", |desired| {
        neighbour(desired, LAN, "10.1.0.66") == Some(NeighbourState::Failed)
    });
    // It answers at last, and the kernel is still asking.
    peer.ip("addr add 10.1.0.66/24 dev lan-peer");
    stand.until("the late answer", |desired| {
        matches!(
            neighbour(desired, LAN, "10.1.0.66"),
            Some(NeighbourState::Resolved(_))
        )
    });
}

#[test]
fn fault_74_an_overrun_leads_to_a_resync_and_an_equal_table() {
    let mut stand = Stand::new(scope(), 4096);
    let route = |number: u32| format!("10.{}.{}.0/24", 100 + number / 256, number % 256);
    stand
        .namespace
        .batch((0..6000).map(|number| format!("route add {} via 192.0.2.254", route(number))));
    stand.namespace.batch(
        (0..6000)
            .filter(|number| number % 3 == 0)
            .map(|number| format!("route del {}", route(number))),
    );
    stand.until("4000 routes", |desired| {
        (0..6000).all(|number| hops(desired, &route(number)).is_some() == (number % 3 != 0))
    });
    let statistics = stand.mirror.statistics();
    assert!(statistics.overruns >= 1, "{statistics:?}");
    assert!(statistics.resyncs >= 2, "{statistics:?}");
    // What the kernel says, and nothing else.
    let kernel: BTreeSet<String> = stand
        .namespace
        .ip("-4 route show table main")
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let mirrored: BTreeSet<String> = stand
        .desired
        .objects()
        .filter_map(|object| match object {
            Object::Route(VrfId::MAIN, prefix) if prefix.network().is_ipv4() && prefix.length_bits() < 32 => {
                Some(prefix.to_string())
            }
            _ => None,
        })
        .collect();
    assert_eq!(mirrored, kernel);
}

#[test]
fn the_hosts_routes_lead_to_the_tap_and_stale_ones_are_purged() {
    let mut wanted = scope();
    let everything = ValueRange {
        first: "10.1.0.0".parse().unwrap(),
        last: "10.1.0.255".parse().unwrap(),
    };
    wanted.host_routes = vec![HostRoute {
        vrf: VrfId::MAIN,
        prefix: prefix("10.2.0.0/16"),
        sources: vec![everything],
    }];
    let mut stand = Stand::new(scope(), 4 << 20);
    let proto = ROUTE_PROTOCOL;
    stand.namespace.ip("tuntap add mode tap name penstock0");
    stand.namespace.ip("link set penstock0 up");
    // Left behind by a process that was killed: another tunnel's, and one with another metric.
    stand.namespace.ip(&format!(
        "route add 10.9.0.0/16 dev penstock0 proto {proto} metric 181"
    ));
    stand.namespace.ip(&format!(
        "route add 10.2.0.0/16 dev penstock0 proto {proto} metric 5"
    ));
    // Another program's is none of ours.
    stand
        .namespace
        .ip("route add 10.8.0.0/16 dev penstock0 proto static");
    stand.mirror.set_scope(wanted);
    stand.settle(Duration::from_millis(600));
    let ours = || stand.namespace.ip(&format!("route show proto {proto}"));
    let text = ours();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("10.2.0.0/16 dev penstock0")
            && lines[0].contains("src 10.1.0.1")
            && lines[0].contains("metric 181"),
        "{lines:?}"
    );
    assert!(
        stand
            .namespace
            .ip("route show proto static")
            .contains("10.8.0.0/16")
    );
    // Neither our own route nor one into the TAP comes back to the dataplane.
    assert_eq!(hops(&stand.desired, "10.2.0.0/16"), None);
    assert_eq!(hops(&stand.desired, "10.8.0.0/16"), None);

    // The TAP goes with the dataplane and returns with it.
    stand.namespace.ip("link del penstock0");
    stand.settle(Duration::from_millis(300));
    stand.namespace.ip("tuntap add mode tap name penstock0");
    stand.namespace.ip("link set penstock0 up");
    stand.settle(Duration::from_millis(600));
    assert!(
        stand
            .namespace
            .ip(&format!("route show proto {proto}"))
            .contains("10.2.0.0/16")
    );
    // Somebody deletes it: it is put back.
    stand
        .namespace
        .ip(&format!("route del 10.2.0.0/16 proto {proto}"));
    stand.settle(Duration::from_millis(600));
    assert!(
        stand
            .namespace
            .ip(&format!("route show proto {proto}"))
            .contains("10.2.0.0/16")
    );
}
