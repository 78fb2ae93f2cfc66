//! What the command line says, checked.

use std::path::PathBuf;

use southbound::MAX_WORKERS;
use thiserror::Error;

use crate::seccomp::Mode;
use crate::xsk::MAX_FRAME_COUNT;

/// How a worker without packets passes the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Idle {
    /// Looks again for a short while, then sleeps in the kernel until a packet comes.
    #[default]
    Adaptive,
    /// Always looks again: for cores that nothing else uses.
    Spin,
}

/// Driving a device by the worker's own system calls instead of by interrupts (`SO_PREFER_BUSY_POLL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one call may poll for, in microseconds.
    pub duration_us: u32,
    /// Packets that one call takes from the device at most.
    pub budget_packets: u32,
}

/// Everything the dataplane is started with; the rest comes over the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the control process connects.
    pub socket: PathBuf,
    /// The core of each worker, one worker a core; empty: one worker that is not pinned.
    pub cores: Vec<usize>,
    /// Chunks of packet memory for each worker.
    pub frames_per_worker: u32,
    /// Ask for 2 MiB pages.
    pub hugepages: bool,
    /// Between packets.
    pub idle: Idle,
    /// Poll devices that are zero-copy; `None`: they interrupt.
    pub busy_poll: Option<BusyPoll>,
    /// System calls beyond those needed.
    pub seccomp: Mode,
    /// The name of the TAP device; `None`: no TAP, and what is for the host is dropped.
    pub tap_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/penstock/dataplane.sock"),
            cores: Vec::new(),
            frames_per_worker: 16_384,
            hugepages: false,
            idle: Idle::default(),
            busy_poll: None,
            seccomp: Mode::default(),
            tap_name: Some("penstock0".to_owned()),
        }
    }
}

/// Why a configuration is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not a list of cores.
    #[error("{0:?} is no list of cores: expected numbers and ranges, such as 2,4-7")]
    Cores(String),
    /// The same core twice.
    #[error("core {0} is named twice: a worker has a core of its own")]
    CoreTwice(usize),
    /// Too many.
    #[error("{0} cores: at most {MAX_WORKERS} workers are possible")]
    TooManyCores(usize),
    /// Too few or too many frames.
    #[error("{0} frames a worker: 1024 to {MAX_FRAME_COUNT} are possible")]
    Frames(u32),
    /// A budget that the kernel does not take, or a time that starves everything else.
    #[error(
        "busy-polling for {duration_us} us and {budget_packets} packets: 1 to 1000 us and 1 to 1024 packets are possible"
    )]
    BusyPoll {
        /// Microseconds.
        duration_us: u32,
        /// Packets.
        budget_packets: u32,
    },
    /// A name that no interface can have.
    #[error("{0:?} is no interface name: 1 to 15 letters, digits, '-', '_' or '.'")]
    TapName(String),
}

impl Config {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.cores.len() > MAX_WORKERS {
            return Err(ConfigError::TooManyCores(self.cores.len()));
        }
        for (index, core) in self.cores.iter().enumerate() {
            if self.cores.iter().take(index).any(|earlier| earlier == core) {
                return Err(ConfigError::CoreTwice(*core));
            }
        }
        if !(1024..=MAX_FRAME_COUNT).contains(&self.frames_per_worker) {
            return Err(ConfigError::Frames(self.frames_per_worker));
        }
        if let Some(BusyPoll {
            duration_us,
            budget_packets,
        }) = self.busy_poll
            && !((1..=1000).contains(&duration_us) && (1..=1024).contains(&budget_packets))
        {
            return Err(ConfigError::BusyPoll {
                duration_us,
                budget_packets,
            });
        }
        match &self.tap_name {
            Some(name) if !is_interface_name(name) => Err(ConfigError::TapName(name.clone())),
            _ => Ok(()),
        }
    }

    /// Workers, at least one.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.cores.len().max(1)
    }
}

/// Parses `2,4-7` into the cores it means.
///
/// # Errors
/// [`ConfigError::Cores`] for anything else.
pub fn parse_cores(text: &str) -> Result<Vec<usize>, ConfigError> {
    let wrong = || ConfigError::Cores(text.to_owned());
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        // No machine has more; without the bound a typing error would make a list that fills memory.
        if first > last || last > 4095 {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_numbers_and_ranges() {
        assert_eq!(parse_cores("3"), Ok(vec![3]));
        assert_eq!(parse_cores("2,4-7, 9"), Ok(vec![2, 4, 5, 6, 7, 9]));
        for text in ["", "a", "4-2", "1-", "-1", "1,,2", "0-99999999", "0x2"] {
            assert!(parse_cores(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(
            with(|config| config.cores = vec![1, 2, 1]),
            Err(ConfigError::CoreTwice(1))
        );
        assert_eq!(
            with(|config| config.cores = (0..65).collect()),
            Err(ConfigError::TooManyCores(65))
        );
        assert_eq!(
            with(|config| config.frames_per_worker = 100),
            Err(ConfigError::Frames(100))
        );
        for (duration_us, budget_packets) in [(0, 64), (20, 0), (1001, 64), (20, 1025)] {
            let config = Config {
                busy_poll: Some(BusyPoll {
                    duration_us,
                    budget_packets,
                }),
                ..Config::default()
            };
            assert!(matches!(config.validate(), Err(ConfigError::BusyPoll { .. })));
        }
        for name in ["", "sixteen-letters-", "a/b", "..", "a b"] {
            let config = Config {
                tap_name: Some(name.to_owned()),
                ..Config::default()
            };
            assert_eq!(config.validate(), Err(ConfigError::TapName(name.to_owned())));
        }
        assert_eq!(with(|config| config.tap_name = None), Ok(()));
    }

    #[test]
    fn there_is_always_a_worker() {
        assert_eq!(Config::default().workers(), 1);
        assert_eq!(
            Config {
                cores: vec![4, 5],
                ..Config::default()
            }
            .workers(),
            2
        );
    }
}
