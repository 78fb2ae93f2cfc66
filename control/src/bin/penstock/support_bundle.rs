//! `penstock support-bundle`: what somebody who helps needs to see, and no secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use control::admin::{ExitCode, Noun, Request};
use control::config::DEFAULT_PATH;

use crate::Session;
use crate::output;

/// Longest part in bytes: of logs, the end.
const MAX_PART_BYTES: usize = 4 * 1024 * 1024;

/// Words in the names of settings whose values are taken out.
const SECRET_WORDS: [&str; 5] = ["psk", "password", "secret", "token", "key"];

/// Gather state, configuration and logs into an archive, without secrets
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock support-bundle\n  penstock support-bundle --out /tmp/gw1.tar.gz"
)]
pub(crate) struct SupportBundle {
    /// The archive; beside it nothing is left
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The main configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl SupportBundle {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let name = format!("penstock-support-{seconds}");
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
        let folder = std::env::temp_dir().join(&name);
        let outcome = self.gather(session, &folder).and_then(|missing| {
            pack(&folder, &out)?;
            Ok(missing)
        });
        // What is left behind is no secret, and the archive is what counts.
        let _ = fs::remove_dir_all(&folder);
        match outcome {
            Ok(missing) => {
                for part in &missing {
                    eprintln!("note: without {part}");
                }
                println!("{}", out.display());
                if missing.is_empty() {
                    ExitCode::Done
                } else {
                    ExitCode::Partial
                }
            }
            Err(error) => {
                eprintln!("penstock: {error}");
                ExitCode::Refused
            }
        }
    }

    /// Fills the folder; returns what could not be had.
    fn gather(&self, session: &Session, folder: &Path) -> io::Result<Vec<String>> {
        fs::create_dir_all(folder)?;
        let mut missing = Vec::new();
        self.configuration(folder, &mut missing)?;
        let mut requests = vec![("status".to_owned(), Request::Status {})];
        requests.extend(Noun::ALL.iter().map(|noun| {
            (
                noun.name().to_owned(),
                Request::Show {
                    noun: *noun,
                    name: None,
                },
            )
        }));
        for (name, request) in requests {
            let mut text = String::new();
            let end = output::ask(session, &request, |record| {
                text.push_str(&record.to_string());
                text.push('\n');
                text.len() < MAX_PART_BYTES
            });
            if matches!(end, Ok((ExitCode::Done, _))) {
                fs::write(folder.join(format!("{name}.jsonl")), text)?;
            } else {
                missing.push(name);
            }
        }
        for (name, program, arguments) in [
            ("uname.txt", "uname", &["-a"][..]),
            ("links.txt", "ip", &["-details", "-statistics", "link"]),
            ("addresses.txt", "ip", &["address"]),
            ("routes.txt", "ip", &["route", "show", "table", "all"]),
            ("rules.txt", "ip", &["rule"]),
            ("cpus.txt", "lscpu", &[]),
            (
                "journal.txt",
                "journalctl",
                &[
                    "--no-pager",
                    "--lines=5000",
                    "--unit=penstock-control",
                    "--unit=penstock-dataplane",
                ],
            ),
        ] {
            match Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
            {
                Ok(output) if output.status.success() => {
                    let start = output.stdout.len().saturating_sub(MAX_PART_BYTES);
                    fs::write(folder.join(name), &output.stdout[start..])?;
                }
                _ => missing.push(format!("{program} {}", arguments.join(" "))),
            }
        }
        Ok(missing)
    }

    fn configuration(&self, folder: &Path, missing: &mut Vec<String>) -> io::Result<()> {
        let mut paths = vec![self.config.clone()];
        if let Some(parent) = self.config.parent() {
            let fragments = fs::read_dir(parent.join("conf.d")).into_iter().flatten();
            paths.extend(
                fragments
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .filter(|path| path.extension().is_some_and(|extension| extension == "toml")),
            );
        }
        for path in paths {
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let name = path.file_name().unwrap_or_default();
                    fs::write(folder.join(name), redact(&text))?;
                }
                Err(error) => missing.push(format!("{}: {error}", path.display())),
            }
        }
        Ok(())
    }
}

/// The text without values of settings that may be secrets. Names of files, which end in `_file`, stay; so
/// does what stands behind a `#`, for nobody should have put a secret there, unless it looks like a setting.
fn redact(text: &str) -> String {
    text.lines()
        .map(|line| {
            let setting = line.trim_start_matches(['#', ' ', '\t']);
            match setting.split_once('=') {
                Some((name, _)) if is_secret(name.trim()) => {
                    let at = line.len() - setting.len();
                    format!("{}{} = \"[redacted]\"\n", &line[..at], name.trim())
                }
                _ => format!("{}\n", redact_inline(line)),
            }
        })
        .collect()
}

/// Settings within an inline table.
fn redact_inline(line: &str) -> String {
    let Some((before, inside)) = line.split_once('{') else {
        return line.to_owned();
    };
    let parts: Vec<String> = inside
        .split(',')
        .map(|part| match part.split_once('=') {
            Some((name, _)) if is_secret(name.trim()) => {
                let tail = if part.contains('}') { " }" } else { "" };
                format!("{name}= \"[redacted]\"{tail}")
            }
            _ => part.to_owned(),
        })
        .collect();
    format!("{before}{{{}", parts.join(","))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.ends_with("_file") && SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn pack(folder: &Path, out: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(io::Error::other("no folder to pack"));
    };
    let status = Command::new("tar")
        .arg("--create")
        .arg("--gzip")
        .arg("--file")
        .arg(out)
        .arg("--directory")
        .arg(parent)
        .arg(name)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("tar could not write {}", out.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secrets_are_taken_out() {
        let text = "name = \"gw\"\npsk = \"swordfish\"\n# password = 'swordfish'\nkey_in_file = \"a.key\"\n\
                    remote = { id = \"x\", secret = \"swordfish\" }\n";
        let shown = redact(text);
        assert!(!shown.contains("swordfish"), "{shown}");
        for kept in [
            "name = \"gw\"",
            "key_in_file = \"a.key\"",
            "psk = \"[redacted]\"",
            "id = \"x\"",
        ] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
    }
}
