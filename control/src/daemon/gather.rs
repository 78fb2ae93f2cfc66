//! Answers to the HTTP endpoint: what the daemon knows, and what it must ask the dataplane for.

use std::collections::{HashMap, HashSet};
use std::time::{Instant, SystemTime};

use southbound::{Query, Status};

use super::answers::Purpose;
use super::supervisor::Daemon;
use crate::admin::{Reporter, tunnel_state};
use crate::config::Tunnel;
use crate::exporter::{IkeFigures, MOST_SERIES, Scrape, Snapshot, TunnelRecord, Wanted};

/// Most requests that wait for the dataplane at once: others are told what is known without it.
const MAX_GATHERINGS: usize = 32;

/// Most routes that the status page gets.
const MAX_PAGE_ROUTES: usize = 200;

/// A request that waits for answers.
#[derive(Debug)]
pub(super) struct Gathering {
    scrape: Scrape,
    /// Questions still open.
    open: usize,
    parts: Parts,
}

#[derive(Debug, Default)]
struct Parts {
    tunnels: Vec<southbound::TunnelStatus>,
    sas: Vec<southbound::SaStatus>,
    routes: Vec<serde_json::Value>,
    vrfs: Vec<southbound::VrfStatus>,
    labels: Vec<southbound::LabelStatus>,
}

fn queries(wanted: Wanted) -> &'static [Query] {
    match wanted {
        Wanted::Health => &[],
        Wanted::Metrics => &[Query::Tunnels, Query::Sas, Query::Vrfs, Query::Labels],
        Wanted::Tunnels => &[Query::Tunnels],
        Wanted::Page => &[Query::Tunnels, Query::Routes],
    }
}

impl Daemon {
    /// Answers a request, at once or when the dataplane has answered.
    pub(super) fn gather(&mut self, scrape: Scrape) {
        let number = self.next_gathering;
        self.next_gathering += 1;
        let mut open = 0;
        if self.gatherings.len() < MAX_GATHERINGS {
            // So many labels have no series, and need not be asked for.
            let are_labels_few = self.desired.label_count() <= MOST_SERIES as u64;
            for query in queries(scrape.wanted)
                .iter()
                .filter(|query| **query != Query::Labels || are_labels_few)
            {
                open += usize::from(self.try_ask(*query, Purpose::Gather(number)));
            }
        }
        let gathering = Gathering {
            scrape,
            open,
            parts: Parts::default(),
        };
        if open == 0 {
            self.reply(gathering);
        } else {
            self.gatherings.insert(number, gathering);
        }
    }

    /// Takes a part of an answer; `false` where nobody waits for more.
    pub(super) fn gathered(&mut self, number: u64, records: &[Status], last: bool) -> bool {
        let Some(mut gathering) = self.gatherings.remove(&number) else {
            return false;
        };
        for record in records {
            match record {
                Status::Tunnel(tunnel) => gathering.parts.tunnels.push(tunnel.clone()),
                Status::Sa(sa) => gathering.parts.sas.push(sa.clone()),
                Status::Vrf(vrf) => gathering.parts.vrfs.push(vrf.clone()),
                Status::Label(label) => gathering.parts.labels.push(label.clone()),
                Status::Route(_) if gathering.parts.routes.len() < MAX_PAGE_ROUTES => {
                    gathering.parts.routes.push(self.reporter().record(record));
                }
                _ => {}
            }
        }
        gathering.open -= usize::from(last);
        if gathering.open == 0 {
            self.reply(gathering);
        } else if !gathering.scrape.reply.is_closed() {
            self.gatherings.insert(number, gathering);
        }
        true
    }

    /// The dataplane is gone: what waits is told what is known without it.
    pub(super) fn abandon_gatherings(&mut self) {
        let waiting: Vec<_> = self.gatherings.drain().map(|(_, gathering)| gathering).collect();
        for gathering in waiting {
            self.reply(gathering);
        }
    }

    /// Takes a sample of the traffic where one is due.
    pub(super) fn remember_traffic(&mut self) {
        let now = Instant::now();
        if self.gateway.metrics.is_some()
            && self.history.is_due(now)
            && let Some(blocks) = self.blocks()
        {
            self.history.take(now, self.started.elapsed(), &blocks);
        }
    }

