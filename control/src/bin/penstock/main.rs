//! `penstock`: the command line.

mod capture;
mod check;
mod completions;
mod down;
mod host;
mod import;
mod init;
mod keygen;
mod log;
mod man;
mod monitor;
mod output;
mod pki;
mod rekey;
mod reload;
mod secret_file;
mod show;
mod status;
mod support_bundle;
mod table;
mod top;
mod trace;
mod up;

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use control::admin::ExitCode;

use output::{Format, Output};

/// Where the daemon listens, unless said otherwise.
const DEFAULT_SOCKET: &str = "/run/penstock/admin.sock";

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
        default_value = DEFAULT_SOCKET
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
    /// Print events as they happen
    Monitor(monitor::Monitor),
    /// Live rates of tunnels, workers and ports
    Top(top::Top),
    /// Follow packets through every stage
    Trace(trace::Trace),
    /// Write packets to a pcapng file, clear and encrypted
    Capture(capture::Capture),
    /// Make a random key
    Keygen(keygen::Keygen),
    /// Make certificates
    Pki(pki::Pki),
    /// Write a first configuration for this machine
    Init(init::Init),
    /// Check and tune this machine
    Host(host::Host),
    /// Turn another gateway's configuration into Penstock's
    Import(import::Import),
    /// Gather what somebody who helps needs to see
    SupportBundle(support_bundle::SupportBundle),
    /// Print a shell's completion script
    Completions(completions::Completions),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Man),
}

/// How the daemon is reached and how its answers are printed.
struct Session {
    socket: PathBuf,
    timeout: Duration,
    output: Output,
}

fn main() -> process::ExitCode {
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
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
        Some(Verb::Monitor(monitor)) => monitor.run(&session),
        Some(Verb::Top(top)) => top.run(&session),
        Some(Verb::Trace(trace)) => trace.run(&session),
        Some(Verb::Capture(capture)) => capture.run(&session),
        Some(Verb::Keygen(keygen)) => keygen.run(),
        Some(Verb::Pki(pki)) => pki.run(),
        Some(Verb::Init(init)) => init.run(),
        Some(Verb::Host(host)) => host.run(&session),
        Some(Verb::Import(import)) => import.run(),
        Some(Verb::SupportBundle(bundle)) => bundle.run(&session),
        Some(Verb::Completions(completions)) => completions.run(),
        Some(Verb::Man(man)) => man.run(),
    };
    u8::from(code).into()
}
