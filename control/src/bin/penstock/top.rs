//! `penstock top`: live rates of tunnels, workers and ports.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use control::admin::{ExitCode, Noun, Request};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};
use serde_json::Value;

use crate::Session;
use crate::output::{self, printable};

/// Live rates per tunnel, worker and port; q ends it
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock top\n  penstock top --interval 5\n\nKeys: q quit, s sort by traffic or name"
)]
pub(crate) struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
}

/// What was seen at one moment.
#[derive(Default)]
struct Look {
    at: Option<Instant>,
    status: Value,
    tunnels: Vec<Value>,
    workers: Vec<Value>,
    ports: Vec<Value>,
    drops: Vec<Value>,
}

impl Top {
    pub(crate) fn run(&self, session: &Session) -> ExitCode {
        if !io::stdout().is_terminal() {
            eprintln!("penstock: top needs a terminal: use show, or the metrics");
            return ExitCode::Usage;
        }
        let first = match Look::take(session) {
            Ok(look) => look,
            Err(code) => return code,
        };
        let mut terminal = ratatui::init();
        let outcome = self.watch(session, first, &mut terminal);
        ratatui::restore();
        match outcome {
            Ok(code) => code,
            Err(error) => {
                eprintln!("penstock: {error}");
                ExitCode::Usage
            }
        }
    }

    fn watch(
        &self,
        session: &Session,
        first: Look,
        terminal: &mut ratatui::DefaultTerminal,
    ) -> io::Result<ExitCode> {
        let interval = Duration::from_secs(self.interval);
        let (mut before, mut now) = (Look::default(), first);
        let mut by_name = false;
        let mut next = Instant::now() + interval;
        loop {
            terminal.draw(|frame| draw(frame, &before, &now, by_name))?;
            let left = next.saturating_duration_since(Instant::now());
            if event::poll(left)? {
                if let Event::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(ExitCode::Done),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                            return Ok(ExitCode::Done);
                        }
                        KeyCode::Char('s') => by_name = !by_name,
                        _ => {}
                    }
                }
                continue;
            }
            next = Instant::now() + interval;
            match Look::take(session) {
                Ok(look) => before = std::mem::replace(&mut now, look),
                Err(code) => return Ok(code),
            }
        }
    }
}

impl Look {
    fn take(session: &Session) -> Result<Self, ExitCode> {
        let mut status = Value::Null;
        match output::ask(session, &Request::Status {}, |record| {
            status = record;
            true
        }) {
            Ok((ExitCode::Done, _)) => {}
            end => return Err(output::finish(end)),
        }
        // Without a dataplane there is nothing to list, and the status says so.
        let list = |noun| {
            let mut records = Vec::new();
            let _ = output::ask(session, &Request::Show { noun, name: None }, |record| {
                records.push(record);
                true
            });
            records
        };
        Ok(Self {
            at: Some(Instant::now()),
            status,
            tunnels: list(Noun::Tunnels),
            workers: list(Noun::Workers),
            ports: list(Noun::Ports),
            drops: list(Noun::Drops),
        })
    }
}

/// Rates between two looks.
struct Rates<'a> {
    seconds: f64,
    old: HashMap<String, &'a Value>,
    key: &'static str,
}

impl<'a> Rates<'a> {
    fn new(before: &Look, now: &Look, old: &'a [Value], key: &'static str) -> Self {
        let seconds = match (before.at, now.at) {
            (Some(before), Some(now)) => now.duration_since(before).as_secs_f64(),
            _ => 0.0,
        };
        Self {
            seconds,
            old: old
                .iter()
                .map(|record| (record[key].to_string(), record))
                .collect(),
            key,
        }
    }

    fn of(&self, record: &Value, field: &str) -> f64 {
        let Some(old) = self.old.get(&record[self.key].to_string()) else {
            return 0.0;
        };
        let (new, old) = (record[field].as_u64(), old[field].as_u64());
        match (new, old) {
            (Some(new), Some(old)) if self.seconds > 0.0 => new.saturating_sub(old) as f64 / self.seconds,
            _ => 0.0,
        }
    }
}

fn scaled(mut value: f64) -> String {
    let mut unit = 0;
    while value >= 1000.0 && unit < 4 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$}{}", ["", "k", "M", "G", "T"][unit])
}