    fn reply(&self, gathering: Gathering) {
        let wanted = gathering.scrape.wanted;
        let snapshot = self.snapshot(wanted, gathering.parts);
        // Who left needs no answer.
        let _ = gathering.scrape.reply.send(snapshot);
    }

    pub(super) fn reporter(&self) -> Reporter<'_> {
        Reporter {
            gateway: &self.gateway,
            installer: &self.installer,
            desired: &self.desired,
        }
    }

    fn snapshot(&self, wanted: Wanted, parts: Parts) -> Snapshot {
        let mut snapshot = Snapshot {
            is_dataplane_up: self.plane_state() == "up",
            ..Snapshot::default()
        };
        if wanted == Wanted::Health {
            return snapshot;
        }
        snapshot.tunnels = self.tunnel_records(&parts.tunnels);
        if wanted == Wanted::Tunnels {
            return snapshot;
        }
        if wanted == Wanted::Page {
            snapshot.status = self.status();
            snapshot.history = self.history.samples();
        }
        Snapshot {
            name: self.gateway.name.clone(),
            blocks: self.blocks().unwrap_or_default(),
            ports: self.ports.values().cloned().collect(),
            workers: self.workers.clone(),
            is_control_connected: self.link.as_ref().is_some_and(|link| link.welcome.is_some()),
            connections: self.connections,
            generation: self.link.as_ref().map_or(0, |link| link.session.generation()),
            tunnels_configured: self.gateway.tunnels.len() as u64,
            tunnels_refused: self.installer.refusals().len() as u64,
            sas: parts.sas,
            sa_counts: self.installer.sa_counts(),
            routes: self.desired.route_counts(),
            route_records: parts.routes,
            neighbours: self.desired.neighbour_count(),
            vrfs: parts
                .vrfs
                .into_iter()
                .map(|vrf| (self.reporter().vrf_name(&vrf), vrf))
                .collect(),
            labels: parts.labels,
            label_count: self.desired.label_count(),
            fpm: self.fpm.overview(),
            netlink: self.mirror.statistics(),
            events: self.raised.clone(),
            is_reload_good: !matches!(self.last_reload, Some(Err(_))),
            reload_seconds: self
                .config_taken
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            ike: IkeFigures {
                expiries: self.gateway.credentials.expiries(),
                ..self.ike.figures(&self.gateway.ike)
            },
            ..snapshot
        }
    }

    /// Every tunnel of the dataplane, and those of the configuration that it does not have.
    fn tunnel_records(&self, known: &[southbound::TunnelStatus]) -> Vec<TunnelRecord> {
        let configured: HashMap<&str, &Tunnel> = self
            .gateway
            .tunnels
            .iter()
            .map(|tunnel| (tunnel.name.as_str(), tunnel))
            .collect();
        let refusals = self.installer.refusals();
        let mut seen = HashSet::with_capacity(known.len());
        let mut records: Vec<TunnelRecord> = known
            .iter()
            .map(|tunnel| {
                let name = tunnel.name.as_str();
                seen.insert(name);
                let ends = configured.get(name);
                TunnelRecord {
                    name: tunnel.name.clone(),
                    state: tunnel_state(tunnel, refusals.contains_key(name)),
                    local: ends.map(|tunnel| tunnel.local.to_string()).unwrap_or_default(),
                    remote: ends.map(|tunnel| tunnel.remote.to_string()).unwrap_or_default(),
                    inner_mtu_bytes: tunnel.inner_mtu_bytes,
                    totals: tunnel.totals,
                }
            })
            .collect();
        records.extend(
            self.gateway
                .tunnels
                .iter()
                .filter(|tunnel| !seen.contains(tunnel.name.as_str()))
                .map(|tunnel| TunnelRecord {
                    name: tunnel.name.clone(),
                    state: "missing",
                    local: tunnel.local.to_string(),
                    remote: tunnel.remote.to_string(),
                    inner_mtu_bytes: 0,
                    totals: southbound::TunnelTotals::default(),
                }),
        );
        records
    }
}
