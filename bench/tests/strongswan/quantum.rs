//! ML-KEM beside a classical key exchange (RFC 9370), against strongSwan 6.1.

use crate::site::{Site, Terms};

#[test]
fn ml_kem_768_by_default_both_ways_and_over_rekeys() {
    let mut terms = Terms::preshared();
    terms.is_6_1 = true;
    terms.peer = "proposals = aes256gcm16-prfsha384-x25519-ke1_mlkem768".into();
    let site = Site::start("swan-mlkem", &terms);
    site.does(&["up", "site"]);
    site.assert_joined();
    let suite = |site: &Site| site.ike()["suite"].as_str().unwrap().to_owned();
    assert!(suite(&site).contains("mlkem768"), "{}", site.ike());
    site.does(&["rekey", "site"]);
    assert!(suite(&site).contains("mlkem768"), "{}", site.ike());
    site.assert_joined();
    site.does(&["down", "site"]);
    site.peer_initiates();
    site.assert_joined();
    assert!(suite(&site).contains("mlkem768"), "{}", site.ike());
}
