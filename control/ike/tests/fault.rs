//! Bad input and bad moments against live endpoints, by the row of the list of faults that each is.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::net::SocketAddr;
use std::time::Duration;

use ike::message::{ExchangeType, Header, emit_message, parse_message};
use ike::payload::Payload;
use ike::payload::notify::NotifyType;
use ike::{Connection, Endpoint, EndpointConfig, Event, Random, SystemRandom};
use network::{Network, Seeded, address, connection, pair, psk};

const SOON: Duration = Duration::from_secs(3);

/// The first request that host 0 would send, and the moment it was made at.
fn first_request() -> (Vec<u8>, Network) {
    let mut net = pair(1, |_, _| {});
    net.faults.drop = 100;
    let now = net.now;
    net.hosts[0].endpoint.handle_timeout(now);
    let request = net.hosts[0].endpoint.poll_transmit().unwrap().bytes;
    (request, net)
}

fn responder(change: impl FnOnce(&mut EndpointConfig, &mut Connection)) -> Network {
    let mut config = EndpointConfig::default();
    let mut own = connection(1);
    own.remote_addresses.clear();
    change(&mut config, &mut own);
    let mut net = Network::new(7, [(EndpointConfig::default(), psk()), (config, psk())]);
    let now = net.now;
    net.hosts[1].endpoint.add_connection(now, own);
    net
}

/// `request` under another initiator SPI.
fn with_spi(request: &[u8], spi: u64) -> Vec<u8> {
    let mut bytes = request.to_vec();
    bytes[..8].copy_from_slice(&spi.to_be_bytes());
    bytes
}

fn deliver(net: &mut Network, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
    let now = net.now;
    let endpoint: &mut Endpoint = &mut net.hosts[1].endpoint;
    endpoint.handle_datagram(now, SocketAddr::new(address(1), 500), from, bytes);
    std::iter::from_fn(|| endpoint.poll_transmit())
        .map(|t| t.bytes)
        .collect()
}

fn notify_of(answer: &[u8]) -> Option<NotifyType> {
    parse_message(answer)
        .unwrap()
        .1
        .payloads
        .iter()
        .find_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify.kind),
            _ => None,
        })
}

#[test]
fn fault_01_every_truncation_and_flip_of_a_first_request_is_survived() {
    let (request, _) = first_request();
    let mut net = responder(|config, _| config.half_open_per_address = usize::MAX);
    let from = SocketAddr::new(address(0), 500);
    for end in 0..request.len() {
        assert!(deliver(&mut net, from, &request[..end]).is_empty());
    }
    let mut random = Seeded(5);
    for _ in 0..5000 {
        let mut bytes = request.clone();
        for _ in 0..1 + random.below(4) {
            let index = random.below(bytes.len() as u64) as usize;
            bytes[index] = random.next() as u8;
        }
        deliver(&mut net, from, &bytes);
    }
}

#[test]
fn fault_06_and_04_proposals_without_a_match_leave_nothing_behind() {
    let (request, _) = first_request();
    let mut net = responder(|_, c| c.proposals = vec!["aes128-sha256-modp2048".parse().unwrap()]);
    let answers = deliver(&mut net, SocketAddr::new(address(0), 500), &request);
    assert_eq!(notify_of(&answers[0]), Some(NotifyType::NO_PROPOSAL_CHOSEN));
    assert!(net.hosts[1].endpoint.ike_sas().is_empty());
}

