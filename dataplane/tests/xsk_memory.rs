//! Queues over rings in memory: packets go through, faults are survived, and every frame is always in one place.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use dataplane::xsk::{
    Frame, FramePool, PortQueue, QueueId, RingSizes, Umem, UmemConfig,
    memory::{MemoryKernel, Undelivered, pair, pair_from},
};
use nix::errno::Errno;
use proptest::prelude::*;

const SMALL: RingSizes = RingSizes {
    fill: 8,
    receive: 4,
    transmit: 4,
    completion: 4,
};

fn umem(frame_count: u32) -> Umem {
    Umem::new(&UmemConfig {
        frame_count,
        ..UmemConfig::default()
    })
    .unwrap()
}

fn id(port: u32) -> QueueId {
    QueueId { port, queue: 0 }
}

fn packet<'u>(pool: &mut FramePool<'u>, bytes: &[u8]) -> Frame<'u> {
    let mut frame = pool.take().unwrap();
    assert!(frame.copy_from(bytes));
    frame
}

/// Every frame is in exactly one place, by the counts of each party and by the table of owners.
fn assert_conserved(umem: &Umem, pool: &FramePool<'_>, queues: &[&PortQueue<'_>], held: usize) {
    let tally = umem.tally();
    assert_eq!(tally.free as usize, pool.len());
    assert_eq!(tally.held as usize, held);
    assert_eq!(
        tally.receiving as usize,
        queues.iter().map(|q| q.receiving()).sum::<usize>()
    );
    assert_eq!(
        tally.sending as usize,
        queues.iter().map(|q| q.in_flight()).sum::<usize>()
    );
    let kernel: u32 = queues.iter().map(|q| q.census().sum()).sum();
    assert_eq!(pool.len() + held + kernel as usize, umem.frame_count() as usize);
}

#[test]
fn a_packet_goes_from_one_port_to_another_in_the_same_chunk() {
    let umem = umem(64);
    let mut pool = umem.pool().unwrap();
    let (mut west, mut west_wire) = pair(&umem, id(1), &SMALL).unwrap();
    let (mut east, mut east_wire) = pair(&umem, id(2), &SMALL).unwrap();
    assert_eq!((west.refill(&mut pool), east.refill(&mut pool)), (8, 8));
    west_wire.deliver(b"payload").unwrap();
    let mut batch = Vec::new();
    assert_eq!(west.receive(64, |frame| batch.push(frame)), 1);
    let mut frame = batch.pop().unwrap();
    assert_eq!(
        (frame.bytes(), frame.headroom()),
        (&b"payload"[..], umem.packet_headroom_bytes())
    );
    let place = frame.bytes().as_ptr();
    frame.grow_front(4).unwrap().copy_from_slice(b"new ");
    east.push(frame).unwrap();
    east.wake();
    let mut seen = None;
    assert_eq!(
        east_wire.collect_with(|packet| seen = Some((packet.as_ptr(), packet.to_vec()))),
        1
    );
    assert_eq!(
        seen,
        Some((place.wrapping_sub(4), b"new payload".to_vec())),
        "not copied"
    );
    assert_conserved(&umem, &pool, &[&west, &east], 0);
    assert_eq!(east.complete(&mut pool), 1);
    assert_conserved(&umem, &pool, &[&west, &east], 0);
    assert_eq!(west.refill(&mut pool), 1);
}

