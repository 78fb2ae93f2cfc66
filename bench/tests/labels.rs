//! The running gateway as a router of labels against an independent one: scapy's MPLS layer, from Ethernet frames on.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::Stdio;

use bench::gateway::{Dataplane, Gateway};
use bench::topology::{Links, Topology};
use serde_json::Value;

const CONFIGURATION: &str = r#"
[[vrf]]
name = "red"
table = 10

[[vrf]]
name = "blue"
table = 20

[[port]]
interface = "lan"
role = "protected"
vrf = "red"

[[port]]
interface = "wan"
role = "internet"
mpls = true

[[label]]
label = 500
vrf = "red"

[[label]]
label = 501
vrf = "blue"

[[label]]
label = 502
vrf = "red"
dscp = "selector"

[[label]]
label = 200
next_hops = [{ interface = "wan", gateway = "198.51.100.2", labels = [201] }]

[[label]]
label = 210
next_hops = [{ interface = "wan", gateway = "198.51.100.2", labels = [301, 302] }]

[[label]]
label = 220
next_hops = [{ interface = "wan", gateway = "198.51.100.2" }]

[[label]]
label = 230
next_hops = [{ interface = "wan", gateway = "198.51.100.2" }]
ttl = "pipe"

[[route]]
vrf = "red"
prefix = "10.14.0.0/24"
next_hops = [{ interface = "wan", gateway = "198.51.100.2", labels = [801, 802, 803, 804, 805, 806, 807, 808] }]

[[route]]
vrf = "red"
prefix = "10.9.0.0/24"
next_hops = [{ interface = "wan", gateway = "198.51.100.2", labels = [100, 700] }]

[[route]]
vrf = "red"
prefix = "fd09::/64"
next_hops = [{ interface = "wan", gateway = "198.51.100.2", labels = [100, 701] }]

[[route]]
vrf = "red"
prefix = "10.10.0.0/24"
next_hops = [{ interface = "wan", gateway = "198.51.100.2", labels = [100, 700] }]
entropy_label = true

[[tunnel]]
name = "gre"
encapsulation = "gre"
key = 77
mpls = true
local = "198.51.100.1"
remote = "198.51.100.2"

[[tunnel]]
name = "ip"
encapsulation = "ip"
mpls = true
local = "198.51.100.1"
remote = "198.51.100.2"

[[tunnel]]
name = "udp"
encapsulation = "udp"
mpls = true
local = "198.51.100.1"
remote = "198.51.100.2"

[[route]]
vrf = "red"
prefix = "10.11.0.0/24"
next_hops = [{ tunnel = "gre", labels = [710] }]

[[route]]
vrf = "red"
prefix = "10.12.0.0/24"
next_hops = [{ tunnel = "ip", labels = [711] }]

[[route]]
vrf = "red"
prefix = "10.13.0.0/24"
next_hops = [{ tunnel = "udp", labels = [712] }]
"#;

#[test]
fn label_operations_and_tunnels_agree_with_an_independent_router() {
    let topology = Topology::new("labels", Links::default()).unwrap();
    let router = &topology.gateway_2;
    // The router's own kernel has no labels and no tunnels, and would say so.
    router.run("nft add table inet quiet").unwrap();
    router
        .run("nft add chain inet quiet input { type filter hook input priority 0 ; }")
        .unwrap();
    router
        .run("nft add rule inet quiet input ip protocol { 47, 137, 17 } drop")
        .unwrap();
    let gateway = Gateway::start(&topology.gateway_1, CONFIGURATION, &[], Dataplane::default()).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/labels.py");
    let output = router
        .command("/usr/bin/python3")
        .arg(script)
        .args(["wan", "198.51.100.1"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "the oracle failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let results: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let wrong: Vec<_> = results
        .iter()
        .filter(|result| !result["error"].is_null())
        .map(|result| format!("{}: {}", result["name"], result["error"]))
        .collect();
    assert_eq!(results.len(), 20);
    assert!(
        wrong.is_empty(),
        "{}\n{}\n{}\n{}",
        wrong.join("\n"),
        gateway.penstock(&["show", "drops"]).unwrap_or_default(),
        gateway.penstock(&["show", "mpls"]).unwrap_or_default(),
        gateway.logs()
    );
    // Each label and each table counts what it had.
    let shown = gateway.json(&["show", "mpls"]).unwrap();
    let packets = |label: u64| {
        shown["labels"]
            .as_array()
            .unwrap()
            .iter()
            .find(|record| record["label"] == label)
            .and_then(|record| record["packets"].as_u64())
    };
    assert_eq!(packets(210), Some(1), "{shown:?}");
    assert!(packets(500).is_some_and(|packets| packets >= 6), "{shown:?}");
}
