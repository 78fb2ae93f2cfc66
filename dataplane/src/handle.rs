//! [`Handle`]: the forwarding plane as the control process sees it, in the hands of the main thread.
//!
//! Joins what has one owner each: the tables' writer, the ports, the watch on the kernel's links, and the queues of
//! events from the workers.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use southbound::{Event, ForwardingPlane, Query, Rejection, Status, TraceSpec, Update, WorkerStatus};

use crate::link_watch::LinkWatch;
use crate::ports::{PortManager, PortView};
use crate::sa::PathReport;
use crate::tables::{PortLink, Writer};
use crate::trace::Tracer;

/// Events kept for a control process that is away; the oldest go first.
const KEPT_EVENTS: usize = 4096;
/// Events, and path reports, on their way from one worker.
const WORKER_EVENTS: usize = 1024;

/// A worker's ways to tell the main thread something. Full, the worker counts what it could not tell.
#[derive(Clone, Debug)]
pub struct WorkerVoice {
    /// What the control process should know.
    pub events: Arc<ArrayQueue<Event>>,
    /// What the writer should know of paths.
    pub paths: Arc<ArrayQueue<PathReport>>,
    /// Packets that are watched.
    pub tracer: Arc<Tracer>,
}

impl Default for WorkerVoice {
    fn default() -> Self {
        Self {
            events: Arc::new(ArrayQueue::new(WORKER_EVENTS)),
            paths: Arc::new(ArrayQueue::new(WORKER_EVENTS)),
            tracer: Arc::default(),
        }
    }
}

/// The forwarding plane.
pub struct Handle<'u> {
    writer: Writer,
    ports: PortManager<'u>,
    links: LinkWatch,
    workers: Vec<WorkerStatus>,
    voices: Vec<WorkerVoice>,
    events: VecDeque<Event>,
    events_lost: u64,
    now_ms: u64,
    has_new_addresses: bool,
}

impl<'u> Handle<'u> {
    /// The forwarding plane of these parts, without any object yet.
    #[must_use]
    pub fn new(
        writer: Writer,
        ports: PortManager<'u>,
        links: LinkWatch,
        workers: Vec<WorkerStatus>,
        voices: Vec<WorkerVoice>,
    ) -> Self {
        Self {
            writer,
            ports,
            links,
            workers,
            voices,
            events: VecDeque::new(),
            events_lost: 0,
            now_ms: 0,
            has_new_addresses: false,
        }
    }

    /// The watch on links, to wait for.
    #[must_use]
    pub fn links(&self) -> &LinkWatch {
        &self.links
    }

    /// Does what time, the kernel and the workers ask for. `now_ms` is of the workers' clock.
    pub fn turn(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let ports = &mut self.ports;
        if let Err(error) = self.links.read(|event| ports.link_event(event, now_ms)) {
            tracing::error!(%error, "the kernel's links cannot be read");
        }
        ports.read_reports(now_ms);
        if ports
            .deadline_ms()
            .is_none_or(|deadline_ms| deadline_ms <= now_ms)
        {
            ports.tick(now_ms);
        }
        self.settle();
        self.collect_events();
    }

    /// Completes what updates left for the end of a round.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.has_new_addresses) {
            let addresses = self.writer.locals_older_than(u64::MAX);
            self.ports
                .set_local(addresses.iter().map(|local| local.address).collect());
            self.ports.set_tunnel_ends(self.writer.tunnel_endpoints());
        }
        for port in self.ports.take_changed() {
            if let (Some(slot), Some(view)) = (self.writer.port_slot(port), self.ports.view(port)) {
                self.writer.set_port_link(slot, link_of(&view));
            }
            self.remember(Event::PortChanged { port });
        }
        self.writer.settle();
    }

    /// When [`Self::turn`] has something to do that no descriptor tells of.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.ports.deadline_ms()
    }

    /// Whether there is something to tell the control process.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn collect_events(&mut self) {
        let now_seconds = self.now_ms / 1000;
        let mut heard = Vec::new();
        self.writer.tick(now_seconds, &mut heard);
        for voice in &self.voices {
            heard.extend(std::iter::from_fn(|| voice.events.pop()));
            let paths = std::iter::from_fn(|| voice.paths.pop());
            heard.extend(paths.filter_map(|report| self.writer.hear(&report, now_seconds)));
        }
        heard.into_iter().for_each(|event| self.remember(event));
    }

    fn remember(&mut self, event: Event) {
        if self.events.len() >= KEPT_EVENTS {
            self.events.pop_front();
            self.events_lost += 1;
        }
        self.events.push_back(event);
    }

    /// Takes every port down; over when [`Self::is_idle`].
    pub fn shut_down(&mut self, now_ms: u64) {
        self.ports.shut_down(now_ms);
    }

    /// Whether no port is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ports.is_idle()
    }
}

