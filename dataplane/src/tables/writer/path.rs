//! Path MTUs: what routers say of our outer packets, believed if the packet was ours.

use southbound::{Event, SaDirection, SaRef};

use super::Writer;
use crate::sa::PathReport;
use crate::tables::publish::Guard;

impl Writer {
    /// Takes a report. Where an outbound SA sent the packet that it quotes, lately and between the addresses that it
    /// says, the tunnel learns (RFC 4301 section 8.2.1); the event is for the control process.
    pub fn hear(&mut self, report: &PathReport, now_seconds: u64) -> Option<Event> {
        let guard = Guard::pin();
        let name = SaRef {
            direction: SaDirection::Outbound,
            spi: report.spi,
            destination: report.destination,
        };
        let (tunnel, place) = self.sas.outbound(&name)?;
        let sa = self.tables.outbound.get(place, &guard)?;
        let tunnel = self.tables.tunnels.get(tunnel.get())?.load(&guard)?;
        if tunnel.local != report.source || !report.is_plausible(sa.sequence().last()) {
            return None;
        }
        let outer_mtu_bytes =
            tunnel.learn_path_mtu(report.claimed_bytes, report.packet_bytes, now_seconds)?;
        Some(Event::PathMtuChanged {
            tunnel: tunnel.id,
            outer_mtu_bytes,
        })
    }
}
