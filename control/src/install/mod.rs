//! From the configuration to what the dataplane should hold: numbers for names, keys through the ledger.

mod installer;
mod ledger;
mod numbers;

pub(crate) use installer::FIRST_PEER_TUNNEL;
pub use installer::{Committed, Installer, Plan};
pub use ledger::{Ledger, LedgerError};
