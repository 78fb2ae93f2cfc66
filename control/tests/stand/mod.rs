//! What the tests stand on: a namespace of their own, and a dataplane that only remembers.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file stands on another part"
)]

mod dataplane;
mod namespace;

pub use dataplane::RecordingDataplane;
pub use namespace::Namespace;

use std::time::{Duration, Instant};

/// Waits until `condition` holds, at most ten seconds.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
