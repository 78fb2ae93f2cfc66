//! `penstock check`: reads a configuration as the daemon would, and changes nothing.

use std::path::PathBuf;

use clap::Args;
use control::admin::ExitCode;
use control::config::{DEFAULT_PATH, Gateway, KeyAccess};

/// Check a configuration file and the conf.d beside it.
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock check\n  penstock check ./site-b.toml")]
pub(crate) struct Check {
    /// The main file
    #[arg(default_value = DEFAULT_PATH)]
    file: PathBuf,
}

impl Check {
    pub(crate) fn run(&self) -> ExitCode {
        match Gateway::load(&self.file, KeyAccess::IfReadable) {
            Ok(loaded) => {
                for note in &loaded.notes {
                    eprintln!("note: {note}");
                }
                println!(
                    "{}: ok ({} ports, {} tunnels, {} connections, {} policies)",
                    self.file.display(),
                    loaded.gateway.ports.len(),
                    loaded.gateway.tunnels.len(),
                    loaded.gateway.connections.len(),
                    loaded.gateway.policies.len()
                );
                ExitCode::Done
            }
            Err(problems) => {
                eprintln!("{problems}");
                ExitCode::Usage
            }
        }
    }
}
