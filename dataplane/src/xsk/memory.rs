//! The rings without a kernel: packets go in and come out by hand, and faults are played on purpose.
//!
//! [`pair`] gives a [`PortQueue`], which is the very one a worker uses, and a [`MemoryKernel`], which does with the other
//! ends of its rings what the kernel and a device do: takes chunks from the fill ring, writes packets into them behind
//! the headroom, takes what is sent and completes it, sleeps and wants to be woken.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
};

use nix::{
    errno::Errno,
    libc,
    sys::eventfd::{EfdFlags, EventFd},
};

use super::{
    queue::{Backing, PortQueue, QueueId, RingSizes, Rings},
    ring::{Consumer, HeapRing, Producer},
    statistics::KernelStatistics,
    umem::{CHUNK_BYTES, Umem},
};

const NO_DESCRIPTOR: libc::xdp_desc = libc::xdp_desc {
    addr: 0,
    len: 0,
    options: 0,
};

/// What both sides of a queue in memory share.
pub(super) struct MemoryRings {
    fill: HeapRing<u64>,
    receive: HeapRing<libc::xdp_desc>,
    transmit: HeapRing<libc::xdp_desc>,
    completion: HeapRing<u64>,
    readable: EventFd,
    /// Whether something was written to `readable`.
    unread: AtomicBool,
    /// What system calls answer; zero is success.
    answer: AtomicI32,
    receive_woken: AtomicBool,
    transmit_woken: AtomicBool,
    receive_ring_full: AtomicU64,
    fill_ring_empty: AtomicU64,
    receive_dropped: AtomicU64,
    transmit_invalid: AtomicU64,
}

impl MemoryRings {
    pub(super) fn wake_receive(&self) -> Result<(), Errno> {
        self.answer()?;
        self.receive_woken.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn wake_transmit(&self) -> Result<(), Errno> {
        self.answer()?;
        self.transmit_woken.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn statistics(&self) -> KernelStatistics {
        KernelStatistics {
            receive_dropped: self.receive_dropped.load(Ordering::Relaxed),
            receive_ring_full: self.receive_ring_full.load(Ordering::Relaxed),
            fill_ring_empty: self.fill_ring_empty.load(Ordering::Relaxed),
            transmit_invalid_descriptors: self.transmit_invalid.load(Ordering::Relaxed),
            ..KernelStatistics::default()
        }
    }

    /// The worker has seen the receive ring empty: nothing is readable until the next packet.
    pub(super) fn calm(&self) {
        if self.unread.swap(false, Ordering::AcqRel) {
            let _ = self.readable.read();
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    fn answer(&self) -> Result<(), Errno> {
        match self.answer.load(Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }
}

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The worker gave no chunk to receive into.
    FillRingEmpty,
    /// The worker does not keep up.
    ReceiveRingFull,
    /// The packet is empty or longer than a chunk has room.
    Length,
    /// The device sleeps until it is woken.
    Asleep,
}

/// The other side of a [`PortQueue`]: the kernel and the device with its wire.
pub struct MemoryKernel<'u> {
    umem: &'u Umem,
    fill: Consumer<u64>,
    receive: Producer<libc::xdp_desc>,
    transmit: Consumer<libc::xdp_desc>,
    completion: Producer<u64>,
    shared: Arc<MemoryRings>,
    sleeps: bool,
    hold_transmit: bool,
    hold_completions: bool,
    starve_fill: bool,
    /// Sent, not completed yet.
    uncompleted: std::collections::VecDeque<u64>,
}

/// A queue in memory, and its other side. `None` when the UMEM has no more custodies: it has 127 queues.
pub fn pair<'u>(umem: &'u Umem, id: QueueId, sizes: &RingSizes) -> Option<(PortQueue<'u>, MemoryKernel<'u>)> {
    pair_from(umem, id, sizes, 0)
}

/// The same with ring indices that start at `start`, to try their wrap.
pub fn pair_from<'u>(
    umem: &'u Umem,
    id: QueueId,
    sizes: &RingSizes,
    start: u32,
) -> Option<(PortQueue<'u>, MemoryKernel<'u>)> {
    let shared = Arc::new(MemoryRings {
        fill: HeapRing::new(sizes.fill, start, 0),
        receive: HeapRing::new(sizes.receive, start, NO_DESCRIPTOR),
        transmit: HeapRing::new(sizes.transmit, start, NO_DESCRIPTOR),
        completion: HeapRing::new(sizes.completion, start, 0),
        readable: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).ok()?,
        unread: AtomicBool::new(false),
        answer: AtomicI32::new(0),
        receive_woken: AtomicBool::new(false),
        transmit_woken: AtomicBool::new(false),
        receive_ring_full: AtomicU64::new(0),
        fill_ring_empty: AtomicU64::new(0),
        receive_dropped: AtomicU64::new(0),
        transmit_invalid: AtomicU64::new(0),
    });
    // SAFETY: the rings are fresh and these are the only ends on this side; the queue keeps the Arc, hence the rings.
    let rings = unsafe {
        Rings {
            fill: Producer::new(shared.fill.memory()),
            receive: Consumer::new(shared.receive.memory()),
            transmit: Producer::new(shared.transmit.memory()),
            completion: Consumer::new(shared.completion.memory()),
        }
    };
    let queue = PortQueue::assemble(id, umem, rings, sizes.fill, Backing::Memory(shared.clone()))?;
    // SAFETY: the only ends on the other side, kept with an Arc of their rings.
    let kernel = unsafe {
        MemoryKernel {
            umem,
            fill: Consumer::new(shared.fill.memory()),
            receive: Producer::new(shared.receive.memory()),
            transmit: Consumer::new(shared.transmit.memory()),
            completion: Producer::new(shared.completion.memory()),
            shared,
            sleeps: false,
            hold_transmit: false,
            hold_completions: false,
            starve_fill: false,
            uncompleted: std::collections::VecDeque::new(),
        }
    };
    Some((queue, kernel))
}