fn text(record: &Value, field: &str) -> String {
    match &record[field] {
        Value::String(text) => printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn draw(frame: &mut Frame<'_>, before: &Look, now: &Look, by_name: bool) {
    let workers = u16::try_from(now.workers.len()).unwrap_or(u16::MAX).min(12) + 3;
    let ports = u16::try_from(now.ports.len()).unwrap_or(u16::MAX).min(10) + 3;
    let [head, tunnels, lower_workers, lower_ports, drops] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(5),
        Constraint::Length(workers),
        Constraint::Length(ports),
        Constraint::Length(6),
    ])
    .areas(frame.area());
    let plane = text(&now.status, "dataplane");
    let colour = if plane == "up" { Color::Green } else { Color::Red };
    let line = Line::from(vec![
        Span::styled(
            text(&now.status, "name"),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw("  dataplane "),
        Span::styled(plane, Style::new().fg(colour)),
        Span::raw(format!(
            "  {} tunnels  q quit, s sort by {}",
            now.tunnels.len(),
            if by_name { "traffic" } else { "name" }
        )),
    ]);
    frame.render_widget(Paragraph::new(line), head);

    let rates = Rates::new(before, now, &before.tunnels, "name");
    let mut records: Vec<&Value> = now.tunnels.iter().collect();
    if by_name {
        records.sort_by_key(|record| text(record, "name"));
    } else {
        let both = |record: &Value| rates.of(record, "in_bytes") + rates.of(record, "out_bytes");
        records.sort_by(|one, other| both(other).total_cmp(&both(one)));
    }
    let rows = records.iter().take(usize::from(tunnels.height)).map(|record| {
        let state = text(record, "state");
        let colour = if state == "up" { Color::Green } else { Color::Red };
        Row::new([
            Cell::from(text(record, "name")),
            Cell::from(Span::styled(state, Style::new().fg(colour))),
            Cell::from(text(record, "remote")),
            Cell::from(scaled(8.0 * rates.of(record, "in_bytes"))),
            Cell::from(scaled(rates.of(record, "in_packets"))),
            Cell::from(scaled(8.0 * rates.of(record, "out_bytes"))),
            Cell::from(scaled(rates.of(record, "out_packets"))),
            Cell::from(scaled(rates.of(record, "drop_packets"))),
        ])
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(9),
    ];
    let headings = [
        "TUNNEL",
        "STATE",
        "REMOTE",
        "IN bit/s",
        "IN pkt/s",
        "OUT bit/s",
        "OUT pkt/s",
        "DROPS/s",
    ];
    frame.render_widget(table("Tunnels", &headings, rows, &widths), tunnels);

    let rates = Rates::new(before, now, &before.workers, "worker");
    let rows = now.workers.iter().map(|record| {
        Row::new([
            text(record, "worker"),
            text(record, "cpu"),
            format!("{:.0}%", (rates.of(record, "busy_nanoseconds") / 1e7).min(100.0)),
            scaled(rates.of(record, "received_packets")),
            scaled(rates.of(record, "transmitted_packets")),
            scaled(rates.of(record, "dropped_packets")),
            text(record, "frames_free"),
        ])
    });
    let headings = ["WORKER", "CPU", "BUSY", "RX pkt/s", "TX pkt/s", "DROPS/s", "FREE"];
    let widths = [Constraint::Length(12); 7];
    frame.render_widget(table("Workers", &headings, rows, &widths), lower_workers);

    let rates = Rates::new(before, now, &before.ports, "interface");
    let rows = now.ports.iter().map(|record| {
        Row::new([
            text(record, "interface"),
            text(record, "state"),
            text(record, "xdp"),
            scaled(rates.of(record, "received_packets")),
            scaled(8.0 * rates.of(record, "received_bytes")),
            scaled(rates.of(record, "transmitted_packets")),
            scaled(8.0 * rates.of(record, "transmitted_bytes")),
        ])
    });
    let headings = [
        "PORT", "STATE", "XDP", "RX pkt/s", "RX bit/s", "TX pkt/s", "TX bit/s",
    ];
    frame.render_widget(
        table("Ports", &headings, rows, &[Constraint::Length(12); 7]),
        lower_ports,
    );

    let rates = Rates::new(before, now, &before.drops, "reason");
    let mut records: Vec<&Value> = now
        .drops
        .iter()
        .filter(|record| record["packets"].as_u64().unwrap_or_default() > 0)
        .collect();
    records.sort_by_key(|record| std::cmp::Reverse(record["packets"].as_u64()));
    let rows = records.iter().map(|record| {
        Row::new([
            text(record, "reason"),
            text(record, "stage"),
            text(record, "packets"),
            scaled(rates.of(record, "packets")),
        ])
    });
    let headings = ["DROPPED FOR", "STAGE", "PACKETS", "NOW/s"];
    let widths = [
        Constraint::Length(26),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(10),
    ];
    frame.render_widget(table("Drops", &headings, rows, &widths), drops);
}

fn table<'a>(
    title: &'a str,
    headings: &[&'a str],
    rows: impl Iterator<Item = Row<'a>>,
    widths: &[Constraint],
) -> Table<'a> {
    Table::new(rows, widths.to_vec())
        .header(Row::new(headings.to_vec()).style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::new().borders(Borders::TOP).title(title))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_by_name_and_never_negative() {
        let start = Instant::now();
        let look = |seconds, bytes: u64| Look {
            at: Some(start + Duration::from_secs(seconds)),
            tunnels: vec![json!({"name": "a", "in_bytes": bytes})],
            ..Look::default()
        };
        let (before, now) = (look(0, 1000), look(2, 5000));
        let rates = Rates::new(&before, &now, &before.tunnels, "name");
        assert_eq!(rates.of(&now.tunnels[0], "in_bytes"), 2000.0);
        assert_eq!(rates.of(&json!({"name": "b", "in_bytes": 9}), "in_bytes"), 0.0);
        assert_eq!(
            rates.of(&json!({"name": "a", "in_bytes": 9}), "in_bytes"),
            0.0,
            "the dataplane was started anew"
        );
        assert_eq!(
            (scaled(0.0), scaled(1500.0), scaled(2.5e9)),
            ("0".into(), "1.5k".into(), "2.5G".into())
        );
    }
}
