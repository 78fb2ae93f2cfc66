//! The contract of the control process and the dataplane.
//!
//! ```text
//!  control                                   dataplane (main thread)            workers
//!    |-- Hello{version} ----------------------> |                                  |
//!    | <------------- Welcome{instance} + memfd |                                  |
//!    |-- BeginSync{generation} ---------------> |                                  |
//!    |-- Apply{sequence, generation, [Update]}> | -- tables, adjacencies, SAs ---> | next batch
//!    | <---------- Applied{sequence, rejections}|                                  |
//!    |-- EndSync{generation} -----------------> | -- removes what is older ------> |
//!    | <---------------------- Events([Event])  | <-- acquire, lifetimes, mtu ---- |
//! ```
//!
//! Rules of order:
//!
//! 1. Every [`Update`] is idempotent: applying it twice leaves what applying it once left. In
//!    particular [`Update::InstallSa`] of an SA that is installed with the same key changes nothing
//!    that counts: sequence numbers, replay window and counters go on.
//! 2. Updates of one connection take effect in the order sent; a worker sees each at its next batch.
//! 3. Each object carries the generation of the last update that named it. [`ToDataplane::EndSync`]
//!    removes every object of an older generation, so a control process that lost its memory only has
//!    to say what should be there.
//! 4. A rekey is make-before-break: install the new inbound SA, install the new outbound SA, select it
//!    with [`Update::SelectOutbound`], and only then remove the old ones.
//! 5. A dataplane that restarted announces another `instance`. A key that was installed in one instance
//!    is never installed in another: its sequence numbers are lost, and a repeated nonce reveals
//!    plaintext (RFC 4106 section 9).

#![forbid(unsafe_code)]

mod address;
mod algorithm;
mod codec;
mod counters;
mod drop_reason;
mod event;
mod identifier;
mod key;
mod message;
mod mpls;
mod policy;
mod port;
#[cfg(feature = "testing")]
mod recorder;
mod route;
mod sa;
mod selector;
mod status;
mod trace;
mod tunnel;
mod update;

pub use address::{IpPrefix, LocalAddress, Neighbour, NeighbourState, PrefixLengthError};
pub use algorithm::{Encryption, Integrity, Transform, TransformError};
pub use codec::{Channel, ChannelError, decode, encode};
pub use counters::{
    COUNTERS_MAGIC, COUNTERS_VERSION, CounterLayout, Histogram, MAX_WORKERS, PORT_SLOTS, PortCounter,
    WorkerCounter,
};
pub use drop_reason::{DropReason, Stage};
pub use event::{Event, LifetimeKind};
pub use identifier::{PolicyId, PortId, SaDirection, SaRef, TunnelId, VrfId};
pub use key::KeyMaterial;
pub use message::{MAX_MESSAGE_BYTES, MAX_UPDATES_PER_MESSAGE, PROTOCOL_VERSION, ToControl, ToDataplane};
pub use mpls::{
    ClassMapId, ClassMapSpec, IlmSpec, Label, LabelError, LabelOperation, LabelSpaceId, LabelStack,
    LabelStackError, LabelStatus, LabelVia, Nhlfe, PopClass, PushClass, TtlModel, VrfSpec, VrfStatus,
};
pub use policy::{PolicyAction, PolicyDefault, PolicySpec};
pub use port::{PortRole, PortSpec, XdpPreference};
#[cfg(feature = "testing")]
pub use recorder::Recorder;
pub use route::{NextHop, RouteSpec};
pub use sa::{Lifetime, LifetimeLimit, Mode, ReplayWindow, ReplayWindowError, SaSpec, UdpEncapsulation};
pub use selector::{Endpoint, ProtocolMatch, SelectorPair, ValueRange};
pub use status::{
    CopyMode, NeighbourStatus, PolicyStatus, PortPhase, PortStatus, Query, RouteStatus, SAD_CAPACITY,
    SaStatus, Status, TunnelStatus, TunnelTotals, VlanStatus, WorkerStatus, XdpMode,
};
pub use trace::{MAX_SNAP_BYTES, TraceEnd, TraceFilter, TracePoint, TraceRecord, TraceSpec, TraceStep};
pub use tunnel::{DfPolicy, DscpPolicy, EcnPolicy, Encapsulation, TtlPolicy, TunnelSpec};
pub use update::{Rejection, Update};

/// The dataplane as the control process sees it, whether across the socket or in a test.
pub trait ForwardingPlane {
    /// Opens a resynchronisation: objects not named again before [`Self::end_sync`] will be removed.
    fn begin_sync(&mut self, generation: u64);

    /// Applies one update and marks what it names with `generation`.
    ///
    /// # Errors
    /// The update is refused whole; nothing of it has taken effect.
    fn apply(&mut self, generation: u64, update: Update) -> Result<(), Rejection>;

    /// Completes what updates left to be done together: afterwards every update before is in effect.
    fn settle(&mut self) {}

    /// Removes every object whose generation is older than `generation`; returns how many went.
    fn end_sync(&mut self, generation: u64) -> u64;

    /// Moves pending events into `events`, oldest first.
    fn drain_events(&mut self, events: &mut Vec<Event>);

    /// Watches packets from now on, or none.
    fn trace(&mut self, spec: Option<TraceSpec>) {
        let _ = spec;
    }

    /// Answers a query in full; the socket splits long answers over messages.
    fn query(&self, query: Query) -> Vec<Status>;
}
