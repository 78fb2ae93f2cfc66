//! Reassembly of IP fragments that are for the gateway itself: ESP and UDP-encapsulated ESP that the way cut
//! (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Whatever arrives, it is bounded: all memory is had at the start, a datagram has one slot and a slot has a deadline,
//! and no step takes longer than a look at every slot or a pass over one fragment. Fragments that overlap spoil their
//! whole datagram (RFC 5722). The newest datagrams win: when all slots are taken the oldest gives way, for the
//! fragments of an honest datagram follow each other closely, and an attacker who can fill the table must not be able
//! to keep it full.
//!
//! ```text
//! a slot's buffer:   | room for the header | payload, at most limits.datagram_bytes |
//!                      header right-aligned ^ so that the whole packet is one slice
//! ```

mod slot;
mod table;

pub use slot::Error;
pub use table::{Discarded, Limits, Reassembly, Whole};
