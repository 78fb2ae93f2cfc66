//! A whole gateway in a namespace: both daemons, as built, with a configuration of their own.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::namespace::{CommandError, Namespace, run};
use crate::process::{Process, wait_until};

/// How long a daemon may take from its start to its socket: binding veth queues takes a second, a slow
/// NIC some more.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Why a gateway does not run.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A program of this project is not built.
    #[error("{0} is not built beside this program: run `make build`")]
    NotBuilt(String),
    /// Files or processes.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A command failed.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// A daemon did not come up.
    #[error("{daemon} does not answer after {START_LIMIT:?}; its log:\n{log}")]
    Silent {
        /// Which.
        daemon: &'static str,
        /// What it printed.
        log: String,
    },
    /// No tunnel between two gateways.
    #[error("no answer from {host} through the tunnel\n{situation}")]
    NoTunnel {
        /// Who was asked.
        host: IpAddr,
        /// What both gateways say.
        situation: String,
    },
    /// The command line printed something that is no JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Options of a gateway's dataplane.
#[derive(Clone, Debug)]
pub struct Dataplane {
    /// The CPUs of its workers.
    pub cores: Vec<u16>,
    /// Frames of each worker's UMEM.
    pub frames_per_worker: u32,
    /// More arguments of its command line.
    pub arguments: Vec<String>,
    /// Its environment, beside what it inherits.
    pub environment: Vec<(&'static str, String)>,
    /// And that of control.
    pub control_environment: Vec<(&'static str, String)>,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            cores: vec![0],
            frames_per_worker: 8192,
            // A call that the filter forgot must not hide as an error that somebody puts up with.
            arguments: ["--seccomp", "kill"].map(str::to_owned).to_vec(),
            environment: Vec::new(),
            control_environment: Vec::new(),
        }
    }
}

/// Both daemons in one namespace; stopped on drop, control first.
#[derive(Debug)]
pub struct Gateway {
    namespace: String,
    folder: PathBuf,
    options: Dataplane,
    control: Option<Process>,
    dataplane: Option<Process>,
}

impl Gateway {
    /// Writes `configuration` as `penstock.toml`, and each secret as a file of mode 0600 beside it, into a
    /// folder of the gateway's own, and starts the dataplane and then control. The text `{folder}` in the
    /// configuration stands for that folder.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn start(
        namespace: &Namespace,
        configuration: &str,
        secrets: &[(&str, &str)],
        options: Dataplane,
    ) -> Result<Self, GatewayError> {
        let folder = std::env::temp_dir().join(format!("penstock-{}", namespace.name()));
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        let mut gateway = Self {
            namespace: namespace.name().to_owned(),
            folder,
            options,
            control: None,
            dataplane: None,
        };
        gateway.configure(configuration)?;
        for (name, secret) in secrets {
            let path = gateway.folder.join(name);
            std::fs::write(&path, secret)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        }
        gateway.start_dataplane()?;
        gateway.start_control()?;
        Ok(gateway)
    }

    /// Replaces the configuration file; `penstock reload` applies it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn configure(&self, configuration: &str) -> io::Result<()> {
        let text = configuration.replace("{folder}", &self.folder.to_string_lossy());
        std::fs::write(self.folder.join("penstock.toml"), text)
    }

    /// The folder of configuration, secrets, sockets, state and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the dataplane and waits for its socket.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn start_dataplane(&mut self) -> Result<(), GatewayError> {
        let cores: Vec<_> = self.options.cores.iter().map(u16::to_string).collect();
        let mut command = self.inside("penstock-dataplane")?;
        command.arg("--socket").arg(self.folder.join("dataplane.sock"));
        command.args(["--cores", &cores.join(",")]);
        command.args(["--frames-per-worker", &self.options.frames_per_worker.to_string()]);
        command.args(&self.options.arguments);
        command.envs(self.options.environment.iter().cloned());
        let socket = self.folder.join("dataplane.sock");
        let _ = std::fs::remove_file(&socket);
        let process = Process::spawn(command, &self.folder.join("dataplane.log"))?;
        let up = wait_until(START_LIMIT, || socket.exists());
        let log = process.log();
        self.dataplane = Some(process);
        if up {
            Ok(())
        } else {
            Err(GatewayError::Silent {
                daemon: "penstock-dataplane",
                log,
            })
        }
    }

    /// Starts control and waits until it answers the command line.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn start_control(&mut self) -> Result<(), GatewayError> {
        let mut command = self.inside("penstock-control")?;
        command.arg("--config").arg(self.folder.join("penstock.toml"));
        command
            .arg("--dataplane-socket")
            .arg(self.folder.join("dataplane.sock"));
        command
            .arg("--admin-socket")
            .arg(self.folder.join("control.sock"));
        command.arg("--state").arg(self.folder.join("state"));
        command.envs(self.options.control_environment.iter().cloned());
        let process = Process::spawn(command, &self.folder.join("control.log"))?;
        self.control = Some(process);
        if wait_until(START_LIMIT, || self.penstock(&["show", "ports"]).is_ok()) {
            Ok(())
        } else {
            let log = self.control.as_ref().map(Process::log).unwrap_or_default();
            Err(GatewayError::Silent {
                daemon: "penstock-control",
                log,
            })
        }
    }

    /// The dataplane's process, for signals; `None` between a kill and the next start.
    pub fn dataplane(&mut self) -> Option<&mut Process> {
        self.dataplane.as_mut()
    }

    /// Control's process, for signals; `None` between a kill and the next start.
    pub fn control(&mut self) -> Option<&mut Process> {
        self.control.as_mut()
    }

    /// Runs the command line against this gateway and returns what it printed.
    ///
    /// # Errors
    /// [`GatewayError::Command`] where it ends with another status than 0.
    pub fn penstock(&self, arguments: &[&str]) -> Result<String, GatewayError> {
        let mut command = Command::new(built("penstock")?);
        command
            .arg("--socket")
            .arg(self.folder.join("control.sock"))
            .args(arguments);
        Ok(run(&mut command)?)
    }

    /// The same with `--json`, parsed.
    ///
    /// # Errors
    /// See [`Self::penstock`], and where the answer is no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, GatewayError> {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        Ok(serde_json::from_str(&self.penstock(&arguments)?)?)
    }

    /// Both logs, for a failing test's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let log = |process: &Option<Process>| process.as_ref().map(Process::log).unwrap_or_default();
        format!(
            "--- dataplane\n{}\n--- control\n{}",
            log(&self.dataplane),
            log(&self.control)
        )
    }

    fn inside(&self, program: &str) -> Result<Command, GatewayError> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(built(program)?);
        Ok(command)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.control.take();
        self.dataplane.take();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The path of a program of this project, built in the same profile as the running one.
///
/// # Errors
/// [`GatewayError::NotBuilt`] where it is not there.
pub fn built(program: &str) -> Result<PathBuf, GatewayError> {
    let running = std::env::current_exe()?;
    // target/PROFILE/program, target/PROFILE/deps/test or target/PROFILE/examples/example
    running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| GatewayError::NotBuilt(program.to_owned()))
}
