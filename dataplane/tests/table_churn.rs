//! Readers at full speed while SAs, routes and rules are added, replaced and removed.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dataplane::sa::Flow;
use dataplane::tables::publish::{Arena, Guard, Slot};
use dataplane::tables::{Adjacency, AdjacencyIndex, Decision, Limits, Tables, VrfIndex, Writer};
use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Endpoint, KeyMaterial, Lifetime, Mode, NextHop, PolicyAction, PolicyId,
    PolicySpec, ProtocolMatch, ReplayWindow, RouteSpec, SaDirection, SaSpec, SelectorPair, TtlPolicy,
    TunnelId, TunnelSpec, Update, VrfId,
};

const CHURN: Duration = Duration::from_secs(4);
/// Updates in each message, and the time between messages: 10,000 a second.
const UPDATES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
const BATCH: u32 = 64;

const FIRST_SPI: u32 = 0x1000;
const SAS: u32 = 400;
const TUNNELS: u32 = 8;

fn tunnel(id: u32) -> Update {
    Update::PutTunnel(TunnelSpec {
        id: TunnelId(id),
        name: format!("tunnel{id}"),
        mode: Mode::Tunnel,
        encapsulation: southbound::Encapsulation::Esp,
        protected: true,
        labels: None,
        inner_vrf: VrfId::MAIN,
        outer_vrf: VrfId::MAIN,
        local: "192.0.2.1".parse().unwrap(),
        remote: "198.51.100.1".parse().unwrap(),
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Normal,
        df: DfPolicy::Copy,
        ttl: TtlPolicy::Set(64),
        inner_mtu_bytes: None,
        clamp_mss: true,
        per_worker: false,
    })
}

fn sa(direction: SaDirection, spi: u32, serial: u64) -> SaSpec {
    SaSpec {
        direction,
        spi,
        tunnel: TunnelId(spi % TUNNELS),
        mode: Mode::Tunnel,
        local: "192.0.2.1".parse().unwrap(),
        remote: "198.51.100.1".parse().unwrap(),
        udp: None,
        transform: "aes128gcm16".parse().unwrap(),
        key: KeyMaterial::new([serial.to_be_bytes().as_slice(), &[7; 12]].concat()),
        extended_sequence_numbers: true,
        replay_window: Some(ReplayWindow::new(64).unwrap()),
        selectors: vec![],
        lifetime: Lifetime::default(),
        last_sequence: 0,
    }
}

fn net(number: u32) -> u32 {
    0x0a00_0000 | (number % 512) << 8
}

fn route(number: u32, length: u8, next_hop: NextHop) -> Update {
    let network = IpAddr::V4(net(number).into());
    Update::PutRoute(RouteSpec {
        vrf: VrfId::MAIN,
        prefix: southbound::IpPrefix::new(network, length).unwrap(),
        next_hops: vec![next_hop],
        weights: Vec::new(),
    })
}

fn policy(number: u32, action: PolicyAction) -> Update {
    let any = |prefix: &str| Endpoint::any_port(prefix.parse().unwrap());
    Update::PutPolicy(PolicySpec {
        id: PolicyId(number),
        vrf: VrfId::MAIN,
        priority: number,
        selector: SelectorPair {
            local: any("172.16.0.0/12"),
            remote: any(&format!("10.128.{}.0/24", number % 256)),
            protocol: ProtocolMatch::Any,
        },
        action,
    })
}

/// The churn, one update after another, for as long as it is asked.
fn update(step: u32, serial: u64) -> Vec<Update> {
    let spi = FIRST_SPI + 1 + (step * 7) % (SAS - 1);
    match step % 8 {
        0 => {
            let old = sa(SaDirection::Inbound, spi, 0).reference();
            vec![
                Update::RemoveSa(old),
                Update::InstallSa(sa(SaDirection::Inbound, spi, serial)),
            ]
        }
        1 => {
            // Another key for a tunnel: the new SA, the switch, then the old one goes.
            let new = sa(SaDirection::Outbound, 0x10_0000 + step / 8, serial);
            let tunnel = new.tunnel;
            let select = Update::SelectOutbound {
                tunnel,
                sa: new.reference(),
            };
            vec![Update::InstallSa(new), select]
        }
        2 => vec![route(step, 24, NextHop::Tunnel(TunnelId(step / 8 % TUNNELS)))],
        3 => vec![route(step, 24, NextHop::Blackhole)],
        4 => vec![Update::RemoveRoute {
            vrf: VrfId::MAIN,
            prefix: southbound::IpPrefix::new(IpAddr::V4(net(step).into()), 24).unwrap(),
        }],
        5 => vec![route(step, 26, NextHop::Unreachable)],
        6 => vec![policy(
            1 + step % 40,
            PolicyAction::Protect(TunnelId(step % TUNNELS)),
        )],
        _ => vec![Update::RemovePolicy(PolicyId(1 + (step * 3) % 40))],
    }
}

