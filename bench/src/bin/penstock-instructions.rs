//! `make instructions`: the packet path's instructions a packet, compared with the committed counts.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bench::instructions::{Count, cases, count};
use clap::Parser;
use serde::{Deserialize, Serialize};

/// How far a count may be above or below the committed one with the same compiler.
const TOLERANCE: f64 = 0.03;
/// The same with another compiler, which optimises differently.
const OTHER_COMPILER_TOLERANCE: f64 = 0.25;

/// Counts the packet path's instructions and compares them with the committed counts.
#[derive(Debug, Parser)]
struct Options {
    /// The committed counts
    #[arg(long, default_value = "bench/results/instructions.json")]
    counts: PathBuf,
    /// Write the counts instead of comparing them
    #[arg(long)]
    write: bool,
}

/// The file of counts.
#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    rustc: String,
    counts: Vec<Count>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("penstock-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let benchmark = std::env::current_exe()?.with_file_name("penstock-pipeline");
    let mut counts = Vec::new();
    for case in cases() {
        counts.push(count(&benchmark, &case)?);
    }
    let found = Counts {
        rustc: compiler()?,
        counts,
    };
    if options.write {
        let mut text = serde_json::to_string_pretty(&found)?;
        text.push('\n');
        std::fs::write(&options.counts, text)?;
        return Ok(true);
    }
    compare(&committed(&options.counts)?, &found)
}

fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn committed(path: &Path) -> Result<Counts, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Prints every case; whether all are within the tolerance.
fn compare(before: &Counts, now: &Counts) -> Result<bool, Box<dyn Error>> {
    let tolerance = if before.rustc == now.rustc {
        TOLERANCE
    } else {
        println!("the counts are of {}, this is {}", before.rustc, now.rustc);
        OTHER_COMPILER_TOLERANCE
    };
    let mut is_good = true;
    for found in &now.counts {
        let expected = before
            .counts
            .iter()
            .find(|count| count.case == found.case)
            .ok_or_else(|| format!("no committed count of {}: run with --write", found.case))?;
        let change = found.instructions / expected.instructions - 1.0;
        let is_within = change.abs() <= tolerance;
        is_good &= is_within;
        println!(
            "{:<36} {:>7.1} instructions a packet, committed {:>7.1} ({:+.1}%){}",
            found.case,
            found.instructions,
            expected.instructions,
            100.0 * change,
            if is_within {
                ""
            } else {
                "  <- beyond the tolerance"
            },
        );
    }
    if !is_good {
        println!(
            "a change beyond {:.0}%: make it good, or commit the new counts (make instructions WRITE=1)",
            100.0 * tolerance
        );
    }
    Ok(is_good)
}
