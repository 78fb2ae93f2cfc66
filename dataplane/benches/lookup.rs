//! What the tables cost: nanoseconds and clock cycles a lookup, bytes an object, updates a second.
//!
//! `cargo bench -p dataplane --bench lookup [sad] [fib_v4] [fib_v6] [spd] [provider]`. Time is the thread's own, so that other
//! work on the machine disturbs less; cycles are nanoseconds times the clock that the kernel tells.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::sa::Flow;
use dataplane::tables::{Limits, Tables, View, VrfIndex, Writer};
use nix::time::{ClockId, clock_gettime};
use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Endpoint, IpPrefix, KeyMaterial, Label, LabelStack, LabelVia, Lifetime,
    LifetimeLimit, Mode, NextHop, Nhlfe, PolicyAction, PolicyId, PolicySpec, ProtocolMatch, ReplayWindow,
    RouteSpec, SaDirection, SaSpec, SelectorPair, TtlPolicy, TunnelId, TunnelSpec, Update, VrfId,
};

const LOOKUPS: usize = 4_000_000;
const BATCH: usize = 64;
const MANY: u32 = 1_000_000;

fn megahertz() -> f64 {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|line| {
            line.strip_prefix("cpu MHz")?
                .split(':')
                .nth(1)?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(1000.0)
}

/// Nanoseconds that this thread has run.
fn thread_ns() -> f64 {
    match clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
        Ok(time) => time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64,
        Err(error) => panic!("{error}"),
    }
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

/// The median of five runs over `keys`, a batch at a time.
fn measure<K: Copy>(name: &str, writer: &Writer, keys: &[K], mut batch: impl FnMut(View<'_>, &[K])) {
    let mut reader = writer.tables().reader();
    let rounds = (LOOKUPS / keys.len()).max(1);
    let mut runs: Vec<f64> = (0..5)
        .map(|_| {
            let start = thread_ns();
            for _ in 0..rounds {
                for keys in keys.chunks(BATCH) {
                    batch(reader.pin(), keys);
                }
            }
            (thread_ns() - start) / (rounds * keys.len()) as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    let nanoseconds = runs[2];
    println!(
        "{name:<44} {nanoseconds:>8.2} ns {:>8.1} cycles",
        nanoseconds * megahertz() / 1000.0
    );
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn new_writer() -> Writer {
    let mut writer = Writer::new(Arc::new(Tables::new(Limits::default())));
    apply(&mut writer, tunnel());
    writer
}

fn apply(writer: &mut Writer, update: Update) {
    if let Err(rejection) = writer.apply(1, update) {
        panic!("{rejection}");
    }
}

fn tunnel() -> Update {
    Update::PutTunnel(TunnelSpec {
        id: TunnelId(1),
        name: "site".to_owned(),
        mode: Mode::Tunnel,
        encapsulation: southbound::Encapsulation::Esp,
        protected: true,
        labels: None,
        inner_vrf: VrfId::MAIN,
        outer_vrf: VrfId::MAIN,
        local: Ipv4Addr::new(192, 0, 2, 1).into(),
        remote: Ipv4Addr::new(198, 51, 100, 1).into(),
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Normal,
        df: DfPolicy::Copy,
        ttl: TtlPolicy::Set(64),
        inner_mtu_bytes: None,
        clamp_mss: true,
        per_worker: false,
    })
}

fn any_port(address: IpAddr, length_bits: u8) -> Endpoint {
    match IpPrefix::new(address, length_bits) {
        Ok(prefix) => Endpoint::any_port(prefix),
        Err(error) => panic!("{error}"),
    }
}

fn sa(direction: SaDirection, number: u32) -> SaSpec {
    let window = ReplayWindow::new(1024).ok();
    let hard = LifetimeLimit {
        seconds: Some(3600),
        ..LifetimeLimit::default()
    };
    SaSpec {
        direction,
        spi: 0x1000 + number.wrapping_mul(0x9e37_79b1) % 0xffff_0000,
        tunnel: TunnelId(1),
        mode: Mode::Tunnel,
        local: Ipv4Addr::new(192, 0, 2, 1).into(),
        remote: Ipv4Addr::new(198, 51, 100, 1).into(),
        udp: None,
        transform: match southbound::Transform::new(southbound::Encryption::AesGcm128, None) {
            Ok(transform) => transform,
            Err(error) => panic!("{error}"),
        },
        key: KeyMaterial::new([number.to_be_bytes().as_slice(), &[1; 16]].concat()),
        extended_sequence_numbers: true,
        replay_window: window.filter(|_| direction == SaDirection::Inbound),
        selectors: match direction {
            SaDirection::Inbound => vec![SelectorPair {
                local: any_port(Ipv4Addr::UNSPECIFIED.into(), 0),
                remote: any_port(Ipv4Addr::from(number).into(), 32),
                protocol: ProtocolMatch::Any,
            }],
            SaDirection::Outbound => vec![],
        },
        lifetime: Lifetime {
            soft: LifetimeLimit::default(),
            hard,
        },
        last_sequence: 0,
    }
}

fn sad() {
    for count in [1, 10_000, MANY] {
        let mut writer = new_writer();
        let (before, start) = (resident_bytes(), thread_ns());
        for number in 0..count {
            apply(&mut writer, Update::InstallSa(sa(SaDirection::Inbound, number)));
            if number % 256 == 0 {
                writer.settle();
            }
        }
        let (took, bytes) = (thread_ns() - start, resident_bytes().saturating_sub(before));
        let mut random = Random(88_172_645_463_325_252);
        let spis: Vec<u32> = (0..LOOKUPS / 4)
            .map(|_| sa(SaDirection::Inbound, random.below(count as usize) as u32).spi)
            .collect();
        measure(
            &format!("SAD, {count} SAs, one by one"),
            &writer,
            &spis,
            |view, spis| {
                for spi in spis {
                    black_box(view.inbound(*spi).map(|sa| sa.tunnel()));
                }
            },
        );
        measure(
            &format!("SAD, {count} SAs, batch with prefetch"),
            &writer,
            &spis,
            |view, spis| {
                spis.iter().for_each(|spi| view.prefetch_entry(*spi));
                spis.iter().for_each(|spi| view.prefetch_inbound(*spi));
                for spi in spis {
                    black_box(view.inbound(*spi).map(|sa| sa.tunnel()));
                }
            },
        );
        if count == MANY {
            println!(
                "{:<44} {:>8} bytes each, the writer's memory included",
                "inbound SA, window 1024",
                bytes / count as usize
            );
            println!(
                "{:<44} {:>8.0} a second",
                "inbound SAs installed",
                f64::from(count) / took * 1e9
            );
            let start = thread_ns();
            for number in 0..count {
                apply(
                    &mut writer,
                    Update::RemoveSa(sa(SaDirection::Inbound, number).reference()),
                );
                if number % 256 == 0 {
                    writer.settle();
                }
            }
            println!(
                "{:<44} {:>8.0} a second",
                "inbound SAs removed",
                f64::from(count) / (thread_ns() - start) * 1e9
            );
        }
    }
    let mut writer = new_writer();
    let before = resident_bytes();
    for number in 0..MANY {
        apply(&mut writer, Update::InstallSa(sa(SaDirection::Outbound, number)));
    }
    let bytes = resident_bytes().saturating_sub(before);
    println!(
        "{:<44} {:>8} bytes each, the writer's memory included",
        "outbound SA",
        bytes / MANY as usize
    );
}

fn fib_v4() {
    let mut writer = new_writer();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let hops = [
        NextHop::Kernel,
        NextHop::Blackhole,
        NextHop::Unreachable,
        NextHop::Tunnel(TunnelId(1)),
    ];
    let (before, start) = (resident_bytes(), thread_ns());
    let mut networks = Vec::with_capacity(MANY as usize);
    // As in the internet's table: most are /24, some shorter, few longer; below 224.0.0.0.
    for number in 0..MANY {
        let length = match random.below(100) {
            0..60 => 24,
            60..85 => 20 + random.below(4) as u8,
            85..95 => 14 + random.below(6) as u8,
            _ => 25 + random.below(8) as u8,
        };
        let address = (random.next() as u32) % 0xe000_0000;
        networks.push(address);
        let Ok(prefix) = IpPrefix::new(Ipv4Addr::from(address).into(), length) else {
            continue;
        };
        apply(
            &mut writer,
            Update::PutRoute(RouteSpec {
                vrf: VrfId::MAIN,
                prefix,
                next_hops: vec![hops[number as usize % hops.len()]],
                weights: Vec::new(),
            }),
        );
    }
    let routes = writer.route_status().len();
    let (took, bytes) = (thread_ns() - start, resident_bytes().saturating_sub(before));
    println!(
        "{:<44} {:>8} bytes each, {} in the trie",
        "IPv4 route",
        bytes / routes,
        writer.memory().fib_v4_bytes / routes
    );
    println!(
        "{:<44} {:>8.0} a second",
        "IPv4 routes put",
        f64::from(MANY) / took * 1e9
    );
    for (name, prefixes) in [
        ("64 hot prefixes", 64),
        ("1000 hot prefixes", 1000),
        ("all prefixes", networks.len()),
    ] {
        let destinations: Vec<u32> = (0..LOOKUPS / 4)
            .map(|_| networks[random.below(prefixes)] ^ (random.next() as u32 & 0xff))
            .collect();
        measure(
            &format!("FIB v4, {routes} routes, {name}"),
            &writer,
            &destinations,
            |view, destinations| {
                for destination in destinations {
                    black_box(view.route_v4(VrfIndex::MAIN, Ipv4Addr::from(*destination)));
                }
            },
        );
    }
}

fn fib_v6() {
    const ROUTES: u32 = 200_000;
    let mut writer = new_writer();
    let mut random = Random(0x1234_5678_9abc_def1);
    let before = resident_bytes();
    let mut networks = Vec::new();
    for number in 0..ROUTES {
        let length = [32, 40, 44, 48, 48, 48, 56, 64][number as usize % 8];
        let address = 0x2000 << 112 | u128::from(random.next() >> 3) << 64 >> 3;
        networks.push(address);
        let Ok(prefix) = IpPrefix::new(Ipv6Addr::from(address).into(), length) else {
            continue;
        };
        apply(
            &mut writer,
            Update::PutRoute(RouteSpec {
                vrf: VrfId::MAIN,
                prefix,
                next_hops: vec![NextHop::Kernel],
                weights: Vec::new(),
            }),
        );
    }
    let bytes = resident_bytes().saturating_sub(before);
    let routes = writer.route_status().len();
    println!(
        "{:<44} {:>8} bytes each, {} in the trie",
        "IPv6 route",
        bytes / routes,
        writer.memory().fib_v6_bytes / routes
    );
    for (name, prefixes) in [("64 hot prefixes", 64), ("all prefixes", networks.len())] {
        let destinations: Vec<u128> = (0..LOOKUPS / 8)
            .map(|_| networks[random.below(prefixes)] ^ u128::from(random.next()))
            .collect();
        measure(
            &format!("FIB v6, {routes} routes, {name}"),
            &writer,
            &destinations,
            |view, destinations| {
                for destination in destinations {
                    black_box(view.route_v6(VrfIndex::MAIN, Ipv6Addr::from(*destination)));
                }
            },
        );
    }
}

const VRFS: u32 = 1000;
const NETWORKS_V4: u32 = 1000;
const NETWORKS_V6: u32 = 200;
/// Other provider edges, each with a transport label and labels for every VRF.
const EDGES: u32 = 20;

/// Destination within the network of a number; the same ones in every VRF.
fn customer_v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0009 | number << 8)
}

fn customer_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from(0xfd00 << 112 | u128::from(number) << 64 | 9)
}

/// Tells every route; another generation, other labels.
fn tell(writer: &mut Writer, generation: u64) {
    if let Err(rejection) = writer.apply(generation, tunnel()) {
        panic!("{rejection}");
    }
    for number in 0..NETWORKS_V4 + NETWORKS_V6 {
        let (address, length): (IpAddr, u8) = match number.checked_sub(NETWORKS_V4) {
            None => (customer_v4(number).into(), 24),
            Some(number) => (customer_v6(number).into(), 64),
        };
        let edge = number % EDGES;
        for vrf in 1..=VRFS {
            let labels = [16 + edge, 1000 * generation as u32 + 100_000 + vrf].map(Label::new);
            let ([Ok(transport), Ok(vpn)], Ok(prefix)) = (labels, IpPrefix::new(address, length)) else {
                panic!("no such label or prefix");
            };
            let stack = LabelStack::new(&[transport, vpn]).unwrap_or_default();
            let route = RouteSpec {
                vrf: VrfId(vrf),
                prefix,
                next_hops: vec![NextHop::Labelled(Nhlfe::new(
                    stack,
                    LabelVia::Tunnel(TunnelId(1)),
                ))],
                weights: Vec::new(),
            };
            if let Err(rejection) = writer.apply(generation, Update::PutRoute(route)) {
                panic!("{rejection}");
            }
        }
        writer.settle();
    }
}

/// A provider edge: 1.2 million routes over a thousand VRFs, and every one of them replaced while a reader goes by them.
fn provider() {
    let mut writer = new_writer();
    let (before, start) = (resident_bytes(), thread_ns());
    tell(&mut writer, 1);
    let (took, bytes) = (thread_ns() - start, resident_bytes().saturating_sub(before));
    let routes = writer.route_status().len();
    let each = |what: &str, took: f64| {
        println!(
            "{:<44} {:>8.0} a second, {:.1} s in all",
            format!("{routes} routes over {VRFS} VRFs, {what}"),
            routes as f64 / took * 1e9,
            took / 1e9
        );
    };
    each("put", took);
    println!(
        "{:<44} {:>8} bytes each, {} MB in all",
        "route in a VRF, the writer's memory included",
        bytes / routes,
        bytes >> 20
    );
    let vrfs: Vec<VrfIndex> = (1..=VRFS)
        .filter_map(|vrf| writer.vrf_index(VrfId(vrf)))
        .collect();
    let tables = Arc::clone(writer.tables());
    let (began, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut took = 0.0;
    let (found, lost) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reader = tables.reader();
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let (mut found, mut lost) = (0u64, 0u64);
            while !ended.load(Ordering::Acquire) {
                let view = reader.pin();
                for _ in 0..BATCH {
                    let vrf = vrfs[random.below(vrfs.len())];
                    let index = if random.below(6) == 0 {
                        view.route_v6(vrf, customer_v6(random.below(NETWORKS_V6 as usize) as u32))
                    } else {
                        view.route_v4(vrf, customer_v4(random.below(NETWORKS_V4 as usize) as u32))
                    };
                    match view.hop(index) {
                        Some(hop) if hop.labels().len() == 2 => found += 1,
                        _ => lost += 1,
                    }
                }
                began.store(true, Ordering::Release);
            }
            (found, lost)
        });
        while !began.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let start = thread_ns();
        tell(&mut writer, 2);
        took = thread_ns() - start;
        ended.store(true, Ordering::Release);
        match reading.join() {
            Ok(counts) => counts,
            Err(_) => panic!("the reader panicked"),
        }
    });
    each("replaced under a reader", took);
    println!("{:<44} {found:>8} found, {lost} lost", "lookups meanwhile");
    let swept = writer.sweep(2);
    println!("{:<44} {swept:>8} objects", "left of the table before");
}

