//! Labels against the kernel's own: the machine is a PE with `mpls_router`, `mpls_iptunnel` and VRF devices, and Penstock
//! is the other PE, or the P router between two VRFs of the machine.

use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::process::wait_until;
use bench::topology::{Links, Topology};

use crate::machine::{Machine, Model};

/// Penstock in the place of gateway 2: PE of `red`, and P router for the labels 400 and 401.
const CONFIGURATION: &str = r#"
[gateway]
name = "pe-2"
[[vrf]]
name = "red"
table = 10
label = 2001
[[port]]
interface = "lan"
role = "protected"
vrf = "red"
[[port]]
interface = "wan"
role = "internet"
mpls = true
[[route]]
vrf = "red"
prefix = "10.1.0.0/24"
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [1001] }]
[[label]]
label = 300
action = "pop"
[[label]]
label = 400
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [500] }]
[[label]]
label = 401
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [501] }]
"#;

/// The machine's VRFs: `red` with host A behind `lan`, `blue` with an address of its own.
const KERNEL: &[&str] = &[
    "modprobe -a mpls_router mpls_iptunnel vrf dummy",
    "sysctl -qw net.mpls.platform_labels=10000 net.mpls.conf.wan.input=1",
    "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.lan.rp_filter=0 net.ipv4.conf.wan.rp_filter=0",
    "ip link add red type vrf table 10 && ip link set red up && ip link set lan master red",
    "ip addr replace 10.1.0.1/24 dev lan",
    "ip link add blue type vrf table 20 && ip link set blue up",
    "ip link add inner type dummy && ip link set inner master blue && ip link set inner up",
    "ip addr add 10.3.0.1/24 dev inner",
    "ip -f mpls route add 1001 dev red",
    "ip -f mpls route add 500 dev blue",
    "ip -f mpls route add 501 dev red",
    "ip route add 10.3.0.0/24 table 10 encap mpls 400 via inet 198.51.100.2 dev wan",
    "ip route add 10.1.0.0/24 table 20 encap mpls 401 via inet 198.51.100.2 dev wan",
];

#[test]
fn the_kernels_labels_and_ours_understand_each_other() {
    let topology = Topology::new("vm-mpls", Links::default()).unwrap();
    let machine = Machine::boot(&topology.gateway_1, Model::Virtio);
    for command in KERNEL {
        machine.run(command);
    }
    let gateway = Gateway::start(&topology.gateway_2, CONFIGURATION, &[], Dataplane::default()).unwrap();
    let reaches = |address: &str| {
        let is_up = wait_until(Duration::from_secs(60), || {
            topology.host_a.run(&format!("ping -c 1 -W 2 {address}")).is_ok()
        });
        assert!(
            is_up,
            "{address}\n{}\n{}\n{}",
            gateway.penstock(&["show", "drops"]).unwrap(),
            gateway.penstock(&["show", "mpls"]).unwrap(),
            machine.run("ip -f mpls route; ip route show table all; ip -s link show wan")
        );
    };
    // The kernel's push, our pop into the VRF; and back, our push, the kernel's pop into its VRF.
    let stacks = [
        ("the VPN label alone", "2001"),
        ("a transport label that ends here", "300/2001"),
        ("explicit null above the VPN label", "0/2001"),
    ];
    for (what, stack) in stacks {
        println!("{what}");
        machine.run(&format!(
            "ip route replace 10.2.0.0/24 table 10 encap mpls {stack} via inet 198.51.100.2 dev wan"
        ));
        reaches("10.2.0.10");
    }
    // Both ways through us as the P router: 400 becomes 500, 401 becomes 501.
    reaches("10.3.0.1");
    let labels = gateway.json(&["show", "mpls"]).unwrap();
    for label in [2001, 300, 400, 401] {
        let used = labels["labels"]
            .as_array()
            .unwrap()
            .iter()
            .any(|record| record["label"] == label && record["packets"].as_u64() > Some(0));
        assert!(used, "label {label}: {labels}");
    }
}
