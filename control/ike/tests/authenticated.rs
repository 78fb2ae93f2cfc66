//! What a peer may do to us once it is authenticated, by the row of the list of faults that each is. Whatever it says
//! under its own keys, we do not fall over, what we told the dataplane stays right, and an honest tunnel comes back.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::net::SocketAddr;
use std::time::Duration;

use ike::payload::delete::DeletePayload;
use ike::payload::notify::{NotifyPayload, NotifyType};
use ike::payload::sa::{Proposal, Protocol, SaPayload};
use ike::payload::{Payload, emit_chain};
use ike::{Event, Impaired};
use network::{Network, address, pair};

const SOON: Duration = Duration::from_secs(3);

const IKE_AUTH: u8 = 35;
const CREATE_CHILD_SA: u8 = 36;
const INFORMATIONAL: u8 = 37;
const IKE_FOLLOWUP_KE: u8 = 44;

fn established(seed: u64) -> Network {
    let mut net = pair(seed, |_, c| c.dpd_delay = Some(Duration::from_secs(10)));
    net.run(SOON);
    net.assert_agreement(1);
    net
}

/// Host 0 says something under its keys; how many datagrams come back.
fn say(net: &mut Network, message: Impaired<'_>) -> usize {
    let now = net.now;
    let sa = net.hosts[0].endpoint.ike_sas()[0].id;
    let bytes = net.hosts[0].endpoint.impaired_message(sa, message).unwrap();
    let (local, remote) = (SocketAddr::new(address(1), 500), SocketAddr::new(address(0), 500));
    net.hosts[1].endpoint.handle_datagram(now, local, remote, &bytes);
    let answers = std::iter::from_fn(|| net.hosts[1].endpoint.poll_transmit()).count();
    net.collect();
    answers
}

fn plain(exchange: u8, first: u8, inner: &[u8]) -> Impaired<'_> {
    Impaired {
        exchange,
        is_response: false,
        message_id: None,
        fragment: None,
        first,
        inner,
    }
}

fn chain(payloads: &[Payload]) -> (u8, Vec<u8>) {
    let mut inner = Vec::new();
    let first = emit_chain(payloads, &mut inner);
    (first, inner)
}

/// The peers find together again, whatever was said.
fn assert_recovers(mut net: Network) {
    net.run(Duration::from_secs(400));
    net.assert_agreement(1);
}

#[test]
fn fault_02_exchanges_without_their_payloads() {
    for exchange in [CREATE_CHILD_SA, IKE_FOLLOWUP_KE, IKE_AUTH, 43, 99] {
        let mut net = established(1);
        assert_eq!(
            say(&mut net, plain(exchange, 0, &[])),
            1,
            "exchange {exchange} is answered"
        );
        assert_recovers(net);
    }
}

#[test]
fn fault_09_rekey_of_a_protocol_that_is_none() {
    for protocol in [0, 1, 2, 9] {
        let mut net = established(2);
        let spi = net.hosts[1].endpoint.ike_sas()[0].children[0].spi_out;
        let notify = NotifyPayload {
            protocol: Protocol(protocol),
            spi: spi.to_be_bytes().to_vec(),
            kind: NotifyType::REKEY_SA,
            data: Vec::new(),
        };
        let offer = SaPayload {
            proposals: vec![Proposal {
                number: 1,
                protocol: Protocol::ESP,
                spi: 0x1234_5678_u32.to_be_bytes().to_vec(),
                transforms: vec![],
            }],
        };
        let (first, inner) = chain(&[
            Payload::Notify(notify),
            Payload::Sa(offer),
            Payload::Nonce(vec![7; 32]),
        ]);
        assert_eq!(say(&mut net, plain(CREATE_CHILD_SA, first, &inner)), 1);
        assert_eq!(net.count(1, |e| matches!(e, Event::ChildRekeyed { .. })), 0);
        assert_recovers(net);
    }
}

#[test]
fn fault_10_more_payloads_than_anyone_sends() {
    let mut net = established(3);
    let many: Vec<_> = (0..300).map(|_| Payload::VendorId(vec![1])).collect();
    let (first, inner) = chain(&many);
    say(&mut net, plain(INFORMATIONAL, first, &inner));
    assert_recovers(net);
}

#[test]
fn fault_11_an_unknown_critical_payload_under_protection_ends_nothing() {
    let mut net = established(4);
    assert_eq!(say(&mut net, plain(INFORMATIONAL, 200, &[0, 0x80, 0, 4])), 1);
    assert_eq!(net.hosts[1].endpoint.ike_sas()[0].state, "established");
    assert_recovers(net);
}

