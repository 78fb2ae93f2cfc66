//! `penstock man`: manual pages, for packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use control::admin::ExitCode;

/// Write the manual pages, one a verb, into a folder
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock man /usr/share/man/man8\n  penstock man ./man && man ./man/penstock-show.8"
)]
pub(crate) struct Man {
    /// The folder
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(&self) -> ExitCode {
        let written = std::fs::create_dir_all(&self.folder).and_then(|()| {
            let mut command = crate::Arguments::command();
            command.build();
            self.write(&command, "penstock")
        });
        match written {
            Ok(()) => ExitCode::Done,
            Err(error) => {
                eprintln!("penstock: {}: {error}", self.folder.display());
                ExitCode::Usage
            }
        }
    }

    fn write(&self, command: &clap::Command, name: &str) -> std::io::Result<()> {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .title(name.to_owned())
            .section("8")
            .manual("Penstock")
            .render(&mut page)?;
        std::fs::write(self.folder.join(format!("{name}.8")), page)?;
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            self.write(verb, &format!("{name}-{}", verb.get_name()))?;
        }
        Ok(())
    }
}
