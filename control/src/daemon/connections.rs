//! The operator's hand on negotiated connections.

use std::time::{Duration, Instant};

use super::answers::RECORDS_A_FRAME;
use super::supervisor::Daemon;
use crate::admin::{ExitCode, Frame, Replies};
use crate::ike::{Goal, Waiting};

/// The longest that a command may wait.
const MAX_WAIT_SECONDS: u64 = 600;

impl Daemon {
    pub(super) fn up(
        &mut self,
        connection: &str,
        child: Option<String>,
        wait_seconds: u64,
        replies: Replies,
    ) {
        match self.ike.up(connection, child.as_deref()) {
            Err((code, message)) => replies.end(code, Some(message)),
            Ok(missing) if missing.is_empty() => {
                replies.end(ExitCode::Done, Some(format!("{connection} is up already")));
            }
            Ok(missing) => self.wait(connection, Goal::Up(missing), wait_seconds, replies),
        }
    }

    pub(super) fn down(
        &mut self,
        connection: &str,
        child: Option<String>,
        wait_seconds: u64,
        replies: Replies,
    ) {
        match self.ike.down(connection, child.as_deref()) {
            Err((code, message)) => replies.end(code, Some(message)),
            Ok(false) => replies.end(ExitCode::Done, Some(format!("{connection} is down already"))),
            Ok(true) => self.wait(connection, Goal::Down(child), wait_seconds, replies),
        }
    }

    pub(super) fn rekey(
        &mut self,
        connection: &str,
        child: Option<String>,
        wait_seconds: u64,
        replies: Replies,
    ) {
        match self.ike.rekey(connection, child.as_deref()) {
            Err((code, message)) => replies.end(code, Some(message)),
            Ok(()) => self.wait(connection, Goal::Rekeyed(child), wait_seconds, replies),
        }
    }

    fn wait(&mut self, connection: &str, goal: Goal, wait_seconds: u64, replies: Replies) {
        self.ike.wait(Waiting {
            connection: connection.to_owned(),
            goal,
            replies,
            deadline: Instant::now() + Duration::from_secs(wait_seconds.min(MAX_WAIT_SECONDS)),
        });
    }

    pub(super) fn log(&self, connection: Option<&str>, lines: usize, replies: &Replies) {
        match self.ike.log(connection, lines) {
            Ok(records) => tell(records, replies),
            Err((code, message)) => replies.end(code, Some(message)),
        }
    }

    pub(super) fn show_ike(&self, name: Option<&str>, replies: &Replies) {
        let records = self.ike.records(name);
        match name {
            Some(name) if records.is_empty() => {
                replies.end(ExitCode::NotFound, Some(format!("no connection {name:?}")));
            }
            _ => tell(records, replies),
        }
    }
}

fn tell(mut records: Vec<serde_json::Value>, replies: &Replies) {
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(RECORDS_A_FRAME));
        if !replies.send(Frame::Records(std::mem::replace(&mut records, rest))) {
            return;
        }
    }
    replies.end(ExitCode::Done, None);
}
