//! What was negotiated and what failed, for the log and for `penstock log` and `show ike`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Lines that are remembered.
const MAX_LINES: usize = 4096;

/// Connections whose last failure is remembered.
const MAX_FAILURES: usize = 16_384;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    unix_ms: u64,
    connection: Option<String>,
    is_failure: bool,
    text: String,
}

/// A bounded memory of lines.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    lines: VecDeque<Line>,
    /// Lines that nobody was told yet.
    untold: usize,
    failures: BTreeMap<String, (u64, String)>,
}

impl Journal {
    /// Remembers what happened.
    pub(crate) fn note(&mut self, connection: Option<&str>, text: String) {
        self.push(connection, false, text);
    }

    /// Remembers a failure; it is the connection's until it succeeds.
    pub(crate) fn fail(&mut self, connection: Option<&str>, text: String) {
        if let Some(name) = connection
            && (self.failures.len() < MAX_FAILURES || self.failures.contains_key(name))
        {
            self.failures.insert(name.to_owned(), (unix_ms(), text.clone()));
        }
        self.push(connection, true, text);
    }

    /// The connection works: its last failure is history.
    pub(crate) fn succeeded(&mut self, connection: &str) {
        self.failures.remove(connection);
    }

    /// The last failure since the connection last worked.
    pub(crate) fn failure(&self, connection: &str) -> Option<&str> {
        self.failures.get(connection).map(|(_, text)| text.as_str())
    }

    fn push(&mut self, connection: Option<&str>, is_failure: bool, text: String) {
        if self.lines.len() >= MAX_LINES {
            self.lines.pop_front();
        }
        self.untold = (self.untold + 1).min(MAX_LINES);
        self.lines.push_back(Line {
            unix_ms: unix_ms(),
            connection: connection.map(str::to_owned),
            is_failure,
            text,
        });
    }

    /// The lines since it was last called.
    pub(crate) fn news(&mut self) -> Vec<Value> {
        match std::mem::take(&mut self.untold) {
            0 => Vec::new(),
            untold => self.records(None, untold),
        }
    }

    /// The latest lines, at most `limit`, of one connection or of all.
    pub(crate) fn records(&self, connection: Option<&str>, limit: usize) -> Vec<Value> {
        let fits = |line: &&Line| connection.is_none() || line.connection.as_deref() == connection;
        let mut records: Vec<Value> = self
            .lines
            .iter()
            .rev()
            .filter(fits)
            .take(limit)
            .map(|line| {
                json!({
                    "unix_ms": line.unix_ms,
                    "connection": line.connection,
                    "failure": line.is_failure,
                    "text": line.text,
                })
            })
            .collect();
        records.reverse();
        records
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_and_a_success_ends_a_failure() {
        let mut journal = Journal::default();
        for number in 0..MAX_LINES + 10 {
            journal.note(Some("a"), number.to_string());
        }
        journal.fail(Some("b"), "no".to_owned());
        assert_eq!(journal.lines.len(), MAX_LINES);
        assert_eq!(
            journal.records(Some("a"), 2)[1]["text"],
            (MAX_LINES + 9).to_string()
        );
        assert_eq!(journal.failure("b"), Some("no"));
        journal.succeeded("b");
        assert_eq!(journal.failure("b"), None);
        assert_eq!(journal.records(None, 1)[0]["failure"], true);
    }
}
