//! Penstock against strongSwan 5.9.8, whose ESP is in user space: no kernel of the tests has to have any.
//!
//! Gateway 1 is Penstock, gateway 2 strongSwan; traffic flows in every case.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod certificates;
mod childless;
mod cookies;
mod first_contact;
mod gateways;
mod identities;
mod life;
mod mobility;
mod pss;
mod quantum;
mod reauthentication;
mod redirect;
mod rekey;
mod remote_access;
mod resources;
mod revocation;
mod site;
mod suites;
