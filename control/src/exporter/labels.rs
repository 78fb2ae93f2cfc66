//! Families about VRFs, labels and FRR.

use std::time::UNIX_EPOCH;

use prometheus::Error;

use super::families::{Families, level};
use super::snapshot::Snapshot;

/// Most VRFs, and most labels, with series of their own: where there are more, they have none.
pub(crate) const MOST_SERIES: usize = 1024;

pub(super) fn families(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    families.gauge(
        "vrfs",
        "Routing tables of the dataplane.",
        snapshot.vrfs.len() as u64,
    )?;
    families.gauge(
        "mpls_labels",
        "Labels that the dataplane should take.",
        snapshot.label_count,
    )?;
    let packets = families.counters(
        "vrf_packets_total",
        "Packets routed in a table; no series where there are more than 1024 tables.",
        &["vrf"],
    )?;
    let bytes = families.counters(
        "vrf_bytes_total",
        "Bytes of the packets routed in a table; no series where there are more than 1024 tables.",
        &["vrf"],
    )?;
    let routes = families.gauges(
        "vrf_routes",
        "Routes of a table; no series where there are more than 1024 tables.",
        &["vrf", "family"],
    )?;
    for (name, vrf) in snapshot
        .vrfs
        .iter()
        .filter(|_| snapshot.vrfs.len() <= MOST_SERIES)
    {
        packets.with_label_values(&[name]).inc_by(vrf.packets);
        bytes.with_label_values(&[name]).inc_by(vrf.bytes);
        for (family, count) in [("4", vrf.routes_v4), ("6", vrf.routes_v6)] {
            routes
                .with_label_values(&[name.as_str(), family])
                .set(level(count));
        }
    }
    let packets = families.counters(
        "label_packets_total",
        "Packets that came with a label on top; no series where there are more than 1024 labels.",
        &["label", "space"],
    )?;
    let bytes = families.counters(
        "label_bytes_total",
        "Their bytes; no series where there are more than 1024 labels.",
        &["label", "space"],
    )?;
    for label in snapshot
        .labels
        .iter()
        .filter(|_| snapshot.labels.len() <= MOST_SERIES)
    {
        let names = [label.ilm.label.to_string(), label.ilm.space.0.to_string()];
        packets.with_label_values(&names).inc_by(label.packets);
        bytes.with_label_values(&names).inc_by(label.bytes);
    }
    let fpm = snapshot.fpm.unwrap_or_default();
    families.gauge(
        "frr_connected",
        "Whether FRR's zebra is connected.",
        fpm.is_connected.into(),
    )?;
    families.seconds(
        "frr_last_update_timestamp_seconds",
        "When zebra last told anything; 0 where it never did.",
        fpm.updated
            .and_then(|updated| updated.duration_since(UNIX_EPOCH).ok())
            .map_or(0.0, |since| since.as_secs_f64()),
    )?;
    let told = families.counters(
        "frr_routes_total",
        "Routes and labels that zebra told or took back.",
        &["action", "safi"],
    )?;
    for (safi, counts) in [
        ("unicast", fpm.statistics.routes),
        ("label", fpm.statistics.labels),
    ] {
        for (action, count) in ["add", "delete"].iter().zip(counts) {
            told.with_label_values(&[*action, safi]).inc_by(count);
        }
    }
    families.counter("fpm_sessions_total", "Sessions of zebra.", fpm.sessions)?;
    let entries = families.gauges("fpm_entries", "What zebra told and is held.", &["kind"])?;
    for (kind, count) in [
        ("route", fpm.counts.routes),
        ("label", fpm.counts.labels),
        ("next_hop", fpm.counts.next_hops),
    ] {
        entries.with_label_values(&[kind]).set(level(count));
    }
    families.gauge(
        "frr_stale_routes",
        "Routes, labels and next hops of zebra's that the present session has not confirmed.",
        fpm.counts.stale,
    )?;
    families.counter(
        "fpm_refused_total",
        "Entries of zebra's that found their table full.",
        fpm.counts.refused,
    )?;
    families.counter(
        "fpm_messages_total",
        "Messages of zebra.",
        fpm.statistics.messages,
    )?;
    families.counter(
        "fpm_malformed_total",
        "Messages of zebra that could not be read.",
        fpm.statistics.malformed + fpm.statistics.foreign_frames + fpm.statistics.bad_labels,
    )
}