#[test]
fn a_full_transmit_ring_gives_the_rest_back() {
    let umem = umem(64);
    let mut pool = umem.pool().unwrap();
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    wire.hold_transmit(true);
    let mut frames: Vec<Frame<'_>> = (0..6u8).map(|n| packet(&mut pool, &[n; 60])).collect();
    assert_eq!(queue.transmit(&mut frames), 4);
    assert_eq!(
        frames.iter().map(|f| f.bytes()[0]).collect::<Vec<_>>(),
        [4, 5],
        "the rest, in order"
    );
    assert_eq!(queue.counters().transmit_full, 2);
    assert_conserved(&umem, &pool, &[&queue], 2);
    wire.hold_transmit(false);
    assert_eq!(
        wire.collect().iter().map(|p| p[0]).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(queue.transmit(&mut frames), 2);
    assert_eq!(queue.complete(&mut pool), 4);
    assert_eq!(wire.collect().len(), 2);
    assert_eq!(queue.complete(&mut pool), 2);
    assert_eq!(pool.len(), 64);
}

#[test]
fn an_empty_packet_is_refused_because_it_would_never_complete() {
    let umem = umem(4);
    let mut pool = umem.pool().unwrap();
    let (mut queue, _wire) = pair(&umem, id(1), &SMALL).unwrap();
    let frame = queue.push(pool.take().unwrap()).unwrap_err();
    pool.put(frame);
    assert_conserved(&umem, &pool, &[&queue], 0);
}

#[test]
fn fault_64_a_starved_fill_ring_recovers_when_frames_come_back() {
    let umem = umem(16);
    let mut pool = umem.pool().unwrap();
    pool.set_reserve(0);
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    wire.set_sleeps(true);
    let hoard: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(queue.refill(&mut pool), 0);
    queue.wake();
    assert_eq!(wire.deliver(b"lost"), Err(Undelivered::FillRingEmpty));
    assert_eq!(queue.kernel_statistics().unwrap().fill_ring_empty, 1);
    hoard.into_iter().for_each(|frame| pool.put(frame));
    assert_eq!(queue.refill(&mut pool), 8);
    assert_eq!(
        wire.deliver(b"asleep"),
        Err(Undelivered::Asleep),
        "new chunks alone wake no driver"
    );
    queue.wake();
    wire.deliver(b"received").unwrap();
    assert_eq!(queue.receive(64, |frame| pool.put(frame)), 1);
    assert_conserved(&umem, &pool, &[&queue], 0);
}

#[test]
fn the_reserve_stays_in_the_pool() {
    let umem = umem(64);
    let mut pool = umem.pool().unwrap();
    pool.set_reserve(60);
    let (mut queue, _wire) = pair(&umem, id(1), &SMALL).unwrap();
    assert_eq!(queue.refill(&mut pool), 4);
    assert_eq!(pool.len(), 60);
}

#[test]
fn fault_72_delayed_completions_keep_their_frames() {
    let umem = umem(16);
    let mut pool = umem.pool().unwrap();
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    wire.hold_completions(true);
    for _ in 0..3 {
        for _ in 0..4 {
            let frame = packet(&mut pool, b"x");
            queue.push(frame).unwrap();
        }
        queue.wake();
        assert_eq!(wire.collect().len(), 4);
        assert_eq!(queue.complete(&mut pool), 0);
    }
    assert_eq!((queue.in_flight(), queue.census().kernel_sending), (12, 12));
    assert_conserved(&umem, &pool, &[&queue], 0);
    for _ in 0..3 {
        wire.hold_completions(false);
        assert_eq!(
            queue.complete(&mut pool),
            4,
            "as many as the completion ring holds"
        );
    }
    assert_eq!(pool.len(), 16);
}

#[test]
fn a_packet_in_several_chunks_is_dropped_whole_and_its_chunks_go_round() {
    let umem = umem(16);
    let mut pool = umem.pool().unwrap();
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    queue.refill(&mut pool);
    for _ in 0..10 {
        wire.deliver_fragments(&[&[1; 3000], &[2; 3000], &[3; 100]])
            .unwrap();
        wire.deliver(b"whole").unwrap();
        let mut seen = Vec::new();
        queue.receive(64, |frame| {
            seen.push(frame.bytes().to_vec());
            pool.put(frame);
        });
        assert_eq!(seen, [b"whole"]);
        queue.refill(&mut pool);
        assert_eq!(queue.receiving(), 8);
        assert_conserved(&umem, &pool, &[&queue], 0);
    }
    assert_eq!(queue.counters().fragmented_packets, 10);
}

#[test]
fn fault_49_descriptors_of_chunks_never_given_out_make_no_frames() {
    let umem = umem(16);
    let mut pool = umem.pool().unwrap();
    pool.set_reserve(8);
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    queue.refill(&mut pool);
    // In the pool; in the rings but too long; out of the UMEM; out of every address.
    for (address, len) in [(15 * 4096, 64), (384, 4096), (16 * 4096, 64), (u64::MAX, 64)] {
        assert!(wire.deliver_foreign(address, len));
    }
    assert_eq!(queue.receive(64, |frame| panic!("{frame:?}")), 0);
    for address in [0, 15 * 4096, u64::MAX] {
        assert!(wire.complete_foreign(address));
    }
    assert_eq!(queue.complete(&mut pool), 0);
    assert_eq!(queue.counters().foreign_descriptors, 7);
    assert_conserved(&umem, &pool, &[&queue], 0);
}

/// What is decrypted in place is the worker's alone: a device that names the chunk again, as received or as sent, makes
/// no second frame of it.
#[test]
fn fault_49_a_chunk_in_the_workers_hands_is_in_no_other() {
    let umem = umem(16);
    let mut pool = umem.pool().unwrap();
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    queue.refill(&mut pool);
    wire.deliver(b"sealed").unwrap();
    let mut held = Vec::new();
    assert_eq!(queue.receive(64, |frame| held.push(frame)), 1);
    let frame = held.pop().unwrap();
    for chunk in 0..16 {
        // Those that the kernel has are its own to give.
        if umem.tally().receiving == 8 && chunk >= 8 {
            assert!(wire.deliver_foreign(chunk * 4096 + 384, 64));
        }
        assert!(wire.complete_foreign(chunk * 4096 + 384));
        assert_eq!(queue.receive(64, |frame| panic!("{frame:?}")), 0);
        assert_eq!(queue.complete(&mut pool), 0);
    }
    assert_eq!(frame.bytes(), b"sealed");
    assert_conserved(&umem, &pool, &[&queue], 1);
    // Sent, it is the kernel's until it is completed once.
    queue.push(frame).unwrap();
    queue.wake();
    assert_eq!(wire.collect(), [b"sealed"]);
    assert_eq!(queue.complete(&mut pool), 1);
    assert_conserved(&umem, &pool, &[&queue], 0);
}

#[test]
fn fault_67_a_dead_queue_gives_its_chunks_back_when_closed_and_not_before() {
    let umem = umem(32);
    let mut pool = umem.pool().unwrap();
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    wire.set_sleeps(true);
    queue.refill(&mut pool);
    let frame = packet(&mut pool, b"stuck");
    queue.push(frame).unwrap();
    wire.set_answer(Some(Errno::ENETDOWN));
    queue.wake();
    assert!(!queue.has_died(), "what is down may be up again");
    wire.set_answer(Some(Errno::ENXIO));
    queue.wake();
    assert!(queue.has_died());
    assert_conserved(&umem, &pool, &[&queue], 0);
    assert_eq!(pool.len(), 32 - 9);
    let closed = queue.close();
    assert_eq!(
        (closed.chunks(), umem.tally().receiving, umem.tally().sending),
        (9, 8, 1)
    );
    assert_eq!(closed.reclaim(&mut pool), 9);
    assert_eq!(pool.len(), 32);
    // Its custodies are free again, or these would run out.
    for _ in 0..300 {
        let (mut queue, _wire) = pair(&umem, id(1), &SMALL).unwrap();
        queue.refill(&mut pool);
        queue.close().reclaim(&mut pool);
    }
    assert_eq!(pool.len(), 32);
}

#[test]
fn a_sleeping_device_is_woken_and_one_awake_is_not() {
    let umem = umem(16);
    let mut pool = umem.pool().unwrap();
    let (mut queue, mut wire) = pair(&umem, id(1), &SMALL).unwrap();
    let wakeups = |queue: &PortQueue<'_>| {
        (
            queue.counters().receive_wakeups,
            queue.counters().transmit_wakeups,
        )
    };
    queue.refill(&mut pool);
    queue.push(packet(&mut pool, b"1")).unwrap();
    queue.wake();
    assert_eq!(wakeups(&queue), (0, 0));
    assert_eq!(wire.collect(), [b"1"]);
    wire.set_sleeps(true);
    queue.wake();
    assert_eq!(wakeups(&queue), (1, 0), "nothing to send");
    queue.push(packet(&mut pool, b"2")).unwrap();
    queue.submit();
    assert!(wire.collect().is_empty(), "asleep");
    queue.wake();
    assert_eq!(wakeups(&queue), (2, 1));
    assert_eq!(wire.collect(), [b"2"]);
}

