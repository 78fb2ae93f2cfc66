//! `penstock-dataplane`: options, and the main thread.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dataplane::config::{BusyPoll, Config, ConfigError, Idle, parse_cores};
use dataplane::seccomp::Mode;
use dataplane::supervisor;
use tracing_subscriber::EnvFilter;

/// Forwards and protects packets on AF_XDP; takes everything it does from penstock-control.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where the control process connects
    #[arg(long, default_value = "/run/penstock/dataplane.sock")]
    socket: PathBuf,
    /// A worker on each of these cores, such as 2,4-7; without it one worker on any core
    #[arg(long, value_parser = cores)]
    cores: Option<Cores>,
    /// Chunks of packet memory for each worker, 4096 bytes each
    #[arg(long, default_value_t = 16_384)]
    frames_per_worker: u32,
    /// Packet memory in 2 MiB pages, where the host has some reserved
    #[arg(long)]
    hugepages: bool,
    /// What a worker without packets does
    #[arg(long, value_enum, default_value_t)]
    idle: Idle,
    /// Poll zero-copy devices for so many microseconds at a time instead of being interrupted; for drivers that do
    /// it well, with napi_defer_hard_irqs and gro_flush_timeout set on the device. Devices that copy are left alone
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll: Option<u32>,
    /// Packets that one poll of a device takes at most
    #[arg(long, value_name = "PACKETS", default_value_t = 64, requires = "busy_poll")]
    busy_poll_budget: u32,
    /// What becomes of a system call that the dataplane has no use for once it runs
    #[arg(long, value_enum, default_value_t)]
    seccomp: Mode,
    /// The device by which the host's own traffic enters and leaves tunnels
    #[arg(long, default_value = "penstock0", conflicts_with = "no_tap")]
    tap_name: String,
    /// Do without that device
    #[arg(long)]
    no_tap: bool,
    /// Become this user once everything privileged is open
    #[arg(long)]
    user: Option<String>,
    /// What to log, such as info or dataplane=debug
    #[arg(long, default_value = "info", env = "PENSTOCK_LOG")]
    log: String,
}

#[derive(Clone, Debug)]
struct Cores(Vec<usize>);

fn cores(text: &str) -> Result<Cores, ConfigError> {
    parse_cores(text).map(Cores)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = match EnvFilter::try_new(&options.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("penstock-dataplane: --log {:?}: {error}", options.log);
            return ExitCode::from(1);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let config = Config {
        socket: options.socket,
        cores: options.cores.map_or_else(Vec::new, |cores| cores.0),
        frames_per_worker: options.frames_per_worker,
        hugepages: options.hugepages,
        idle: options.idle,
        busy_poll: options.busy_poll.map(|duration_us| BusyPoll {
            duration_us,
            budget_packets: options.busy_poll_budget,
        }),
        seccomp: options.seccomp,
        tap_name: (!options.no_tap).then_some(options.tap_name),
    };
    match supervisor::run(&config, options.user.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
