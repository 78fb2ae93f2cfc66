//! Two running gateways between two hosts: what an operator would try.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::PathBuf;
use std::time::Duration;

use bench::eavesdropper::{Eavesdropper, Kind};
use bench::gateway::Dataplane;
use bench::iperf::{Load, measure};
use bench::namespace::Namespace;
use bench::prober::probe;
use bench::process::wait_until;
use bench::site_to_site::SiteToSite;
use bench::sites::{HOST_A, HOST_B, Sites, TUNNEL_UP_LIMIT, answers};
use bench::topology::{Links, Topology};
use nix::sys::signal::Signal;

fn capture_file(namespace: &Namespace) -> PathBuf {
    std::env::temp_dir().join(format!("{}.pcap", namespace.name()))
}

/// The datagrams between the hosts that were lost while `meanwhile` went on, and how many were sent.
fn lost_during(topology: &Topology, target: &str, meanwhile: impl FnOnce()) -> (Vec<u32>, u32) {
    let target = target.parse().unwrap();
    let probed = probe(&topology.host_a, &topology.host_b, target, meanwhile).unwrap();
    (probed.lost, probed.sent)
}

fn plain(stem: &str) -> Sites {
    Sites::plain(stem, &Dataplane::default()).unwrap()
}

#[test]
fn nothing_but_esp_crosses_the_internet() {
    let sites = plain("esp-only");
    let file = capture_file(&sites.topology.internet);
    let ear = Eavesdropper::listen(&sites.topology.internet, "g1", &file, 2000).unwrap();
    for (host, targets) in [(&sites.topology.host_a, HOST_B), (&sites.topology.host_b, HOST_A)] {
        for target in targets {
            // 50454e53544f434b: "PENSTOCK", at sizes that fit, that just fit and that do not.
            for size in [16, 1300, 1400, 3000] {
                host.run(&format!(
                    "ping -c 3 -i 0.02 -s {size} -p 50454e53544f434b {target}"
                ))
                .unwrap();
            }
        }
    }
    let tcp = Load::Tcp { streams: 2 };
    let measured = measure(&sites.topology.host_a, &sites.topology.host_b, HOST_B[0], tcp, 2).unwrap();
    assert!(measured.bits_per_second > 10e6, "{measured:?}");
    let capture = ear.finish().unwrap();
    std::fs::remove_file(file).unwrap();
    assert!(
        capture.count(Kind::Esp) > 200,
        "{} ESP packets",
        capture.count(Kind::Esp)
    );
    assert_eq!(capture.count(Kind::Clear), 0, "{}", capture.show_clear());
    assert!(!capture.contains(b"PENSTOCK"));
}

#[test]
fn a_tunnel_over_ipv6_in_udp_with_extended_sequence_numbers_carries_both_families() {
    let mut tunnel = SiteToSite::new("aes256-sha256", 64).unwrap();
    tunnel.outer_ipv6 = true;
    tunnel.tunnel_lines = "udp_encapsulation = { local_port = 4500, remote_port = 4500 }\n".to_owned();
    tunnel.sa_lines = "esn = true\nreplay_window = 64\n".to_owned();
    let sites = Sites::start("v6-udp", Links::default(), &tunnel, &Dataplane::default()).unwrap();
    for target in HOST_B {
        let (lost, sent) = lost_during(&sites.topology, target, || {
            std::thread::sleep(Duration::from_secs(1));
        });
        assert!(lost.is_empty() && sent >= 10, "{target}: {lost:?} of {sent}");
    }
}

#[test]
fn two_queues_and_two_workers_share_the_load() {
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let links = Links {
        queues: 2,
        ..Links::default()
    };
    let dataplane = Dataplane {
        cores: vec![0, 1],
        frames_per_worker: 4096,
        ..Dataplane::default()
    };
    let sites = Sites::start("queues", links, &tunnel, &dataplane).unwrap();
    let tcp = Load::Tcp { streams: 4 };
    let measured = measure(&sites.topology.host_a, &sites.topology.host_b, HOST_B[0], tcp, 2).unwrap();
    assert!(measured.bits_per_second > 10e6, "{measured:?}");
    let replayed = sites.gateway_2.penstock(&["show", "drops"]).unwrap();
    assert!(
        !replayed.contains("replayed"),
        "one SA on two workers: {replayed}"
    );
}

#[test]
fn traceroute_shows_both_gateways_and_the_path_mtu_is_reported() {
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let links = Links {
        internet_mtu_bytes: 1400,
        ..Links::default()
    };
    let sites = Sites::start("pmtu", links, &tunnel, &Dataplane::default()).unwrap();
    let host = &sites.topology.host_a;

    let trace = host.run("traceroute -n -q 1 -w 1 10.2.0.10").unwrap();
    assert!(trace.contains("10.1.0.1 "), "gateway 1 is missing: {trace}");
    assert!(trace.contains("10.2.0.10 "), "host B is missing: {trace}");

    // Too large for the tunnel, and not to be fragmented: the host must be told, by a router of its own.
    host.run("ping -c 2 -W 1 -M do -s 1450 10.2.0.10").unwrap_err();
    let route = host.ip("route get 10.2.0.10").unwrap();
    assert!(
        route.contains("mtu 13"),
        "the host learned no path MTU below 1400: {route}"
    );
    host.run("ping -c 2 -W 1 -M do -s 1450 fd02::10").unwrap_err();
    let route = host.ip("-6 route get fd02::10").unwrap();
    assert!(
        route.contains("mtu 13"),
        "the host learned no IPv6 path MTU below 1400: {route}"
    );

    // Clear to fragment: it goes through all the same.
    host.run("ping -c 3 -i 0.05 -W 1 -M dont -s 3000 10.2.0.10")
        .unwrap();
}

