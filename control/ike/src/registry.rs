//! What must be unique over all IKE SAs of an endpoint: SPIs, SA names, dynamic tunnels, leased addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use southbound::{IpPrefix, TunnelId};

use crate::config::EndpointConfig;
use crate::crypto::random::{Draw, Random};
use crate::event::SaId;
use crate::payload::id::Identity;

/// The names in use.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next_sa: u64,
    /// Our IKE SPIs.
    pub(crate) by_spi: HashMap<u64, SaId>,
    child_spis: HashSet<u32>,
    /// The pair, by its inbound SPI, whose outbound SA each tunnel uses.
    selected: HashMap<TunnelId, u32>,
    /// Tunnels whose pair in use went while its IKE SA had no other.
    orphaned: BTreeSet<TunnelId>,
    /// Dynamic tunnels by IKE SA lineage and child name.
    tunnels: BTreeSet<u32>,
    /// Leased addresses and whose they are.
    leases: BTreeMap<IpAddr, Lease>,
}

#[derive(Debug)]
struct Lease {
    holder: String,
    in_use: bool,
}

/// The largest number of addresses tried in one pool before it counts as full.
const POOL_SCAN: u32 = 1 << 16;

impl Registry {
    pub(crate) fn new_sa(&mut self) -> SaId {
        self.next_sa += 1;
        SaId(self.next_sa)
    }

    /// A fresh IKE SPI for an SA.
    pub(crate) fn new_ike_spi(&mut self, sa: SaId, random: &mut dyn Random) -> u64 {
        loop {
            let spi = u64::from_be_bytes(random.bytes());
            if spi != 0 && !self.by_spi.contains_key(&spi) {
                self.by_spi.insert(spi, sa);
                return spi;
            }
        }
    }

    /// A fresh inbound ESP SPI.
    pub(crate) fn new_child_spi(&mut self, random: &mut dyn Random) -> u32 {
        loop {
            let spi = u32::from_be_bytes(random.bytes());
            if spi > 255 && self.child_spis.insert(spi) {
                return spi;
            }
        }
    }

    /// The tunnel uses this pair from now on.
    pub(crate) fn select(&mut self, tunnel: TunnelId, spi_in: u32) {
        self.selected.insert(tunnel, spi_in);
        self.orphaned.remove(&tunnel);
    }

    pub(crate) fn has_selection(&self, tunnel: TunnelId) -> bool {
        self.selected.contains_key(&tunnel)
    }

    pub(crate) fn is_selected(&self, tunnel: TunnelId, spi_in: u32) -> bool {
        self.selected.get(&tunnel) == Some(&spi_in)
    }

    /// The pair in use goes; another IKE SA may have one to take its place.
    pub(crate) fn orphan(&mut self, tunnel: TunnelId, spi_in: u32) {
        if self.is_selected(tunnel, spi_in) {
            self.selected.remove(&tunnel);
            self.orphaned.insert(tunnel);
        }
    }

    pub(crate) fn take_orphans(&mut self) -> BTreeSet<TunnelId> {
        std::mem::take(&mut self.orphaned)
    }

    pub(crate) fn release_child_spi(&mut self, spi: u32) {
        self.child_spis.remove(&spi);
    }

    /// The lowest free dynamic tunnel.
    pub(crate) fn new_tunnel(&mut self, config: &EndpointConfig) -> Option<TunnelId> {
        let mut candidate = config.dynamic_tunnels.start;
        for used in self.tunnels.range(config.dynamic_tunnels.clone()) {
            if *used != candidate {
                break;
            }
            candidate = candidate.checked_add(1)?;
        }
        if !config.dynamic_tunnels.contains(&candidate) {
            return None;
        }
        self.tunnels.insert(candidate);
        Some(TunnelId(candidate))
    }

    pub(crate) fn release_tunnel(&mut self, tunnel: TunnelId) {
        self.tunnels.remove(&tunnel.0);
    }

    /// Leases an address of a pool: the holder's former one where it is free, else the first that nobody ever had,
    /// else the first that nobody has.
    pub(crate) fn lease(
        &mut self,
        pool: &IpPrefix,
        holder: &Identity,
        wanted: Option<IpAddr>,
    ) -> Option<IpAddr> {
        let holder = holder.to_string();
        let former = self
            .leases
            .iter()
            .find(|(address, lease)| pool.contains(**address) && lease.holder == holder && !lease.in_use)
            .map(|(address, _)| *address);
        let free = |address: &IpAddr| self.leases.get(address).is_none_or(|lease| !lease.in_use);
        let wanted = wanted.filter(|address| usable(pool, *address) && free(address));
        let fresh = || {
            let mut candidates = (1..POOL_SCAN).map_while(|index| nth(pool, index));
            candidates
                .clone()
                .find(|a| !self.leases.contains_key(a))
                .or_else(|| candidates.find(free))
        };
        let address = former.or(wanted).or_else(fresh)?;
        self.leases.insert(address, Lease { holder, in_use: true });
        Some(address)
    }

    /// Gives an address back; its holder is remembered.
    pub(crate) fn release_lease(&mut self, address: IpAddr) {
        if let Some(lease) = self.leases.get_mut(&address) {
            lease.in_use = false;
        }
    }

    /// Leases for the driver to keep over a restart: address and holder.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.leases
            .iter()
            .map(|(address, lease)| (*address, lease.holder.as_str()))
    }

    /// Takes up a lease from before a restart.
    pub(crate) fn restore_lease(&mut self, address: IpAddr, holder: String) {
        self.leases.entry(address).or_insert(Lease {
            holder,
            in_use: false,
        });
    }
}

/// Neither the network's own address nor, with IPv4, its broadcast address.
fn usable(pool: &IpPrefix, address: IpAddr) -> bool {
    pool.contains(address) && address != pool.network() && !(address.is_ipv4() && address == pool.last())
}

fn nth(pool: &IpPrefix, index: u32) -> Option<IpAddr> {
    let address = match pool.network() {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().checked_add(index)?.into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().checked_add(u128::from(index))?.into()),
    };
    usable(pool, address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_stick_to_their_holder_and_pools_fill() {
        let mut registry = Registry::default();
        let pool: IpPrefix = "10.0.0.0/30".parse().unwrap();
        let (a, b) = (Identity::from_text("a"), Identity::from_text("b"));
        let first = registry.lease(&pool, &a, None).unwrap();
        let second = registry.lease(&pool, &b, None).unwrap();
        assert_eq!(
            (first.to_string().as_str(), second.to_string().as_str()),
            ("10.0.0.1", "10.0.0.2")
        );
        assert_eq!(registry.lease(&pool, &Identity::from_text("c"), None), None);
        registry.release_lease(first);
        registry.release_lease(second);
        assert_eq!(registry.lease(&pool, &b, None), Some(second));
        assert_eq!(registry.lease(&pool, &a, None), Some(first));
    }

    #[test]
    fn tunnels_are_reused() {
        let mut registry = Registry::default();
        let config = EndpointConfig {
            dynamic_tunnels: 5..7,
            ..EndpointConfig::default()
        };
        assert_eq!(registry.new_tunnel(&config), Some(TunnelId(5)));
        assert_eq!(registry.new_tunnel(&config), Some(TunnelId(6)));
        assert_eq!(registry.new_tunnel(&config), None);
        registry.release_tunnel(TunnelId(5));
        assert_eq!(registry.new_tunnel(&config), Some(TunnelId(5)));
    }
}
