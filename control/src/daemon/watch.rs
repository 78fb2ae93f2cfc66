//! Clients that look on: `penstock monitor` and `penstock trace`.

use serde_json::{Value, json};
use southbound::{
    DropReason, IpPrefix, MAX_SNAP_BYTES, Query, Status, ToDataplane, TraceEnd, TraceFilter, TracePoint,
    TraceRecord, TraceSpec, TraceStep,
};
use wire::flow::{Tuple, UpperSelector};
use wire::mpls::Stack;
use wire::{EtherType, Lse, SliceCursor};

use super::answers::Purpose;
use super::supervisor::Daemon;
use super::time;
use crate::admin::{ExitCode, Frame, Replies};

/// Most clients that look on at events.
const MAX_MONITORS: usize = 16;

/// Most packets of one trace.
const MAX_TRACED_PACKETS: u32 = 1_000_000;

/// The client that follows packets; there is one at a time.
#[derive(Debug)]
pub(super) struct ActiveTrace {
    replies: Replies,
    /// Packets still wanted.
    left: u32,
    /// Those told so far.
    told: u64,
    /// A question is open.
    is_asked: bool,
}

/// What a client wants to follow.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) prefix: Option<String>,
    pub(super) protocol: Option<u8>,
    pub(super) port: Option<u16>,
    pub(super) label: Option<u32>,
    pub(super) drops_only: bool,
    pub(super) packets: u32,
    pub(super) snap_bytes: u16,
}

impl Daemon {
    /// Adds a client that gets every event from now on.
    pub(super) fn monitor(&mut self, replies: Replies) {
        self.monitors.retain(|replies| !replies.is_closed());
        if self.monitors.len() >= MAX_MONITORS {
            replies.end(
                ExitCode::Refused,
                Some(format!("{MAX_MONITORS} clients look on already")),
            );
            return;
        }
        self.monitors.push(replies);
    }

    /// Tells an event to everybody who looks on; one who is too slow is dropped.
    pub(super) fn announce(&mut self, event: &str, fields: Value) {
        if self.monitors.is_empty() {
            return;
        }
        let mut record = fields;
        if let Some(fields) = record.as_object_mut() {
            fields.insert("event".into(), event.into());
            fields.insert("time".into(), time::now_text().into());
        }
        self.monitors
            .retain(|replies| replies.send(Frame::Records(vec![record.clone()])));
    }

    /// Tells what was negotiated, and what failed.
    pub(super) fn announce_negotiations(&mut self) {
        for line in self.ike.news() {
            let event = if line["failure"] == true {
                "ike_failed"
            } else {
                "ike"
            };
            let fields = json!({ "connection": line["connection"], "text": line["text"] });
            self.announce(event, fields);
        }
    }

    /// Begins to follow packets.
    pub(super) fn begin_trace(&mut self, wish: &Wish, replies: Replies) {
        if self
            .trace
            .as_ref()
            .is_some_and(|trace| !trace.replies.is_closed())
        {
            replies.end(ExitCode::Refused, Some("somebody follows packets already".into()));
            return;
        }
        let prefix = match wish.prefix.as_deref().map(parse_prefix).transpose() {
            Ok(prefix) => prefix,
            Err(message) => {
                replies.end(ExitCode::Usage, Some(message));
                return;
            }
        };
        let packets = wish.packets.min(MAX_TRACED_PACKETS);
        let spec = TraceSpec {
            filter: TraceFilter {
                prefix,
                protocol: wish.protocol,
                port: wish.port,
                label: wish.label,
                drops_only: wish.drops_only,
            },
            packets,
            // Enough for its addresses and ports, where its bytes are not wanted.
            snap_bytes: wish.snap_bytes.clamp(128, MAX_SNAP_BYTES),
        };
        if !self.tell_plane(ToDataplane::Trace { spec: Some(spec) }) {
            replies.end(
                ExitCode::Unreachable,
                Some(format!("the dataplane is {}", self.plane_state())),
            );
            return;
        }
        // So that the client knows from when on.
        let _ = replies.send(Frame::Records(Vec::new()));
        self.trace = Some(ActiveTrace {
            replies,
            left: packets,
            told: 0,
            is_asked: false,
        });
    }

