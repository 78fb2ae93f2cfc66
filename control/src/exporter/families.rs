//! The registry of one scrape: every family has the prefix, and a help line.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{CounterVec, Error, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The families of one scrape.
pub(super) struct Families {
    registry: Registry,
    histograms: RefCell<Vec<MetricFamily>>,
}

/// A series of a histogram that was counted elsewhere.
pub(super) struct Distribution {
    /// The values of the family's labels.
    pub(super) labels: Vec<String>,
    /// Upper bounds of the classes, in the family's unit; the last class has none.
    pub(super) bounds: Vec<f64>,
    /// Observations in each class.
    pub(super) counts: Vec<u64>,
    /// The sum of what was observed.
    pub(super) sum: f64,
}

impl Families {
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::new(),
            histograms: RefCell::default(),
        }
    }

    fn add<T: Collector + Clone + 'static>(&self, family: T) -> Result<T, Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(opts(name, help), labels)?)
    }

    pub(super) fn seconds_counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterVec, Error> {
        self.add(CounterVec::new(opts(name, help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn seconds_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.add(GaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.gauges(name, help, &[])?
            .with_label_values::<&str>(&[])
            .set(level(value));
        Ok(())
    }

    pub(super) fn counter(&self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help, &[])?
            .with_label_values::<&str>(&[])
            .inc_by(value);
        Ok(())
    }

    pub(super) fn seconds(&self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.seconds_gauges(name, help, &[])?
            .with_label_values::<&str>(&[])
            .set(value);
        Ok(())
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str], series: Vec<Distribution>) {
        // A family without series is an error to the encoder.
        if series.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("penstock_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(series.into_iter().map(|series| series.metric(labels)).collect());
        self.histograms.borrow_mut().push(family);
    }

    /// What every process tells of itself (`process_*`).
    pub(super) fn process(&self) -> Result<(), Error> {
        self.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(self.histograms.take());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        families
    }
}

impl Distribution {
    fn metric(self, names: &[&str]) -> Metric {
        let pair = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, observed) in self.bounds.iter().zip(&self.counts) {
            count += *observed;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        // The class without a bound is the difference to the count.
        histogram.set_sample_count(self.counts.iter().sum());
        histogram.set_sample_sum(self.sum);
        let mut metric = Metric::from_label(names.iter().zip(self.labels).map(pair).collect());
        metric.set_histogram(histogram);
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("penstock_{name}"), help)
}

/// A level as gauges take it.
pub(super) fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
