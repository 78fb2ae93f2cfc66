//! [`Handoff`]: packets that leave by a port of which their worker has no queue.
//!
//! Worker *i* has queue *i* of every port, so a port with fewer queues than there are workers has no queue for the last of
//! them; nor has a port while it comes up. What such a worker sends there it copies into the inbox of one that has a queue:
//! the memory of two workers is not the same. Inboxes are short and bounded; what does not fit is dropped by name. This is
//! the way out of an uneven machine, not the way of the traffic: where all ports have as many queues as there are workers
//! nothing goes this way, and the only cost is a look at an empty inbox once a turn.
//!
//! In the books the packet is transmitted by the worker that gave it away; should the other one have to drop it after all,
//! it counts it as generated and dropped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use southbound::PORT_SLOTS;

use crate::tables::PortSlot;
use crate::xsk::Waker;

/// Packets that an inbox holds.
const INBOX_PACKETS: usize = 128;
/// The longest packet, Ethernet header included: more than a received one can have.
const PARCEL_BYTES: usize = 3840;

/// A packet on its way to another worker.
pub struct Parcel {
    port: PortSlot,
    device: PortSlot,
    length_bytes: u16,
    bytes: [u8; PARCEL_BYTES],
}

impl Parcel {
    /// The port it leaves by.
    #[must_use]
    pub fn port(&self) -> PortSlot {
        self.port
    }

    /// The device whose ring that is.
    #[must_use]
    pub fn device(&self) -> PortSlot {
        self.device
    }

    /// The packet, Ethernet header included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length_bytes))
            .unwrap_or_default()
    }
}

/// What became of a packet that was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Another worker has it: wake that one when the batch is through.
    To(usize),
    /// The inbox is full.
    Full,
    /// No worker has a queue of the port.
    Nobody,
}

/// The inboxes of all workers.
pub struct Handoff {
    inboxes: Box<[ArrayQueue<Parcel>]>,
    wakers: Box<[OnceLock<Waker>]>,
    /// For each place of a port, a bit for each worker that has a queue.
    serving: [AtomicU64; PORT_SLOTS],
}

impl std::fmt::Debug for Handoff {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Handoff")
            .field("serving", &self.serving)
            .finish_non_exhaustive()
    }
}

impl Handoff {
    /// For `workers` workers, at most 64.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        // One alone has nobody to give to.
        let capacity = if workers > 1 { INBOX_PACKETS } else { 1 };
        Self {
            inboxes: (0..workers).map(|_| ArrayQueue::new(capacity)).collect(),
            wakers: (0..workers).map(|_| OnceLock::new()).collect(),
            serving: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Says how `worker` is woken.
    pub fn register(&self, worker: usize, waker: Waker) {
        if let Some(place) = self.wakers.get(worker) {
            // A worker is made once.
            let _ = place.set(waker);
        }
    }

    /// Says whether `worker` has a queue of the port.
    pub fn set_serving(&self, worker: usize, port: PortSlot, serves: bool) {
        let (Some(workers), Some(bit)) = (self.serving.get(port.get()), 1u64.checked_shl(worker as u32))
        else {
            return;
        };
        if serves {
            workers.fetch_or(bit, Ordering::Relaxed);
        } else {
            workers.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Copies a packet that leaves by `port` into the inbox of a worker that has a queue of `device`.
    #[must_use]
    pub fn give(&self, port: PortSlot, device: PortSlot, packet: &[u8]) -> Given {
        let workers = self
            .serving
            .get(device.get())
            .map_or(0, |workers| workers.load(Ordering::Relaxed));
        let worker = workers.trailing_zeros() as usize;
        let Some(inbox) = self.inboxes.get(worker) else {
            return Given::Nobody;
        };
        if inbox.is_full() {
            return Given::Full;
        }
        let mut parcel = Parcel {
            port,
            device,
            length_bytes: packet.len() as u16,
            bytes: [0; PARCEL_BYTES],
        };
        let Some(room) = parcel.bytes.get_mut(..packet.len()) else {
            return Given::Full;
        };
        room.copy_from_slice(packet);
        match inbox.push(parcel) {
            Ok(()) => Given::To(worker),
            Err(_) => Given::Full,
        }
    }

    /// Whether the inbox of `worker` is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self, worker: usize) -> bool {
        self.inboxes.get(worker).is_none_or(ArrayQueue::is_empty)
    }

    /// Takes a packet out of the inbox of `worker`.
    #[must_use]
    pub fn take(&self, worker: usize) -> Option<Parcel> {
        self.inboxes.get(worker)?.pop()
    }

    /// Wakes the workers of these bits, which were given something.
    pub fn wake(&self, workers: u64) {
        for (worker, waker) in self.wakers.iter().enumerate() {
            if workers >> worker & 1 != 0
                && let Some(waker) = waker.get()
            {
                waker.wake();
            }
        }
    }
}
