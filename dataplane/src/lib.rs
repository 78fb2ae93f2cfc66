//! The packet path of Penstock.

pub mod xsk;
