//! `penstock log`: what was negotiated and what failed.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use control::admin::{ExitCode, Request};

use crate::Session;
use crate::output::{self, printable};

/// What was negotiated and what failed, oldest first.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  penstock log\n  penstock log site-b --lines 10 --json=lines\n  penstock log level debug\n  \
                  penstock log level info,control::netlink=trace"
)]
pub(crate) struct Log {
    #[command(subcommand)]
    what: Option<What>,
    /// Of this connection only
    #[arg(add = clap_complete::ArgValueCompleter::new(crate::completions::connections))]
    connection: Option<String>,
    /// The latest so many lines
    #[arg(long, default_value_t = 200)]
    lines: usize,
}

#[derive(Subcommand)]
enum What {
    /// Set what the daemon logs until its next start: error, warn, info, debug or trace, also by module
    Level {
        /// As in PENSTOCK_LOG
        level: String,
    },
}

impl Log {
    pub(crate) fn run(&self, session: &mut Session) -> ExitCode {
        if let Some(What::Level { level }) = &self.what {
            let request = Request::LogLevel { level: level.clone() };
            return output::finish(output::ask(session, &request, |_| true));
        }
        let request = Request::Log {
            connection: self.connection.clone(),
            lines: self.lines,
        };
        if session.output.is_json() {
            return output::print(session, &request, "log", &[], false);
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        let end = output::ask(session, &request, |record| {
            let unix_ms = record["unix_ms"].as_u64().unwrap_or(0);
            let name = record["connection"].as_str().unwrap_or("-");
            let mark = if record["failure"] == true { "FAILED " } else { "" };
            let text = record["text"].as_str().unwrap_or_default();
            // A reader that is gone, as in `| head`, ends the listing.
            writeln!(
                out,
                "{} {} {mark}{}",
                clock(unix_ms),
                printable(name),
                printable(text)
            )
            .is_ok()
        });
        // Nobody is left to tell where the terminal is gone.
        let _ = out.flush();
        output::finish(end)
    }
}

/// Date and time in UTC.
fn clock(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, date) = (
        if shifted < 10 { shifted + 3 } else { shifted - 9 },
        of_year - (153 * shifted + 2) / 5 + 1,
    );
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        unix_ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(clock(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(clock(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(clock(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
    }
}
