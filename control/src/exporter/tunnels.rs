//! Families about tunnels: their numbers in `/metrics`, a series each in `/metrics/tunnels`.

use prometheus::Error;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use regex::{Regex, RegexBuilder};

use super::exposition::{self, Form};
use super::families::{Families, level};
use super::snapshot::{Snapshot, TunnelRecord};

/// Samples of one tunnel.
const SERIES_A_TUNNEL: usize = 7;

/// Longest compiled filter in bytes.
const MAX_FILTER_BYTES: usize = 1024 * 1024;

/// The pair that tells tunnels that are configured and down, and how they stand.
pub(super) fn summary(families: &Families, snapshot: &Snapshot) -> Result<(), Error> {
    families.gauge(
        "children_configured",
        "Tunnels of the configuration, those that are down too.",
        snapshot.tunnels_configured,
    )?;
    let up = snapshot.tunnels.iter().filter(|tunnel| tunnel.is_up()).count();
    families.gauge(
        "children_established",
        "Tunnels with an SA to send with.",
        up as u64,
    )?;
    families.gauge(
        "tunnels_refused",
        "Tunnels with SAs that are not installed.",
        snapshot.tunnels_refused,
    )?;
    let states = families.gauges("tunnels", "Tunnels by state.", &["state"])?;
    for state in ["up", "down", "degraded", "refused", "missing"] {
        let count = snapshot
            .tunnels
            .iter()
            .filter(|tunnel| tunnel.state == state)
            .count();
        states.with_label_values(&[state]).set(level(count as u64));
    }
    Ok(())
}

/// The filter of `?connection=`; as in Prometheus it must match the whole name.
///
/// # Errors
/// What is no regular expression, or too long a one.
pub(super) fn filter(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(MAX_FILTER_BYTES)
        .build()
        .map_err(|error| error.to_string())
}

/// `/metrics/tunnels`: at most `max_series` samples, and how many tunnels had to be left out.
pub(super) fn detail(
    tunnels: &[TunnelRecord],
    filter: Option<&Regex>,
    max_series: usize,
    form: Form,
) -> Result<Vec<u8>, Error> {
    let mut chosen: Vec<&TunnelRecord> = tunnels
        .iter()
        .filter(|tunnel| filter.is_none_or(|filter| filter.is_match(&tunnel.name)))
        .collect();
    chosen.sort_by(|one, other| one.name.cmp(&other.name));
    let suppressed = chosen.len().saturating_sub(max_series / SERIES_A_TUNNEL);
    chosen.truncate(max_series / SERIES_A_TUNNEL);
    let each = |take: &dyn Fn(&TunnelRecord) -> Vec<Metric>| {
        chosen.iter().flat_map(|tunnel| take(tunnel)).collect::<Vec<_>>()
    };
    let name = |tunnel: &TunnelRecord| label("connection", &tunnel.name);
    let ways = |tunnel: &TunnelRecord, values: [u64; 2]| {
        ["in", "out"]
            .iter()
            .zip(values)
            .map(|(direction, value)| counter(vec![name(tunnel), label("direction", direction)], value))
            .collect()
    };
    let families = [
        family(
            "tunnel_bytes_total",
            "Bytes of inner packets.",
            MetricType::COUNTER,
            each(&|tunnel| ways(tunnel, [tunnel.totals.in_bytes, tunnel.totals.out_bytes])),
        ),
        family(
            "tunnel_drop_packets_total",
            "Packets of the tunnel's SAs that were dropped as replayed, damaged or outside their selectors.",
            MetricType::COUNTER,
            each(&|tunnel| vec![counter(vec![name(tunnel)], tunnel.totals.drop_packets)]),
        ),
        family(
            "tunnel_info",
            "Always 1; the labels tell the ends and the state.",
            MetricType::GAUGE,
            each(&|tunnel| {
                vec![gauge(
                    vec![
                        name(tunnel),
                        label("local", &tunnel.local),
                        label("remote", &tunnel.remote),
                        label("state", tunnel.state),
                    ],
                    1,
                )]
            }),
        ),
        family(
            "tunnel_packets_total",
            "Packets carried.",
            MetricType::COUNTER,
            each(&|tunnel| ways(tunnel, [tunnel.totals.in_packets, tunnel.totals.out_packets])),
        ),
        family(
            "tunnel_up",
            "Whether the tunnel has an SA to send with.",
            MetricType::GAUGE,
            each(&|tunnel| vec![gauge(vec![name(tunnel)], tunnel.is_up().into())]),
        ),
        family(
            "metrics_tunnels_suppressed",
            "Tunnels that the limit of series left out.",
            MetricType::GAUGE,
            vec![gauge(Vec::new(), suppressed as u64)],
        ),
    ];
    let families: Vec<MetricFamily> = families
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    exposition::encode(&families, form)
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("penstock_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn counter(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests {
    use southbound::TunnelTotals;

    use super::*;

    fn tunnels(count: usize) -> Vec<TunnelRecord> {
        (0..count)
            .map(|number| TunnelRecord {
                name: format!("site-{number:05}"),
                state: if number % 2 == 0 { "up" } else { "down" },
                local: "192.0.2.1".into(),
                remote: "192.0.2.2".into(),
                inner_mtu_bytes: 1400,
                totals: TunnelTotals {
                    in_packets: number as u64,
                    ..TunnelTotals::default()
                },
            })
            .collect()
    }

    fn lines(bytes: Vec<u8>) -> Vec<String> {
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_tunnel_that_is_down_is_there() {
        let text = lines(detail(&tunnels(2), None, 100, Form::Text).unwrap());
        assert_eq!(text.len(), 2 * SERIES_A_TUNNEL + 1);
        assert!(text.contains(&"penstock_tunnel_up{connection=\"site-00001\"} 0".into()));
        assert!(
            text.contains(
                &"penstock_tunnel_packets_total{connection=\"site-00001\",direction=\"in\"} 1".into()
            )
        );
    }

    #[test]
    fn the_limit_holds_and_says_so() {
        let text = lines(detail(&tunnels(10_000), None, 700, Form::OpenMetrics).unwrap());
        assert_eq!(text.len(), 701);
        assert!(text.contains(&"penstock_metrics_tunnels_suppressed 9900".into()));
    }

    #[test]
    fn the_filter_matches_whole_names_and_is_bounded() {
        let chosen = filter("site-0000[12]").unwrap();
        let text = lines(detail(&tunnels(20), Some(&chosen), 10_000, Form::Text).unwrap());
        assert_eq!(text.len(), 2 * SERIES_A_TUNNEL + 1);
        let part = filter("site").unwrap();
        assert_eq!(
            lines(detail(&tunnels(20), Some(&part), 10_000, Form::Text).unwrap()),
            ["penstock_metrics_tunnels_suppressed 0"]
        );
        assert!(filter("(").is_err());
        assert!(filter(&"(a{1000}){1000}".repeat(3)).is_err());
    }
}
