//! Clients behind a NAT, with a name and a password, who get addresses of ours.

use bench::freeradius::FreeRadius;
use bench::namespace::Namespace;
use bench::pki::{KeyKind, Pki};
use bench::process::wait_until;
use bench::strongswan::{Files, StrongSwan};

use crate::site::{LIMIT, Site, Terms, answers, lost_during};

/// strongSwan on host B: gateway 2 is the NAT before it.
struct Client {
    site: Site,
    charon: StrongSwan,
}

fn masquerade(router: &Namespace) {
    router.run("nft add table ip nat").unwrap();
    router
        .run("nft add chain ip nat out { type nat hook postrouting priority 100 ; }")
        .unwrap();
    router
        .run("nft add rule ip nat out oifname wan masquerade")
        .unwrap();
}

/// The terms of Penstock; gateway 2's own charon has none and idles.
fn start(stem: &str, terms: &Terms, client: &Files) -> Client {
    let mut gateway = terms.clone();
    (gateway.peer_children, gateway.pem) = (String::new(), Vec::new());
    gateway.peer_auth = "local { auth = psk }\n remote { auth = psk }".into();
    let site = Site::start(stem, &gateway);
    site.topology
        .gateway_2
        .ip("route del unreachable 10.1.0.0/24")
        .unwrap();
    masquerade(&site.topology.gateway_2);
    let charon = StrongSwan::start(&site.topology.host_b, client).unwrap();
    Client { site, charon }
}

impl Client {
    fn initiates(&self) {
        self.charon
            .swanctl(&["--initiate", "--child", "net", "--timeout", "15"])
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.charon.log(), self.site.logs()));
    }
}

#[test]
fn a_peer_behind_a_nat_is_reached_through_it() {
    let mut terms = Terms::preshared();
    terms.connection = terms.connection.clone() + "remote = [\"%any\"]\n";
    terms.children = r#"[[connection.child]]
name = "net"
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.3.0.0/24"]
start = "none"
"#
    .into();
    let mut peer = terms.clone();
    // Without MOBIKE, which would tell of a change that this client cannot even see.
    peer.peer = "local_addrs = %any\n remote_addrs = 198.51.100.1\n mobike = no".into();
    peer.peer_children =
        "net { local_ts = 10.3.0.0/24\n remote_ts = 10.1.0.0/24\n esp_proposals = aes128gcm16 }".into();
    let client = start("swan-nat", &terms, &peer.files());
    let host = &client.site.topology.host_b;
    host.ip("addr add 10.3.0.1/24 dev lo").unwrap();
    client.initiates();
    client
        .site
        .assert_answers(&client.site.topology.host_a, "10.3.0.1");
    assert!(
        host.run("ping -c 3 -i 0.2 -I 10.3.0.1 10.1.0.10").is_ok(),
        "{}",
        client.site.logs()
    );
    let record = client.site.ike();
    assert_eq!(record["nat"], "there", "{record}");
    assert!(!record["remote"].as_str().unwrap().ends_with(":500"), "{record}");

    // The NAT takes another address and knows no mapping any more: the client's packets alone tell.
    let nat = &client.site.topology.gateway_2;
    nat.sysctl("net.ipv4.conf.all.promote_secondaries", "1").unwrap();
    nat.ip("addr add 198.51.100.22/24 dev wan").unwrap();
    nat.ip("addr del 198.51.100.2/24 dev wan").unwrap();
    assert!(
        wait_until(LIMIT, || host.run("ping -c 1 -W 1 -I 10.3.0.1 10.1.0.10").is_ok()),
        "{}",
        client.site.logs()
    );
    client.site.wait_for("the client was not followed", |site| {
        site.ike()["remote"]
            .as_str()
            .is_some_and(|remote| remote.starts_with("198.51.100.22:"))
    });
    let log = client.site.does(&["log"]);
    assert_eq!(
        log.matches("IKE SA up").count(),
        1,
        "it was negotiated anew\n{log}"
    );
}