#[test]
fn fault_12_and_28_deletions_of_what_is_not_there() {
    let mut net = established(5);
    let own = net.hosts[1].endpoint.ike_sas()[0].children[0].spi_in;
    let lists = [
        vec![],
        vec![0],
        vec![1, 2, 3],
        vec![0xffff_ffff; 500],
        // Our own inbound SPI is none of the peer's.
        vec![own, own],
    ];
    for spis in lists {
        for protocol in [Protocol::AH, Protocol::ESP] {
            let delete = DeletePayload::Children {
                protocol,
                spis: spis.clone(),
            };
            let (first, inner) = chain(&[Payload::Delete(delete)]);
            assert_eq!(say(&mut net, plain(INFORMATIONAL, first, &inner)), 1);
        }
    }
    assert_eq!(net.hosts[1].dataplane.installed.len(), 2, "nothing went");
    let notify = NotifyPayload::status(NotifyType::INVALID_SPI, vec![1, 2]);
    let (first, inner) = chain(&[Payload::Notify(notify)]);
    say(&mut net, plain(INFORMATIONAL, first, &inner));
    assert_eq!(net.hosts[1].dataplane.installed.len(), 2);
}

#[test]
fn fault_13_15_and_16_fragments_that_are_never_finished_are_bounded() {
    let mut net = established(6);
    let part = vec![0xaa; 30_000];
    for index in 1..=60 {
        say(
            &mut net,
            Impaired {
                fragment: Some((index, 100)),
                message_id: Some(2),
                ..plain(INFORMATIONAL, 0, &part)
            },
        );
    }
    assert!(net.hosts[1].endpoint.counters().fragments_dropped > 0);
    assert_recovers(net);
}

#[test]
fn fault_17_a_cookie_under_protection_means_nothing() {
    let mut net = established(7);
    let cookie = NotifyPayload::status(NotifyType::COOKIE, vec![9; 32]);
    let long = NotifyPayload::status(NotifyType::COOKIE2, vec![9; 500]);
    let (first, inner) = chain(&[Payload::Notify(cookie), Payload::Notify(long)]);
    assert_eq!(say(&mut net, plain(INFORMATIONAL, first, &inner)), 1);
    assert_eq!(net.hosts[1].endpoint.ike_sas()[0].state, "established");
    assert_recovers(net);
}

#[test]
fn fault_23_authentication_again_does_not_make_a_new_identity() {
    let mut net = established(8);
    let id = ike::Identity::from_text("admin.example");
    let (first, inner) = chain(&[Payload::IdI(id)]);
    say(&mut net, plain(IKE_AUTH, first, &inner));
    let sas = net.hosts[1].endpoint.ike_sas();
    assert!(
        sas.iter()
            .all(|sa| sa.remote_id == Some(ike::Identity::from_text("gw0.example")))
    );
    assert_recovers(net);
}

#[test]
fn answers_to_questions_that_were_never_asked() {
    let mut net = established(9);
    for id in [0, 1, 2, 3, 0xffff_ffff] {
        for exchange in [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, IKE_FOLLOWUP_KE] {
            let answered = say(
                &mut net,
                Impaired {
                    is_response: true,
                    message_id: Some(id),
                    ..plain(exchange, 0, &[])
                },
            );
            assert_eq!(answered, 0);
        }
    }
    assert_recovers(net);
}

#[test]
fn fault_08_and_35_bodies_of_noise_in_every_payload() {
    let mut shape = network::Seeded(11);
    for seed in 0..60 {
        let mut net = established(seed);
        for _ in 0..20 {
            if net.hosts[0].endpoint.ike_sas().is_empty() || net.hosts[1].endpoint.ike_sas().is_empty() {
                break;
            }
            let body: Vec<u8> = (0..shape.below(60)).map(|_| shape.next() as u8).collect();
            let mut inner = vec![0, 0];
            inner.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
            inner.extend_from_slice(&body);
            let first = 33 + shape.below(16) as u8;
            let exchange = [CREATE_CHILD_SA, INFORMATIONAL, IKE_FOLLOWUP_KE][shape.below(3) as usize];
            say(&mut net, plain(exchange, first, &inner));
        }
        assert_recovers(net);
    }
}

#[test]
fn a_peer_that_cannot_read_our_public_value_is_sent_another() {
    let mut net = pair(9, |_, c| {
        c.window = 4;
        c.children[0].proposals = vec!["aes256gcm16-ecp256-x25519".parse().unwrap()];
    });
    net.run(SOON);
    let now = net.now;
    net.hosts[1].endpoint.rekey_child(now, "peer", "net");
    let lost = net.hosts[1].endpoint.poll_transmit().unwrap();
    let message_id = u32::from_be_bytes(lost.bytes[20..24].try_into().unwrap());
    let (first, inner) = chain(&[Payload::Notify(NotifyPayload::status(
        NotifyType::INVALID_SYNTAX,
        Vec::new(),
    ))]);
    let refusal = Impaired {
        is_response: true,
        message_id: Some(message_id),
        ..plain(CREATE_CHILD_SA, first, &inner)
    };
    say(&mut net, refusal);
    net.run_lossless(Duration::from_secs(12));
    net.assert_agreement(1);
    for host in [0, 1] {
        assert_eq!(net.count(host, |e| matches!(e, Event::ChildRekeyed { .. })), 1);
    }
}