#[test]
fn fault_18_and_19_a_flood_costs_no_state_and_honest_peers_get_in() {
    let (request, _) = first_request();
    let mut net = responder(|_, _| {});
    let mut cookies = 0;
    for index in 0..20_000_u32 {
        let forged = SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + index).into(), 500);
        let answers = deliver(&mut net, forged, &with_spi(&request, 0x1000 + u64::from(index)));
        assert_eq!(answers.len(), 1);
        if notify_of(&answers[0]) == Some(NotifyType::COOKIE) {
            cookies += 1;
            // Row 30: never more than asked.
            assert!(answers[0].len() < request.len());
        }
    }
    assert!(net.hosts[1].endpoint.half_open() <= 30);
    assert!(cookies >= 19_900);
    // An honest peer returns its cookie and is served.
    let now = net.now;
    net.hosts[0].endpoint.add_connection(now, connection(0));
    net.run(SOON);
    assert_eq!(net.count(1, |e| matches!(e, Event::IkeUp { .. })), 1);
    // Row 19: with a victim's address one gets cookies, and the victim is never blocked below the harder limit.
    let victim = SocketAddr::new(address(0), 500);
    for spi in 0..200 {
        deliver(&mut net, victim, &with_spi(&request, 0x9999_0000 + spi));
    }
    assert_eq!(net.hosts[1].endpoint.counters().half_open_refused, 0);
}

#[test]
fn fault_21_and_22_half_open_sas_end_and_are_counted_right() {
    let (request, _) = first_request();
    let mut net = responder(|config, _| {
        config.cookie_threshold = usize::MAX;
        config.cookie_threshold_per_address = usize::MAX;
    });
    for spi in 1..=200 {
        deliver(
            &mut net,
            SocketAddr::new(address(0), 500),
            &with_spi(&request, spi),
        );
    }
    assert_eq!(net.hosts[1].endpoint.half_open(), 50, "the limit per address");
    assert_eq!(net.hosts[1].endpoint.counters().half_open_refused, 150);
    net.run(Duration::from_secs(31));
    assert_eq!(net.hosts[1].endpoint.half_open(), 0);
    assert!(net.hosts[1].endpoint.ike_sas().is_empty());
    assert_eq!(
        deliver(&mut net, SocketAddr::new(address(0), 500), &request).len(),
        1,
        "and the address is free again"
    );
}

#[test]
fn fault_11_other_versions_and_exchanges() {
    let (request, _) = first_request();
    let mut net = responder(|_, _| {});
    let from = SocketAddr::new(address(0), 500);
    for (index, value) in [(17, 0x10), (18, 0), (18, 38), (18, 255), (19, 0x28), (19, 0)] {
        let mut bytes = request.clone();
        bytes[index] = value;
        assert!(
            deliver(&mut net, from, &bytes).is_empty(),
            "byte {index} = {value}"
        );
    }
    // RFC 7296 section 2.5: the highest version that we know is in the answer's header. Answers are few.
    let mut later = request.clone();
    later[17] = 0x30;
    let answer = deliver(&mut net, from, &later).remove(0);
    assert_eq!(
        (notify_of(&answer), answer[17]),
        (Some(NotifyType::INVALID_MAJOR_VERSION), 0x20)
    );
    assert_eq!(answer[..16], later[..16]);
    later[19] |= 0x20;
    assert!(
        deliver(&mut net, from, &later).is_empty(),
        "an answer is not answered"
    );
    later[19] &= !0x20;
    let answers = (0..500).filter(|_| !deliver(&mut net, from, &later).is_empty());
    assert!(answers.count() < 60, "answers are limited");
    assert!(net.hosts[1].endpoint.ike_sas().is_empty());
}

#[test]
fn fault_11_an_unknown_critical_payload_is_named() {
    let (request, _) = first_request();
    let mut net = responder(|_, _| {});
    let from = SocketAddr::new(address(0), 500);
    // One more payload in front, of a type that does not exist.
    let mut bytes = request[..28].to_vec();
    bytes[16] = 200;
    bytes.extend_from_slice(&[request[16], 0x80, 0, 5, 1]);
    bytes.extend_from_slice(&request[28..]);
    let length = (bytes.len() as u32).to_be_bytes();
    bytes[24..28].copy_from_slice(&length);
    let answers = deliver(&mut net, from, &bytes);
    let notify = parse_message(&answers[0]).unwrap().1.payloads.remove(0);
    let Payload::Notify(notify) = notify else {
        panic!("no notification")
    };
    assert_eq!(notify.kind, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);
    assert_eq!(notify.data, [200]);
    bytes[29] = 0;
    assert_ne!(
        notify_of(&deliver(&mut net, from, &bytes)[0]),
        Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD),
        "not critical: skipped"
    );
}

