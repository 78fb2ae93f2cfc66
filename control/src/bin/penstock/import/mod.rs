//! `penstock import`: another gateway's configuration as Penstock's.

mod carry;
mod swanctl;

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use control::admin::ExitCode;

use crate::secret_file;

/// Turn another gateway's configuration into Penstock's, and say what could not be carried over
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock import swanctl /etc/swanctl/swanctl.conf\n  \
                        penstock import swanctl /etc/swanctl/swanctl.conf --out /etc/penstock/conf.d/swanctl.toml"
)]
pub(crate) struct Import {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// strongSwan's swanctl.conf: connections, children, secrets, pools
    Swanctl {
        /// The file; what it includes is read too
        file: PathBuf,
        /// A new file, with its secrets in files of mode 0600 beside it, instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

impl Import {
    pub(crate) fn run(&self) -> ExitCode {
        let What::Swanctl { file, out } = &self.what;
        let section = match swanctl::read(file) {
            Ok(section) => section,
            Err(message) => {
                eprintln!("penstock: {message}");
                return ExitCode::Usage;
            }
        };
        let carried = carry::carry(&section);
        match out {
            None => print!("{}", carried.text),
            Some(path) => {
                let folder = path.parent().unwrap_or(std::path::Path::new("."));
                let written = fs::create_dir_all(folder)
                    .and_then(|()| {
                        carried
                            .secrets
                            .iter()
                            .try_for_each(|(name, secret)| secret_file::create(&folder.join(name), secret))
                    })
                    .and_then(|()| secret_file::create_public(path, &carried.text));
                if let Err(error) = written {
                    eprintln!("penstock: {error}");
                    return ExitCode::Usage;
                }
                println!("{}", path.display());
            }
        }
        if out.is_none() && !carried.secrets.is_empty() {
            let names: Vec<_> = carried.secrets.iter().map(|(name, _)| name.as_str()).collect();
            eprintln!(
                "note: secrets belong into files of mode 0600, which --out writes: {}",
                names.join(", ")
            );
        }
        for note in &carried.notes {
            eprintln!("not carried over: {note}");
        }
        if carried.notes.is_empty() {
            ExitCode::Done
        } else {
            ExitCode::Partial
        }
    }
}
