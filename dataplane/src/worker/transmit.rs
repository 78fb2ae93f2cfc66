//! The way out: transmit rings of this worker, and the inboxes of others.

use southbound::{DropReason, PortCounter, WorkerCounter};

use super::Worker;
use crate::batch::{BATCH_PACKETS, Next, Slots};
use crate::handoff::{Given, Parcel};
use crate::tables::PortSlot;
use crate::xsk::Frame;

impl<'u> Worker<'u> {
    /// Puts what leaves onto the transmit rings; one that stays full loses the packet.
    pub(super) fn transmit(&mut self) {
        // Packets of one port follow each other: counted together.
        let mut run = Run::default();
        let mut given_to = 0;
        for slot in Slots::of(self.batch.take(Next::Transmit)) {
            let (egress, device) = (self.batch.meta(slot).egress, self.batch.meta(slot).device);
            if (egress, device) != (run.port, run.device) {
                self.count_transmitted(&run);
                run = Run::new(egress, device);
            }
            let Some(frame) = self.batch.remove(slot) else {
                continue;
            };
            let frame_bytes = frame.len() as u64;
            let index = self.egress.get(device.get()).copied().flatten();
            let Some(served) = index.and_then(|index| self.queues.get_mut(index)) else {
                given_to |= self.give_away(egress, device, frame);
                continue;
            };
            let mut outcome = served.queue.push(frame);
            if let Err(frame) = outcome {
                // Once more after the device was told and finished frames were taken home.
                served.queue.wake();
                served.queue.complete(&mut self.pool);
                outcome = served.queue.push(frame);
            }
            match outcome {
                Ok(()) => {
                    run.packets += 1;
                    run.bytes += frame_bytes;
                }
                Err(frame) => {
                    self.parts.counters.drop_packets(DropReason::TransmitRingFull, 1);
                    self.pool.put(frame);
                }
            }
        }
        self.count_transmitted(&run);
        if given_to != 0 {
            self.parts.handoff.wake(given_to);
        }
    }

    /// Gives a packet to a worker that has a queue of its port; answers whose bit.
    #[cold]
    fn give_away(&mut self, port: PortSlot, device: PortSlot, frame: Frame<'u>) -> u64 {
        let given = self.parts.handoff.give(port, device, frame.bytes());
        self.pool.put(frame);
        let counters = &self.parts.counters;
        match given {
            Given::To(worker) => {
                counters.add(WorkerCounter::Transmitted, 1);
                1 << worker
            }
            Given::Full => {
                counters.drop_packets(DropReason::TransmitRingFull, 1);
                0
            }
            Given::Nobody => {
                counters.drop_packets(DropReason::PortDown, 1);
                0
            }
        }
    }

    /// Sends what other workers could not.
    pub(super) fn take_parcels(&mut self) -> usize {
        let mut count = 0;
        while count < BATCH_PACKETS
            && let Some(parcel) = self.parts.handoff.take(self.parts.number)
        {
            count += 1;
            if let Err(reason) = self.send_parcel(&parcel) {
                self.parts.counters.add(WorkerCounter::Generated, 1);
                self.parts.counters.drop_packets(reason, 1);
            }
        }
        count
    }

    fn send_parcel(&mut self, parcel: &Parcel) -> Result<(), DropReason> {
        let index = self.egress.get(parcel.device().get()).copied().flatten();
        let served = index
            .and_then(|index| self.queues.get_mut(index))
            .ok_or(DropReason::PortDown)?;
        let mut frame = self.pool.take().ok_or(DropReason::NoFrame)?;
        let refused = if frame.reset(0) && frame.copy_from(parcel.bytes()) {
            served.queue.push(frame).err()
        } else {
            Some(frame)
        };
        if let Some(frame) = refused {
            self.pool.put(frame);
            return Err(DropReason::TransmitRingFull);
        }
        let mut run = Run::new(parcel.port(), parcel.device());
        (run.packets, run.bytes) = (1, parcel.bytes().len() as u64);
        self.count_ports(&run);
        Ok(())
    }

    #[inline]
    fn count_transmitted(&self, run: &Run) {
        if run.packets != 0 {
            self.parts.counters.add(WorkerCounter::Transmitted, run.packets);
            self.count_ports(run);
        }
    }

    /// A VLAN's packets are its device's as well.
    #[inline]
    fn count_ports(&self, run: &Run) {
        let counters = &self.parts.counters;
        counters.add_port(run.device, PortCounter::TransmittedPackets, run.packets);
        counters.add_port(run.device, PortCounter::TransmittedBytes, run.bytes);
        if run.port != run.device {
            counters.add_port(run.port, PortCounter::TransmittedPackets, run.packets);
            counters.add_port(run.port, PortCounter::TransmittedBytes, run.bytes);
        }
    }
}

/// Packets in a row that left by one port.
struct Run {
    port: PortSlot,
    device: PortSlot,
    packets: u64,
    bytes: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self::new(PortSlot::FIRST, PortSlot::FIRST)
    }
}

impl Run {
    const fn new(port: PortSlot, device: PortSlot) -> Self {
        Self {
            port,
            device,
            packets: 0,
            bytes: 0,
        }
    }
}
