//! Load tests: numbered, timed packets through a gateway, and what came of them.
//!
//! The source and the sink are AF_PACKET sockets on any interfaces of this machine, in any of its network
//! namespaces, so that one clock stamps both ends. What they can send bounds what can be shown: the
//! [`trial`]'s report says what was really offered, and a search never goes above it.

pub mod frame;
pub mod link;
pub mod plot;
pub mod search;
pub mod summary;
pub mod trial;
