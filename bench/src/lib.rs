//! What surrounds a gateway in demonstrations, tests and benchmarks: namespaces and links, the built
//! daemons as processes, traffic and reports. Starts the daemons, never links them.

pub mod customers;
pub mod e2e;
pub mod eavesdropper;
pub mod freeradius;
pub mod frr;
pub mod gateway;
pub mod http;
pub mod instructions;
pub mod iperf;
pub mod load;
pub mod machine;
pub mod negotiated;
pub mod pipeline;
pub mod pki;
pub mod prober;
pub mod process;
pub mod site_to_site;
pub mod sites;
pub mod strongswan;
pub mod topology;

pub use netns as namespace;
