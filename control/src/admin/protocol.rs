//! What is said on the admin socket.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the records: `"schema"` in JSON output.
pub const SCHEMA: u32 = 1;

/// Longest request in bytes.
pub(super) const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Longest frame of an answer in bytes.
pub(super) const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// What `show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noun {
    /// Security associations.
    Sas,
    /// Tunnels.
    Tunnels,
    /// Ports.
    Ports,
    /// Routes.
    Routes,
    /// Neighbours.
    Neighbours,
    /// Rules of the SPD.
    Policies,
    /// Drops by reason.
    Drops,
    /// Workers.
    Workers,
    /// Labels.
    Labels,
    /// Routing tables.
    Vrfs,
    /// The listener for FRR.
    Fpm,
    /// IKE SAs and the connections that have none.
    Ike,
}

impl Noun {
    /// Every one of them.
    pub const ALL: [Self; 12] = [
        Self::Sas,
        Self::Tunnels,
        Self::Ports,
        Self::Routes,
        Self::Neighbours,
        Self::Policies,
        Self::Drops,
        Self::Workers,
        Self::Labels,
        Self::Vrfs,
        Self::Fpm,
        Self::Ike,
    ];

    /// Its name, which is also the key of its list in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sas => "sas",
            Self::Tunnels => "tunnels",
            Self::Ports => "ports",
            Self::Routes => "routes",
            Self::Neighbours => "neighbours",
            Self::Policies => "policies",
            Self::Drops => "drops",
            Self::Workers => "workers",
            Self::Labels => "labels",
            Self::Vrfs => "vrfs",
            Self::Fpm => "fpm",
            Self::Ike => "ike",
        }
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// One record about the whole gateway.
    Status {},
    /// Records of a kind, perhaps of one name only.
    Show {
        /// The kind.
        noun: Noun,
        /// The name of a tunnel, port or VRF that the records must bear.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Negotiates a connection, or one child of it.
    Up {
        /// The connection.
        connection: String,
        /// The child; all where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<String>,
        /// How long to wait for the outcome.
        wait_seconds: u64,
    },
    /// Closes a connection, or one child of it.
    Down {
        /// The connection.
        connection: String,
        /// The child; all, and the IKE SA, where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<String>,
        /// How long to wait for the outcome.
        wait_seconds: u64,
    },
    /// Renews the IKE SA of a connection, or the pair of one child.
    Rekey {
        /// The connection.
        connection: String,
        /// The child; the IKE SA where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<String>,
        /// How long to wait for the outcome.
        wait_seconds: u64,
    },
    /// What was negotiated and what failed, oldest first.
    Log {
        /// Of this connection only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<String>,
        /// The latest so many lines.
        lines: usize,
    },
    /// Events as they happen, without an end.
    Monitor {},
    /// Follows packets, without an end before their number is reached.
    Trace {
        /// Source or destination.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
        /// The upper protocol.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
        /// Source or destination port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// A label of its stack.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<u32>,
        /// Only packets that are dropped.
        #[serde(default)]
        drops_only: bool,
        /// How many packets.
        packets: u32,
        /// Bytes that are kept of each, at each end of its way; 0 without their bytes.
        snap_bytes: u16,
    },
    /// Changes what is logged until the next start.
    #[serde(rename = "log-level")]
    LogLevel {
        /// As in `PENSTOCK_LOG`.
        level: String,
    },
    /// Reads the configuration again and applies what differs, all of it or nothing.
    Reload {
        /// Only say whether it would be taken.
        #[serde(default)]
        dry_run: bool,
    },
}

impl Request {
    /// What only root and the users of `[admin]` may do, in a word of a message; `None` for what whoever reaches the
    /// socket may ask.
    #[must_use]
    pub fn reserved(&self) -> Option<&'static str> {
        match self {
            Self::Reload { .. } => Some("reload"),
            Self::Up { .. }
            | Self::Down { .. }
            | Self::Rekey { .. }
            | Self::Trace { .. }
            | Self::LogLevel { .. } => Some("do that"),
            Self::Status {} | Self::Show { .. } | Self::Log { .. } | Self::Monitor {} => None,
        }
    }
}

/// The exit codes of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum ExitCode {
    /// It is done.
    Done = 0,
    /// Bad usage or a bad configuration.
    Usage = 1,
    /// The daemon refused.
    Refused = 2,
    /// The daemon, or what it needs, cannot be reached.
    Unreachable = 3,
    /// No answer in time.
    TimedOut = 4,
    /// Done in part; the records say which.
    Partial = 5,
    /// Nothing of that name.
    NotFound = 6,
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code as Self
    }
}

impl TryFrom<u8> for ExitCode {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Ok(match code {
            0 => Self::Done,
            1 => Self::Usage,
            2 => Self::Refused,
            3 => Self::Unreachable,
            4 => Self::TimedOut,
            5 => Self::Partial,
            6 => Self::NotFound,
            other => return Err(format!("no exit code {other}")),
        })
    }
}

/// A frame of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frame {
    /// Some records.
    Records(Vec<Value>),
    /// The last frame.
    End {
        /// How it went.
        code: ExitCode,
        /// For people.
        message: Option<String>,
    },
}
