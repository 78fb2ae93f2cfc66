//! `penstock rekey`: renews keys.

use clap::Args;
use control::admin::{ExitCode, Request};

use crate::Session;
use crate::output;

/// Renew the IKE SA of a connection, or the pair of one child.
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock rekey site-b\n  penstock rekey site-b voice")]
pub(crate) struct Rekey {
    /// The connection
    #[arg(add = clap_complete::ArgValueCompleter::new(crate::completions::connections))]
    connection: String,
    /// The child whose pair is renewed; the IKE SA where none is named
    child: Option<String>,
}

impl Rekey {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let request = Request::Rekey {
            connection: self.connection.clone(),
            child: self.child.clone(),
            // The daemon answers before the client gives up.
            wait_seconds: session.timeout.as_secs().saturating_sub(1).max(1),
        };
        output::act(session, &request)
    }
}
