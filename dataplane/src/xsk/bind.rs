//! Binding a queue: best mode first, and a clear answer when it cannot be.

use nix::errno::Errno;

use super::{
    queue::{Backing, CopyMode, PortQueue, QueueId, RingSizes},
    socket::{CallError, UnboundSocket},
    umem::Umem,
};

/// Which modes may be tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyPolicy {
    /// Zero-copy, and copy where the driver refuses.
    #[default]
    BestFirst,
    /// Zero-copy or nothing (`require_zero_copy`).
    RequireZeroCopy,
    /// Copy only: for drivers whose zero-copy mode is slow or wrong, and for XDP in generic mode.
    ForceCopy,
}

/// What to bind.
#[derive(Clone, Copy, Debug)]
pub struct BindRequest {
    /// The queue, for its worker.
    pub id: QueueId,
    /// The device's index.
    pub ifindex: u32,
    /// Which modes may be tried.
    pub policy: CopyPolicy,
    /// Sizes of the rings.
    pub rings: RingSizes,
    /// How many chunks the kernel should have to receive into; at most the fill ring's size.
    pub fill_target: u32,
}

/// How the XDP program is attached to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Driver,
    /// In the kernel's generic hook, after the driver has made a socket buffer.
    Generic,
}

/// What a port got: the XDP program's place and the socket's mode together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// How the program is attached.
    pub attach: AttachMode,
    /// What the socket says.
    pub copy: CopyMode,
}

impl Granted {
    /// Whether packets really go without a copy. `XDP_OPTIONS` alone would say so under a generic program as well.
    pub fn is_zero_copy(&self) -> bool {
        self.attach == AttachMode::Driver && self.copy == CopyMode::ZeroCopy
    }
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.attach, self.is_zero_copy()) {
            (AttachMode::Driver, true) => "zero-copy, driver",
            (AttachMode::Driver, false) => "copy, driver",
            (AttachMode::Generic, _) => "copy, generic",
        })
    }
}

/// Why a queue was not bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Another socket has the queue, or the kernel has not finished closing the last one: worth trying again.
    #[error("queue {0} is in use by another AF_XDP socket, or still being released")]
    Busy(u32),
    /// There is no such device now.
    #[error("no such device")]
    NoDevice,
    /// The device is down.
    #[error("the device is down")]
    LinkDown,
    /// The driver refuses zero-copy, and nothing else was allowed.
    #[error("zero-copy is required, but the driver refuses it for queue {queue}: {errno}")]
    NoZeroCopy {
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refuses every mode that was allowed.
    #[error("queue {queue} cannot be bound: {errno}{}", if *errno == Errno::EINVAL { " (no such queue, or an MTU beyond a chunk)" } else { "" })]
    Refused {
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A ring's size is not a power of two up to 32768.
    #[error("the {ring} ring cannot have {entries} entries: a power of two up to 32768 is needed")]
    RingSize {
        /// Which ring.
        ring: &'static str,
        /// What was asked for.
        entries: u32,
    },
    /// One UMEM serves at most 127 queues.
    #[error("too many queues for one worker")]
    TooManyQueues,
    /// The socket itself could not be made.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl BindError {
    /// Whether trying again later can succeed without anything else being changed.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::LinkDown | Self::NoDevice)
    }
}

impl<'u> PortQueue<'u> {
    /// Makes a socket and binds it in the best mode allowed. It neither waits nor retries.
    ///
    /// Order of things, which is not free: attach the XDP program, bind, [`refill`](Self::refill), and put the socket in
    /// the XSKMAP last. igb never receives anything when it is bound, then attached, then filled; and a zero-copy socket
    /// without a program cannot send.
    pub fn bind(umem: &'u Umem, request: &BindRequest) -> Result<Self, BindError> {
        let BindRequest {
            id,
            ifindex,
            policy,
            rings,
            fill_target,
        } = *request;
        if let Some((ring, entries)) = rings.invalid() {
            return Err(BindError::RingSize { ring, entries });
        }
        let unbound = UnboundSocket::new(umem, &rings)?;
        let bind = |mode| unbound.try_bind(ifindex, id.queue, mode);
        let outcome = match policy {
            CopyPolicy::ForceCopy => bind(CopyMode::Copy),
            CopyPolicy::RequireZeroCopy => bind(CopyMode::ZeroCopy),
            CopyPolicy::BestFirst => match bind(CopyMode::ZeroCopy) {
                Err(errno) if !is_about_the_device(errno) => {
                    tracing::debug!(ifindex, queue = id.queue, %errno, "no zero-copy: trying copy");
                    bind(CopyMode::Copy)
                }
                outcome => outcome,
            },
        };
        outcome.map_err(|errno| match errno {
            Errno::EBUSY => BindError::Busy(id.queue),
            Errno::ENODEV | Errno::ENXIO => BindError::NoDevice,
            Errno::ENETDOWN => BindError::LinkDown,
            errno if policy == CopyPolicy::RequireZeroCopy => BindError::NoZeroCopy {
                queue: id.queue,
                errno,
            },
            errno => BindError::Refused {
                queue: id.queue,
                errno,
            },
        })?;
        let (socket, ends) = unbound.bound()?;
        if policy == CopyPolicy::RequireZeroCopy && socket.copy_mode() != CopyMode::ZeroCopy {
            return Err(BindError::NoZeroCopy {
                queue: id.queue,
                errno: Errno::EOPNOTSUPP,
            });
        }
        Self::assemble(
            id,
            umem,
            ends,
            fill_target.min(rings.fill),
            Backing::Socket(socket),
        )
        .ok_or(BindError::TooManyQueues)
    }
}

/// Answers that no other mode would change.
fn is_about_the_device(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EBUSY | Errno::ENODEV | Errno::ENXIO | Errno::ENETDOWN
    )
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::xsk::umem::UmemConfig;

    fn request() -> BindRequest {
        BindRequest {
            id: QueueId { port: 1, queue: 0 },
            ifindex: u32::MAX / 2,
            policy: CopyPolicy::BestFirst,
            rings: RingSizes::default(),
            fill_target: 64,
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_ring() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 64,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut wrong = request();
        wrong.rings.receive = 1000;
        let error = PortQueue::bind(&umem, &wrong).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the receive ring cannot have 1000 entries: a power of two up to 32768 is needed"
        );
        wrong.rings.receive = 65536;
        assert!(matches!(
            PortQueue::bind(&umem, &wrong),
            Err(BindError::RingSize { .. })
        ));
    }

    #[test]
    fn a_device_that_is_not_there_is_worth_waiting_for() {
        let umem = Umem::new(&UmemConfig {
            frame_count: 64,
            ..UmemConfig::default()
        })
        .unwrap();
        let error = PortQueue::bind(&umem, &request()).unwrap_err();
        assert_eq!(error, BindError::NoDevice);
        assert!(error.is_passing());
        assert!(
            !BindError::NoZeroCopy {
                queue: 0,
                errno: Errno::EOPNOTSUPP
            }
            .is_passing()
        );
    }

    #[test]
    fn zero_copy_under_a_generic_program_is_not_zero_copy() {
        let granted = Granted {
            attach: AttachMode::Generic,
            copy: CopyMode::ZeroCopy,
        };
        assert!(!granted.is_zero_copy());
        assert_eq!(granted.to_string(), "copy, generic");
        assert!(
            Granted {
                attach: AttachMode::Driver,
                copy: CopyMode::ZeroCopy
            }
            .is_zero_copy()
        );
    }
}
