//! Thousands of peers: a restart with the default limits, a flood beside honest peers, and memory that is bounded by the
//! number of SAs.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod network;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ike::{
    Connection, Endpoint, EndpointConfig, Event, Identity, RemoteId, StartAction, SystemRandom, TsSide,
};
use network::{address, connection, psk};
use southbound::Update;

/// Peers here; `cargo bench -p ike --bench handshakes` is the larger run.
const PEERS: u32 = 10_000;

fn endpoint(now: Instant) -> Endpoint {
    let random = Box::new(SystemRandom::new());
    Endpoint::new(EndpointConfig::default(), psk(), random, now, network::UNIX)
}

/// The address of a peer: all different, as sites are.
fn site(index: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0x0a10_0000 + index).into()
}

/// The connection to the gateway as peer `index` has it, or the gateway's to it.
fn between(index: u32, at_peer: bool) -> Connection {
    let mut c = connection(0);
    c.name = format!("site{index}");
    let (here, there) = if at_peer {
        (site(index), address(1))
    } else {
        (address(1), site(index))
    };
    c.local_addresses = vec![here];
    c.remote_addresses = vec![SocketAddr::new(there, 500)];
    c.local_id = Some(Identity::Address(here));
    c.remote_id = RemoteId::Exactly(Identity::Address(there));
    let child = &mut c.children[0];
    child.tunnel = Some(southbound::TunnelId(index));
    child.start = if at_peer {
        StartAction::Start
    } else {
        StartAction::None
    };
    child.local_ts = vec![TsSide::Dynamic];
    child.remote_ts = vec![TsSide::Dynamic];
    c
}

/// All peers in one endpoint, whose datagrams carry their own addresses.
fn peers(now: Instant) -> Endpoint {
    let mut peers = endpoint(now);
    for index in 1..=PEERS {
        peers.add_connection(now, between(index, true));
    }
    peers
}

fn gateway(now: Instant) -> Endpoint {
    let mut gateway = endpoint(now);
    for index in 1..=PEERS {
        gateway.add_connection(now, between(index, false));
    }
    gateway
}

/// Passes datagrams until none is left; the SAs that were installed at the gateway.
fn converse(now: Instant, peers: &mut Endpoint, gateway: &mut Endpoint) -> usize {
    let mut installed = 0;
    loop {
        let mut idle = true;
        while let Some(t) = peers.poll_transmit() {
            idle = false;
            gateway.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while let Some(t) = gateway.poll_transmit() {
            idle = false;
            peers.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while peers.poll_event().is_some() {}
        while let Some(event) = gateway.poll_event() {
            installed += usize::from(matches!(event, Event::Dataplane(Update::InstallSa(_))));
        }
        if idle {
            return installed;
        }
    }
}

fn established(endpoint: &Endpoint) -> usize {
    let sas = endpoint.ike_sas();
    sas.iter().filter(|sa| sa.state == "established").count()
}

#[test]
fn every_peer_is_back_after_a_restart_and_none_was_refused() {
    let mut now = Instant::now();
    let mut peers = peers(now);
    let mut before = gateway(now);
    peers.handle_timeout(now);
    assert_eq!(converse(now, &mut peers, &mut before), 2 * PEERS as usize);
    assert_eq!(established(&before), PEERS as usize);
    drop(before);
    // The gateway starts again without memory. Peers notice by their liveness checks and return all at once, with the
    // limits on half-open SAs as they are by default.
    let mut after = gateway(now);
    let end = now + Duration::from_secs(1200);
    while after.counters().established < u64::from(PEERS) {
        now += Duration::from_secs(1);
        let back = after.counters().established;
        assert!(now < end, "{back} of {PEERS} peers are back");
        peers.handle_timeout(now);
        after.handle_timeout(now);
        converse(now, &mut peers, &mut after);
    }
    assert_eq!(established(&after), PEERS as usize);
    assert_eq!(after.counters().half_open_refused, 0);
    assert_eq!(after.half_open(), 0);
    assert_eq!(
        established(&peers),
        PEERS as usize,
        "nothing old is left at the peers"
    );
    assert!(after.counters().cookies_sent > 0, "the load was seen");
}

#[test]
fn a_flood_of_forged_requests_keeps_nobody_out_and_no_memory() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    let mut own = endpoint(now);
    own.add_connection(now, between(1, true));
    own.handle_timeout(now);
    converse(now, &mut own, &mut gateway);
    assert_eq!(established(&gateway), 1);
    // First requests of everyone else, each from its own address, repeated under many SPIs.
    let mut forger = endpoint(now);
    for index in 2..=PEERS {
        forger.add_connection(now, between(index, true));
    }
    forger.handle_timeout(now);
    let requests: Vec<_> = std::iter::from_fn(|| forger.poll_transmit()).collect();
    let mut answers = 0;
    for spi in 1..=10_u64 {
        for request in &requests {
            let mut bytes = request.bytes.clone();
            bytes[..8].copy_from_slice(&(spi << 32 | 7).to_be_bytes());
            gateway.handle_datagram(now, request.remote, request.local, &bytes);
            while let Some(answer) = gateway.poll_transmit() {
                answers += 1;
                assert!(answer.bytes.len() <= bytes.len() + 64, "no amplification");
            }
        }
    }
    assert!(answers >= 10 * requests.len());
    assert!(gateway.half_open() <= 30, "{}", gateway.half_open());
    // The tunnel that was up works on, and an honest newcomer gets in past the flood.
    own.rekey_child(now, "site1", "net");
    assert_eq!(
        converse(now, &mut own, &mut gateway),
        2,
        "renewed during the flood"
    );
    let mut newcomer = endpoint(now);
    newcomer.add_connection(now, between(PEERS, true));
    newcomer.handle_timeout(now);
    converse(now, &mut newcomer, &mut gateway);
    assert_eq!(established(&newcomer), 1);
}
