//! [`PortQueue`]: one AF_XDP socket on one queue of a port, as its worker sees it.

use std::os::fd::BorrowedFd;

use nix::{errno::Errno, libc};

#[cfg(any(test, feature = "testing"))]
use super::memory::MemoryRings;
use super::{
    custody::Custody,
    frame::Frame,
    pool::FramePool,
    ring::{Consumer, Producer},
    socket::XskSocket,
    statistics::{KernelStatistics, QueueCensus, QueueCounters},
    umem::{CHUNK_BYTES, Umem},
};

/// Which queue of which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId {
    /// The port's number, as the control process gave it.
    pub port: u32,
    /// The queue's index at the device.
    pub queue: u32,
}

/// Entries of the four rings of a socket, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Fill ring. Twice the receive ring, so that it can feed both the driver's ring and ours; it also bounds how many
    /// chunks the kernel has for receiving.
    pub fill: u32,
    /// Receive ring.
    pub receive: u32,
    /// Transmit ring.
    pub transmit: u32,
    /// Completion ring.
    pub completion: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        Self {
            fill: 2048,
            receive: 1024,
            transmit: 1024,
            completion: 1024,
        }
    }
}

impl RingSizes {
    /// The first size that is not a power of two between 1 and 32768, by name.
    pub fn invalid(&self) -> Option<(&'static str, u32)> {
        [
            ("fill", self.fill),
            ("receive", self.receive),
            ("transmit", self.transmit),
            ("completion", self.completion),
        ]
        .into_iter()
        .find(|&(_, size)| !size.is_power_of_two() || size > 32768)
    }
}

/// How the socket exchanges packets with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// The device reads and writes the UMEM.
    ZeroCopy,
    /// The kernel copies.
    Copy,
    /// No kernel: the rings of a test.
    Memory,
}

/// What the last calls to the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is wrong.
    Alive,
    /// The device is down (ENETDOWN). It comes back on the same socket.
    LinkDown,
    /// The socket has lost its device for ever (ENXIO): close it and bind a new one.
    Dead,
}

/// What is on the other side of the rings.
pub(super) enum Backing {
    Socket(XskSocket),
    #[cfg(any(test, feature = "testing"))]
    Memory(std::sync::Arc<MemoryRings>),
}

/// One AF_XDP socket on one queue of a port, in the hands of one worker.
///
/// A turn of the worker: [`complete`](Self::complete), [`receive`](Self::receive), its stages, [`push`](Self::push) for
/// each packet that leaves here, then [`refill`](Self::refill) and [`wake`](Self::wake). None of them blocks, and only
/// `wake` makes system calls, and only when the device sleeps.
///
/// Packets in several chunks (`XDP_PKT_CONTD`) are dropped whole and counted. The sockets do not ask for them
/// (`XDP_USE_SG`), so a kernel never delivers any: it drops packets longer than
/// [`Umem::packet_capacity_bytes`] itself, under `receive_dropped`. A packet of one chunk is what lets the cipher work in
/// place, and 3.7 kB is more than any path this gateway serves; drivers offer several chunks in zero-copy mode only on
/// few NICs.
pub struct PortQueue<'u> {
    id: QueueId,
    umem: &'u Umem,
    fill: Producer<u64>,
    receive: Consumer<libc::xdp_desc>,
    transmit: Producer<libc::xdp_desc>,
    completion: Consumer<u64>,
    /// Chunks given to the kernel to receive into.
    receiving: Custody<'u>,
    /// Chunks given to the kernel to send.
    sending: Custody<'u>,
    /// How many chunks the kernel should have to receive into.
    fill_target: u32,
    /// In the middle of a packet of several chunks, which is being dropped.
    in_fragments: bool,
    health: Health,
    counters: QueueCounters,
    /// Last, for it unmaps the rings.
    backing: Backing,
}

impl<'u> PortQueue<'u> {
    /// The rings are ends of the backing's, and of no other queue.
    pub(super) fn assemble(
        id: QueueId,
        umem: &'u Umem,
        rings: Rings,
        fill_target: u32,
        backing: Backing,
    ) -> Option<Self> {
        let (receiving, sending) = umem.custody_pair()?;
        let Rings {
            fill,
            receive,
            transmit,
            completion,
        } = rings;
        Some(Self {
            id,
            umem,
            fill,
            receive,
            transmit,
            completion,
            receiving,
            sending,
            fill_target,
            in_fragments: false,
            health: Health::Alive,
            counters: QueueCounters::default(),
            backing,
        })
    }

