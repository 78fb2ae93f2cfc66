//! Penstock on drivers that grant zero-copy: gateway 1 of the two sites runs in a virtual machine with
//! emulated NICs, gateway 2 in a namespace as ever. Run by `make test-vm`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod machine;

use bench::topology::{Links, Topology};
use machine::{Machine, Model};

/// The two sites with a machine where gateway 1 was.
struct Site {
    machine: Machine,
    topology: Topology,
}

impl Site {
    fn boot(stem: &str, model: Model) -> Self {
        let topology = Topology::new(stem, Links::default()).unwrap();
        let machine = Machine::boot(&topology.gateway_1, model);
        Self { machine, topology }
    }
}

#[test]
fn the_machine_stands_between_both_networks() {
    for (stem, model) in [("vm-i", Model::Igb), ("vm-v", Model::Virtio)] {
        let site = Site::boot(stem, model);
        let release = site.machine.run("uname -r");
        assert!(release.starts_with("7."), "{release}");
        println!("{}", site.machine.run("cat /proc/uptime; ip addr; ethtool -i lan; ethtool -l lan; ldd /mnt/programs/penstock-dataplane"));
        site.topology.host_a.run("ping -c 1 -W 10 10.1.0.1").unwrap();
        site.topology.host_a.run("ping -c 1 -W 10 198.51.100.1").unwrap();
        let unbound = site.machine.unbind("wan");
        site.machine.bind("wan", &unbound);
        site.machine.set_cable("lan", false);
        site.topology.host_a.run("ping -c 1 -W 1 10.1.0.1").unwrap_err();
        site.machine.set_cable("lan", true);
        site.topology.host_a.run("ping -c 5 -W 10 10.1.0.1").unwrap();
    }
}
