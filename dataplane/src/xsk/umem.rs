//! [`Umem`]: the memory of one worker's packets, and who has which chunk of it.

use std::{
    io,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};

use super::{
    custody::{Custody, FIRST_CUSTODY, FREE, HELD},
    pool::FramePool,
};

/// Bytes of a chunk. Not configurable: smaller ones make igb cut packets over 1024 bytes in two without an error, larger
/// ones need hugepages and newer kernels.
pub const CHUNK_BYTES: usize = 4096;

/// What the kernel leaves free before a received packet, beyond the configured headroom (`XDP_PACKET_HEADROOM`).
pub const KERNEL_HEADROOM_BYTES: usize = 256;

/// Most chunks of one UMEM: 4 GiB.
pub const MAX_FRAME_COUNT: u32 = 1 << 20;

const HUGEPAGE_BYTES: usize = 2 << 20;

/// How to make a [`Umem`].
#[derive(Clone, Copy, Debug)]
pub struct UmemConfig {
    /// Chunks, of [`CHUNK_BYTES`] each.
    pub frame_count: u32,
    /// Headroom of received packets beyond [`KERNEL_HEADROOM_BYTES`].
    pub headroom_bytes: u32,
    /// Ask for 2 MiB pages; normal pages are used where there are none.
    pub hugepages: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        // 256 + 128 bytes of headroom: an outer IPv6 header (40), UDP (8), ESP with the longest IV (8 + 16) and sixteen
        // labels (64) leave 248 for what the kernel may put before the packet.
        Self {
            frame_count: 4096,
            headroom_bytes: 128,
            hugepages: false,
        }
    }
}

/// Why a [`Umem`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// `frame_count` is zero or beyond the maximum.
    #[error("frame count {0} is not in 1..={MAX_FRAME_COUNT}")]
    FrameCount(u32),
    /// The headroom leaves no room for a packet.
    #[error("headroom of {0} bytes: at most 1024 is supported")]
    Headroom(u32),
    /// The kernel gave no memory.
    #[error("no memory for {bytes} bytes of packets: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What pages a [`Umem`] lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB pages.
    Huge,
    /// The machine's normal pages.
    Normal,
}

/// The packet memory of one worker, for the life of the process.
///
/// Every chunk has one owner at any time: the pool, a [`Frame`](super::Frame) in somebody's hands, or a queue that gave it to
/// the kernel for receiving or for sending. The table of owners is what makes frames safe: an address that comes back
/// from the kernel becomes a frame only if that very queue had given it out, so not even a wrong driver can make two
/// frames of one chunk.
///
/// Every socket registers this same memory as its own UMEM with the kernel, instead of sharing one registration
/// (`XDP_SHARED_UMEM`): `docs/dependencies.md` says why.
#[derive(Debug)]
pub struct Umem {
    base: NonNull<u8>,
    len: usize,
    frame_count: u32,
    headroom_bytes: u32,
    pages: Pages,
    locked: bool,
    owners: Box<[AtomicU8]>,
    /// Which custody numbers are in use.
    custodies: Mutex<[bool; 256]>,
    pub(super) pool_taken: AtomicBool,
}

// SAFETY: the memory is reached only through frames, of which there is one a chunk; the rest is atomics, a mutex and
// values that never change.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

