//! Routes and labels from FRR: the listener of zebra's Forwarding Plane Manager (`zebra -M dplane_fpm_nl`).
//!
//! ```text
//!  zebra --TCP--> Decoder: frames --> Change: messages --> Model --> Projection --> plane::Desired
//! ```
//!
//! zebra connects to us, and tells the whole of its tables each time it does.

mod frame;
mod listener;
mod message;
mod model;
mod projection;
mod receiver;

pub use frame::{Decoder, Frame, MAX_FRAME_BYTES, StreamError};
pub use listener::{Listener, Overview, Settings};
pub use message::{Change, MAX_WAYS, MessageError, NextHopObject, RouteKey, TABLE_MAIN, Target, Way};
pub use model::{Counts, Item, Limits, Model, Resolved};
pub use projection::{Projection, Rules};
pub use receiver::{Receiver, Statistics};
