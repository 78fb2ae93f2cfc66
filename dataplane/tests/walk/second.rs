//! The worker beside a gateway's own.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataplane::bell::Bell;
use dataplane::config::Idle;
use dataplane::counters::WorkerCounters;
use dataplane::worker::{Command, Parts, Report, Worker};
use dataplane::xsk::memory::{self, MemoryKernel};
use dataplane::xsk::{QueueId, RingSizes};
use southbound::PortId;

use super::gateway::Gateway;
use super::specs;

/// Worker 1 of a gateway; it goes on while the other ends of its channels stand.
pub struct Second {
    pub worker: Worker<'static>,
    _commands: Sender<Command<'static>>,
    _reports: Receiver<Report<'static>>,
}

impl Second {
    /// With a queue of its own of each of `ports`, which it has taken.
    pub fn of<const N: usize>(
        gateway: &Gateway,
        idle: Idle,
        ports: [u32; N],
    ) -> (Self, [MemoryKernel<'static>; N]) {
        let umem = specs::umem(512);
        let (commands, obeyed) = unbounded();
        let (reporting, reports) = unbounded();
        let parts = Parts {
            reader: gateway.writer.tables().reader_of(1),
            counters: WorkerCounters::detached(),
            events: Arc::clone(&gateway.events),
            paths: Arc::clone(&gateway.paths),
            commands: obeyed,
            reports: reporting,
            bell: Bell::new().unwrap(),
            tap: None,
            tracer: Arc::default(),
            reads_tap: false,
            idle,
            busy_poll: None,
            number: 1,
            handoff: Arc::clone(&gateway.handoff),
        };
        let (mut worker, _waker) = Worker::new(umem.pool().unwrap(), parts).unwrap();
        let sizes = RingSizes {
            fill: 128,
            receive: 64,
            transmit: 64,
            completion: 64,
        };
        let kernels = ports.map(|port| {
            let (queue, kernel) = memory::pair(umem, QueueId { port, queue: 1 }, &sizes).unwrap();
            let slot = gateway.writer.port_slot(PortId(port)).unwrap();
            commands.send(Command::Add(slot, Box::new(queue))).unwrap();
            kernel
        });
        worker.turn(gateway.now_ns);
        let second = Self {
            worker,
            _commands: commands,
            _reports: reports,
        };
        (second, kernels)
    }
}
