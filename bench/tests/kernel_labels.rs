//! Labels against the kernel's own: gateway 1 is a PE of `mpls_router`, `mpls_iptunnel` and VRF devices; Penstock in the
//! place of gateway 2 is the other PE, and the P router between two VRFs of the kernel's.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::machine::has_kernel_modules;
use bench::process::wait_until;
use bench::topology::{Links, Topology};

const LIMIT: Duration = Duration::from_secs(60);

const MODULES: &[&str] = &["mpls_router", "mpls_iptunnel", "vrf", "dummy", "veth"];

/// PE of `red` (label 2001, host B behind it); P router for the labels from 400 on.
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
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [1000, 1001] }]
[[route]]
vrf = "red"
prefix = "fd01::/64"
next_hops = [{ interface = "wan", gateway = "2001:db8:77::1", labels = [1001] }]
[[label]]
label = 300
action = "pop"
[[label]]
label = 400
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [500] }]
[[label]]
label = 401
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [501] }]
[[label]]
label = 410
next_hops = [{ interface = "wan", gateway = "198.51.100.1" }]
[[label]]
label = 420
next_hops = [{ interface = "wan", gateway = "198.51.100.1", labels = [1000, 501] }]
"#;

/// The kernel's VRFs: `red` with host A behind `lan`, `blue` with an address of its own. Labels of its own: 1000 ends at
/// this router, 1001 and 501 are `red`, 500 is `blue`.
const KERNEL: &[&str] = &[
    "link add red type vrf table 10",
    "link set red up",
    "link set lan master red",
    "addr replace fd01::1/64 dev lan nodad",
    "link add blue type vrf table 20",
    "link set blue up",
    "link add inner type dummy",
    "link set inner master blue",
    "link set inner up",
    "addr add 10.3.0.1/24 dev inner",
    "addr add fd03::1/64 dev inner nodad",
    "-f mpls route add 1000 dev lo",
    "-f mpls route add 1001 dev red",
    "-f mpls route add 500 dev blue",
    "-f mpls route add 501 dev red",
    "-6 route add fd02::/64 table 10 encap mpls 2001 via inet6 2001:db8:77::2 dev wan",
    "route add 10.3.0.0/24 table 10 encap mpls 400 via inet 198.51.100.2 dev wan",
    "-6 route add fd03::/64 table 10 encap mpls 400 via inet6 2001:db8:77::2 dev wan",
    "-6 route add fd01::/64 table 20 encap mpls 401 via inet6 2001:db8:77::2 dev wan",
];

/// What the kernel puts on the way to host B, for Penstock as the egress PE.
const EGRESS: &[(&str, &str)] = &[
    ("the VPN label alone", "2001"),
    ("a transport label that ends here", "300/2001"),
    ("explicit null above the VPN label", "0/2001"),
];

/// What the kernel puts on the way back from `blue` to `red`, for Penstock as the P router.
const TRANSIT: &[(&str, &str)] = &[
    ("swapped", "401"),
    ("swapped beneath nothing, the VPN label untouched", "410/501"),
    ("swapped and pushed upon", "420"),
];

#[test]
fn the_kernels_labels_and_ours_understand_each_other() {
    if !has_kernel_modules(MODULES, "the_kernels_labels_and_ours_understand_each_other") {
        return;
    }
    let topology = Topology::new("mpls", Links::default()).unwrap();
    let kernel = &topology.gateway_1;
    for line in KERNEL {
        if line.starts_with("-f mpls") {
            kernel.sysctl("net.mpls.platform_labels", "10000").unwrap();
            for interface in ["lo", "wan"] {
                kernel
                    .sysctl(&format!("net.mpls.conf.{interface}.input"), "1")
                    .unwrap();
            }
        }
        kernel.ip(line).unwrap();
    }
    for interface in ["all", "lan", "wan"] {
        kernel
            .sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0")
            .unwrap();
    }
    let gateway = Gateway::start(&topology.gateway_2, CONFIGURATION, &[], Dataplane::default()).unwrap();
    let reaches = |what: &str, address: &str| {
        let is_reached = wait_until(LIMIT, || {
            topology.host_a.run(&format!("ping -c 1 -W 2 {address}")).is_ok()
        });
        assert!(
            is_reached,
            "no answer from {address}: {what}\n{}\n{}\n{:?}",
            gateway.penstock(&["show", "drops"]).unwrap(),
            gateway.penstock(&["show", "mpls"]).unwrap(),
            [
                "-f mpls route",
                "route show table 10",
                "route show table 20",
                "-s link show wan"
            ]
            .map(|line| kernel.ip(line)),
        );
        // Sizes from the least to the largest that fits under the labels.
        for size in [0, 1400] {
            topology
                .host_a
                .run(&format!("ping -q -c 10 -i 0.02 -W 10 -s {size} {address}"))
                .unwrap_or_else(|error| panic!("{what}, {size} bytes: {error}"));
        }
    };
    // The kernel's push, our pop into the VRF; and back, our push, the kernel's pop into its VRF.
    for (what, stack) in EGRESS {
        kernel
            .ip(&format!(
                "route replace 10.2.0.0/24 table 10 encap mpls {stack} via inet 198.51.100.2 dev wan"
            ))
            .unwrap();
        reaches(what, "10.2.0.10");
    }
    reaches("IPv6 under the VPN label", "fd02::10");
    // Through us from one VRF of the kernel's to the other and back.
    for (what, stack) in TRANSIT {
        kernel
            .ip(&format!(
                "route replace 10.1.0.0/24 table 20 encap mpls {stack} via inet 198.51.100.2 dev wan"
            ))
            .unwrap();
        reaches(what, "10.3.0.1");
    }
    reaches("IPv6, swapped", "fd03::1");

    let labels = gateway.json(&["show", "mpls"]).unwrap();
    for label in [2001, 300, 400, 401, 410, 420] {
        let used = labels["labels"].as_array().unwrap().iter().any(|record| {
            record["label"] == label && record["packets"].as_u64().is_some_and(|packets| packets >= 20)
        });
        assert!(used, "label {label}: {labels}");
    }
}
