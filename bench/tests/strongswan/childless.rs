//! IKE SAs that come up without a child, which follows in an exchange of its own (RFC 6023).

use crate::site::{Site, Terms};

/// IKE_AUTH requests in the log that propose a Child SA, and those that do not.
fn requests(log: &str, verb: &str) -> (usize, usize) {
    let is_request = |line: &&str| line.contains(&format!("{verb} IKE_AUTH request"));
    let with_child = |line: &&str| line.contains(" SA ") && line.contains(" TSi ");
    let requests: Vec<_> = log.lines().filter(is_request).collect();
    let with = requests.iter().copied().filter(with_child).count();
    (with, requests.len() - with)
}

#[test]
fn children_follow_in_an_exchange_of_their_own() {
    let mut terms = Terms::preshared();
    terms.connection += "childless = \"prefer\"\n";
    let site = Site::start("swan-childless", &terms);
    site.does(&["up", "site"]);
    site.assert_joined();
    let log = site.strongswan.log();
    assert_eq!(requests(&log, "parsed"), (0, 1), "{log}");
    assert!(log.contains("parsed CREATE_CHILD_SA request"), "{log}");
    site.does(&["down", "site"]);
    // strongSwan insists on it.
    terms.connection = Terms::preshared().connection;
    terms.peer = "childless = force".into();
    site.change(&terms);
    site.peer_initiates();
    site.assert_joined();
    let log = site.strongswan.log();
    assert_eq!(requests(&log, "generating"), (0, 1), "{log}");
    assert!(log.contains("generating CREATE_CHILD_SA request"), "{log}");
    // Penstock does not have to know it.
    site.does(&["down", "site"]);
    terms.connection += "childless = \"never\"\n";
    site.change(&terms);
    site.strongswan
        .swanctl(&["--initiate", "--child", "net", "--timeout", "5"])
        .unwrap_err();
    terms.peer = "childless = allow".into();
    site.change(&terms);
    site.peer_initiates();
    site.assert_joined();
    let log = site.strongswan.log();
    assert_eq!(requests(&log, "generating"), (1, 1), "{log}");
}
