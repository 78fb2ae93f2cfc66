//! The local socket behind the command line.
//!
//! A request is a length of four bytes, big end first, and so many bytes of JSON; the answer is a stream of
//! frames of the same form: any number of records, and an end with an exit code. Whoever may connect (the
//! socket's group) may look; root, the daemon's own user and the users of the configuration may also change
//! things. Requests, waiting frames and clients are bounded: a client that is slow is dropped, never waited
//! for.

mod client;
mod protocol;
mod report;
mod server;

pub use client::{Client, ClientError};
pub use protocol::{ExitCode, Frame, Noun, Request, SCHEMA};
pub use report::{Reporter, tunnel_state};
pub use server::{Command, Replies, Role, Server};
