//! The system calls of one AF_XDP socket: made, given its memory and rings, bound, woken, asked, closed.

use std::{
    ffi::c_int,
    mem::{size_of, zeroed},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
};

use nix::{
    errno::Errno,
    libc::{self, c_void, socklen_t},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{
    queue::{CopyMode, RingSizes, Rings},
    ring::{Consumer, Producer, RingMemory},
    statistics::KernelStatistics,
    sync::{AtomicU32, UnsafeCell},
    umem::{CHUNK_BYTES, Umem},
};

/// `SO_PREFER_BUSY_POLL` and its budget (`asm-generic/socket.h`), which libc does not name for every target.
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// An AF_XDP socket bound to a device's queue. Dropping it closes it.
pub(super) struct XskSocket {
    fd: OwnedFd,
    /// The four rings' mappings, unmapped after the descriptor is closed.
    _maps: [Mapping; 4],
    zero_copy: bool,
}

/// A socket with memory and rings, not bound yet. A failed bind leaves it as it was, to be bound in another mode.
pub(super) struct UnboundSocket {
    fd: OwnedFd,
    maps: [Mapping; 4],
    rings: Rings,
}

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct CallError {
    /// The call, or the option set by it.
    pub call: &'static str,
    /// What the kernel answered.
    pub errno: Errno,
}

impl CallError {
    fn of(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { call, errno }
    }
}

impl UnboundSocket {
    /// Makes the socket, registers the worker's memory as its UMEM and maps its rings.
    pub(super) fn new(umem: &Umem, sizes: &RingSizes) -> Result<Self, CallError> {
        // SAFETY: a plain system call.
        let fd = Errno::result(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })
            .map_err(CallError::of("socket(AF_XDP)"))?;
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let registration = libc::xdp_umem_reg {
            addr: umem.base().as_ptr().addr() as u64,
            len: umem.registered_bytes() as u64,
            chunk_size: CHUNK_BYTES as u32,
            headroom: umem.headroom_bytes(),
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration).map_err(CallError::of("XDP_UMEM_REG"))?;
        set(&fd, libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, &sizes.fill)
            .map_err(CallError::of("XDP_UMEM_FILL_RING"))?;
        set(
            &fd,
            libc::SOL_XDP,
            libc::XDP_UMEM_COMPLETION_RING,
            &sizes.completion,
        )
        .map_err(CallError::of("XDP_UMEM_COMPLETION_RING"))?;
        set(&fd, libc::SOL_XDP, libc::XDP_RX_RING, &sizes.receive).map_err(CallError::of("XDP_RX_RING"))?;
        set(&fd, libc::SOL_XDP, libc::XDP_TX_RING, &sizes.transmit).map_err(CallError::of("XDP_TX_RING"))?;
        let offsets: libc::xdp_mmap_offsets =
            get(&fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS).map_err(CallError::of("XDP_MMAP_OFFSETS"))?;
        let map = |offset: &libc::xdp_ring_offset, page, entries: u32, entry_bytes: usize| {
            let bytes = offset.desc as usize + entries as usize * entry_bytes;
            Mapping::new(&fd, page, bytes).map_err(CallError::of("mmap of a ring"))
        };
        let address = size_of::<u64>();
        let descriptor = size_of::<libc::xdp_desc>();
        let fill = map(
            &offsets.fr,
            libc::XDP_UMEM_PGOFF_FILL_RING as i64,
            sizes.fill,
            address,
        )?;
        let completion = map(
            &offsets.cr,
            libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
            sizes.completion,
            address,
        )?;
        let receive = map(&offsets.rx, libc::XDP_PGOFF_RX_RING, sizes.receive, descriptor)?;
        let transmit = map(&offsets.tx, libc::XDP_PGOFF_TX_RING, sizes.transmit, descriptor)?;
        // SAFETY: the rings were just made, so these are their only ends on this side; the mappings are kept as long as
        // the ends, which leave here only into a PortQueue that drops them before or with the mappings and never uses
        // them after. The offsets are the kernel's, for exactly these mappings.
        let rings = unsafe {
            Rings {
                fill: Producer::new(fill.ring(&offsets.fr, sizes.fill)),
                receive: Consumer::new(receive.ring(&offsets.rx, sizes.receive)),
                transmit: Producer::new(transmit.ring(&offsets.tx, sizes.transmit)),
                completion: Consumer::new(completion.ring(&offsets.cr, sizes.completion)),
            }
        };
        Ok(Self {
            fd,
            maps: [fill, completion, receive, transmit],
            rings,
        })
    }

    /// Binds to a queue of a device in just this mode.
    pub(super) fn try_bind(&self, ifindex: u32, queue: u32, mode: CopyMode) -> Result<(), Errno> {
        let mode_flag = match mode {
            CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
            CopyMode::Copy | CopyMode::Memory => libc::XDP_COPY,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: mode_flag | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address is valid for the size given.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_xdp>() as socklen_t,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Once bound: the socket, with what was granted read back, and our ends of its rings.
    pub(super) fn bound(self) -> Result<(XskSocket, Rings), CallError> {
        let options: libc::xdp_options =
            get(&self.fd, libc::SOL_XDP, libc::XDP_OPTIONS).map_err(CallError::of("XDP_OPTIONS"))?;
        let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok((
            XskSocket {
                fd: self.fd,
                _maps: self.maps,
                zero_copy,
            },
            self.rings,
        ))
    }
}

impl XskSocket {
    pub(super) fn copy_mode(&self) -> CopyMode {
        if self.zero_copy {
            CopyMode::ZeroCopy
        } else {
            CopyMode::Copy
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn wake_receive(&self) -> Result<(), Errno> {
        // SAFETY: no buffer is passed, and none is written to: AF_XDP's recvmsg only wakes the driver.
        let result = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        Errno::result(result).map(drop)
    }

    pub(super) fn wake_transmit(&self) -> Result<(), Errno> {
        // SAFETY: no buffer and no address is passed.
        let result = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null(),
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    pub(super) fn statistics(&self) -> Result<KernelStatistics, Errno> {
        let read: libc::xdp_statistics = get(&self.fd, libc::SOL_XDP, libc::XDP_STATISTICS)?;
        Ok(KernelStatistics {
            receive_dropped: read.rx_dropped,
            receive_invalid_descriptors: read.rx_invalid_descs,
            transmit_invalid_descriptors: read.tx_invalid_descs,
            receive_ring_full: read.rx_ring_full,
            fill_ring_empty: read.rx_fill_ring_empty_descs,
            transmit_ring_empty: read.tx_ring_empty_descs,
        })
    }

    /// Lets system calls on the socket drive the device instead of its interrupts, or not.
    pub(super) fn prefer_busy_poll(&self, prefer: bool, duration_us: u32, budget: u32) -> Result<(), Errno> {
        set(
            &self.fd,
            libc::SOL_SOCKET,
            SO_PREFER_BUSY_POLL,
            &c_int::from(prefer),
        )?;
        let duration_us = if prefer {
            duration_us.min(1 << 20) as c_int
        } else {
            0
        };
        set(&self.fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &duration_us)?;
        if prefer {
            set(
                &self.fd,
                libc::SOL_SOCKET,
                SO_BUSY_POLL_BUDGET,
                &(budget.min(1 << 15) as c_int),
            )?;
        }
        Ok(())
    }
}

/// A ring's mapping.
struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the mapping is only an address and a length here; access goes through the ends of the ring.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, page_offset: i64, bytes: usize) -> Result<Self, Errno> {
        let length = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
                fd,
                page_offset,
            )
        }?;
        Ok(Self { base, bytes })
    }

    /// # Safety
    ///
    /// The offsets are those the kernel gave for this mapping, and `entries` the ring's size as it was set.
    unsafe fn ring<T>(&self, offset: &libc::xdp_ring_offset, entries: u32) -> RingMemory<T> {
        let index = |at: u64| -> NonNull<AtomicU32> {
            // SAFETY: within the mapping, and aligned, by the kernel's word.
            unsafe { self.base.byte_add(at as usize).cast() }
        };
        // SAFETY: as above.
        let first: NonNull<UnsafeCell<T>> = unsafe { self.base.byte_add(offset.desc as usize).cast() };
        RingMemory {
            producer: index(offset.producer),
            consumer: index(offset.consumer),
            flags: index(offset.flags),
            entries: first,
            mask: entries - 1,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, unmapped once; the ends of its ring are gone with the queue that had both.
        if let Err(error) = unsafe { munmap(self.base, self.bytes) } {
            tracing::error!(%error, "a ring cannot be unmapped");
        }
    }
}

fn set<T: Copy>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: the pointer is valid for the size given, and the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            size_of::<T>() as socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// Reads an option. `T` is a struct of integers, for which zeros are valid; a shorter answer of an older kernel leaves
/// the rest zero.
fn get<T: Copy>(fd: &OwnedFd, level: c_int, option: c_int) -> Result<T, Errno> {
    // SAFETY: callers ask for structs of integers only.
    let mut value: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: both pointers are valid, and the kernel writes at most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            ptr::from_mut(&mut value).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).map(|_| value)
}
