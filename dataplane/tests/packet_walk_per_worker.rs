//! A tunnel with an outbound SA for each worker that sends (RFC 9611).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use dataplane::config::Idle;
use dataplane::xsk::memory::MemoryKernel;
use southbound::{
    Encryption, Event, KeyMaterial, Mode, Rejection, SaRef, SaSpec, Transform, TunnelId, TunnelSpec, Update,
};
use walk::gateway::{Gateway, LAN, WAN, port_mac};
use walk::packets::{Ip, ethernet, inside};
use walk::pair::Pair;
use walk::second::Second;
use walk::specs;

/// Two gateways whose tunnel wants an SA for each worker; the pair in place is for all.
fn pair() -> Pair {
    let gcm = Transform::new(Encryption::AesGcm128, None).unwrap();
    let mut pair = Pair::new(gcm, Mode::Tunnel, false, false, true);
    pair.one.apply(Update::PutTunnel(per_worker()));
    pair
}

fn per_worker() -> TunnelSpec {
    TunnelSpec {
        per_worker: true,
        ..specs::tunnel(Mode::Tunnel, false)
    }
}

fn packet() -> Vec<u8> {
    Ip::udp("10.1.0.5", "10.2.0.5", 100).bytes()
}

/// One more SA from the first gateway to the second, installed at both ends.
fn another(pair: &mut Pair, spi: u32) -> SaRef {
    let sa = SaSpec {
        spi,
        key: KeyMaterial::new(
            pair.forth
                .key
                .expose()
                .iter()
                .map(|byte| byte ^ spi as u8)
                .collect(),
        ),
        ..pair.forth.clone()
    };
    pair.two.apply(Update::InstallSa(specs::inbound(&sa)));
    let name = sa.reference();
    pair.one.apply(Update::InstallSa(sa));
    name
}

fn give(pair: &mut Pair, worker: u16, sa: SaRef) {
    pair.one.apply(Update::SelectForWorker {
        tunnel: TunnelId(1),
        worker,
        sa,
    });
}

fn spi(outer: &[u8]) -> u32 {
    u32::from_be_bytes(outer[20..24].try_into().unwrap())
}

/// Sends one packet through both gateways, and tells by which SA it went.
fn cross(pair: &mut Pair) -> u32 {
    let outer = pair.one.pass(LAN, &packet());
    assert_eq!(outer.len(), 1, "{:?}", pair.one.drops());
    let inner = pair.two.pass(WAN, &outer[0]);
    assert_eq!(inner.len(), 1, "{:?}", pair.two.drops());
    spi(&outer[0])
}

/// The other worker and its ports.
struct Other {
    second: Second,
    lan: MemoryKernel<'static>,
    wan: MemoryKernel<'static>,
}

impl Other {
    fn of(gateway: &Gateway) -> Self {
        let (second, [lan, wan]) = Second::of(gateway, Idle::Spin, [LAN, WAN]);
        Self { second, lan, wan }
    }

    fn pass(&mut self, now_ns: u64) -> Vec<Vec<u8>> {
        self.lan.deliver(&ethernet(port_mac(LAN), &packet())).unwrap();
        self.second.worker.turn(now_ns);
        self.second.worker.check_books().unwrap();
        self.wan
            .collect()
            .iter()
            .map(|frame| inside(frame).to_vec())
            .collect()
    }
}

#[test]
fn each_worker_sends_with_its_own_and_meanwhile_with_that_of_all() {
    let mut pair = pair();
    let mut second = Other::of(&pair.one);
    let of_all = pair.forth.spi;
    let asks = |worker| Event::WorkerAcquire {
        tunnel: TunnelId(1),
        worker,
    };
    // Nothing waits: the packet leaves at once by the SA of all, and one of its own is asked for, once.
    assert_eq!(cross(&mut pair), of_all);
    assert_eq!(pair.one.events(), [asks(0)]);
    assert_eq!(cross(&mut pair), of_all);
    assert_eq!(pair.one.events(), []);
    let outer = second.pass(pair.one.now_ns);
    assert_eq!((outer.len(), spi(&outer[0])), (1, of_all));
    assert_eq!(pair.one.events(), [asks(1)]);

    let own = [another(&mut pair, 0x3000_0001), another(&mut pair, 0x3000_0002)];
    give(&mut pair, 0, own[0]);
    assert_eq!(cross(&mut pair), own[0].spi);
    assert_eq!(
        spi(&second.pass(pair.one.now_ns)[0]),
        of_all,
        "the other has none yet"
    );
    give(&mut pair, 1, own[1]);
    assert_eq!(cross(&mut pair), own[0].spi);
    let outer = second.pass(pair.one.now_ns);
    assert_eq!(spi(&outer[0]), own[1].spi);
    assert_eq!(pair.two.pass(WAN, &outer[0]).len(), 1, "{:?}", pair.two.drops());
    pair.one.pass_seconds(60);
    cross(&mut pair);
    second.pass(pair.one.now_ns);
    assert_eq!(pair.one.events(), [], "who has one asks for none");
}

