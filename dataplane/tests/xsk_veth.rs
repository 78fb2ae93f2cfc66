//! Ports over veth pairs in namespaces of their own, with the real program and real sockets. Needs root.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod rig;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dataplane::xsk::{
    BindError, BindRequest, CopyMode, CopyPolicy, PortQueue, QueueId, RingSizes, Umem, UmemConfig,
};
use rig::{Links, frame, number, run, spec, tap::Tap, with_gateway};
use southbound::{CopyMode as ReportedCopyMode, PortId, PortPhase, XdpMode};

/// The taps of both hosts, by the port's number.
fn taps(links: &Links) -> [Tap; 2] {
    [links.tap(1), links.tap(2)]
}

/// Sends frames in by port 1 and counts those that come out by port 2, in whatever order.
fn send_and_count(gateway: &mut rig::Gateway<'_, '_>, taps: &[Tap; 2], count: u32, flows: u16) -> usize {
    taps[1].seen();
    for number in 0..count {
        while !taps[0].send(&frame(1, number as u16 % flows, number)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if number % 16 == 15 {
            gateway.turn();
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        // Frames of an earlier load may still be on their way; their numbers are higher.
        seen.extend(
            taps[1]
                .seen()
                .iter()
                .filter_map(|frame| number(frame))
                .filter(|&n| n < count),
        );
        if seen.len() == count as usize {
            break;
        }
        gateway.turn();
    }
    seen.len()
}

#[test]
fn forwards_between_two_ports_of_one_queue_and_conserves_frames() {
    let links = Links::new("one", 1);
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        let status = gateway.status(1).unwrap();
        assert_eq!(status.xdp, Some(XdpMode::Driver));
        assert_eq!(
            status.queues,
            [ReportedCopyMode::Copy],
            "veth has no zero-copy, and says so"
        );
        let taps = taps(&links);
        // Many times more than there are frames, so that each goes round often.
        assert_eq!(send_and_count(gateway, &taps, 10_000, 8), 10_000);
        assert_eq!(gateway.work.forwarded.load(Ordering::Relaxed), 10_000);
    });
}

#[test]
fn fault_69_four_queues_of_two_workers_share_memory_and_no_ring() {
    let links = Links::new("four", 4);
    with_gateway(&links, 2, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        assert_eq!(gateway.status(1).unwrap().queues.len(), 4);
        assert_eq!(gateway.manager.view(PortId(2)).unwrap().queues, 4);
        let taps = taps(&links);
        assert_eq!(send_and_count(gateway, &taps, 4000, 64), 4000);
        assert_eq!(gateway.work.queues_seen.load(Ordering::Relaxed), 0b1111);
        assert_eq!(gateway.work.dropped.load(Ordering::Relaxed), 0);
    });
}

/// Closed while it sends, a zero-copy socket has hung NICs: first the worker lets go of the queue, then the program is
/// detached, then the socket is closed. Here without a NIC, but with the same calls in the same order.
#[test]
fn fault_65_ports_taken_down_under_transmit_load_lose_no_frame_and_come_back() {
    let links = Links::new("teardown", 2);
    let taps = taps(&links);
    let blast = links.tap(1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for number in 0u32.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                if !blast.send(&frame(1, number as u16 % 64, number)) {
                    std::thread::yield_now();
                }
            }
        });
        let end = SetAtEnd(&is_over);
        with_gateway(&links, 2, |gateway| {
            gateway.put(1);
            gateway.put(2);
            gateway.both_up();
            for port in [2, 1, 2, 1] {
                let before = gateway.work.forwarded.load(Ordering::Relaxed);
                gateway.until("it sends", |gateway| {
                    gateway.work.forwarded.load(Ordering::Relaxed) > before + 100
                });
                gateway.remove(port);
                gateway.until("the port is gone", |gateway| gateway.status(port).is_none());
                gateway.put(port);
                gateway.both_up();
            }
            drop(end);
            assert_eq!(send_and_count(gateway, &taps, 200, 8), 200);
        });
    });
}

/// Set also where a test fails: the thread that looks at it would be waited for without end.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn fault_66_a_port_closed_is_bound_again_at_once() {
    let links = Links::new("rebind", 1);
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        let taps = taps(&links);
        for round in 0..10 {
            gateway.remove(1);
            gateway.until("port 1 is gone", |gateway| gateway.status(1).is_none());
            gateway.put(1);
            gateway.both_up();
            assert_eq!(send_and_count(gateway, &taps, 50, 4), 50, "round {round}");
        }
    });
}

#[test]
fn fault_73_a_link_that_goes_down_and_up_keeps_its_sockets() {
    let links = Links::new("flap", 1);
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        let taps = taps(&links);
        for round in 1..=3 {
            run(&gateway.links.gateway, "ip link set g2 down");
            gateway.until("port 2 is down", |gateway| {
                taps[0].send(&frame(1, 0, 0));
                !gateway.is_up(2)
            });
            assert_eq!(gateway.status(2).unwrap().phase, PortPhase::LinkDown);
            run(&gateway.links.gateway, "ip link set g2 up");
            gateway.both_up();
            gateway.flows(1, &[&taps[0], &taps[0], &taps[1]], round * 10_000);
            run(&gateway.links.hosts, "ip link set h1 down");
            gateway.until("port 1 has no carrier", |gateway| !gateway.is_up(1));
            run(&gateway.links.hosts, "ip link set h1 up");
            gateway.both_up();
            gateway.flows(2, &[&taps[0], &taps[0], &taps[1]], round * 20_000);
        }
        assert_eq!(
            gateway.status(1).unwrap().rebinds + gateway.status(2).unwrap().rebinds,
            0
        );
    });
}

