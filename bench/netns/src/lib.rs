//! Network namespaces that vanish with their owner: what every test and benchmark of this workspace stands in.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;

/// A command that did not do its part.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot run {command}: {source}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
}

/// Runs a command to its end.
///
/// # Errors
/// [`CommandError`] where it cannot start or does not end with status 0.
pub fn run(command: &mut Command) -> Result<String, CommandError> {
    let line = format!("{command:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().map_err(|source| CommandError::Start {
        command: line.clone(),
        source,
    })?;
    if status.success() {
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(CommandError::Failed {
            command: line,
            status,
            stderr,
        })
    }
}

/// A network namespace, deleted on drop with everything in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    is_ours: bool,
}

impl Namespace {
    /// Makes a namespace whose name starts with `stem` and is unique on this machine.
    ///
    /// # Errors
    /// [`CommandError`] without root or iproute2.
    pub fn new(stem: &str) -> Result<Self, CommandError> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self::named(format!("{stem}-{}-{serial}", std::process::id()))
    }

    /// Makes a namespace of exactly this name. One that an interrupted run left behind, with no process
    /// in it, is replaced.
    ///
    /// # Errors
    /// [`CommandError`] where it is in use, or without root or iproute2.
    pub fn named(name: String) -> Result<Self, CommandError> {
        let inhabitants = run(Command::new("ip").args(["netns", "pids", &name]));
        if inhabitants.is_ok_and(|processes| processes.trim().is_empty()) {
            run(Command::new("ip").args(["netns", "delete", &name]))?;
        }
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name, is_ours: true };
        namespace.ip("link set lo up")?;
        // Duplicate address detection would hold IPv6 addresses back for a second and more.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        Ok(namespace)
    }

    /// One that somebody else made, and deletes.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_ours: false,
        }
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command line, split at white space, inside.
    ///
    /// # Errors
    /// [`CommandError`] where it does not end with status 0.
    pub fn run(&self, line: &str) -> Result<String, CommandError> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        run(command.args(words))
    }

    /// Runs `ip` with these arguments, split at white space, on this namespace.
    ///
    /// # Errors
    /// [`CommandError`] where it does not end with status 0.
    pub fn ip(&self, arguments: &str) -> Result<String, CommandError> {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split_whitespace()))
    }

    /// Runs a batch of `ip` commands on this namespace, as fast as `ip` can.
    ///
    /// # Errors
    /// [`CommandError`] where one of them fails.
    pub fn batch(&self, lines: impl Iterator<Item = String>) -> Result<(), CommandError> {
        let path = std::env::temp_dir().join(format!("{}-batch", self.name));
        let write = || std::fs::write(&path, lines.collect::<Vec<_>>().join("\n"));
        write().map_err(|source| CommandError::Start {
            command: format!("write {}", path.display()),
            source,
        })?;
        let outcome = self.ip(&format!("-batch {}", path.display()));
        // A file in a temporary folder that cannot be removed harms nobody.
        let _ = std::fs::remove_file(&path);
        outcome.map(drop)
    }

    /// Makes a veth pair whose ends are both inside, up.
    ///
    /// # Errors
    /// [`CommandError`] where a name is taken.
    pub fn veth(&self, one: &str, other: &str) -> Result<(), CommandError> {
        self.ip(&format!("link add name {one} type veth peer name {other}"))?;
        self.ip(&format!("link set {one} up"))?;
        self.ip(&format!("link set {other} up")).map(drop)
    }

    /// Moves the calling thread inside, for ever, and with it what it opens and starts.
    ///
    /// # Errors
    /// Without root.
    pub fn enter(&self) -> io::Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// What `make` opens inside; a socket stays in the namespace it was opened in.
    ///
    /// # Errors
    /// What `make` answers, or without root.
    pub fn open<T: Send>(&self, make: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|threads| {
            let opened = threads.spawn(|| {
                self.enter()?;
                make()
            });
            opened
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("what was to be opened panicked")))
        })
    }

    /// Sets a kernel parameter inside.
    ///
    /// # Errors
    /// [`CommandError`] where the kernel has no such parameter or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), CommandError> {
        run(self.command("sysctl").args(["-qw", &format!("{name}={value}")])).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.is_ours {
            // Nothing is left to tell a failure to: the name shows in `ip netns`.
            let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
        }
    }
}