#[derive(Default)]
struct Seen {
    batches: u64,
    sas: u64,
    sealed_numbers: u64,
    longest: Duration,
}

fn read(tables: &Arc<Tables>, stop: &AtomicBool, seed: u32) -> Seen {
    let mut reader = tables.reader();
    let mut seen = Seen::default();
    let mut random = seed;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let view = reader.pin();
        for _ in 0..BATCH {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let spi = FIRST_SPI + (random >> 8) % SAS;
            view.prefetch_entry(spi);
            view.prefetch_inbound(spi);
            if let Some(sa) = view.inbound(spi) {
                assert_eq!(sa.spi(), spi);
                assert_eq!(sa.sizes().icv_bytes, 16);
                assert_eq!(sa.terms(view.guard()).sa.spi, spi);
                assert_eq!(view.tunnel(sa.tunnel()).unwrap().id, TunnelId(spi % TUNNELS));
                let top = sa.replay().top();
                let _ = sa.replay().commit(top + 1);
                seen.sas += 1;
            } else {
                assert_ne!(spi, FIRST_SPI, "this one is never touched");
            }
            let destination = net(random >> 16) | random & 0xff;
            let adjacency = view.route_v4(VrfIndex::MAIN, destination.into());
            match view.adjacency(adjacency, random) {
                Adjacency::Midchain(index) => {
                    let tunnel = view.tunnel(index).unwrap();
                    assert_eq!(tunnel.index, index);
                    if let Some(sa) = view.outbound(tunnel) {
                        assert_eq!(sa.tunnel(), index);
                        seen.sealed_numbers += sa.reserve(2).count() as u64;
                    }
                }
                Adjacency::Blackhole | Adjacency::Unreachable | Adjacency::Kernel => {}
                other => panic!("{other:?}: the covering route is always there"),
            }
            let flow = Flow {
                source: "172.16.0.1".parse().unwrap(),
                destination: IpAddr::V4((0x0a80_0001 | (random >> 4 & 0xff) << 8).into()),
                protocol: 6,
                ports: None,
            };
            match view.policy_out(VrfIndex::MAIN, &flow) {
                Decision::Protect(index) => assert!(view.tunnel(index).is_some()),
                Decision::Discard => {}
                other => panic!("{other:?}: the last rule is always there"),
            }
        }
        assert!(view.route_v4(VrfIndex::MAIN, "10.0.0.0".parse().unwrap()) != AdjacencyIndex::NO_ROUTE);
        seen.batches += 1;
        let now = Instant::now();
        seen.longest = seen.longest.max(now - last);
        last = now;
        if seen.batches % 512 == 0 {
            reader.park();
        }
    }
    seen
}

