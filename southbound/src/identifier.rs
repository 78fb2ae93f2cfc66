//! Names of the objects of the contract, all chosen by the control process.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);
    };
}

identifier! {
    /// A port: a network interface under the dataplane.
    PortId
}
identifier! {
    /// A tunnel: what one Child SA configuration protects, over all its rekeys.
    TunnelId
}
identifier! {
    /// An entry of the security policy database (RFC 4301 section 4.4.1).
    PolicyId
}
identifier! {
    /// A routing table of its own; 0 is the main one.
    VrfId
}

impl VrfId {
    /// The table of everything that no VRF was named for.
    pub const MAIN: Self = Self(0);
}

/// Which way an SA carries traffic; SAs are simplex (RFC 4301 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SaDirection {
    /// From the peer; its SPI was chosen here.
    Inbound,
    /// To the peer; its SPI was chosen there.
    Outbound,
}

/// Names one SA.
///
/// An inbound SA is found by its SPI alone, which is unique here. An outbound SPI is the peer's choice,
/// so two peers may choose the same: the destination tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SaRef {
    /// Which way it carries traffic.
    pub direction: SaDirection,
    /// The SPI on the wire; 0 to 255 are reserved (RFC 4303 section 2.1).
    pub spi: u32,
    /// The outer destination address: ours for inbound, the peer's for outbound.
    pub destination: IpAddr,
}
