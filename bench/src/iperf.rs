//! TCP and UDP by iperf3 between two hosts.

use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::namespace::{CommandError, Namespace, run};
use crate::process::{Process, wait_until};

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum IperfError {
    /// The client failed.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// The server did not start.
    #[error("iperf3 server: {0}")]
    Server(std::io::Error),
    /// The client's report is not as expected.
    #[error("iperf3 reported: {0}")]
    Report(String),
}

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Bits of payload received a second.
    pub bits_per_second: f64,
    /// Datagrams sent, and lost on the way; UDP only.
    pub datagrams: Option<(u64, u64)>,
}

/// A load to run.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// As fast as TCP goes, over this many connections.
    Tcp {
        /// Connections at once.
        streams: u8,
    },
    /// UDP at a rate.
    Udp {
        /// Bits of payload a second.
        bits_per_second: u64,
        /// Payload bytes of each datagram.
        payload_bytes: u16,
    },
}

/// Runs one load from `client` to `server_address` in `server` for `seconds`.
///
/// # Errors
/// See [`IperfError`].
pub fn measure(
    client: &Namespace,
    server: &Namespace,
    server_address: &str,
    load: Load,
    seconds: u8,
) -> Result<Measurement, IperfError> {
    let log = std::env::temp_dir().join(format!("{}-iperf3.log", server.name()));
    let mut command = server.command("iperf3");
    command.args(["--server", "--one-off", "--forceflush"]);
    let listener = Process::spawn(command, &log).map_err(IperfError::Server)?;
    let listening = wait_until(Duration::from_secs(5), || listener.log().contains("listening"));
    let _ = std::fs::remove_file(&log);
    if !listening {
        return Err(IperfError::Server(std::io::ErrorKind::TimedOut.into()));
    }

    let mut command = client.command("iperf3");
    command.args([
        "--json",
        "--client",
        server_address,
        "--time",
        &seconds.to_string(),
    ]);
    match load {
        Load::Tcp { streams } => {
            command.args(["--parallel", &streams.to_string()]);
        }
        Load::Udp {
            bits_per_second,
            payload_bytes,
        } => {
            command.args(["--udp", "--bitrate", &bits_per_second.to_string()]);
            command.args(["--length", &payload_bytes.to_string()]);
        }
    }
    let text = run(&mut command)?;
    let report: Value = serde_json::from_str(&text).map_err(|_| IperfError::Report(text.clone()))?;
    read(&report, load).ok_or(IperfError::Report(text))
}

fn read(report: &Value, load: Load) -> Option<Measurement> {
    let end = &report["end"];
    match load {
        Load::Tcp { .. } => Some(Measurement {
            bits_per_second: end["sum_received"]["bits_per_second"].as_f64()?,
            datagrams: None,
        }),
        Load::Udp { .. } => {
            let sum = &end["sum"];
            let (sent, lost) = (sum["packets"].as_u64()?, sum["lost_packets"].as_u64()?);
            let seconds = sum["seconds"].as_f64()?;
            let bytes = sum["bytes"].as_f64()?;
            let arrived = 1.0 - lost as f64 / (sent.max(1)) as f64;
            Some(Measurement {
                bits_per_second: bytes * 8.0 / seconds * arrived,
                datagrams: Some((sent, lost)),
            })
        }
    }
}
