//! Gateways and peers that move: NAT, MOBIKE, redirection, and authentication anew.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ike::Event;
use network::{Network, address, pair};
use southbound::SaDirection;

const SOON: Duration = Duration::from_secs(3);

#[test]
fn mobike_moves_the_initiator() {
    let mut net = pair(18, |host, c| {
        if host == 1 {
            c.remote_addresses.clear();
        }
    });
    net.run(SOON);
    let (old, new) = (address(0), "192.0.2.99".parse().unwrap());
    let now = net.now;
    net.hosts[0].endpoint.local_address_changed(now, old, new);
    net.run(SOON);
    assert_eq!(
        net.hosts[1].endpoint.ike_sas()[0].remote,
        SocketAddr::new(new, 4500)
    );
    for host in [0, 1] {
        let stale = net.hosts[host]
            .dataplane
            .installed
            .values()
            .filter(|s| s.local == old || s.remote == old);
        assert_eq!(stale.count(), 0, "host {host}");
    }
    net.assert_agreement(1);
}

#[test]
fn redirected_to_another_gateway() {
    let mut net = pair(23, |host, c| {
        if host == 1 {
            c.redirect_to = Some("198.51.100.77".parse().unwrap());
        }
    });
    net.filter = Some(Box::new(|_, transmit| {
        transmit.remote.ip() != "198.51.100.77".parse::<std::net::IpAddr>().unwrap()
    }));
    net.run(SOON);
    assert!(
        net.failures(0)[0].contains("redirected to 198.51.100.77"),
        "{:?}",
        net.failures(0)
    );
    assert_eq!(
        net.hosts[0].endpoint.ike_sas()[0].remote.ip(),
        "198.51.100.77".parse::<std::net::IpAddr>().unwrap()
    );
}

#[test]
fn reauthentication_is_made_before_the_old_sa_is_broken() {
    let mut net = pair(24, |host, c| {
        if host == 0 {
            c.reauthenticate_after = Some(Duration::from_secs(30));
        }
    });
    net.run(SOON);
    net.run_lossless(Duration::from_secs(40));
    assert_eq!(net.count(0, |e| matches!(e, Event::IkeUp { .. })), 2);
    assert_eq!(net.hosts[0].dataplane.selected.len(), 1);
    net.assert_agreement(1);
}

#[test]
fn either_end_may_authenticate_anew_what_the_other_one_began() {
    for seed in 0..8 {
        // Host 0 begins, host 1 authenticates anew.
        let mut net = pair(seed, |host, c| {
            if host == 1 {
                c.reauthenticate_after = Some(Duration::from_secs(5));
            }
        });
        net.run(SOON);
        net.run_lossless(Duration::from_secs(16));
        for host in [0, 1] {
            assert_eq!(
                net.count(host, |e| matches!(e, Event::IkeUp { .. })),
                4,
                "seed {seed}"
            );
            assert_eq!(net.hosts[host].dataplane.selected.len(), 1);
        }
    }
}

#[test]
fn a_nat_between_moves_to_port_4500_and_is_followed() {
    let mut net = pair(17, |host, c| {
        c.mobike = false;
        if host == 1 {
            c.remote_addresses.clear();
        }
        c.nat_keepalive = Duration::from_secs(5);
    });
    let outside = "203.0.113.7".parse().unwrap();
    net.nat = Some(network::NatBox {
        inside: SocketAddr::new(address(0), 0),
        outside,
        port_offset: 1000,
    });
    net.run(SOON);
    net.assert_agreement(1);
    let sa = &net.hosts[1].endpoint.ike_sas()[0];
    assert_eq!(sa.remote, SocketAddr::new(outside, 5500));
    assert_eq!(sa.nat, (false, true));
    let out = net.hosts[1]
        .dataplane
        .installed
        .values()
        .find(|s| s.direction == SaDirection::Outbound)
        .unwrap();
    assert_eq!(out.udp.unwrap().remote_port, 5500);
    // The NAT forgets: the next authenticated request moves the peer, its SAs with it.
    net.nat = Some(network::NatBox {
        inside: SocketAddr::new(address(0), 0),
        outside,
        port_offset: 2000,
    });
    net.run(Duration::from_secs(60));
    let sa = &net.hosts[1].endpoint.ike_sas()[0];
    assert_eq!(sa.remote, SocketAddr::new(outside, 6500));
    let out = net.hosts[1]
        .dataplane
        .installed
        .values()
        .find(|s| s.direction == SaDirection::Outbound)
        .unwrap();
    assert_eq!(out.udp.unwrap().remote_port, 6500);
    net.assert_agreement(1);
}

