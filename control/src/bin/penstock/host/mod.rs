//! `penstock host`: what the machine's own settings are, what they should be, and why.

mod ethtool;
mod knob;
mod knobs;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use control::admin::{ExitCode, SCHEMA};
use serde_json::{Map, Value, json};

use crate::Session;
use crate::table::{Table, text};
use knob::{Knob, Standing};

/// Check and tune this machine for the dataplane
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock host check --interface lan --interface wan --cores 2,3\n  \
                  sudo penstock host tune --interface lan --interface wan --cores 2,3\n  sudo penstock host restore"
)]
pub(crate) struct Host {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Say of each setting what it is, what it should be and why; needs no root
    Check(Scope),
    /// Set what can be set while the machine runs, and remember what was there
    Tune(Scope),
    /// Set back what `tune` changed
    Restore(Place),
}

/// Where settings are read and written.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// The folder that stands for `/`: below it are `proc` and `sys`
    #[arg(long, default_value = "/", value_name = "FOLDER")]
    root: PathBuf,
    /// Where `tune` remembers what was there, below the root
    #[arg(
        long,
        default_value = "var/lib/penstock/host-tuning.json",
        value_name = "FILE"
    )]
    record: PathBuf,
}

#[derive(Args, Clone)]
pub(crate) struct Scope {
    #[command(flatten)]
    place: Place,
    /// A port of the dataplane; all interfaces of physical devices where none is named
    #[arg(long, value_name = "INTERFACE")]
    interface: Vec<String>,
    /// CPUs of the workers
    #[arg(long, value_delimiter = ',', value_name = "CPUS")]
    cores: Vec<u16>,
    /// Huge pages of 2 MiB that the dataplane should find
    #[arg(long, default_value_t = 128)]
    huge_pages: u32,
}

impl Host {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let outcome = match &self.what {
            What::Check(scope) => Ok(check(scope, session)),
            What::Tune(scope) => tune(scope),
            What::Restore(place) => restore(place),
        };
        outcome.unwrap_or_else(|message: String| {
            eprintln!("penstock: {message}");
            ExitCode::Refused
        })
    }
}

fn check(scope: &Scope, session: &Session) -> ExitCode {
    let records: Vec<Value> = knobs::all(scope)
        .iter()
        .map(|knob| knob.record(&scope.place.root))
        .collect();
    let wrong = records.iter().filter(|record| record["ok"] == false).count();
    match session.output.format() {
        None => {
            const COLUMNS: &[crate::table::Column] = &[
                text("OK", "mark"),
                text("SETTING", "setting"),
                text("IS", "is"),
                text("SHOULD-BE", "should_be"),
                text("WHY", "why"),
            ];
            // Nobody is left to tell where the terminal is gone.
            let _ = Table::new(COLUMNS, &records).write(&mut std::io::stdout().lock());
            println!("{wrong} of {} settings should differ", records.len());
        }
        Some(crate::output::Format::Lines) => records.iter().for_each(|record| println!("{record}")),
        Some(crate::output::Format::Document) => {
            println!("{}", json!({ "schema": SCHEMA, "settings": records }));
        }
    }
    if wrong == 0 {
        ExitCode::Done
    } else {
        ExitCode::Refused
    }
}

fn tune(scope: &Scope) -> Result<ExitCode, String> {
    let root = &scope.place.root;
    let record_path = root.join(&scope.place.record);
    let mut before: Map<String, Value> = read_record(&record_path)?;
    let mut code = ExitCode::Done;
    for knob in knobs::all(scope) {
        let Standing::Wrong(is) = knob.standing(root) else {
            continue;
        };
        if !knob.is_settable() {
            println!("{}: left at {is}: {}", knob.name, knob.why);
            code = ExitCode::Partial;
            continue;
        }
        // Remembered before it is changed: the first value is the one to go back to.
        if !before.contains_key(&knob.name) {
            before.insert(knob.name.clone(), json!({ "was": is, "knob": knob.to_json() }));
            write_record(&record_path, &before)?;
        }
        match knob.set(root, &knob.wanted()) {
            Ok(()) => println!("{}: {is} -> {}", knob.name, knob.wanted()),
            Err(error) => {
                eprintln!("penstock: {}: {error}", knob.name);
                code = ExitCode::Partial;
            }
        }
    }
    Ok(code)
}

fn restore(place: &Place) -> Result<ExitCode, String> {
    let record_path = place.root.join(&place.record);
    let mut before = read_record(&record_path)?;
    let mut left = Map::new();
    // Last changed, first restored, as far as names tell nothing else.
    while let Some(name) = before.keys().next_back().cloned() {
        let Some(entry) = before.remove(&name) else { break };
        let was = entry["was"].as_str().unwrap_or_default().to_owned();
        let outcome = Knob::from_json(&name, &entry["knob"])
            .ok_or_else(|| "not a record of penstock host tune".to_owned())
            .and_then(|knob| knob.set(&place.root, &was).map_err(|error| error.to_string()));
        match outcome {
            Ok(()) => println!("{name}: {was}"),
            Err(error) => {
                eprintln!("penstock: {name}: {error}");
                left.insert(name, entry);
            }
        }
    }
    if left.is_empty() {
        match fs::remove_file(&record_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => return Ok(ExitCode::Done),
        }
    }
    write_record(&record_path, &left)?;
    Ok(ExitCode::Partial)
}

fn read_record(path: &Path) -> Result<Map<String, Value>, String> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn write_record(path: &Path, record: &Map<String, Value>) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fault)?;
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, Value::Object(record.clone()).to_string()).map_err(fault)?;
    fs::rename(&temporary, path).map_err(fault)
}
