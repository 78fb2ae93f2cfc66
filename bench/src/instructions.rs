//! Instructions that the packet path executes, counted by callgrind: the same on a busy machine as on an idle one.
//!
//! Valgrind knows no AVX-512, so the crypto under it is the portable engine's; what is compared is therefore the path
//! without the crypto, which is the same with every engine.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pipeline::{BATCH_PACKETS, Case, Kind};

/// Batches that are counted.
const BATCHES: usize = 50;

/// The function whose calls are counted: the walk of a batch through the side that is measured.
const WALK: &str = "bench::pipeline::rig::measured_walk*";

/// What a case costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// The case, as [`Case::name`] has it.
    pub case: String,
    /// Instructions a packet outside the crypto.
    pub instructions: f64,
    /// Instructions a packet in the crypto: the portable engine's, for information.
    pub crypto_instructions: f64,
}

/// Why there is no count.
#[derive(Debug, Error)]
pub enum CountError {
    /// Valgrind or the benchmark did not run.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The benchmark failed under valgrind.
    #[error("the benchmark failed under valgrind: {0}")]
    Failed(String),
    /// Callgrind counted nothing.
    #[error("{WALK} was never entered: is it inlined?")]
    Nothing,
}

/// The cases that are counted: the common transforms at the smallest packet, with one SA and with many.
#[must_use]
pub fn cases() -> Vec<Case> {
    Case::all()
        .into_iter()
        .filter(|case| {
            let is_gcm = case
                .algorithm
                .is_none_or(|algorithm| algorithm.report_name == "aes-128-gcm");
            let is_walk = case.kind != Kind::Ends;
            is_gcm && is_walk && case.size_bytes == 64 && case.sas <= 10_000
        })
        .collect()
}

/// Counts a case by running `benchmark` (`penstock-pipeline`) under callgrind.
///
/// # Errors
/// See [`CountError`].
pub fn count(benchmark: &Path, case: &Case) -> Result<Count, CountError> {
    let file = std::env::temp_dir().join(format!("penstock-instructions.{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={WALK}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(benchmark)
        .args(["--only", &case.name(), "--batches", &BATCHES.to_string()])
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(CountError::Failed(text));
    }
    let text = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    let (path, crypto) = split(&text);
    if path == 0 {
        return Err(CountError::Nothing);
    }
    let each = |count: u64| count as f64 / (BATCHES * BATCH_PACKETS) as f64;
    Ok(Count {
        case: case.name(),
        instructions: each(path),
        crypto_instructions: each(crypto),
    })
}

/// Sums callgrind's own cost of each function: what is not crypto, and what is.
fn split(text: &str) -> (u64, u64) {
    let mut names = Names::default();
    let (mut path, mut crypto) = (0, 0);
    let (mut is_crypto_file, mut is_crypto_function, mut is_call) = (false, false, false);
    for line in text.lines() {
        if let Some(file) = line.strip_prefix("fl=") {
            is_crypto_file = names.is_crypto("file", file);
        } else if let Some(function) = line.strip_prefix("fn=") {
            is_crypto_function = names.is_crypto("function", function);
        } else if let Some(file) = line.strip_prefix("cfi=").or_else(|| line.strip_prefix("cfl=")) {
            names.is_crypto("file", file);
        } else if let Some(file) = line.strip_prefix("fi=").or_else(|| line.strip_prefix("fe=")) {
            names.is_crypto("file", file);
        } else if let Some(called) = line.strip_prefix("cfn=") {
            names.is_crypto("function", called);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // The line after `calls=` is the callee's whole cost, which its own lines have.
            if std::mem::take(&mut is_call) {
                continue;
            }
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok());
            let sum = if is_crypto_file || is_crypto_function {
                &mut crypto
            } else {
                &mut path
            };
            *sum += cost.unwrap_or(0);
        }
    }
    (path, crypto)
}

/// Callgrind's short names: `(number) name` the first time, `(number)` after that.
#[derive(Default)]
struct Names(std::collections::HashSet<(&'static str, String)>);

impl Names {
    fn is_crypto(&mut self, space: &'static str, text: &str) -> bool {
        let (number, name) = text.split_once(' ').unwrap_or((text, ""));
        let key = (space, number.to_owned());
        if ["esp_aead", "aws_lc", "/aws-lc/"]
            .iter()
            .any(|part| name.contains(part))
        {
            self.0.insert(key);
            return true;
        }
        self.0.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_costs_are_summed_and_callees_not_twice() {
        let text = "events: Ir\n\nfl=(1) a.rs\nfn=(1) measured_walk\n10 5\n+1 6\ncfn=(2) esp_aead::batch::seal\n\
                    calls=3 7\n* 1000\n-2 7\n\nfn=(2)\n1 990\ncfn=(3) memcpy\ncalls=1 1\n2 10\nfn=(3)\n9 10\n\nfl=(2) /aws-lc/e_aes.c\nfn=(4) seal_impl\n\
                    7 30\nfl=(1)\nfn=(1)\n5 1\ntotals: 1049\n";
        assert_eq!(split(text), (29, 1020));
    }
}
