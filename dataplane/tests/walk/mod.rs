//! What the walks share.

#![allow(dead_code, unreachable_pub, reason = "each walk uses its part")]

pub mod forge;
pub mod gateway;
pub mod packets;
pub mod pair;
pub mod provider;
pub mod second;
pub mod specs;
