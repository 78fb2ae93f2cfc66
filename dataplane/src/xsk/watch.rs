//! [`Watch`]: sees a queue that does not move although it should, and says what to try.

use super::queue::PortQueue;

/// What to do about a queue that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Wake the device whether it asks for it or not ([`PortQueue::nudge`]).
    Nudge,
    /// Still nothing is sent: if busy-polling was on, it is the likeliest cause and has to go
    /// ([`PortQueue::set_busy_poll`]); the device is then woken as above.
    LeaveBusyPoll,
    /// Nothing has helped: close the socket and bind a new one.
    Rebind,
}

/// Watches one queue. Feed it some time after each turn, once in a hundred milliseconds or so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    completed_packets: u64,
    /// Since when frames are in flight and none came back.
    stalled_since_ms: Option<u64>,
    tried: Option<Remedy>,
}

/// No frame came back for this long: wake the device.
const NUDGE_AFTER_MS: u64 = 100;
/// And for this long: leave busy-polling.
const LEAVE_BUSY_POLL_AFTER_MS: u64 = 500;
/// And for this long, with the link up: bind anew. Longer than igb takes to come back from a link that flapped.
const REBIND_AFTER_MS: u64 = 5_000;

impl Watch {
    /// Looks at the queue. `link_is_up` is what netlink last said: with the link down it is right that nothing moves.
    pub fn look(&mut self, queue: &PortQueue<'_>, link_is_up: bool, now_ms: u64) -> Option<Remedy> {
        let completed = queue.counters().completed_packets;
        let moves = completed != self.completed_packets;
        self.completed_packets = completed;
        self.judge(moves || queue.in_flight() == 0 || !link_is_up, now_ms)
    }

    fn judge(&mut self, is_well: bool, now_ms: u64) -> Option<Remedy> {
        if is_well {
            self.stalled_since_ms = None;
            self.tried = None;
            return None;
        }
        let since = *self.stalled_since_ms.get_or_insert(now_ms);
        let remedy = match now_ms.saturating_sub(since) {
            ..NUDGE_AFTER_MS => return None,
            NUDGE_AFTER_MS..LEAVE_BUSY_POLL_AFTER_MS => Remedy::Nudge,
            LEAVE_BUSY_POLL_AFTER_MS..REBIND_AFTER_MS => Remedy::LeaveBusyPoll,
            _ => Remedy::Rebind,
        };
        // Each once; only the last is asked for until it is done.
        if self.tried == Some(remedy) && remedy != Remedy::Rebind {
            return None;
        }
        self.tried = Some(remedy);
        Some(remedy)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tries_the_mild_remedies_first_and_each_once() {
        let mut watch = Watch::default();
        let seen: Vec<_> = (0..70)
            .filter_map(|tick| watch.judge(false, tick * 100).map(|remedy| (tick, remedy)))
            .collect();
        assert_eq!(seen[0], (1, Remedy::Nudge));
        assert_eq!(seen[1], (5, Remedy::LeaveBusyPoll));
        assert_eq!(seen[2], (50, Remedy::Rebind));
        assert_eq!(seen.len(), 2 + 20, "asked for until done");
    }

    #[test]
    fn any_progress_starts_the_count_anew() {
        let mut watch = Watch::default();
        for tick in 0..100 {
            let remedy = watch.judge(tick % 4 == 3, tick * 100);
            assert!(matches!(remedy, None | Some(Remedy::Nudge)), "{tick}: {remedy:?}");
        }
    }
}
