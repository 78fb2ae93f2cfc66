//! Security associations: what a worker needs per packet apart from what it seldom needs, inbound apart
//! from outbound.

mod inbound;
mod lifetime;
mod outbound;
mod path_mtu;
mod path_report;
mod replay;
mod selector;
mod sequence;
mod template;
mod transform;
mod tunnel;
mod worker_slots;

pub use inbound::{InboundSa, InboundTerms};
pub use lifetime::{Crossing, Usage};
pub use outbound::{OutboundSa, OutboundTerms};
pub use path_mtu::PathMtu;
pub use path_report::{PathReport, Quoted, is_plausible};
pub use replay::{Committed, Refusal, ReplayState};
pub use selector::{Flow, Selectors};
pub use sequence::{Run, SequenceNumbers};
pub use template::OuterTemplate;
pub use transform::{EspSizes, algorithm};
pub(crate) use tunnel::TUNNEL_LINES;
pub use tunnel::{Tunnel, TunnelIndex};
