//! `penstock monitor`: events as they happen.

use std::io::{self, Write};

use clap::Args;
use control::admin::{Client, ExitCode, Frame, Request};
use serde_json::Value;

use crate::Session;
use crate::output::{self, Format, printable};

/// Print events as they happen, until interrupted
#[derive(Args)]
#[command(after_help = "Examples:\n  penstock monitor\n  penstock monitor --json=lines | jq .event")]
pub(crate) struct Monitor {
    /// End after so many events
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
}

impl Monitor {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let format = session.output.format();
        let mut left = self.count.unwrap_or(u64::MAX);
        let end = Client::connect(&session.socket, session.timeout).and_then(|mut client| {
            client.ask(&Request::Monitor {})?;
            client.wait_without_limit()?;
            loop {
                match client.frame()? {
                    Frame::Records(records) => {
                        for record in records {
                            if left == 0 || print(&record, format).is_err() {
                                return Ok((ExitCode::Done, None));
                            }
                            left -= 1;
                        }
                        if left == 0 {
                            return Ok((ExitCode::Done, None));
                        }
                    }
                    Frame::End { code, message } => return Ok((code, message)),
                }
            }
        });
        output::finish(end)
    }
}

fn print(record: &Value, format: Option<Format>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format.is_some() {
        writeln!(out, "{}", output::with_schema(record.clone()))?;
        return out.flush();
    }
    write!(
        out,
        "{}  {:<20}",
        record["time"].as_str().unwrap_or_default(),
        printable(record["event"].as_str().unwrap_or_default())
    )?;
    for (field, value) in record.as_object().into_iter().flatten() {
        if field != "time" && field != "event" && !value.is_null() {
            let text = match value {
                Value::String(text) => printable(text).replace('\n', " "),
                other => other.to_string(),
            };
            write!(out, " {field}={text}")?;
        }
    }
    writeln!(out)?;
    out.flush()
}