/// One step of the random walk below; the number is a port's.
#[derive(Clone, Debug)]
enum Step {
    Deliver(usize, usize),
    Fragments(usize),
    Receive(usize, usize),
    Send(usize),
    DropHeld,
    MakePacket,
    Complete(usize),
    Refill(usize),
    Wake(usize),
    Wire(usize),
    HoldTransmit(usize, bool),
    HoldCompletions(usize, bool),
    StarveFill(usize, bool),
    Sleeps(usize, bool),
    Foreign(usize, u64),
    Rebind(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0usize..2;
    let switch = (0usize..2, any::<bool>());
    prop_oneof![
        4 => (port.clone(), 1usize..4000).prop_map(|(port, len)| Step::Deliver(port, len)),
        1 => port.clone().prop_map(Step::Fragments),
        4 => (port.clone(), 0usize..6).prop_map(|(port, max)| Step::Receive(port, max)),
        4 => port.clone().prop_map(Step::Send),
        1 => Just(Step::DropHeld),
        1 => Just(Step::MakePacket),
        3 => port.clone().prop_map(Step::Complete),
        3 => port.clone().prop_map(Step::Refill),
        3 => port.clone().prop_map(Step::Wake),
        4 => port.clone().prop_map(Step::Wire),
        1 => switch.clone().prop_map(|(port, on)| Step::HoldTransmit(port, on)),
        1 => switch.clone().prop_map(|(port, on)| Step::HoldCompletions(port, on)),
        1 => switch.clone().prop_map(|(port, on)| Step::StarveFill(port, on)),
        1 => switch.prop_map(|(port, on)| Step::Sleeps(port, on)),
        1 => (port.clone(), 0u64..50 * 4096).prop_map(|(port, address)| Step::Foreign(port, address)),
        1 => port.prop_map(Step::Rebind),
    ]
}

/// Two ports of one worker, and what is in its hands.
struct Walk<'u> {
    umem: &'u Umem,
    pool: FramePool<'u>,
    queues: Vec<PortQueue<'u>>,
    wires: Vec<MemoryKernel<'u>>,
    held: Vec<Frame<'u>>,
    /// What was sent on each port and has not come out.
    expected: [VecDeque<Vec<u8>>; 2],
}

