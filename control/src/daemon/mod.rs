//! The daemon: one task that owns everything and decides, fed by the sockets and by signals.
//!
//! Nothing here waits for a peer: the dataplane, the kernel and admin clients are each served when they are
//! ready, and the state between is [`crate::plane::Desired`].

mod allowance;
mod answers;
mod connections;
mod endpoint;
mod events;
mod gather;
mod pulse;
mod reload;
mod routing;
mod supervisor;
mod time;
mod watch;

pub use supervisor::{Daemon, LogLevel, Options, StartError};
