//! After the dataplane was restarted: every pair anew, at a bearable pace.

use std::time::{Duration, Instant};

use tracing::warn;

use super::driver::Driver;

/// Pairs renewed at once after the dataplane was restarted, every [`RENEW_PAUSE`].
const RENEWED_AT_ONCE: usize = 50;
const RENEW_PAUSE: Duration = Duration::from_millis(100);

/// A dataplane that is restarted again within this time is given more rest each time.
const RESTARTS_APART: Duration = Duration::from_secs(60);

impl Driver {
    /// The keys in use went with the dataplane that had them.
    pub(super) fn renew_everything(&mut self, now: Instant) {
        let (count, last) = self.restarts;
        let count = match last {
            Some(last) if now.duration_since(last) < RESTARTS_APART => count + 1,
            _ => 0,
        };
        self.restarts = (count, Some(now));
        let rest = match count {
            0 => Duration::ZERO,
            count => Duration::from_secs(1 << count.min(5)),
        };
        self.renewals = self
            .endpoint
            .ike_sas()
            .into_iter()
            .flat_map(|sa| sa.children)
            .map(|child| child.spi_in)
            .collect();
        self.renew_at = Some(now + rest);
        let pairs = self.renewals.len();
        let text = format!(
            "the dataplane was restarted: {pairs} Child SAs are negotiated anew, since their keys were in use"
        );
        warn!("{text}");
        self.journal.note(None, text);
    }

    pub(super) fn renew_some(&mut self, now: Instant) {
        if self.renew_at.is_none_or(|when| when > now) {
            return;
        }
        for _ in 0..RENEWED_AT_ONCE {
            let Some(spi_in) = self.renewals.pop_front() else {
                break;
            };
            self.endpoint.limit_reached(now, spi_in);
        }
        self.renew_at = (!self.renewals.is_empty()).then_some(now + RENEW_PAUSE);
    }
}
