//! EAP inside IKE_AUTH: the methods that are terminated here (RFC 3748, RFC 7296 section 2.16).

pub(crate) mod client;
pub(crate) mod mschapv2;
pub(crate) mod server;
mod tls;
mod tls_trust;

#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod tests;
