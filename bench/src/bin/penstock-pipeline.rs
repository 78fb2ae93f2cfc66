//! `make bench-pipeline`: cycles per packet of the packet path in memory, a Markdown table and JSON records.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::pipeline::{Case, Kind, markdown, markdown_of_workers, measure, measure_workers, walk};
use clap::Parser;

/// Measures the packet path in memory.
#[derive(Debug, Parser)]
struct Options {
    /// Write the records here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Milliseconds for each case
    #[arg(long, default_value_t = 400)]
    budget_ms: u64,
    /// Only cases whose name contains this, such as "encap aes-128-gcm 1420 B 1 SAs"
    #[arg(long, default_value = "")]
    only: String,
    /// Only walk so many batches of each case, without a clock, for tools that count otherwise
    #[arg(long)]
    batches: Option<usize>,
    /// Measure AES-128-GCM with so many workers at once on the first CPUs, an SA each and, outbound, one for all
    #[arg(long, conflicts_with_all = ["batches", "only"])]
    workers: Option<u16>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(workers) = options.workers {
        return scale(options, workers);
    }
    let mut records = Vec::new();
    for case in Case::all() {
        if !case.name().contains(&options.only) {
            continue;
        }
        match options.batches {
            Some(batches) => walk(&case, batches)?,
            None => records.push(measure(&case, Duration::from_millis(options.budget_ms))?),
        }
    }
    print!("{}", markdown(&records));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&records)?)?;
    }
    Ok(())
}

fn scale(options: &Options, workers: u16) -> Result<(), Box<dyn Error>> {
    let budget = Duration::from_millis(options.budget_ms);
    let rows = Case::all()
        .into_iter()
        .filter(|case| case.name().contains("aes-128-gcm") && case.sas == 1)
        .flat_map(|case| {
            let own = Case {
                sas: u32::from(workers),
                ..case
            };
            // Packets of one inbound SA would leave its window while one of the workers is not on its CPU.
            let shared = (case.kind == Kind::Encap).then_some(case);
            shared.into_iter().chain([own])
        })
        .map(|case| measure_workers(&case, workers, budget))
        .collect::<Result<Vec<_>, _>>()?;
    print!("{}", markdown_of_workers(&rows));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    Ok(())
}
