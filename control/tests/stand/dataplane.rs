//! The contract's recorder behind a real socket: it carries no packet, but holds and answers like a
//! dataplane.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use rustix::net::{SocketFlags, accept_with};
use southbound::{
    Channel, ChannelError, CounterLayout, DropReason, Event, ForwardingPlane, PROTOCOL_VERSION, PolicyStatus,
    PortPhase, PortStatus, Query, Recorder, Rejection, SaStatus, Status, ToControl, ToDataplane,
    TunnelStatus, Update,
};

#[derive(Debug)]
struct State {
    recorder: Recorder,
    generation: u64,
    connections: u32,
    syncs: u32,
}

/// A dataplane that remembers; its socket is gone with the value, as that of one that was killed.
#[derive(Debug)]
pub struct RecordingDataplane {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RecordingDataplane {
    /// Listens at `path` as instance `instance`.
    pub fn start(path: &Path, instance: u64) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&listener, Backlog::new(4).unwrap()).unwrap();
        let state = Arc::new(Mutex::new(State {
            recorder: Recorder::default(),
            generation: 0,
            connections: 0,
            syncs: 0,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || serve(&listener, instance, &state, &stop)
        });
        Self {
            state,
            stop,
            thread: Some(thread),
        }
    }

    /// What it holds, as text, in order of name.
    pub fn holds(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let tunnels: Vec<_> = state
            .recorder
            .installed()
            .filter_map(|update| match update {
                Update::PutTunnel(tunnel) => Some(tunnel.id),
                _ => None,
            })
            .collect();
        state
            .recorder
            .installed()
            // The choice of an SA goes with its tunnel, which the recorder does not know.
            .filter(
                |update| !matches!(update, Update::SelectOutbound { tunnel, .. } if !tunnels.contains(tunnel)),
            )
            .map(|update| format!("{update:?}"))
            .collect()
    }

    /// What it holds that fits.
    pub fn find<T>(&self, fits: impl Fn(&Update) -> Option<T>) -> Vec<T> {
        let state = self.state.lock().unwrap();
        state.recorder.installed().filter_map(fits).collect()
    }

    pub fn syncs(&self) -> u32 {
        self.state.lock().unwrap().syncs
    }

    pub fn applied(&self) -> u64 {
        self.state.lock().unwrap().recorder.applied()
    }

    pub fn raise(&self, event: Event) {
        self.state.lock().unwrap().recorder.raise(event);
    }

    pub fn refuse(&self, update: &Update, rejection: Rejection) {
        self.state.lock().unwrap().recorder.refuse(update, rejection);
    }
}

