//! The running gateway as a router of labels against an independent one: scapy's MPLS layer, from Ethernet frames on.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bench::gateway::{Dataplane, Gateway, built};
use bench::process::wait_until;
use bench::topology::{Links, Topology};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(40);

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

/// What `penstock trace` says of the first packet that fits, while packets are sent.
fn trace_one(gateway: &Gateway, arguments: &[&str], send: impl Fn()) -> Value {
    let mut child = Command::new(built("penstock").unwrap())
        .arg("--socket")
        .arg(gateway.folder().join("control.sock"))
        .args(["trace", "--count", "1", "--json=lines"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = wait_until(LIMIT, || {
        send();
        matches!(child.try_wait(), Ok(Some(_)))
    });
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(seen, "no packet was seen: {}", gateway.logs());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The step of a stage.
fn step<'r>(record: &'r Value, stage: &str) -> &'r Value {
    record["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["stage"] == stage)
        .unwrap_or_else(|| panic!("no step {stage} in {record}"))
}

#[test]
fn a_trace_follows_a_packet_through_its_label_operations() {
    let topology = Topology::new("label-trace", Links::default()).unwrap();
    let gateway = Gateway::start(&topology.gateway_1, CONFIGURATION, &[], Dataplane::default()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/labels.py");
    let send = |labels: &str| {
        let status = topology
            .gateway_2
            .command("/usr/bin/python3")
            .arg(&script)
            .args(["wan", "198.51.100.1", labels])
            .status()
            .unwrap();
        assert!(status.success());
    };
    let swapped = trace_one(&gateway, &["--label", "210"], || send("210"));
    assert_eq!(swapped["entry"], "wan");
    assert_eq!(swapped["exit"], "wan");
    let packet = swapped["packet"].as_str().unwrap();
    assert!(
        packet.starts_with("label 210 ttl 64 10.9.0.5 > 10.1.0.10 "),
        "{packet}"
    );
    let (received, forwarded) = (step(&swapped, "receive"), step(&swapped, "mpls_forward"));
    assert_eq!(received["labels"], json!([{ "label": 210, "tc": 0, "ttl": 64 }]));
    assert_eq!(forwarded["operation"], "swap 210 by 302, push 301");
    assert_eq!(
        forwarded["labels"],
        json!([{ "label": 301, "tc": 0, "ttl": 63 }, { "label": 302, "tc": 0, "ttl": 63 }])
    );
    // A VPN label: popped, and what is beneath goes to a customer; his answer gets two labels.
    // The first one may end waiting for the customer's Ethernet address.
    let popped = (0..5)
        .map(|_| trace_one(&gateway, &["--label", "500"], || send("500")))
        .find(|record| !record["exit"].is_null())
        .unwrap();
    assert_eq!(step(&popped, "mpls_forward")["operation"], "pop 500");
    assert_eq!(popped["exit"], "lan");
    let pushed = trace_one(&gateway, &["--label", "700"], || send("500"));
    assert_eq!(pushed["entry"], "lan");
    assert_eq!(step(&pushed, "label_push")["operation"], "push 100 700");
    let unknown = trace_one(&gateway, &["--drops", "--label", "999"], || send("999"));
    assert_eq!(unknown["reason"], "label_unknown");
}

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
    assert_eq!(results.len(), 22);
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
