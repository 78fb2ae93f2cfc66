//! Identities of every kind, both ends as initiator.

use bench::pki::{KeyKind, Pki};
use rcgen::DnType;

use crate::certificates::terms_of;
use crate::site::{CHILD, Site, Terms};

/// What Penstock calls itself and its peer, what strongSwan calls itself and its peer, and how Penstock shows the peer.
type Names = ([&'static str; 2], [&'static str; 2], &'static str);

const PRESHARED: &[Names] = &[
    (
        ["one@penstock.example", "two@penstock.example"],
        ["two@penstock.example", "one@penstock.example"],
        "two@penstock.example",
    ),
    (
        ["keyid:6f6e65", "keyid:74776f00ff"],
        ["\"@#74776f00ff\"", "\"@#6f6e65\""],
        "keyid:74776f00ff",
    ),
    (
        ["198.51.100.1", "198.51.100.2"],
        ["198.51.100.2", "198.51.100.1"],
        "198.51.100.2",
    ),
    // The order in which strongSwan writes names, and RFC 4514's.
    (
        ["C=CH, O=Penstock, CN=one", "CN=two, O=Penstock, C=CH"],
        ["\"C=CH, O=Penstock, CN=two\"", "\"C=CH, O=Penstock, CN=one\""],
        "CN=two,O=Penstock,C=CH",
    ),
];

fn with_names(terms: &Terms, ([ours, theirs], [own, other], _): Names) -> Terms {
    let mut terms = terms.clone();
    terms.connection = terms
        .connection
        .replace("gw1.example", ours)
        .replace("gw2.example", theirs);
    terms.peer_auth = terms
        .peer_auth
        .replace("id = gw2.example", &format!("id = {own}"))
        .replace("id = gw1.example", &format!("id = {other}"));
    terms
}

fn assert_both_ways(site: &Site, shown: &str) {
    site.does(&["up", "site"]);
    site.assert_joined();
    assert_eq!(site.ike()["remote_id"], shown);
    site.does(&["down", "site"]);
    site.peer_initiates();
    site.assert_joined();
    assert_eq!(site.ike()["remote_id"], shown);
    site.does(&["down", "site"]);
}

/// The peer asks for somebody else when we initiate, and is somebody else when it does.
fn assert_refused(site: &Site, shown: &str) {
    let error = site.penstock.penstock(&["up", "site"]).unwrap_err().to_string();
    assert!(error.contains("the peer refused"), "{error}");
    site.strongswan
        .swanctl(&["--initiate", "--child", "net", "--timeout", "5"])
        .unwrap_err();
    let log = site.does(&["log", "site"]);
    let refused = |line: &str| line.contains("FAILED") && line.contains(&format!("peer is {shown}"));
    assert!(log.lines().any(refused), "{log}");
}

#[test]
fn mail_addresses_key_ids_addresses_and_distinguished_names() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"none\"\n");
    let site = Site::start("swan-identities", &with_names(&terms, PRESHARED[0]));
    for names in PRESHARED {
        site.change(&with_names(&terms, *names));
        assert_both_ways(&site, names.2);
    }
    // Another name under the same key is refused at both ends, and the operator told which.
    let stranger = with_names(
        &terms,
        (
            ["C=CH, O=Penstock, CN=one", "C=CH, O=Penstock, CN=three"],
            PRESHARED[3].1,
            "",
        ),
    );
    site.change(&stranger);
    assert_refused(&site, PRESHARED[3].2);
}

#[test]
fn the_subject_of_a_certificate() {
    let pki = Pki::new().unwrap();
    let above = [
        (DnType::CountryName, "CH"),
        (DnType::OrganizationName, "Penstock Works"),
    ];
    let [ours, theirs] =
        ["one.example", "two.example"].map(|name| pki.issue_below(&above, name, KeyKind::P256).unwrap());
    let mut terms = terms_of(&pki.certificate(), ours, theirs);
    terms.children = format!("{CHILD}start = \"none\"\n");
    // The order in which certificates have it, and RFC 4514's.
    let names: Names = (
        [
            "C=CH, O=Penstock Works, CN=one.example",
            "CN=two.example, O=Penstock Works, C=CH",
        ],
        [
            "\"C=CH, O=Penstock Works, CN=two.example\"",
            "\"C=CH, O=Penstock Works, CN=one.example\"",
        ],
        "CN=two.example,O=Penstock Works,C=CH",
    );
    let site = Site::start("swan-subject", &with_names(&terms, names));
    assert_both_ways(&site, names.2);
    let mut other = names;
    other.0[1] = "C=CH, O=Penstock Works, OU=Elsewhere, CN=two.example";
    site.change(&with_names(&terms, other));
    assert_refused(&site, names.2);
}
