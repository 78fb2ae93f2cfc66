//! Packet headers: views and emitters, without allocation, without `unsafe`, for the kernel's XDP
//! program and for user space alike.
//!
//! Every header file has the same shape:
//!
//! - `HEADER_BYTES`: the fixed part's length;
//! - `Header`: a view over `&[u8; HEADER_BYTES]` that a [`Cursor`] handed out. The length was
//!   checked once, when the view was taken, so no accessor can fail and none checks again;
//! - `Packet` (where a payload length is in the header): the view together with its payload, cut to
//!   the length that the header states; made from a slice, never from the XDP program;
//! - `Repr`: the header's meaning as plain values, and `emit`, which writes it into an array of
//!   exactly the right size, so that emitting cannot fail either;
//! - `Error`: what is wrong, one variant a cause, so that a caller can count each under its own
//!   drop reason.
//!
//! Wire numbers (EtherType, protocol, SPI, label) are newtypes with constants: unknown values
//! survive parsing and print as numbers.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod cursor;
pub mod esp;
pub mod ethernet;
pub mod flow;
pub mod fragment;
pub mod gre;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod protocol;
pub mod tcp;
pub mod traffic_class;
pub mod udp;

pub use cursor::{Cursor, SliceCursor};
pub use esp::Spi;
pub use ethernet::{EtherType, MacAddr};
pub use fragment::Fragment;
pub use mpls::{Label, Lse};
pub use protocol::IpProtocol;
pub use traffic_class::{Ecn, TrafficClass};