#[test]
fn a_workers_sa_is_renewed_and_goes() {
    let mut pair = pair();
    let of_all = pair.forth.spi;
    let first = another(&mut pair, 0x3000_0001);
    give(&mut pair, 0, first);
    assert_eq!(cross(&mut pair), first.spi);
    pair.one.events();
    // Make before break: the new one takes over before the old one goes.
    let next = another(&mut pair, 0x3000_0002);
    assert_eq!(cross(&mut pair), first.spi);
    give(&mut pair, 0, next);
    assert_eq!(cross(&mut pair), next.spi);
    pair.one.apply(Update::RemoveSa(first));
    assert_eq!(cross(&mut pair), next.spi);
    // Other rules for the tunnel change nothing of it.
    pair.one.apply(Update::PutTunnel(TunnelSpec {
        clamp_mss: false,
        ..per_worker()
    }));
    assert_eq!(cross(&mut pair), next.spi);
    assert_eq!(pair.one.events(), []);
    // Without a successor: back to that of all, and another one is asked for at once.
    pair.one.apply(Update::RemoveSa(next));
    assert_eq!(cross(&mut pair), of_all);
    let asks = Event::WorkerAcquire {
        tunnel: TunnelId(1),
        worker: 0,
    };
    assert_eq!(pair.one.events(), [asks]);
    // The SA of all goes while a worker has its own: that one goes on.
    let last = another(&mut pair, 0x3000_0003);
    give(&mut pair, 0, last);
    pair.one.apply(Update::RemoveSa(pair.forth.reference()));
    assert_eq!(cross(&mut pair), last.spi);
    pair.one.apply(Update::RemoveSa(last));
    assert_eq!(
        pair.one.pass(LAN, &packet()),
        Vec::<Vec<u8>>::new(),
        "never in clear"
    );
}

#[test]
fn a_worker_whose_sa_expired_goes_on_with_that_of_all() {
    let mut pair = pair();
    let of_all = pair.forth.spi;
    let lifetime = pair.forth.lifetime;
    pair.forth.lifetime.hard.packets = Some(2);
    let own = another(&mut pair, 0x3000_0001);
    pair.forth.lifetime = lifetime;
    give(&mut pair, 0, own);
    assert_eq!([cross(&mut pair), cross(&mut pair)], [own.spi; 2]);
    pair.one.events();
    assert_eq!([cross(&mut pair), cross(&mut pair)], [of_all; 2]);
    let asks = Event::WorkerAcquire {
        tunnel: TunnelId(1),
        worker: 0,
    };
    assert_eq!(pair.one.events(), [asks]);
    // Control may give it another one, and take the old one away.
    let next = another(&mut pair, 0x3000_0002);
    give(&mut pair, 0, next);
    pair.one.apply(Update::RemoveSa(own));
    assert_eq!(cross(&mut pair), next.spi);
}

#[test]
fn what_cannot_be_a_workers_sa_is_refused() {
    let mut pair = pair();
    let own = another(&mut pair, 0x3000_0001);
    let mut refused = |worker, tunnel, sa| {
        let update = Update::SelectForWorker { tunnel, worker, sa };
        pair.one.writer.apply(1, update).unwrap_err()
    };
    assert!(matches!(
        refused(64, TunnelId(1), own),
        Rejection::Inconsistent(_)
    ));
    assert_eq!(
        refused(0, TunnelId(9), own),
        Rejection::UnknownTunnel(TunnelId(9))
    );
    let stranger = SaRef {
        spi: 0x4000_0001,
        ..own
    };
    assert_eq!(refused(0, TunnelId(1), stranger), Rejection::UnknownSa(stranger));
}
