//! Ports follow the kernel's VRF devices: into one that the configuration names, from there into one that it does not, and
//! back out; with the routes of the tables, and without a packet into another VRF.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::machine::has_kernel_modules;
use bench::namespace::Namespace;
use bench::process::wait_until;
use bench::topology::{Links, Topology};

const LIMIT: Duration = Duration::from_secs(60);

/// Nothing here says where `lan` and `wan` belong: the kernel does.
const CONFIGURATION: &str = r#"
[gateway]
name = "pe"
[[vrf]]
name = "customer-red"
table = 10
[[port]]
interface = "lan"
role = "protected"
[[port]]
interface = "wan"
role = "protected"
"#;

fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}

/// Where the gateway has a port.
fn vrf_of(gateway: &Gateway, interface: &str) -> String {
    let shown = gateway.json(&["show", "ports", interface]).unwrap();
    shown["ports"][0]["vrf"].as_str().unwrap_or_default().to_owned()
}

/// The prefixes in a VRF.
fn prefixes(gateway: &Gateway, vrf: &str) -> Vec<String> {
    let shown = gateway.json(&["show", "routes"]).unwrap();
    let routes = shown["routes"].as_array().unwrap().iter();
    routes
        .filter(|route| route["vrf"] == vrf)
        .filter_map(|route| Some(route["prefix"].as_str()?.to_owned()))
        .collect()
}

/// How many packets the workers have sent on, which the kernel beneath would otherwise have forwarded.
fn transmitted(gateway: &Gateway) -> u64 {
    let shown = gateway.json(&["show", "workers"]).unwrap();
    let workers = shown["workers"].as_array().unwrap().iter();
    workers
        .filter_map(|worker| worker["transmitted_packets"].as_u64())
        .sum()
}

#[test]
fn ports_follow_the_kernels_vrf_devices() {
    if !has_kernel_modules(&["vrf", "veth"], "ports_follow_the_kernels_vrf_devices") {
        return;
    }
    let topology = Topology::new("vrf", Links::default()).unwrap();
    let (kernel, host) = (&topology.gateway_1, &topology.host_a);
    // A host on the other side, in the place of the internet.
    topology.internet.ip("addr add 198.51.100.10/24 dev br0").unwrap();
    topology
        .internet
        .ip("route add 10.1.0.0/24 via 198.51.100.1")
        .unwrap();
    topology.internet.ip("addr add 10.9.0.1/32 dev lo").unwrap();
    let gateway = Gateway::start(kernel, CONFIGURATION, &[], Dataplane::default()).unwrap();
    let situation = || {
        format!(
            "{}\n{}\n{}\n{:?}\n{}",
            gateway.penstock(&["show", "ports"]).unwrap_or_default(),
            gateway.penstock(&["show", "vrf"]).unwrap_or_default(),
            gateway.penstock(&["show", "routes"]).unwrap_or_default(),
            kernel.run("ip route show table all"),
            gateway.logs()
        )
    };
    let becomes = |what: &str, condition: &dyn Fn() -> bool| {
        assert!(
            wait_until(LIMIT, condition),
            "waited in vain for {what}\n{}",
            situation()
        );
    };
    let carries = |what: &str, to: &str| {
        becomes(what, &|| answers(host, to));
        let before = transmitted(&gateway);
        host.run(&format!("ping -q -c 10 -i 0.02 -W 10 {to}")).unwrap();
        becomes("the packets to have gone by the workers", &|| {
            transmitted(&gateway) >= before + 20
        });
    };

    carries("both ports in the main table", "198.51.100.10");
    assert_eq!(vrf_of(&gateway, "lan"), "main");

    // Into the table that the configuration has a name for.
    kernel.ip("link add red type vrf table 10").unwrap();
    kernel.ip("link set red up").unwrap();
    kernel.ip("link set lan master red").unwrap();
    becomes("the first port in its VRF", &|| {
        vrf_of(&gateway, "lan") == "customer-red"
    });
    becomes("no way from VRF to main table", &|| {
        !answers(host, "198.51.100.10")
    });
    kernel.ip("link set wan master red").unwrap();
    carries("both ports in one VRF", "198.51.100.10");
    // A route of the VRF's table, that comes and goes.
    kernel
        .ip("route add 10.9.0.0/24 table 10 via 198.51.100.10 dev wan")
        .unwrap();
    carries("a route of the VRF's table", "10.9.0.1");
    assert!(prefixes(&gateway, "customer-red").contains(&"10.9.0.0/24".to_owned()));
    kernel.ip("route del 10.9.0.0/24 table 10").unwrap();
    becomes("the route to go", &|| {
        !prefixes(&gateway, "customer-red").contains(&"10.9.0.0/24".to_owned())
    });

    // From there into one that only the kernel knows.
    kernel.ip("link add blue type vrf table 20").unwrap();
    kernel.ip("link set blue up").unwrap();
    kernel.ip("link set wan master blue").unwrap();
    becomes("the second port in the other VRF", &|| {
        vrf_of(&gateway, "wan") == "blue"
    });
    assert_eq!(vrf_of(&gateway, "lan"), "customer-red");
    becomes("no way from VRF to VRF", &|| !answers(host, "198.51.100.10"));
    kernel.ip("link set lan master blue").unwrap();
    carries(
        "both ports in the VRF that only the kernel knows",
        "198.51.100.10",
    );
    let listed = gateway.json(&["show", "vrf"]).unwrap();
    assert!(
        listed["vrfs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|vrf| vrf["vrf"] == "blue" && vrf["id"] == 20),
        "{listed}"
    );

    // The device goes: what was in it is in the main table again.
    kernel.ip("link delete blue").unwrap();
    becomes("both ports back", &|| {
        ["lan", "wan"].iter().all(|port| vrf_of(&gateway, port) == "main")
    });
    carries("both ports in the main table again", "198.51.100.10");
    assert!(prefixes(&gateway, "blue").is_empty() && prefixes(&gateway, "#20").is_empty());
}