    /// Asks for what was seen since, and ends a trace whose client left.
    pub(super) fn follow_trace(&mut self) {
        let Some(trace) = &self.trace else { return };
        if trace.replies.is_closed() {
            self.end_trace(None);
        } else if !trace.is_asked {
            let asked = self.try_ask(Query::Traces, Purpose::Trace);
            if let Some(trace) = &mut self.trace {
                trace.is_asked = asked;
            }
        }
    }

    /// Tells what was seen.
    pub(super) fn traced(&mut self, records: &[Status], last: bool) {
        let Some(mut trace) = self.trace.take() else {
            return;
        };
        let mut values = Vec::new();
        for record in records {
            if let (Status::Trace(record), true) = (record, trace.left > 0) {
                trace.left -= 1;
                trace.told += 1;
                values.push(self.trace_value(trace.told, record));
            }
        }
        let is_there = values.is_empty() || trace.replies.send(Frame::Records(values));
        trace.is_asked &= !last;
        let is_done = trace.left == 0;
        self.trace = Some(trace);
        if is_done || !is_there {
            self.end_trace(None);
        }
    }

    /// Ends the trace; without a reason it was done.
    pub(super) fn end_trace(&mut self, reason: Option<&str>) {
        let Some(trace) = self.trace.take() else { return };
        let _ = self.tell_plane(ToDataplane::Trace { spec: None });
        match reason {
            None => trace.replies.end(ExitCode::Done, None),
            Some(reason) => trace.replies.end(ExitCode::Unreachable, Some(reason.to_owned())),
        }
    }

    fn trace_value(&self, number: u64, record: &TraceRecord) -> Value {
        let tunnel = |id: Option<southbound::TunnelId>| {
            id.map(|id| self.installer.tunnel_name(id).unwrap_or("?").to_owned())
        };
        let reason = record.reason.as_deref();
        let help = DropReason::ALL
            .iter()
            .find(|known| Some(known.name()) == reason)
            .map(|known| known.help().trim());
        let mut value = json!({
            "number": number,
            "time": time::text(record.at_ns),
            "at_ns": record.at_ns,
            "worker": record.worker,
            "steps": steps(&record.steps),
            "reason": reason,
            "help": help,
            "out_of": tunnel(record.out_of),
            "into": tunnel(record.into),
            "lost": record.lost,
            "packet": describe(&record.entry),
        });
        if let Some(fields) = value.as_object_mut() {
            let mut put = |side: &str, end: &TraceEnd| {
                fields.insert(side.to_owned(), self.place(end.point).into());
                fields.insert(format!("{side}_bytes"), end.length_bytes.into());
                let link = if matches!(end.point, TracePoint::Port(_)) {
                    "ethernet"
                } else {
                    "raw"
                };
                fields.insert(format!("{side}_link"), link.into());
                let digits: String = end.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                fields.insert(format!("{side}_data"), digits.into());
            };
            put("entry", &record.entry);
            if let Some(exit) = &record.exit {
                put("exit", exit);
            }
        }
        value
    }

    fn place(&self, point: TracePoint) -> String {
        match point {
            TracePoint::Port(slot) => self
                .ports
                .values()
                .find(|port| port.slot == slot)
                .map_or_else(|| format!("port #{slot}"), |port| port.interface.clone()),
            TracePoint::Host => "host".into(),
            TracePoint::Gateway => "gateway".into(),
        }
    }
}

fn parse_prefix(text: &str) -> Result<IpPrefix, String> {
    let fault = || format!("found {text:?}: expected an address or a prefix");
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(IpPrefix::host(address)),
        Err(_) => text.parse().map_err(|_| fault()),
    }
}