impl Drop for RecordingDataplane {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(listener: &OwnedFd, instance: u64, state: &Mutex<State>, stop: &AtomicBool) {
    let mut channel: Option<Channel> = None;
    while !stop.load(Ordering::Relaxed) {
        if let Ok(accepted) = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            state.lock().unwrap().connections += 1;
            channel = Some(Channel::new(accepted));
        }
        if let Some(open) = &channel {
            match open.receive::<ToDataplane>() {
                Ok((message, _)) => answer(open, message, instance, &mut state.lock().unwrap()),
                Err(ChannelError::WouldBlock) => {
                    let mut events = Vec::new();
                    state.lock().unwrap().recorder.drain_events(&mut events);
                    if !events.is_empty() {
                        open.send(&ToControl::Events(events), None).unwrap();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => channel = None,
            }
        } else {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn send(channel: &Channel, message: &ToControl) {
    // The control process may have been killed in between.
    while let Err(ChannelError::WouldBlock) = channel.send(message, None) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn answer(channel: &Channel, message: ToDataplane, instance: u64, state: &mut State) {
    match message {
        ToDataplane::Hello { .. } => {
            let counters = counters();
            let welcome = ToControl::Welcome {
                version: PROTOCOL_VERSION,
                instance,
                generation: state.generation,
                workers: 1,
            };
            let _ = channel.send(&welcome, Some(counters.as_fd()));
        }
        ToDataplane::BeginSync { generation } => state.recorder.begin_sync(generation),
        ToDataplane::Apply {
            sequence,
            generation,
            updates,
        } => {
            state.generation = generation;
            let rejections = (0u32..)
                .zip(updates)
                .filter_map(|(index, update)| Some((index, state.recorder.apply(generation, update).err()?)))
                .collect();
            send(channel, &ToControl::Applied { sequence, rejections });
        }
        ToDataplane::EndSync { generation } => {
            let removed = state.recorder.end_sync(generation);
            state.generation = generation;
            state.syncs += 1;
            send(channel, &ToControl::Synced { generation, removed });
        }
        ToDataplane::Trace { .. } => {}
        ToDataplane::Ask { sequence, query } => {
            let records: Vec<Status> = state
                .recorder
                .installed()
                .filter_map(|update| status(query, update))
                .collect();
            for part in records.chunks(100) {
                send(
                    channel,
                    &ToControl::Answer {
                        sequence,
                        records: part.to_vec(),
                        last: false,
                    },
                );
            }
            send(
                channel,
                &ToControl::Answer {
                    sequence,
                    records: vec![],
                    last: true,
                },
            );
        }
    }
}

fn status(query: Query, update: &Update) -> Option<Status> {
    match (query, update) {
        (Query::Ports, Update::PutPort(port)) => Some(Status::Port(PortStatus {
            port: port.id,
            slot: 0,
            vlan: None,
            interface: port.interface.clone(),
            phase: PortPhase::Up,
            xdp: None,
            queues: vec![],
            mtu_bytes: 1500,
            rebinds: 0,
            error: None,
        })),
        (Query::Tunnels, Update::PutTunnel(tunnel)) => Some(Status::Tunnel(TunnelStatus {
            tunnel: tunnel.id,
            name: tunnel.name.clone(),
            outbound: None,
            outer_mtu_bytes: 1500,
            inner_mtu_bytes: 1438,
            totals: southbound::TunnelTotals {
                in_packets: 5,
                in_bytes: 500,
                out_packets: 7,
                out_bytes: 700,
                drop_packets: 1,
            },
        })),
        (Query::Sas, Update::InstallSa(sa)) => Some(Status::Sa(SaStatus {
            sa: sa.reference(),
            tunnel: sa.tunnel,
            transform: sa.transform,
            selected: false,
            worker: None,
            expired: false,
            packets: 7,
            bytes: 700,
            sequence: 7,
            remaining_sequence: 1_000,
            replay_drops: 0,
            integrity_failures: 0,
            selector_drops: 0,
            age_seconds: 1,
        })),
        (Query::Routes, Update::PutRoute(route)) => Some(Status::Route(southbound::RouteStatus {
            vrf: route.vrf,
            prefix: route.prefix,
            next_hops: route.next_hops.clone(),
            weights: route.weights.clone(),
        })),
        (Query::Labels, Update::PutIlm(ilm)) => Some(Status::Label(southbound::LabelStatus {
            ilm: ilm.clone(),
            packets: 0,
            bytes: 0,
        })),
        (Query::Policies, Update::PutPolicy(policy)) => Some(Status::Policy(PolicyStatus {
            policy: policy.clone(),
        })),
        _ => None,
    }
}

/// A segment of one worker that dropped 42 packets for want of a route.
fn counters() -> File {
    let layout = CounterLayout::new(1);
    let mut bytes = vec![0u8; layout.segment_bytes()];
    for (index, value) in layout.header().into_iter().enumerate() {
        bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    let at = CounterLayout::block_start_bytes(0) + 8 * CounterLayout::drop_cell(DropReason::NoRoute);
    bytes[at..at + 8].copy_from_slice(&42u64.to_le_bytes());
    let mut file = File::from(memfd_create("counters", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(&bytes).unwrap();
    file
}
