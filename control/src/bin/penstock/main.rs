//! `penstock`: the command line.

mod check;
mod exit;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;

#[derive(Parser)]
#[command(
    name = "penstock",
    version,
    about = "Looks at and steers the Penstock gateway of this machine",
    after_help = "Exit codes: 0 done; 1 bad usage or configuration; 2 refused; 3 daemon unreachable; 4 timed out; \
                  5 done in part; 6 not found"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check a configuration file offline, without root and without a daemon
    Check(check::Check),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not faults.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Nobody is left to tell where the terminal is gone.
            let _ = error.print();
            return exit.into();
        }
    };
    match arguments.verb {
        Verb::Check(check) => check.run(),
    }
    .into()
}
