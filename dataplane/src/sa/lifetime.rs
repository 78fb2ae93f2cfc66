//! Use of an SA against its limits (RFC 4301 section 4.4.2.1).

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use southbound::{Lifetime, LifetimeKind};

/// A limit that was just crossed, told to exactly one caller.
pub type Crossing = LifetimeKind;

const SOFT_RAISED: u8 = 1;
const EXPIRED: u8 = 2;

/// What an SA has carried, and whether it may carry more.
///
/// Bytes and packets are counted once for each run of a batch, so a hard limit of bytes can be overrun by
/// at most one run of each worker; time is looked at once a second.
#[derive(Debug, Default)]
pub struct Usage {
    packets: AtomicU64,
    bytes: AtomicU64,
    // The counts at which somebody must look at the limits again.
    look_packets: AtomicU64,
    look_bytes: AtomicU64,
    state: AtomicU8,
}

impl Usage {
    /// Nothing carried yet.
    #[must_use]
    pub fn new(lifetime: &Lifetime) -> Self {
        let usage = Self::default();
        usage.aim(lifetime);
        usage
    }

    /// Whether a hard limit stopped the SA.
    #[inline]
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.state.load(Ordering::Relaxed) & EXPIRED != 0
    }

    /// Counts a run; true where a limit may have been crossed and [`Self::look`] should be called.
    #[inline]
    #[must_use]
    pub fn add(&self, packets: u64, bytes: u64) -> bool {
        let packets = self.packets.fetch_add(packets, Ordering::Relaxed) + packets;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        packets >= self.look_packets.load(Ordering::Relaxed)
            || bytes >= self.look_bytes.load(Ordering::Relaxed)
    }

    /// Compares use with `lifetime`; the crossing of a limit is told once.
    #[must_use]
    pub fn look(&self, lifetime: &Lifetime, age_seconds: u64) -> Option<Crossing> {
        let reached = |limit: &southbound::LifetimeLimit| {
            limit.packets.is_some_and(|limit| self.packets() >= limit)
                || limit.bytes.is_some_and(|limit| self.bytes() >= limit)
                || limit.seconds.is_some_and(|limit| age_seconds >= limit)
        };
        let crossing = if reached(&lifetime.hard) {
            let before = self.state.fetch_or(EXPIRED | SOFT_RAISED, Ordering::Relaxed);
            (before & EXPIRED == 0).then_some(LifetimeKind::Hard)
        } else if reached(&lifetime.soft) {
            let before = self.state.fetch_or(SOFT_RAISED, Ordering::Relaxed);
            (before & SOFT_RAISED == 0).then_some(LifetimeKind::Soft)
        } else {
            None
        };
        self.aim(lifetime);
        crossing
    }

    /// Takes a changed lifetime over: limits that are no longer reached are open again.
    pub fn relax(&self, lifetime: &Lifetime) {
        self.state.store(0, Ordering::Relaxed);
        self.aim(lifetime);
    }

    /// Packets carried.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Bytes of inner packets carried.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn aim(&self, lifetime: &Lifetime) {
        let raised = self.state.load(Ordering::Relaxed) & SOFT_RAISED != 0;
        let next = |soft: Option<u64>, hard: Option<u64>| match (soft, hard) {
            (Some(soft), Some(hard)) if !raised => soft.min(hard),
            (Some(soft), None) if !raised => soft,
            (_, Some(hard)) => hard,
            (_, None) => u64::MAX,
        };
        self.look_packets.store(
            next(lifetime.soft.packets, lifetime.hard.packets),
            Ordering::Relaxed,
        );
        self.look_bytes
            .store(next(lifetime.soft.bytes, lifetime.hard.bytes), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use southbound::LifetimeLimit;

    use super::*;

    fn packets(soft: u64, hard: u64) -> Lifetime {
        let limit = |packets| LifetimeLimit {
            packets: Some(packets),
            ..LifetimeLimit::default()
        };
        Lifetime {
            soft: limit(soft),
            hard: limit(hard),
        }
    }

    #[test]
    fn fault_50_soft_is_told_once_and_hard_stops() {
        let lifetime = packets(10, 20);
        let usage = Usage::new(&lifetime);
        assert!(!usage.add(9, 900));
        assert!(usage.add(1, 100));
        assert_eq!(usage.look(&lifetime, 0), Some(LifetimeKind::Soft));
        assert_eq!(usage.look(&lifetime, 0), None);
        assert!(!usage.add(5, 1), "nothing to look at before the hard limit");
        assert!(!usage.is_expired());
        assert!(usage.add(5, 1));
        assert_eq!(usage.look(&lifetime, 0), Some(LifetimeKind::Hard));
        assert!(usage.is_expired());
        assert_eq!(usage.look(&lifetime, 0), None);
    }

    #[test]
    fn bytes_and_seconds_count_too() {
        let lifetime = Lifetime {
            soft: LifetimeLimit {
                bytes: Some(1000),
                packets: None,
                seconds: None,
            },
            hard: LifetimeLimit {
                bytes: None,
                packets: None,
                seconds: Some(60),
            },
        };
        let usage = Usage::new(&lifetime);
        assert!(usage.add(1, 1000));
        assert_eq!(usage.look(&lifetime, 1), Some(LifetimeKind::Soft));
        assert_eq!(usage.look(&lifetime, 59), None);
        assert_eq!(usage.look(&lifetime, 60), Some(LifetimeKind::Hard));
    }

    #[test]
    fn no_limit_is_never_reached() {
        let usage = Usage::new(&Lifetime::default());
        assert!(!usage.add(u64::MAX / 2, u64::MAX / 2));
        assert_eq!(usage.look(&Lifetime::default(), u64::MAX), None);
    }
}
