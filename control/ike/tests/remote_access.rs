//! Remote access: the exchanges that Windows, macOS, iOS and Android send, in their shapes, from IKE_SA_INIT to a tunnel
//! with an address, DNS and routes.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod certified;
mod network;

use std::net::IpAddr;
use std::time::Duration;

use certified::{by_certificate, certified, with_credentials};
use ike::{
    Connection, Credentials, Event, Identity, LocalAuth, RemoteAuth, RemoteId, RsaScheme, TrafficSelector,
    TsSide,
};
use network::{Network, address};

const SOON: Duration = Duration::from_secs(3);

#[test]
fn eap_with_addresses_from_a_pool() {
    let mut credentials = certified(["gw0.example", "gw1.example"]);
    credentials[0].add_eap_user("alice", "wonderland");
    credentials[1].add_eap_user("alice", "wonderland");
    let run = |credentials: [Credentials; 2]| {
        let mut net = with_credentials(12, credentials, |host, c| {
            if host == 0 {
                c.local_id = Some(Identity::from_text("alice"));
                c.local_auth = LocalAuth::EapMschapv2 { user: "alice".into() };
                c.remote_auth = RemoteAuth::Certificate;
                c.request_addresses = (true, true);
            } else {
                by_certificate(c);
                c.remote_auth = RemoteAuth::EapMschapv2;
                c.remote_id = RemoteId::Any;
                c.remote_addresses.clear();
                c.pools = vec!["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
                c.dns = vec!["10.2.0.53".parse().unwrap()];
                c.children[0].tunnel = None;
            }
        });
        net.run(SOON);
        net
    };
    let net = run(credentials.clone());
    let client = &net.hosts[0].endpoint.ike_sas()[0];
    let server = &net.hosts[1].endpoint.ike_sas()[0];
    assert_eq!(client.state, "established");
    assert_eq!(server.remote_id, Some(Identity::from_text("alice")));
    assert_eq!(
        server.virtual_addresses,
        [
            "10.9.0.1".parse::<std::net::IpAddr>().unwrap(),
            "fd09::1".parse().unwrap()
        ]
    );
    assert_eq!(
        client.children[0].local_ts,
        ["10.9.0.1", "fd09::1"].map(|a| TrafficSelector::host(a.parse().unwrap()))
    );
    credentials[0].add_eap_user("alice", "looking-glass");
    let net = run(credentials);
    assert_eq!(net.count(1, |e| matches!(e, Event::IkeUp { .. })), 0);
    assert!(
        net.failures(1)[0].contains("wrong user name or password"),
        "{:?}",
        net.failures(1)
    );
}

/// A gateway for users: certificate `gw1.example`, pools for both families, DNS, one split network, and no network of its
/// users.
fn gateway(c: &mut Connection, users: RemoteAuth) {
    by_certificate(c);
    c.remote_auth = users;
    c.remote_id = RemoteId::Any;
    c.remote_addresses.clear();
    c.proposals = ike::default_ike_proposals();
    c.pools = vec!["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
    c.dns = vec!["10.2.0.53".parse().unwrap()];
    c.announced_networks = vec!["10.2.0.0/16".parse().unwrap()];
    c.children[0].tunnel = None;
    c.children[0].local_ts = ["0.0.0.0", "::"]
        .map(|any| TsSide::Fixed(TrafficSelector::any_like(any.parse().unwrap())))
        .to_vec();
    c.children[0].remote_ts = vec![TsSide::Dynamic];
    c.children[0].proposals = ike::default_esp_proposals();
}

/// A client: asks for everything, sends all its traffic into the tunnel.
fn client(c: &mut Connection, ike: &[&str], esp: &[&str]) {
    c.remote_auth = RemoteAuth::Certificate;
    c.proposals = ike.iter().map(|text| text.parse().unwrap()).collect();
    let child = &mut c.children[0];
    child.proposals = esp.iter().map(|text| text.parse().unwrap()).collect();
    child.local_ts = vec![TsSide::Dynamic];
    child.remote_ts = ["0.0.0.0", "::"]
        .map(|any| TsSide::Fixed(TrafficSelector::any_like(any.parse().unwrap())))
        .to_vec();
}

fn users(mut credentials: [Credentials; 2]) -> [Credentials; 2] {
    for side in &mut credentials {
        side.add_eap_user("alice", "wonderland");
    }
    credentials
}

fn assert_remote_access(net: &Network, who: &str) -> Vec<IpAddr> {
    assert_eq!(net.failures(0), Vec::<String>::new());
    assert_eq!(net.failures(1), Vec::<String>::new());
    let server = &net.hosts[1].endpoint.ike_sas()[0];
    assert_eq!(server.state, "established");
    assert_eq!(server.remote_id, Some(Identity::from_text(who)));
    let child = &server.children[0];
    let expected: Vec<_> = server
        .virtual_addresses
        .iter()
        .copied()
        .map(TrafficSelector::host)
        .collect();
    assert_eq!(child.remote_ts, expected, "its own addresses and nothing else");
    server.virtual_addresses.clone()
}

#[test]
fn windows_with_a_password() {
    // IDi is the client's address, no IDr, SHA-1 in ESP, no group in the first child, MS-CHAPv2; the gateway has to name
    // modp1024 and SHA-1. Behind a NAT it is not asked to renew Child SAs.
    let mut net = with_credentials(41, users(certified(["gw0.example", "gw1.example"])), |host, c| {
        if host == 0 {
            client(
                c,
                &[
                    "3des-sha1-modp1024",
                    "aes256-sha1-modp1024",
                    "aes256-sha384-modp1024",
                ],
                &["aes256-sha1-noesn", "aes128-sha1-noesn"],
            );
            c.local_id = Some(Identity::Address(address(0)));
            c.remote_id = RemoteId::Any;
            c.local_auth = LocalAuth::EapMschapv2 { user: "alice".into() };
            c.request_addresses = (true, true);
            c.childless = ike::Childless::Never;
        } else {
            gateway(c, RemoteAuth::EapMschapv2);
            c.proposals = vec!["aes256-sha384-modp1024".parse().unwrap()];
            c.children[0].proposals = vec!["aes256-sha1".parse().unwrap()];
            c.local_auth = LocalAuth::Certificate {
                credential: "own".into(),
                rsa_scheme: RsaScheme::PssOrSha1,
            };
        }
    });
    net.run(SOON);
    assert_eq!(assert_remote_access(&net, "alice").len(), 2);
    assert!(net.hosts[1].endpoint.ike_sas()[0].suite.contains("modp1024"));
}

#[test]
fn macos_and_ios_with_a_password() {
    // One proposal, IDr is the gateway's name, IDi the device's own name, never a group for the child.
    let mut net = with_credentials(42, users(certified(["gw0.example", "gw1.example"])), |host, c| {
        if host == 0 {
            client(c, &["aes256-sha256-modp2048"], &["aes256-sha256-none-noesn"]);
            c.local_id = Some(Identity::from_text("mac.local"));
            c.remote_id = RemoteId::Exactly(Identity::from_text("gw1.example"));
            c.local_auth = LocalAuth::EapMschapv2 { user: "alice".into() };
            c.request_addresses = (true, true);
        } else {
            gateway(c, RemoteAuth::EapMschapv2);
            c.local_id = None;
        }
    });
    net.run(SOON);
    assert_eq!(assert_remote_access(&net, "alice").len(), 2);
    // It renews its child without a group, as it came.
    let now = net.now;
    net.hosts[0].endpoint.rekey_child(now, "peer", "net");
    net.run_lossless(Duration::from_secs(10));
    assert_eq!(net.count(1, |e| matches!(e, Event::ChildRekeyed { .. })), 1);
}

#[test]
fn ios_17_with_a_certificate_by_eap_tls() {
    let mut net = with_credentials(43, certified(["phone.example", "gw1.example"]), |host, c| {
        if host == 0 {
            client(
                c,
                &["aes256gcm16-prfsha256-ecp256", "aes256gcm16-prfsha256-modp2048"],
                &["aes256gcm16-none-noesn"],
            );
            c.local_id = Some(Identity::from_text("phone.local"));
            c.remote_id = RemoteId::Exactly(Identity::from_text("gw1.example"));
            c.local_auth = LocalAuth::EapTls {
                credential: "own".into(),
            };
            c.request_addresses = (true, false);
        } else {
            gateway(c, RemoteAuth::EapTls);
        }
    });
    net.run(SOON);
    assert_eq!(
        assert_remote_access(&net, "phone.example"),
        ["10.9.0.1".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn a_certificate_of_another_authority_does_not_pass_eap_tls() {
    let [stranger, _] = certified(["phone.example", "gw1.example"]);
    let [_, gateway_has] = certified(["phone.example", "gw1.example"]);
    let mut net = with_credentials(44, [stranger, gateway_has], |host, c| {
        if host == 0 {
            client(c, &["aes256gcm16-prfsha256-ecp256"], &["aes256gcm16-none-noesn"]);
            c.local_auth = LocalAuth::EapTls {
                credential: "own".into(),
            };
        } else {
            gateway(c, RemoteAuth::EapTls);
        }
    });
    net.run(SOON);
    assert_eq!(net.count(1, |e| matches!(e, Event::IkeUp { .. })), 0);
    assert!(net.hosts[1].dataplane.installed.is_empty());
}

#[test]
fn android_with_its_long_lists() {
    // Two proposals with every family, large groups first; the child's lists likewise. IPv4 and IPv6 with DNS.
    let mut net = with_credentials(45, users(certified(["gw0.example", "gw1.example"])), |host, c| {
        if host == 0 {
            client(
                c,
                &[
                    "aes256ctr-aes256-aes192-aes128-sha512-sha384-sha256-aesxcbc-aescmac-prfsha512-prfsha384\
                     -prfsha256-prfaesxcbc-prfaescmac-modp4096-x25519-modp3072-modp2048",
                    "chacha20poly1305-aes256gcm16-aes256gcm12-aes256gcm8-aes128gcm16-prfsha512-prfsha384-prfsha256\
                     -prfaesxcbc-prfaescmac-modp4096-x25519-modp3072-modp2048",
                ],
                &[
                    "aes256-aes128-sha512-sha384-sha256-noesn",
                    "chacha20poly1305-aes256gcm16-aes128gcm16-noesn",
                ],
            );
            c.local_id = Some(Identity::from_text("alice"));
            c.remote_id = RemoteId::Exactly(Identity::from_text("gw1.example"));
            c.local_auth = LocalAuth::EapMschapv2 { user: "alice".into() };
            c.request_addresses = (true, true);
        } else {
            gateway(c, RemoteAuth::EapMschapv2);
        }
    });
    net.run(SOON);
    assert_eq!(assert_remote_access(&net, "alice").len(), 2);
    assert_eq!(
        net.hosts[1].endpoint.ike_sas()[0].suite,
        "aes256gcm16-prfsha384-x25519",
        "the gateway asked for its own group"
    );
}

#[test]
fn a_user_that_authenticates_anew_keeps_its_address() {
    let mut net = with_credentials(46, users(certified(["gw0.example", "gw1.example"])), |host, c| {
        if host == 0 {
            client(c, &["aes256gcm16-prfsha256-x25519"], &["aes256gcm16-none"]);
            c.local_auth = LocalAuth::EapMschapv2 { user: "alice".into() };
            c.request_addresses = (true, false);
        } else {
            gateway(c, RemoteAuth::EapMschapv2);
            // AUTH_LIFETIME (RFC 4478) asks for it.
            c.reauthenticate_after = Some(Duration::from_secs(100));
        }
    });
    net.run(SOON);
    let before = assert_remote_access(&net, "alice");
    net.run(Duration::from_secs(120));
    assert_eq!(net.count(0, |e| matches!(e, Event::IkeUp { .. })), 2);
    let server = net.hosts[1].endpoint.ike_sas();
    assert_eq!(server.len(), 1, "the old SA is gone");
    assert_eq!(server[0].virtual_addresses, before);
}

#[test]
fn a_gateway_with_several_names_answers_to_each() {
    // IDr asks for a name that the certificate bears beside the first.
    let mut net = with_credentials(47, certified(["gw0.example", "gw1.example"]), |host, c| {
        by_certificate(c);
        if host == 0 {
            c.remote_id = RemoteId::Exactly(Identity::from_text("CN=gw1.example"));
        } else {
            c.local_id = None;
        }
    });
    net.run(SOON);
    net.assert_agreement(1);
    assert_eq!(
        net.hosts[0].endpoint.ike_sas()[0].remote_id,
        Some(Identity::from_text("CN=gw1.example"))
    );
}
