//! A gateway in this process: one worker, its ports on rings in memory, its tables written by updates.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use crossbeam_queue::ArrayQueue;
use dataplane::batch::Ingress;
use dataplane::config::Idle;
use dataplane::counters::WorkerCounters;
use dataplane::tables::PortSlot;
use dataplane::tap::Tap;
use dataplane::worker::{Command, Parts, Report, Worker};
use dataplane::xsk::memory::{self, MemoryKernel};
use dataplane::xsk::{QueueId, RingSizes, Umem, UmemConfig};
use southbound::{DropReason, Event, ForwardingPlane, PortId, PortRole, PortSpec, Update, VrfId, WorkerCounter, XdpPreference};

/// The Ethernet address of a gateway's port.
pub fn port_mac(port: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, port as u8]
}

/// The Ethernet address of whoever is behind a port.
pub fn neighbour_mac(port: u32) -> [u8; 6] {
    [2, 0, 0, 0, 2, port as u8]
}

pub const START_NS: u64 = 1_000_000_000_000;

pub struct Gateway {
    pub worker: Worker<'static>,
    pub events: Arc<ArrayQueue<Event>>,
    pub host: UnixDatagram,
    pub now_ns: u64,
    kernels: BTreeMap<u32, MemoryKernel<'static>>,
    commands: Sender<Command<'static>>,
    _reports: Receiver<Report>,
}
