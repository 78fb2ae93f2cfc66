//! One connection's conversation with the dataplane, apart from its socket.
//!
//! ```text
//!  Greeting --Welcome--> Learning --answers--> Syncing --all acknowledged, EndSync--> Live
//! ```
//!
//! While learning, ports, tunnels, SAs and policies of the dataplane are asked for, so that a control process that
//! lost its memory gives the same things the same numbers and knows which keys are in use. The owner then
//! calls [`Session::begin_sync`].

use std::collections::{BTreeMap, VecDeque};

use southbound::{
    Event, MAX_MESSAGE_BYTES, MAX_UPDATES_PER_MESSAGE, PROTOCOL_VERSION, Query, Rejection, Status, ToControl,
    ToDataplane, Update,
};
use thiserror::Error;

use super::desired::Desired;
use super::object::Object;

/// Most unacknowledged [`ToDataplane::Apply`] messages.
const WINDOW_MESSAGES: usize = 8;

/// Most open questions of the owner.
const MAX_QUESTIONS: usize = 32;

/// Where a message is closed, in estimated bytes. One more update may follow the last that fits, so the
/// longest single update is what remains of the limit.
const MESSAGE_GOAL_BYTES: usize = MAX_MESSAGE_BYTES / 2;
const LONGEST_UPDATE_BYTES: usize = MAX_MESSAGE_BYTES - MESSAGE_GOAL_BYTES - 1024;

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `Hello` is out.
    Greeting,
    /// Questions about what the dataplane holds are out, or answered and the owner's turn.
    Learning,
    /// Everything is being told.
    Syncing,
    /// The dataplane holds what it was told, and changes follow as they come.
    Live,
}

/// The dataplane's introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Which start of the dataplane this is.
    pub instance: u64,
    /// The highest generation it knows.
    pub generation: u64,
    /// Its workers.
    pub workers: u16,
}

/// What the owner should know.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// The dataplane answered, and what it holds is being asked for.
    Welcome(Welcome),
    /// The dataplane's ports, tunnels, SAs and policies, complete.
    Learned(Vec<Status>),
    /// An update was refused.
    Rejected(Object, Rejection),
    /// An update took effect.
    Applied(Object),
    /// The resynchronisation is complete; so many stale objects went.
    Synced(u64),
    /// Unasked.
    Event(Event),
    /// Part of the answer to [`Session::ask`].
    Answer {
        /// That of the question.
        question: u64,
        /// Records.
        records: Vec<Status>,
        /// Whether this is the last part.
        last: bool,
    },
}

