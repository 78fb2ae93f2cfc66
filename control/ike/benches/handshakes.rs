//! What thousands of peers cost: full handshakes (IKE_SA_INIT and IKE_AUTH with a first Child SA, x25519, a preshared key and
//! a connection for each peer) per second, the return of all peers after the gateway's restart, and a flood of forged first
//! requests.
//!
//! `cargo bench -p ike --bench handshakes [-- PEERS...]`
//!
//! Both ends are in this process, on one core: each handshake counts the work of initiator and responder. Times are those
//! that the thread was on a processor, so that other work on the machine does not count.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ike::{
    ChildConfig, Connection, Credentials, Endpoint, EndpointConfig, Identity, RemoteId, StartAction,
    SystemRandom, TrafficSelector, TsSide,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

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

/// The address of a peer: all different, as sites are.
fn site(index: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + index).into()
}

fn connection(index: u32, at_peer: bool) -> Connection {
    let mut connection = Connection::new(&format!("site{index}"));
    let (here, there) = if at_peer {
        (site(index), GATEWAY.into())
    } else {
        (GATEWAY.into(), site(index))
    };
    connection.local_addresses = vec![here];
    connection.remote_addresses = vec![SocketAddr::new(there, 500)];
    connection.local_id = Some(Identity::Address(here));
    connection.remote_id = RemoteId::Exactly(Identity::Address(there));
    connection.proposals = ["aes256gcm16-prfsha256-x25519".parse()]
        .into_iter()
        .flatten()
        .collect();
    let whole = vec![TsSide::Fixed(TrafficSelector::any_like(GATEWAY.into()))];
    let mut child = ChildConfig::new("net", Some(southbound::TunnelId(index)), whole.clone(), whole);
    child.proposals = ["aes256gcm16-noesn".parse()].into_iter().flatten().collect();
    child.start = if at_peer {
        StartAction::Start
    } else {
        StartAction::None
    };
    connection.children = vec![child];
    connection
}

/// The gateway, or all its peers in one endpoint, whose datagrams carry their own addresses.
fn endpoint(now: Instant, config: EndpointConfig, at_peer: bool, peers: u32) -> Endpoint {
    let mut credentials = Credentials::new();
    for index in 1..=peers {
        let ends = [GATEWAY.into(), site(index)].map(Identity::Address).to_vec();
        let secret = format!("the preshared key of peer {index}");
        credentials.add_psk(ends, secret.as_bytes());
    }
    let random = Box::new(SystemRandom::new());
    let mut endpoint = Endpoint::new(config, credentials, random, now, 1_800_000_000);
    for index in 1..=peers {
        endpoint.add_connection(now, connection(index, at_peer));
    }
    endpoint
}

/// Passes datagrams between the two until none is left.
fn converse(now: Instant, peers: &mut Endpoint, gateway: &mut Endpoint) {
    let mut idle = false;
    while !idle {
        idle = true;
        while let Some(t) = peers.poll_transmit() {
            idle = false;
            gateway.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while let Some(t) = gateway.poll_transmit() {
            idle = false;
            peers.handle_datagram(now, t.remote, t.local, &t.bytes);
        }
        while peers.poll_event().is_some() {}
        while gateway.poll_event().is_some() {}
    }
}

/// Everyone at once, without limits: the handshakes alone. The rate.
fn handshakes(peers: u32, reference: Option<f64>) -> f64 {
    let config = EndpointConfig {
        cookie_threshold: usize::MAX,
        cookie_threshold_per_address: usize::MAX,
        half_open_limit: usize::MAX,
        ..EndpointConfig::default()
    };
    let now = Instant::now();
    let before_bytes = resident_bytes();
    let mut initiators = endpoint(now, config.clone(), true, peers);
    let mut gateway = endpoint(now, config, false, peers);
    let before_ns = run_ns();
    initiators.handle_timeout(now);
    converse(now, &mut initiators, &mut gateway);
    let seconds = (run_ns() - before_ns) as f64 / 1e9;
    let done = gateway.counters().established;
    assert_eq!(done, u64::from(peers), "handshakes failed");
    let rate = done as f64 / seconds;
    let held_bytes = resident_bytes().saturating_sub(before_bytes) / (2 * done);
    println!(
        "{peers:6} peers: {rate:6.0} handshakes/s, both ends together ({:.2} of the first); {held_bytes} bytes for each IKE SA \
         with its Child SA, connection and key",
        rate / reference.unwrap_or(rate)
    );
    rate
}

/// The gateway is started again with the default limits on half-open SAs; its peers notice by their liveness checks.
fn restart(peers: u32) {
    let mut now = Instant::now();
    let mut sites = endpoint(now, EndpointConfig::default(), true, peers);
    let mut before = endpoint(now, EndpointConfig::default(), false, peers);
    sites.handle_timeout(now);
    converse(now, &mut sites, &mut before);
    assert_eq!(before.counters().established, u64::from(peers));
    drop(before);
    let mut after = endpoint(now, EndpointConfig::default(), false, peers);
    let (restarted, before_ns) = (now, run_ns());
    while after.counters().established < u64::from(peers) {
        now += Duration::from_millis(100);
        assert!(
            now < restarted + Duration::from_secs(1200),
            "peers did not return"
        );
        sites.handle_timeout(now);
        after.handle_timeout(now);
        converse(now, &mut sites, &mut after);
    }
    let counters = after.counters();
    println!(
        "{peers:6} peers back {:.0} s after a restart, {:.2} s of them on the processor, both ends together; {} refused, {} asked for \
         a cookie",
        (now - restarted).as_secs_f64(),
        (run_ns() - before_ns) as f64 / 1e9,
        counters.half_open_refused,
        counters.cookies_sent,
    );
    assert_eq!(counters.half_open_refused, 0, "honest peers were refused");
}

/// First requests from forged addresses, of which the answers lead nowhere.
fn flood(requests: u32) {
    let now = Instant::now();
    let mut forger = endpoint(now, EndpointConfig::default(), true, 1000);
    forger.handle_timeout(now);
    let forged: Vec<_> = std::iter::from_fn(|| forger.poll_transmit()).collect();
    let mut gateway = endpoint(now, EndpointConfig::default(), false, 1000);
    let (before_ns, before_bytes) = (run_ns(), resident_bytes());
    for count in 0..requests {
        let Some(request) = forged.get(count as usize % forged.len().max(1)) else {
            break;
        };
        let mut bytes = request.bytes.clone();
        if let Some(spi) = bytes.get_mut(..8) {
            spi.copy_from_slice(&(u64::from(count) + 1).to_be_bytes());
        }
        gateway.handle_datagram(now, request.remote, request.local, &bytes);
        while gateway.poll_transmit().is_some() {}
    }
    let seconds = (run_ns() - before_ns) as f64 / 1e9;
    println!(
        "{requests:6} forged first requests: {:.0}/s answered with a cookie; {} half-open SAs, {} KiB more memory",
        f64::from(requests) / seconds,
        gateway.half_open(),
        resident_bytes().saturating_sub(before_bytes) / 1024
    );
    assert!(gateway.half_open() <= EndpointConfig::default().cookie_threshold);
}

fn main() {
    let mut sizes: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1000, 3000, 20_000];
    }
    let mut reference = None;
    for peers in sizes {
        let rate = handshakes(peers, reference);
        reference = reference.or(Some(rate));
    }
    restart(10_000);
    flood(1_000_000);
}
