//! Both ends of EAP methods against each other.

use super::client::EapClient;
use super::mschapv2::opcode;
use super::server::{EapServer, Verdict};
use crate::config::{Connection, LocalAuth};
use crate::credential::Credentials;
use crate::crypto::random::Random;
use crate::crypto::random::SystemRandom;
use crate::error::{Error, Result};
use crate::payload::eap::{EapPacket, code, method};
use southbound::KeyMaterial;

fn alice(password: &str) -> (LocalAuth, Credentials) {
    let mut credentials = Credentials::new();
    credentials.add_eap_user("alice", password);
    (LocalAuth::EapMschapv2 { user: "alice".into() }, credentials)
}

fn run(password: &str) -> (Result<()>, Option<KeyMaterial>, Option<KeyMaterial>) {
    let random: &mut dyn Random = &mut SystemRandom::new();
    let mut credentials = Credentials::new();
    credentials.add_eap_user("alice", "wonderland");
    let (mut server, mut packet) = EapServer::new(&Connection::new("c"), random).unwrap();
    let (auth, known) = alice(password);
    let mut client = EapClient::new(&auth, &known).unwrap();
    for _ in 0..10 {
        let answer = match client.receive(&packet, &credentials, 0, random) {
            Ok(Some(answer)) => answer,
            Ok(None) => panic!("success before the server said so"),
            Err(error) => return (Err(error), None, None),
        };
        match server.receive(&answer, &credentials, 0, random).unwrap() {
            Verdict::Continue(next) => packet = next,
            Verdict::Success(success, msk) => {
                assert!(
                    client
                        .receive(&success, &credentials, 0, random)
                        .unwrap()
                        .is_none()
                );
                return (Ok(()), Some(msk), client.msk().ok());
            }
            Verdict::Failure(failure, reason) => {
                assert!(client.receive(&failure, &credentials, 0, random).is_err());
                return (Err(Error::AuthenticationFailed(reason)), None, None);
            }
            Verdict::Relay(_) => panic!("nothing to relay"),
        }
    }
    panic!("no end");
}

#[test]
fn right_and_wrong_passwords() {
    let (outcome, server, client) = run("wonderland");
    assert_eq!(outcome, Ok(()));
    assert_eq!(server.unwrap(), client.unwrap());
    assert!(run("looking-glass").0.is_err());
}

#[test]
fn fault_31_early_success_and_packets_out_of_order() {
    let random: &mut dyn Random = &mut SystemRandom::new();
    let (auth, credentials) = alice("x");
    let mut client = EapClient::new(&auth, &credentials).unwrap();
    let success = EapPacket {
        code: code::SUCCESS,
        identifier: 1,
        method: None,
        data: vec![],
    };
    assert!(
        client.receive(&success, &credentials, 0, random).is_err(),
        "EAP-Success before the method is done"
    );
    assert!(client.msk().is_err());
    let (mut server, first) = EapServer::new(&Connection::new("c"), random).unwrap();
    let confirm = EapPacket {
        code: code::RESPONSE,
        identifier: first.identifier,
        method: Some(method::MSCHAPV2),
        data: vec![opcode::SUCCESS],
    };
    let verdict = server.receive(&confirm, &Credentials::new(), 0, random).unwrap();
    assert!(matches!(verdict, Verdict::Failure(..)));
}

#[test]
fn fault_31_truncated_responses() {
    let random: &mut dyn Random = &mut SystemRandom::new();
    for length in 0..54 {
        let (mut server, first) = EapServer::new(&Connection::new("c"), random).unwrap();
        let identity = EapPacket {
            code: code::RESPONSE,
            identifier: first.identifier,
            method: Some(method::IDENTITY),
            data: b"alice".to_vec(),
        };
        let Ok(Verdict::Continue(challenge)) = server.receive(&identity, &Credentials::new(), 0, random)
        else {
            panic!("no challenge")
        };
        let mut data = vec![opcode::RESPONSE, 0, 0, 54, 49];
        data.resize(54, 0);
        data.truncate(length);
        let response = EapPacket {
            code: code::RESPONSE,
            identifier: challenge.identifier,
            method: Some(method::MSCHAPV2),
            data,
        };
        let outcome = server.receive(&response, &Credentials::new(), 0, random);
        assert!(
            !matches!(outcome, Ok(Verdict::Success(..) | Verdict::Continue(_))),
            "{length}"
        );
    }
}

