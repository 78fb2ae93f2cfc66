//! Two endpoints over a clean network: what each option negotiates.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod certified;
mod network;

use std::time::Duration;

use certified::{by_certificate, certified, with_credentials};
use ike::{Childless, Connection, Event, Fragmentation, Identity, Ppk, RekeyTime, TrafficSelector, TsSide};
use network::{child, network_of, pair, psk};
use southbound::{Mode, SaDirection};

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
    assert!(inbound.extended_sequence_numbers);
}

#[test]
fn every_family_of_algorithms() {
    let suites = [
        ("aes128gcm16-prfsha256-modp2048", "aes128gcm16-modp2048-noesn"),
        ("aes256-sha1-modp1024", "aes256-sha1-none"),
        ("3des-sha1-modp1536", "aes128-sha1-noesn"),
        ("chacha20poly1305-prfsha512-ecp521", "chacha20poly1305-ecp521"),
        ("aes192ctr-sha384-ecp384", "aes192ctr-sha384"),
        ("aes256-sha512-modp3072", "null-sha256-esn"),
        (
            "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
            "aes256gcm16-x25519-ke1_mlkem768",
        ),
        (
            "aes256gcm16-prfsha384-x25519-ke1_mlkem1024-ke2_ecp384",
            "aes256gmac-x25519",
        ),
    ];
    for (ike, esp) in suites {
        let mut net = pair(3, |_, c| {
            c.proposals = vec![ike.parse().unwrap()];
            c.children[0].proposals = vec![esp.parse().unwrap()];
        });
        net.run(SOON);
        net.assert_agreement(1);
        let now = net.now;
        net.hosts[1].endpoint.rekey_child(now, "peer", "net");
        net.run_lossless(Duration::from_secs(12));
        net.hosts[0].endpoint.rekey_ike(now, "peer");
        net.run_lossless(Duration::from_secs(12));
        net.assert_agreement(1);
        assert_eq!(
            net.count(0, |e| matches!(e, Event::IkeRekeyed { .. })),
            1,
            "{ike}"
        );
        assert_eq!(
            net.count(0, |e| matches!(e, Event::ChildRekeyed { .. })),
            1,
            "{esp}"
        );
    }
}

#[test]
fn rekeying_by_time_loses_no_packet_and_reuses_no_key() {
    let mut net = pair(4, |host, c| {
        c.rekey = RekeyTime::seconds(if host == 0 { 60 } else { 70 });
        c.children[0].rekey = RekeyTime::seconds(if host == 0 { 31 } else { 29 });
    });
    net.run(SOON);
    net.run_lossless(Duration::from_secs(1800));
    assert_eq!(
        net.count(0, |e| matches!(
            e,
            Event::IkeDown { .. } | Event::ChildDown { .. }
        )),
        0
    );
    assert_eq!(
        net.count(1, |e| matches!(
            e,
            Event::IkeDown { .. } | Event::ChildDown { .. }
        )),
        0
    );
    assert!(net.count(0, |e| matches!(e, Event::ChildRekeyed { .. })) > 40);
    assert!(net.count(0, |e| matches!(e, Event::IkeRekeyed { .. })) > 20);
    assert_eq!(net.hosts[0].dataplane.selected.len(), 1);
}

#[test]
fn an_unwanted_group_is_asked_for_again() {
    let mut net = pair(5, |host, c| {
        let text = if host == 0 {
            "aes256gcm16-prfsha256-x25519-ecp384"
        } else {
            "aes256gcm16-prfsha256-ecp384"
        };
        c.proposals = vec![text.parse().unwrap()];
        let text = if host == 0 {
            "aes256gcm16-x25519-ecp384-ecp521"
        } else {
            "aes256gcm16-ecp521"
        };
        c.children[0].proposals = vec![text.parse().unwrap()];
    });
    net.run(SOON);
    net.assert_agreement(1);
    let now = net.now;
    net.hosts[0].endpoint.rekey_child(now, "peer", "net");
    net.run_lossless(Duration::from_secs(12));
    net.assert_agreement(1);
    assert_eq!(net.count(0, |e| matches!(e, Event::ChildRekeyed { .. })), 1);
}

