//! Revocation lists: a peer whose certificate is on one is refused, and the operator told why.

use bench::pki::{KeyKind, Pki};

use crate::certificates::terms_of;
use crate::site::{CHILD, Site};

#[test]
fn a_revoked_peer_is_refused_and_a_good_one_is_not() {
    let pki = Pki::new().unwrap();
    let [ours, theirs, another] =
        ["gw1.example", "gw2.example", "gw3.example"].map(|name| pki.issue(name, KeyKind::P256).unwrap());
    let lists = [&[&another][..], &[&another, &theirs]].map(|revoked| pki.revocation_list(revoked).unwrap());
    let mut terms = terms_of(&pki.certificate(), ours, theirs);
    terms.children = format!("{CHILD}start = \"none\"\n");
    terms.file = terms.file.replace(
        "certificate_file = \"{folder}/ca.pem\"\n",
        "certificate_file = \"{folder}/ca.pem\"\nrevocation_files = [\"{folder}/ca.crl\"]\n",
    );
    let [good, bad] = lists;
    terms.secrets.push(("ca.crl".into(), good));
    let site = Site::start("swan-revocation", &terms);
    site.assert_joined_by_either();
    site.does(&["down", "site"]);

    // The list of the next day.
    if let Some((_, list)) = terms.secrets.last_mut() {
        *list = bad;
    }
    site.change(&terms);
    let error = site.penstock.penstock(&["up", "site"]).unwrap_err().to_string();
    assert!(
        error.to_lowercase().contains("revoked"),
        "{error}\n{}",
        site.logs()
    );
    // It was up at the peer, who could not know.
    let _ = site
        .strongswan
        .swanctl(&["--terminate", "--ike", "peer", "--force", "--timeout", "1"]);
    site.strongswan
        .swanctl(&["--initiate", "--child", "net", "--timeout", "5"])
        .unwrap_err();
    let log = site.does(&["log", "site"]);
    let refused = |line: &&str| line.contains("FAILED") && line.to_lowercase().contains("revoked");
    assert!(log.lines().filter(refused).count() >= 2, "{log}");
    assert!(log.contains("gw2.example"), "{log}");
    assert_ne!(site.ike()["state"], "established");
}
