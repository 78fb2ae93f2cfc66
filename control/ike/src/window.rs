//! Message IDs, the request windows of both directions, retransmission and cached answers
//! (RFC 7296 sections 2.1 to 2.3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::Retransmission;
use crate::crypto::random::{Draw, Random};

/// A window never grows beyond this, whatever a peer announces.
pub(crate) const LARGEST_WINDOW: u32 = 64;

/// A message as it goes out: one datagram, or its fragments.
pub(crate) type Datagrams = Vec<Vec<u8>>;

/// A request of ours that awaits its answer.
#[derive(Debug)]
pub(crate) struct InFlight<X> {
    pub(crate) datagrams: Datagrams,
    pub(crate) exchange: X,
    sent: u32,
    since: Instant,
    deadline: Instant,
}

/// Our requests.
#[derive(Debug)]
pub(crate) struct Outbox<X> {
    next_id: u32,
    limit: u32,
    in_flight: BTreeMap<u32, InFlight<X>>,
}

impl<X> Outbox<X> {
    pub(crate) fn new() -> Self {
        Self {
            next_id: 0,
            limit: 1,
            in_flight: BTreeMap::new(),
        }
    }

    /// The peer announced how many requests it takes at once (SET_WINDOW_SIZE).
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit.clamp(1, LARGEST_WINDOW);
    }

    /// Whether another request may be sent: those out are fewer than the limit, counted from the oldest unanswered.
    pub(crate) fn has_room(&self) -> bool {
        match self.in_flight.first_key_value() {
            Some((oldest, _)) => self.next_id.wrapping_sub(*oldest) < self.limit,
            None => true,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The message ID that the next request gets.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// A request went out of which no answer is awaited.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn skip(&mut self) {
        self.next_id = self.next_id.wrapping_add(1);
    }

    pub(crate) fn send(
        &mut self,
        now: Instant,
        datagrams: Datagrams,
        exchange: X,
        policy: &Retransmission,
        random: &mut dyn Random,
    ) {
        let deadline = now + wait(policy, 0, random);
        self.in_flight.insert(
            self.next_id,
            InFlight {
                datagrams,
                exchange,
                sent: 1,
                since: now,
                deadline,
            },
        );
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// IKE_SA_INIT is repeated under message ID 0 with a cookie or another key exchange (RFC 7296 section 2.6).
    pub(crate) fn restart(&mut self) {
        self.next_id = 0;
        self.in_flight.clear();
    }

    /// Takes the request that an answer is for; `None` for an answer that was not awaited.
    pub(crate) fn complete(&mut self, id: u32) -> Option<X> {
        self.in_flight.remove(&id).map(|request| request.exchange)
    }

    /// When the request with that message ID was first sent; `None` where no answer is awaited.
    pub(crate) fn asked_at(&self, id: u32) -> Option<Instant> {
        self.in_flight.get(&id).map(|request| request.since)
    }

    pub(crate) fn awaits(&self, id: u32) -> bool {
        self.in_flight.contains_key(&id)
    }

    pub(crate) fn exchanges(&self) -> impl Iterator<Item = &X> {
        self.in_flight.values().map(|request| &request.exchange)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.in_flight.values().map(|request| request.deadline).min()
    }

    /// Requests due again at `now`. `Err` once one had all its tries: the peer is dead.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        policy: &Retransmission,
        random: &mut dyn Random,
    ) -> Result<Vec<Datagrams>, DeadPeer> {
        let mut out = Vec::new();
        for request in self
            .in_flight
            .values_mut()
            .filter(|request| request.deadline <= now)
        {
            if request.sent > policy.tries {
                return Err(DeadPeer);
            }
            request.deadline = now + wait(policy, request.sent, random);
            request.sent += 1;
            out.push(request.datagrams.clone());
        }
        Ok(out)
    }

    /// How often the request that was sent most often was sent.
    pub(crate) fn most_sent(&self) -> u32 {
        let sent = self.in_flight.values().map(|request| request.sent);
        sent.max().unwrap_or(0)
    }

    /// Sends what is in flight at once again, as after a change of address.
    pub(crate) fn hasten(&mut self, now: Instant) {
        self.in_flight.values_mut().for_each(|request| {
            request.deadline = now;
            request.sent = 1;
        });
    }
}

/// No answer in spite of every retransmission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeadPeer;

