//! `penstock`: the command line.

mod check;
mod down;
mod log;
mod output;
mod rekey;
mod reload;
mod show;
mod status;
mod table;
mod up;

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use clap::{Parser, Subcommand};
use control::admin::ExitCode;

use output::{Format, Output};

#[derive(Parser)]
#[command(
    name = "penstock",
    version,
    about = "Looks at and steers the Penstock gateway of this machine",
    after_help = "Without a verb, the status is shown.\n\n\
                  Exit codes: 0 done; 1 bad usage or configuration; 2 refused; 3 daemon unreachable; \
                  4 timed out; 5 done in part; 6 not found"
)]
struct Arguments {
    /// Print JSON: one document, or with =lines one object a line
    #[arg(long, global = true, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "document")]
    json: Option<Format>,
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/penstock/admin.sock"
    )]
    socket: PathBuf,
    /// Seconds to wait for each part of an answer
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 15)]
    timeout: u64,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// The gateway in a few lines (also without a verb)
    Status(status::Status),
    /// List what the gateway has
    Show(show::Show),
    /// Negotiate a connection and wait for the outcome
    Up(up::Up),
    /// Close a connection
    Down(down::Down),
    /// Renew the keys of a connection
    Rekey(rekey::Rekey),
    /// What was negotiated and what failed
    Log(log::Log),
    /// Apply what changed in the configuration, all of it or nothing
    Reload(reload::Reload),
    /// Check a configuration file, without root and without a daemon
    Check(check::Check),
}

/// How the daemon is reached and how its answers are printed.
struct Session {
    socket: PathBuf,
    timeout: Duration,
    output: Output,
}

fn main() -> process::ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not faults.
            let code = if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Done
            };
            // Nobody is left to tell where the terminal is gone.
            let _ = error.print();
            return u8::from(code).into();
        }
    };
    let mut session = Session {
        socket: arguments.socket,
        timeout: Duration::from_secs(arguments.timeout.clamp(1, 3600)),
        output: Output::new(arguments.json),
    };
    let code = match &arguments.verb {
        None => status::Status::default().run(&mut session),
        Some(Verb::Status(status)) => status.run(&mut session),
        Some(Verb::Show(show)) => show.run(&mut session),
        Some(Verb::Up(up)) => up.run(&session),
        Some(Verb::Down(down)) => down.run(&session),
        Some(Verb::Rekey(rekey)) => rekey.run(&session),
        Some(Verb::Log(log)) => log.run(&mut session),
        Some(Verb::Reload(reload)) => reload.run(&mut session),
        Some(Verb::Check(check)) => check.run(),
    };
    u8::from(code).into()
}
