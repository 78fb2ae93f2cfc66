//! `penstock-control`: wiring only.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Parser;
use control::config::DEFAULT_PATH;
use control::daemon::{Daemon, Options};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use tracing::error;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(
    name = "penstock-control",
    version,
    about = "The control process of the Penstock gateway"
)]
struct Arguments {
    /// The main configuration file; conf.d/*.toml beside it follow
    #[arg(long, default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The dataplane's socket, over the configuration's
    #[arg(long)]
    dataplane_socket: Option<PathBuf>,
    /// The socket behind the command line, over the configuration's
    #[arg(long)]
    admin_socket: Option<PathBuf>,
    /// The folder of what must survive a restart, over the configuration's
    #[arg(long)]
    state: Option<PathBuf>,
}

type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Changes what is logged.
static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("PENSTOCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    // Set once, here: this is the only place that does.
    let _ = SET_LEVEL.set(Box::new(move |level| {
        let filter = EnvFilter::try_new(level).map_err(|error| format!("{level:?}: {error}"))?;
        handle.reload(filter).map_err(|error| error.to_string())
    }));
    // Keys are in this process's memory: it leaves no core and lets no other process look.
    if let Err(fault) = set_dumpable(false).and(setrlimit(Resource::RLIMIT_CORE, 0, 0)) {
        error!(error = %fault, "core dumps cannot be switched off");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            error!(error = %fault, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match Daemon::start(Options {
            log_level: |level| match SET_LEVEL.get() {
                Some(set) => set(level),
                None => Err("the log is not there yet".into()),
            },
            config: arguments.config,
            dataplane_socket: arguments.dataplane_socket,
            admin_socket: arguments.admin_socket,
            state: arguments.state,
        }) {
            Ok(daemon) => {
                daemon.run().await;
                ExitCode::SUCCESS
            }
            Err(fault) => {
                error!("{fault}");
                ExitCode::FAILURE
            }
        }
    })
}
