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
    /// By either SPI of a pair, the IKE SAs that have it: our inbound ones are unique, those of peers need not be.
    homes: HashMap<u32, Vec<SaId>>,
    /// The pair, by its inbound SPI, whose outbound SA each tunnel uses: for all workers, or for one.
    selected: HashMap<(TunnelId, Option<u16>), u32>,
    /// Tunnels whose pair in use went while its IKE SA had no other.
    orphaned: BTreeSet<TunnelId>,
    /// Dynamic tunnels so far, and those of them that are free again.
    tunnels_made: u32,
    free_tunnels: BTreeSet<u32>,
    /// Dynamic tunnels that an earlier endpoint gave away.
    reserved_tunnels: BTreeSet<u32>,
    /// Leased addresses and whose they are.
    leases: BTreeMap<IpAddr, Lease>,
    by_holder: HashMap<String, BTreeSet<IpAddr>>,
    /// Leased addresses that nobody has at the moment.
    idle: BTreeSet<IpAddr>,
    /// Of each pool, from which index on addresses may never have been leased.
    never_leased: HashMap<IpPrefix, u32>,
}

#[derive(Debug)]
struct Lease {
    holder: String,
    /// IKE SAs that have it: two while a peer authenticates anew.
    uses: u32,
    /// Where its holder was when it got it.
    at: Option<IpAddr>,
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

    /// A pair belongs to this IKE SA from now on, whose it was before.
    pub(crate) fn settle(&mut self, sa: SaId, spi_in: u32, spi_out: u32) {
        for spi in [spi_in, spi_out] {
            let homes = self.homes.entry(spi).or_default();
            if !homes.contains(&sa) {
                homes.push(sa);
            }
        }
    }

    /// A pair with this SPI has left this IKE SA.
    pub(crate) fn leave(&mut self, sa: SaId, spi: u32) {
        if let Some(homes) = self.homes.get_mut(&spi) {
            homes.retain(|home| *home != sa);
            if homes.is_empty() {
                self.homes.remove(&spi);
            }
        }
    }

