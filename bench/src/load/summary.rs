//! What a run is told as: JSON whole, Markdown for people, SVG beside it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::plot::{self, Line};
use super::search::Found;
use super::trial::Outcome;

/// The machine, as far as it says so itself.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor.
    pub processor: String,
    /// How many CPUs.
    pub cpus: usize,
    /// The kernel.
    pub kernel: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn look() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                text.lines().find_map(|line| {
                    Some(
                        line.strip_prefix("model name")?
                            .split_once(':')?
                            .1
                            .trim()
                            .to_owned(),
                    )
                })
            })
            .unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor,
            cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// One search.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// What is sent: a size in bytes with the check sequence, or `IMIX`.
    pub sizes: String,
    /// Mean bytes of a frame.
    pub mean_bytes: f64,
    /// `NDR` or `PDR`.
    pub goal: &'static str,
    /// What was found.
    pub found: Found,
}

/// A named trial.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// What was done meanwhile.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// See [`Outcome::blocked_ms`].
    pub blocked_ms: f64,
    /// Frames lost over frames sent.
    pub loss_ratio: f64,
}

impl Case {
    /// A trial with its derived figures.
    #[must_use]
    pub fn new(name: &str, outcome: Outcome) -> Self {
        Self {
            name: name.to_owned(),
            blocked_ms: outcome.blocked_ms(),
            loss_ratio: outcome.loss_ratio(),
            outcome,
        }
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The command line.
    pub command: String,
    /// The machine.
    pub machine: Machine,
    /// What the operator says of the device under test: cipher, tunnels, cores.
    pub note: String,
    /// Searches.
    pub throughput: Vec<Throughput>,
    /// Single trials.
    pub cases: Vec<Case>,
}

impl Summary {
    /// For people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# penstock-bench\n\n`{}`\n\n{}, {} CPUs, Linux {}. {}\n\nSource and sink are AF_PACKET sockets of this machine; sizes \
             count the check sequence.\n",
            self.command, self.machine.processor, self.machine.cpus, self.machine.kernel, self.note
        );
        // Writing to a String cannot fail.
        if !self.throughput.is_empty() {
            text.push_str(
                "\n| frame | goal | lower bound, frames/s | upper bound | forwarded there | Mbit/s | trials |\n\
                 |---|---|---|---|---|---|---|\n",
            );
        }
        for row in &self.throughput {
            let bound = |fps: Option<f64>| fps.map_or("none".to_owned(), |fps| format!("{fps:.0}"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.0} | {:.1} | {} |",
                row.sizes,
                row.goal,
                bound(row.found.lower_fps),
                bound(row.found.upper_fps),
                row.found.conditional_throughput_fps,
                row.found.conditional_throughput_fps * row.mean_bytes * 8.0 / 1e6,
                row.found.trials.len()
            );
        }
        if !self.cases.is_empty() {
            text.push_str(
                "\n| case | sent/s | sent | lost | ratio | blocked, ms | longest gap, ms | reordered | duplicated | \
                 latency min / 50 % / 99 % / 99.9 % / max, µs |\n|---|---|---|---|---|---|---|---|---|---|\n",
            );
        }
        for case in &self.cases {
            let outcome = &case.outcome;
            let latency: Vec<String> = outcome
                .latency_us
                .iter()
                .map(|microseconds| format!("{microseconds:.0}"))
                .collect();
            let _ = writeln!(
                text,
                "| {} | {:.0} | {} | {} | {:.2e} | {:.2} | {:.2} | {} | {} | {} |",
                case.name,
                outcome.sent_fps,
                outcome.sent,
                outcome.sent.saturating_sub(outcome.received),
                case.loss_ratio,
                case.blocked_ms,
                outcome.longest_gap_ms,
                outcome.reordered,
                outcome.duplicated,
                latency.join(" / ")
            );
        }
        text
    }

    /// Latency over quantiles, a line a case.
    #[must_use]
    pub fn latency_plot(&self) -> Option<String> {
        let lines: Vec<Line> = self
            .cases
            .iter()
            .filter(|case| case.outcome.received > 0)
            .map(|case| Line {
                name: case.name.clone(),
                points: (0..=999)
                    .map(|share| {
                        let quantile = f64::from(share) / 1000.0;
                        let ns = case.outcome.latency_ns.value_at_quantile(quantile);
                        (quantile * 100.0, ns as f64 / 1000.0)
                    })
                    .collect(),
            })
            .collect();
        (!lines.is_empty()).then(|| plot::lines("Latency", "percent of frames", "µs or less", &lines))
    }

    /// Every trial of the searches: forwarded over offered.
    #[must_use]
    pub fn throughput_plot(&self) -> Option<String> {
        let lines: Vec<Line> = self
            .throughput
            .iter()
            .map(|row| {
                let mut points: Vec<(f64, f64)> = row
                    .found
                    .trials
                    .iter()
                    .map(|trial| (trial.load_fps, trial.forwarded_fps))
                    .collect();
                points.sort_by(|one, other| one.0.total_cmp(&other.0));
                Line {
                    name: format!("{} {}", row.sizes, row.goal),
                    points,
                }
            })
            .collect();
        (!lines.is_empty())
            .then(|| plot::lines("Forwarded", "frames/s offered", "frames/s forwarded", &lines))
    }

    /// Writes `NAME.json`, `NAME.md` and the plots.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, name: &Path) -> io::Result<()> {
        fs::write(name.with_extension("json"), serde_json::to_string_pretty(self)?)?;
        fs::write(name.with_extension("md"), self.markdown())?;
        for (kind, plot) in [
            ("latency.svg", self.latency_plot()),
            ("throughput.svg", self.throughput_plot()),
        ] {
            if let Some(svg) = plot {
                fs::write(name.with_extension(kind), svg)?;
            }
        }
        Ok(())
    }
}
