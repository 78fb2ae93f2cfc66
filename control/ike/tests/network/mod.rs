//! Two endpoints in one process under a virtual clock, and a seeded network between them that delays, reorders,
//! duplicates, drops and corrupts. Beside each endpoint stands a model of its dataplane.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part"
)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ike::{ChildConfig, Connection, Credentials, Endpoint, EndpointConfig, Event, Random, Transmit, TsSide};
use ike::{StartAction, TrafficSelector};
use southbound::{SaDirection, SaRef, SaSpec, TunnelId, Update};

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Random for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            let length = chunk.len();
            chunk.copy_from_slice(&bytes[..length]);
        }
    }
}

/// What the network does to a datagram, in percent, and how long one takes.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub drop: u64,
    pub duplicate: u64,
    pub corrupt: u64,
    pub delay_ms: u64,
    pub jitter_ms: u64,
}

pub const CLEAN: Faults = Faults {
    drop: 0,
    duplicate: 0,
    corrupt: 0,
    delay_ms: 10,
    jitter_ms: 0,
};

/// The SAs that a dataplane holds by its endpoint's events.
#[derive(Debug, Default)]
pub struct Dataplane {
    pub installed: HashMap<SaRef, SaSpec>,
    pub selected: BTreeMap<u32, SaRef>,
    /// By tunnel and worker.
    pub selected_for: BTreeMap<(u32, u16), SaRef>,
    /// Every key ever installed, to find reuse.
    pub keys_seen: HashMap<Vec<u8>, SaRef>,
}

impl Dataplane {
    fn apply(&mut self, update: Update) {
        match update {
            Update::InstallSa(spec) => {
                let reference = spec.reference();
                if spec.direction == SaDirection::Outbound {
                    let old = self.keys_seen.insert(spec.key.expose().to_vec(), reference);
                    assert!(
                        old.is_none_or(|old| old.spi == reference.spi),
                        "a key was installed under two SPIs"
                    );
                }
                if spec.direction == SaDirection::Inbound {
                    // Inbound SAs are known by their SPI alone, whatever address they are reached at.
                    self.installed
                        .retain(|old, _| old.direction != SaDirection::Inbound || old.spi != spec.spi);
                }
                self.installed.insert(reference, spec);
            }
            Update::RemoveSa(reference) => {
                assert!(
                    self.installed.remove(&reference).is_some(),
                    "removed {reference:?}, which is not installed"
                );
                self.selected.retain(|_, selected| *selected != reference);
                self.selected_for.retain(|_, selected| *selected != reference);
            }
            Update::SelectOutbound { tunnel, sa } => {
                assert!(
                    self.installed.contains_key(&sa),
                    "selected {sa:?}, which is not installed"
                );
                assert_eq!(self.installed[&sa].tunnel, tunnel);
                self.selected.insert(tunnel.0, sa);
            }
            Update::SelectForWorker { tunnel, worker, sa } => {
                assert!(
                    self.installed.contains_key(&sa),
                    "selected {sa:?}, which is not installed"
                );
                assert_eq!(self.installed[&sa].tunnel, tunnel);
                self.selected_for.insert((tunnel.0, worker), sa);
            }
            other => panic!("unexpected update {other:?}"),
        }
    }

    pub fn inbound(&self) -> Vec<u32> {
        let mut spis: Vec<_> = self
            .installed
            .values()
            .filter(|s| s.direction == SaDirection::Inbound)
            .map(|s| s.spi)
            .collect();
        spis.sort_unstable();
        spis
    }

    pub fn outbound(&self) -> Vec<u32> {
        let mut spis: Vec<_> = self
            .installed
            .values()
            .filter(|s| s.direction == SaDirection::Outbound)
            .map(|s| s.spi)
            .collect();
        spis.sort_unstable();
        spis
    }
}

pub struct Host {
    pub endpoint: Endpoint,
    pub dataplane: Dataplane,
    pub events: Vec<Event>,
}

struct Flight {
    at: Instant,
    order: u64,
    to: usize,
    local: SocketAddr,
    remote: SocketAddr,
    bytes: Vec<u8>,
}

/// A rewriting of addresses between the hosts, as a NAT does: what host 0 sends appears to come from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct NatBox {
    pub inside: SocketAddr,
    pub outside: std::net::IpAddr,
    pub port_offset: u16,
}

/// A test's own rule: false loses the datagram.
pub type Filter = Box<dyn FnMut(usize, &Transmit) -> bool>;

pub struct Network {
    pub now: Instant,
    pub start: Instant,
    pub hosts: Vec<Host>,
    pub faults: Faults,
    pub random: Seeded,
    flights: Vec<Flight>,
    order: u64,
    pub nat: Option<NatBox>,
    /// Datagrams to let through untouched or drop, by a test's own rule.
    pub filter: Option<Filter>,
    pub sent: u64,
    pub trace: bool,
}

