//! The cryptographic primitives of IKEv2, each behind a closed set of algorithms.

pub(crate) mod cipher;
pub(crate) mod key_exchange;
pub(crate) mod mac;
pub(crate) mod modp;
pub(crate) mod prf;
pub(crate) mod random;
mod rsa_legacy;
pub(crate) mod signature;
#[cfg(test)]
mod vectors;
