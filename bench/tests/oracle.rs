//! The running gateway against an independent peer: scapy's IPsec layer and ESP written from the RFCs'
//! text, for every transform, both modes, all families, with and without UDP and extended sequence
//! numbers.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use bench::gateway::{Dataplane, Gateway};
use bench::topology::{Links, Topology};
use serde_json::{Value, json};
use southbound::{Encryption, Integrity, Transform};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// One SA pair and how it is exercised.
#[derive(Clone, Debug)]
struct Case {
    transform: Transform,
    transport: bool,
    outer: Family,
    inner: Family,
    udp: bool,
    extended: bool,
    traffic_flow_padding: u32,
}

impl Case {
    fn tunnel(transform: Transform) -> Self {
        Self {
            transform,
            transport: false,
            outer: Family::V4,
            inner: Family::V4,
            udp: false,
            extended: false,
            traffic_flow_padding: 0,
        }
    }

    fn name(&self) -> String {
        let mode = if self.transport { "transport" } else { "tunnel" };
        let udp = if self.udp { " in UDP" } else { "" };
        let extended = if self.extended { " ESN" } else { "" };
        let padding = if self.traffic_flow_padding > 0 { " TFC" } else { "" };
        format!(
            "{} {mode} {:?} in {:?}{udp}{extended}{padding}",
            self.transform, self.inner, self.outer
        )
    }
}

fn transforms() -> Vec<Transform> {
    Encryption::ALL
        .into_iter()
        .flat_map(|encryption| {
            std::iter::once(None)
                .chain(Integrity::ALL.map(Some))
                .filter_map(move |integrity| Transform::new(encryption, integrity).ok())
        })
        .collect()
}

/// Every transform plainly and with extended sequence numbers; one of each family in every mode.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for transform in transforms() {
        cases.push(Case::tunnel(transform));
        cases.push(Case {
            extended: true,
            ..Case::tunnel(transform)
        });
    }
    for name in [
        "aes128gcm16",
        "chacha20poly1305",
        "aes256-sha256",
        "aes128ctr-sha1",
        "aes256gmac",
    ] {
        let tunnel = Case::tunnel(name.parse().unwrap());
        cases.push(Case {
            traffic_flow_padding: 100,
            ..tunnel.clone()
        });
        for udp in [false, true] {
            for outer in [Family::V4, Family::V6] {
                for inner in [Family::V4, Family::V6] {
                    cases.push(Case {
                        outer,
                        inner,
                        udp,
                        ..tunnel.clone()
                    });
                }
                cases.push(Case {
                    outer,
                    inner: outer,
                    udp,
                    transport: true,
                    ..tunnel.clone()
                });
            }
        }
    }
    cases
}