pub const UNIX: u64 = 1_800_000_000;

impl Network {
    pub fn new(seed: u64, configs: [(EndpointConfig, Credentials); 2]) -> Self {
        let now = Instant::now();
        let mut random = Seeded(seed);
        let hosts = configs
            .into_iter()
            .map(|(config, credentials)| {
                let own = Box::new(Seeded(random.next()));
                Host {
                    endpoint: Endpoint::new(config, credentials, own, now, UNIX),
                    dataplane: Dataplane::default(),
                    events: Vec::new(),
                }
            })
            .collect();
        Self {
            now,
            start: now,
            hosts,
            faults: CLEAN,
            random,
            flights: Vec::new(),
            order: 0,
            nat: None,
            filter: None,
            sent: 0,
            trace: std::env::var_os("IKE_TRACE").is_some(),
        }
    }

    /// Takes what the endpoints want to send and tell.
    pub fn collect(&mut self) {
        for from in 0..self.hosts.len() {
            while let Some(event) = self.hosts[from].endpoint.poll_event() {
                if self.trace {
                    eprintln!(
                        "{:>9.3} host {from}: {event:?}",
                        (self.now - self.start).as_secs_f64()
                    );
                }
                if let Event::Dataplane(update) = &event {
                    self.hosts[from].dataplane.apply(update.clone());
                }
                self.hosts[from].events.push(event);
            }
            while let Some(transmit) = self.hosts[from].endpoint.poll_transmit() {
                self.send(from, transmit);
            }
        }
    }