#[test]
fn readers_go_on_through_ten_thousand_updates_a_second() {
    let mut writer = Writer::new(Arc::new(Tables::new(Limits::default())));
    let apply = |writer: &mut Writer, update: Update| {
        let shown = format!("{update:?}");
        writer
            .apply(1, update)
            .unwrap_or_else(|rejection| panic!("{shown}: {rejection}"));
    };
    for id in 0..TUNNELS {
        apply(&mut writer, tunnel(id));
    }
    for number in 0..SAS {
        apply(
            &mut writer,
            Update::InstallSa(sa(SaDirection::Inbound, FIRST_SPI + number, u64::from(number))),
        );
    }
    apply(&mut writer, route(0, 8, NextHop::Kernel));
    let mut last = policy(1000, PolicyAction::Discard);
    if let Update::PutPolicy(spec) = &mut last {
        spec.selector.remote = Endpoint::any_port("0.0.0.0/0".parse().unwrap());
    }
    apply(&mut writer, last);

    let tables = Arc::clone(writer.tables());
    let stop = AtomicBool::new(false);
    let (seen, updates, sas_left) = std::thread::scope(|scope| {
        let readers: Vec<_> = [1, 99]
            .map(|seed| {
                let (tables, stop) = (&tables, &stop);
                scope.spawn(move || read(tables, stop, seed))
            })
            .into();
        let (start, mut updates, mut step) = (Instant::now(), 0u32, 0u32);
        // Per tunnel, the outbound SA that the next one relieves.
        let mut outbound: Vec<Option<southbound::SaRef>> = vec![None; TUNNELS as usize];
        while start.elapsed() < CHURN {
            for _ in 0..UPDATES {
                step += 1;
                for update in update(step, 1 << 32 | u64::from(step)) {
                    let selects = match &update {
                        Update::SelectOutbound { tunnel, sa } => Some((tunnel.0 as usize, *sa)),
                        _ => None,
                    };
                    apply(&mut writer, update);
                    updates += 1;
                    if let Some((tunnel, sa)) = selects
                        && let Some(old) = outbound[tunnel].replace(sa)
                    {
                        apply(&mut writer, Update::RemoveSa(old));
                        updates += 1;
                    }
                }
            }
            writer.settle();
            let due = PAUSE * (step / UPDATES);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (seen, updates, writer.sa_status().len())
    });
    assert!(
        u64::from(updates) >= 10_000 * CHURN.as_secs() * 9 / 10,
        "{updates} updates"
    );
    // What was replaced is gone: as many SAs as at first, and one outbound for each tunnel that had its turn.
    assert!(
        (SAS as usize..=(SAS + TUNNELS) as usize).contains(&sas_left),
        "{sas_left}"
    );
    for reader in seen {
        assert!(reader.batches > 10_000, "{} batches", reader.batches);
        assert!(reader.sas > reader.batches * 40, "{} SAs found", reader.sas);
        assert!(reader.sealed_numbers > 0);
        // A time slice of the machine, not a wait for the writer.
        assert!(
            reader.longest < Duration::from_millis(500),
            "{:?} for a batch",
            reader.longest
        );
    }
}

/// Knows whether it was dropped.
struct Counted {
    alive: AtomicU64,
    drops: &'static AtomicUsize,
}

const ALIVE: u64 = 0x6c69_7665_6c69_7665;

impl Counted {
    fn new(drops: &'static AtomicUsize) -> Self {
        Self {
            alive: AtomicU64::new(ALIVE),
            drops,
        }
    }

    fn check(&self) {
        assert_eq!(
            self.alive.load(Ordering::Relaxed),
            ALIVE,
            "used after it was freed"
        );
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(self.alive.swap(0, Ordering::Relaxed), ALIVE, "dropped twice");
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn fault_52_every_retired_object_is_dropped_once_and_never_while_it_is_seen() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    let arena = Arena::new(4096);
    let slot = Slot::new(Counted::new(&DROPS));
    let place = AtomicU64::new(u64::from(arena.insert(Counted::new(&DROPS)).unwrap()));
    let stop = AtomicBool::new(false);
    let (mut made, mut replaced) = (2, 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut guard = Guard::pin();
                let mut seen = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    guard.repin();
                    for _ in 0..16 {
                        let held = slot.load(&guard).unwrap();
                        let in_place = arena.get(place.load(Ordering::Acquire) as u32, &guard);
                        std::hint::spin_loop();
                        held.check();
                        if let Some(in_place) = in_place {
                            in_place.check();
                            seen += 1;
                        }
                    }
                }
                assert!(seen > 1000);
            });
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            let mut guard = Guard::pin();
            for _ in 0..32 {
                slot.replace(Some(Arc::new(Counted::new(&DROPS))), &guard);
                made += 1;
                made += 1;
                // The arena may be full of what readers still hold; what does not fit is dropped at once.
                if let Ok(new) = arena.insert(Counted::new(&DROPS)) {
                    let old = place.swap(u64::from(new), Ordering::AcqRel);
                    assert!(arena.retire(old as u32, &guard));
                    assert!(!arena.retire(old as u32, &guard), "only once");
                    replaced += 1;
                }
            }
            guard.collect();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        made > 20_000 && replaced > 5_000,
        "{made} made, {replaced} in place"
    );
    drop(slot);
    drop(arena);
    // Deferred drops come as the epoch moves on.
    let deadline = Instant::now() + Duration::from_secs(30);
    while DROPS.load(Ordering::Relaxed) < made && Instant::now() < deadline {
        Guard::pin().collect();
        std::thread::yield_now();
    }
    assert_eq!(DROPS.load(Ordering::Relaxed), made);
}