    /// The IKE SAs that may have a pair with this SPI.
    pub(crate) fn homes(&self, spi: u32) -> impl Iterator<Item = SaId> + '_ {
        self.homes.get(&spi).into_iter().flatten().copied()
    }

    /// The tunnel uses this pair from now on: for one worker, or for all that have none of their own.
    pub(crate) fn select(&mut self, tunnel: TunnelId, worker: Option<u16>, spi_in: u32) {
        self.selected.insert((tunnel, worker), spi_in);
        if worker.is_none() {
            self.orphaned.remove(&tunnel);
        }
    }

    pub(crate) fn selection(&self, tunnel: TunnelId) -> Option<u32> {
        self.selected.get(&(tunnel, None)).copied()
    }

    pub(crate) fn has_selection(&self, tunnel: TunnelId, worker: Option<u16>) -> bool {
        self.selected.contains_key(&(tunnel, worker))
    }

    pub(crate) fn is_selected(&self, tunnel: TunnelId, worker: Option<u16>, spi_in: u32) -> bool {
        self.selected.get(&(tunnel, worker)) == Some(&spi_in)
    }

    /// The worker has no pair of its own any more.
    pub(crate) fn deselect(&mut self, tunnel: TunnelId, worker: u16) {
        self.selected.remove(&(tunnel, Some(worker)));
    }

    /// A pair in use goes, be it that of `worker` alone; where all used it, another IKE SA may have one to take its place.
    pub(crate) fn orphan(&mut self, tunnel: TunnelId, worker: Option<u16>, spi_in: u32) {
        if let Some(worker) = worker.filter(|worker| self.is_selected(tunnel, Some(*worker), spi_in)) {
            self.deselect(tunnel, worker);
        }
        if self.is_selected(tunnel, None, spi_in) {
            self.selected.remove(&(tunnel, None));
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
        if let Some(tunnel) = self.free_tunnels.pop_first() {
            return Some(TunnelId(tunnel));
        }
        loop {
            let tunnel = config.dynamic_tunnels.start.checked_add(self.tunnels_made)?;
            if !config.dynamic_tunnels.contains(&tunnel) {
                return None;
            }
            self.tunnels_made += 1;
            if !self.reserved_tunnels.contains(&tunnel) {
                return Some(TunnelId(tunnel));
            }
        }
    }

    /// A dynamic tunnel that is in use without being one of ours.
    pub(crate) fn reserve_tunnel(&mut self, tunnel: TunnelId) {
        self.reserved_tunnels.insert(tunnel.0);
    }

    /// A dynamic tunnel is free again.
    pub(crate) fn release_tunnel(&mut self, config: &EndpointConfig, tunnel: TunnelId) {
        let made = tunnel
            .0
            .checked_sub(config.dynamic_tunnels.start)
            .is_some_and(|index| index < self.tunnels_made);
        if made {
            self.free_tunnels.insert(tunnel.0);
        }
    }

    /// Leases an address of a pool: the holder's former one where it is free, else the first that nobody ever had,
    /// else the first that nobody has.
    pub(crate) fn lease(
        &mut self,
        pool: &IpPrefix,
        holder: &Identity,
        wanted: Option<IpAddr>,
        at: IpAddr,
    ) -> Option<IpAddr> {
        let holder = holder.to_string();
        // A peer that authenticates anew while its old IKE SA still carries traffic asks for the address it has.
        let held = wanted.filter(|address| {
            let lease = self.leases.get(address);
            pool.contains(*address)
                && lease.is_some_and(|lease| lease.holder == holder && lease.at == Some(at) && lease.uses > 0)
        });
        if let Some(lease) = held.and_then(|address| self.leases.get_mut(&address)) {
            lease.uses = lease.uses.saturating_add(1);
            return held;
        }
        let of_holder = self.by_holder.get(&holder).into_iter().flatten();
        let former = of_holder
            .copied()
            .find(|address| pool.contains(*address) && self.leases.get(address).is_some_and(|l| l.uses == 0));
        let free = |address: &IpAddr| self.leases.get(address).is_none_or(|lease| lease.uses == 0);
        let wanted = wanted.filter(|address| usable(pool, *address) && free(address));
        let from = self.never_leased.get(pool).copied().unwrap_or(1);
        let fresh = || {
            let untouched = (from..POOL_SCAN)
                .map_while(|index| Some((index, nth(pool, index)?)))
                .find(|(_, address)| !self.leases.contains_key(address));
            untouched.or_else(|| {
                let mut idle = self.idle.range(pool.network()..=pool.last());
                let address = idle.find(|address| usable(pool, **address))?;
                Some((POOL_SCAN, *address))
            })
        };
        let address = match former.or(wanted) {
            Some(address) => address,
            None => {
                let (index, address) = fresh()?;
                self.never_leased.insert(*pool, index.saturating_add(1).max(from));
                address
            }
        };
        self.put_lease(address, holder, 1, Some(at));
        Some(address)
    }

    /// Leases an address that an authentication server chose, unless another holder has it.
    pub(crate) fn lease_fixed(&mut self, address: IpAddr, holder: &Identity, at: IpAddr) -> Option<IpAddr> {
        let holder = holder.to_string();
        let uses = match self.leases.get(&address) {
            Some(lease) if lease.holder != holder && lease.uses > 0 => return None,
            Some(lease) => lease.uses,
            None => 0,
        };
        self.put_lease(address, holder, uses.saturating_add(1), Some(at));
        Some(address)
    }

    fn put_lease(&mut self, address: IpAddr, holder: String, uses: u32, at: Option<IpAddr>) {
        let lease = Lease {
            holder: holder.clone(),
            uses,
            at,
        };
        if uses == 0 {
            self.idle.insert(address);
        } else {
            self.idle.remove(&address);
        }
        if let Some(before) = self.leases.insert(address, lease)
            && let Some(addresses) = self.by_holder.get_mut(&before.holder)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_holder.remove(&before.holder);
            }
        }
        self.by_holder.entry(holder).or_default().insert(address);
    }

    /// Gives an address back; its holder is remembered.
    pub(crate) fn release_lease(&mut self, address: IpAddr) {
        if let Some(lease) = self.leases.get_mut(&address) {
            lease.uses = lease.uses.saturating_sub(1);
            if lease.uses == 0 {
                self.idle.insert(address);
            }
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
        if !self.leases.contains_key(&address) {
            self.put_lease(address, holder, 0, None);
        }
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
        let at = "192.0.2.1".parse().unwrap();
        let first = registry.lease(&pool, &a, None, at).unwrap();
        let second = registry.lease(&pool, &b, None, at).unwrap();
        assert_eq!(
            (first.to_string().as_str(), second.to_string().as_str()),
            ("10.0.0.1", "10.0.0.2")
        );
        assert_eq!(registry.lease(&pool, &Identity::from_text("c"), None, at), None);
        assert_eq!(
            registry.lease(&pool, &b, Some(first), at),
            None,
            "another's address"
        );
        assert_eq!(
            registry.lease(&pool, &b, Some(second), at),
            Some(second),
            "reauthentication"
        );
        registry.release_lease(second);
        assert_eq!(registry.lease_fixed(second, &a, at), None, "still in use");
        registry.release_lease(first);
        registry.release_lease(second);
        assert_eq!(registry.lease(&pool, &b, None, at), Some(second));
        assert_eq!(registry.lease(&pool, &a, None, at), Some(first));
    }

    #[test]
    fn tunnels_are_reused() {
        let mut registry = Registry::default();
        let config = EndpointConfig {
            dynamic_tunnels: 5..8,
            ..EndpointConfig::default()
        };
        registry.reserve_tunnel(TunnelId(6));
        assert_eq!(registry.new_tunnel(&config), Some(TunnelId(5)));
        assert_eq!(registry.new_tunnel(&config), Some(TunnelId(7)));
        assert_eq!(registry.new_tunnel(&config), None);
        registry.release_tunnel(&config, TunnelId(5));
        registry.release_tunnel(&config, TunnelId(9));
        assert_eq!(registry.new_tunnel(&config), Some(TunnelId(5)));
    }
}
