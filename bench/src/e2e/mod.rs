//! Penstock beside userspace VPNs and the kernel's own forwarding, over the topology of the demo.
//!
//! Each [`carrier`] joins the same two sites in turn; the same loads go through each, and [`usage`] says what its
//! processes and the machine spent on them. veth pairs in copy mode and a machine that also makes the traffic bound
//! what can be seen: ratios within one run are the result.

pub mod carrier;
pub mod record;
pub mod usage;
pub mod wireguard;
