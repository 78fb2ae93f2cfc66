//! How answers are printed: tables for people, JSON for scripts.

use std::io::{self, Write};

use clap::ValueEnum;
use control::admin::{Client, ClientError, ExitCode, Frame, Request, SCHEMA};
use serde_json::{Map, Value};

use crate::Session;
use crate::table::{Column, Table};

/// The form of JSON output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One document.
    Document,
    /// One object a line, as they come.
    Lines,
}

/// Where answers go.
pub(crate) struct Output {
    format: Option<Format>,
}

impl Output {
    pub(crate) fn new(format: Option<Format>) -> Self {
        Self { format }
    }

    /// Whether scripts read it.
    pub(crate) fn is_json(&self) -> bool {
        self.format.is_some()
    }

    pub(crate) fn format(&self) -> Option<Format> {
        self.format
    }
}

/// Asks and prints the records under `list`; tables have `columns`.
///
/// `hides_zeros` leaves records of no packets out of tables, which people read.
pub(crate) fn print(
    session: &mut Session,
    request: &Request,
    list: &str,
    columns: &[Column],
    hides_zeros: bool,
) -> ExitCode {
    let mut records = Vec::new();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let format = session.output.format;
    let end = ask(session, request, |record| {
        if format == Some(Format::Lines) {
            // A reader that is gone, as in `| head`, ends the listing.
            writeln!(out, "{}", with_schema(record)).is_ok()
        } else {
            if format.is_some() || !hides_zeros || record["packets"] != 0 {
                records.push(record);
            }
            true
        }
    });
    let code = finish(end);
    if code == ExitCode::Done {
        let printed = match format {
            Some(Format::Lines) => Ok(()),
            Some(Format::Document) => {
                let mut document = Map::new();
                document.insert("schema".into(), SCHEMA.into());
                document.insert(list.into(), Value::Array(records));
                writeln!(out, "{}", Value::Object(document))
            }
            None => Table::new(columns, &records).write(&mut out),
        };
        if printed.and_then(|()| out.flush()).is_err() {
            return ExitCode::Done;
        }
    }
    code
}

/// Asks and prints one record: its fields a line each, or as JSON.
pub(crate) fn print_one(session: &mut Session, request: &Request) -> ExitCode {
    let mut found = None;
    let end = ask(session, request, |record| {
        found = Some(record);
        true
    });
    let code = finish(end);
    if let (ExitCode::Done, Some(record)) = (code, found) {
        let mut out = io::stdout().lock();
        // Nobody is left to tell where the terminal is gone.
        let _ = match session.output.format {
            Some(_) => writeln!(out, "{}", with_schema(record)),
            None => crate::table::write_fields(&record, &mut out),
        };
    }
    code
}

/// Asks for something to be done and prints what came of it.
pub(crate) fn act(session: &Session, request: &Request) -> ExitCode {
    let end = ask(session, request, |_| true);
    if session.output.is_json()
        && let Ok((code, message)) = &end
    {
        println!(
            "{}",
            with_schema(serde_json::json!({ "code": u8::from(*code), "message": message }))
        );
        return *code;
    }
    if let Ok((ExitCode::Done, Some(message))) = &end {
        println!("{}", printable(message));
    }
    finish(end)
}

/// Sends a request; `take` gets each record until it says `false`.
pub(crate) fn ask(
    session: &Session,
    request: &Request,
    mut take: impl FnMut(Value) -> bool,
) -> Result<(ExitCode, Option<String>), ClientError> {
    let mut client = Client::connect(&session.socket, session.timeout)?;
    client.ask(request)?;
    loop {
        match client.frame()? {
            Frame::Records(records) => {
                for record in records {
                    if !take(record) {
                        return Ok((ExitCode::Done, None));
                    }
                }
            }
            Frame::End { code, message } => return Ok((code, message)),
        }
    }
}

/// Tells how it went, where it did not go well.
pub(crate) fn finish(end: Result<(ExitCode, Option<String>), ClientError>) -> ExitCode {
    match end {
        Ok((code, message)) => {
            if let (true, Some(message)) = (code != ExitCode::Done, message) {
                eprintln!("penstock: {}", printable(&message));
            }
            code
        }
        Err(error) => {
            eprintln!("penstock: {error}");
            match error {
                ClientError::Unreachable(..) | ClientError::Broken(_) => ExitCode::Unreachable,
                ClientError::TimedOut(_) => ExitCode::TimedOut,
            }
        }
    }
}

/// The text without what would steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() && character != '\n' {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

pub(crate) fn with_schema(mut record: Value) -> Value {
    if let Some(fields) = record.as_object_mut() {
        fields.insert("schema".into(), SCHEMA.into());
    }
    record
}
