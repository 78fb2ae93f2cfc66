//! Child SAs for single workers (RFC 9611), against strongSwan 6.1.

use crate::site::{CHILD, Site, Terms, peer_child};

/// The workers that send with an SA of their own, and how many pairs there are.
fn own(site: &Site) -> (Vec<u64>, usize) {
    let shown = site.penstock.json(&["show", "sa"]).unwrap();
    let sas = shown["sas"].as_array().unwrap();
    let workers = sas.iter().filter_map(|sa| sa["worker"].as_u64()).collect();
    (workers, sas.len() / 2)
}

#[test]
fn a_worker_gets_a_pair_of_its_own_which_is_renewed_by_both_ends() {
    let mut terms = Terms::preshared();
    terms.is_6_1 = true;
    terms.children = format!("{CHILD}per_worker = true\n");
    terms.peer_children = peer_child("", "per_cpu_sas = yes");
    let site = Site::start("swan-resource", &terms);
    site.assert_joined();
    site.wait_for("no pair for the worker", |site| own(site) == (vec![0], 2));
    site.assert_joined();
    site.does(&["rekey", "site", "net"]);
    site.wait_for("both renewed", |site| {
        site.does(&["log", "site"]).matches("net renewed").count() >= 2
    });
    site.peer_does(&["--rekey", "--child", "net"]);
    site.wait_for("both renewed by the peer", |site| {
        site.does(&["log", "site"]).matches("net renewed").count() >= 4 && own(site) == (vec![0], 2)
    });
    site.assert_joined();
}

#[test]
fn a_peer_without_pairs_for_workers_gets_one() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}per_worker = true\n");
    let site = Site::start("swan-plain", &terms);
    site.assert_joined();
    std::thread::sleep(std::time::Duration::from_secs(1));
    site.assert_joined();
    assert_eq!(own(&site), (vec![], 1), "{}", site.logs());
    let log = site.does(&["log", "site"]);
    assert!(!log.contains("refused"), "{log}");
}
