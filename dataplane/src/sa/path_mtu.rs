//! What is known of the outer path's MTU (RFC 1191, RFC 8201).

use std::sync::atomic::{AtomicU64, Ordering};

/// Least outer MTU that is believed of an IPv4 path: what every host takes (RFC 791 section 3.1). A router
/// that claims less is not believed (RFC 1191 section 3 allows 68, which would be an amplifier).
pub(super) const FLOOR_V4_BYTES: u16 = 576;
/// Least MTU of an IPv6 path (RFC 8200 section 5).
pub(super) const FLOOR_V6_BYTES: u16 = 1280;

/// How long a learned value stands before the path is tried anew (RFC 1191 section 6.3: 10 minutes).
const KEPT_SECONDS: u64 = 600;

/// The values that a router without the field is guessed to mean (RFC 1191 section 7.1).
const PLATEAUS_BYTES: [u16; 7] = [32000, 17914, 8166, 4352, 2002, 1492, 1006];

/// A learned path MTU with its end; nothing learned at first.
#[derive(Debug, Default)]
pub struct PathMtu {
    // The value in the low 16 bits, the second at which it ends above; 0 is none.
    learned: AtomicU64,
}

impl PathMtu {
    /// The learned value, where one stands.
    #[inline]
    #[must_use]
    pub fn get(&self, now_seconds: u64) -> Option<u16> {
        let learned = self.learned.load(Ordering::Relaxed);
        if learned == 0 || learned >> 16 <= now_seconds {
            return None;
        }
        Some((learned & 0xffff) as u16)
    }

    /// Takes an authenticated report that a packet of `sent_bytes` met a link of `claimed_bytes` (0 where the
    /// router does not say); `current_bytes` is what was believed so far. Returns the new value where it
    /// changed: reports only ever lower it (RFC 8201 section 4).
    pub fn learn(
        &self,
        is_ipv6: bool,
        claimed_bytes: u16,
        sent_bytes: u16,
        current_bytes: u16,
        now_seconds: u64,
    ) -> Option<u16> {
        let floor_bytes = if is_ipv6 { FLOOR_V6_BYTES } else { FLOOR_V4_BYTES };
        let claimed_bytes = if claimed_bytes == 0 {
            let plateau = PLATEAUS_BYTES.iter().find(|plateau| **plateau < sent_bytes);
            *plateau.unwrap_or(&floor_bytes)
        } else {
            claimed_bytes
        };
        let value_bytes = claimed_bytes.max(floor_bytes);
        if value_bytes >= current_bytes {
            return None;
        }
        let end_seconds = now_seconds.saturating_add(KEPT_SECONDS).min(u64::MAX >> 16);
        self.learned
            .store((end_seconds << 16) | u64::from(value_bytes), Ordering::Relaxed);
        Some(value_bytes)
    }

    /// A copy, for a tunnel that replaces another.
    #[must_use]
    pub fn carry_over(&self) -> Self {
        Self {
            learned: AtomicU64::new(self.learned.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_lower_and_never_raise() {
        let path = PathMtu::default();
        assert_eq!(path.learn(false, 1400, 1500, 1500, 0), Some(1400));
        assert_eq!(path.learn(false, 1450, 1500, 1400, 0), None);
        assert_eq!(path.get(0), Some(1400));
    }

    #[test]
    fn fault_58_forged_tiny_values_stop_at_the_floor() {
        let path = PathMtu::default();
        assert_eq!(path.learn(false, 68, 1500, 1500, 0), Some(576));
        assert_eq!(path.learn(true, 600, 1500, 1500, 0), Some(1280));
        assert_eq!(path.learn(true, 600, 1280, 1280, 0), None);
    }

    #[test]
    fn a_router_that_names_no_value_means_the_next_plateau() {
        let path = PathMtu::default();
        assert_eq!(path.learn(false, 0, 1500, 1500, 0), Some(1492));
        assert_eq!(path.learn(false, 0, 1000, 1000, 0), Some(576));
    }

    #[test]
    fn what_was_learned_ends_after_ten_minutes() {
        let path = PathMtu::default();
        assert_eq!(path.learn(false, 1400, 1500, 1500, 100), Some(1400));
        assert_eq!(path.get(699), Some(1400));
        assert_eq!(path.get(700), None);
    }
}
