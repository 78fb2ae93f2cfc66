//! The load test that people run: `bench/pktgen/pktgen` by the kernel's packet generator, under `bench/pktgen/measure`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;

use bench::gateway::{Dataplane, Gateway, built};
use bench::machine::has_kernel_modules;
use bench::site_to_site::SiteToSite;
use bench::topology::{Links, Topology};
use serde_json::Value;

const PACKETS: u64 = 2000;

#[test]
fn pktgen_loads_a_gateway_and_every_packet_is_accounted_for() {
    if !has_kernel_modules(
        &["pktgen", "veth"],
        "pktgen_loads_a_gateway_and_every_packet_is_accounted_for",
    ) {
        return;
    }
    let topology = Topology::new("pktgen", Links::default()).unwrap();
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let gateway = Gateway::start(
        &topology.gateway_1,
        &tunnel.configuration(1),
        &tunnel.secrets(),
        Dataplane::default(),
    )
    .unwrap();
    // A peer that takes everything and says nothing, so that all that is received is pktgen's.
    topology
        .gateway_1
        .ip("neigh replace 198.51.100.2 lladdr 02:00:00:00:00:99 dev wan nud permanent")
        .unwrap();
    let link = topology.gateway_1.run("cat /sys/class/net/lan/address").unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("pktgen");
    let report = |destination: &str, options: &str| -> Value {
        let file = gateway.folder().join("report.json");
        let line = format!(
            "{scripts}/measure --json {file} --penstock {penstock}\u{a0}--socket\u{a0}{socket} -- \
             {scripts}/pktgen -i eth0 -d {destination} -m {mac} -n {PACKETS} -w 200000 {options}",
            scripts = scripts.display(),
            file = file.display(),
            penstock = built("penstock").unwrap().display(),
            socket = gateway.folder().join("control.sock").display(),
            mac = link.trim(),
        );
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let mut command = topology.host_a.command(words.next().unwrap());
        // One word with spaces: how the command line is called.
        command.args(words.map(|word| word.replace('\u{a0}', " ")));
        let printed = bench::namespace::run(&mut command).unwrap();
        assert!(printed.contains("| sent_packets | 2000 |"), "{printed}");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    let count = |report: &Value, name: &str| report[name].as_u64().unwrap_or_default();
    let dropped = |report: &Value| -> u64 {
        let reasons = report["dropped_packets"].as_object().unwrap();
        reasons.values().filter_map(Value::as_u64).sum()
    };

    let carried = report("10.2.0.0/24", "-S 10.1.0.0/25 -F 64");
    let received = count(&carried, "received_packets");
    assert!((PACKETS / 2..=PACKETS).contains(&received), "{carried}");
    assert_eq!(
        count(&carried, "transmitted_packets") + dropped(&carried),
        received,
        "{carried}"
    );
    assert!(
        count(&carried, "transmitted_packets") >= received * 9 / 10,
        "{carried}"
    );

    // Nowhere to go: refused, each with its reason.
    let refused = report("10.99.0.0/24", "-S 10.1.0.0/25");
    let received = count(&refused, "received_packets");
    assert!(received >= PACKETS / 2, "{refused}");
    assert!(
        count(&refused["dropped_packets"], "no_route") >= received,
        "{refused}"
    );
}