/// The stages that work on labels.
const LABEL_STAGES: [&str; 2] = ["mpls_forward", "label_push"];

/// What each stage decided, with the label stack behind it and what was done to it.
fn steps(steps: &[TraceStep]) -> Vec<Value> {
    let mut before: &[u32] = &[];
    let mut values = Vec::with_capacity(steps.len());
    for step in steps {
        let mut value = json!({ "stage": step.stage, "next": step.next });
        if let Some(fields) = value.as_object_mut() {
            if !step.labels.is_empty() {
                fields.insert(
                    "labels".into(),
                    step.labels.iter().map(|entry| lse(*entry)).collect(),
                );
            }
            if LABEL_STAGES.contains(&step.stage.as_str())
                && let Some(operation) = label_operation(before, &step.labels)
            {
                fields.insert("operation".into(), operation.into());
            }
        }
        values.push(value);
        before = &step.labels;
    }
    values
}

fn lse(entry: u32) -> Value {
    let entry = Lse::from_bytes(entry.to_be_bytes());
    json!({ "label": entry.label.value(), "tc": entry.traffic_class, "ttl": entry.ttl })
}

/// What makes of one stack another (RFC 3031 section 3.10); `None` where the labels are the same.
fn label_operation(before: &[u32], after: &[u32]) -> Option<String> {
    let label = |entry: &u32| entry >> 12;
    let kept = before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take_while(|(before, after)| label(before) == label(after))
        .count();
    let text = |entries: &[u32]| {
        let labels: Vec<_> = entries.iter().map(|entry| label(entry).to_string()).collect();
        labels.join(" ")
    };
    let gone = before.get(..before.len() - kept).unwrap_or_default();
    let new = after.get(..after.len() - kept).unwrap_or_default();
    match (gone, new) {
        ([], []) => None,
        ([], new) => Some(format!("push {}", text(new))),
        (gone, []) => Some(format!("pop {}", text(gone))),
        (gone, [above @ .., swapped]) => {
            let swap = format!("swap {} by {}", text(gone), text(&[*swapped]));
            Some(match above {
                [] => swap,
                above => format!("{swap}, push {}", text(above)),
            })
        }
    }
}

/// A line about a packet, from its first bytes.
fn describe(end: &TraceEnd) -> String {
    let mut bytes = end.bytes.as_slice();
    let mut labels = String::new();
    if matches!(end.point, TracePoint::Port(_)) {
        let mut start = 14;
        while let Some([0x81, 0x00] | [0x88, 0xa8]) = bytes.get(start - 2..start) {
            start += 4;
        }
        let ether_type = bytes.get(start - 2..start);
        let is_labelled = ether_type == Some(&EtherType::MPLS.0.to_be_bytes());
        bytes = bytes.get(start..).unwrap_or_default();
        if is_labelled && let Ok(stack) = Stack::parse(&mut SliceCursor::new(bytes)) {
            for entry in stack.entries() {
                labels.push_str(&format!("label {} ttl {} ", entry.label, entry.ttl));
            }
            bytes = bytes.get(stack.stack_bytes()..).unwrap_or_default();
        }
    }
    // The length that the header tells is beyond what was kept: only addresses and ports are wanted.
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(end.length_bytes as usize), 0);
    match Tuple::parse(&padded) {
        Ok(tuple) => {
            let ports = match tuple.upper {
                UpperSelector::Ports { source, destination } => format!(" ports {source} > {destination}"),
                UpperSelector::Icmp { kind, code } => format!(" ICMP type {kind} code {code}"),
                _ => String::new(),
            };
            format!(
                "{labels}{} > {} protocol {}{ports}",
                tuple.source, tuple.destination, tuple.protocol.0
            )
        }
        Err(_) => format!("{labels}no IP packet"),
    }
}
