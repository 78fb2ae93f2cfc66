//! `penstock reload`: applies what changed in the configuration.

use clap::Args;
use control::admin::{ExitCode, Request};

use crate::Session;
use crate::output;

/// Apply what changed in the configuration: all of it, or nothing and a reason.
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock reload --dry-run\n  penstock reload")]
pub(crate) struct Reload {
    /// Only say whether it would be taken
    #[arg(long)]
    dry_run: bool,
}

impl Reload {
    pub(crate) fn run(&self, session: &mut Session) -> ExitCode {
        let request = Request::Reload {
            dry_run: self.dry_run,
        };
        let end = output::ask(session, &request, |_| true);
        if let Ok((ExitCode::Done, Some(message))) = &end {
            println!("{message}");
        }
        output::finish(end)
    }
}
