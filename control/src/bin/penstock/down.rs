//! `penstock down`: closes a connection.

use clap::Args;
use control::admin::{ExitCode, Request};

use crate::Session;
use crate::output;

/// Close a connection, or one child of it; traffic or the peer may bring it up again.
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock down site-b\n  penstock down site-b voice")]
pub(crate) struct Down {
    /// The connection
    #[arg(add = clap_complete::ArgValueCompleter::new(crate::completions::connections))]
    connection: String,
    /// One of its children; all, and the IKE SA, where none is named
    child: Option<String>,
}

impl Down {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let request = Request::Down {
            connection: self.connection.clone(),
            child: self.child.clone(),
            // The daemon answers before the client gives up.
            wait_seconds: session.timeout.as_secs().saturating_sub(1).max(1),
        };
        output::act(session, &request)
    }
}
