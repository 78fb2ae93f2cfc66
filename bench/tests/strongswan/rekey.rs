//! Renewal of both kinds by both ends, under traffic and without a lost packet.

use std::time::Duration;

use crate::site::{CHILD, Site, Terms, lost_during, peer_child};

#[test]
fn rekeys_of_both_kinds_by_both_ends_lose_nothing() {
    let site = Site::start("swan-rekey", &Terms::preshared());
    site.assert_joined();
    let pause = || std::thread::sleep(Duration::from_millis(400));
    let lost = lost_during(&site.topology.host_a, "10.2.0.10", 500, || {
        pause();
        site.does(&["rekey", "site", "net"]);
        pause();
        site.peer_does(&["--rekey", "--child", "net"]);
        pause();
        site.does(&["rekey", "site"]);
        pause();
        site.peer_does(&["--rekey", "--ike", "peer"]);
        pause();
        site.does(&["rekey", "site", "net"]);
    });
    let log = site.does(&["log", "site"]);
    assert!(log.matches("net renewed").count() >= 3, "{log}");
    assert!(log.matches("IKE SA renewed").count() >= 2, "{log}");
    assert_eq!(lost, 0, "{log}\n{}", site.logs());
    site.assert_joined();
}

#[test]
fn pairs_are_renewed_by_time_and_by_packets() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}rekey = {{ after = \"3s\", margin = \"20s\", fuzz = 0 }}\n");
    let site = Site::start("swan-lifetimes", &terms);
    site.assert_joined();
    site.wait_for("no renewal by time", |site| {
        site.does(&["log", "site"]).matches("net renewed").count() >= 2
    });
    terms.children = format!("{CHILD}rekey = {{ after = \"1h\", packets = 50 }}\n");
    terms.peer_children = peer_child("", "");
    site.change(&terms);
    site.assert_joined();
    let before = site.does(&["log", "site"]).matches("net renewed").count();
    let lost = lost_during(&site.topology.host_a, "10.2.0.10", 200, || {});
    let log = site.does(&["log", "site"]);
    assert!(
        log.matches("net renewed").count() > before,
        "no renewal by packets\n{log}"
    );
    assert_eq!(lost, 0, "{log}\n{}", site.logs());
}
