//! Penstock on drivers that grant zero-copy: gateway 1 of the two sites runs in a virtual machine with
//! emulated NICs, gateway 2 in a namespace as ever. Run by `make test-vm`.
//!
//! Nothing here says anything about speed: every instruction of the machine is emulated.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod gateway;
mod kernel_esp;
mod libreswan;
mod machine;
mod peers;

use bench::eavesdropper::{Eavesdropper, Kind};
use bench::gateway::{Dataplane, Gateway as HostGateway};
use bench::namespace::Namespace;
use bench::site_to_site::SiteToSite;
use bench::topology::{Links, Topology};
use gateway::Gateway;
use machine::{Machine, Model, QUEUES};
use serde_json::json;

const HOST_B: [&str; 2] = ["10.2.0.10", "fd02::10"];

/// Echo requests of each size and to each queue.
const ECHOES: u64 = 20;

/// The two sites with a machine where gateway 1 was, and Penstock on both.
struct Sites {
    _gateway_2: HostGateway,
    machine: Machine,
    topology: Topology,
    tunnel: SiteToSite,
}

impl Sites {
    fn boot(stem: &str, model: Model) -> Self {
        let topology = Topology::new(stem, Links::default()).unwrap();
        let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
        let machine = Machine::boot(&topology.gateway_1, model);
        let gateway_2 = HostGateway::start(
            &topology.gateway_2,
            &tunnel.configuration(2),
            &tunnel.secrets(),
            Dataplane::default(),
        )
        .unwrap();
        Self {
            _gateway_2: gateway_2,
            machine,
            topology,
            tunnel,
        }
    }

    fn configuration(&self, require_zero_copy: bool) -> String {
        let role = "\nrole = ";
        let required = format!("\nrequire_zero_copy = {require_zero_copy}{role}");
        self.tunnel.configuration(1).replace(role, &required)
    }

    fn start(&self, require_zero_copy: bool, arguments: &str) -> Gateway<'_> {
        let gateway = Gateway::start(
            &self.machine,
            &self.configuration(require_zero_copy),
            &self.tunnel.secrets(),
            arguments,
        );
        self.wait_for_answers(&gateway);
        gateway
    }

    fn wait_for_answers(&self, gateway: &Gateway) {
        for host in HOST_B {
            gateway.wait_for(&format!("an answer from {host}"), || self.answers(host));
        }
    }

    fn answers(&self, host: &str) -> bool {
        answers(&self.topology.host_a, host)
    }
}

fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}

/// How many echo requests of a host have had no reply. Its kernel knows: ping itself waits for the last one
/// only twice as long as the others took.
fn unanswered(host: &Namespace) -> i64 {
    let count = |name: &str| -> i64 {
        let table = host.run(&format!("nstat -asz {name}")).unwrap();
        let row = table.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        row.split_whitespace().next().unwrap().parse().unwrap()
    };
    count("IcmpOutEchos") - count("IcmpInEchoReps")
}

/// Asserts that both ports are up, and that every queue of both was granted `mode`.
fn assert_granted(gateway: &Gateway, mode: &str) {
    for interface in ["lan", "wan"] {
        let port = gateway.port(interface);
        assert_eq!(port["state"], "up", "{port}\n{}", gateway.situation());
        assert_eq!(port["xdp"], "driver", "{port}");
        assert_eq!(port["queues"], json!(vec![mode; usize::from(QUEUES)]), "{port}");
    }
}

fn wait_for_balance(gateway: &Gateway) {
    gateway.wait_for("frames and packets to balance", || gateway.is_balanced());
}