/// The wait before retransmission `n`, varied by up to a tenth so that peers of one event spread out.
fn wait(policy: &Retransmission, n: u32, random: &mut dyn Random) -> Duration {
    let exponent = i32::try_from(n.min(64)).unwrap_or(64);
    let seconds = (policy.first.as_secs_f64() * policy.base.powi(exponent)).min(policy.longest.as_secs_f64());
    let jitter = 0.95 + random.below(1000) as f64 / 10_000.0;
    Duration::from_secs_f64((seconds * jitter).clamp(0.001, 3600.0))
}

/// What a request's message ID says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    /// To be processed.
    New,
    /// Already answered: send this again (RFC 7296 section 2.1).
    Answered(&'a Datagrams),
    /// Taken, and its answer awaits someone else: the repetition is ignored.
    Pending,
    /// Outside the window, or answered too long ago.
    Outside,
}

/// The peer's requests.
#[derive(Debug)]
pub(crate) struct Inbox {
    limit: u32,
    /// The lowest ID not yet processed.
    next: u32,
    /// Processed above `next`.
    ahead: BTreeSet<u32>,
    answers: BTreeMap<u32, Datagrams>,
    /// Taken and not yet answered.
    pending: BTreeSet<u32>,
}

impl Inbox {
    /// Accepts `limit` requests at once, the first being `first`.
    pub(crate) fn new(limit: u32, first: u32) -> Self {
        Self {
            limit: limit.clamp(1, LARGEST_WINDOW),
            next: first,
            ahead: BTreeSet::new(),
            answers: BTreeMap::new(),
            pending: BTreeSet::new(),
        }
    }

    /// The answer to this request comes later.
    pub(crate) fn postpone(&mut self, id: u32) {
        self.pending.insert(id);
    }

    pub(crate) fn classify(&self, id: u32) -> Arrival<'_> {
        if let Some(answer) = self.answers.get(&id) {
            return Arrival::Answered(answer);
        }
        if self.pending.contains(&id) {
            return Arrival::Pending;
        }
        if id.wrapping_sub(self.next) < self.limit && !self.ahead.contains(&id) {
            Arrival::New
        } else {
            Arrival::Outside
        }
    }

    /// Records the answer of a processed request.
    pub(crate) fn answered(&mut self, id: u32, answer: Datagrams) {
        self.pending.remove(&id);
        self.ahead.insert(id);
        while self.ahead.remove(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.answers.insert(id, answer);
        let (next, limit) = (self.next, self.limit);
        // RFC 7296 section 2.3: the answers of the last window are remembered.
        self.answers
            .retain(|id, _| next.wrapping_sub(*id) <= limit || id.wrapping_sub(next) < limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::SystemRandom;

    #[test]
    fn window_of_one_answers_the_last_request_again() {
        let mut inbox = Inbox::new(1, 0);
        assert_eq!(inbox.classify(0), Arrival::New);
        assert_eq!(inbox.classify(1), Arrival::Outside);
        inbox.answered(0, vec![vec![1]]);
        assert_eq!(inbox.classify(0), Arrival::Answered(&vec![vec![1]]));
        inbox.answered(1, vec![vec![2]]);
        assert_eq!(inbox.classify(0), Arrival::Outside);
        assert_eq!(inbox.classify(u32::MAX), Arrival::Outside);
    }

    #[test]
    fn wider_windows_take_requests_out_of_order() {
        let mut inbox = Inbox::new(3, 0);
        assert_eq!(inbox.classify(2), Arrival::New);
        inbox.answered(2, vec![]);
        assert_eq!(inbox.classify(3), Arrival::Outside);
        inbox.answered(0, vec![]);
        assert_eq!(inbox.classify(3), Arrival::New);
        assert_eq!(inbox.classify(1), Arrival::New);
        inbox.answered(1, vec![]);
        assert_eq!(inbox.classify(5), Arrival::New);
    }

    #[test]
    fn retransmission_backs_off_and_ends() {
        let policy = Retransmission {
            tries: 3,
            ..Retransmission::default()
        };
        let random: &mut dyn Random = &mut SystemRandom::new();
        let start = Instant::now();
        let mut outbox = Outbox::new();
        outbox.send(start, vec![vec![0]], (), &policy, random);
        assert!(!outbox.has_room());
        let mut waits = Vec::new();
        let mut now = start;
        loop {
            let deadline = outbox.deadline().unwrap();
            waits.push((deadline - now).as_secs_f64());
            now = deadline;
            match outbox.due(now, &policy, random) {
                Ok(again) => assert_eq!(again.len(), 1),
                Err(DeadPeer) => break,
            }
        }
        assert_eq!(waits.len(), 4);
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 1.3), "{waits:?}");
    }
}
