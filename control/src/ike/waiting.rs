//! Commands of the operator that end when a negotiation does.

use std::time::Instant;

use ike::Event;

use crate::admin::{ExitCode, Replies};

/// What a command waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// These children up.
    Up(Vec<String>),
    /// The connection, or one child of it, down.
    Down(Option<String>),
    /// A new IKE SA, or a new pair of one child.
    Rekeyed(Option<String>),
}

/// A command and whom to tell.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) connection: String,
    pub(crate) goal: Goal,
    pub(crate) replies: Replies,
    pub(crate) deadline: Instant,
}

impl Waiting {
    /// Takes note of an event; whether the command is answered.
    pub(crate) fn hears(&mut self, event: &Event) -> bool {
        match (event, &mut self.goal) {
            (
                Event::ChildUp {
                    connection, child, ..
                },
                Goal::Up(names),
            ) if *connection == self.connection => {
                names.retain(|name| *name != child.name);
                if !names.is_empty() {
                    return false;
                }
                self.done(format!("{} is up: {}", self.connection, child.suite))
            }
            (Event::IkeDown { connection, .. }, Goal::Down(_)) if *connection == self.connection => {
                self.done(format!("{} is down", self.connection))
            }
            (
                Event::ChildDown {
                    connection, child, ..
                },
                Goal::Down(Some(name)),
            ) if *connection == self.connection && child == name => {
                self.done(format!("{child} of {} is down", self.connection))
            }
            (Event::IkeRekeyed { connection, .. }, Goal::Rekeyed(None)) if *connection == self.connection => {
                self.done(format!("the IKE SA of {} is renewed", self.connection))
            }
            (
                Event::ChildRekeyed {
                    connection, child, ..
                },
                Goal::Rekeyed(Some(name)),
            ) if *connection == self.connection && child.name == *name => self.done(format!(
                "{} of {} is renewed: {}",
                child.name, self.connection, child.suite
            )),
            (
                Event::Failed {
                    connection: Some(connection),
                    reason,
                    ..
                },
                // Half-open SAs that are closed as well fail, and are no reason to stay up.
                Goal::Up(_) | Goal::Rekeyed(_),
            ) if *connection == self.connection => {
                self.replies.end(ExitCode::Refused, Some(reason.clone()));
                true
            }
            (
                Event::IkeDown {
                    connection, reason, ..
                },
                Goal::Up(_) | Goal::Rekeyed(_),
            ) if *connection == self.connection => {
                self.replies.end(ExitCode::Refused, Some(reason.clone()));
                true
            }
            _ => false,
        }
    }

    fn done(&self, message: String) -> bool {
        self.replies.end(ExitCode::Done, Some(message));
        true
    }

    /// Its time is over.
    pub(crate) fn give_up(&self, last_failure: Option<&str>) {
        let message = match last_failure {
            Some(reason) => format!("not yet: {reason}"),
            None => "not yet: no answer from the peer; it is tried further".to_owned(),
        };
        self.replies.end(ExitCode::TimedOut, Some(message));
    }
}
