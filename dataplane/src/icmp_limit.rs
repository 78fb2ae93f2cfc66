//! How many ICMP errors a worker sends: a token bucket (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).

/// Errors a second that a worker sends in the long run.
pub const ERRORS_PER_SECOND: u64 = 1000;
/// Errors that a worker sends at once after a quiet time.
pub const ERRORS_BURST: u64 = 200;

const NANOSECONDS_PER_ERROR: u64 = 1_000_000_000 / ERRORS_PER_SECOND;

/// The bucket: it holds time, of which each error takes its share.
#[derive(Clone, Copy, Debug)]
pub struct IcmpLimit {
    /// The moment up to which time has been spent.
    spent_until_ns: u64,
}

impl IcmpLimit {
    /// A full bucket.
    #[must_use]
    pub const fn new() -> Self {
        Self { spent_until_ns: 0 }
    }

    /// Takes one error's share at `now_ns`; false where there is none left.
    #[inline]
    #[must_use]
    pub fn allow(&mut self, now_ns: u64) -> bool {
        // Time older than a burst is lost: the bucket is full.
        let from_ns = self
            .spent_until_ns
            .max(now_ns.saturating_sub(ERRORS_BURST * NANOSECONDS_PER_ERROR));
        let until_ns = from_ns + NANOSECONDS_PER_ERROR;
        if until_ns > now_ns {
            return false;
        }
        self.spent_until_ns = until_ns;
        true
    }
}

impl Default for IcmpLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn allowed(limit: &mut IcmpLimit, now_ns: u64, asked: usize) -> usize {
        (0..asked).filter(|_| limit.allow(now_ns)).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limit = IcmpLimit::new();
        let start_ns = 1000 * SECOND_NS;
        assert_eq!(allowed(&mut limit, start_ns, 10_000), ERRORS_BURST as usize);
        assert_eq!(allowed(&mut limit, start_ns, 1), 0);
        assert_eq!(
            allowed(&mut limit, start_ns + SECOND_NS / 10, 10_000),
            ERRORS_PER_SECOND as usize / 10
        );
        // However long the quiet time, never more than a burst.
        assert_eq!(
            allowed(&mut limit, start_ns + 3600 * SECOND_NS, 10_000),
            ERRORS_BURST as usize
        );
    }
}
