//! The status page: one embedded document without external assets, and the JSON that it draws.

use serde_json::{Value, json};
use southbound::{CopyMode, DropReason, PortCounter, PortPhase, WorkerCounter, XdpMode};

use super::http::Response;
use super::ports;
use super::snapshot::Snapshot;

const DOCUMENT: &str = include_str!("page.html");

/// Nothing from elsewhere is loaded, and what is asked for comes from here.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Most tunnels that the page lists; those that are not up come first.
const MAX_TUNNELS: usize = 500;

pub(super) fn document() -> Response {
    Response::new("200 OK", "text/html; charset=utf-8", DOCUMENT).with_header(POLICY)
}

pub(super) fn data(snapshot: &Snapshot) -> Response {
    Response::new("200 OK", "application/json", value(snapshot).to_string())
}

fn value(snapshot: &Snapshot) -> Value {
    let mut tunnels: Vec<_> = snapshot.tunnels.iter().collect();
    tunnels.sort_by(|one, other| (one.state == "up", &one.name).cmp(&(other.state == "up", &other.name)));
    json!({
        "schema": crate::admin::SCHEMA,
        "name": snapshot.name,
        "status": snapshot.status,
        "children_configured": snapshot.tunnels_configured,
        "children_established": tunnels.iter().filter(|tunnel| tunnel.is_up()).count(),
        "tunnels_unlisted": tunnels.len().saturating_sub(MAX_TUNNELS),
        "tunnels": tunnels.iter().take(MAX_TUNNELS).map(|tunnel| json!({
            "name": tunnel.name,
            "state": tunnel.state,
            "local": tunnel.local,
            "remote": tunnel.remote,
            "inner_mtu_bytes": tunnel.inner_mtu_bytes,
            "in_packets": tunnel.totals.in_packets,
            "in_bytes": tunnel.totals.in_bytes,
            "out_packets": tunnel.totals.out_packets,
            "out_bytes": tunnel.totals.out_bytes,
            "drop_packets": tunnel.totals.drop_packets,
        })).collect::<Vec<_>>(),
        "drops": DropReason::ALL.iter().map(|reason| json!({
            "stage": reason.stage().name(),
            "reason": reason.name(),
            "packets": snapshot.blocks.iter().map(|block| block.drops(*reason)).sum::<u64>(),
            "help": reason.help().trim(),
        })).collect::<Vec<_>>(),
        "workers": workers(snapshot),
        "ports": port_records(snapshot),
        "routes": snapshot.route_records,
        "routes_counted": snapshot.routes.iter().sum::<u64>(),
        "history": snapshot.history,
    })
}

fn workers(snapshot: &Snapshot) -> Vec<Value> {
    snapshot
        .blocks
        .iter()
        .enumerate()
        .map(|(number, block)| {
            let known = snapshot
                .workers
                .iter()
                .find(|worker| usize::from(worker.worker) == number);
            json!({
                "worker": number,
                "cpu": known.map(|worker| worker.cpu),
                "busy_nanoseconds": block.worker(WorkerCounter::BusyNanoseconds),
                "received_packets": block.worker(WorkerCounter::Received),
                "transmitted_packets": block.worker(WorkerCounter::Transmitted),
                "frames_free": block.worker(WorkerCounter::FramesFree),
                "frames": known.map(|worker| worker.frames),
            })
        })
        .collect()
}

fn port_records(snapshot: &Snapshot) -> Vec<Value> {
    snapshot
        .ports
        .iter()
        .map(|port| {
            let sum = |counter: PortCounter| {
                snapshot
                    .blocks
                    .iter()
                    .filter_map(|block| ports::value(port, block, counter))
                    .sum::<u64>()
            };
            let zero_copy = port
                .queues
                .iter()
                .filter(|mode| **mode == CopyMode::ZeroCopy)
                .count();
            json!({
                "interface": port.interface,
                "state": match port.phase {
                    PortPhase::Absent => "absent",
                    PortPhase::LinkDown => "down",
                    PortPhase::Binding => "binding",
                    PortPhase::Up => "up",
                    PortPhase::Draining => "draining",
                    PortPhase::Refused => "refused",
                },
                "xdp": port.xdp.map(|mode| match mode {
                    XdpMode::Driver => "driver",
                    XdpMode::Generic => "generic",
                }),
                "queues": port.queues.len(),
                "zero_copy_queues": zero_copy,
                "mtu_bytes": port.mtu_bytes,
                "rebinds": port.rebinds,
                "error": port.error,
                "received_packets": sum(PortCounter::ReceivedPackets),
                "received_bytes": sum(PortCounter::ReceivedBytes),
                "transmitted_packets": sum(PortCounter::TransmittedPackets),
                "transmitted_bytes": sum(PortCounter::TransmittedBytes),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_small_and_names_nothing_outside() {
        assert!(DOCUMENT.len() < 32 * 1024, "{} bytes", DOCUMENT.len());
        // The name of a language, not a place.
        let document = DOCUMENT.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http://", "https://", "src=", "@import", "innerHTML"] {
            assert!(!document.contains(outside), "{outside}");
        }
    }
}