impl MemoryKernel<'_> {
    /// A packet arrives.
    pub fn deliver(&mut self, packet: &[u8]) -> Result<(), Undelivered> {
        self.deliver_chunk(packet, 0)
    }

    /// A packet arrives in several chunks.
    pub fn deliver_fragments(&mut self, fragments: &[&[u8]]) -> Result<(), Undelivered> {
        for (index, fragment) in fragments.iter().enumerate() {
            let more = index + 1 < fragments.len();
            self.deliver_chunk(fragment, if more { libc::XDP_PKT_CONTD } else { 0 })?;
        }
        Ok(())
    }

    fn deliver_chunk(&mut self, packet: &[u8], options: u32) -> Result<(), Undelivered> {
        if self.sleeps && !self.shared.receive_woken.load(Ordering::Acquire) {
            return Err(Undelivered::Asleep);
        }
        if packet.is_empty() || packet.len() > self.umem.packet_capacity_bytes() {
            self.shared.receive_dropped.fetch_add(1, Ordering::Relaxed);
            return Err(Undelivered::Length);
        }
        if self.receive.free() == 0 {
            self.shared.receive_ring_full.fetch_add(1, Ordering::Relaxed);
            return Err(Undelivered::ReceiveRingFull);
        }
        let taken = if self.starve_fill { None } else { self.fill.take() };
        self.fill.release();
        let Some(address) = taken else {
            self.shared.fill_ring_empty.fetch_add(1, Ordering::Relaxed);
            if self.sleeps {
                // A driver that runs out of chunks sleeps until it is told of new ones.
                self.shared.receive_woken.store(false, Ordering::Release);
            }
            return Err(Undelivered::FillRingEmpty);
        };
        let chunk = (address / CHUNK_BYTES as u64) as u32;
        assert!(
            chunk < self.umem.frame_count(),
            "the fill ring holds addresses of this UMEM"
        );
        let start = self.umem.packet_headroom_bytes();
        // SAFETY: the chunk came by the fill ring, so it is ours until it goes into the receive ring; the packet fits
        // behind the headroom as checked above.
        unsafe {
            let place = self.umem.chunk(chunk).add(start);
            std::ptr::copy_nonoverlapping(packet.as_ptr(), place.as_ptr(), packet.len());
        }
        let descriptor = libc::xdp_desc {
            addr: u64::from(chunk) * CHUNK_BYTES as u64 + start as u64,
            len: packet.len() as u32,
            options,
        };
        let staged = self.receive.stage(descriptor);
        assert!(staged, "there was room");
        self.receive.publish();
        // The event is a hint to poll; that it is full already is as good.
        let _ = self.shared.readable.write(1);
        self.shared.unread.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes every packet that was sent, and completes them. Empty while the device sleeps unwoken or is held.
    pub fn collect(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.collect_with(|packet| packets.push(packet.to_vec()));
        packets
    }

    /// Shows every packet that was sent to `look`, then completes them; says how many they were.
    pub fn collect_with(&mut self, mut look: impl FnMut(&[u8])) -> usize {
        if self.hold_transmit || (self.sleeps && !self.shared.transmit_woken.swap(false, Ordering::AcqRel)) {
            return 0;
        }
        let mut count = 0;
        while let Some(descriptor) = self.transmit.take() {
            let chunk = (descriptor.addr / CHUNK_BYTES as u64) as u32;
            let (start, len) = (descriptor.addr as usize % CHUNK_BYTES, descriptor.len as usize);
            if chunk >= self.umem.frame_count() || len == 0 || start + len > CHUNK_BYTES {
                // As the kernel does: consumed, counted, never completed.
                self.shared.transmit_invalid.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // SAFETY: the chunk came by the transmit ring, so nobody else touches it until it is completed; the bounds
            // are checked above.
            let packet =
                unsafe { std::slice::from_raw_parts(self.umem.chunk(chunk).add(start).as_ptr(), len) };
            look(packet);
            self.uncompleted.push_back(descriptor.addr);
            count += 1;
        }
        self.transmit.release();
        self.complete();
        count
    }

    fn complete(&mut self) {
        while !self.hold_completions
            && let Some(&address) = self.uncompleted.front()
            && self.completion.stage(address)
        {
            self.uncompleted.pop_front();
        }
        self.completion.publish();
    }

    /// Whether the device sleeps and must be woken before it receives or sends (`XDP_USE_NEED_WAKEUP`).
    pub fn set_sleeps(&mut self, sleeps: bool) {
        self.sleeps = sleeps;
        self.fill.ask_wakeup(sleeps);
        self.transmit.ask_wakeup(sleeps);
        self.shared.receive_woken.store(false, Ordering::Release);
        self.shared.transmit_woken.store(false, Ordering::Release);
    }

    /// Whether nothing is taken from the transmit ring, so that it fills up.
    pub fn hold_transmit(&mut self, hold: bool) {
        self.hold_transmit = hold;
    }

    /// Whether what is sent is not completed. Released, the completions come at once, as far as their ring has room.
    pub fn hold_completions(&mut self, hold: bool) {
        self.hold_completions = hold;
        self.complete();
    }

    /// Whether the device behaves as if the fill ring were empty.
    pub fn starve_fill(&mut self, starve: bool) {
        self.starve_fill = starve;
    }

    /// What system calls on the socket answer from now on: `ENXIO` for a device that is gone, `ENETDOWN` for one that
    /// is down, `None` for success.
    pub fn set_answer(&mut self, errno: Option<Errno>) {
        self.shared
            .answer
            .store(errno.map_or(0, |errno| errno as i32), Ordering::Relaxed);
    }

    /// A bug of a driver: a received packet at an address that was never given out.
    pub fn deliver_foreign(&mut self, address: u64, len: u32) -> bool {
        let staged = self.receive.stage(libc::xdp_desc {
            addr: address,
            len,
            options: 0,
        });
        self.receive.publish();
        staged
    }

    /// A bug of a driver: a completion of what was never sent.
    pub fn complete_foreign(&mut self, address: u64) -> bool {
        let staged = self.completion.stage(address);
        self.completion.publish();
        staged
    }

    /// Chunks in the fill ring.
    pub fn fill_waiting(&self) -> usize {
        self.fill.waiting() as usize
    }

    /// Packets in the transmit ring.
    pub fn transmit_waiting(&self) -> usize {
        self.transmit.waiting() as usize
    }
}
