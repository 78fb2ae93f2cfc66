//! Offloads of a device that are in the way.

use crate::xsk::{AttachMode, ethtool};

/// Says which offloads change packets before the program or a worker sees them, and switches them off where that is wanted.
pub(super) fn check(interface: &str, mode: AttachMode, fix: bool) {
    let found = match ethtool::harmful_offloads(interface, mode == AttachMode::Generic) {
        Ok(found) => found,
        Err(errno) => {
            tracing::debug!(interface, %errno, "offloads cannot be read");
            return;
        }
    };
    for offload in found {
        let switched = if fix {
            ethtool::switch_off(interface, offload)
        } else {
            Err(nix::errno::Errno::EPERM)
        };
        match switched {
            Ok(()) => {
                tracing::info!(interface, %offload, "switched off: it changes packets before they arrive here")
            }
            Err(errno) => tracing::warn!(
                interface,
                %offload,
                %errno,
                "is on and changes packets before they arrive here: ethtool -K {interface} {offload} off"
            ),
        }
    }
}