    /// Which queue this is.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// The UMEM whose frames it moves.
    pub fn umem(&self) -> &'u Umem {
        self.umem
    }

    /// Gives at most `max` received packets to `sink` and says how many they were.
    #[inline]
    pub fn receive(&mut self, max: usize, mut sink: impl FnMut(Frame<'u>)) -> usize {
        let mut count = 0;
        while count < max {
            let Some(descriptor) = self.receive.take() else {
                break;
            };
            let chunk = (descriptor.addr / CHUNK_BYTES as u64).min(u64::from(u32::MAX)) as u32;
            let start = descriptor.addr as usize % CHUNK_BYTES;
            let Some(frame) = self.receiving.claim(chunk, start, descriptor.len as usize) else {
                self.counters.foreign_descriptors += 1;
                continue;
            };
            if descriptor.options & libc::XDP_PKT_CONTD != 0 || self.in_fragments {
                self.drop_fragment(frame, descriptor.options);
                continue;
            }
            sink(frame);
            count += 1;
        }
        self.receive.release();
        #[cfg(any(test, feature = "testing"))]
        if count == 0
            && let Backing::Memory(rings) = &self.backing
        {
            rings.calm();
        }
        self.counters.received_packets += count as u64;
        count
    }

    #[cold]
    fn drop_fragment(&mut self, frame: Frame<'u>, options: u32) {
        if !self.in_fragments {
            self.counters.fragmented_packets += 1;
        }
        self.in_fragments = options & libc::XDP_PKT_CONTD != 0;
        // Straight back to the kernel. There is a place, for the fill ring has one for every chunk that is receiving,
        // unless a driver delivered a chunk that it left in the fill ring: that one is there already.
        let chunk = self.receiving.surrender(frame);
        if !self.fill.stage(u64::from(chunk) * CHUNK_BYTES as u64) {
            self.counters.foreign_descriptors += 1;
        }
        self.fill.publish();
    }

    /// Puts one packet on the transmit ring; the device sees it after [`wake`](Self::wake) or
    /// [`submit`](Self::submit). The frame comes back when the ring is full, or when it is empty of bytes, which the
    /// kernel would swallow without a completion.
    #[inline]
    pub fn push(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        if frame.is_empty() {
            return Err(frame);
        }
        let Some(chunk) = self.umem.chunk_index(frame.chunk()) else {
            return Err(frame);
        };
        let descriptor = libc::xdp_desc {
            addr: u64::from(chunk) * CHUNK_BYTES as u64 + frame.headroom() as u64,
            len: frame.len() as u32,
            options: 0,
        };
        if !self.transmit.stage(descriptor) {
            self.counters.transmit_full += 1;
            return Err(frame);
        }
        self.sending.surrender(frame);
        Ok(())
    }

    /// Sends packets from the front and says how many the ring took; the others stay in `frames`, in order.
    pub fn transmit(&mut self, frames: &mut Vec<Frame<'u>>) -> usize {
        let mut room = self.transmit.free();
        let mut accepted = 0;
        let fitting = frames.extract_if(.., |frame| {
            let fits = room != 0 && !frame.is_empty();
            room -= u32::from(fits);
            fits
        });
        for frame in fitting {
            match self.push(frame) {
                Ok(()) => accepted += 1,
                Err(_) => debug_assert!(false, "there was room"),
            }
        }
        self.counters.transmit_full += frames.len() as u64;
        self.submit();
        accepted
    }

    /// Shows the pushed packets to the device without waking it.
    #[inline]
    pub fn submit(&mut self) {
        self.counters.transmitted_packets += u64::from(self.transmit.publish());
    }

    /// Returns every frame that has been sent to the pool and says how many they were.
    #[inline]
    pub fn complete(&mut self, pool: &mut FramePool<'u>) -> usize {
        let mut count = 0;
        while let Some(address) = self.completion.take() {
            let chunk = (address / CHUNK_BYTES as u64).min(u64::from(u32::MAX)) as u32;
            if pool.take_back(chunk, &mut self.sending) {
                count += 1;
            } else {
                self.counters.foreign_descriptors += 1;
            }
        }
        self.completion.release();
        self.counters.completed_packets += count as u64;
        count
    }

    /// Gives the kernel chunks to receive into, up to this queue's target or the pool's reserve, and says how many.
    #[inline]
    pub fn refill(&mut self, pool: &mut FramePool<'u>) -> usize {
        let mut count = 0;
        while self.receiving.count() < self.fill_target {
            let Some(chunk) = pool.lend(&mut self.receiving) else {
                break;
            };
            if !self.fill.stage(u64::from(chunk) * CHUNK_BYTES as u64) {
                pool.take_back(chunk, &mut self.receiving);
                break;
            }
            count += 1;
        }
        self.fill.publish();
        count
    }

    /// Submits what was pushed and wakes the device where it sleeps and has something to do.
    #[inline]
    pub fn wake(&mut self) {
        self.submit();
        if self.fill.needs_wakeup() {
            self.wake_receive();
        }
        if self.transmit.needs_wakeup() && self.transmit.pending() != 0 {
            self.wake_transmit();
        }
    }

    /// Wakes the device whether it says that it sleeps or not: once in a while, against drivers that forget to say so.
    pub fn nudge(&mut self) {
        self.submit();
        self.wake_receive();
        if self.transmit.pending() != 0 {
            self.wake_transmit();
        }
    }

    fn wake_receive(&mut self) {
        self.counters.receive_wakeups += 1;
        let result = match &self.backing {
            Backing::Socket(socket) => socket.wake_receive(),
            #[cfg(any(test, feature = "testing"))]
            Backing::Memory(rings) => rings.wake_receive(),
        };
        self.judge(result);
    }

    fn wake_transmit(&mut self) {
        // In copy mode a call sends 32 packets (TX_BATCH_SIZE) and answers EAGAIN when more are left; go on while it
        // helps, within bounds, for the completions must be drained as well.
        for _ in 0..8 {
            let before = self.transmit.pending();
            if before == 0 {
                break;
            }
            self.counters.transmit_wakeups += 1;
            let result = match &self.backing {
                Backing::Socket(socket) => socket.wake_transmit(),
                #[cfg(any(test, feature = "testing"))]
                Backing::Memory(rings) => rings.wake_transmit(),
            };
            if !self.judge(result) || self.transmit.pending() >= before {
                break;
            }
        }
    }

    /// Draws conclusions from a system call; false when there is no sense in calling again now.
    fn judge(&mut self, result: Result<(), Errno>) -> bool {
        match result {
            Ok(()) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS | Errno::EINTR) => {
                self.health = Health::Alive;
                true
            }
            Err(Errno::ENETDOWN) => {
                // A device that goes away says this once before ENXIO; one that is only down says this until it is up.
                self.counters.failed_wakeups += 1;
                self.health = Health::LinkDown;
                false
            }
            Err(Errno::ENXIO | Errno::EBADF | Errno::ENODEV) => {
                self.counters.failed_wakeups += 1;
                self.health = Health::Dead;
                false
            }
            Err(_) => {
                self.counters.failed_wakeups += 1;
                false
            }
        }
    }

    /// Whether the socket has lost its device for ever.
    pub fn has_died(&self) -> bool {
        self.health == Health::Dead
    }

    /// What the last calls to the kernel told.
    pub fn health(&self) -> Health {
        self.health
    }

    /// What was granted, read back from the socket. With XDP attached in generic mode the kernel may say zero-copy
    /// wrongly: see [`Granted`](super::bind::Granted) for both together.
    pub fn copy_mode(&self) -> CopyMode {
        match &self.backing {
            Backing::Socket(socket) => socket.copy_mode(),
            #[cfg(any(test, feature = "testing"))]
            Backing::Memory(_) => CopyMode::Memory,
        }
    }

    /// What the queue did.
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    /// What the kernel counted.
    pub fn kernel_statistics(&self) -> Result<KernelStatistics, Errno> {
        match &self.backing {
            Backing::Socket(socket) => socket.statistics(),
            #[cfg(any(test, feature = "testing"))]
            Backing::Memory(rings) => Ok(rings.statistics()),
        }
    }

    /// Packets waiting in the receive ring.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.receive.waiting() as usize
    }

    /// Packets accepted for sending whose frames have not come back.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.sending.count() as usize
    }

    /// Chunks the kernel has for receiving.
    pub fn receiving(&self) -> usize {
        self.receiving.count() as usize
    }

    /// Changes how many chunks the kernel should have to receive into; at most the fill ring's size.
    pub fn set_fill_target(&mut self, chunks: u32) {
        self.fill_target = chunks.min(self.fill.size());
    }

    /// Where this queue's chunks are. Exact when the kernel is quiet; otherwise each number is of a slightly different
    /// moment, but their sum is always exact.
    pub fn census(&self) -> QueueCensus {
        let (receiving, sending) = (self.receiving.count(), self.sending.count());
        let fill = self.fill.pending().min(receiving);
        let receive = self.receive.waiting().min(receiving - fill);
        let transmit = (self.transmit.pending() + self.transmit.staged()).min(sending);
        let completion = self.completion.waiting().min(sending - transmit);
        QueueCensus {
            fill,
            kernel_receiving: receiving - fill - receive,
            receive,
            transmit,
            kernel_sending: sending - transmit - completion,
            completion,
        }
    }

    /// Lets this socket's system calls drive the device instead of its interrupts (`SO_PREFER_BUSY_POLL`), or not any
    /// more. Refused in copy mode, where some kernels then never send (fixed by 8de8b71b); and not for every driver in zero-copy
    /// mode either: the kernel then polls the interrupt vector of the receive queue and wakes no other (`xsk_no_wakeup`), so that
    /// where transmit has a vector of its own (igb with four queues, virtio) nothing is sent any more.
    /// [`Watch`](super::watch::Watch) sees that and switches it off.
    pub fn set_busy_poll(&self, prefer: bool, duration_us: u32, budget: u32) -> Result<(), Errno> {
        match &self.backing {
            Backing::Socket(_) if prefer && self.copy_mode() != CopyMode::ZeroCopy => Err(Errno::EOPNOTSUPP),
            Backing::Socket(socket) => socket.prefer_busy_poll(prefer, duration_us, budget),
            #[cfg(any(test, feature = "testing"))]
            Backing::Memory(_) => Ok(()),
        }
    }

    /// The descriptor to wait on for received packets (`POLLIN` only: waiting for room to send would never sleep).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.backing {
            Backing::Socket(socket) => socket.as_fd(),
            #[cfg(any(test, feature = "testing"))]
            Backing::Memory(rings) => rings.as_fd(),
        }
    }

    /// Closes the socket. What the kernel had stays out of use until [`ClosedQueue::reclaim`].
    pub fn close(self) -> ClosedQueue<'u> {
        let settles_slowly = self.copy_mode() == CopyMode::ZeroCopy && !self.has_died();
        drop(self.backing);
        ClosedQueue {
            id: self.id,
            receiving: self.receiving,
            sending: self.sending,
            settles_slowly,
        }
    }
}

