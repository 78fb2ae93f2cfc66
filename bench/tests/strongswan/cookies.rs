//! Cookies under load (RFC 7296 section 2.6): whoever has enough half-open IKE SAs asks the next initiator for one.

use bench::namespace::Namespace;

use crate::site::{CHILD, Site, Terms};

/// Answers from port 500 do not reach this gateway: what it begins stays half open at the other end.
fn deafen(gateway: &Namespace) {
    for command in [
        "nft add table ip deaf",
        "nft add chain ip deaf input { type filter hook input priority 0 ; }",
        "nft add rule ip deaf input udp sport 500 drop",
    ] {
        gateway.run(command).unwrap();
    }
}

fn hear(gateway: &Namespace) {
    gateway.run("nft delete table ip deaf").unwrap();
}

#[test]
fn both_ends_ask_for_cookies_and_return_them() {
    let mut terms = Terms::preshared();
    terms.file = "[ike]\ncookie_threshold = 1\n".into();
    terms.charon = "cookie_threshold = 1".into();
    terms.children = format!("{CHILD}start = \"none\"\n");
    let site = Site::start("swan-cookies", &terms);
    let asked = |what: &str| site.strongswan.log().matches(what).count();
    let with_cookie = "generating IKE_SA_INIT request 0 [ N(COOKIE)";

    // One half-open IKE SA at Penstock, whose initiator gave up.
    deafen(&site.topology.gateway_2);
    let initiate = ["--initiate", "--child", "net", "--timeout", "1"];
    site.strongswan.swanctl(&initiate).unwrap_err();
    let terminate = ["--terminate", "--ike", "peer", "--force", "--timeout", "1"];
    let _ = site.strongswan.swanctl(&terminate);
    hear(&site.topology.gateway_2);
    assert_eq!(asked(with_cookie), 0, "{}", site.logs());
    site.peer_initiates();
    site.assert_joined();
    assert_eq!(asked(with_cookie), 1, "{}", site.logs());
    site.does(&["down", "site"]);

    // And one at strongSwan.
    let with_cookie = "parsed IKE_SA_INIT request 0 [ N(COOKIE)";
    deafen(&site.topology.gateway_1);
    site.penstock
        .penstock(&["--timeout", "1", "up", "site"])
        .unwrap_err();
    let _ = site.penstock.penstock(&["--timeout", "1", "down", "site"]);
    hear(&site.topology.gateway_1);
    assert_eq!(asked(with_cookie), 0, "{}", site.logs());
    site.does(&["up", "site"]);
    site.assert_joined();
    assert_eq!(asked(with_cookie), 1, "{}", site.logs());
}