#[test]
fn mismatches_are_told_in_one_line() {
    let mut net = pair(6, |host, c| {
        if host == 0 {
            c.proposals = vec!["aes128-sha1-modp1024".parse().unwrap()];
        }
    });
    net.run(SOON);
    let told = net.failures(1);
    assert!(
        told[0].contains("peer offered aes128-sha1-prfsha1-modp1024; expected aes256gcm16-prfsha256-x25519"),
        "{told:?}"
    );

    let mut net = pair(7, |host, c| {
        if host == 0 {
            c.children[0].remote_ts = vec![TsSide::Fixed(TrafficSelector::host([172, 16, 0, 1].into()))];
        }
    });
    net.run(SOON);
    let told = net.failures(1);
    assert!(
        told[0].contains("172.16.0.1/32") && told[0].contains("expected [10.2.0.0/16]"),
        "{told:?}"
    );
    assert_eq!(
        net.hosts[0].endpoint.ike_sas().len(),
        1,
        "the IKE SA stays up without its child"
    );

    let mut net = pair(8, |host, c| {
        if host == 0 {
            c.local_id = Some(Identity::from_text("stranger.example"));
        }
    });
    net.run(SOON);
    let told = net.failures(1);
    assert!(
        told[0].contains("peer is stranger.example") && told[0].contains("gw0.example"),
        "{told:?}"
    );
}

#[test]
fn certificates_with_fragmentation() {
    let mut net = with_credentials(9, certified(["gw0.example", "gw1.example"]), |_, c| {
        by_certificate(c);
        c.fragmentation = Fragmentation::Above { packet_bytes: 400 };
    });
    net.run(SOON);
    net.assert_agreement(1);
}

#[test]
fn fault_38_certificates_speak_only_for_their_names() {
    let mut net = with_credentials(10, certified(["other.example", "gw1.example"]), |_, c| {
        by_certificate(c)
    });
    net.run(SOON);
    assert!(
        net.hosts[1]
            .endpoint
            .ike_sas()
            .iter()
            .all(|sa| sa.state != "established")
    );
    assert!(
        net.failures(1)[0].contains("does not name gw0.example"),
        "{:?}",
        net.failures(1)
    );
    assert!(net.hosts[0].dataplane.installed.is_empty() && net.hosts[1].dataplane.installed.is_empty());
}

#[test]
fn fault_38_a_certificate_of_another_authority_is_refused() {
    let [a, _] = certified(["gw0.example", "gw1.example"]);
    let [_, b] = certified(["gw0.example", "gw1.example"]);
    let mut net = with_credentials(11, [a, b], |_, c| by_certificate(c));
    net.run(SOON);
    assert_eq!(net.count(0, |e| matches!(e, Event::IkeUp { .. })), 0);
    assert!(net.hosts[1].endpoint.counters().authentication_failed > 0);
}

#[test]
fn a_responder_whose_certificate_is_refused_is_told() {
    let mut net = with_credentials(12, certified(["gw0.example", "other.example"]), |_, c| {
        by_certificate(c)
    });
    net.run(Duration::from_millis(300));
    assert_eq!(net.count(0, |e| matches!(e, Event::IkeUp { .. })), 0);
    assert!(
        net.failures(0)[0].contains("does not name gw1.example"),
        "{:?}",
        net.failures(0)
    );
    // It had the IKE SA up already, and keeps nothing of it.
    assert_eq!(net.count(1, |e| matches!(e, Event::IkeUp { .. })), 1);
    assert_eq!(net.count(1, |e| matches!(e, Event::IkeDown { .. })), 1);
    assert!(net.hosts[1].endpoint.ike_sas().is_empty() && net.hosts[1].dataplane.installed.is_empty());
}

