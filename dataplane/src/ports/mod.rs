//! Ports: how network interfaces come under the dataplane, and leave it.
//!
//! The main thread has a [`PortManager`]; it speaks to each [`Worker`](crate::worker::Worker) by its
//! [`Command`](crate::worker::Command)s and [`Report`](crate::worker::Report)s: a
//! [`PortQueue`](crate::xsk::PortQueue) is made by the manager, served by one worker, and given back to be closed.
//!
//! ```text
//!             interface appears          up                 bound          all filled
//!   Absent ---------------------> LinkDown ---> (attach) ---------> Binding ---------> Up
//!     ^                                          | ^ refused, busy: again later         |
//!     |                                          +-+                                    |
//!     +------------------------------- Draining <--------------------------------------+
//!       all queues returned; detach, close        interface gone, socket dead, queues changed, port removed
//! ```
//!
//! Coming up: attach the program (steering nothing yet), bind a socket on every queue, hand them to the workers to be filled,
//! put them in the XSKMAP, and only then let the program steer. Going down: the workers stop sending and return their
//! queues, the program is detached, the sockets are closed, and the frames the kernel had are reclaimed. A link that is
//! only down keeps its sockets: they resume by themselves.
//!
//! A VLAN has no sockets: it comes up under the port that is its parent's, whose program is told to take its packets.

mod manager;
mod offloads;
mod port;
mod vlan;

pub use manager::{PortManager, PortSettings, WorkerEnd};
pub use port::PortView;
