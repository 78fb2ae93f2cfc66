//! Two workers, one of them without a queue of the port that its packets leave by.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use dataplane::config::Idle;
use dataplane::worker::{Command, Report};
use dataplane::xsk::QueueId;
use southbound::DropReason::{PortDown, TransmitRingFull};
use southbound::{NextHop, PortId, WorkerCounter};
use walk::gateway::{Gateway, LAN, WAN, neighbour_mac};
use walk::packets::Ip;
use walk::second::Second;

#[test]
fn a_worker_without_a_queue_gives_its_packets_to_one_that_has() {
    let mut gateway = Gateway::numbered(1);
    gateway.route(
        "198.51.100.0/24",
        NextHop::Port {
            port: PortId(WAN),
            gateway: Some("192.0.2.2".parse().unwrap()),
        },
    );
    let packet = Ip::udp("10.1.0.5", "198.51.100.7", 300);
    let forwarded = Ip {
        hops: 63,
        ..packet.clone()
    }
    .bytes();
    // The first worker loses its queue of the internet port, and nobody has one.
    gateway
        .commands
        .send(Command::Remove(QueueId { port: WAN, queue: 0 }))
        .unwrap();
    gateway.turn();
    assert!(matches!(
        gateway.reports.try_iter().last(),
        Some(Report::Removed(_))
    ));
    gateway.pass(LAN, &packet.bytes());
    assert_eq!(gateway.drops(), [(PortDown, 1)]);

    // The second worker gets one.
    let (mut second, [mut wire]) = Second::of(&gateway, Idle::Adaptive, [WAN]);

    gateway.pass(LAN, &packet.bytes());
    assert!(second.worker.turn(gateway.now_ns), "something was in the inbox");
    let frames = wire.collect();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (&frames[0][..6], &frames[0][14..]),
        (&neighbour_mac(WAN)[..], &forwarded[..])
    );
    assert_eq!(gateway.count(WorkerCounter::Transmitted), 1);
    second.worker.check_books().unwrap();

    // An inbox that nobody empties fills up; the rest is dropped by name.
    for _ in 0..4 {
        for _ in 0..50 {
            gateway.deliver(LAN, &packet.bytes());
        }
        gateway.turn();
    }
    assert_eq!(gateway.drops(), [(PortDown, 1), (TransmitRingFull, 200 - 128)]);
    let mut sent = 0;
    for _ in 0..8 {
        second.worker.turn(gateway.now_ns);
        second.worker.check_books().unwrap();
        sent += wire.collect().len();
    }
    assert_eq!(sent, 128);
}
