//! Peers that die, return and disagree.

use crate::site::{CHILD, Site, Terms, answers, peer_child};

#[test]
fn a_dead_peer_is_noticed_and_taken_back_when_it_returns() {
    let mut terms = Terms::preshared();
    terms.connection += "dpd = 1\nretransmission = { first_ms = 300, base = 1.2, tries = 4 }\n";
    terms.children = format!("{CHILD}start = \"start\"\n");
    let mut site = Site::start("swan-dpd", &terms);
    site.assert_joined();
    site.strongswan.kill().unwrap();
    site.wait_for("the dead peer was not noticed", |site| {
        site.ike()["state"] != "established"
    });
    site.strongswan.restart().unwrap();
    site.assert_joined();
}

#[test]
fn a_peer_that_lost_its_memory_is_taken_up_again() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"none\"\n");
    let mut site = Site::start("swan-amnesia", &terms);
    site.peer_initiates();
    site.assert_joined();
    site.strongswan.kill().unwrap();
    site.strongswan.restart().unwrap();
    // INITIAL_CONTACT: its old SAs go.
    site.peer_initiates();
    site.assert_joined();
    let shown = site.penstock.json(&["show", "ike"]).unwrap();
    assert_eq!(shown["ike"].as_array().unwrap().len(), 1, "{shown}");
}

#[test]
fn a_failed_negotiation_is_told_in_one_line() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"none\"\n");
    terms.peer_children = peer_child("", "");
    let site = Site::start("swan-failures", &terms);
    let fails = |terms: &Terms, words: &[&str]| {
        site.change(terms);
        let error = site.penstock.penstock(&["up", "site"]).unwrap_err().to_string();
        let shown = site.ike()["failure"].as_str().unwrap_or_default().to_owned();
        for word in words {
            assert!(
                error.to_lowercase().contains(word),
                "{word} is missing in {error}\n{}",
                site.logs()
            );
            assert!(
                shown.to_lowercase().contains(word),
                "{word} is missing in {shown}"
            );
        }
        assert!(!shown.contains('\n'), "{shown}");
        let _ = site.penstock.penstock(&["down", "site"]);
    };
    let mut proposal = terms.clone();
    proposal.connection += "proposals = [\"aes256gcm16-prfsha384-ecp384\"]\n";
    fails(&proposal, &["no proposal chosen"]);
    let mut secret = terms.clone();
    secret.secrets[0].1 = "another-secret-altogether-987654321".into();
    fails(&secret, &["authentication"]);
    let mut selectors = terms.clone();
    selectors.children = terms.children.replace("10.2.0.0/24", "10.7.0.0/24");
    fails(&selectors, &["ts_unacceptable"]);
    // And as responder: what was offered, and what was expected.
    let mut ours = terms.clone();
    ours.connection += "proposals = [\"aes256gcm16-prfsha384-ecp384\"]\n";
    site.change(&ours);
    site.strongswan
        .swanctl(&["--initiate", "--child", "net", "--timeout", "5"])
        .unwrap_err();
    let log = site.does(&["log"]);
    let line = log
        .lines()
        .rfind(|line| line.contains("FAILED"))
        .unwrap_or_default();
    assert!(
        line.contains("aes128gcm16") && line.contains("aes256gcm16"),
        "{log}"
    );
}

#[test]
fn the_first_packet_after_the_peer_brought_the_tunnel_up_is_answered() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"none\"\n");
    let site = Site::start("swan-first", &terms);
    for round in 0..8 {
        site.peer_initiates();
        assert!(
            answers(&site.topology.host_b, "10.1.0.10"),
            "round {round}\n{}",
            site.logs()
        );
        site.peer_does(&["--terminate", "--ike", "peer", "--timeout", "5"]);
    }
}
