//! IKEv2 (RFC 7296), sans-io: datagrams, time and randomness come in as arguments; datagrams, deadlines and Child SA
//! events go out.

mod certificate;
mod crypto;
mod error;
pub mod message;
pub mod payload;
mod reader;

pub use certificate::{Authority, Certificate, RevocationList};
pub use crypto::random::{Random, SystemRandom};
pub use crypto::signature::{RsaScheme, SigningKey};
pub use error::{Error, Result};
