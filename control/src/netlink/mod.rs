//! The kernel's links, addresses, neighbours and routes, kept in step over rtnetlink.
//!
//! ```text
//!  kernel --multicast--> event socket --+
//!                                       +--> Tables --project--> plane::Desired
//!  kernel <--dump, requests--> request socket
//! ```
//!
//! When the kernel could not queue an event (`ENOBUFS`), everything is dumped anew while further events
//! wait in the socket; the dump replaces the tables whole, and what differs is told.

mod address;
mod host_route;
mod link;
mod mirror;
mod neighbour;
mod projection;
mod route;
mod socket;
mod tables;

pub use host_route::HostRoute;
pub use mirror::{Mirror, RESYNC_BOUNDS_MS, Statistics};
pub use projection::{InterfaceRole, Scope};
pub(crate) use socket::{Frame, frames};

/// The protocol number of the kernel routes that are ours (`ip route show proto 181`).
pub const ROUTE_PROTOCOL: u8 = 0xb5;
