//! The packet path of Penstock.

pub mod sa;
mod sync;
pub mod tables;
pub mod xsk;
