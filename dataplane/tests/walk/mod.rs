//! What the walks share.

#![allow(dead_code, reason = "each walk uses its part")]

pub mod packets;
pub mod specs;
