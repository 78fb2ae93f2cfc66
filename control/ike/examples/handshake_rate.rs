//! Full handshakes (IKE_SA_INIT and IKE_AUTH with a first Child SA, x25519, preshared key) per second on one core, both
//! ends in this process: each handshake counts the work of initiator and responder.
//!
//! `cargo run --release -p ike --example handshake_rate [HANDSHAKES]`

use std::net::SocketAddr;
use std::time::Instant;

use ike::{
    ChildConfig, Connection, Credentials, Endpoint, EndpointConfig, Identity, RemoteId, SystemRandom, TsSide,
};
use ike::{StartAction, TrafficSelector};

fn now() -> Instant {
    Instant::now()
}

fn endpoint(start: Instant) -> Endpoint {
    let mut credentials = Credentials::new();
    credentials.add_psk(vec![], b"a preshared key of good length");
    let config = EndpointConfig {
        cookie_threshold: usize::MAX,
        cookie_threshold_per_address: usize::MAX,
        half_open_per_address: usize::MAX,
        ..EndpointConfig::default()
    };
    Endpoint::new(
        config,
        credentials,
        Box::new(SystemRandom::new()),
        start,
        1_800_000_000,
    )
}

fn connection(index: u32, initiates: bool) -> Connection {
    let mut connection = Connection::new(&format!("c{index}"));
    let initiator = std::net::Ipv4Addr::from(0x0a00_0000 + index);
    let responder: std::net::IpAddr = [192, 0, 2, 1].into();
    connection.proposals = ["aes256gcm16-prfsha256-x25519".parse()]
        .into_iter()
        .flatten()
        .collect();
    let mut child = ChildConfig::new("net", None, Vec::new(), Vec::new());
    child.local_ts = vec![TsSide::Fixed(TrafficSelector::any_like(responder))];
    child.remote_ts = child.local_ts.clone();
    child.proposals = ["aes256gcm16-noesn".parse()].into_iter().flatten().collect();
    if initiates {
        connection.local_addresses = vec![initiator.into()];
        connection.remote_addresses = vec![SocketAddr::new(responder, 500)];
        connection.local_id = Some(Identity::Address(initiator.into()));
        child.start = StartAction::Start;
    } else {
        connection.local_id = Some(Identity::Address(responder));
        connection.remote_id = RemoteId::Any;
    }
    connection.children = vec![child];
    connection
}

fn main() {
    let wanted: u32 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(2000);
    let start = now();
    let (mut a, mut b) = (endpoint(start), endpoint(start));
    b.add_connection(start, connection(0, false));
    for index in 1..=wanted {
        a.add_connection(start, connection(index, true));
    }
    let begin = now();
    a.handle_timeout(start);
    loop {
        let mut idle = true;
        while let Some(t) = a.poll_transmit() {
            idle = false;
            b.handle_datagram(start, t.remote, t.local, &t.bytes);
        }
        while let Some(t) = b.poll_transmit() {
            idle = false;
            a.handle_datagram(start, t.remote, t.local, &t.bytes);
        }
        if idle {
            break;
        }
    }
    let seconds = (now() - begin).as_secs_f64();
    let done = b.counters().established;
    println!(
        "{done} handshakes in {seconds:.3} s: {:.0} per second, both ends on one core",
        done as f64 / seconds
    );
}
