//! The control process of Penstock.

pub mod admin;
pub mod config;
pub mod daemon;
pub mod exporter;
pub mod fpm;
mod ike;
pub mod install;
pub mod netlink;
pub mod plane;
mod watched;