/// Credentials of a gateway and of a client by one authority, and those of a client by another.
fn certified() -> [Credentials; 3] {
    let issue = |name: &str, issuer: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let der = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap().der().to_vec(),
            None => {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                params.self_signed(&key).unwrap().der().to_vec()
            }
        };
        (der, params, key)
    };
    let (ca, params, key) = issue("ca", None);
    let (_, foreign_params, foreign_key) = issue("foreign ca", None);
    let own = rcgen::Issuer::new(params, key);
    let foreign = rcgen::Issuer::new(foreign_params, foreign_key);
    [
        ("gw.example", &own),
        ("alice.example", &own),
        ("alice.example", &foreign),
    ]
    .map(|(name, issuer)| {
        let (der, _, key) = issue(name, Some(issuer));
        let key = crate::SigningKey::from_der(&key.serialize_der()).unwrap();
        let mut credentials = Credentials::new();
        let certificate = crate::Certificate::parse(&der).unwrap();
        credentials.add_credential("own", crate::Credential::new(certificate, vec![], key).unwrap());
        credentials.add_authority(crate::Authority::parse(&ca).unwrap());
        credentials
    })
}

const NOW: u64 = 1_800_000_000;

/// Runs EAP-TLS to its end: the keys of both, or what went wrong.
fn run_tls(server_has: &Credentials, client_has: &Credentials) -> Result<(KeyMaterial, KeyMaterial, String)> {
    let random: &mut dyn Random = &mut crate::crypto::random::SystemRandom::new();
    let mut connection = Connection::new("c");
    connection.remote_auth = crate::RemoteAuth::EapTls;
    connection.local_auth = LocalAuth::Certificate {
        credential: "own".into(),
        rsa_scheme: Default::default(),
    };
    let auth = LocalAuth::EapTls {
        credential: "own".into(),
    };
    let (mut server, mut packet) = EapServer::new(&connection, random)?;
    let mut client = EapClient::new(&auth, client_has)?;
    for _ in 0..40 {
        let answer = client
            .receive(&packet, client_has, NOW, random)?
            .ok_or(Error::Malformed("early end"))?;
        match server.receive(&answer, server_has, NOW, random)? {
            Verdict::Continue(next) => packet = next,
            Verdict::Success(success, msk) => {
                assert!(client.receive(&success, client_has, NOW, random)?.is_none());
                return Ok((msk, client.msk()?, server.identity().to_string()));
            }
            Verdict::Failure(failure, reason) => {
                assert!(client.receive(&failure, client_has, NOW, random).is_err());
                return Err(Error::AuthenticationFailed(reason));
            }
            Verdict::Relay(_) => panic!("nothing to relay"),
        }
    }
    panic!("no end");
}

#[test]
fn eap_tls_authenticates_both_and_agrees_on_a_key() {
    let [server, client, _] = certified();
    let (a, b, who) = run_tls(&server, &client).unwrap();
    assert_eq!(a, b);
    assert_eq!(a.len_bytes(), 64);
    assert_eq!(who, "alice.example");
}

#[test]
fn fault_32_and_38_eap_tls_refuses_certificates_of_others() {
    let [server, client, stranger] = certified();
    assert!(
        run_tls(&server, &stranger).is_err(),
        "a client of another authority"
    );
    assert!(
        run_tls(&stranger, &client).is_err(),
        "a server of another authority"
    );
    let mut revoked = server.clone();
    revoked.authorities.clear();
    assert!(run_tls(&revoked, &client).is_err(), "no authority at all");
}

#[test]
fn fault_31_eap_tls_success_before_the_handshake_is_done() {
    let [_, client_has, _] = certified();
    let random: &mut dyn Random = &mut crate::crypto::random::SystemRandom::new();
    let auth = LocalAuth::EapTls {
        credential: "own".into(),
    };
    let mut client = EapClient::new(&auth, &client_has).unwrap();
    let packet = |code, method, data| EapPacket {
        code,
        identifier: 1,
        method,
        data,
    };
    let start = packet(code::REQUEST, Some(method::TLS), vec![0x20]);
    assert!(
        client
            .receive(&start, &client_has, NOW, random)
            .unwrap()
            .is_some()
    );
    let success = packet(code::SUCCESS, None, vec![]);
    assert!(client.receive(&success, &client_has, NOW, random).is_err());
    assert!(client.msk().is_err());
}

#[test]
fn fault_31_eap_tls_lengths_lie() {
    let [server_has, ..] = certified();
    let mut session = super::tls::TlsSession::server("own", &server_has, NOW).unwrap();
    assert!(session.take(&[]).is_err());
    assert!(session.take(&[0x80, 0, 0]).is_err());
    assert!(session.take(&[0x80, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    // A flight that never ends is not kept beyond its bound.
    let mut fragment = vec![0x40];
    fragment.resize(1001, 0);
    let outcome = (0..70).try_for_each(|_| session.take(&fragment).map(drop));
    assert!(outcome.is_err());
}
