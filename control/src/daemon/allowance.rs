//! A bound on log lines that others can cause.

use std::time::{Duration, Instant};

/// At most so many lines a period; the rest are counted.
#[derive(Debug)]
pub(super) struct Allowance {
    per_period: u32,
    period: Duration,
    began: Option<Instant>,
    used: u32,
    suppressed: u64,
}

impl Allowance {
    pub(super) fn new(per_period: u32, period: Duration) -> Self {
        Self {
            per_period,
            period,
            began: None,
            used: 0,
            suppressed: 0,
        }
    }

    /// Whether a line may be written at `now`, and how many were not since the last that was.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= self.period)
        {
            self.began = Some(now);
            self.used = 0;
        }
        if self.used >= self.per_period {
            self.suppressed += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_90_lines_beyond_the_allowance_are_counted() {
        let mut allowance = Allowance::new(2, Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(allowance.take(start), Some(0));
        assert_eq!(allowance.take(start), Some(0));
        assert_eq!(allowance.take(start), None);
        assert_eq!(allowance.take(start + Duration::from_secs(9)), None);
        assert_eq!(allowance.take(start + Duration::from_secs(10)), Some(2));
    }
}
