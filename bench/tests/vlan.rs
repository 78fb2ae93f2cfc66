//! VLAN ports (IEEE 802.1Q) with the kernel's own VLAN links: on the protected side and on the tunnel side, several of one
//! device, and what becomes of them when the link goes.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use bench::eavesdropper::{Eavesdropper, Kind};
use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::process::wait_until;
use bench::site_to_site::SiteToSite;
use bench::topology::{Links, Topology};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

const TAGGED_PORTS: &str = r#"[[port]]
interface = "lan"
role = "trunk"

[[port]]
interface = "lan.10"
role = "protected"

[[port]]
interface = "lan.11"
role = "protected"

[[port]]
interface = "wan"
role = "trunk"

[[port]]
interface = "wan.20"
role = "internet"

"#;

fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}

/// Site 1 behind tags: its host in VLANs 10 and 11, its gateway's Internet in VLAN 20. Site 2 has none.
fn tag_site_1(topology: &Topology) {
    let (host, gateway, internet) = (&topology.host_a, &topology.gateway_1, &topology.internet);
    for (namespace, device, vlan) in [
        (gateway, "lan", 10),
        (gateway, "lan", 11),
        (gateway, "wan", 20),
        (host, "eth0", 10),
        (host, "eth0", 11),
        (internet, "g1", 20),
    ] {
        namespace
            .ip(&format!(
                "link add link {device} name {device}.{vlan} type vlan id {vlan}"
            ))
            .unwrap();
        namespace.ip(&format!("link set {device}.{vlan} up")).unwrap();
    }
    // On a wire tags are in the packet; only veth carries them beside it.
    for (namespace, device) in [(host, "eth0"), (internet, "g1")] {
        namespace.run(&format!("ethtool -K {device} txvlan off")).unwrap();
    }
    internet.ip("link set g1 nomaster").unwrap();
    internet.ip("link set g1.20 master br0").unwrap();
    for (namespace, device) in [(host, "eth0"), (gateway, "lan"), (gateway, "wan")] {
        namespace
            .ip(&format!("addr flush dev {device} scope global"))
            .unwrap();
    }
    gateway.ip("addr add 10.1.0.1/25 dev lan.10").unwrap();
    gateway.ip("addr add fd01::1/64 dev lan.10 nodad").unwrap();
    gateway.ip("addr add 10.1.0.129/25 dev lan.11").unwrap();
    gateway.ip("addr add 198.51.100.1/24 dev wan.20").unwrap();
    host.ip("addr add 10.1.0.10/25 dev eth0.10").unwrap();
    host.ip("addr add fd01::10/64 dev eth0.10 nodad").unwrap();
    host.ip("addr add 10.1.0.140/25 dev eth0.11").unwrap();
    host.ip("route replace default via 10.1.0.1").unwrap();
    host.ip("-6 route replace default via fd01::1").unwrap();
    // What comes from the second VLAN's address goes back by it.
    host.ip("rule add from 10.1.0.140 table 11").unwrap();
    host.ip("route add default via 10.1.0.129 table 11").unwrap();
    gateway.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
}

fn port(gateway: &Gateway, interface: &str) -> Value {
    gateway.json(&["show", "ports", interface]).unwrap()["ports"][0].clone()
}

fn start(stem: &str) -> (Topology, Gateway, Gateway) {
    let topology = Topology::new(stem, Links::default()).unwrap();
    tag_site_1(&topology);
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let text = tunnel.configuration(1);
    let (before, after) = (text.find("[[port]]").unwrap(), text.find("[[tunnel]]").unwrap());
    let tagged = format!("{}{TAGGED_PORTS}{}", &text[..before], &text[after..]);
    let options = Dataplane::default();
    let one = Gateway::start(&topology.gateway_1, &tagged, &tunnel.secrets(), options.clone()).unwrap();
    let two = Gateway::start(
        &topology.gateway_2,
        &tunnel.configuration(2),
        &tunnel.secrets(),
        options,
    )
    .unwrap();
    for target in ["10.2.0.10", "fd02::10"] {
        assert!(
            wait_until(LIMIT, || answers(&topology.host_a, target)),
            "no answer from {target}\n{}\n{}\n{}",
            one.logs(),
            one.penstock(&["show", "ports"]).unwrap_or_default(),
            one.penstock(&["show", "drops"]).unwrap_or_default(),
        );
    }
    (topology, one, two)
}

