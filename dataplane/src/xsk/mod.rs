//! AF_XDP: packet memory, rings, sockets. Knows no protocol.
//!
//! | file | is |
//! |---|---|
//! | `umem` | [`Umem`], the memory of one worker and the table of who has which chunk |
//! | `frame` | [`Frame`], the one right to touch a chunk |
//! | `custody` | how chunks become frames and frames chunks: where a frame's uniqueness is kept |
//! | `pool` | [`FramePool`], the free chunks of a worker |
//! | `ring` | one ring between two sides, indices apart from system calls |
//! | `socket` | the system calls of one AF_XDP socket |
//! | `queue` | [`PortQueue`], four rings and a socket in the hands of a worker |
//! | `statistics` | what is counted, and where a queue's chunks are |
//! | `bind` | binding a queue, best mode first |
//! | `ethtool` | queues and offloads of a device |
//! | `wait` | sleeping without packets |
//! | `watch` | sees a queue that stands still |
//! | `memory` | the same rings without a kernel (feature `testing`) |
//!
//! A chunk goes round like this, and is always in exactly one of these places:
//!
//! ```text
//!            refill                     receive
//!   pool ------------> fill > kernel > rx ----------> worker (Frame)
//!    ^ ^                                                |  |
//!    | |            complete                       push |  | drop (put)
//!    | +-------- completion < kernel < tx <-------------+  |
//!    +-----------------------------------------------------+
//! ```
//!
//! The rings are this crate's own and not xsk-rs's: `docs/dependencies.md` says which features that needs.

// The one place of this crate where memory is shared with the kernel.
#![allow(unsafe_code)]

mod bind;
mod custody;
pub mod ethtool;
mod frame;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod pool;
mod queue;
mod ring;
mod socket;
mod statistics;
mod sync;
mod umem;
mod wait;
mod watch;

pub use bind::{AttachMode, BindError, BindRequest, CopyPolicy, Granted};
pub use frame::Frame;
pub use pool::FramePool;
pub use queue::{ClosedQueue, CopyMode, Health, PortQueue, QueueId, RingSizes};
pub use socket::CallError;
pub use statistics::{KernelStatistics, QueueCensus, QueueCounters};
pub use umem::{
    CHUNK_BYTES, KERNEL_HEADROOM_BYTES, MAX_FRAME_COUNT, Pages, Tally, Umem, UmemConfig, UmemError,
};
pub use wait::{Sleeper, Waker, Woken};
pub use watch::{Remedy, Watch};