/// What workers need to know of a port's interface.
fn link_of(view: &PortView) -> PortLink {
    PortLink {
        // An interface may claim more than an IP packet can have.
        mtu_bytes: u16::try_from(view.mtu_bytes).unwrap_or(u16::MAX),
        mac: view.mac,
        up: view.is_up,
        vlan: view.vlan,
    }
}

impl ForwardingPlane for Handle<'_> {
    fn begin_sync(&mut self, generation: u64) {
        tracing::info!(generation, "resynchronisation begins");
    }

    fn apply(&mut self, generation: u64, update: Update) -> Result<(), Rejection> {
        match update {
            Update::PutPort(spec) => {
                self.writer.apply(generation, Update::PutPort(spec.clone()))?;
                let slot = self
                    .writer
                    .port_slot(spec.id)
                    .ok_or(Rejection::UnknownPort(spec.id))?;
                self.ports.put(spec, slot, &self.links, self.now_ms);
                Ok(())
            }
            Update::RemovePort(id) => {
                self.ports.remove(id, self.now_ms);
                self.writer.apply(generation, Update::RemovePort(id))
            }
            Update::PutLocalAddress(_)
            | Update::RemoveLocalAddress(_)
            | Update::PutTunnel(_)
            | Update::RemoveTunnel(_) => {
                self.has_new_addresses = true;
                self.writer.apply(generation, update)
            }
            update => self.writer.apply(generation, update),
        }
    }

    fn settle(&mut self) {
        Self::settle(self);
    }

    fn end_sync(&mut self, generation: u64) -> u64 {
        for port in self.writer.ports_older_than(generation) {
            self.ports.remove(port, self.now_ms);
        }
        self.has_new_addresses = true;
        let removed = self.writer.sweep(generation);
        tracing::info!(generation, removed, "resynchronisation ends");
        removed
    }

    fn drain_events(&mut self, events: &mut Vec<Event>) {
        events.extend(self.events.drain(..));
        let count = std::mem::take(&mut self.events_lost);
        if count > 0 {
            events.push(Event::EventsLost { count });
        }
    }

    fn trace(&mut self, spec: Option<TraceSpec>) {
        for voice in &self.voices {
            voice.tracer.arm(spec.clone());
        }
    }

    fn query(&self, query: Query) -> Vec<Status> {
        match query {
            Query::Sas => self.writer.sa_status(),
            Query::Tunnels => self.writer.tunnel_status(),
            Query::Ports => self.ports.statuses().into_iter().map(Status::Port).collect(),
            Query::Routes => self.writer.route_status(),
            Query::Neighbours => self.writer.neighbour_status(),
            Query::Policies => self.writer.policy_status(),
            Query::Labels => self.writer.label_status(),
            Query::Vrfs => self.writer.vrf_status(),
            Query::Traces => self
                .voices
                .iter()
                .flat_map(|voice| std::iter::from_fn(|| voice.tracer.take()))
                .map(Status::Trace)
                .collect(),
            Query::Workers => self.workers.iter().cloned().map(Status::Worker).collect(),
        }
    }
}

impl std::fmt::Debug for Handle<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Handle").finish_non_exhaustive()
    }
}
