//! Peers that are authenticated anew under traffic: the new IKE SA carries the tunnel before the old one goes.

use std::time::Duration;

use crate::site::{Site, Terms, lost_during};

/// How often an IKE SA came up.
fn established(site: &Site) -> usize {
    site.does(&["log", "site"]).matches("IKE SA up").count()
}

/// Nothing of the former IKE SAs is left.
fn assert_one_is_left(site: &Site) {
    site.assert_joined();
    site.wait_for("more than one IKE SA is left", |site| {
        let count = |noun: &str, list: &str| {
            let shown = site.penstock.json(&["show", noun]).unwrap();
            shown[list].as_array().unwrap().len()
        };
        (count("ike", "ike"), count("sa", "sas")) == (1, 2)
    });
}

#[test]
fn we_authenticate_anew_and_lose_nothing_of_ours() {
    let mut terms = Terms::preshared();
    terms.connection += "reauthenticate_after = \"2s\"\n";
    let site = Site::start("swan-reauth", &terms);
    site.assert_joined();
    let before = established(&site);
    let lost = lost_during(&site.topology.host_a, "10.2.0.10", 500, || {});
    let times = established(&site) - before;
    // What the peer sends by the new pair may overtake the answer that tells us of it: one echo of 500, each time.
    assert!(
        lost as usize <= times,
        "{lost} lost, {times} times\n{}",
        site.logs()
    );
    assert!(times >= 2, "{}", site.logs());
    terms.connection = Terms::preshared().connection;
    site.change(&terms);
    assert_one_is_left(&site);
}

#[test]
fn the_peer_authenticates_anew_and_loses_nothing_of_its_own() {
    let mut terms = Terms::preshared();
    terms.charon = "  make_before_break = yes\n".into();
    let site = Site::start("swan-reauth-peer", &terms);
    site.assert_joined();
    let before = established(&site);
    let lost = lost_during(&site.topology.host_a, "10.2.0.10", 500, || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1200));
            site.peer_does(&["--rekey", "--ike", "peer", "--reauth"]);
        }
    });
    let times = established(&site) - before;
    // As above, the other way round.
    assert!(
        lost as usize <= times,
        "{lost} lost, {times} times\n{}",
        site.logs()
    );
    assert!(times >= 2, "{}", site.logs());
    assert_one_is_left(&site);
}
