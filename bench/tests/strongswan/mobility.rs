//! MOBIKE: addresses change and the tunnel stays.

use crate::site::{CHILD, Site, Terms};

#[test]
fn the_peer_moves_and_then_we_do() {
    let mut terms = Terms::preshared();
    // strongSwan initiates and moves.
    terms.connection += "remote = [\"%any\"]\n";
    terms.children = format!("{CHILD}start = \"none\"\n");
    terms.peer = "local_addrs = %any\n remote_addrs = 198.51.100.1".into();
    let site = Site::start("swan-mobike", &terms);
    let wan = &site.topology.gateway_2;
    for gateway in [wan, &site.topology.gateway_1] {
        // An address that stays when the first of its network goes.
        gateway
            .sysctl("net.ipv4.conf.all.promote_secondaries", "1")
            .unwrap();
    }
    wan.ip("-6 addr flush dev wan scope global").unwrap();
    site.peer_initiates();
    site.assert_joined();
    wan.ip("addr add 198.51.100.22/24 dev wan").unwrap();
    wan.ip("addr del 198.51.100.2/24 dev wan").unwrap();
    site.wait_for("the move was not followed", |site| {
        site.ike()["remote"]
            .as_str()
            .is_some_and(|remote| remote.starts_with("198.51.100.22:"))
    });
    site.assert_joined();
    let log = site.does(&["log"]);
    assert_eq!(
        log.matches("IKE SA up").count(),
        1,
        "it was negotiated anew\n{log}"
    );

    // Penstock initiates and moves.
    site.peer_does(&["--terminate", "--ike", "peer", "--timeout", "5"]);
    let mut terms = terms.clone();
    terms.connection = Terms::preshared().connection + "remote = [\"198.51.100.22\"]\n";
    terms.peer = "local_addrs = %any\n remote_addrs = %any".into();
    site.change(&terms);
    site.does(&["up", "site"]);
    site.assert_joined();
    let ups = site.does(&["log"]).matches("IKE SA up").count();
    let ours = &site.topology.gateway_1;
    ours.ip("addr add 198.51.100.11/24 dev wan").unwrap();
    ours.ip("addr del 198.51.100.1/24 dev wan").unwrap();
    site.wait_for("we did not move", |site| {
        site.ike()["local"]
            .as_str()
            .is_some_and(|local| local.starts_with("198.51.100.11:"))
    });
    site.assert_joined();
    let log = site.does(&["log"]);
    assert_eq!(
        log.matches("IKE SA up").count(),
        ups,
        "it was negotiated anew\n{log}"
    );
}
