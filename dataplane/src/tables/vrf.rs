//! Routing tables of their own.

use super::fib_v4::FibV4;
use super::fib_v6::FibV6;
use super::publish::{Always, Slot};
use super::spd::Classifier;

/// A routing table's number, dense and stable while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VrfIndex(pub(crate) u32);

impl VrfIndex {
    /// The table of everything that no VRF was named for.
    pub const MAIN: Self = Self(0);
}

/// One routing table: routes of both families, and rules.
#[derive(Debug)]
pub(crate) struct Vrf {
    pub(crate) fib_v4: Always<FibV4>,
    pub(crate) fib_v6: FibV6,
    pub(crate) spd: Slot<Classifier>,
}

impl Vrf {
    pub(crate) fn new() -> Self {
        Self {
            fib_v4: Always::new(FibV4::small()),
            fib_v6: FibV6::new(),
            spd: Slot::empty(),
        }
    }
}
