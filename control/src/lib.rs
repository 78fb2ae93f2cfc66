//! The control process of Penstock.

pub mod config;
pub mod install;
pub mod netlink;
pub mod plane;
mod watched;
