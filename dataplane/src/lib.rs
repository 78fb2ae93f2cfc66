//! The packet path of Penstock.

pub mod link_watch;
pub mod sa;
mod sync;
pub mod tables;
pub mod xsk;

pub mod attach;