/// Penstock's terms for clients that authenticate by EAP, and a client's.
fn road_warriors(pki: &Pki, remote_auth: &str) -> (Terms, Terms) {
    let own = pki.issue("gw1.example", KeyKind::P256).unwrap();
    let mut terms = Terms::preshared();
    terms.file = r#"[[credential]]
name = "own"
certificate_file = "{folder}/own.pem"
key_file = "{folder}/own.key"
"#
    .into();
    terms.connection = format!(
        r#"remote = ["%any"]
local_auth = "certificate"
remote_auth = "{remote_auth}"
credential = "own"
local_id = "gw1.example"
pools = ["10.9.0.0/24", "fd09::/64"]
dns = ["10.1.0.53"]
"#
    );
    terms.children =
        "[[connection.child]]\nname = \"net\"\nlocal_ts = [\"10.1.0.0/24\", \"fd01::/64\"]\n".into();
    terms.secrets = vec![("own.pem".into(), own.certificate), ("own.key".into(), own.key)];
    let mut peer = terms.clone();
    peer.peer = "local_addrs = %any\n remote_addrs = 198.51.100.1\n vips = 0.0.0.0,::".into();
    peer.peer_auth =
        "local { auth = eap-mschapv2\n eap_id = alice\n id = alice }\n remote { auth = pubkey\n id = gw1.example }".into();
    peer.peer_children =
        "net { local_ts = dynamic\n remote_ts = 10.1.0.0/24,fd01::/64\n esp_proposals = aes128gcm16 }".into();
    peer.peer_secrets = "secrets { eap-1 { id = alice\n secret = \"in wonderland\" } }".into();
    peer.pem = vec![("x509ca/ca.pem".into(), pki.certificate())];
    (terms, peer)
}

impl Client {
    fn terminates(&self) {
        self.charon
            .swanctl(&["--terminate", "--ike", "peer", "--timeout", "5"])
            .unwrap();
    }

    /// The addresses that the client was given.
    fn given(&self) -> Vec<String> {
        let record = self.site.ike();
        let given = record["virtual_addresses"].as_array().unwrap();
        given
            .iter()
            .map(|address| address.as_str().unwrap().to_owned())
            .collect()
    }

    /// With a wrong password there is nothing, and the operator is told.
    fn assert_wrong_password_is_refused(&self, peer: &Terms) {
        self.charon
            .connections(&peer.strongswan().replace("in wonderland", "in sunderland"))
            .unwrap();
        self.charon.load().unwrap();
        self.charon
            .swanctl(&["--initiate", "--child", "net", "--timeout", "5"])
            .unwrap_err();
        assert_ne!(self.site.ike()["state"], "established", "{}", self.site.logs());
    }
}

#[test]
fn eap_mschapv2_clients_get_addresses_from_the_pool_and_keep_them() {
    let pki = Pki::new().unwrap();
    let (mut terms, peer) = road_warriors(&pki, "eap-mschapv2");
    terms.file += "[[secret]]\nkind = \"eap\"\nid = [\"alice\"]\nfile = \"{folder}/alice\"\n";
    terms.secrets.push(("alice".into(), "in wonderland".into()));
    let mut client = start("swan-eap", &terms, &peer.files());
    client.initiates();
    let given = client.given();
    assert!(given.len() == 2 && given[0].starts_with("10.9.0."), "{given:?}");
    let Client { site, charon: _ } = &client;
    let (host_a, host_b) = (&site.topology.host_a, &site.topology.host_b);
    site.assert_answers(host_b, "10.1.0.10");
    site.assert_answers(host_b, "fd01::10");
    site.assert_answers(host_a, &given[0]);
    client.terminates();
    assert!(
        !answers(&client.site.topology.host_a, &given[0]),
        "the address outlived its client"
    );
    // Another takes the next address; alice gets hers again, from a control process that was restarted.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    client.site.penstock.control().unwrap().kill().unwrap();
    client.site.penstock.start_control().unwrap();
    client.initiates();
    assert_eq!(client.given(), given);
    client.terminates();
    client.assert_wrong_password_is_refused(&peer);
}

