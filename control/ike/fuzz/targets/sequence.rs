//! A hostile peer that is authenticated: an established endpoint gets protected messages of any content, fragments,
//! answers to nothing and true messages between them, while it renews and deletes. It does not panic, what it tells its
//! dataplane stays consistent, and what it holds stays bounded.

#![no_main]

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ike::{
    ChildConfig, Connection, Credentials, Endpoint, EndpointConfig, Event, Identity, Impaired, Random, SaId,
    StartAction, TrafficSelector, TsSide,
};
use libfuzzer_sys::fuzz_target;
use southbound::{SaRef, TunnelId, Update};

/// SplitMix64, so that an input replays exactly.
struct Seeded(u64);

impl Random for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (z ^ (z >> 31)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

fn address(host: u8) -> IpAddr {
    [192, 0, 2, host + 1].into()
}

fn endpoint(host: u8, now: Instant) -> Endpoint {
    let mut credentials = Credentials::new();
    credentials.add_psk(vec![], b"a preshared key of good length");
    let random = Box::new(Seeded(u64::from(host)));
    let mut endpoint = Endpoint::new(EndpointConfig::default(), credentials, random, now, 1_800_000_000);
    let mut connection = Connection::new("peer");
    connection.local_addresses = vec![address(host)];
    connection.remote_addresses = vec![SocketAddr::new(address(1 - host), 500)];
    connection.local_id = Some(Identity::Address(address(host)));
    connection.window = 4;
    connection.proposals = vec!["aes128gcm16-prfsha256-x25519".parse().expect("a proposal")];
    for (name, tunnel) in [("one", 1), ("two", 2)] {
        let side = |host: u8| {
            let first: IpAddr = [10, host, tunnel as u8, 0].into();
            let last: IpAddr = [10, host, tunnel as u8, 255].into();
            vec![TsSide::Fixed(TrafficSelector::addresses(first, last))]
        };
        let mut child = ChildConfig::new(name, Some(TunnelId(tunnel)), side(host), side(1 - host));
        child.proposals = vec!["aes128gcm16-x25519-none".parse().expect("a proposal")];
        if host == 0 {
            child.start = StartAction::Start;
        }
        connection.children.push(child);
    }
    endpoint.add_connection(now, connection);
    endpoint
}

/// What the dataplane of the endpoint under test would hold.
#[derive(Default)]
struct Dataplane {
    installed: HashSet<SaRef>,
    inbound_spis: HashSet<u32>,
}

impl Dataplane {
    fn apply(&mut self, update: Update) {
        match update {
            Update::InstallSa(spec) => {
                if spec.direction == southbound::SaDirection::Inbound {
                    self.inbound_spis.insert(spec.spi);
                }
                self.installed.insert(spec.reference());
            }
            // Inbound SAs are known by SPI; a peer may choose one outbound SPI for two of its SAs.
            Update::RemoveSa(sa) if sa.direction == southbound::SaDirection::Inbound => {
                assert!(self.inbound_spis.remove(&sa.spi), "removed what is not there");
                self.installed.remove(&sa);
            }
            Update::RemoveSa(sa) => {
                self.installed.remove(&sa);
            }
            Update::SelectOutbound { .. } | Update::SelectForWorker { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

struct World {
    now: Instant,
    hosts: [Endpoint; 2],
    dataplane: Dataplane,
}

impl World {
    fn drain(&mut self) {
        while let Some(event) = self.hosts[1].poll_event() {
            if let Event::Dataplane(update) = event {
                self.dataplane.apply(update);
            }
        }
        while self.hosts[0].poll_event().is_some() {}
    }

    /// Passes what both want to say, or loses it.
    fn converse(&mut self, lose: bool) {
        for _ in 0..40 {
            let mut idle = true;
            for from in [0, 1] {
                while let Some(t) = self.hosts[from].poll_transmit() {
                    idle = false;
                    if !lose {
                        self.hosts[1 - from].handle_datagram(self.now, t.remote, t.local, &t.bytes);
                    }
                }
            }
            self.drain();
            if idle {
                return;
            }
        }
    }

    /// To the endpoint under test, as if from its peer.
    fn deliver(&mut self, bytes: &[u8]) {
        let (local, remote) = (SocketAddr::new(address(1), 500), SocketAddr::new(address(0), 500));
        self.hosts[1].handle_datagram(self.now, local, remote, bytes);
        self.drain();
    }

    fn sa(&self) -> Option<SaId> {
        self.hosts[0].ike_sas().first().map(|sa| sa.id)
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count.min(self.0.len()));
        self.0 = tail;
        head
    }
}

/// A chain of payloads whose headers are right, and whose insides are anything.
fn chain(input: &mut Input<'_>) -> (u8, Vec<u8>) {
    const TYPES: [u8; 20] = [
        33, 34, 35, 36, 37, 38, 39, 40, 41, 41, 41, 42, 42, 43, 44, 45, 47, 48, 53, 200,
    ];
    let count = usize::from(input.byte() % 7);
    let types: Vec<u8> = (0..count)
        .map(|_| TYPES[usize::from(input.byte()) % TYPES.len()])
        .collect();
    let mut inner = Vec::new();
    for index in 0..count {
        let length = usize::from(input.byte());
        let body = input.take(length);
        let next = types.get(index + 1).copied().unwrap_or(0);
        inner.extend_from_slice(&[next, 0]);
        inner.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
        inner.extend_from_slice(body);
    }
    (types.first().copied().unwrap_or(0), inner)
}

const EXCHANGES: [u8; 8] = [36, 37, 44, 36, 37, 35, 43, 34];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let now = Instant::now();
    let mut world = World {
        now,
        hosts: [endpoint(0, now), endpoint(1, now)],
        dataplane: Dataplane::default(),
    };
    world.hosts[0].handle_timeout(now);
    world.converse(false);
    for _ in 0..60 {
        if input.0.is_empty() {
            break;
        }
        let choice = input.byte();
        match choice % 10 {
            0 => {
                let length = usize::from(input.byte());
                let raw = input.take(length).to_vec();
                world.deliver(&raw);
            }
            1..=4 => {
                let Some(sa) = world.sa() else { continue };
                let exchange = EXCHANGES[usize::from(input.byte()) % EXCHANGES.len()];
                let shape = input.byte();
                let (first, inner) = if shape & 1 == 0 {
                    chain(&mut input)
                } else {
                    let length = usize::from(input.byte());
                    (input.byte(), input.take(length).to_vec())
                };
                let fragment = (shape & 6 == 6).then(|| {
                    let total = 1 + u16::from(input.byte() % 5);
                    (1 + u16::from(input.byte()) % total, total)
                });
                let message = Impaired {
                    exchange,
                    is_response: shape & 0x18 == 0x18,
                    message_id: (shape & 0x60 == 0x60).then(|| u32::from(input.byte() % 8)),
                    fragment,
                    first,
                    inner: &inner,
                };
                if let Some(datagram) = world.hosts[0].impaired_message(sa, message) {
                    world.deliver(&datagram);
                    if choice & 0x80 != 0 {
                        world.deliver(&datagram);
                    }
                }
            }
            5 => world.converse(false),
            6 => world.converse(true),
            7 => {
                world.now += Duration::from_millis(u64::from(input.byte()) * 200);
                for host in &mut world.hosts {
                    host.handle_timeout(world.now);
                }
                world.drain();
            }
            _ => {
                let host = usize::from(input.byte() & 1);
                let endpoint = &mut world.hosts[host];
                match input.byte() % 6 {
                    0 => endpoint.rekey_child(world.now, "peer", "one"),
                    1 => endpoint.rekey_ike(world.now, "peer"),
                    2 => endpoint.terminate_child(world.now, "peer", "two"),
                    3 => {
                        let _ = endpoint.initiate(world.now, "peer", Some("two"));
                    }
                    4 => endpoint.local_address_changed(world.now, address(host as u8), address(9)),
                    _ => endpoint.redirect_peers(world.now, "peer", address(7)),
                }
                world.drain();
            }
        }
        let sas = world.hosts[1].ike_sas();
        assert!(sas.len() < 100, "{} IKE SAs", sas.len());
    }
    // Whatever was said: once the SAs are closed nothing is left behind.
    world.hosts[1].remove_connection(world.now, "peer");
    for _ in 0..60 {
        world.now += Duration::from_secs(20);
        world.hosts[1].handle_timeout(world.now);
        while world.hosts[1].poll_transmit().is_some() {}
        world.drain();
    }
    assert!(
        world.hosts[1].ike_sas().is_empty(),
        "{:#?}",
        world.hosts[1].ike_sas()
    );
    assert!(
        world.dataplane.inbound_spis.is_empty(),
        "SAs are left in the dataplane"
    );
});