/// The dataplane said what makes no sense; the connection must end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// It speaks another version.
    #[error("the dataplane speaks version {0} of the protocol where this process speaks {PROTOCOL_VERSION}")]
    Version(u32),
    /// A message that does not fit the phase or names nothing that was sent.
    #[error("the dataplane sent {0} out of turn")]
    OutOfTurn(&'static str),
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    generation: u64,
    sequence: u64,
    outgoing: VecDeque<ToDataplane>,
    in_flight: BTreeMap<u64, Vec<Object>>,
    also_learned: Vec<Query>,
    learning: Vec<u64>,
    learned: Vec<Status>,
    questions: Vec<u64>,
    notices: Vec<Notice>,
    end_sent: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A fresh connection: the greeting is ready to send.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Greeting,
            generation: 0,
            sequence: 0,
            outgoing: VecDeque::from([ToDataplane::Hello {
                version: PROTOCOL_VERSION,
            }]),
            in_flight: BTreeMap::new(),
            also_learned: Vec::new(),
            learning: Vec::new(),
            learned: Vec::new(),
            questions: Vec::new(),
            notices: Vec::new(),
            end_sent: false,
        }
    }

    /// Asks the dataplane for more than usual while learning.
    #[must_use]
    pub fn learning(mut self, queries: &[Query]) -> Self {
        self.also_learned = queries.to_vec();
        self
    }

    /// How far the conversation is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The generation of what is told now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the dataplane has acknowledged everything that is wanted.
    #[must_use]
    pub fn is_settled(&self, desired: &Desired) -> bool {
        self.phase == Phase::Live && self.in_flight.is_empty() && desired.is_told()
    }

    /// Takes a message from the dataplane.
    ///
    /// # Errors
    /// [`SessionError`]: end the connection.
    pub fn handle(&mut self, message: ToControl) -> Result<(), SessionError> {
        match message {
            ToControl::Welcome {
                version,
                instance,
                generation,
                workers,
            } => self.welcomed(version, instance, generation, workers),
            ToControl::Applied { sequence, rejections } => self.applied(sequence, rejections),
            ToControl::Synced { generation, removed } => {
                if self.phase != Phase::Syncing || !self.end_sent || generation != self.generation {
                    return Err(SessionError::OutOfTurn("Synced"));
                }
                self.phase = Phase::Live;
                self.notices.push(Notice::Synced(removed));
                Ok(())
            }
            ToControl::Answer {
                sequence,
                records,
                last,
            } => self.answered(sequence, records, last),
            ToControl::Events(events) => {
                self.notices.extend(events.into_iter().map(Notice::Event));
                Ok(())
            }
        }
    }

    fn welcomed(
        &mut self,
        version: u32,
        instance: u64,
        generation: u64,
        workers: u16,
    ) -> Result<(), SessionError> {
        if version != PROTOCOL_VERSION {
            return Err(SessionError::Version(version));
        }
        if self.phase != Phase::Greeting {
            return Err(SessionError::OutOfTurn("Welcome"));
        }
        self.phase = Phase::Learning;
        self.generation = generation.saturating_add(1);
        let usual = [Query::Ports, Query::Tunnels, Query::Sas, Query::Policies];
        for query in usual.into_iter().chain(std::mem::take(&mut self.also_learned)) {
            let sequence = self.next_sequence();
            self.learning.push(sequence);
            self.outgoing.push_back(ToDataplane::Ask { sequence, query });
        }
        self.notices.push(Notice::Welcome(Welcome {
            instance,
            generation,
            workers,
        }));
        Ok(())
    }

    fn applied(&mut self, sequence: u64, rejections: Vec<(u32, Rejection)>) -> Result<(), SessionError> {
        let Some(objects) = self.in_flight.remove(&sequence) else {
            return Err(SessionError::OutOfTurn("Applied"));
        };
        let mut rejections: BTreeMap<u32, Rejection> = rejections.into_iter().collect();
        for (index, object) in (0u32..).zip(objects) {
            self.notices.push(match rejections.remove(&index) {
                Some(rejection) => Notice::Rejected(object, rejection),
                None => Notice::Applied(object),
            });
        }
        Ok(())
    }

    fn answered(&mut self, sequence: u64, records: Vec<Status>, last: bool) -> Result<(), SessionError> {
        if let Some(index) = self.learning.iter().position(|asked| *asked == sequence) {
            self.learned.extend(records);
            if last {
                self.learning.swap_remove(index);
                if self.learning.is_empty() {
                    self.notices
                        .push(Notice::Learned(std::mem::take(&mut self.learned)));
                }
            }
            return Ok(());
        }
        let Some(index) = self.questions.iter().position(|asked| *asked == sequence) else {
            return Err(SessionError::OutOfTurn("Answer"));
        };
        if last {
            self.questions.swap_remove(index);
        }
        self.notices.push(Notice::Answer {
            question: sequence,
            records,
            last,
        });
        Ok(())
    }

    /// Begins to tell everything; after [`Notice::Learned`].
    pub fn begin_sync(&mut self, desired: &mut Desired) {
        desired.mark_all();
        self.phase = Phase::Syncing;
        self.end_sent = false;
        self.outgoing.push_back(ToDataplane::BeginSync {
            generation: self.generation,
        });
    }

    /// Asks; the answer comes as [`Notice::Answer`] with the number returned. `None` where too many
    /// questions are open already, or nobody was welcomed yet.
    pub fn ask(&mut self, query: Query) -> Option<u64> {
        if self.questions.len() >= MAX_QUESTIONS || self.phase == Phase::Greeting {
            return None;
        }
        let sequence = self.next_sequence();
        self.questions.push(sequence);
        self.outgoing.push_back(ToDataplane::Ask { sequence, query });
        Some(sequence)
    }

    /// Sends a message that nothing answers.
    pub fn tell(&mut self, message: ToDataplane) {
        self.outgoing.push_back(message);
    }

    /// What happened since it was last called.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self, desired: &mut Desired) -> Option<ToDataplane> {
        if let Some(message) = self.outgoing.pop_front() {
            return Some(message);
        }
        if !matches!(self.phase, Phase::Syncing | Phase::Live) || self.in_flight.len() >= WINDOW_MESSAGES {
            return None;
        }
        if let Some(message) = self.batch(desired) {
            return Some(message);
        }
        if self.phase == Phase::Syncing && self.in_flight.is_empty() && !self.end_sent {
            self.end_sent = true;
            return Some(ToDataplane::EndSync {
                generation: self.generation,
            });
        }
        None
    }

    /// Takes back a message that the socket had no room for; it is the next one again.
    pub fn unsent(&mut self, message: ToDataplane) {
        self.outgoing.push_front(message);
    }

    fn batch(&mut self, desired: &mut Desired) -> Option<ToDataplane> {
        let mut updates = Vec::new();
        let mut objects = Vec::new();
        let mut size_bytes = 0;
        while updates.len() < MAX_UPDATES_PER_MESSAGE && size_bytes < MESSAGE_GOAL_BYTES {
            let Some((object, update)) = desired.take(1).pop() else {
                break;
            };
            let update_bytes = estimated_bytes(&update);
            if update_bytes > LONGEST_UPDATE_BYTES {
                self.notices.push(Notice::Rejected(
                    object,
                    Rejection::Inconsistent("it is too long for a message: use fewer selectors".into()),
                ));
                continue;
            }
            size_bytes += update_bytes;
            updates.push(update);
            objects.push(object);
        }
        if updates.is_empty() {
            return None;
        }
        let sequence = self.next_sequence();
        self.in_flight.insert(sequence, objects);
        Some(ToDataplane::Apply {
            sequence,
            generation: self.generation,
            updates,
        })
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

/// An upper bound of an update's encoded length.
fn estimated_bytes(update: &Update) -> usize {
    match update {
        Update::PutPort(port) => 64 + port.interface.len(),
        Update::PutTunnel(tunnel) => 128 + tunnel.name.len(),
        Update::InstallSa(sa) => 256 + sa.key.len_bytes() + 96 * sa.selectors.len(),
        Update::PutRoute(route) => 64 + 32 * route.next_hops.len(),
        _ => 160,
    }
}
