//! Packet headers: views and emitters.
#![no_std]
#![forbid(unsafe_code)]
