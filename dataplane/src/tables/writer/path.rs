//! Path MTUs: what routers say of our outer packets, believed if the packet was ours.

use southbound::{Event, SaDirection, SaRef};

use super::Writer;
use crate::sa::{PathReport, Quoted, Tunnel, is_plausible};
use crate::tables::publish::Guard;
use crate::tables::{TunnelEnds, TunnelHeader};

impl Writer {
    /// Takes a report. Where the packet that it quotes is one that a tunnel sent, the tunnel learns; the event is for the
    /// control process.
    ///
    /// An SA sent it where it was lately, and between the addresses that it says (RFC 4301 section 8.2.1). A tunnel in the
    /// clear has no numbers that a stranger could not guess: it sent what has its ends, its header with its key, and is no
    /// longer than what it may send (RFC 2003 section 5.1); a forger can bring it down to the floor for ten minutes.
    pub fn hear(&mut self, report: &PathReport, now_seconds: u64) -> Option<Event> {
        let guard = Guard::pin();
        let tunnel = match report.quoted {
            Quoted::Esp { spi, sequence_low } => self.sealed(report, (spi, sequence_low), &guard),
            Quoted::Clear(header) => self.clear(report, header, now_seconds, &guard),
        }?;
        let outer_mtu_bytes =
            tunnel.learn_path_mtu(report.claimed_bytes, report.packet_bytes, now_seconds)?;
        Some(Event::PathMtuChanged {
            tunnel: tunnel.id,
            outer_mtu_bytes,
        })
    }

    fn sealed<'g>(
        &'g self,
        report: &PathReport,
        (spi, sequence_low): (u32, u32),
        guard: &'g Guard,
    ) -> Option<&'g Tunnel> {
        let name = SaRef {
            direction: SaDirection::Outbound,
            spi,
            destination: report.destination,
        };
        let (tunnel, place) = self.sas.outbound(&name)?;
        let sa = self.tables.outbound.get(place, guard)?;
        let tunnel = self.tables.tunnels.get(tunnel.get())?.load(guard)?;
        let is_ours = tunnel.local == report.source && is_plausible(sequence_low, sa.sequence().last());
        is_ours.then_some(tunnel)
    }

    fn clear<'g>(
        &'g self,
        report: &PathReport,
        header: TunnelHeader,
        now_seconds: u64,
        guard: &'g Guard,
    ) -> Option<&'g Tunnel> {
        let ends = TunnelEnds {
            vrf: report.vrf,
            local: report.source,
            remote: report.destination,
            header,
        };
        let index = self.tables.tunnel_map.load(guard).find(&ends)?;
        let tunnel = self.tables.tunnels.get(index.get())?.load(guard)?;
        let is_ours = !tunnel.protected && report.packet_bytes <= tunnel.outer_mtu_bytes(now_seconds);
        is_ours.then_some(tunnel)
    }
}