impl Umem {
    /// Maps the memory: zeroed, on the pages asked for if there are any, not part of core dumps (it holds decrypted
    /// packets), and locked if the limit on locked memory allows.
    pub fn new(config: &UmemConfig) -> Result<Self, UmemError> {
        if !(1..=MAX_FRAME_COUNT).contains(&config.frame_count) {
            return Err(UmemError::FrameCount(config.frame_count));
        }
        if config.headroom_bytes > 1024 {
            return Err(UmemError::Headroom(config.headroom_bytes));
        }
        let bytes = config.frame_count as usize * CHUNK_BYTES;
        let (base, len, pages) = map(bytes, config.hugepages).map_err(|error| UmemError::Memory {
            bytes,
            source: io::Error::from(error),
        })?;
        // SAFETY: the mapping made above, all of it; the advice changes no contents.
        if let Err(error) = unsafe { madvise(base.cast(), len, MmapAdvise::MADV_DONTDUMP) } {
            tracing::warn!(%error, "packet memory cannot be kept out of core dumps");
        }
        // SAFETY: as above.
        let locked = unsafe { mlock(base.cast(), len) }.is_ok();
        Ok(Self {
            base,
            len,
            frame_count: config.frame_count,
            headroom_bytes: config.headroom_bytes,
            pages,
            locked,
            owners: (0..config.frame_count).map(|_| AtomicU8::new(FREE)).collect(),
            custodies: Mutex::new([false; 256]),
            pool_taken: AtomicBool::new(false),
        })
    }

    /// The pool that holds every chunk nobody else has. `None` while there is one: the pool belongs to one worker.
    pub fn pool(&self) -> Option<FramePool<'_>> {
        if self.pool_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(FramePool::new(self))
    }

    /// Chunks in all.
    pub fn frame_count(&self) -> u32 {
        self.frame_count
    }

    /// Headroom beyond the kernel's own.
    pub fn headroom_bytes(&self) -> u32 {
        self.headroom_bytes
    }

    /// Headroom of a received packet, and of a fresh frame from the pool.
    pub fn packet_headroom_bytes(&self) -> usize {
        KERNEL_HEADROOM_BYTES + self.headroom_bytes as usize
    }

    /// Longest packet that can be received, Ethernet header included.
    pub fn packet_capacity_bytes(&self) -> usize {
        CHUNK_BYTES - self.packet_headroom_bytes()
    }

    /// What pages were granted.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Whether the memory is locked.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Counts the chunks by owner, from the table alone: the independent side of the conservation check.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for owner in &self.owners {
            match owner.load(Ordering::Relaxed) {
                FREE => tally.free += 1,
                HELD => tally.held += 1,
                custody => {
                    if custody.is_multiple_of(2) {
                        tally.receiving += 1;
                    } else {
                        tally.sending += 1;
                    }
                }
            }
        }
        tally
    }

    /// The mapping's first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes registered with the kernel: whole chunks only.
    pub(super) fn registered_bytes(&self) -> usize {
        self.frame_count as usize * CHUNK_BYTES
    }

    #[inline(always)]
    pub(super) fn owner(&self, chunk: u32) -> Option<&AtomicU8> {
        self.owners.get(chunk as usize)
    }

    /// The first byte of a chunk.
    #[inline(always)]
    pub(super) fn chunk(&self, chunk: u32) -> NonNull<u8> {
        debug_assert!(chunk < self.frame_count);
        // SAFETY: callers have looked the chunk up in the owner table, so it lies in the mapping.
        unsafe { self.base.add(chunk as usize * CHUNK_BYTES) }
    }

    /// Which chunk a pointer to a chunk's first byte means, if it is of this UMEM.
    #[inline(always)]
    pub(super) fn chunk_index(&self, chunk: NonNull<u8>) -> Option<u32> {
        let offset = chunk.as_ptr().addr().wrapping_sub(self.base.as_ptr().addr());
        (offset < self.registered_bytes()).then_some((offset / CHUNK_BYTES) as u32)
    }

    /// Two fresh custodies, for what a queue has given to the kernel for receiving (even number) and for sending (odd).
    pub(super) fn custody_pair(&self) -> Option<(Custody<'_>, Custody<'_>)> {
        let mut used = self.custodies.lock().unwrap_or_else(PoisonError::into_inner);
        let even = (FIRST_CUSTODY as usize..255)
            .step_by(2)
            .find(|&n| !used[n] && !used[n + 1])?;
        used[even] = true;
        used[even + 1] = true;
        Some((
            Custody::new(self, even as u8, 0),
            Custody::new(self, even as u8 + 1, 0),
        ))
    }

    pub(super) fn return_custody(&self, number: u8) {
        self.custodies.lock().unwrap_or_else(PoisonError::into_inner)[number as usize] = false;
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, unmapped once. Frames, pool and queues borrow the UMEM, so none is left.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "packet memory cannot be unmapped");
        }
    }
}

