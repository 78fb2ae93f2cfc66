//! Answers to the command line, and to the daemon's own questions.

use std::collections::HashSet;

use serde_json::{Value, json};
use southbound::{NeighbourState, Query, Status};
use tracing::{info, warn};

use super::supervisor::Daemon;
use super::watch::Wish;
use crate::admin::{Command, ExitCode, Frame, Noun, Replies, Reporter, Request, Role};
use crate::plane::WorkerBlock;

/// Records of one frame.
pub(super) const RECORDS_A_FRAME: usize = 500;

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The daemon's own log.
    LogPorts,
    /// Neighbours whose event may have been lost.
    ResolveNeighbours,
    /// Where the workers run.
    NoteWorkers,
    /// The client that follows packets.
    Trace,
    /// A request of the HTTP endpoint, by its number.
    Gather(u64),
    /// The command line.
    Show {
        noun: Noun,
        name: Option<String>,
        replies: Replies,
        /// Tunnels told so far: those that the dataplane does not have are added at the end.
        seen: HashSet<String>,
        matched: bool,
    },
}

/// A question that is open.
#[derive(Debug)]
pub(super) struct Question {
    purpose: Purpose,
}

impl Question {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose }
    }
}

impl Daemon {
    /// Serves a request of the command line.
    pub(super) fn command(&mut self, command: Command) {
        let Command {
            request,
            role,
            replies,
        } = command;
        if role != Role::Admin
            && let Some(what) = request.reserved()
        {
            let message = format!("only root and the users of [admin] may {what}");
            return replies.end(ExitCode::Refused, Some(message));
        }
        match request {
            Request::Reload { dry_run } => self.begin_reload(Some(replies), dry_run),
            Request::Status {} => {
                if replies.send(Frame::Records(vec![self.status()])) {
                    replies.end(ExitCode::Done, None);
                }
            }
            Request::Up {
                connection,
                child,
                wait_seconds,
            } => self.up(&connection, child, wait_seconds, replies),
            Request::Down {
                connection,
                child,
                wait_seconds,
            } => self.down(&connection, child, wait_seconds, replies),
            Request::Rekey {
                connection,
                child,
                wait_seconds,
            } => self.rekey(&connection, child, wait_seconds, replies),
            Request::Log { connection, lines } => self.log(connection.as_deref(), lines, &replies),
            Request::Show { noun, name } => self.show(noun, name, replies),
            Request::Monitor {} => self.monitor(replies),
            Request::Trace {
                prefix,
                protocol,
                port,
                label,
                drops_only,
                packets,
                snap_bytes,
            } => {
                let wish = Wish {
                    prefix,
                    protocol,
                    port,
                    label,
                    drops_only,
                    packets,
                    snap_bytes,
                };
                self.begin_trace(&wish, replies);
            }
            Request::LogLevel { level } => match (self.options.log_level)(&level) {
                Ok(()) => {
                    info!(level, "the log level was changed");
                    replies.end(ExitCode::Done, None);
                }
                Err(message) => replies.end(ExitCode::Usage, Some(message)),
            },
        }
    }

    fn show(&mut self, noun: Noun, name: Option<String>, replies: Replies) {
        let query = match noun {
            Noun::Sas => Query::Sas,
            Noun::Tunnels => Query::Tunnels,
            Noun::Ports => Query::Ports,
            Noun::Routes => Query::Routes,
            Noun::Neighbours => Query::Neighbours,
            Noun::Policies => Query::Policies,
            Noun::Workers => Query::Workers,
            Noun::Labels => Query::Labels,
            Noun::Vrfs => Query::Vrfs,
            Noun::Fpm => return self.show_fpm(&replies),
            Noun::Ike => return self.show_ike(name.as_deref(), &replies),
            Noun::Drops => {
                match self.blocks() {
                    Some(blocks) => {
                        if replies.send(Frame::Records(Reporter::drops(&blocks))) {
                            replies.end(ExitCode::Done, None);
                        }
                    }
                    None => replies.end(
                        ExitCode::Unreachable,
                        Some("the dataplane's counters are not there".into()),
                    ),
                }
                return;
            }
        };
        let number = self.link.as_mut().and_then(|link| link.session.ask(query));
        match number {
            Some(number) => {
                let purpose = Purpose::Show {
                    noun,
                    name,
                    replies,
                    seen: HashSet::new(),
                    matched: false,
                };
                self.questions.insert(number, Question::new(purpose));
            }
            None => replies.end(
                ExitCode::Unreachable,
                Some(format!("the dataplane is {}", self.plane_state())),
            ),
        }
    }