#[test]
fn postquantum_preshared_keys() {
    let ppk = |secret: &[u8]| {
        let mut credentials = psk();
        credentials.add_ppk(b"id".to_vec(), secret);
        credentials
    };
    let use_ppk = |required| {
        move |_: usize, c: &mut Connection| {
            c.ppk = Some(Ppk {
                id: b"id".to_vec(),
                required,
            })
        }
    };
    let mut net = with_credentials(13, [ppk(b"quantum"), ppk(b"quantum")], use_ppk(true));
    net.run(SOON);
    net.assert_agreement(1);
    let mut net = with_credentials(14, [ppk(b"quantum"), ppk(b"another")], use_ppk(true));
    net.run(SOON);
    assert_eq!(net.count(1, |e| matches!(e, Event::IkeUp { .. })), 0);
    // One side knows no PPK and neither requires one.
    let mut net = with_credentials(15, [ppk(b"quantum"), psk()], use_ppk(false));
    net.run(SOON);
    net.assert_agreement(1);
}

#[test]
fn transport_mode_and_several_selectors() {
    let mut net = pair(16, |host, c| {
        c.children[0].mode = Mode::Transport;
        c.children[0].local_ts = vec![TsSide::Dynamic, TsSide::Fixed(network_of(host))];
        c.children[0].remote_ts = vec![TsSide::Dynamic, TsSide::Fixed(network_of(1 - host))];
    });
    net.run(SOON);
    net.assert_agreement(1);
    let spec = net.hosts[1]
        .dataplane
        .installed
        .values()
        .find(|s| s.direction == SaDirection::Inbound)
        .unwrap();
    assert_eq!(spec.mode, Mode::Transport);
    assert_eq!(spec.selectors.len(), 4);
}

#[test]
fn childless_initiation_then_a_child() {
    let mut net = pair(2, |_, c| c.childless = Childless::Prefer);
    net.run(SOON);
    net.assert_agreement(1);
}

#[test]
fn a_dead_peer_is_noticed_and_comes_back() {
    let mut net = pair(19, |_, c| c.dpd_delay = Some(Duration::from_secs(5)));
    net.run(SOON);
    net.faults.drop = 100;
    net.run(Duration::from_secs(200));
    assert!(
        net.hosts[0].dataplane.installed.is_empty(),
        "nothing is installed for a dead peer"
    );
    net.faults.drop = 0;
    net.run(Duration::from_secs(120));
    net.assert_agreement(1);
}

#[test]
fn windows_of_several_requests() {
    let mut net = pair(20, |host, c| {
        c.window = 8;
        for tunnel in 2..6 {
            let mut more = child(host, &format!("net{tunnel}"), tunnel);
            for side in more.local_ts.iter_mut().chain(&mut more.remote_ts) {
                if let TsSide::Fixed(ts) = side {
                    (ts.protocol, ts.start_port, ts.end_port) = (17, tunnel as u16, tunnel as u16);
                }
            }
            c.children.push(more);
        }
    });
    net.faults.jitter_ms = 50;
    net.run(Duration::from_secs(20));
    net.assert_agreement(5);
}

#[test]
fn acquire_terminate_and_stay_down() {
    let mut net = pair(22, |_, c| c.children[0].start = ike::StartAction::OnTraffic);
    net.run(SOON);
    assert!(net.hosts[0].endpoint.ike_sas().is_empty());
    let now = net.now;
    net.hosts[0]
        .endpoint
        .acquire(now, southbound::TunnelId(1))
        .unwrap();
    net.run(SOON);
    net.assert_agreement(1);
    assert!(
        net.hosts[0]
            .endpoint
            .acquire(now, southbound::TunnelId(9))
            .is_err()
    );
    let now = net.now;
    net.hosts[0].endpoint.terminate(now, "peer");
    net.run(Duration::from_secs(60));
    assert!(net.hosts[0].endpoint.ike_sas().is_empty() && net.hosts[1].endpoint.ike_sas().is_empty());
    assert!(net.hosts[1].dataplane.installed.is_empty());
}
