//! IKEv2 at work: the sockets, time and names of the world into [`ike::Endpoint`], and what it decides into the
//! dataplane, the log and the operator's hands.
//!
//! ```text
//!   UDP 500, 4500 --> Sockets --+                        +--> Books --> Desired --> dataplane
//!   DNS, own addresses ---------+--> Endpoint --events --+--> Journal (log, `show ike`), key log
//!   acquire, limits, commands --+       |                +--> waiting commands
//!                                       +--datagrams--> Sockets, once what they announce is installed
//! ```

mod address;
mod authentication;
mod books;
mod driver;
mod holdings;
mod inherited_peers;
mod journal;
mod key_log;
mod leases;
mod notice;
mod radius;
mod renewal;
mod report;
mod sockets;
mod waiting;

pub(crate) use books::Plane;
pub(crate) use driver::{Driver, Stimulus};
pub(crate) use waiting::{Goal, Waiting};