    /// Takes a part of an answer.
    pub(super) fn answer(&mut self, number: u64, records: &[Status], last: bool) {
        let Some(mut question) = self.questions.remove(&number) else {
            return;
        };
        let keep = match &mut question.purpose {
            Purpose::LogPorts => {
                self.log_ports(records);
                true
            }
            Purpose::NoteWorkers => {
                self.workers = records
                    .iter()
                    .filter_map(|record| match record {
                        Status::Worker(worker) => Some(worker.clone()),
                        _ => None,
                    })
                    .collect();
                true
            }
            Purpose::Trace => {
                self.traced(records, last);
                true
            }
            Purpose::Gather(number) => self.gathered(*number, records, last),
            Purpose::ResolveNeighbours => {
                for record in records {
                    if let Status::Neighbour(neighbour) = record
                        && !matches!(neighbour.state, Some(NeighbourState::Resolved(_)))
                    {
                        self.mirror.resolve(neighbour.port, neighbour.address);
                    }
                }
                true
            }
            Purpose::Show {
                noun,
                name,
                replies,
                seen,
                matched,
            } => {
                let mut values = self.records(records);
                if *noun == Noun::Tunnels {
                    seen.extend(
                        values
                            .iter()
                            .filter_map(|value| Some(value["name"].as_str()?.to_owned())),
                    );
                    if last {
                        values.extend(self.missing_tunnels(seen));
                    }
                }
                if let Some(name) = name {
                    values.retain(|value| is_named(value, name));
                }
                *matched |= !values.is_empty();
                let mut is_there = true;
                while is_there && !values.is_empty() {
                    let rest = values.split_off(values.len().min(RECORDS_A_FRAME));
                    is_there = replies.send(Frame::Records(std::mem::replace(&mut values, rest)));
                }
                if last {
                    match name {
                        Some(name) if !*matched => {
                            replies.end(
                                ExitCode::NotFound,
                                Some(format!("no {noun} of the name {name:?}")),
                            );
                        }
                        _ => replies.end(ExitCode::Done, None),
                    }
                }
                is_there
            }
        };
        if keep && !last {
            self.questions.insert(number, question);
        }
    }

    /// The dataplane is gone: nobody will answer.
    pub(super) fn abandon_questions(&mut self) {
        for (_, question) in self.questions.drain() {
            if let Purpose::Show { replies, .. } = question.purpose {
                replies.end(
                    ExitCode::Unreachable,
                    Some("the dataplane went away while it was asked".into()),
                );
            }
        }
    }

    fn records(&self, records: &[Status]) -> Vec<Value> {
        let reporter = self.reporter();
        let blocks = match records.first() {
            Some(Status::Worker(_) | Status::Port(_)) => self.blocks().unwrap_or_default(),
            _ => Vec::new(),
        };
        records
            .iter()
            .map(|status| match status {
                Status::Worker(_) => reporter.worker(status, &blocks),
                Status::Port(_) => reporter.port_use(status, &blocks),
                _ => reporter.record(status),
            })
            .collect()
    }

    /// Tunnels of the configuration that the dataplane does not have.
    fn missing_tunnels(&self, seen: &HashSet<String>) -> Vec<Value> {
        self.gateway
            .tunnels
            .iter()
            .filter(|tunnel| !seen.contains(&tunnel.name))
            .map(|tunnel| {
                json!({
                    "name": tunnel.name,
                    "state": "missing",
                    "local": tunnel.local,
                    "remote": tunnel.remote,
                    "reasons": self.installer.refusals().get(&tunnel.name).cloned().unwrap_or_default(),
                })
            })
            .collect()
    }

    pub(super) fn blocks(&self) -> Option<Vec<WorkerBlock>> {
        self.link.as_ref()?.counters.as_ref()?.read().ok()
    }

    pub(super) fn status(&self) -> Value {
        let netlink = self.mirror.statistics();
        let welcome = self.link.as_ref().and_then(|link| link.welcome);
        json!({
            "name": self.gateway.name,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "dataplane": self.plane_state(),
            "settled": self.is_settled(),
            "dataplane_instance": welcome.map(|welcome| format!("{:016x}", welcome.instance)),
            "workers": welcome.map(|welcome| welcome.workers),
            "generation": self.link.as_ref().map(|link| link.session.generation()),
            "ports": self.gateway.ports.len(),
            "tunnels": self.gateway.tunnels.len(),
            "connections": self.gateway.connections.len(),
            "ike_sas": self.ike.established(),
            "refused_tunnels": self.installer.refusals().keys().collect::<Vec<_>>(),
            "reload_under_way": self.reload.is_some(),
            "last_reload_error": match &self.last_reload { Some(Err(message)) => Some(message), _ => None },
            "kernel_tables_read": self.mirror.is_primed(),
            "netlink_overruns": netlink.overruns,
            "netlink_resyncs": netlink.resyncs,
            "netlink_route_resyncs": netlink.route_resyncs,
            "netlink_undecodable": netlink.undecodable,
        })
    }

    /// Logs each port whose report differs from the last one.
    fn log_ports(&mut self, records: &[Status]) {
        for status in records {
            let Status::Port(port) = status else { continue };
            let before = self.ports.insert(port.interface.clone(), port.clone());
            if before.as_ref() == Some(port) {
                continue;
            }
            match &port.error {
                Some(error) => warn!(
                    interface = port.interface,
                    phase = ?port.phase,
                    error,
                    "port"
                ),
                None => info!(
                    interface = port.interface,
                    phase = ?port.phase,
                    xdp = ?port.xdp,
                    queues = ?port.queues,
                    mtu_bytes = port.mtu_bytes,
                    "port"
                ),
            }
        }
    }
}

/// Whether a record bears `name` in the field that names its kind.
fn is_named(value: &Value, name: &str) -> bool {
    ["tunnel", "name", "interface", "vrf", "prefix", "address"]
        .iter()
        .any(|field| value[*field].as_str() == Some(name))
        || value["label"]
            .as_u64()
            .is_some_and(|label| label.to_string() == name)
}
