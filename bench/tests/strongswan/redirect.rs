//! Peers sent to another gateway (RFC 5685), which is another address of the same daemon here.

use crate::site::{CHILD, Site, Terms};

#[test]
fn penstock_follows_and_strongswan_follows_penstock() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"none\"\n");
    terms.connection += "local = [\"198.51.100.1\"]\nremote = [\"198.51.100.2\"]\n";
    terms.peer = "local_addrs = %any\n remote_addrs = 198.51.100.1".into();
    let site = Site::start("swan-redirect", &terms);
    for (gateway, address) in [
        (&site.topology.gateway_1, "198.51.100.11/24"),
        (&site.topology.gateway_2, "198.51.100.22/24"),
    ] {
        gateway.ip(&format!("addr add {address} dev wan")).unwrap();
    }
    let is_at = |site: &Site, end: &str, address: &str| {
        let record = site.ike();
        record["state"] == "established"
            && record[end]
                .as_str()
                .is_some_and(|shown| shown.starts_with(&format!("{address}:")))
    };
    site.does(&["up", "site"]);
    site.assert_joined();
    assert!(is_at(&site, "remote", "198.51.100.2"), "{}", site.ike());
    // An IKE SA that is up (section 5 of the RFC).
    site.peer_does(&["--redirect", "--ike", "peer", "--gateway", "198.51.100.22"]);
    site.wait_for("the redirect was not followed", |site| {
        is_at(site, "remote", "198.51.100.22")
    });
    site.assert_joined();
    site.does(&["down", "site"]);

    // strongSwan is sent on by the answer to its first message (section 3).
    terms.connection = terms
        .connection
        .replace("\"198.51.100.1\"", "\"198.51.100.11\"")
        .replace("\"198.51.100.2\"", "\"%any\"");
    terms.file = r#"[[connection]]
name = "drained"
local = ["198.51.100.1"]
remote = ["198.51.100.2", "198.51.100.22"]
auth = "psk"
psk_file = "{folder}/psk"
redirect_to = "198.51.100.11"

[[connection.child]]
name = "nothing"
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.7.0.0/24"]
start = "none"
"#
    .into();
    site.change(&terms);
    site.peer_initiates();
    site.assert_joined();
    let up = site.penstock.json(&["show", "ike"]).unwrap();
    let all = up["ike"].as_array().unwrap();
    let established: Vec<_> = all.iter().filter(|sa| sa["state"] == "established").collect();
    assert_eq!(established.len(), 1, "{up}");
    assert!(
        established[0]["local"]
            .as_str()
            .is_some_and(|local| local.starts_with("198.51.100.11:")),
        "{up}"
    );
}
