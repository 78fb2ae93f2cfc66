//! From the configuration to what the dataplane should hold: numbers for names, keys through the ledger.

mod installer;
mod ledger;
mod numbers;

pub use installer::{Committed, Installer, Plan};
pub use ledger::{Ledger, LedgerError};
