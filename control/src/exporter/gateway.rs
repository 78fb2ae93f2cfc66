//! Families about the gateway as a whole.

use ike::{DURATION_BOUNDS_MS, ExchangeFailure, ExchangeRole, ExchangeTallies};
use prometheus::Error;
use southbound::SaDirection;

use super::families::{Distribution, Families, level};
use super::snapshot::{IkeFigures, Snapshot};
use crate::netlink::RESYNC_BOUNDS_MS;

const IKE_STATES: [&str; 5] = ["handshake", "established", "replaced", "deleting", "closed"];

/// What the dataplane may raise.
const EVENTS: [&str; 10] = [
    "acquire",
    "worker_acquire",
    "lifetime_soft",
    "lifetime_hard",
    "sequence_near_end",
    "path_mtu_changed",
    "peer_moved",
    "neighbour_needed",
    "port_changed",
    "events_lost",
];

pub(super) fn families(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    families
        .gauges(
            "build_info",
            "Always 1; the labels tell what runs.",
            &["version", "revision", "rustc"],
        )?
        .with_label_values(&[
            env!("CARGO_PKG_VERSION"),
            env!("PENSTOCK_REVISION"),
            env!("PENSTOCK_RUSTC"),
        ])
        .set(1);
    dataplane(families, snapshot)?;
    tables(families, snapshot)?;
    let events = families.counters("events_total", "What the dataplane raised.", &["event"])?;
    for event in EVENTS {
        events
            .with_label_values(&[event])
            .inc_by(snapshot.events.get(event).copied().unwrap_or_default());
    }
    netlink(families, snapshot)?;
    families.gauge(
        "config_last_reload_successful",
        "Whether the last reload was taken.",
        snapshot.is_reload_good.into(),
    )?;
    families.seconds(
        "config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken.",
        snapshot.reload_seconds,
    )
}

fn dataplane(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    families.gauge(
        "dataplane_up",
        "Whether the dataplane is connected and holds what it should.",
        snapshot.is_dataplane_up.into(),
    )?;
    families.gauge(
        "control_connected",
        "Whether the dataplane has greeted this control process: without one, nothing is renegotiated.",
        snapshot.is_control_connected.into(),
    )?;
    families.gauge(
        "dataplane_generation",
        "The generation that the dataplane is told.",
        snapshot.generation,
    )?;
    let [connections, instances] = snapshot.connections;
    families.counter(
        "dataplane_connections_total",
        "Connections made to the dataplane.",
        connections,
    )?;
    families.counter(
        "dataplane_instances_total",
        "Connections that found a dataplane that had been started anew.",
        instances,
    )
}

fn tables(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    let entries = families.gauges("sad_entries", "SAs of the dataplane.", &["direction"])?;
    for (direction, count) in ["in", "out"].iter().zip(snapshot.sa_counts) {
        entries.with_label_values(&[direction]).set(level(count));
    }
    let capacity = families.gauges(
        "sad_capacity",
        "SAs that the dataplane holds at most.",
        &["direction"],
    )?;
    for direction in ["in", "out"] {
        capacity
            .with_label_values(&[direction])
            .set(level(southbound::SAD_CAPACITY as u64));
    }
    let remaining = families.seconds_gauges(
        "sa_min_remaining_sequence",
        "Sequence numbers left to the SA that has the fewest; no series without SAs.",
        &["direction"],
    )?;
    let sas = families.gauges(
        "child_sas",
        "SAs by direction and state.",
        &["direction", "state"],
    )?;
    let oldest = families.seconds_gauges("sa_oldest_age_seconds", "Age of the oldest SA.", &["direction"])?;
    for (name, direction) in [("in", SaDirection::Inbound), ("out", SaDirection::Outbound)] {
        for state in ["active", "standby", "expired"] {
            sas.with_label_values(&[name, state]);
        }
        oldest.with_label_values(&[name]);
        let of_direction = || snapshot.sas.iter().filter(|sa| sa.sa.direction == direction);
        if let Some(fewest) = of_direction().map(|sa| sa.remaining_sequence).min() {
            remaining.with_label_values(&[name]).set(fewest as f64);
        }
        for sa in of_direction() {
            let state = if sa.expired {
                "expired"
            } else if sa.selected || direction == SaDirection::Inbound {
                "active"
            } else {
                "standby"
            };
            sas.with_label_values(&[name, state]).inc();
            let age = oldest.with_label_values(&[name]);
            age.set(age.get().max(sa.age_seconds as f64));
        }
    }
    let routes = families.gauges("fib_routes", "Routes of the dataplane.", &["family"])?;
    for (family, count) in ["4", "6"].iter().zip(snapshot.routes) {
        routes.with_label_values(&[family]).set(level(count));
    }
    families.gauge("neighbours", "Neighbours of the dataplane.", snapshot.neighbours)
}

fn netlink(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    let netlink = &snapshot.netlink;
    families.counter(
        "netlink_overruns_total",
        "Times the kernel could not queue a netlink event.",
        netlink.overruns,
    )?;
    families.counter(
        "netlink_resyncs_total",
        "Complete dumps of the kernel's tables.",
        netlink.resyncs,
    )?;
    families.counter(
        "netlink_route_resyncs_total",
        "Dumps of the kernel's routes only.",
        netlink.route_resyncs,
    )?;
    families.histograms(
        "netlink_resync_duration_seconds",
        "How long dumps of the kernel's tables took.",
        &[],
        vec![Distribution {
            labels: Vec::new(),
            bounds: RESYNC_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).collect(),
            counts: netlink.resync_durations.to_vec(),
            sum: netlink.resync_sum_ms as f64 / 1e3,
        }],
    );
    Ok(())
}

