//! Two customers of a provider, with the same addresses at the same sites.
//!
//! ```text
//!   red host, blue host                      provider                      red host, blue host
//!  +------------------+ eth0  ce-red  +-----+          +-----+ ce-red  eth0 +------------------+
//!  | 192.168.101.10   |---------------| PE1 |---....---| PE2 |--------------| 192.168.102.10   |
//!  +------------------+ eth0  ce-blue |     |          |     | ce-blue eth0 +------------------+
//!  | 192.168.101.10   |---------------+-----+          +-----+--------------| 192.168.102.10   |
//!  +------------------+                                                     +------------------+
//! ```
//!
//! IPv6 likewise: fd00:101::10 and fd00:102::10.

use std::net::IpAddr;
use std::process::Command;

use crate::namespace::{CommandError, Namespace, run};

/// The customers' names.
pub const CUSTOMERS: [&str; 2] = ["red", "blue"];

/// One customer's host at one site.
#[derive(Debug)]
pub struct Host {
    /// Where it lives.
    pub namespace: Namespace,
}

impl Host {
    /// Joins a host of `customer` to `pe` as its site 1 or 2, by the port `ce-CUSTOMER`.
    ///
    /// # Errors
    /// [`CommandError`] without root, iproute2 or ethtool.
    pub fn attach(
        namespace: Namespace,
        pe: &Namespace,
        customer: &str,
        site: u8,
    ) -> Result<Self, CommandError> {
        join(pe, &format!("ce-{customer}"), &namespace, "eth0")?;
        pe.ip(&format!("addr add 192.168.10{site}.1/24 dev ce-{customer}"))?;
        pe.ip(&format!("addr add fd00:10{site}::1/64 dev ce-{customer} nodad"))?;
        namespace.ip(&format!("addr add 192.168.10{site}.10/24 dev eth0"))?;
        namespace.ip(&format!("addr add fd00:10{site}::10/64 dev eth0 nodad"))?;
        namespace.ip(&format!("route add default via 192.168.10{site}.1"))?;
        namespace.ip(&format!("-6 route add default via fd00:10{site}::1"))?;
        Ok(Self { namespace })
    }

    /// The addresses of every customer's host at a site.
    #[must_use]
    pub fn addresses(site: u8) -> [IpAddr; 2] {
        [
            IpAddr::from([192, 168, 100 + site, 10]),
            IpAddr::from([0xfd00, 0x100 + u16::from(site), 0, 0, 0, 0, 0, 0x10]),
        ]
    }

    /// Whether an address answers.
    #[must_use]
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.namespace.run(&format!("ping -c 1 -W 1 {address}")).is_ok()
    }

    /// Echo requests that came, of IPv4 and IPv6.
    ///
    /// # Errors
    /// [`CommandError`] where the kernel does not say.
    pub fn echo_requests(&self) -> Result<u64, CommandError> {
        let v4 = self.namespace.run("cat /proc/net/snmp")?;
        let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Icmp: "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let of_v4 = names
            .split_whitespace()
            .zip(values.split_whitespace())
            .find(|(name, _)| *name == "InEchos")
            .and_then(|(_, value)| value.parse::<u64>().ok());
        let v6 = self.namespace.run("cat /proc/net/snmp6")?;
        let of_v6 = v6
            .lines()
            .find_map(|line| line.strip_prefix("Icmp6InEchos"))
            .and_then(|value| value.trim().parse::<u64>().ok());
        Ok(of_v4.unwrap_or_default() + of_v6.unwrap_or_default())
    }
}

/// Joins a router's port to a neighbour's interface.
///
/// # Errors
/// [`CommandError`] without root, iproute2 or ethtool.
pub fn join(
    router: &Namespace,
    port: &str,
    neighbour: &Namespace,
    interface: &str,
) -> Result<(), CommandError> {
    let line = format!(
        "link add {port} netns {} type veth peer name {interface} netns {}",
        router.name(),
        neighbour.name()
    );
    run(Command::new("ip").args(line.split_whitespace()))?;
    router.ip(&format!("link set {port} up"))?;
    neighbour.ip(&format!("link set {interface} up"))?;
    // What the kernel sends leaves its checksum to a NIC that is none.
    router.run(&format!("ethtool -K {port} tx off"))?;
    neighbour.run(&format!("ethtool -K {interface} tx off"))?;
    Ok(())
}
