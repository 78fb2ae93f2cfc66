//! `penstock up`: negotiates a connection.

use clap::Args;
use control::admin::{ExitCode, Request};

use crate::Session;
use crate::output;

/// Negotiate a connection, or one child of it, and wait for the outcome.
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock up site-b\n  penstock up site-b voice --timeout 60")]
pub(crate) struct Up {
    /// The connection
    #[arg(add = clap_complete::ArgValueCompleter::new(crate::completions::connections))]
    connection: String,
    /// One of its children; all where none is named
    child: Option<String>,
}

impl Up {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let request = Request::Up {
            connection: self.connection.clone(),
            child: self.child.clone(),
            // The daemon answers before the client gives up.
            wait_seconds: session.timeout.as_secs().saturating_sub(1).max(1),
        };
        output::act(session, &request)
    }
}