impl std::fmt::Debug for PortQueue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortQueue")
            .field("id", &self.id)
            .field("health", &self.health)
            .field("census", &self.census())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// What is left of a queue whose socket is closed: the chunks the kernel had.
#[derive(Debug)]
#[must_use = "its chunks are lost unless reclaimed"]
pub struct ClosedQueue<'u> {
    id: QueueId,
    receiving: Custody<'u>,
    sending: Custody<'u>,
    settles_slowly: bool,
}

impl<'u> ClosedQueue<'u> {
    /// Which queue this was.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Chunks to reclaim.
    pub fn chunks(&self) -> u32 {
        self.receiving.count() + self.sending.count()
    }

    /// Whether the device may still write to the chunks for a while: the kernel takes a zero-copy UMEM from the driver
    /// in a work item after the socket is closed (`xp_release_deferred`), and says EBUSY to a new bind until then. In
    /// copy mode, and when the device is gone, nothing touches them any more once the socket is closed.
    pub fn settles_slowly(&self) -> bool {
        self.settles_slowly
    }

    /// Returns all chunks to the pool and says how many they were. See [`ClosedQueue::settles_slowly`].
    pub fn reclaim(mut self, pool: &mut FramePool<'u>) -> u32 {
        let mut count = 0;
        for custody in [&mut self.receiving, &mut self.sending] {
            for chunk in custody.chunks() {
                count += u32::from(pool.take_back(chunk, custody));
            }
        }
        count
    }
}

/// Our ends of a socket's four rings.
pub(super) struct Rings {
    pub(super) fill: Producer<u64>,
    pub(super) receive: Consumer<libc::xdp_desc>,
    pub(super) transmit: Producer<libc::xdp_desc>,
    pub(super) completion: Consumer<u64>,
}