/// Chunks by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the pool.
    pub free: u32,
    /// In somebody's hands as a frame.
    pub held: u32,
    /// Given to the kernel to receive into.
    pub receiving: u32,
    /// Given to the kernel to send.
    pub sending: u32,
}

fn map(bytes: usize, hugepages: bool) -> nix::Result<(NonNull<u8>, usize, Pages)> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
    if hugepages {
        let len = bytes.next_multiple_of(HUGEPAGE_BYTES);
        if let Some(length) = NonZeroUsize::new(len) {
            // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
            match unsafe { mmap_anonymous(None, length, access, flags | MapFlags::MAP_HUGETLB) } {
                Ok(base) => return Ok((base.cast(), len, Pages::Huge)),
                Err(error) => {
                    tracing::warn!(%error, bytes = len, "no hugepages: normal pages are used");
                }
            }
        }
    }
    let length = NonZeroUsize::new(bytes).ok_or(nix::Error::EINVAL)?;
    // SAFETY: as above.
    let base = unsafe { mmap_anonymous(None, length, access, flags) }?;
    Ok((base.cast(), bytes, Pages::Normal))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fault_70_sizes_that_cannot_be_are_refused() {
        let with = |frame_count, headroom_bytes| {
            Umem::new(&UmemConfig {
                frame_count,
                headroom_bytes,
                hugepages: false,
            })
        };
        assert!(matches!(with(0, 0), Err(UmemError::FrameCount(0))));
        assert!(matches!(
            with(MAX_FRAME_COUNT + 1, 0),
            Err(UmemError::FrameCount(_))
        ));
        assert!(matches!(with(1, 1025), Err(UmemError::Headroom(1025))));
        assert_eq!(with(1, 1024).unwrap().packet_capacity_bytes(), 4096 - 256 - 1024);
    }

    #[test]
    fn hugepages_fall_back_to_normal_pages() {
        // 4 GiB of hugepages are not reserved on a machine that runs tests; if they are, that is right as well.
        let umem = Umem::new(&UmemConfig {
            frame_count: 64,
            hugepages: true,
            ..UmemConfig::default()
        })
        .unwrap();
        assert!(umem.len >= 64 * CHUNK_BYTES);
        assert_eq!(umem.base.as_ptr().addr() % CHUNK_BYTES, 0);
    }

    #[test]
    fn is_kept_out_of_core_dumps() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 64,
            ..UmemConfig::default()
        })
        .unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = umem.base.as_ptr().addr();
        let mut inside = false;
        let mut flags = None;
        for line in smaps.lines() {
            if let Some((low, high)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(low), Ok(high)) = (usize::from_str_radix(low, 16), usize::from_str_radix(high, 16))
            {
                inside = (low..high).contains(&start);
            }
            if inside && line.starts_with("VmFlags:") {
                flags = Some(line.to_owned());
            }
        }
        let flags = flags.expect("the mapping is listed");
        assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
    }

    #[test]
    fn one_pool_at_a_time_with_every_free_chunk() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 3,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut pool = umem.pool().unwrap();
        assert!(umem.pool().is_none());
        let frame = pool.take().unwrap();
        assert_eq!(
            umem.tally(),
            Tally {
                free: 2,
                held: 1,
                ..Tally::default()
            }
        );
        drop(pool);
        let mut pool = umem.pool().unwrap();
        assert_eq!(pool.len(), 2);
        pool.put(frame);
        assert_eq!(
            umem.tally(),
            Tally {
                free: 3,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn custodies_run_out_and_come_back() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 1,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut pairs: Vec<_> = std::iter::from_fn(|| umem.custody_pair()).collect();
        assert_eq!(pairs.len(), 127);
        pairs.truncate(100);
        pairs.extend(std::iter::from_fn(|| umem.custody_pair()));
        assert_eq!(pairs.len(), 127);
    }
}