#[test]
fn fault_67_an_interface_deleted_and_made_again_under_traffic_comes_back() {
    let links = Links::new("again", 1);
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        let mut taps = taps(&links);
        for round in 1..=3 {
            // The first port bound and the other one in turn: none is special.
            let gone = 1 + round as usize % 2;
            let stays = 3 - gone;
            run(&gateway.links.gateway, &format!("ip link delete g{gone}"));
            gateway.until("the port is absent", |gateway| {
                taps[stays - 1].send(&frame(stays, 0, 0));
                gateway.status(gone as u32).unwrap().phase == PortPhase::Absent
            });
            gateway.links.make(gone);
            gateway.both_up();
            taps[gone - 1] = gateway.links.tap(gone as u32);
            let by_port = [&taps[0], &taps[0], &taps[1]];
            gateway.flows(stays, &by_port, round * 10_000);
            gateway.flows(gone, &by_port, round * 20_000);
        }
        assert_eq!(gateway.status(1).unwrap().rebinds, 1);
        assert_eq!(gateway.status(2).unwrap().rebinds, 2);
    });
}

#[test]
fn a_port_wanted_before_its_interface_comes_up_with_it() {
    let links = Links::new("early", 1);
    run(&links.gateway, "ip link delete g1");
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.until("port 2 is up", |gateway| gateway.is_up(2));
        assert_eq!(gateway.status(1).unwrap().phase, PortPhase::Absent);
        gateway.links.make(1);
        gateway.both_up();
        let mut changed = gateway.manager.take_changed();
        changed.dedup();
        assert_eq!(changed, [PortId(1), PortId(2)]);
    });
}

#[test]
fn fault_68_queues_that_are_added_get_sockets() {
    let links = Links::new("queues", 4);
    run(&links.gateway, "ethtool -L g1 rx 2 tx 2");
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.until("port 1 is up", |gateway| gateway.is_up(1));
        assert_eq!(gateway.status(1).unwrap().queues.len(), 2);
        run(&gateway.links.gateway, "ethtool -L g1 rx 4 tx 4");
        gateway.until("four queues are bound", |gateway| {
            gateway.is_up(1) && gateway.status(1).unwrap().queues.len() == 4
        });
    });
}

#[test]
fn zero_copy_that_is_required_and_refused_is_said() {
    let links = Links::new("zc", 1);
    with_gateway(&links, 1, |gateway| {
        let mut wanted = spec(1);
        wanted.require_zero_copy = true;
        gateway.manager.put(wanted, rig::slot(1), &gateway.watch, 0);
        gateway.until("it is refused", |gateway| {
            gateway.status(1).unwrap().phase == PortPhase::Refused
        });
        let error = gateway.status(1).unwrap().error.unwrap();
        assert!(error.contains("zero-copy is required"), "{error}");
        // Wanted without, it comes up at once.
        gateway.put(1);
        gateway.until("port 1 is up", |gateway| gateway.is_up(1));
        assert_eq!(gateway.status(1).unwrap().error, None);
    });
}

#[test]
fn fault_70_an_mtu_that_changes_is_published_and_one_too_large_is_refused() {
    let links = Links::new("mtu", 1);
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.until("port 1 is up", |gateway| gateway.is_up(1));
        run(&gateway.links.gateway, "ip link set g1 mtu 1400");
        gateway.until("the MTU is known", |gateway| {
            gateway.manager.view(PortId(1)).unwrap().mtu_bytes == 1400
        });
        assert!(gateway.is_up(1));
        gateway.remove(1);
        gateway.until("port 1 is gone", |gateway| gateway.status(1).is_none());
        run(&gateway.links.gateway, "ip link set g1 mtu 9000");
        gateway.until("the MTU is known", |gateway| {
            gateway.watch.find("g1").unwrap().mtu_bytes == 9000
        });
        gateway.put(1);
        let status = gateway.status(1).unwrap();
        assert_eq!(status.phase, PortPhase::Refused, "{status:?}");
        run(&gateway.links.gateway, "ip link set g1 mtu 1500");
        gateway.until("port 1 is up", |gateway| gateway.is_up(1));
    });
}

#[test]
fn a_second_socket_on_a_queue_is_told_that_it_is_busy_and_a_queue_that_is_not_there_is_refused() {
    let links = Links::new("busy", 1);
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                links.gateway.enter().unwrap();
                let index = nix::net::if_::if_nametoindex("g1").unwrap();
                let umem = Umem::new(&UmemConfig {
                    frame_count: 64,
                    ..UmemConfig::default()
                })
                .unwrap();
                let mut request = BindRequest {
                    id: QueueId { port: 1, queue: 0 },
                    ifindex: index,
                    policy: CopyPolicy::BestFirst,
                    rings: RingSizes::default(),
                    fill_target: 16,
                };
                let queue = PortQueue::bind(&umem, &request).unwrap();
                assert_eq!(queue.copy_mode(), CopyMode::Copy);
                assert_eq!(PortQueue::bind(&umem, &request).unwrap_err(), BindError::Busy(0));
                request.id.queue = 1;
                let error = PortQueue::bind(&umem, &request).unwrap_err();
                assert!(error.to_string().contains("no such queue"), "{error}");
                request.policy = CopyPolicy::RequireZeroCopy;
                request.id.queue = 0;
                drop(queue.close());
                // The kernel gives the queue back some time after the close.
                let error = (0..200)
                    .map(|_| PortQueue::bind(&umem, &request).unwrap_err())
                    .inspect(|_| std::thread::sleep(Duration::from_millis(10)))
                    .find(|error| *error != BindError::Busy(0))
                    .unwrap();
                assert!(matches!(error, BindError::NoZeroCopy { .. }), "{error}");
            })
            .join()
            .unwrap();
    });
}
