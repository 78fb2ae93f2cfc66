//! The control process of Penstock.

pub mod config;
