//! The registry of one scrape: every family has the prefix, and a help line.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Error, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The families of one scrape.
pub(super) struct Families(Registry);

impl Families {
    pub(super) fn new() -> Self {
        Self(Registry::new())
    }

    fn add<T: Collector + Clone + 'static>(&self, family: T) -> Result<T, Error> {
        self.0.register(Box::new(family.clone()))?;
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

    /// What every process tells of itself (`process_*`).
    pub(super) fn process(&self) -> Result<(), Error> {
        self.0.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("penstock_{name}"), help)
}

/// A level as gauges take it.
pub(super) fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
