//! ESP transforms in batches: seal and open in place.
//!
//! A caller expands a key once ([`SealKey`], [`OpenKey`]), fills a batch of [`SealJob`]s or [`OpenJob`]s
//! (each a key, a packet from its ESP header to the end of its ICV, and a 64-bit sequence number) and calls
//! [`seal()`] or [`open()`]. Jobs of different transforms, keys and lengths may share a batch; each gets its
//! own [`Verdict`].

mod algorithm;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod engine;
mod hmac;
mod job;
mod key;
mod material;
mod portable;
mod self_test;

pub use algorithm::{AesKey, Algorithm, ESP_HEADER_BYTES, Hmac, MAX_PACKET_BYTES, Transform};
pub use batch::{open, seal};
pub use engine::Engine;
pub use job::{OpenJob, SealJob, Verdict};
pub use key::{KeyError, OpenKey, SealKey};
pub use self_test::{SelfTestError, self_test, start};