impl<'u> Walk<'u> {
    fn new(umem: &'u Umem) -> Self {
        let mut pool = umem.pool().unwrap();
        pool.set_reserve(4);
        let (queues, wires) = (0..2)
            .map(|n| pair_from(umem, id(n), &SMALL, u32::MAX - 5).unwrap())
            .collect();
        Self {
            umem,
            pool,
            queues,
            wires,
            held: Vec::new(),
            expected: Default::default(),
        }
    }

    fn step(&mut self, step: Step, mark: u8) {
        let Self {
            umem,
            pool,
            queues,
            wires,
            held,
            expected,
        } = self;
        match step {
            Step::Deliver(port, len) => {
                let _ = wires[port].deliver(&vec![mark; len]);
            }
            Step::Fragments(port) => {
                // The kernel delivers all fragments of a packet or none.
                let census = queues[port].census();
                if census.fill >= 2 && census.receive + 2 <= SMALL.receive {
                    let _ = wires[port].deliver_fragments(&[&[mark; 10], &[mark; 10]]);
                }
            }
            Step::Receive(port, max) => {
                queues[port].receive(max, |frame| held.push(frame));
            }
            Step::Send(port) => {
                if let Some(frame) = held.pop() {
                    let bytes = frame.bytes().to_vec();
                    match queues[port].push(frame) {
                        Ok(()) => expected[port].push_back(bytes),
                        Err(frame) => held.push(frame),
                    }
                }
            }
            Step::DropHeld => held.drain(..).for_each(|frame| pool.put(frame)),
            Step::MakePacket => {
                if let Some(mut frame) = pool.take() {
                    assert!(frame.copy_from(&[mark; 100]));
                    held.push(frame);
                }
            }
            Step::Complete(port) => {
                queues[port].complete(pool);
            }
            Step::Refill(port) => {
                queues[port].refill(pool);
            }
            Step::Wake(port) => queues[port].wake(),
            Step::Wire(port) => {
                for packet in wires[port].collect() {
                    assert_eq!(Some(packet), expected[port].pop_front());
                }
            }
            Step::HoldTransmit(port, on) => wires[port].hold_transmit(on),
            Step::HoldCompletions(port, on) => wires[port].hold_completions(on),
            Step::StarveFill(port, on) => wires[port].starve_fill(on),
            Step::Sleeps(port, on) => wires[port].set_sleeps(on),
            Step::Foreign(port, address) => {
                // An address in the kernel's hands would not be foreign, now or when the worker comes to it.
                let tally = umem.tally();
                if tally.receiving == 0 && tally.sending == 0 {
                    wires[port].deliver_foreign(address, 64);
                    wires[port].complete_foreign(address);
                    queues[port].receive(SMALL.receive as usize, |frame| panic!("{frame:?}"));
                    assert_eq!(queues[port].complete(pool), 0);
                }
            }
            Step::Rebind(port) => {
                let (queue, wire) = pair_from(umem, id(port as u32), &SMALL, u32::MAX - 5).unwrap();
                let old = std::mem::replace(&mut queues[port], queue);
                wires[port] = wire;
                expected[port].clear();
                let chunks = old.receiving() + old.in_flight();
                assert_eq!(old.close().reclaim(pool) as usize, chunks);
            }
        }
        let queues: Vec<_> = self.queues.iter().collect();
        assert_conserved(self.umem, &self.pool, &queues, self.held.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Any order of what a worker, a device and faults do conserves frames, and every packet sent arrives as it was.
    #[test]
    fn frames_are_conserved_whatever_happens(steps in proptest::collection::vec(step(), 1..250)) {
        let umem = umem(40);
        let mut walk = Walk::new(&umem);
        for (number, step) in steps.into_iter().enumerate() {
            walk.step(step, number as u8);
        }
        let Walk { mut pool, queues, held, .. } = walk;
        held.into_iter().for_each(|frame| pool.put(frame));
        for queue in queues {
            queue.close().reclaim(&mut pool);
        }
        prop_assert_eq!(pool.len(), 40);
    }
}