#[test]
fn vlans_are_ports_on_both_sides_of_a_gateway() {
    let (topology, one, _two) = start("vlan");
    let file = std::env::temp_dir().join(format!("{}.pcap", topology.internet.name()));
    // Behind the tag: what the bridge sees.
    let ear = Eavesdropper::listen(&topology.internet, "g1.20", &file, 2000).unwrap();
    topology
        .host_a
        .run("ping -c 20 -i 0.01 -s 1300 10.2.0.10")
        .unwrap();
    topology
        .host_a
        .run("ping -c 10 -i 0.01 -I 10.1.0.140 10.2.0.10")
        .unwrap();
    // From VLAN to VLAN of one device, and too big for the tunnel: the error comes back with a tag.
    topology.host_b.run("ping -c 10 -i 0.01 10.1.0.140").unwrap();
    topology
        .host_b
        .run("ping -c 3 -i 0.01 -s 3000 10.1.0.10")
        .unwrap();
    let capture = ear.finish().unwrap();
    std::fs::remove_file(file).unwrap();
    assert!(capture.count(Kind::Esp) >= 80, "{}", capture.count(Kind::Esp));
    assert_eq!(capture.count(Kind::Clear), 0, "{}", capture.show_clear());

    let ports = one.penstock(&["show", "ports"]).unwrap();
    for (name, parent, vlan) in [
        ("lan.10", "lan", 10),
        ("lan.11", "lan", 11),
        ("wan.20", "wan", 20),
    ] {
        let status = port(&one, name);
        assert_eq!(status["state"], "up", "{ports}");
        assert_eq!(
            (&status["parent"], &status["vlan"]),
            (&parent.into(), &vlan.into())
        );
        for way in ["received_packets", "transmitted_packets"] {
            assert!(status[way].as_u64().unwrap() >= 20, "{name} {way}\n{ports}");
        }
    }
    let (ten, eleven) = (port(&one, "lan.10"), port(&one, "lan.11"));
    let lan = port(&one, "lan");
    for way in [
        "received_packets",
        "received_bytes",
        "transmitted_packets",
        "transmitted_bytes",
    ] {
        let sum = ten[way].as_u64().unwrap() + eleven[way].as_u64().unwrap();
        assert_eq!(
            lan[way].as_u64().unwrap(),
            sum,
            "{way} of the device is its VLANs'\n{ports}"
        );
    }
}

#[test]
fn a_vlan_link_that_goes_and_returns_and_one_that_cannot_be_a_port() {
    let (topology, one, _two) = start("vlan-flap");
    let gateway = &topology.gateway_1;
    gateway.ip("link set lan.10 down").unwrap();
    assert!(wait_until(LIMIT, || port(&one, "lan.10")["state"] == "down"));
    assert_eq!(port(&one, "lan.11")["state"], "up", "the other VLAN goes on");
    gateway.ip("link delete lan.10").unwrap();
    assert!(wait_until(LIMIT, || port(&one, "lan.10")["state"] == "absent"));
    gateway
        .ip("link add link lan name lan.10 type vlan id 10")
        .unwrap();
    gateway.ip("link set lan.10 up").unwrap();
    gateway.ip("addr add 10.1.0.1/25 dev lan.10").unwrap();
    assert!(
        wait_until(LIMIT, || answers(&topology.host_a, "10.2.0.10")),
        "{}",
        one.logs()
    );
    // The device below: its VLANs follow.
    gateway.ip("link set wan down").unwrap();
    assert!(wait_until(LIMIT, || port(&one, "wan.20")["state"] == "down"));
    gateway.ip("link set wan up").unwrap();
    assert!(
        wait_until(LIMIT, || port(&one, "wan.20")["state"] == "up"),
        "{}",
        one.logs()
    );
    assert!(
        wait_until(LIMIT, || answers(&topology.host_a, "10.2.0.10")),
        "{}",
        one.logs()
    );
    // Another Ethernet address than the device's: its packets would not be taken.
    gateway.ip("link set lan.11 address 02:00:00:00:00:77").unwrap();
    assert!(wait_until(LIMIT, || port(&one, "lan.11")["state"] == "refused"));
    let error = port(&one, "lan.11")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("Ethernet address"), "{error}");
}