/// Keys that differ for each case and direction; secrecy does not matter here, a failing run repeats.
fn key_hex(case: usize, direction: u8, length_bytes: usize) -> String {
    let distinct = [(case >> 8) as u8, case as u8, direction];
    (0..length_bytes).fold(String::new(), |mut text, index| {
        let byte = distinct
            .get(index)
            .copied()
            .unwrap_or((index * 37 + case * 11) as u8);
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The addresses of case `number`: peer, gateway, inside, host.
fn addresses(case: &Case, number: usize) -> [String; 4] {
    // A transport SA needs a peer of its own, for its selectors are the peers' addresses.
    let peer = if case.transport { 100 + number % 100 } else { 2 };
    let (peer, gateway) = match case.outer {
        Family::V4 => (format!("198.51.100.{peer}"), "198.51.100.1"),
        Family::V6 => (format!("2001:db8:77::{peer:x}"), "2001:db8:77::1"),
    };
    let (inside, host) = match case.inner {
        Family::V4 => (format!("10.100.0.{number}"), "10.1.0.10"),
        Family::V6 => (format!("fd64::{number:x}"), "fd01::10"),
    };
    [peer, gateway.to_owned(), inside, host.to_owned()]
}

fn configuration(cases: &[Case]) -> (String, Vec<(String, String)>, Vec<Value>) {
    // The transport cases are rules of the SPD, the tunnel cases are routes: what no rule names follows them.
    let mut text = String::from(
        "[gateway]\npolicy_default = \"bypass\"\n\n[[port]]\ninterface = \"lan\"\nrole = \"protected\"\n\n[[port]]\ninterface = \"wan\"\nrole = \"internet\"\n",
    );
    let (mut secrets, mut plan) = (Vec::new(), Vec::new());
    for (index, case) in cases.iter().enumerate() {
        let number = index + 1;
        let [peer, gateway, inside, host] = addresses(case, number);
        let key_bytes = case.transform.key_bytes();
        let (to_gateway, from_gateway) = (key_hex(number, 0, key_bytes), key_hex(number, 1, key_bytes));
        let (spi_in, spi_out) = (0x1_0000 + number, 0x2_0000 + number);
        let (mode, traffic) = if case.transport {
            (
                "transport",
                format!(
                    "policy = true\nlocal_ts = [\"{gateway}\"]\nremote_ts = [\"{peer}\"]\nhost_routes = [\"{peer}\"]"
                ),
            )
        } else {
            (
                "tunnel",
                format!("local_ts = [\"{host}\"]\nremote_ts = [\"{inside}\"]\nroutes = [\"{inside}\"]"),
            )
        };
        let udp = if case.udp {
            "udp_encapsulation = { local_port = 4500, remote_port = 4500 }"
        } else {
            ""
        };
        write!(
            text,
            r#"
[[tunnel]]
name = "case-{number}"
mode = "{mode}"
local = "{gateway}"
remote = "{peer}"
{traffic}
{udp}
[[tunnel.sa]]
spi_in = {spi_in}
spi_out = {spi_out}
algorithm = "{}"
key_in_file = "{{folder}}/in-{number}"
key_out_file = "{{folder}}/out-{number}"
esn = {}
"#,
            case.transform, case.extended
        )
        .unwrap();
        plan.push(json!({
            "name": case.name(), "algorithm": case.transform.to_string(),
            "transport": case.transport, "udp": case.udp, "extended": case.extended,
            "peer": peer, "gateway": gateway, "inside": inside, "host": host,
            "key_to_gateway": to_gateway, "key_from_gateway": from_gateway,
            "spi_to_gateway": spi_in, "spi_from_gateway": spi_out,
            "traffic_flow_padding": case.traffic_flow_padding,
        }));
        secrets.push((format!("in-{number}"), to_gateway));
        secrets.push((format!("out-{number}"), from_gateway));
    }
    (text, secrets, plan)
}

#[test]
fn every_transform_and_mode_agrees_with_an_independent_peer() {
    let cases = cases();
    let topology = Topology::new("oracle", Links::default()).unwrap();
    let peer = &topology.gateway_2;
    for (index, case) in cases.iter().enumerate().filter(|(_, case)| case.transport) {
        let [address, ..] = addresses(case, index + 1);
        let length = if case.outer == Family::V4 { 24 } else { 64 };
        peer.ip(&format!("addr add {address}/{length} dev wan")).unwrap();
    }
    // The peer's own kernel has no ESP and would say so.
    peer.run("nft add table inet quiet").unwrap();
    peer.run("nft add chain inet quiet input { type filter hook input priority 0 ; }")
        .unwrap();
    peer.run("nft add rule inet quiet input meta l4proto esp drop")
        .unwrap();
    peer.run("nft add rule inet quiet input udp dport 4500 drop")
        .unwrap();

    let (text, secrets, plan) = configuration(&cases);
    let secrets: Vec<_> = secrets
        .iter()
        .map(|(name, secret)| (name.as_str(), secret.as_str()))
        .collect();
    let gateway = Gateway::start(&topology.gateway_1, &text, &secrets, Dataplane::default()).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/exchange.py");
    let mut command = peer.command("/usr/bin/python3");
    command
        .arg(script)
        .arg("wan")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut oracle = command.spawn().unwrap();
    oracle
        .stdin
        .take()
        .unwrap()
        .write_all(Value::from(plan).to_string().as_bytes())
        .unwrap();
    let output = oracle.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed");

    let results: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results.len(), cases.len());
    let wrong: Vec<_> = results
        .iter()
        .filter(|result| !result["error"].is_null())
        .map(|result| format!("{}: {}", result["name"], result["error"]))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} exchanges are wrong:\n{}\n{}\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n"),
        gateway.penstock(&["show", "drops"]).unwrap_or_default(),
        gateway.logs()
    );
}
