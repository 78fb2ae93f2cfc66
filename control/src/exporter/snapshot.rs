//! What a request is answered from.

use std::collections::BTreeMap;

use serde_json::Value;
use southbound::{LabelStatus, PortStatus, SaStatus, TunnelTotals, VrfStatus, WorkerStatus};
use tokio::sync::oneshot;

use super::history::Sample;
use crate::fpm::Overview;
use crate::netlink::Statistics;
use crate::plane::WorkerBlock;

/// How much of the dataplane a request must ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: whether we are there.
    Health,
    /// Tunnels and SAs, for `/metrics`.
    Metrics,
    /// Tunnels, for `/metrics/tunnels`.
    Tunnels,
    /// What the status page shows.
    Page,
}

/// A tunnel of the configuration or of the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRecord {
    /// Its name.
    pub name: String,
    /// `up`, `down`, `degraded`, `refused` or `missing`.
    pub state: &'static str,
    /// Our outer address, for people.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Largest inner packet, once known.
    pub inner_mtu_bytes: u16,
    /// What it carried, over all its SAs.
    pub totals: TunnelTotals,
}

impl TunnelRecord {
    /// Whether traffic can be sent into it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, "up" | "degraded")
    }
}

/// What the IKE engine tells of itself.
#[derive(Clone, Debug, Default)]
pub struct IkeFigures {
    /// Connections of the configuration.
    pub connections_configured: u64,
    /// IKE SAs by state.
    pub sas: BTreeMap<&'static str, u64>,
    /// Those of peers that have not authenticated yet, and how many of them are allowed.
    pub half_open: u64,
    /// The limit.
    pub half_open_limit: u64,
    /// The engine's own counters.
    pub counters: ike::Counters,
    /// Bytes of fragments that wait for the rest of their message.
    pub reassembly_bytes: u64,
    /// Negotiations that failed.
    pub failures: u64,
    /// When our certificates, those of the trusted authorities and the revocation lists end.
    pub expiries: Vec<ike::Expiry>,
}

/// The gateway at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The gateway's name.
    pub name: String,
    /// The record of `penstock status`.
    pub status: Value,
    /// The workers' counters; empty without a dataplane.
    pub blocks: Vec<WorkerBlock>,
    /// The ports as last reported.
    pub ports: Vec<PortStatus>,
    /// The workers as last reported.
    pub workers: Vec<WorkerStatus>,
    /// Whether the dataplane is there and told everything.
    pub is_dataplane_up: bool,
    /// Whether the dataplane has greeted us.
    pub is_control_connected: bool,
    /// Times that a connection to a dataplane was made, and how many of them found another instance.
    pub connections: [u64; 2],
    /// The generation that the dataplane is told.
    pub generation: u64,
    /// Every tunnel, where wanted.
    pub tunnels: Vec<TunnelRecord>,
    /// Tunnels of the configuration.
    pub tunnels_configured: u64,
    /// Those with SAs that are refused.
    pub tunnels_refused: u64,
    /// Every SA, where wanted.
    pub sas: Vec<SaStatus>,
    /// SAs that the dataplane should have, inbound and outbound.
    pub sa_counts: [u64; 2],
    /// Routes of IPv4 and IPv6.
    pub routes: [u64; 2],
    /// Some of the routes, as `penstock show routes` tells them, where wanted.
    pub route_records: Vec<Value>,
    /// Neighbours.
    pub neighbours: u64,
    /// Routing tables by name, where wanted.
    pub vrfs: Vec<(String, VrfStatus)>,
    /// Labels, where wanted and few enough.
    pub labels: Vec<LabelStatus>,
    /// How many labels the dataplane should take.
    pub label_count: u64,
    /// FRR, where it is listened to.
    pub fpm: Option<Overview>,
    /// What the netlink mirror went through.
    pub netlink: Statistics,
    /// What the dataplane raised, by event.
    pub events: BTreeMap<&'static str, u64>,
    /// Whether the last reload, or the start, succeeded.
    pub is_reload_good: bool,
    /// When the configuration was last taken, in seconds of the epoch.
    pub reload_seconds: f64,
    /// The IKE engine.
    pub ike: IkeFigures,
    /// Traffic of the last minutes, oldest first, where wanted.
    pub history: Vec<Sample>,
}

/// A request on its way to the daemon.
#[derive(Debug)]
pub struct Scrape {
    /// What is wanted.
    pub wanted: Wanted,
    /// Where it goes.
    pub reply: oneshot::Sender<Snapshot>,
}
