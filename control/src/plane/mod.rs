//! The way to the dataplane: what it should hold, and the conversation that makes it so.

mod connection;
mod counters;
mod desired;
mod object;
mod session;

pub use connection::{Backoff, Connection};
pub use counters::{Counters, WorkerBlock};
pub use desired::Desired;
pub use object::Object;
pub use session::{Notice, Phase, Session, SessionError, Welcome};
