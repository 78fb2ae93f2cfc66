//! EAP through an authentication server: the gateway only carries packets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use southbound::KeyMaterial;

use super::server::{EapServer, Verdict};
use crate::crypto::random::{Random, SystemRandom};
use crate::payload::eap::{EapPacket, code};
use crate::{
    Authority, Certificate, ChildConfig, Connection, Credential, Credentials, EapAnswer, Endpoint,
    EndpointConfig, Event, Identity, LocalAuth, RemoteAuth, RemoteId, SigningKey, StartAction, TsSide,
};

fn address(host: u8) -> std::net::IpAddr {
    [192, 0, 2, host].into()
}

fn endpoint(credentials: Credentials, connection: Connection, now: Instant) -> Endpoint {
    let random = Box::new(SystemRandom::new());
    let mut endpoint = Endpoint::new(EndpointConfig::default(), credentials, random, now, 1_800_000_000);
    endpoint.add_connection(now, connection);
    endpoint
}

/// A client with a password, and a gateway with a certificate that asks an authentication server.
fn client_and_gateway(now: Instant) -> [Endpoint; 2] {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().der().to_vec();
    let issuer = rcgen::Issuer::new(params, key);
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
    let own = own.signed_by(&own_key, &issuer).unwrap().der().to_vec();
    let mut gateway_has = Credentials::new();
    gateway_has.add_credential(
        "own",
        Credential::new(
            Certificate::parse(&own).unwrap(),
            vec![],
            SigningKey::from_der(&own_key.serialize_der()).unwrap(),
        )
        .unwrap(),
    );
    let mut client_has = Credentials::new();
    client_has.add_authority(Authority::parse(&ca).unwrap());
    client_has.add_eap_user("alice", "wonderland");

    let mut child = ChildConfig::new("net", None, vec![TsSide::Dynamic], vec![TsSide::Dynamic]);
    child.start = StartAction::Start;
    let mut client = Connection::new("gateway");
    client.local_addresses = vec![address(1)];
    client.remote_addresses = vec![SocketAddr::new(address(2), 500)];
    client.local_auth = LocalAuth::EapMschapv2 { user: "alice".into() };
    client.remote_auth = RemoteAuth::Certificate;
    client.remote_id = RemoteId::Exactly(Identity::from_text("gw.example"));
    client.request_addresses = (true, false);
    client.children = vec![child];

    let net = TsSide::Fixed(crate::TrafficSelector::any_like(address(2)));
    let mut gateway = Connection::new("users");
    gateway.local_auth = LocalAuth::Certificate {
        credential: "own".into(),
        rsa_scheme: Default::default(),
    };
    gateway.remote_auth = RemoteAuth::EapRelay;
    gateway.pools = vec!["10.9.0.0/24".parse().unwrap()];
    gateway.children = vec![ChildConfig::new("net", None, vec![net], vec![TsSide::Dynamic])];
    [
        endpoint(client_has, client, now),
        endpoint(gateway_has, gateway, now),
    ]
}

/// Carries datagrams until none is left; returns what the gateway wants to have asked.
fn carry(hosts: &mut [Endpoint; 2], now: Instant) -> Vec<(crate::SaId, Vec<u8>, String)> {
    let [client, gateway] = hosts;
    let mut asked = Vec::new();
    loop {
        let mut idle = true;
        while let Some(t) = client.poll_transmit() {
            idle = false;
            gateway.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while let Some(t) = gateway.poll_transmit() {
            idle = false;
            client.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while let Some(event) = gateway.poll_event() {
            if let Event::EapRequest { sa, packet, user, .. } = event {
                asked.push((sa, packet.expose().to_vec(), user));
            }
        }
        if idle {
            return asked;
        }
    }
}

/// An authentication server that knows alice by this password; the gateway's answer for each packet.
fn authenticate(password: &str, repeat: bool) -> ([Endpoint; 2], Instant) {
    let random: &mut dyn Random = &mut SystemRandom::new();
    let mut users = Credentials::new();
    users.add_eap_user("alice", password);
    let (mut server, _) = EapServer::new(&Connection::new("radius"), random).unwrap();
    let mut now = Instant::now();
    let mut hosts = client_and_gateway(now);
    hosts[0].handle_timeout(now);
    let mut first = true;
    loop {
        let asked = carry(&mut hosts, now);
        let Some((sa, packet, user)) = asked.into_iter().next() else {
            return (hosts, now);
        };
        assert_eq!(user, "alice");
        if repeat {
            // The server takes its time: the client repeats itself, and the server is not asked twice.
            now += Duration::from_secs(3);
            hosts[0].handle_timeout(now);
            assert!(carry(&mut hosts, now).is_empty());
        }
        let packet = EapPacket::from_bytes(&packet).unwrap();
        if std::mem::take(&mut first) {
            server.asked_by_gateway(packet.identifier);
        }
        let answer = match server.receive(&packet, &users, 0, random).unwrap() {
            Verdict::Continue(packet) => EapAnswer::Continue(packet.to_bytes()),
            Verdict::Success(packet, msk) => EapAnswer::Success {
                packet: Some(packet.to_bytes()),
                // As RADIUS has it: both keys of 16 bytes, without the zeroes after them.
                msk: KeyMaterial::new(msk.expose()[..32].to_vec()),
                user: None,
                addresses: vec!["10.77.0.5".parse().unwrap()],
            },
            Verdict::Failure(packet, reason) => EapAnswer::Failure {
                packet: Some(packet.to_bytes()),
                reason,
            },
            Verdict::Relay(_) => panic!("nothing to relay"),
        };
        hosts[1].answer_eap(now, sa, answer);
    }
}

#[test]
fn an_authentication_server_lets_a_peer_in_and_chooses_its_address() {
    for repeat in [false, true] {
        let (hosts, _) = authenticate("wonderland", repeat);
        let summary = hosts[1].ike_sas();
        assert_eq!(summary.len(), 1);
        assert_eq!(summary[0].state, "established");
        assert_eq!(summary[0].remote_id, Some(Identity::from_text("alice")));
        assert_eq!(
            summary[0].virtual_addresses,
            ["10.77.0.5".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(hosts[0].ike_sas()[0].state, "established");
    }
}

#[test]
fn an_authentication_server_refuses_a_peer() {
    let (hosts, _) = authenticate("looking-glass", false);
    assert!(hosts.iter().all(|host| host.ike_sas().is_empty()));
    assert_eq!(hosts[1].counters().authentication_failed, 1);
    assert_eq!(hosts[1].half_open(), 0);
}

#[test]
fn answers_of_no_use_and_servers_that_never_answer() {
    let mut now = Instant::now();
    let mut hosts = client_and_gateway(now);
    hosts[0].handle_timeout(now);
    let (sa, ..) = carry(&mut hosts, now).remove(0);
    hosts[1].answer_eap(now, crate::SaId(999), EapAnswer::Continue(vec![]));
    // Success without EAP-Success in it is still one; garbage is a refusal.
    hosts[1].answer_eap(now, sa, EapAnswer::Continue(vec![code::SUCCESS, 1, 0, 4]));
    carry(&mut hosts, now);
    assert!(hosts[1].ike_sas().is_empty());

    let mut hosts = client_and_gateway(now);
    hosts[0].handle_timeout(now);
    let (sa, ..) = carry(&mut hosts, now).remove(0);
    now += Duration::from_secs(31);
    hosts[1].handle_timeout(now);
    assert!(hosts[1].ike_sas().is_empty(), "nothing waits for ever");
    hosts[1].answer_eap(now, sa, EapAnswer::Continue(vec![1, 1, 0, 5, 26]));
}
