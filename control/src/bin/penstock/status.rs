//! `penstock status`: the gateway in a few lines.

use clap::Args;
use control::admin::{ExitCode, Request};

use crate::Session;
use crate::output;

/// The gateway in a few lines.
#[derive(Args, Default)]
#[command(after_help = "Examples:\n  penstock\n  penstock status --json")]
pub(crate) struct Status {}

impl Status {
    pub(crate) fn run(&self, session: &mut Session) -> ExitCode {
        output::print_one(session, &Request::Status {})
    }
}