#[test]
fn fault_77_control_dies_and_returns_without_a_lost_packet() {
    let mut sites = plain("control-dies");
    let host = &sites.topology.host_a;
    let gateway = &mut sites.gateway_1;
    let (lost, sent) = lost_during(&sites.topology, HOST_B[0], || {
        gateway.control().unwrap().kill().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        gateway.start_control().unwrap();
        std::thread::sleep(Duration::from_secs(1));
    });
    assert!(
        lost.is_empty() && sent >= 50,
        "{lost:?} of {sent}\n{}",
        sites.gateway_1.logs()
    );
    // The restarted control follows the kernel again.
    sites
        .topology
        .gateway_1
        .ip("addr add 10.1.0.77/24 dev lan")
        .unwrap();
    assert!(wait_until(Duration::from_secs(5), || answers(host, "10.1.0.77")));
}

#[test]
fn fault_51_a_restarted_dataplane_never_gets_a_used_key_back() {
    let mut sites = plain("key-reuse");
    let gateway = &mut sites.gateway_1;
    gateway.dataplane().unwrap().kill().unwrap();
    gateway.start_dataplane().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        !answers(&sites.topology.host_a, HOST_B[0]),
        "a key was installed twice"
    );
    let log = gateway.logs();
    assert!(log.contains("nonce"), "the operator is not told why: {log}");

    // The operator takes the risk.
    let mut tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    tunnel.sa_lines = "accept_nonce_reuse_risk = true\n".to_owned();
    sites.gateway_1.configure(&tunnel.configuration(1)).unwrap();
    sites.gateway_1.penstock(&["reload"]).unwrap();
    // The peer has seen higher numbers already, so the way back is what must work: it sends nothing old.
    let received = || {
        let sas = sites.gateway_1.penstock(&["show", "sa"]).unwrap_or_default();
        sas.lines().count() > 1
    };
    assert!(
        wait_until(Duration::from_secs(10), received),
        "{}",
        sites.gateway_1.logs()
    );
}

#[test]
fn fault_73_links_flap_and_interfaces_return() {
    let sites = plain("link-flap");
    let Topology {
        host_a,
        gateway_1,
        internet,
        ..
    } = &sites.topology;
    internet.ip("link set g1 down").unwrap();
    assert!(!answers(host_a, HOST_B[0]));
    internet.ip("link set g1 up").unwrap();
    assert!(
        wait_until(TUNNEL_UP_LIMIT, || answers(host_a, HOST_B[0])),
        "{}",
        sites.gateway_1.logs()
    );

    gateway_1.ip("link delete wan").unwrap();
    assert!(!answers(host_a, HOST_B[0]));
    gateway_1
        .ip(&format!(
            "link add wan type veth peer name g1 netns {}",
            internet.name()
        ))
        .unwrap();
    internet.ip("link set g1 master br0").unwrap();
    internet.ip("link set g1 up").unwrap();
    gateway_1.ip("addr add 198.51.100.1/24 dev wan").unwrap();
    gateway_1.ip("addr add 2001:db8:77::1/64 dev wan nodad").unwrap();
    gateway_1.ip("link set wan up").unwrap();
    assert!(
        wait_until(TUNNEL_UP_LIMIT, || answers(host_a, HOST_B[0])),
        "{}",
        sites.gateway_1.logs()
    );
}

#[test]
fn the_gateway_itself_talks_through_the_tunnel() {
    let sites = plain("tap");
    sites
        .topology
        .gateway_1
        .run("ping -c 3 -i 0.05 -W 1 -I 10.1.0.1 10.2.0.10")
        .unwrap();
    sites
        .topology
        .host_a
        .run("ping -c 3 -i 0.05 -W 1 10.2.0.1")
        .unwrap();
    sites
        .topology
        .gateway_1
        .run("ping -c 3 -i 0.05 -W 1 -I 10.1.0.1 10.2.0.1")
        .unwrap();
}

#[test]
fn both_daemons_end_cleanly_and_leave_no_program_behind() {
    let mut sites = plain("clean-end");
    let gateway = &mut sites.gateway_1;
    assert!(gateway.control().unwrap().terminate().unwrap().success());
    let dataplane = gateway.dataplane().unwrap();
    dataplane.signal(Signal::SIGTERM);
    assert!(dataplane.terminate().unwrap().success());
    let links = sites.topology.gateway_1.ip("link show").unwrap();
    assert!(!links.contains("xdp"), "{links}");
}
