//! Two endpoints over a clean network: what each option negotiates.

mod network;

use std::time::Duration;

use ike::{Childless, Event};
use network::{connection, network_of, pair};
use southbound::SaDirection;

const SOON: Duration = Duration::from_secs(3);

#[test]
fn preshared_keys_bring_up_a_tunnel() {
    let mut net = pair(1, |_, _| {});
    net.run(SOON);
    net.assert_agreement(1);
    for host in [0, 1] {
        assert_eq!(net.count(host, |e| matches!(e, Event::IkeUp { .. })), 1);
        assert_eq!(net.count(host, |e| matches!(e, Event::ChildUp { .. })), 1);
    }
    let inbound = net.hosts[1]
        .dataplane
        .installed
        .values()
        .find(|s| s.direction == SaDirection::Inbound)
        .unwrap();
    assert_eq!(inbound.selectors.len(), 1);
    assert_eq!(inbound.selectors[0].local.addresses.first, network_of(1).start);
    assert_eq!(inbound.udp, None);
}

#[test]
fn childless_initiation_then_a_child() {
    let mut net = pair(2, |_, c| c.childless = Childless::Prefer);
    net.run(SOON);
    net.assert_agreement(1);
    let _ = connection(0);
}
