//! Two running gateways that negotiate their tunnel by IKEv2.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::negotiated::{Negotiated, PSK_FILE};
use bench::process::wait_until;
use bench::topology::{Links, Topology};

const LIMIT: Duration = Duration::from_secs(15);
const SECRET: &str = "a-preshared-key-of-this-test-0123456789";

struct Sites {
    gateway_1: Gateway,
    gateway_2: Gateway,
    topology: Topology,
}

impl Sites {
    fn start(stem: &str, tunnel: &Negotiated, secrets: &[(&str, &str)]) -> Self {
        let topology = Topology::new(stem, Links::default()).unwrap();
        let start = |namespace, number| {
            let text = tunnel.configuration(number);
            Gateway::start(namespace, &text, secrets, Dataplane::default()).unwrap()
        };
        Self {
            gateway_1: start(&topology.gateway_1, 1),
            gateway_2: start(&topology.gateway_2, 2),
            topology,
        }
    }

    fn logs(&self) -> String {
        let show = |gateway: &Gateway| {
            let mut text = gateway.logs();
            for noun in ["ike", "sa", "tunnels", "drops"] {
                text += &gateway
                    .penstock(&["show", noun])
                    .unwrap_or_else(|error| error.to_string());
            }
            text
        };
        format!("{}\n{}", show(&self.gateway_1), show(&self.gateway_2))
    }

    /// Traffic both ways over both families.
    fn assert_joined(&self) {
        let Topology { host_a, host_b, .. } = &self.topology;
        for (host, target) in [
            (host_a, "10.2.0.10"),
            (host_a, "fd02::10"),
            (host_b, "10.1.0.10"),
            (host_b, "fd01::10"),
        ] {
            assert!(
                wait_until(LIMIT, || answers(host, target)),
                "no answer from {target}\n{}",
                self.logs()
            );
        }
    }
}

fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}

#[test]
fn traffic_brings_a_preshared_tunnel_up() {
    let sites = Sites::start("ike-psk", &Negotiated::preshared(), &[(PSK_FILE, SECRET)]);
    sites.assert_joined();
    let shown = sites.gateway_1.json(&["show", "ike"]).unwrap();
    assert_eq!(shown["ike"][0]["state"], "established", "{shown}");
    for (arguments, expected) in [
        (&["rekey", "site-2", "site-2"][..], "site-2 of site-2 is renewed"),
        (&["rekey", "site-2"], "the IKE SA of site-2 is renewed"),
        (&["down", "site-2"], "site-2 is down"),
        (&["up", "site-2"], "site-2 is up"),
    ] {
        let said = sites
            .gateway_1
            .penstock(arguments)
            .unwrap_or_else(|error| panic!("{error}\n{}", sites.logs()));
        assert!(said.contains(expected), "{arguments:?}: {said}");
        sites.assert_joined();
    }
}
