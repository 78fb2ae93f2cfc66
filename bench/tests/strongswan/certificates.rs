//! Certificates of every kind of key, both ends as initiator; large messages in fragments.

use bench::pki::{Issued, KeyKind, Pki};

use crate::pss::PssAuthority;
use crate::site::{Site, Terms};

pub(crate) fn terms(pki: &Pki, kind: KeyKind) -> Terms {
    let [ours, theirs] = ["gw1.example", "gw2.example"].map(|name| pki.issue(name, kind).unwrap());
    terms_of(&pki.certificate(), ours, theirs)
}

/// Each end shows its own certificate, ours first.
pub(crate) fn terms_of(authority: &str, ours: Issued, theirs: Issued) -> Terms {
    let mut terms = Terms::preshared();
    terms.file = r#"[[authority]]
certificate_file = "{folder}/ca.pem"

[[credential]]
name = "own"
certificate_file = "{folder}/own.pem"
key_file = "{folder}/own.key"
"#
    .into();
    terms.connection = "auth = \"certificate\"\ncredential = \"own\"\nlocal_id = \"gw1.example\"\nremote_id = \"gw2.example\"\n".into();
    terms.secrets = vec![
        ("ca.pem".into(), authority.into()),
        ("own.pem".into(), ours.certificate),
        ("own.key".into(), ours.key),
    ];
    terms.peer_auth = "local { auth = pubkey\n certs = own.pem\n id = gw2.example }\n remote { auth = pubkey\n id = gw1.example }".into();
    terms.peer_secrets = String::new();
    terms.pem = vec![
        ("x509ca/ca.pem".into(), authority.into()),
        ("x509/own.pem".into(), theirs.certificate),
        ("private/own.pem".into(), theirs.key),
    ];
    terms
}

fn both_ways(stem: &str, kind: KeyKind) {
    both_ways_on(stem, &terms(&Pki::new().unwrap(), kind));
}

fn both_ways_on(stem: &str, terms: &Terms) -> Site {
    let site = Site::start(stem, terms);
    site.does(&["up", "site"]);
    site.assert_joined();
    assert_eq!(site.ike()["remote_id"], "gw2.example");
    site.does(&["down", "site"]);
    site.peer_initiates();
    site.assert_joined();
    site
}

#[test]
fn rsa() {
    both_ways("swan-rsa", KeyKind::Rsa);
}

#[test]
fn ecdsa_p256() {
    both_ways("swan-p256", KeyKind::P256);
}

#[test]
fn ecdsa_p384() {
    both_ways("swan-p384", KeyKind::P384);
}

#[test]
fn ecdsa_p521() {
    both_ways("swan-p521", KeyKind::P521);
}

#[test]
fn ed25519() {
    both_ways("swan-ed25519", KeyKind::Ed25519);
}

/// The methods of RFC 7296 and RFC 4754, to a peer that does not know RFC 7427.
#[test]
fn older_methods() {
    for (stem, kind) in [("swan-old-rsa", KeyKind::Rsa), ("swan-old-ecdsa", KeyKind::P384)] {
        let mut terms = terms(&Pki::new().unwrap(), kind);
        terms.connection += "rsa_padding = \"pss-or-sha1\"\n";
        terms.charon = "  signature_authentication = no\n".into();
        let log = both_ways_on(stem, &terms).strongswan.log();
        let method = if kind == KeyKind::Rsa {
            "RSA signature"
        } else {
            "ECDSA-384 signature"
        };
        for whose in [
            "authentication of 'gw1.example'",
            "authentication of 'gw2.example'",
        ] {
            let old = |line: &str| line.contains(whose) && line.contains(&format!("with {method}"));
            assert!(log.lines().any(old), "{log}");
        }
    }
}

#[test]
fn rsa_pss_in_certificates_and_in_authentication() {
    let pki = PssAuthority::new("swan-pss");
    let [ours, theirs] =
        [("gw1.example", 1), ("gw2.example", 2)].map(|(name, serial)| pki.issue(name, serial));
    let mut terms = terms_of(&pki.certificate(), ours, theirs);
    // Without the prefix "ike:" this holds for the signatures of certificates too.
    let pss = "rsa/pss-sha256-sha384-sha512";
    terms.peer_auth = terms.peer_auth.replace("auth = pubkey", &format!("auth = {pss}"));
    terms.charon = "rsa_pss = yes".into();
    let site = Site::start("swan-pss", &terms);
    site.assert_joined_by_either();
    let log = site.strongswan.log();
    for end in [
        "of 'gw1.example' with RSA_EMSA_PSS",
        "of 'gw2.example' (myself) with RSA_EMSA_PSS",
    ] {
        assert!(log.matches(end).count() >= 2, "{end} is not in\n{log}");
    }
}

#[test]
fn messages_too_large_for_the_path_travel_in_fragments() {
    let pki = Pki::new().unwrap();
    let mut terms = terms(&pki, KeyKind::Rsa);
    terms.connection += "fragment_bytes = 600\n";
    terms.charon = "fragment_size = 600".into();
    let site = Site::start("swan-fragments", &terms);
    site.assert_joined_by_either();
    let log = site.strongswan.log();
    assert!(
        log.contains("received fragment #"),
        "Penstock sent no fragments\n{log}"
    );
    assert!(
        log.contains("splitting IKE message"),
        "strongSwan sent no fragments\n{log}"
    );
}

#[test]
fn a_stranger_s_certificate_is_refused_with_the_reason() {
    let (pki, other) = (Pki::new().unwrap(), Pki::new().unwrap());
    let mut terms = terms(&pki, KeyKind::P256);
    let stranger = other.issue("gw2.example", KeyKind::P256).unwrap();
    terms.pem[1].1 = stranger.certificate;
    terms.pem[2].1 = stranger.key;
    let site = Site::start("swan-stranger", &terms);
    let error = site.penstock.penstock(&["up", "site"]).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}\n{}", site.logs());
    let shown = site.ike();
    assert!(
        shown["failure"].as_str().unwrap().contains("certificate"),
        "{shown}"
    );
    assert!(site.does(&["log", "site"]).contains("FAILED"));
    // It had authenticated us before, and is told what came of its own certificate.
    site.wait_for("the stranger was told nothing", |site| {
        site.strongswan.log().contains("request 2 [ N(AUTH_FAILED) ]")
    });
}