    fn send(&mut self, from: usize, transmit: Transmit) {
        self.sent += 1;
        if self.trace {
            let now = (self.now - self.start).as_secs_f64();
            let b = &transmit.bytes;
            let o = if transmit.local.port() == 4500 { 4 } else { 0 };
            let (x, f, id) = (b.get(o + 18), b.get(o + 19), b.get(o + 23));
            eprintln!(
                "{now:>9.3} host {from} sends {} bytes exchange {x:?} flags {f:?} id {id:?}",
                b.len()
            );
        }
        if let Some(filter) = &mut self.filter
            && !filter(from, &transmit)
        {
            return;
        }
        if self.random.chance(self.faults.drop) {
            return;
        }
        let copies = if self.random.chance(self.faults.duplicate) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut bytes = transmit.bytes.clone();
            if self.random.chance(self.faults.corrupt) && !bytes.is_empty() {
                let index = self.random.below(bytes.len() as u64) as usize;
                bytes[index] ^= 1 << self.random.below(8);
            }
            let delay = self.faults.delay_ms + self.random.below(self.faults.jitter_ms + 1);
            let (mut local, mut remote) = (transmit.remote, transmit.local);
            if let Some(nat) = self.nat {
                if from == 0 && remote.ip() == nat.inside.ip() {
                    remote = SocketAddr::new(nat.outside, remote.port() + nat.port_offset);
                } else if from == 1 && local.ip() == nat.outside {
                    local = SocketAddr::new(nat.inside.ip(), local.port() - nat.port_offset);
                }
            }
            self.order += 1;
            self.flights.push(Flight {
                at: self.now + Duration::from_millis(delay),
                order: self.order,
                to: 1 - from,
                local,
                remote,
                bytes,
            });
        }
    }

    /// One step: the next datagram or timer, at most until `until`. False where nothing is left to happen before.
    pub fn step(&mut self, until: Instant) -> bool {
        self.collect();
        let flight = self
            .flights
            .iter()
            .enumerate()
            .min_by_key(|(_, f)| (f.at, f.order))
            .map(|(i, f)| (i, f.at));
        let timer = self
            .hosts
            .iter()
            .enumerate()
            .filter_map(|(i, h)| Some((i, h.endpoint.poll_timeout()?)))
            .min_by_key(|t| t.1);
        let next = match (flight, timer) {
            (Some((_, f)), Some((_, t))) => f.min(t),
            (Some((_, f)), None) => f,
            (None, Some((_, t))) => t,
            (None, None) => until + Duration::from_secs(1),
        };
        if next > until {
            self.now = self.now.max(until);
            return false;
        }
        self.now = self.now.max(next);
        match (flight, timer) {
            (Some((index, at)), _) if at == next => {
                let f = self.flights.remove(index);
                self.hosts[f.to]
                    .endpoint
                    .handle_datagram(self.now, f.local, f.remote, &f.bytes);
            }
            (_, Some((host, _))) => self.hosts[host].endpoint.handle_timeout(self.now),
            _ => unreachable!(),
        }
        self.collect();
        true
    }

    pub fn run(&mut self, for_time: Duration) {
        let until = self.now + for_time;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 2_000_000, "the endpoints never come to rest");
        }
    }

    /// Runs and checks after every step that what one side sends with the other can receive.
    pub fn run_lossless(&mut self, for_time: Duration) {
        let until = self.now + for_time;
        while self.step(until) {
            self.assert_selected_receivable();
        }
    }

    pub fn assert_selected_receivable(&self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let dataplane = &self.hosts[from].dataplane;
            for selected in dataplane.selected.values().chain(dataplane.selected_for.values()) {
                let out = &self.hosts[from].dataplane.installed[selected];
                let twin = self.hosts[to]
                    .dataplane
                    .installed
                    .values()
                    .find(|s| s.direction == SaDirection::Inbound && s.spi == out.spi);
                assert!(
                    twin.is_some_and(|twin| twin.key == out.key),
                    "host {from} sends with what {to} cannot open"
                );
            }
        }
    }

    /// Both ends hold the same SAs, none is left over, and traffic can flow both ways in each tunnel.
    pub fn assert_agreement(&self, tunnels: usize) {
        let context = || {
            format!(
                "{:#?}\n{:#?}",
                self.hosts[0].endpoint.ike_sas(),
                self.hosts[1].endpoint.ike_sas()
            )
        };
        let ids = |host: usize| {
            let mut all: Vec<_> = self.hosts[host]
                .endpoint
                .ike_sas()
                .iter()
                .filter(|sa| sa.state == "established")
                .map(|sa| (sa.initiator_spi, sa.responder_spi))
                .collect();
            all.sort_unstable();
            all
        };
        assert_eq!(ids(0), ids(1), "{}", context());
        assert_eq!(
            self.hosts[0].endpoint.ike_sas().len(),
            ids(0).len(),
            "left over: {}",
            context()
        );
        assert_eq!(
            self.hosts[1].endpoint.ike_sas().len(),
            ids(1).len(),
            "left over: {}",
            context()
        );
        let (a, b) = (&self.hosts[0].dataplane, &self.hosts[1].dataplane);
        assert_eq!(a.inbound(), b.outbound(), "{}", context());
        assert_eq!(b.inbound(), a.outbound(), "{}", context());
        assert_eq!(a.selected.len(), tunnels, "{}", context());
        assert_eq!(b.selected.len(), tunnels, "{}", context());
        self.assert_selected_receivable();
    }

    /// Why negotiations of this host failed.
    pub fn failures(&self, host: usize) -> Vec<String> {
        let reasons = self.hosts[host].events.iter().filter_map(|event| match event {
            Event::Failed { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        reasons.collect()
    }

    pub fn count(&self, host: usize, wanted: impl Fn(&Event) -> bool) -> usize {
        self.hosts[host]
            .events
            .iter()
            .filter(|event| wanted(event))
            .count()
    }
}

pub fn address(host: usize) -> std::net::IpAddr {
    ["192.0.2.1", "198.51.100.1"][host].parse().unwrap()
}

pub fn network_of(host: usize) -> TrafficSelector {
    let octet = host as u8 + 1;
    TrafficSelector::addresses([10, octet, 0, 0].into(), [10, octet, 255, 255].into())
}

/// A site-to-site connection as `host` has it, with one child called `net`.
pub fn connection(host: usize) -> Connection {
    let mut connection = Connection::new("peer");
    connection.local_addresses = vec![address(host)];
    connection.remote_addresses = vec![SocketAddr::new(address(1 - host), 500)];
    connection.local_id = Some(ike::Identity::Fqdn(format!("gw{host}.example")));
    connection.remote_id = ike::RemoteId::Exactly(ike::Identity::Fqdn(format!("gw{}.example", 1 - host)));
    connection.proposals = vec!["aes256gcm16-prfsha256-x25519".parse().unwrap()];
    connection.children = vec![child(host, "net", 1)];
    connection
}

pub fn child(host: usize, name: &str, tunnel: u32) -> ChildConfig {
    let mut child = ChildConfig::new(
        name,
        Some(TunnelId(tunnel)),
        vec![TsSide::Fixed(network_of(host))],
        vec![TsSide::Fixed(network_of(1 - host))],
    );
    child.proposals = vec!["aes256gcm16-x25519-none".parse().unwrap()];
    if host == 0 {
        child.start = StartAction::Start;
    }
    child
}

pub fn psk() -> Credentials {
    let mut credentials = Credentials::new();
    credentials.add_psk(vec![], b"a preshared key of good length");
    credentials
}

/// Two hosts with a preshared key and the connections as `change` leaves them.
pub fn pair(seed: u64, mut change: impl FnMut(usize, &mut Connection)) -> Network {
    let mut network = Network::new(
        seed,
        [
            (EndpointConfig::default(), psk()),
            (EndpointConfig::default(), psk()),
        ],
    );
    for host in [1, 0] {
        let mut connection = connection(host);
        change(host, &mut connection);
        let now = network.now;
        network.hosts[host].endpoint.add_connection(now, connection);
    }
    network
}