#[test]
fn requests_for_sas_that_are_gone_are_answered_so_and_a_forged_answer_ends_nothing() {
    let mut net = pair(8, |_, c| c.dpd_delay = Some(Duration::from_secs(30)));
    net.run(SOON);
    // The responder restarts: what its peer sends names an SA that it does not have.
    let now = net.now;
    net.hosts[0].endpoint.rekey_child(now, "peer", "net");
    let request = net.hosts[0].endpoint.poll_transmit().unwrap().bytes;
    let mut restarted = responder(|_, _| {});
    let from = SocketAddr::new(address(0), 500);
    let answer = deliver(&mut restarted, from, &request).remove(0);
    assert_eq!(notify_of(&answer), Some(NotifyType::INVALID_IKE_SPI));
    assert_eq!(
        (&answer[..16], &answer[20..24]),
        (&request[..16], &request[20..24])
    );
    assert_eq!(answer[19], 0x20, "an answer, not of the initiator");
    assert!(
        deliver(&mut restarted, from, &answer).is_empty(),
        "an answer is not answered"
    );
    // Its peer keeps the SA: nothing protects that answer.
    let peer = SocketAddr::new(address(1), 500);
    for _ in 0..100 {
        let now = net.now;
        net.hosts[0].endpoint.handle_datagram(now, from, peer, &answer);
    }
    net.run(Duration::from_secs(20));
    net.assert_agreement(1);
}

#[test]
fn fault_23_nothing_but_authentication_is_answered_before_it() {
    let (request, _) = first_request();
    let mut net = responder(|_, _| {});
    let from = SocketAddr::new(address(0), 500);
    let answer = deliver(&mut net, from, &request).remove(0);
    let (header, _) = parse_message(&answer).unwrap();
    for exchange in [
        ExchangeType::CREATE_CHILD_SA,
        ExchangeType::INFORMATIONAL,
        ExchangeType::IKE_FOLLOWUP_KE,
    ] {
        let header = Header {
            exchange,
            is_response: false,
            from_initiator: true,
            message_id: 1,
            ..header
        };
        let clear = emit_message(&header, &[Payload::Nonce(vec![1; 32])]);
        assert!(deliver(&mut net, from, &clear).is_empty());
    }
    assert_eq!(net.hosts[1].endpoint.ike_sas()[0].state, "handshake");
}

#[test]
fn fault_27_nothing_moves_before_integrity_was_verified() {
    let mut net = pair(2, |_, c| c.mobike = false);
    net.run(SOON);
    let before = net.hosts[1].endpoint.ike_sas()[0].remote;
    // What host 0 says next is taken, forged in one byte, and sent from elsewhere.
    let now = net.now;
    net.hosts[0].endpoint.rekey_child(now, "peer", "net");
    let genuine = net.hosts[0].endpoint.poll_transmit().unwrap();
    let elsewhere: SocketAddr = "203.0.113.66:4500".parse().unwrap();
    for index in 28..genuine.bytes.len() {
        let mut forged = genuine.bytes.clone();
        forged[index] ^= 1;
        assert!(deliver(&mut net, elsewhere, &forged).is_empty());
    }
    assert_eq!(net.hosts[1].endpoint.ike_sas()[0].remote, before);
    assert!(net.hosts[1].endpoint.counters().integrity_failed > 50);
}

#[test]
fn fault_28_deleting_twice_and_crossing() {
    let mut net = pair(3, |_, _| {});
    net.run(SOON);
    let now = net.now;
    net.hosts[0].endpoint.terminate_child(now, "peer", "net");
    net.hosts[0].endpoint.terminate_child(now, "peer", "net");
    net.hosts[1].endpoint.terminate_child(now, "peer", "net");
    net.run(SOON);
    assert!(net.hosts[0].dataplane.installed.is_empty() && net.hosts[1].dataplane.installed.is_empty());
    let now = net.now;
    net.hosts[0].endpoint.terminate(now, "peer");
    net.hosts[1].endpoint.terminate(now, "peer");
    net.run(Duration::from_secs(10));
    assert!(net.hosts[0].endpoint.ike_sas().is_empty() && net.hosts[1].endpoint.ike_sas().is_empty());
}

