//! Two workers, one of them without a queue of the port that its packets leave by.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod walk;

use std::sync::Arc;

use crossbeam_channel::unbounded;
use dataplane::bell::Bell;
use dataplane::config::Idle;
use dataplane::counters::WorkerCounters;
use dataplane::worker::{Command, Parts, Report, Worker};
use dataplane::xsk::{QueueId, RingSizes, memory};
use southbound::DropReason::{PortDown, TransmitRingFull};
use southbound::{NextHop, PortId, WorkerCounter};
use walk::gateway::{Gateway, LAN, WAN, neighbour_mac};
use walk::packets::Ip;
use walk::specs;

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
    let umem = specs::umem(512);
    let (commands, obeyed) = unbounded();
    let (reporting, _reports) = unbounded();
    let parts = Parts {
        reader: gateway.writer.tables().reader_of(1),
        counters: WorkerCounters::detached(),
        events: Arc::clone(&gateway.events),
        paths: Arc::clone(&gateway.paths),
        commands: obeyed,
        reports: reporting,
        bell: Bell::new().unwrap(),
        tap: None,
        tracer: std::sync::Arc::default(),
        reads_tap: false,
        idle: Idle::Adaptive,
        busy_poll: None,
        number: 1,
        handoff: Arc::clone(&gateway.handoff),
    };
    let (mut second, _waker) = Worker::new(umem.pool().unwrap(), parts).unwrap();
    let sizes = RingSizes {
        fill: 128,
        receive: 64,
        transmit: 64,
        completion: 64,
    };
    let (queue, mut wire) = memory::pair(umem, QueueId { port: WAN, queue: 1 }, &sizes).unwrap();
    let slot = gateway.writer.port_slot(PortId(WAN)).unwrap();
    commands.send(Command::Add(slot, Box::new(queue))).unwrap();
    second.turn(gateway.now_ns);

    gateway.pass(LAN, &packet.bytes());
    assert!(second.turn(gateway.now_ns), "something was in the inbox");
    let frames = wire.collect();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (&frames[0][..6], &frames[0][14..]),
        (&neighbour_mac(WAN)[..], &forwarded[..])
    );
    assert_eq!(gateway.count(WorkerCounter::Transmitted), 1);
    second.check_books().unwrap();

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
        second.turn(gateway.now_ns);
        second.check_books().unwrap();
        sent += wire.collect().len();
    }
    assert_eq!(sent, 128);
}
