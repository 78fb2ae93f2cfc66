//! Full handshakes (IKE_SA_INIT and IKE_AUTH with a first Child SA, x25519, preshared key) per second on one core, both
//! ends in this process: each handshake counts the work of initiator and responder.
//!
//! `cargo run --release -p ike --example handshake_rate [HANDSHAKES]`
//!
//! The rate is by the time that the process was on a processor, so that other work on the machine does not count.

use std::net::SocketAddr;
use std::time::Instant;

use ike::{
    ChildConfig, Connection, Credentials, Endpoint, EndpointConfig, Identity, RemoteId, SystemRandom, TsSide,
};
use ike::{StartAction, TrafficSelector};

/// Nanoseconds that this thread has run, by the scheduler's books.
fn run_ns() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|text| text.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
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

/// Passes datagrams between the two until none is left.
fn converse(now: Instant, a: &mut Endpoint, b: &mut Endpoint) {
    let mut idle = false;
    while !idle {
        idle = true;
        while let Some(t) = a.poll_transmit() {
            idle = false;
            b.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while let Some(t) = b.poll_transmit() {
            idle = false;
            a.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while a.poll_event().is_some() {}
        while b.poll_event().is_some() {}
    }
}

fn main() {
    let wanted: u32 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(2000);
    let start = Instant::now();
    let (mut a, mut b) = (endpoint(start), endpoint(start));
    b.add_connection(start, connection(0, false));
    for index in 1..=wanted {
        a.add_connection(start, connection(index, true));
    }
    let (before_ns, before_bytes) = (run_ns(), resident_bytes());
    a.handle_timeout(start);
    converse(start, &mut a, &mut b);
    let seconds = (run_ns() - before_ns) as f64 / 1e9;
    let done = b.counters().established;
    let held = resident_bytes().saturating_sub(before_bytes);
    println!(
        "{done} handshakes in {seconds:.3} s on the processor: {:.0} per second, both ends together",
        done as f64 / seconds
    );
    println!(
        "{} IKE SAs at each end, with a Child SA each: {} bytes of memory for each of both ends' SAs",
        b.ike_sas().len(),
        held / (2 * done.max(1))
    );
}
