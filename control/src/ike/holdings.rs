//! SAs and the tunnels that they are of: each found from the other, among tens of thousands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use southbound::{SaRef, TunnelId};

#[derive(Debug, Default)]
pub(super) struct Holdings {
    of_tunnel: BTreeMap<TunnelId, BTreeSet<SaRef>>,
    tunnel_of: BTreeMap<SaRef, TunnelId>,
}

impl Holdings {
    pub(super) fn insert(&mut self, sa: SaRef, tunnel: TunnelId) {
        self.remove(&sa);
        self.tunnel_of.insert(sa, tunnel);
        self.of_tunnel.entry(tunnel).or_default().insert(sa);
    }

    /// The tunnel that it was of.
    pub(super) fn remove(&mut self, sa: &SaRef) -> Option<TunnelId> {
        let tunnel = self.tunnel_of.remove(sa)?;
        if let Some(sas) = self.of_tunnel.get_mut(&tunnel) {
            sas.remove(sa);
            if sas.is_empty() {
                self.of_tunnel.remove(&tunnel);
            }
        }
        Some(tunnel)
    }

    pub(super) fn remove_tunnel(&mut self, tunnel: TunnelId) -> BTreeSet<SaRef> {
        let sas = self.of_tunnel.remove(&tunnel).unwrap_or_default();
        for sa in &sas {
            self.tunnel_of.remove(sa);
        }
        sas
    }

    pub(super) fn contains(&self, sa: &SaRef) -> bool {
        self.tunnel_of.contains_key(sa)
    }

    /// Those of the same direction and SPI, whatever their destination.
    pub(super) fn of_spi(&self, sa: &SaRef) -> impl Iterator<Item = SaRef> + '_ {
        let (direction, spi) = (sa.direction, sa.spi);
        // No address is before this one.
        let destination = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let first = SaRef { destination, ..*sa };
        let from_first = self.tunnel_of.range(first..).map(|(sa, _)| *sa);
        from_first.take_while(move |sa| (sa.direction, sa.spi) == (direction, spi))
    }

    pub(super) fn has_tunnel(&self, tunnel: TunnelId) -> bool {
        self.of_tunnel.contains_key(&tunnel)
    }

    pub(super) fn tunnels(&self) -> impl Iterator<Item = TunnelId> + '_ {
        self.of_tunnel.keys().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SaRef, TunnelId)> + '_ {
        self.tunnel_of.iter().map(|(sa, tunnel)| (*sa, *tunnel))
    }

    pub(super) fn len(&self) -> usize {
        self.tunnel_of.len()
    }
}

#[cfg(test)]
mod tests {
    use southbound::SaDirection;

    use super::*;

    fn sa(spi: u32, destination: &str) -> SaRef {
        SaRef {
            direction: SaDirection::Outbound,
            spi,
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn sas_are_found_by_tunnel_and_by_spi() {
        let mut holdings = Holdings::default();
        let (a, b) = (sa(7, "192.0.2.1"), sa(7, "2001:db8::1"));
        holdings.insert(a, TunnelId(1));
        holdings.insert(b, TunnelId(2));
        holdings.insert(sa(8, "192.0.2.1"), TunnelId(2));
        let found: Vec<_> = holdings.of_spi(&sa(7, "203.0.113.1")).collect();
        assert_eq!(found, [a, b]);
        holdings.insert(a, TunnelId(3));
        assert!(!holdings.has_tunnel(TunnelId(1)));
        assert_eq!(holdings.remove(&a), Some(TunnelId(3)));
        assert_eq!(holdings.remove(&a), None);
        assert_eq!(holdings.remove_tunnel(TunnelId(2)).len(), 2);
        assert_eq!((holdings.len(), holdings.tunnels().count()), (0, 0));
    }
}
