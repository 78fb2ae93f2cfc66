//! `penstock completions` and the candidates that are asked of the running daemon.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::CompletionCandidate;
use control::admin::{Client, ExitCode, Frame, Noun, Request};

/// Print the completion script of a shell; names of connections, tunnels and ports are asked of the daemon as you type
#[derive(Args)]
#[command(after_help = "Examples:\n  source <(penstock completions bash)\n  \
                        penstock completions fish > ~/.config/fish/completions/penstock.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(crate) fn run(&self) -> ExitCode {
        let completer: &dyn clap_complete::env::EnvCompleter = match self.shell {
            Shell::Bash => &clap_complete::env::Bash,
            Shell::Zsh => &clap_complete::env::Zsh,
            Shell::Fish => &clap_complete::env::Fish,
        };
        let mut script = Vec::new();
        let written =
            completer.write_registration("COMPLETE", "penstock", "penstock", "penstock", &mut script);
        if written.is_err() {
            return ExitCode::Usage;
        }
        print!("{}", String::from_utf8_lossy(&script));
        ExitCode::Done
    }
}

/// Names of tunnels and interfaces of the running gateway; none where it does not answer at once.
pub(crate) fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, &[(Noun::Tunnels, "name"), (Noun::Ports, "interface")])
}

/// Names of its connections.
pub(crate) fn connections(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, &[(Noun::Ike, "connection")])
}

fn candidates(current: &OsStr, sources: &[(Noun, &str)]) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let socket = socket();
    let names: BTreeSet<String> = sources
        .iter()
        .flat_map(|(noun, field)| ask(&socket, *noun, field).unwrap_or_default())
        .filter(|name| name.starts_with(current))
        .collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// That of the command line being completed, where it names one.
fn socket() -> PathBuf {
    let mut arguments = std::env::args_os();
    while let Some(argument) = arguments.next() {
        if argument == "--socket"
            && let Some(path) = arguments.next()
        {
            return path.into();
        }
    }
    crate::DEFAULT_SOCKET.into()
}

fn ask(socket: &std::path::Path, noun: Noun, field: &str) -> Option<Vec<String>> {
    let mut client = Client::connect(socket, Duration::from_millis(500)).ok()?;
    client.ask(&Request::Show { noun, name: None }).ok()?;
    let mut names = Vec::new();
    while let Ok(Frame::Records(records)) = client.frame() {
        names.extend(
            records
                .iter()
                .filter_map(|record| record[field].as_str().map(str::to_owned)),
        );
    }
    Some(names)
}