/// Encrypted traffic by every queue of both ports, none of it lost, nothing in clear on the internet.
fn carry_traffic(sites: &Sites, gateway: &Gateway) {
    let host = &sites.topology.host_a;
    let esp = |queue: u16| -> [u64; 2] {
        let worker = &gateway.show("workers")[usize::from(queue)];
        ["esp_out_packets", "esp_in_packets"].map(|name| worker[name].as_u64().unwrap())
    };
    let file = std::env::temp_dir().join(format!("{}.pcap", sites.topology.internet.name()));
    let ear = Eavesdropper::listen(&sites.topology.internet, "g1", &file, 2000).unwrap();
    let unanswered_before = unanswered(host);
    for queue in 0..QUEUES {
        // The hash key is a random one, so the whole table of the hash's results names one queue at a time.
        for interface in ["lan", "wan"] {
            sites
                .machine
                .run(&format!("ethtool -X {interface} start {queue} equal 1"));
        }
        let before = esp(queue);
        // "PENSTOCK" again and again, in sizes that share a frame's first bytes and that fill it.
        for size in [56, 1200] {
            let ping = format!(
                "ping -q -c {ECHOES} -i 0.02 -W 5 -s {size} -p 50454e53544f434b {}",
                HOST_B[0]
            );
            host.run(&ping)
                .unwrap_or_else(|error| panic!("{error}\n{}", gateway.situation()));
        }
        gateway.wait_for("the last replies", || unanswered(host) <= unanswered_before);
        let [sealed, opened] = esp(queue);
        // Worker i has queue i alone.
        assert!(
            sealed >= before[0] + 2 * ECHOES && opened >= before[1] + 2 * ECHOES,
            "queue {queue}: {before:?} to {sealed}, {opened}\n{}",
            gateway.situation()
        );
    }
    let capture = ear.finish().unwrap();
    std::fs::remove_file(file).unwrap();
    let expected = usize::from(QUEUES) * 2 * 2 * usize::try_from(ECHOES).unwrap();
    assert!(
        capture.count(Kind::Esp) >= expected,
        "{} ESP packets of {expected}",
        capture.count(Kind::Esp)
    );
    assert_eq!(capture.count(Kind::Clear), 0);
    assert!(!capture.contains(b"PENSTOCK"));
    wait_for_balance(gateway);
}

/// Cables, interfaces and drivers go and return; both daemons stay, and traffic with them.
fn survive(sites: &Sites, gateway: &Gateway) {
    let machine = &sites.machine;
    let processes = gateway.processes();
    for interface in ["wan", "lan"] {
        machine.set_cable(interface, false);
        gateway.wait_for("a port without carrier", || {
            gateway.port(interface)["state"] == "down"
        });
        assert!(!sites.answers(HOST_B[0]));
        machine.set_cable(interface, true);
        sites.wait_for_answers(gateway);

        machine.run(&format!("ip link set {interface} down"));
        gateway.wait_for("a port that is down", || {
            gateway.port(interface)["state"] == "down"
        });
        assert!(!sites.answers(HOST_B[0]));
        machine.bring_up(interface);
        sites.wait_for_answers(gateway);
        assert_granted(gateway, "zero-copy");

        let rebinds = gateway.port(interface)["rebinds"].as_u64().unwrap();
        let unbound = machine.unbind(interface);
        gateway.wait_for("a port without a device", || {
            gateway.port(interface)["state"] == "absent"
        });
        assert!(!sites.answers(HOST_B[0]));
        machine.bind(interface, &unbound);
        sites.wait_for_answers(gateway);
        assert_granted(gateway, "zero-copy");
        assert!(gateway.port(interface)["rebinds"].as_u64().unwrap() > rebinds);
    }
    assert_eq!(gateway.processes(), processes);
    carry_traffic(sites, gateway);
}

#[test]
fn igb_carries_encrypted_traffic_without_copies_on_four_queues() {
    let sites = Sites::boot("vm-igb", Model::Igb);
    let gateway = sites.start(false, "");
    assert_granted(&gateway, "zero-copy");
    carry_traffic(&sites, &gateway);
}

#[test]
fn virtio_carries_encrypted_traffic_without_copies_on_four_queues() {
    let sites = Sites::boot("vm-virtio", Model::Virtio);
    let gateway = sites.start(false, "");
    assert_granted(&gateway, "zero-copy");
    carry_traffic(&sites, &gateway);
}

#[test]
fn fault_73_igb_links_flap_and_its_driver_returns_under_required_zero_copy() {
    let sites = Sites::boot("vm-igb-flap", Model::Igb);
    let gateway = sites.start(true, "");
    survive(&sites, &gateway);
}

#[test]
fn fault_73_virtio_links_flap_and_its_driver_returns_under_required_zero_copy() {
    let sites = Sites::boot("vm-vio-flap", Model::Virtio);
    let gateway = sites.start(true, "");
    survive(&sites, &gateway);
}

#[test]
fn a_driver_that_copies_is_reported_so_and_refused_where_zero_copy_is_required() {
    let sites = Sites::boot("vm-copy", Model::VirtioWithoutIommuPlatform);
    let gateway = sites.start(false, "");
    assert_granted(&gateway, "copy");
    carry_traffic(&sites, &gateway);

    gateway.configure(&sites.configuration(true));
    gateway.ask("reload").unwrap();
    for interface in ["lan", "wan"] {
        gateway.wait_for("a refused port", || gateway.port(interface)["state"] == "refused");
        let port = gateway.port(interface);
        let error = port["error"].as_str().unwrap_or_default();
        assert!(error.contains("zero-copy is required"), "{port}");
    }
    let log = gateway.situation();
    assert!(
        log.contains("ERROR") && log.contains("port refused: zero-copy is required"),
        "{log}"
    );
    assert!(!sites.answers(HOST_B[0]));
}
