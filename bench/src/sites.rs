//! Two sites with running gateways and a tunnel that passes packets.

use std::net::IpAddr;
use std::time::Duration;

use crate::gateway::{Dataplane, Gateway, GatewayError};
use crate::namespace::Namespace;
use crate::process::wait_until;
use crate::site_to_site::SiteToSite;
use crate::topology::{Links, Topology};

/// Host A's addresses.
pub const HOST_A: [&str; 2] = ["10.1.0.10", "fd01::10"];
/// Host B's addresses.
pub const HOST_B: [&str; 2] = ["10.2.0.10", "fd02::10"];
/// How long a tunnel may take to pass its first packet.
pub const TUNNEL_UP_LIMIT: Duration = Duration::from_secs(15);

/// A topology with both gateways running and the tunnel between them passing packets; stopped on drop, gateways first.
#[derive(Debug)]
pub struct Sites {
    /// Host A's gateway.
    pub gateway_1: Gateway,
    /// Host B's gateway.
    pub gateway_2: Gateway,
    /// What they stand in.
    pub topology: Topology,
}

impl Sites {
    /// Makes the topology and starts both gateways with the configurations of `tunnel`.
    ///
    /// # Errors
    /// See [`GatewayError`]; [`GatewayError::NoTunnel`] where no packet passes in time.
    pub fn start(
        stem: &str,
        links: Links,
        tunnel: &SiteToSite,
        dataplane: &Dataplane,
    ) -> Result<Self, GatewayError> {
        let configurations = [tunnel.configuration(1), tunnel.configuration(2)];
        Self::over(Topology::new(stem, links)?, tunnel, &configurations, dataplane)
    }

    /// The same over a topology that is there, with these configurations.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn over(
        topology: Topology,
        tunnel: &SiteToSite,
        configurations: &[String; 2],
        dataplane: &Dataplane,
    ) -> Result<Self, GatewayError> {
        let start = |namespace, configuration| {
            Gateway::start(namespace, configuration, &tunnel.secrets(), dataplane.clone())
        };
        let sites = Self {
            gateway_1: start(&topology.gateway_1, &configurations[0])?,
            gateway_2: start(&topology.gateway_2, &configurations[1])?,
            topology,
        };
        for host in HOST_B {
            if !wait_until(TUNNEL_UP_LIMIT, || answers(&sites.topology.host_a, host)) {
                return Err(GatewayError::NoTunnel {
                    host: host.parse().unwrap_or(IpAddr::from([0; 4])),
                    situation: sites.situation(),
                });
            }
        }
        Ok(sites)
    }

    /// One AES-GCM tunnel over plain links.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn plain(stem: &str, dataplane: &Dataplane) -> Result<Self, GatewayError> {
        let tunnel = SiteToSite::new("aes128gcm16", 20)?;
        Self::start(stem, Links::default(), &tunnel, dataplane)
    }

    /// Logs and drops of both gateways, for a message.
    #[must_use]
    pub fn situation(&self) -> String {
        let of = |gateway: &Gateway| {
            let drops = gateway.penstock(&["show", "drops"]).unwrap_or_default();
            format!("{}\n{drops}", gateway.logs())
        };
        format!("{}\n{}", of(&self.gateway_1), of(&self.gateway_2))
    }
}

/// Whether an echo request is answered within a second.
#[must_use]
pub fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}
