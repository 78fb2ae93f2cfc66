//! Rekeys under load, make before break: a sender and a receiver on their own threads, real keys, no packet
//! lost, no sequence number used twice with one key.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::tables::{Limits, Tables, Writer};
use esp_aead::{OpenJob, SealJob, Verdict, open, seal};
use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, KeyMaterial, Lifetime, Mode, ReplayWindow, SaDirection, SaSpec,
    TtlPolicy, TunnelId, TunnelSpec, Update, VrfId,
};

const REKEYS: u32 = 40;
const TEXT_BYTES: usize = 64;
const BATCH: u32 = 16;

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
        local: "192.0.2.1".parse().unwrap(),
        remote: "192.0.2.1".parse().unwrap(),
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Normal,
        df: DfPolicy::Copy,
        ttl: TtlPolicy::Set(64),
        inner_mtu_bytes: None,
        clamp_mss: true,
        per_worker: false,
    })
}

fn sa(direction: SaDirection, generation: u32) -> SaSpec {
    SaSpec {
        direction,
        spi: 0x1000 + generation,
        tunnel: TunnelId(1),
        mode: Mode::Tunnel,
        local: "192.0.2.1".parse().unwrap(),
        remote: "192.0.2.1".parse().unwrap(),
        udp: None,
        transform: "aes128gcm16".parse().unwrap(),
        key: KeyMaterial::new([generation.to_be_bytes().as_slice(), &[3; 16]].concat()),
        extended_sequence_numbers: true,
        replay_window: Some(ReplayWindow::DEFAULT),
        selectors: vec![],
        lifetime: Lifetime::default(),
        last_sequence: 0,
    }
}

/// A sealed packet: SPI, number, IV, text, ICV.
type Packet = Vec<u8>;

fn send(tables: &Arc<Tables>, stop: &AtomicBool, packets: &crossbeam_channel::Sender<Packet>) -> u64 {
    let mut reader = tables.reader();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let view = reader.pin();
        let index = (0..8)
            .find_map(|number| {
                let route = view.route_v4(dataplane::tables::VrfIndex::MAIN, [10, 0, 0, number].into());
                route.tunnel()
            })
            .unwrap();
        let sa = view
            .outbound(view.tunnel(index).unwrap())
            .expect("a rekey leaves no gap");
        for number in sa.reserve(BATCH) {
            let mut packet =
                vec![
                    0u8;
                    8 + usize::from(sa.sizes().iv_bytes) + TEXT_BYTES + usize::from(sa.sizes().icv_bytes)
                ];
            packet[..4].copy_from_slice(&sa.spi().to_be_bytes());
            packet[4..8].copy_from_slice(&(number as u32).to_be_bytes());
            let mut jobs = [SealJob::new(sa.key(), &mut packet, number)];
            seal(&mut jobs);
            assert_eq!(jobs[0].verdict, Verdict::Done);
            packets.send(packet).unwrap();
            sent += 1;
        }
    }
    sent
}

/// Packets opened, each name and number only once.
fn receive(
    tables: &Arc<Tables>,
    packets: &crossbeam_channel::Receiver<Packet>,
    opened: &AtomicU64,
) -> HashMap<u32, u64> {
    let mut reader = tables.reader();
    let mut of_spi: HashMap<u32, u64> = HashMap::new();
    loop {
        reader.park();
        let Ok(mut packet) = packets.recv() else {
            return of_spi;
        };
        let view = reader.pin();
        let spi = u32::from_be_bytes(packet[..4].try_into().unwrap());
        let low = u32::from_be_bytes(packet[4..8].try_into().unwrap());
        let sa = view
            .inbound(spi)
            .unwrap_or_else(|| panic!("the inbound SA {spi:#x} went too early"));
        let number = sa.replay().infer(low).unwrap();
        sa.replay().check(number).unwrap();
        let mut jobs = [OpenJob::new(sa.key(), &mut packet, number)];
        open(&mut jobs);
        assert_eq!(jobs[0].verdict, Verdict::Done);
        // Twice the same number with one key would be refused here.
        sa.replay().commit(number).unwrap();
        assert_eq!(sa.account(1, TEXT_BYTES as u64, 0, view.guard()), None);
        *of_spi.entry(spi).or_default() += 1;
        opened.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn fault_51_rekeys_under_load_lose_no_packet_and_repeat_no_number() {
    let mut writer = Writer::new(Arc::new(Tables::new(Limits::default())));
    let mut apply = |update: Update| writer.apply(1, update).unwrap();
    let select = |generation| Update::SelectOutbound {
        tunnel: TunnelId(1),
        sa: sa(SaDirection::Outbound, generation).reference(),
    };
    apply(tunnel());
    apply(Update::PutRoute(southbound::RouteSpec {
        vrf: VrfId::MAIN,
        prefix: "10.0.0.0/8".parse().unwrap(),
        next_hops: vec![southbound::NextHop::Tunnel(TunnelId(1))],
        weights: Vec::new(),
    }));
    apply(Update::InstallSa(sa(SaDirection::Inbound, 0)));
    apply(Update::InstallSa(sa(SaDirection::Outbound, 0)));
    apply(select(0));
    let tables = Arc::clone(writer.tables());
    let stop = AtomicBool::new(false);
    let opened = AtomicU64::new(0);
    let (to, from) = crossbeam_channel::bounded(256);
    let (sent, of_spi) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&tables, &from, &opened));
        let sender = scope.spawn(|| {
            let to = to;
            send(&tables, &stop, &to)
        });
        let wait_for = |packets: u64| {
            let (start, target) = (Instant::now(), opened.load(Ordering::Relaxed) + packets);
            while opened.load(Ordering::Relaxed) < target {
                assert!(start.elapsed() < Duration::from_secs(20), "traffic stands still");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        for generation in 1..=REKEYS {
            let mut apply = |update: Update| writer.apply(1, update).unwrap();
            wait_for(200);
            apply(Update::InstallSa(sa(SaDirection::Inbound, generation)));
            apply(Update::InstallSa(sa(SaDirection::Outbound, generation)));
            apply(select(generation));
            apply(Update::RemoveSa(
                sa(SaDirection::Outbound, generation - 1).reference(),
            ));
            // The old inbound SA drains what is under way: the channel holds 256 packets.
            wait_for(600);
            apply(Update::RemoveSa(
                sa(SaDirection::Inbound, generation - 1).reference(),
            ));
            writer.settle();
        }
        stop.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), receiver.join().unwrap())
    });
    assert_eq!(of_spi.values().sum::<u64>(), sent, "every packet was opened");
    assert_eq!(of_spi.len() as u32, REKEYS + 1, "every key carried traffic");
}
