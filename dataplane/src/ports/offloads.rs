//! Offloads of a device that are in the way.

use crate::xsk::{AttachMode, ethtool, ethtool::Offload};

/// Says which offloads change packets before the program or a worker sees them, and switches them off where that is wanted. Answers whether
/// tags of received frames stay hidden from the program.
pub(super) fn check(interface: &str, mode: AttachMode, fix: bool) -> bool {
    let mut hides_tags = false;
    let found = match ethtool::harmful_offloads(interface, mode == AttachMode::Generic) {
        Ok(found) => found,
        Err(errno) => {
            tracing::debug!(interface, %errno, "offloads cannot be read");
            return false;
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
            Err(errno) => {
                hides_tags |= offload == Offload::ReceiveVlan;
                tracing::warn!(
                    interface,
                    %offload,
                    %errno,
                    "is on and changes packets before they arrive here: ethtool -K {interface} {offload} off"
                );
            }
        }
    }
    hides_tags
}
