//! One tunnel over two workers, each with Child SAs of its own (RFC 9611).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::negotiated::{Negotiated, PSK_FILE};
use bench::process::wait_until;
use bench::topology::{Links, Topology};

const LIMIT: Duration = Duration::from_secs(20);
const SECRET: &str = "a-preshared-key-of-this-test-0123456789";
/// Hosts behind gateway 2: as many flows, which the links' queues share by their hash.
const HOSTS: u8 = 16;
const ECHOES_PER_HOST: u32 = 250;

/// By worker, the SPI of its own outbound SA and the packets sent with it.
fn own(gateway: &Gateway) -> BTreeMap<u64, (String, u64)> {
    let shown = gateway.json(&["show", "sa"]).unwrap();
    let sas = shown["sas"].as_array().unwrap();
    sas.iter()
        .filter_map(|sa| {
            let spi = sa["spi"].as_str().unwrap().to_owned();
            Some((sa["worker"].as_u64()?, (spi, sa["packets"].as_u64().unwrap())))
        })
        .collect()
}

fn both_send(gateway: &Gateway) -> bool {
    let own = own(gateway);
    own.keys().eq(&[0, 1]) && own.values().all(|(_, packets)| *packets > 50)
}

/// Sends echo requests to every host behind gateway 2 while `meanwhile` goes on; how many got no answer.
fn lost_during(from: &Namespace, meanwhile: impl FnOnce()) -> u32 {
    let pings: Vec<_> = (0..HOSTS)
        .map(|host| {
            let mut command = from.command("ping");
            command.args(["-q", "-i", "0.02", "-W", "3", "-c", &ECHOES_PER_HOST.to_string()]);
            command.arg(format!("10.2.0.{}", 100 + host));
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    meanwhile();
    let lost = pings.into_iter().map(|ping| {
        let output = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
        let received = output
            .lines()
            .find_map(|line| line.split(", ").find_map(|part| part.strip_suffix(" received")))
            .and_then(|received| received.parse::<u32>().ok());
        ECHOES_PER_HOST - received.unwrap_or_else(|| panic!("no summary in {output:?}"))
    });
    lost.sum()
}

#[test]
fn both_workers_carry_one_tunnel_and_renewals_lose_nothing() {
    let links = Links {
        queues: 2,
        ..Links::default()
    };
    let topology = Topology::new("per-worker", links).unwrap();
    for host in 0..HOSTS {
        let address = 100 + host;
        topology
            .host_b
            .ip(&format!("addr add 10.2.0.{address}/24 dev eth0"))
            .unwrap();
    }
    let tunnel = Negotiated {
        child_lines: "per_worker = true\n".to_owned(),
        ..Negotiated::preshared()
    };
    let start = |namespace, number| {
        let options = Dataplane {
            cores: vec![0, 1],
            frames_per_worker: 4096,
            ..Dataplane::default()
        };
        let text = tunnel.configuration(number);
        Gateway::start(namespace, &text, &[(PSK_FILE, SECRET)], options).unwrap()
    };
    let (gateway_1, gateway_2) = (start(&topology.gateway_1, 1), start(&topology.gateway_2, 2));
    let logs = || {
        let show = |gateway: &Gateway| {
            ["sa", "drops", "workers"].map(|noun| {
                gateway
                    .penstock(&["show", noun])
                    .unwrap_or_else(|error| error.to_string())
            })
        };
        format!(
            "{}\n{}\n{:?}\n{:?}",
            gateway_1.logs(),
            gateway_2.logs(),
            show(&gateway_1),
            show(&gateway_2)
        )
    };
    let host = &topology.host_a;
    assert!(
        wait_until(LIMIT, || host.run("ping -c 1 -W 1 10.2.0.10").is_ok()),
        "no tunnel\n{}",
        logs()
    );
    // The workers ask for SAs of their own, and go over to them, without a lost packet.
    let lost = lost_during(host, || {
        for gateway in [&gateway_1, &gateway_2] {
            assert!(
                wait_until(LIMIT, || both_send(gateway)),
                "a worker sends with no SA of its own\n{}",
                logs()
            );
        }
    });
    assert_eq!(lost, 0, "{}", logs());
    // Each pair is renewed, and stays with its worker.
    let before = own(&gateway_1);
    let lost = lost_during(host, || {
        gateway_1.penstock(&["rekey", "site-2", "site-2"]).unwrap();
        let is_renewed = || {
            let after = own(&gateway_1);
            both_send(&gateway_1)
                && both_send(&gateway_2)
                && after.iter().all(|(worker, (spi, _))| before[worker].0 != *spi)
        };
        assert!(wait_until(LIMIT, is_renewed), "not renewed\n{}", logs());
    });
    assert_eq!(lost, 0, "{}", logs());
    let shown = gateway_1.penstock(&["show", "drops"]).unwrap();
    assert!(!shown.contains("replayed"), "{shown}");
}
