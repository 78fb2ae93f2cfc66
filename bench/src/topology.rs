//! Two sites and the Internet between them.
//!
//! ```text
//!   host A            gateway 1              internet            gateway 2            host B
//!  +------+ eth0  lan +---------+ wan   g1 +----------+ g2   wan +---------+ lan  eth0 +------+
//!  |   .10|-----------|.1     .1|----------|  bridge  |----------|.2     .1|-----------|.10   |
//!  +------+           +---------+          +----------+          +---------+           +------+
//!        10.1.0.0/24            198.51.100.0/24, 2001:db8:77::/64            10.2.0.0/24
//!        fd01::/64                                                           fd02::/64
//! ```
//!
//! Nothing routes one site to the other: only a tunnel joins them.

use std::process::Command;

use crate::namespace::{CommandError, Namespace, run};

/// The sizes of the links.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Receive and transmit queues of every gateway port.
    pub queues: u16,
    /// MTU in bytes of the two sites' links.
    pub site_mtu_bytes: u16,
    /// MTU in bytes of the Internet's links.
    pub internet_mtu_bytes: u16,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            queues: 1,
            site_mtu_bytes: 1500,
            internet_mtu_bytes: 1500,
        }
    }
}

/// The five namespaces; removed on drop.
#[derive(Debug)]
pub struct Topology {
    /// Host A, 10.1.0.10 and fd01::10.
    pub host_a: Namespace,
    /// Gateway 1: `lan` 10.1.0.1 and fd01::1, `wan` 198.51.100.1 and 2001:db8:77::1.
    pub gateway_1: Namespace,
    /// The bridge `br0` with the ports `g1` and `g2`: where an eavesdropper sits.
    pub internet: Namespace,
    /// Gateway 2: `lan` 10.2.0.1 and fd02::1, `wan` 198.51.100.2 and 2001:db8:77::2.
    pub gateway_2: Namespace,
    /// Host B, 10.2.0.10 and fd02::10.
    pub host_b: Namespace,
}

impl Topology {
    /// Makes the namespaces with unique names, links and addresses.
    ///
    /// # Errors
    /// [`CommandError`] without root, iproute2 or ethtool.
    pub fn new(stem: &str, links: Links) -> Result<Self, CommandError> {
        Self::build(
            Namespace::new(&format!("{stem}-ha"))?,
            Namespace::new(&format!("{stem}-g1"))?,
            Namespace::new(&format!("{stem}-net"))?,
            Namespace::new(&format!("{stem}-g2"))?,
            Namespace::new(&format!("{stem}-hb"))?,
            links,
        )
    }

    /// The same under fixed names (`STEM-ha`, `STEM-g1`, `STEM-net`, `STEM-g2`, `STEM-hb`), for people to
    /// look into.
    ///
    /// # Errors
    /// [`CommandError`] as for [`Self::new`], or where a name is taken.
    pub fn named(stem: &str, links: Links) -> Result<Self, CommandError> {
        Self::build(
            Namespace::named(format!("{stem}-ha"))?,
            Namespace::named(format!("{stem}-g1"))?,
            Namespace::named(format!("{stem}-net"))?,
            Namespace::named(format!("{stem}-g2"))?,
            Namespace::named(format!("{stem}-hb"))?,
            links,
        )
    }

    fn build(
        host_a: Namespace,
        gateway_1: Namespace,
        internet: Namespace,
        gateway_2: Namespace,
        host_b: Namespace,
        links: Links,
    ) -> Result<Self, CommandError> {
        let topology = Self {
            host_a,
            gateway_1,
            internet,
            gateway_2,
            host_b,
        };
        topology.internet.ip("link add br0 type bridge")?;
        topology.internet.ip("link set br0 up")?;
        topology.site(1, links)?;
        topology.site(2, links)?;
        Ok(topology)
    }

    fn site(&self, number: u8, links: Links) -> Result<(), CommandError> {
        let (host, gateway) = match number {
            1 => (&self.host_a, &self.gateway_1),
            _ => (&self.host_b, &self.gateway_2),
        };
        veth(gateway, "lan", host, "eth0", links.queues, links.site_mtu_bytes)?;
        veth(
            gateway,
            "wan",
            &self.internet,
            &format!("g{number}"),
            links.queues,
            links.internet_mtu_bytes,
        )?;
        self.internet.ip(&format!("link set g{number} master br0"))?;

        gateway.ip(&format!("addr add 10.{number}.0.1/24 dev lan"))?;
        gateway.ip(&format!("addr add fd0{number}::1/64 dev lan nodad"))?;
        gateway.ip(&format!("addr add 198.51.100.{number}/24 dev wan"))?;
        gateway.ip(&format!("addr add 2001:db8:77::{number}/64 dev wan nodad"))?;
        gateway.sysctl("net.ipv4.ip_forward", "1")?;
        gateway.sysctl("net.ipv6.conf.all.forwarding", "1")?;

        host.ip(&format!("addr add 10.{number}.0.10/24 dev eth0"))?;
        host.ip(&format!("addr add fd0{number}::10/64 dev eth0 nodad"))?;
        host.ip(&format!("route add default via 10.{number}.0.1"))?;
        host.ip(&format!("-6 route add default via fd0{number}::1"))?;
        Ok(())
    }
}

/// Joins a gateway's port to a neighbour's interface.
fn veth(
    gateway: &Namespace,
    port: &str,
    neighbour: &Namespace,
    interface: &str,
    queues: u16,
    mtu_bytes: u16,
) -> Result<(), CommandError> {
    let sizes = format!("mtu {mtu_bytes} numrxqueues {queues} numtxqueues {queues}");
    let line = format!(
        "link add {port} {sizes} netns {} type veth peer name {interface} {sizes} netns {}",
        gateway.name(),
        neighbour.name()
    );
    run(Command::new("ip").args(line.split_whitespace()))?;
    gateway.ip(&format!("link set {port} up"))?;
    neighbour.ip(&format!("link set {interface} up"))?;
    // A packet made on this machine carries an unfinished checksum, which only the kernel's own drivers
    // finish: a real neighbour would have put a finished one on the wire.
    neighbour.run(&format!("ethtool -K {interface} tx off"))?;
    Ok(())
}