#[test]
fn a_client_goes_on_while_control_restarts_and_may_return() {
    let pki = Pki::new().unwrap();
    let (mut terms, peer) = road_warriors(&pki, "eap-mschapv2");
    terms.file += "[[secret]]\nkind = \"eap\"\nid = [\"alice\"]\nfile = \"{folder}/alice\"\n";
    terms.secrets.push(("alice".into(), "in wonderland".into()));
    let mut client = start("swan-heir", &terms, &peer.files());
    client.initiates();
    let given = client.given();
    client
        .site
        .assert_answers(&client.site.topology.host_b, "10.1.0.10");
    // Leases are written within a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    client.site.penstock.control().unwrap().kill().unwrap();
    client.site.penstock.start_control().unwrap();
    client
        .site
        .wait_for("control does not know what it inherited", |site| {
            site.penstock
                .logs()
                .contains("SAs of an earlier control process serve")
        });
    // The client does not know that its IKE SA is gone, and need not: nothing is lost, whichever end sends.
    let Client { site, charon } = &mut client;
    for (from, to) in [
        (&site.topology.host_b, "10.1.0.10"),
        (&site.topology.host_a, given[0].as_str()),
    ] {
        assert_eq!(lost_during(from, to, 50, || {}), 0, "{}", site.logs());
    }
    // Until it starts over: it gets its address again, and nothing of before is left.
    charon.kill().unwrap();
    charon.restart().unwrap();
    client.initiates();
    assert_eq!(client.given(), given);
    let site = &client.site;
    site.assert_answers(&site.topology.host_b, "10.1.0.10");
    site.assert_answers(&site.topology.host_a, &given[0]);
    site.wait_for("the former tunnel was left over", |site| {
        let count = |noun: &str, list: &str| {
            let shown = site.penstock.json(&["show", noun]).unwrap();
            shown[list].as_array().unwrap().len()
        };
        (count("tunnels", "tunnels"), count("sa", "sas")) == (1, 2)
    });
}

#[test]
fn eap_tls_ends_at_the_gateway() {
    let pki = Pki::new().unwrap();
    let (mut terms, mut peer) = road_warriors(&pki, "eap-tls");
    terms.file += "[[authority]]\ncertificate_file = \"{folder}/ca.pem\"\n";
    terms.secrets.push(("ca.pem".into(), pki.certificate()));
    let own = pki.issue("alice.example", KeyKind::P256).unwrap();
    peer.pem.push(("x509/own.pem".into(), own.certificate));
    peer.pem.push(("private/own.pem".into(), own.key));
    peer.peer_auth = "local { auth = eap-tls\n certs = own.pem\n id = alice.example }\n remote { auth = pubkey\n id = gw1.example }".into();
    peer.peer_secrets = String::new();
    let client = start("swan-eap-tls", &terms, &peer.files());
    client.initiates();
    assert_eq!(client.site.ike()["remote_id"], "alice.example");
    let given = client.given();
    assert!(given.len() == 2 && given[0].starts_with("10.9.0."), "{given:?}");
    client
        .site
        .assert_answers(&client.site.topology.host_b, "10.1.0.10");
    client
        .site
        .assert_answers(&client.site.topology.host_a, &given[0]);
    client.terminates();

    // A certificate of nobody we know.
    let stranger = Pki::new().unwrap().issue("alice.example", KeyKind::P256).unwrap();
    let Client { site, charon } = client;
    drop(charon);
    let mut other = peer.files();
    for (place, pem) in &mut other.pem {
        match place.as_str() {
            "x509/own.pem" => pem.clone_from(&stranger.certificate),
            "private/own.pem" => pem.clone_from(&stranger.key),
            _ => {}
        }
    }
    let charon = StrongSwan::start(&site.topology.host_b, &other).unwrap();
    charon
        .swanctl(&["--initiate", "--child", "net", "--timeout", "5"])
        .unwrap_err();
    let log = site.does(&["log"]);
    let refused = |line: &str| line.contains("FAILED") && line.to_lowercase().contains("certificate");
    assert!(log.lines().any(refused), "{log}\n{}", charon.log());
    assert_ne!(site.ike()["state"], "established");
}

#[test]
fn eap_through_freeradius() {
    let pki = Pki::new().unwrap();
    let (mut terms, peer) = road_warriors(&pki, "eap-radius");
    terms.file += "[[radius]]\nserver = \"10.1.0.10\"\nsecret_file = \"{folder}/radius\"\n";
    terms
        .secrets
        .push(("radius".into(), "shared-with-penstock".into()));
    let client = start("swan-radius", &terms, &peer.files());
    let server = FreeRadius::start(
        &client.site.topology.host_a,
        "10.1.0.10".parse().unwrap(),
        "10.1.0.1".parse().unwrap(),
        "shared-with-penstock",
        "alice Cleartext-Password := \"in wonderland\"\n\tFramed-IP-Address = 10.9.0.77\n",
    )
    .unwrap();
    client.initiates();
    let given = client.given();
    assert!(
        given.contains(&"10.9.0.77".to_owned()),
        "{given:?}\n{}",
        server.log()
    );
    client
        .site
        .assert_answers(&client.site.topology.host_b, "10.1.0.10");
    client
        .site
        .assert_answers(&client.site.topology.host_a, "10.9.0.77");
    client.terminates();
    client.assert_wrong_password_is_refused(&peer);
    client.site.wait_for("the refusal was not told", |site| {
        site.does(&["log"]).contains("refused")
    });
}