/// Addresses of the outer headers that either host has installed.
fn outer_addresses(net: &Network) -> Vec<IpAddr> {
    let specs = net
        .hosts
        .iter()
        .flat_map(|host| host.dataplane.installed.values());
    specs.flat_map(|spec| [spec.local, spec.remote]).collect()
}

#[test]
fn a_path_that_fails_is_left_for_another_address_of_the_peer() {
    // The responder has two addresses and says so (ADDITIONAL_IP4_ADDRESS); the way to the first one breaks.
    let second: IpAddr = "198.51.100.2".parse().unwrap();
    let mut net = pair(31, |host, c| {
        c.dpd_delay = Some(Duration::from_secs(5));
        if host == 1 {
            c.local_addresses.push(second);
            c.remote_addresses.clear();
        }
    });
    net.run(SOON);
    net.assert_agreement(1);
    net.filter = Some(Box::new(|_, transmit| {
        let broken = address(1);
        transmit.remote.ip() != broken && transmit.local.ip() != broken
    }));
    net.run(Duration::from_secs(120));
    net.assert_agreement(1);
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].remote.ip(), second);
    assert_eq!(net.hosts[1].endpoint.ike_sas()[0].local.ip(), second);
    assert!(!outer_addresses(&net).contains(&address(1)));
    assert_eq!(net.count(0, |e| matches!(e, Event::IkeDown { .. })), 0);
}

#[test]
fn where_no_path_is_left_the_peer_is_dead() {
    let mut net = pair(32, |host, c| {
        c.dpd_delay = Some(Duration::from_secs(5));
        if host == 1 {
            c.local_addresses.push("198.51.100.2".parse().unwrap());
            c.remote_addresses.clear();
        }
    });
    net.run(SOON);
    net.faults.drop = 100;
    net.run(Duration::from_secs(600));
    assert!(net.hosts[0].dataplane.installed.is_empty() && net.hosts[1].dataplane.installed.is_empty());
}

#[test]
fn a_peer_that_says_it_is_where_nobody_is_does_not_stay() {
    // RFC 4555 section 3.7: host 0 claims an address at which it cannot be reached. The COOKIE2 never comes back.
    let mut net = pair(33, |host, c| {
        c.dpd_delay = None;
        if host == 1 {
            c.remote_addresses.clear();
        }
    });
    net.run(SOON);
    let claimed: IpAddr = "203.0.113.200".parse().unwrap();
    let now = net.now;
    net.hosts[0]
        .endpoint
        .local_address_changed(now, address(0), claimed);
    let mut answered = false;
    net.filter = Some(Box::new(move |from, transmit| {
        // The answer to the update itself still arrives; nothing after it does.
        if from == 1 && transmit.remote.ip() == claimed {
            return !std::mem::replace(&mut answered, true);
        }
        true
    }));
    net.run(Duration::from_secs(300));
    assert!(
        net.hosts[1]
            .endpoint
            .ike_sas()
            .iter()
            .all(|sa| sa.remote.ip() != claimed)
    );
    assert!(
        net.hosts[1]
            .dataplane
            .installed
            .values()
            .all(|s| s.remote != claimed)
    );
}

