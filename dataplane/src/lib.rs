//! The packet path of Penstock.

pub mod attach;
pub mod batch;
pub mod config;
pub mod counters;
pub mod fragment;
pub mod handle;
pub mod hold;
pub mod icmp_limit;
pub mod link_watch;
pub mod mss_clamp;
pub mod ports;
pub mod privileges;
pub mod reassembly;
pub mod sa;
pub mod server;
pub mod stage;
pub mod supervisor;
mod sync;
pub mod tables;
pub mod tap;
pub mod worker;
pub mod xsk;
