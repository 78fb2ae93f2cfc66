//! Every algorithm family, both ends as initiator.

use crate::site::{CHILD, Site, Terms, peer_child};

/// IKE proposal, ESP proposal. Each family of ciphers, integrity, PRF and key exchange stands in one at least.
const SUITES: &[(&str, &str)] = &[
    ("aes128gcm16-prfsha256-x25519", "aes128gcm16"),
    ("aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384"),
    ("chacha20poly1305-prfsha512-ecp521", "chacha20poly1305-x25519"),
    ("aes128-sha256-ecp256", "aes128-sha256-ecp256"),
    ("aes256-sha512-modp4096", "aes256-sha512"),
    ("aes192-sha384-modp3072", "aes192-sha384"),
    ("aes256ctr-sha256-modp2048", "aes256ctr-sha256"),
    ("aes128-sha1-modp1024", "aes128-sha1"),
    ("aes192gcm16-prfsha1-modp2048", "aes192gcm16-modp2048"),
    ("aes256gcm8-prfsha256-modp6144", "aes256-sha384"),
    ("aes128gcm12-prfsha512-modp8192", "aes192ctr-sha512"),
    ("aes128ctr-aesxcbc-modp2048", "chacha20poly1305"),
    ("aes256-aescmac-ecp256", "aes128ctr-sha1-ecp521"),
    ("3des-sha1-modp1536", "aes256gcm16"),
];

fn terms((ike, esp): (&str, &str)) -> Terms {
    let mut terms = Terms::preshared();
    terms.connection += &format!("proposals = [\"{ike}\"]\n");
    terms.children = format!("{CHILD}proposals = [\"{esp}-noesn\"]\nstart = \"none\"\n");
    terms.peer = format!("proposals = {ike}");
    terms.peer_children = peer_child(esp, "");
    terms
}

#[test]
fn every_algorithm_family_both_ways() {
    let site = Site::start("swan-suites", &terms(SUITES[0]));
    for suite in SUITES {
        let (ike, esp) = *suite;
        site.change(&terms(*suite));
        site.does(&["up", "site"]);
        site.assert_joined();
        let record = site.ike();
        let shown = record["suite"].as_str().unwrap();
        assert!(shown.contains(ike.split('-').next().unwrap()), "{ike}: {record}");
        let shown = record["children"][0]["suite"].as_str().unwrap();
        assert!(shown.contains(esp.split('-').next().unwrap()), "{esp}: {record}");
        site.does(&["down", "site"]);
        site.peer_initiates();
        site.assert_joined();
        assert_eq!(site.ike()["initiator"], false);
        site.does(&["down", "site"]);
    }
}

#[test]
fn the_defaults_of_both_ends() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"none\"\n");
    terms.peer = "proposals = default".into();
    terms.peer_children = peer_child("default", "");
    let site = Site::start("swan-defaults", &terms);
    site.assert_joined_by_either();
    assert!(
        site.ike()["suite"]
            .as_str()
            .unwrap()
            .starts_with("aes256gcm16-prfsha384-x25519"),
        "{}",
        site.ike()
    );
}

#[test]
fn outer_ipv6_carries_both_families_with_the_defaults_of_penstock() {
    let mut terms = Terms::preshared();
    terms.outer_ipv6 = true;
    terms.children = CHILD
        .replace("\"10.1.0.0/24\"", "\"10.1.0.0/24\", \"fd01::/64\"")
        .replace("\"10.2.0.0/24\"", "\"10.2.0.0/24\", \"fd02::/64\"");
    terms.peer_children = peer_child("", "")
        .replace("10.2.0.0/24", "10.2.0.0/24,fd02::/64")
        .replace("10.1.0.0/24", "10.1.0.0/24,fd01::/64");
    let site = Site::start("swan-v6", &terms);
    // The first packet brings it up.
    site.assert_joined();
    site.assert_answers(&site.topology.host_a, "fd02::10");
    site.assert_answers(&site.topology.host_b, "fd01::10");
    assert!(site.ike()["remote"].as_str().unwrap().contains("2001:db8:77::2"));
}

#[test]
fn a_post_quantum_preshared_key_is_used_and_required() {
    let ppk = "0x".to_owned() + &"5a".repeat(32);
    let mut terms = Terms::preshared();
    terms.file = "[[secret]]\nkind = \"ppk\"\nid = [\"quantum\"]\nfile = \"{folder}/ppk\"\n".into();
    terms.secrets.push(("ppk".into(), ppk.clone()));
    terms.connection += "ppk = \"quantum\"\nppk_required = true\n";
    terms.peer = "ppk_id = quantum\n ppk_required = yes".into();
    terms.peer_secrets = format!(
        "{}\nsecrets {{ ppk-1 {{ id = quantum\n secret = {ppk} }} }}",
        terms.peer_secrets
    );
    let site = Site::start("swan-ppk", &terms);
    site.assert_joined_by_either();
    // With another key neither end comes up, and the operator is told why.
    let mut other = terms.clone();
    other.peer_secrets = terms
        .peer_secrets
        .replace(&ppk, &("0x".to_owned() + &"5b".repeat(32)));
    site.does(&["down", "site"]);
    site.change(&other);
    let error = site.penstock.penstock(&["up", "site"]).unwrap_err().to_string();
    assert!(error.to_lowercase().contains("authentication"), "{error}");
}

#[test]
fn several_children_of_one_ike_sa() {
    let mut terms = Terms::preshared();
    terms.children = r#"[[connection.child]]
name = "net"
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.2.0.0/24"]

[[connection.child]]
name = "six"
local_ts = ["fd01::/64"]
remote_ts = ["fd02::/64"]
"#
    .into();
    terms.peer_children +=
        "six { local_ts = fd02::/64\n remote_ts = fd01::/64\n esp_proposals = aes256gcm16 }";
    let site = Site::start("swan-children", &terms);
    site.assert_joined();
    site.assert_answers(&site.topology.host_a, "fd02::10");
    site.assert_answers(&site.topology.host_b, "fd01::10");
    let record = site.ike();
    assert_eq!(
        record["child_names"],
        serde_json::json!(["net", "six"]),
        "{record}"
    );
    assert_eq!(
        site.penstock.json(&["show", "ike"]).unwrap()["ike"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
