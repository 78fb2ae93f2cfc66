//! IKEv2 (RFC 7296), sans-io: datagrams, time and randomness come in as arguments; datagrams, deadlines and Child SA
//! events go out.

mod auth;
mod certificate;
mod child_sa;
mod config;
mod cookie;
mod credential;
mod crypto;
mod eap;
mod endpoint;
mod error;
mod event;
mod exchange;
mod exchange_tally;
#[cfg(test)]
mod field_proposals;
mod fragment;
mod ike_sa;
mod keymat;
pub mod message;
mod name;
mod nat;
pub mod payload;
mod proposal;
mod proposal_text;
mod reader;
mod registry;
mod window;

pub use certificate::{Authority, Certificate, RevocationList};
pub use config::{
    ChildConfig, Childless, Connection, EndpointConfig, Fragmentation, LocalAuth, Ppk, RekeyTime, RemoteAuth,
    RemoteId, Retransmission, StartAction, TsSide, UseLimit,
};
pub use credential::{Credential, Credentials, Expiry};
pub use crypto::random::{Random, SystemRandom};
pub use crypto::signature::{RsaScheme, SigningKey};
#[cfg(any(test, feature = "testing"))]
pub use endpoint::Impaired;
pub use endpoint::{Endpoint, IkeSummary};
pub use error::{Error, Result};
pub use event::{ChildSummary, Counters, EapAnswer, Event, SaId, Transmit};
pub use exchange_tally::{DURATION_BOUNDS_MS, ExchangeFailure, ExchangeRole, ExchangeTallies, ExchangeTally};
pub use payload::id::Identity;
pub use payload::traffic_selector::TrafficSelector;
pub use proposal::{EspProposal, IkeProposal};
pub use proposal_text::{default_esp_proposals, default_ike_proposals};
