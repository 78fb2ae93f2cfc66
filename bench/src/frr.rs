//! A router's FRR: its daemons in a namespace, as Debian packages them, with zebra telling its tables over FPM.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{Group, User};
use thiserror::Error;

use crate::namespace::{CommandError, Namespace, run};
use crate::process::{Process, wait_until};

const DAEMONS: &str = "/usr/lib/frr";
const START_LIMIT: Duration = Duration::from_secs(20);

/// Why FRR does not run.
#[derive(Debug, Error)]
pub enum FrrError {
    /// Files or processes.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A command failed.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// The package is not there.
    #[error("FRR is not installed: run `scripts/packages test`")]
    Missing,
    /// zebra did not come up.
    #[error("zebra does not answer after {START_LIMIT:?}; its log:\n{0}")]
    Silent(String),
}

/// The daemons of one router; ended on drop, zebra last.
#[derive(Debug)]
pub struct Frr {
    namespace: Namespace,
    folder: PathBuf,
    preload: PathBuf,
    daemons: Vec<(&'static str, Process)>,
}

impl Frr {
    /// Starts zebra and then the `daemons`, each with its configuration.
    ///
    /// zebra runs under `bench/frr/zebra-preload.c`, which says what it makes up for where the kernel has no MPLS.
    ///
    /// # Errors
    /// See [`FrrError`].
    pub fn start(
        namespace: &Namespace,
        zebra: &str,
        daemons: &[(&'static str, String)],
    ) -> Result<Self, FrrError> {
        let (Ok(Some(user)), Ok(Some(group))) = (User::from_name("frr"), Group::from_name("frr")) else {
            return Err(FrrError::Missing);
        };
        let folder = std::env::temp_dir().join(format!("frr-{}", namespace.name()));
        fs::create_dir_all(&folder)?;
        chown(&folder, Some(user.uid.as_raw()), Some(group.gid.as_raw()))?;
        let preload = folder.join("zebra-preload.so");
        run(Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&preload)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("frr/zebra-preload.c"))
            .arg("-ldl"))?;
        let mut frr = Self {
            namespace: Namespace::of(namespace.name()),
            folder,
            preload,
            daemons: Vec::new(),
        };
        frr.write("zebra", zebra)?;
        for (daemon, configuration) in daemons {
            frr.write(daemon, configuration)?;
        }
        frr.start_zebra()?;
        for (daemon, _) in daemons {
            frr.run(daemon, &[])?;
        }
        Ok(frr)
    }

    fn write(&self, daemon: &str, configuration: &str) -> io::Result<()> {
        fs::write(self.folder.join(format!("{daemon}.conf")), configuration)
    }

    /// Starts zebra, anew after a kill.
    ///
    /// # Errors
    /// See [`FrrError`].
    pub fn start_zebra(&mut self) -> Result<(), FrrError> {
        let socket = self.folder.join("zserv.api");
        let _ = fs::remove_file(&socket);
        self.run("zebra", &["-M", "dplane_fpm_nl"])?;
        if wait_until(START_LIMIT, || socket.exists()) {
            return Ok(());
        }
        Err(FrrError::Silent(self.log("zebra")))
    }

    fn run(&mut self, daemon: &'static str, arguments: &[&str]) -> io::Result<()> {
        let mut command = self.namespace.command("env");
        if daemon == "zebra" {
            command.arg(format!("LD_PRELOAD={}", self.preload.display()));
        }
        command
            .arg(format!("{DAEMONS}/{daemon}"))
            .args(["-u", "frr", "-g", "frr", "-P", "0", "--vty_socket"])
            .arg(&self.folder)
            .arg("-z")
            .arg(self.folder.join("zserv.api"))
            .arg("-i")
            .arg(self.folder.join(format!("{daemon}.pid")))
            .arg("-f")
            .arg(self.folder.join(format!("{daemon}.conf")))
            .args(["--log", "stdout"])
            .args(arguments);
        if daemon == "ldpd" {
            command.arg("--ctl_socket").arg(&self.folder);
        }
        let process = Process::spawn(command, &self.folder.join(format!("{daemon}.log")))?;
        self.daemons.retain(|(name, _)| *name != daemon);
        self.daemons.insert(0, (daemon, process));
        Ok(())
    }

    /// Kills a daemon, as a crash would.
    ///
    /// # Errors
    /// Where the kernel cannot say what became of it.
    pub fn kill(&mut self, daemon: &str) -> io::Result<()> {
        if let Some((_, process)) = self.daemons.iter_mut().find(|(name, _)| *name == daemon) {
            process.kill()?;
        }
        Ok(())
    }

    /// What a daemon has printed.
    #[must_use]
    pub fn log(&self, daemon: &str) -> String {
        self.daemons
            .iter()
            .find(|(name, _)| *name == daemon)
            .map(|(_, process)| process.log())
            .unwrap_or_default()
    }

    /// What `vtysh -c COMMAND` answers.
    ///
    /// # Errors
    /// [`CommandError`] where it does not.
    pub fn show(&self, command: &str) -> Result<String, CommandError> {
        run(Command::new("vtysh")
            .arg("--vty_socket")
            .arg(&self.folder)
            .args(["-c", command]))
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        // Routing daemons first, which say good-bye to their neighbours by way of zebra.
        while let Some(at) = self.daemons.iter().position(|(name, _)| *name != "zebra") {
            self.daemons.remove(at);
        }
        for (_, zebra) in &mut self.daemons {
            // It hangs now and then when told to end.
            let _ = zebra.kill();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