fn spd() {
    const RULES: u32 = 10_000;
    let mut writer = new_writer();
    let policy = |id: u32, priority: u32, local: Endpoint, remote: Endpoint, action| {
        Update::PutPolicy(PolicySpec {
            id: PolicyId(id),
            vrf: VrfId::MAIN,
            priority,
            selector: SelectorPair {
                local,
                remote,
                protocol: ProtocolMatch::Any,
            },
            action,
        })
    };
    let start = thread_ns();
    let inside = Ipv4Addr::new(10, 200, 0, 0);
    for number in 0..RULES {
        let remote = any_port(Ipv4Addr::from(0x0a00_0000 + (number << 8)).into(), 24);
        let local = any_port(inside.into(), 16);
        apply(
            &mut writer,
            policy(
                number,
                100 + number % 10,
                local,
                remote,
                PolicyAction::Protect(TunnelId(1)),
            ),
        );
    }
    let everything = any_port(Ipv4Addr::UNSPECIFIED.into(), 0);
    apply(
        &mut writer,
        policy(RULES, 10_000, everything, everything, PolicyAction::Discard),
    );
    writer.settle();
    println!(
        "{:<44} {:>8.1} ms",
        "10001 rules put and compiled",
        (thread_ns() - start) / 1e6
    );
    let mut random = Random(0x0dd0_feed_beef_cafe);
    let flows: Vec<Flow> = (0..64 * 1024)
        .map(|_| Flow {
            source: Ipv4Addr::from(inside.to_bits() | random.next() as u32 & 0xffff).into(),
            destination: Ipv4Addr::from(0x0a00_0000 + (random.below(RULES as usize) as u32) * 256 + 7).into(),
            protocol: 17,
            ports: Some((1000, 53)),
        })
        .collect();
    for (name, flows) in [("64 hot flows", &flows[..64]), ("65536 flows", &flows[..])] {
        measure(
            &format!("SPD, 10001 rules, {name}"),
            &writer,
            flows,
            |view, flows| {
                for flow in flows {
                    black_box(view.policy_out(VrfIndex::MAIN, flow));
                }
            },
        );
    }
}

fn main() {
    let parts: [(&str, fn()); 5] = [
        ("sad", sad),
        ("fib_v4", fib_v4),
        ("fib_v6", fib_v6),
        ("spd", spd),
        ("provider", provider),
    ];
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}
