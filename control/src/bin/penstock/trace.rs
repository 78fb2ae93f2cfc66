//! `penstock trace`: what becomes of packets.

use std::io::{self, Write};

use clap::Args;
use control::admin::{Client, ClientError, ExitCode, Frame, Request};
use serde_json::Value;

use crate::Session;
use crate::output::{self, Format, printable};

/// Which packets.
#[derive(Args, Clone)]
pub(crate) struct Filter {
    /// Source or destination, inside or outside the tunnel: an address or a prefix
    #[arg(long, value_name = "PREFIX")]
    pub(crate) host: Option<String>,
    /// The upper protocol: tcp, udp, icmp, icmp6, esp or a number
    #[arg(long, value_parser = protocol)]
    pub(crate) protocol: Option<u8>,
    /// Source or destination port
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// A label of its MPLS stack, at any point of its way
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=0xf_ffff))]
    pub(crate) label: Option<u32>,
    /// Only packets that are dropped
    #[arg(long)]
    pub(crate) drops: bool,
}

impl Filter {
    pub(crate) fn request(&self, packets: u32, snap_bytes: u16) -> Request {
        Request::Trace {
            prefix: self.host.clone(),
            protocol: self.protocol,
            port: self.port,
            label: self.label,
            drops_only: self.drops,
            packets,
            snap_bytes,
        }
    }
}

fn protocol(text: &str) -> Result<u8, String> {
    Ok(match text {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "esp" => 50,
        "icmp6" => 58,
        number => number
            .parse()
            .map_err(|_| "expected tcp, udp, icmp, icmp6, esp or a number".to_owned())?,
    })
}

/// Follow the next packets that fit through every stage, with the verdict of each
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock trace --host 10.2.0.10 --count 5\n  penstock trace --drops\n  \
                        penstock trace --label 500\n  penstock trace --protocol esp --json=lines"
)]
pub(crate) struct Trace {
    #[command(flatten)]
    filter: Filter,
    /// How many packets
    #[arg(long, default_value_t = 10, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
}

impl Trace {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        let format = session.output.format();
        let request = self.filter.request(self.count, 0);
        let end = follow(session, &request, |record| print(record, format).is_ok());
        output::finish(end)
    }
}

/// Asks and hands each record over as it comes, until the end or `take` says `false`.
pub(crate) fn follow(
    session: &Session,
    request: &Request,
    mut take: impl FnMut(&Value) -> bool,
) -> Result<(ExitCode, Option<String>), ClientError> {
    let mut client = Client::connect(&session.socket, session.timeout)?;
    client.ask(request)?;
    // The first frame says that the dataplane has been told; the others come when packets do.
    let mut frame = client.frame()?;
    client.wait_without_limit()?;
    if matches!(frame, Frame::Records(_)) {
        eprintln!("penstock: following packets, until interrupted");
    }
    loop {
        match frame {
            Frame::Records(records) => {
                if !records.iter().all(&mut take) {
                    return Ok((ExitCode::Done, None));
                }
            }
            Frame::End { code, message } => return Ok((code, message)),
        }
        frame = client.frame()?;
    }
}

/// What a step did to the label stack, and how that stands now.
fn labels(step: &Value) -> String {
    let mut text = String::new();
    if let Some(operation) = step["operation"].as_str() {
        text = format!(": {operation}");
    }
    let entries: Vec<_> = step["labels"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| format!("{} (tc {}, ttl {})", entry["label"], entry["tc"], entry["ttl"]))
        .collect();
    if !entries.is_empty() {
        text.push_str(&format!("; labels {}", entries.join(", ")));
    }
    text
}

fn print(record: &Value, format: Option<Format>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format.is_some() {
        writeln!(out, "{}", output::with_schema(record.clone()))?;
        return out.flush();
    }
    let text = |field: &str| printable(record[field].as_str().unwrap_or("-"));
    writeln!(
        out,
        "#{} {} worker {} from {}, {} bytes: {}",
        record["number"],
        text("time"),
        record["worker"],
        text("entry"),
        record["entry_bytes"],
        text("packet")
    )?;
    for step in record["steps"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "    {:<14} -> {}{}",
            step["stage"].as_str().unwrap_or_default(),
            step["next"].as_str().unwrap_or_default(),
            labels(step)
        )?;
    }
    for (label, field) in [("out of tunnel", "out_of"), ("into tunnel", "into")] {
        if !record[field].is_null() {
            writeln!(out, "    {label} {}", text(field))?;
        }
    }
    match (record["exit"].as_str(), record["reason"].as_str()) {
        (Some(exit), _) => writeln!(
            out,
            "    left by {}, {} bytes",
            printable(exit),
            record["exit_bytes"]
        )?,
        (None, Some(reason)) => writeln!(out, "    DROPPED: {}: {}", printable(reason), text("help"))?,
        (None, None) => writeln!(out, "    waits, or became part of another packet")?,
    }
    if record["lost"].as_u64().unwrap_or_default() > 0 {
        writeln!(
            out,
            "    ({} packets that fit were not recorded before it)",
            record["lost"]
        )?;
    }
    out.flush()
}