#[test]
fn fault_29_failed_states_are_removed_at_once() {
    let mut credentials = ike::Credentials::new();
    credentials.add_psk(vec![], b"another key");
    let mut net = Network::new(
        4,
        [
            (EndpointConfig::default(), psk()),
            (EndpointConfig::default(), credentials),
        ],
    );
    for host in [1, 0] {
        let now = net.now;
        net.hosts[host].endpoint.add_connection(now, connection(host));
    }
    net.run(Duration::from_millis(100));
    assert!(net.hosts[1].endpoint.ike_sas().is_empty());
    assert_eq!(net.hosts[1].endpoint.half_open(), 0);
    assert!(net.hosts[0].dataplane.installed.is_empty() && net.hosts[1].dataplane.installed.is_empty());
}

#[test]
fn secrets_never_appear_in_debug_output() {
    let config = EndpointConfig {
        key_log: true,
        ..EndpointConfig::default()
    };
    let mut net = Network::new(5, [(config.clone(), psk()), (config, psk())]);
    for host in [1, 0] {
        let now = net.now;
        net.hosts[host].endpoint.add_connection(now, connection(host));
    }
    net.run(SOON);
    let now = net.now;
    net.hosts[0].endpoint.rekey_ike(now, "peer");
    net.run(SOON);
    let mut secrets: Vec<String> = Vec::new();
    let mut log = String::new();
    for host in &net.hosts {
        log += &format!(
            "{:?} {:?} {:?}",
            host.endpoint,
            host.endpoint.ike_sas(),
            host.endpoint.installed_sas()
        );
        for event in &host.events {
            match event {
                Event::KeyLog(line) => {
                    secrets.extend(
                        line.split(',')
                            .filter(|f| f.len() >= 40 && !f.contains(' '))
                            .map(str::to_owned),
                    );
                }
                other => log += &format!("{other:?}\n"),
            }
        }
        secrets.extend(
            host.dataplane
                .keys_seen
                .keys()
                .map(|key| key.iter().map(|b| format!("{b:02x}")).collect()),
        );
    }
    assert!(secrets.len() >= 10, "{}", secrets.len());
    let log = log.to_lowercase();
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "a key is in the log");
        let bytes: Vec<u8> = (0..8)
            .map(|i| u8::from_str_radix(&secret[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let list = format!("{bytes:?}");
        assert!(
            !log.contains(list.trim_matches(['[', ']'])),
            "a key is in the log as a list"
        );
    }
    assert!(!log.contains("a preshared key"));
}

#[test]
fn random_datagrams_are_survived_by_live_sas() {
    let mut net = pair(6, |_, _| {});
    net.run(SOON);
    let sa = net.hosts[1].endpoint.ike_sas()[0].clone();
    let mut random = SystemRandom::new();
    let mut shape = Seeded(3);
    for _ in 0..3000 {
        let mut bytes = vec![0; 28 + shape.below(200) as usize];
        random.fill(&mut bytes);
        bytes[..8].copy_from_slice(&sa.initiator_spi.to_be_bytes());
        bytes[8..16].copy_from_slice(&sa.responder_spi.to_be_bytes());
        bytes[16] = [46, 53, 33, 0][shape.below(4) as usize];
        bytes[17] = 0x20;
        bytes[18] = 34 + shape.below(12) as u8;
        bytes[19] = [0x08, 0x28, 0x20, 0][shape.below(4) as usize];
        bytes[20..24].fill(0);
        let length = (bytes.len() as u32).to_be_bytes();
        bytes[24..28].copy_from_slice(&length);
        deliver(&mut net, SocketAddr::new(address(0), 500), &bytes);
    }
    net.run(SOON);
    net.assert_agreement(1);
}
