//! The messages of the socket.

use serde::{Deserialize, Serialize};

use crate::{Event, Query, Rejection, Status, Update};

/// The language; both sides must speak the same.
pub const PROTOCOL_VERSION: u32 = 3;

/// Longest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Most updates in one [`ToDataplane::Apply`]; the sender also keeps within [`MAX_MESSAGE_BYTES`].
pub const MAX_UPDATES_PER_MESSAGE: usize = 256;

/// From the control process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDataplane {
    /// First on every connection.
    Hello {
        /// [`PROTOCOL_VERSION`] of the sender.
        version: u32,
    },
    /// Opens a resynchronisation.
    BeginSync {
        /// Higher than any before.
        generation: u64,
    },
    /// Changes, in order.
    Apply {
        /// Echoed by the answer.
        sequence: u64,
        /// Marks what the updates name.
        generation: u64,
        /// The changes.
        updates: Vec<Update>,
    },
    /// Closes a resynchronisation: what is older goes.
    EndSync {
        /// That of [`ToDataplane::BeginSync`].
        generation: u64,
    },
    /// Packets to watch from now on, or none; it ends with the connection. Nothing answers.
    Trace {
        /// Which.
        spec: Option<crate::TraceSpec>,
    },
    /// A question.
    Ask {
        /// Echoed by the answers.
        sequence: u64,
        /// The question.
        query: Query,
    },
}

/// From the dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToControl {
    /// Answer to [`ToDataplane::Hello`]; the counters' memfd comes with it.
    Welcome {
        /// [`PROTOCOL_VERSION`] of the sender.
        version: u32,
        /// Random at each start of the dataplane: another number means that keys installed before must
        /// not be installed again.
        instance: u64,
        /// The highest generation applied in this instance, so that a new control process goes on above.
        generation: u64,
        /// Number of workers.
        workers: u16,
    },
    /// Answer to [`ToDataplane::Apply`].
    Applied {
        /// That of the request.
        sequence: u64,
        /// Index into its updates, and why that one was refused. Empty: all took effect.
        rejections: Vec<(u32, Rejection)>,
    },
    /// Answer to [`ToDataplane::EndSync`].
    Synced {
        /// That of the request.
        generation: u64,
        /// Objects removed.
        removed: u64,
    },
    /// Part of an answer to [`ToDataplane::Ask`].
    Answer {
        /// That of the request.
        sequence: u64,
        /// Records.
        records: Vec<Status>,
        /// Whether this is the last part.
        last: bool,
    },
    /// Unasked.
    Events(Vec<Event>),
}
