//! The two forms of exposition: Prometheus text 0.0.4, and OpenMetrics 1.0.0, which the crate prometheus does
//! not write.

use std::fmt::Write;

use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Error, TEXT_FORMAT, TextEncoder};

/// A form of exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus text.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Form {
    /// The form that an `Accept` header prefers: OpenMetrics where it is named with a weight that is not below
    /// that of text.
    pub(super) fn negotiate(accept: &str) -> Self {
        let mut text = 0.0_f32;
        let mut open = 0.0_f32;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let mut weight = 1.0;
            let mut version = "1.0.0";
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    _ => {}
                }
            }
            match kind {
                "application/openmetrics-text" if version == "1.0.0" => open = open.max(weight),
                "text/plain" | "text/*" | "*/*" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

pub(super) fn encode(families: &[MetricFamily], form: Form) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    match form {
        Form::Text => TextEncoder::new().encode(families, &mut out)?,
        Form::OpenMetrics => out = open_metrics(families).into_bytes(),
    }
    Ok(out)
}

/// Counters, gauges and histograms: there are no others here.
fn open_metrics(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        let is_counter = family.get_field_type() == MetricType::COUNTER;
        // The family of a counter has no suffix, its samples have.
        let name = if is_counter {
            family.name().strip_suffix("_total").unwrap_or(family.name())
        } else {
            family.name()
        };
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# TYPE {name} {kind}\n# HELP {name} {}\n",
            escape(family.help())
        );
        for metric in family.get_metric() {
            if kind == "histogram" {
                histogram(&mut out, name, metric);
                continue;
            }
            out.push_str(name);
            if is_counter {
                out.push_str("_total");
            }
            labels(&mut out, metric, None);
            let value = if is_counter {
                metric.get_counter().get_value()
            } else {
                metric.get_gauge().get_value()
            };
            let _ = writeln!(out, " {value}");
        }
    }
    out.push_str("# EOF\n");
    out
}

fn histogram(out: &mut String, name: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    let bounded = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound().to_string(), bucket.cumulative_count()));
    for (bound, count) in bounded.chain([("+Inf".to_owned(), histogram.get_sample_count())]) {
        let _ = write!(out, "{name}_bucket");
        labels(out, metric, Some(&bound));
        let _ = writeln!(out, " {count}");
    }
    for (suffix, value) in [
        ("sum", histogram.get_sample_sum()),
        ("count", histogram.get_sample_count() as f64),
    ] {
        let _ = write!(out, "{name}_{suffix}");
        labels(out, metric, None);
        let _ = writeln!(out, " {value}");
    }
}

/// The labels of a sample, that of a bucket's bound last.
fn labels(out: &mut String, metric: &Metric, bound: Option<&str>) {
    let names = metric
        .get_label()
        .iter()
        .map(|label| (label.name(), label.value()));
    let mut is_first = true;
    for (name, value) in names.chain(bound.map(|bound| ("le", bound))) {
        out.push(if is_first { '{' } else { ',' });
        let _ = write!(out, "{name}=\"{}\"", escape(value));
        is_first = false;
    }
    if !is_first {
        out.push('}');
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_what_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Form::negotiate(prometheus), Form::OpenMetrics);
        assert_eq!(Form::negotiate("text/plain"), Form::Text);
        assert_eq!(Form::negotiate(""), Form::Text);
        assert_eq!(Form::negotiate("*/*"), Form::Text);
        let weighted = "application/openmetrics-text;q=0.1, text/plain;q=0.9";
        assert_eq!(Form::negotiate(weighted), Form::Text);
        let refused = "application/openmetrics-text;q=0";
        assert_eq!(Form::negotiate(refused), Form::Text);
    }

    #[test]
    fn openmetrics_names_counters_without_their_suffix() {
        let families = super::super::Families::new();
        families
            .counters("a_total", "Of \"a\".", &["way"])
            .unwrap()
            .with_label_values(&["in\nout"])
            .inc_by(3);
        families.gauge("b", "Of b.", 7).unwrap();
        let text = open_metrics(&families.gather());
        assert_eq!(
            text,
            "# TYPE penstock_a counter\n# HELP penstock_a Of \\\"a\\\".\n\
             penstock_a_total{way=\"in\\nout\"} 3\n\
             # TYPE penstock_b gauge\n# HELP penstock_b Of b.\npenstock_b 7\n# EOF\n"
        );
    }
}
