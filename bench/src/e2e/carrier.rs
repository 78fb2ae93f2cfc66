//! Who carries packets between the two sites.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;

use super::wireguard::Wireguard;
use crate::gateway::{Dataplane, Gateway};
use crate::process::wait_until;
use crate::site_to_site::SiteToSite;
use crate::sites::{HOST_B, answers};
use crate::strongswan::{Files, StrongSwan};
use crate::topology::{Links, Topology};

/// How long a carrier may take to pass its first packet.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// This gateway: AES-128-GCM, bare ESP, a worker on a CPU for each end.
    Penstock,
    /// Debian's `wireguard-go`: ChaCha20-Poly1305 over a TUN device.
    WireguardGo,
    /// Debian's strongSwan with `kernel-libipsec`: AES-128-GCM in UDP over a TUN device.
    StrongSwan,
    /// No tunnel: what the kernel forwards in clear is the ceiling.
    Kernel,
}

impl Carrier {
    /// All of them, the ceiling last.
    pub const ALL: [Self; 4] = [Self::Penstock, Self::WireguardGo, Self::StrongSwan, Self::Kernel];

    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Penstock => "Penstock",
            Self::WireguardGo => "wireguard-go",
            Self::StrongSwan => "strongSwan, kernel-libipsec",
            Self::Kernel => "kernel forwarding, in clear",
        }
    }

    /// Joins two new sites.
    ///
    /// # Errors
    /// Where something is not installed or does not come up.
    pub fn join(self) -> Result<Joined, Box<dyn Error>> {
        let topology = Topology::new("e2e", Links::default())?;
        let ends = match self {
            Self::Penstock => penstock(&topology)?,
            Self::WireguardGo => wireguard(&topology)?,
            Self::StrongSwan => strongswan(&topology)?,
            Self::Kernel => kernel(&topology)?,
        };
        let joined = Joined { ends, topology };
        if wait_until(START_LIMIT, || answers(&joined.topology.host_a, HOST_B[0])) {
            Ok(joined)
        } else {
            Err(format!("{} carries no packet", self.name()).into())
        }
    }
}

/// Two sites that reach each other; everything ends on drop.
#[derive(Debug)]
pub struct Joined {
    // Before the topology: processes end before their namespaces.
    ends: Ends,
    /// Where the sites are.
    pub topology: Topology,
}

impl Joined {
    /// The processes that carry.
    pub fn processes(&mut self) -> Vec<u32> {
        match &mut self.ends {
            Ends::Penstock(gateways) => gateways
                .iter_mut()
                .flat_map(|gateway| {
                    let dataplane = gateway.dataplane().map(|process| process.id());
                    [dataplane, gateway.control().map(|process| process.id())]
                })
                .flatten()
                .collect(),
            Ends::Wireguard(ends) => ends.iter().map(Wireguard::process_id).collect(),
            Ends::StrongSwan(peers) => peers.iter().filter_map(StrongSwan::process_id).collect(),
            Ends::Kernel => Vec::new(),
        }
    }
}

/// What runs in the gateways' namespaces.
#[derive(Debug)]
enum Ends {
    Penstock(Box<[Gateway; 2]>),
    Wireguard(Box<[Wireguard; 2]>),
    StrongSwan(Box<[StrongSwan; 2]>),
    Kernel,
}

fn penstock(topology: &Topology) -> Result<Ends, Box<dyn Error>> {
    let tunnel = SiteToSite::new("aes128gcm16", 20)?;
    let last_cpu = u16::try_from(std::thread::available_parallelism()?.get() - 1)?;
    let start = |namespace, number, cpu| {
        let dataplane = Dataplane {
            cores: vec![cpu],
            ..Dataplane::default()
        };
        Gateway::start(
            namespace,
            &tunnel.configuration(number),
            &tunnel.secrets(),
            dataplane,
        )
    };
    Ok(Ends::Penstock(Box::new([
        start(&topology.gateway_1, 1, 0)?,
        start(&topology.gateway_2, 2, last_cpu)?,
    ])))
}

fn wireguard(topology: &Topology) -> Result<Ends, Box<dyn Error>> {
    let Topology {
        gateway_1, gateway_2, ..
    } = topology;
    let ends = [Wireguard::start(gateway_1, 1)?, Wireguard::start(gateway_2, 2)?];
    ends[0].meet(gateway_1, &ends[1], "198.51.100.2", "10.2.0.0/24")?;
    ends[1].meet(gateway_2, &ends[0], "198.51.100.1", "10.1.0.0/24")?;
    Ok(Ends::Wireguard(Box::new(ends)))
}

fn strongswan(topology: &Topology) -> Result<Ends, Box<dyn Error>> {
    let start = |namespace, number: u8| {
        let peer = 3 - number;
        let files = Files {
            connections: format!(
                "connections {{ site {{ version = 2\n local_addrs = 198.51.100.{number}\n remote_addrs = 198.51.100.{peer}\n \
                 proposals = aes128gcm16-prfsha256-x25519\n local {{ auth = psk\n id = gw{number}.example }}\n \
                 remote {{ auth = psk\n id = gw{peer}.example }}\n children {{ net {{ local_ts = 10.{number}.0.0/24\n \
                 remote_ts = 10.{peer}.0.0/24\n esp_proposals = aes128gcm16\n rekey_time = 0 }} }} }} }}\n\
                 secrets {{ ike-1 {{ secret = \"of this measurement alone\" }} }}\n"
            ),
            ..Files::default()
        };
        StrongSwan::start(namespace, &files)
    };
    let peers = [start(&topology.gateway_1, 1)?, start(&topology.gateway_2, 2)?];
    peers[0].swanctl(&["--initiate", "--child", "net", "--timeout", "20"])?;
    Ok(Ends::StrongSwan(Box::new(peers)))
}

fn kernel(topology: &Topology) -> Result<Ends, Box<dyn Error>> {
    topology.gateway_1.ip("route add 10.2.0.0/24 via 198.51.100.2")?;
    topology.gateway_2.ip("route add 10.1.0.0/24 via 198.51.100.1")?;
    Ok(Ends::Kernel)
}