#[test]
fn the_responder_moves_and_its_peer_finds_it() {
    let mut net = pair(34, |host, c| {
        c.dpd_delay = Some(Duration::from_secs(5));
        if host == 1 {
            c.remote_addresses.clear();
        }
    });
    net.run(SOON);
    let new: IpAddr = "198.51.100.9".parse().unwrap();
    let now = net.now;
    net.hosts[1].endpoint.local_address_changed(now, address(1), new);
    net.filter = Some(Box::new(|_, transmit| {
        transmit.remote.ip() != address(1) && transmit.local.ip() != address(1)
    }));
    net.run(Duration::from_secs(120));
    net.assert_agreement(1);
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].remote.ip(), new);
}

#[test]
fn an_established_peer_is_redirected_for_maintenance() {
    let mut net = pair(35, |_, _| {});
    net.run(SOON);
    let to: IpAddr = "198.51.100.77".parse().unwrap();
    let now = net.now;
    net.hosts[1].endpoint.redirect_peers(now, "peer", to);
    net.filter = Some(Box::new(move |_, transmit| transmit.remote.ip() != to));
    net.run(SOON);
    assert!(
        net.hosts[1].endpoint.ike_sas().is_empty(),
        "the old gateway is free"
    );
    assert!(net.hosts[1].dataplane.installed.is_empty());
    assert_eq!(net.hosts[0].endpoint.ike_sas()[0].remote.ip(), to);
}

#[test]
fn gateways_that_send_a_peer_in_circles_are_left() {
    let mut net = pair(36, |host, c| {
        if host == 1 {
            c.redirect_to = Some(address(1));
        }
    });
    net.run(Duration::from_secs(50));
    let redirects = net
        .failures(0)
        .iter()
        .filter(|f| f.contains("redirected"))
        .count();
    assert!((5..=8).contains(&redirects), "{redirects} redirects");
}

#[test]
fn a_peer_without_mobike_starts_over_from_its_new_address() {
    let mut net = pair(37, |host, c| {
        c.mobike = false;
        if host == 1 {
            c.remote_addresses.clear();
        }
    });
    net.run(SOON);
    let new: IpAddr = "192.0.2.99".parse().unwrap();
    let now = net.now;
    let mut moved = network::connection(0);
    moved.mobike = false;
    moved.local_addresses = vec![new];
    net.hosts[0].endpoint.add_connection(now, moved);
    net.hosts[0].endpoint.local_address_changed(now, address(0), new);
    net.run(Duration::from_secs(20));
    net.assert_agreement(1);
    assert_eq!(net.hosts[1].endpoint.ike_sas()[0].remote.ip(), new);
}

#[test]
fn esp_for_a_pair_that_the_peer_lost_brings_a_new_pair() {
    // An unprotected INVALID_SPI is a hint that only makes us ask for a sign of life.
    let mut net = pair(38, |_, _| {});
    net.run(SOON);
    let spi = net.hosts[0].endpoint.ike_sas()[0].children[0].spi_out;
    let header = ike::message::Header {
        initiator_spi: 7,
        responder_spi: 9,
        next_payload: 0,
        exchange: ike::message::ExchangeType::INFORMATIONAL,
        from_initiator: true,
        is_response: false,
        message_id: 0,
    };
    let notify = ike::payload::notify::NotifyPayload::status(
        ike::payload::notify::NotifyType::INVALID_SPI,
        spi.to_be_bytes().to_vec(),
    );
    let hint = ike::message::emit_message(&header, &[ike::payload::Payload::Notify(notify)]);
    net.run(Duration::from_secs(12));
    let before = net.sent;
    for _ in 0..50 {
        let (now, local, remote) = (
            net.now,
            SocketAddr::new(address(0), 500),
            SocketAddr::new(address(1), 500),
        );
        net.hosts[0].endpoint.handle_datagram(now, local, remote, &hint);
    }
    net.run(SOON);
    assert_eq!(
        net.sent - before,
        2,
        "one request and its answer, however many hints"
    );
    net.assert_agreement(1);
}