/// Families about the IKE engine.
pub(super) fn ike(families: &Families, ike: &IkeFigures) -> Result<(), Error> {
    families.gauge(
        "connections_configured",
        "IKE connections of the configuration.",
        ike.connections_configured,
    )?;
    let sas = families.gauges("ike_sas", "IKE SAs by state.", &["state"])?;
    for state in IKE_STATES {
        sas.with_label_values(&[state])
            .set(level(ike.sas.get(state).copied().unwrap_or_default()));
    }
    families.gauge(
        "ike_half_open_sas",
        "IKE SAs of peers that have not authenticated.",
        ike.half_open,
    )?;
    families.gauge(
        "ike_half_open_limit",
        "How many of them are allowed.",
        ike.half_open_limit,
    )?;
    let counters = &ike.counters;
    let dropped = families.counters(
        "ike_messages_dropped_total",
        "IKE messages that were not taken.",
        &["reason"],
    )?;
    for (reason, count) in [
        ("malformed", counters.malformed),
        ("unknown_spi", counters.unknown_spi),
        ("integrity_failed", counters.integrity_failed),
        ("out_of_window", counters.out_of_window),
        ("half_open_limit", counters.half_open_refused),
        ("fragment_limit", counters.fragments_dropped),
        ("auth_failed", counters.authentication_failed),
        ("unknown_critical", counters.unknown_critical),
        ("cookie_invalid", counters.cookies_invalid),
        ("no_config", counters.no_connection),
        ("rate_limited", counters.rate_limited),
    ] {
        dropped.with_label_values(&[reason]).inc_by(count);
    }
    let retransmits = families.counters(
        "ike_retransmits_total",
        "Requests sent again, and requests of peers answered again.",
        &["direction"],
    )?;
    retransmits
        .with_label_values(&["sent"])
        .inc_by(counters.retransmits_sent);
    retransmits
        .with_label_values(&["answered"])
        .inc_by(counters.retransmits_answered);
    families.counter(
        "ike_cookies_sent_total",
        "Cookies demanded of peers.",
        counters.cookies_sent,
    )?;
    families.counter(
        "ike_established_total",
        "IKE SAs established.",
        counters.established,
    )?;
    families.counter(
        "ike_negotiation_failures_total",
        "Negotiations that failed, whosever fault it was.",
        ike.failures,
    )?;
    let rekeys = families.counters(
        "ike_rekeys_total",
        "SAs that took over from another, by who asked.",
        &["kind", "initiator"],
    )?;
    let collisions = families.counters(
        "ike_rekey_collisions_total",
        "Renewals of ours that met one by the peer.",
        &["kind"],
    )?;
    for (kind, renewed, collided) in [
        ("ike", counters.ike_rekeys, counters.ike_rekey_collisions),
        ("child", counters.child_rekeys, counters.child_rekey_collisions),
    ] {
        for (initiator, count) in ["here", "peer"].iter().zip(renewed) {
            rekeys.with_label_values(&[kind, *initiator]).inc_by(count);
        }
        collisions.with_label_values(&[kind]).inc_by(collided);
    }
    families.counter(
        "ike_dpd_timeouts_total",
        "Peers that were given up because they did not answer.",
        counters.dpd_timeouts,
    )?;
    let fragments = families.counters(
        "ike_fragments_total",
        "Fragments of IKE messages.",
        &["direction"],
    )?;
    fragments
        .with_label_values(&["in"])
        .inc_by(counters.fragments_received);
    fragments
        .with_label_values(&["out"])
        .inc_by(counters.fragments_sent);
    families.gauge(
        "ike_reassembly_bytes",
        "Bytes of fragments that wait for the rest of their message.",
        ike.reassembly_bytes,
    )?;
    exchanges(families, &counters.exchanges)?;
    let ends = families.seconds_gauges(
        "certificate_not_after_timestamp_seconds",
        "When a certificate of ours or of a trusted authority ends.",
        &["name"],
    )?;
    let lists = families.seconds_gauges(
        "crl_next_update_timestamp_seconds",
        "When a revocation list is to be replaced by its next.",
        &["name"],
    )?;
    for expiry in &ike.expiries {
        let family = if expiry.is_revocation_list { &lists } else { &ends };
        family
            .with_label_values(&[&expiry.name])
            .set(expiry.unix_seconds as f64);
    }
    Ok(())
}

/// Families about exchanges.
fn exchanges(families: &Families, tallies: &ExchangeTallies) -> Result<(), Error> {
    let ended = families.counters(
        "ike_exchanges_total",
        "IKE exchanges that came to an end, failed ones too.",
        &["exchange", "role"],
    )?;
    let failed = families.counters(
        "ike_exchange_failures_total",
        "IKE exchanges that failed.",
        &["exchange", "role", "reason"],
    )?;
    let mut durations = Vec::new();
    for (exchange, role, tally) in tallies.iter() {
        ended
            .with_label_values(&[exchange, role.name()])
            .inc_by(tally.ended);
        for reason in ExchangeFailure::ALL {
            failed
                .with_label_values(&[exchange, role.name(), reason.name()])
                .inc_by(tally.failed(*reason));
        }
        if role == ExchangeRole::Initiator {
            durations.push(Distribution {
                labels: vec![exchange.to_owned()],
                bounds: DURATION_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).collect(),
                counts: tally.durations.to_vec(),
                sum: tally.duration_sum_ms as f64 / 1e3,
            });
        }
    }
    families.histograms(
        "ike_exchange_duration_seconds",
        "From a request of ours to its answer.",
        &["exchange"],
        durations,
    );
    Ok(())
}
