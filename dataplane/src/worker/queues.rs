//! A worker's queues over time: taken on, watched, given back.

use southbound::{DropReason, PORT_SLOTS, PortCounter, WorkerCounter};

use super::{Command, Report, Served, Worker};
use crate::counters::WorkerCounters;
use crate::stage;
use crate::tables::PortSlot;
use crate::xsk::{KernelStatistics, PortQueue, QueueId, Remedy, Watch};

impl<'u> Worker<'u> {
    /// Does what the main thread says.
    pub(super) fn obey(&mut self) {
        if self.parts.commands.is_empty() {
            return;
        }
        while let Ok(command) = self.parts.commands.try_recv() {
            match command {
                Command::Add(slot, mut queue) => {
                    queue.refill(&mut self.pool);
                    queue.wake();
                    self.report(Report::Filled(queue.id()));
                    let busy_polls = self.start_busy_poll(&queue);
                    self.queues.push(Served {
                        slot,
                        queue: *queue,
                        watch: Watch::default(),
                        kernel: KernelStatistics::default(),
                        is_broken: false,
                        busy_polls,
                    });
                }
                Command::Remove(id) => self.remove(id),
                Command::Reclaim(closed) => {
                    self.chunks_away = self.chunks_away.saturating_sub(closed.reclaim(&mut self.pool));
                }
                Command::Stop => self.is_stopping = true,
            }
        }
        self.egress = [None; PORT_SLOTS];
        for (index, served) in self.queues.iter().enumerate() {
            if let Some(egress) = self.egress.get_mut(served.slot.get()) {
                egress.get_or_insert(index);
            }
        }
        for (slot, egress) in PortSlot::all().zip(&self.egress) {
            self.parts
                .handoff
                .set_serving(self.parts.number, slot, egress.is_some());
        }
    }

    /// Tells the main thread.
    fn report(&self, report: Report<'u>) {
        // The main thread outlives its workers; a test may not care.
        let _ = self.parts.reports.send(report);
        self.parts.bell.ring();
    }

    /// Whether the queue's device is polled from now on.
    fn start_busy_poll(&self, queue: &PortQueue<'u>) -> bool {
        let Some(poll) = self.parts.busy_poll else {
            return false;
        };
        let id = queue.id();
        match queue.set_busy_poll(true, poll.duration_us, poll.budget_packets) {
            Ok(()) => {
                tracing::info!(port = id.port, queue = id.queue, "busy-polling");
                true
            }
            Err(error) => {
                tracing::warn!(port = id.port, queue = id.queue, %error, "no busy-polling: the device interrupts");
                false
            }
        }
    }

    fn remove(&mut self, id: QueueId) {
        while let Some(index) = self.queues.iter().position(|served| served.queue.id() == id) {
            let mut served = self.queues.swap_remove(index);
            if let Ok(kernel) = served.queue.kernel_statistics() {
                count_kernel(&self.parts.counters, served.slot, &served.kernel, &kernel);
            }
            served.queue.complete(&mut self.pool);
            self.chunks_away += served.queue.census().sum();
            // What was received and not walked yet is lost with the socket, and was never counted as received.
            self.report(Report::Removed(Box::new(served.queue)));
        }
    }

    /// At the end: sockets that are still here close with the process, their program detached or not.
    pub(super) fn close_all(&mut self) {
        for served in self.queues.drain(..) {
            let closed = served.queue.close();
            if !closed.settles_slowly() {
                closed.reclaim(&mut self.pool);
            }
        }
        let (counters, pool) = (&self.parts.counters, &mut self.pool);
        self.hold.drain(|held| {
            counters.drop_packets(held.awaited.timed_out(), 1);
            pool.put(held.frame);
        });
        counters.drop_packets(DropReason::FragmentTimeout, self.reassembly.held_packets());
        counters.set(WorkerCounter::Held, 0);
        self.parts.reader.park();
    }

    /// Once in a while: queues that stand still are helped, levels are written down.
    pub(super) fn take_census(&mut self, now_ns: u64) {
        let (_, mut context) = self.context(now_ns);
        stage::reassemble::expire(&mut context);
        self.state_held();
        let view = self.parts.reader.pin();
        let counters = &self.parts.counters;
        let (mut fill, mut transmit) = (0, 0);
        for served in &mut self.queues {
            let is_up = view.port(served.slot).is_some_and(|port| port.link.up);
            let remedy = served.watch.look(&served.queue, is_up, now_ns / 1_000_000);
            if is_up {
                // Against drivers that sleep without saying so; and it is how an idle worker learns that a device is gone,
                // for poll does not tell.
                served.queue.nudge();
            }
            if remedy == Some(Remedy::LeaveBusyPoll) && served.busy_polls {
                served.busy_polls = false;
                let id = served.queue.id();
                tracing::warn!(
                    port = id.port,
                    queue = id.queue,
                    "nothing is sent under busy-polling: interrupts again"
                );
                if let Err(error) = served.queue.set_busy_poll(false, 0, 0) {
                    tracing::warn!(port = id.port, queue = id.queue, %error, "busy-polling cannot be ended");
                }
            }
            let is_broken = served.queue.has_died() || remedy == Some(Remedy::Rebind);
            if is_broken && !served.is_broken {
                // As in `report`, whose `self` is taken here.
                let _ = self.parts.reports.send(Report::Broken(served.queue.id()));
                self.parts.bell.ring();
            }
            served.is_broken = is_broken;
            let census = served.queue.census();
            fill += u64::from(census.fill + census.kernel_receiving + census.receive);
            transmit += u64::from(census.transmit + census.kernel_sending + census.completion);
            if let Ok(kernel) = served.queue.kernel_statistics() {
                count_kernel(counters, served.slot, &served.kernel, &kernel);
                served.kernel = kernel;
            }
        }
        counters.set(WorkerCounter::FramesFree, self.pool.len() as u64);
        counters.set(WorkerCounter::FramesFill, fill);
        counters.set(WorkerCounter::FramesTransmit, transmit);
        // From the table of owners, so that the four sum up to all frames only if none is lost or in two places.
        let held = self.pool.umem().tally().held + self.chunks_away;
        counters.set(WorkerCounter::FramesHeld, u64::from(held));
        match self.check_books() {
            Ok(()) => self.books_are_wrong = false,
            Err(error) if !self.books_are_wrong => {
                self.books_are_wrong = true;
                tracing::error!(worker = self.parts.number, "the books do not balance: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Adds what the kernel counted at a queue since it was last asked: a port may have several queues here, and each counts
/// from zero when it is bound anew.
fn count_kernel(
    counters: &WorkerCounters,
    slot: PortSlot,
    before: &KernelStatistics,
    now: &KernelStatistics,
) {
    for (counter, before, now) in [
        (
            PortCounter::KernelDropped,
            before.receive_dropped,
            now.receive_dropped,
        ),
        (
            PortCounter::ReceiveRingFull,
            before.receive_ring_full,
            now.receive_ring_full,
        ),
        (
            PortCounter::FillRingEmpty,
            before.fill_ring_empty,
            now.fill_ring_empty,
        ),
        (
            PortCounter::ReceiveInvalid,
            before.receive_invalid_descriptors,
            now.receive_invalid_descriptors,
        ),
        (
            PortCounter::TransmitInvalid,
            before.transmit_invalid_descriptors,
            now.transmit_invalid_descriptors,
        ),
        (
            PortCounter::TransmitRingEmpty,
            before.transmit_ring_empty,
            now.transmit_ring_empty,
        ),
    ] {
        counters.add_port(slot, counter, now.saturating_sub(before));
    }
}
