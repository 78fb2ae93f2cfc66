//! A worker's walk without the worker: tables, packet memory and a batch in the hands of the benchmark.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use dataplane::batch::{Batch, Ingress, Meta, Next, Slots};
use dataplane::counters::WorkerCounters;
use dataplane::hold::Hold;
use dataplane::icmp_limit::IcmpLimit;
use dataplane::reassembly::{Limits as ReassemblyLimits, Reassembly};
use dataplane::stage::{self, Backlog, Context};
use dataplane::tables::{Limits, PortLink, PortSlot, Reader, Tables, VrfIndex, Writer};
use dataplane::xsk::{FramePool, Umem, UmemConfig};
use southbound::{
    DfPolicy, DropReason, DscpPolicy, EcnPolicy, Endpoint, Event, IpPrefix, KeyMaterial, Lifetime,
    LocalAddress, Mode, Neighbour, NeighbourState, NextHop, PortId, PortRole, PortSpec, ProtocolMatch,
    Rejection, ReplayWindow, RouteSpec, SaDirection, SaSpec, SelectorPair, Transform, TtlPolicy, TunnelId,
    TunnelSpec, Update, VrfId, XdpPreference,
};
use thiserror::Error;

use super::{BATCH_PACKETS, Case, Kind, labels};

const LAN: PortId = PortId(1);
const WAN: PortId = PortId(2);
const OUTER: [[u8; 4]; 2] = [[198, 51, 100, 1], [198, 51, 100, 2]];
const ETHERNET_BYTES: usize = 14;
const UMEM_FRAMES: u32 = 4096;

/// Why there is nothing to measure.
#[derive(Debug, Error)]
pub enum RigError {
    /// The tables refused the set-up.
    #[error("set-up: {0}")]
    Rejected(#[from] Rejection),
    /// No packet memory.
    #[error("packet memory: {0}")]
    Memory(#[from] dataplane::xsk::UmemError),
    /// The transform is none.
    #[error("{0}")]
    Transform(#[from] southbound::TransformError),
    /// Packets were lost.
    #[error("{sent} packets went in and {left} came out; first drop: {reason:?}")]
    Lost {
        /// Packets in.
        sent: usize,
        /// Packets out.
        left: usize,
        /// A reason that was counted.
        reason: Option<DropReason>,
    },
}

/// The tables of one of a pair of gateways, with all that a case needs in them.
struct Gateway {
    tables: Arc<Tables>,
    lan: PortSlot,
    wan: PortSlot,
}

impl Gateway {
    /// `number` is 1 or 2.
    fn new(number: u8, case: &Case) -> Result<Arc<Self>, RigError> {
        let tables = Arc::new(Tables::new(Limits::default()));
        let mut writer = Writer::new(Arc::clone(&tables));
        set_up(&mut writer, number, case)?;
        let slot = |port| writer.port_slot(port).unwrap_or(PortSlot::FIRST);
        Ok(Arc::new(Self {
            lan: slot(LAN),
            wan: slot(WAN),
            tables,
        }))
    }
}

/// The gateways of a case with their SAs, for several workers to share.
pub struct Gateways {
    case: Case,
    measured: Arc<Gateway>,
    peer: Option<Arc<Gateway>>,
}

impl Gateways {
    /// Those of `case`.
    ///
    /// # Errors
    /// See [`RigError`].
    pub fn new(case: &Case) -> Result<Self, RigError> {
        let (measured, peer) = match case.kind {
            Kind::Encap | Kind::Ends | Kind::Forward | Kind::LabelSwap | Kind::LabelPush | Kind::LabelPop => {
                (Gateway::new(1, case)?, None)
            }
            Kind::Decap => (Gateway::new(2, case)?, Some(Gateway::new(1, case)?)),
        };
        Ok(Self {
            case: *case,
            measured,
            peer,
        })
    }

    /// Worker `number` of `count`, to be made by the thread that runs it. Where there are SAs enough each has its own.
    ///
    /// # Errors
    /// See [`RigError`].
    pub fn worker(&self, number: u16, count: u16) -> Result<Rig, RigError> {
        let own_sas = self.case.sas / u32::from(count.max(1));
        Ok(Rig {
            case: self.case,
            measured: Side::new(&self.measured, number)?,
            peer: self
                .peer
                .as_ref()
                .map(|peer| Side::new(peer, number))
                .transpose()?,
            first_sa: own_sas * u32::from(number),
            sas: if own_sas == 0 { self.case.sas } else { own_sas }.max(1),
            turn: 0,
            packets: Vec::new(),
        })
    }
}

/// A worker of a gateway, without its thread.
struct Side {
    gateway: Arc<Gateway>,
    reader: Reader,
    pool: FramePool<'static>,
    counters: WorkerCounters,
    events: ArrayQueue<Event>,
    paths: ArrayQueue<dataplane::sa::PathReport>,
    hold: Hold<'static>,
    limit: IcmpLimit,
    reassembly: Reassembly,
    backlog: Backlog<'static>,
    batch: Box<Batch<'static>>,
    now_ns: u64,
}

/// The measured side and, for decapsulation, the side that makes its packets.
pub struct Rig {
    case: Case,
    measured: Side,
    peer: Option<Side>,
    first_sa: u32,
    /// SAs in rotation.
    sas: u32,
    turn: u32,
    packets: Vec<Vec<u8>>,
}

impl Rig {
    /// The only worker of the gateways of `case`.
    ///
    /// # Errors
    /// See [`RigError`].
    pub fn new(case: &Case) -> Result<Self, RigError> {
        Gateways::new(case)?.worker(0, 1)
    }

    /// Makes a batch, walks it, and returns the TSC cycles of the walk alone.
    ///
    /// # Errors
    /// [`RigError::Lost`] where not every packet left.
    pub fn run_batch(&mut self, clock: &quanta::Clock) -> Result<u64, RigError> {
        self.packets.clear();
        for _ in 0..BATCH_PACKETS {
            let sa = self.first_sa + self.turn;
            let number = if labels::is_labelled(self.case.kind) {
                labels::far_number(&self.case, sa)
            } else {
                sa
            };
            let mut packet = plain(self.case.size_bytes, number);
            if labels::is_labelled(self.case.kind) {
                labels::put_label(&self.case, sa, &mut packet);
            }
            self.packets.push(packet);
            self.turn = (self.turn + 1) % self.sas;
        }
        let mut ingress = self.measured.gateway.lan;
        if let Some(peer) = &mut self.peer {
            peer.load(peer.gateway.lan, &self.packets);
            peer.walk(clock);
            self.packets.clear();
            peer.unload(Some(&mut self.packets))?;
            for packet in &mut self.packets {
                address_to_port(packet, WAN);
            }
            ingress = self.measured.gateway.wan;
        }
        self.measured.load(ingress, &self.packets);
        let cycles = if self.case.kind == Kind::Ends {
            self.measured.ends(clock)
        } else {
            measured_walk(&mut self.measured, clock)
        };
        self.measured.unload(None)?;
        Ok(cycles)
    }
}

/// Found by its name where instructions are counted.
#[inline(never)]
fn measured_walk(side: &mut Side, clock: &quanta::Clock) -> u64 {
    side.walk(clock)
}

impl Side {
    fn new(gateway: &Arc<Gateway>, worker: u16) -> Result<Self, RigError> {
        // Lives as long as the process: a benchmark makes a few dozen.
        let umem: &'static Umem = Box::leak(Box::new(Umem::new(&UmemConfig {
            frame_count: UMEM_FRAMES,
            hugepages: true,
            ..UmemConfig::default()
        })?));
        let pool = umem.pool().ok_or(dataplane::xsk::UmemError::FrameCount(0))?;
        Ok(Self {
            reader: gateway.tables.reader_of(worker),
            gateway: Arc::clone(gateway),
            reassembly: Reassembly::new(ReassemblyLimits {
                slots: 4,
                datagram_bytes: umem.packet_capacity_bytes(),
                held_bytes: 1 << 16,
                ..ReassemblyLimits::default()
            }),
            pool,
            counters: WorkerCounters::detached(),
            events: ArrayQueue::new(64),
            paths: ArrayQueue::new(8),
            hold: Hold::new(),
            limit: IcmpLimit::new(),
            backlog: Backlog::with_capacity(4 * BATCH_PACKETS),
            batch: Box::default(),
            now_ns: 1_000_000_000_000,
        })
    }

    /// Puts packets into frames and these into the batch.
    fn load(&mut self, ingress: PortSlot, packets: &[Vec<u8>]) {
        for packet in packets {
            let Some(mut frame) = self.pool.take() else { return };
            if !frame.copy_from(packet) {
                self.pool.put(frame);
                return;
            }
            let meta = Meta::new(Ingress::Port(ingress), VrfIndex::MAIN);
            if let Err(frame) = self.batch.push(frame, meta, Next::Classify) {
                self.pool.put(frame);
            }
        }
    }

    /// The walk, timed.
    fn walk(&mut self, clock: &quanta::Clock) -> u64 {
        self.timed(clock, |batch, context| stage::run(batch, context))
    }

    /// The walk's two ends alone, timed: no rule, route or label is asked for.
    fn ends(&mut self, clock: &quanta::Clock) -> u64 {
        self.timed(clock, |batch, context| {
            stage::classify::run(batch, context);
            let slots = batch.take(Next::PolicyOut);
            let way = context.view.route(VrfIndex::MAIN, far_address(0).into());
            for slot in Slots::of(slots) {
                batch.meta_mut(slot).adjacency = way;
            }
            batch.send_all(slots, Next::Egress);
            stage::egress::run(batch, context);
        })
    }

    fn timed(
        &mut self,
        clock: &quanta::Clock,
        stages: impl FnOnce(&mut Batch<'static>, &mut Context<'_, 'static>),
    ) -> u64 {
        self.now_ns += 10_000;
        let start = clock.raw();
        let view = self.reader.pin();
        let mut context = Context {
            view,
            now_ns: self.now_ns,
            counters: &self.counters,
            events: &self.events,
            paths: &self.paths,
            pool: &mut self.pool,
            hold: &mut self.hold,
            limit: &mut self.limit,
            reassembly: &mut self.reassembly,
            backlog: &mut self.backlog,
        };
        stages(&mut self.batch, &mut context);
        clock.raw() - start
    }

    /// Takes what leaves, copies it where wanted, and gives the frames back.
    fn unload(&mut self, mut copies: Option<&mut Vec<Vec<u8>>>) -> Result<(), RigError> {
        let mut left = 0;
        for slot in Slots::of(self.batch.take(Next::Transmit)) {
            let Some(frame) = self.batch.remove(slot) else {
                continue;
            };
            if let Some(copies) = &mut copies {
                copies.push(frame.bytes().to_vec());
            }
            left += 1;
            self.pool.put(frame);
        }
        if left == BATCH_PACKETS {
            return Ok(());
        }
        let reason = DropReason::ALL
            .iter()
            .copied()
            .find(|reason| self.counters.dropped(*reason) != 0);
        Err(RigError::Lost {
            sent: BATCH_PACKETS,
            left,
            reason,
        })
    }
}

/// The far network behind the tunnel of an SA: 10.128.0.0 and up, an address each.
fn far_address(sa: u32) -> [u8; 4] {
    (0x0a80_0000 + sa).to_be_bytes()
}

fn port_mac(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 1, port.0 as u8]
}

fn neighbour_mac(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 2, port.0 as u8]
}

fn address_to_port(frame: &mut [u8], port: PortId) {
    if let Some(destination) = frame.get_mut(..6) {
        destination.copy_from_slice(&port_mac(port));
    }
}

/// A UDP packet from the near network to the far address of `sa`, in an Ethernet frame for the LAN port.
fn plain(size_bytes: usize, sa: u32) -> Vec<u8> {
    let mut frame = vec![0x42; ETHERNET_BYTES + size_bytes];
    let (link, packet) = frame.split_at_mut(ETHERNET_BYTES);
    link.copy_from_slice(&[0; ETHERNET_BYTES]);
    link[6..12].copy_from_slice(&neighbour_mac(LAN));
    link[12..14].copy_from_slice(&[0x08, 0x00]);
    let length = (size_bytes as u16).to_be_bytes();
    let header = [
        0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 5,
    ];
    packet[..16].copy_from_slice(&header);
    packet[16..20].copy_from_slice(&far_address(sa));
    let checksum = wire::checksum::Sum::new()
        .bytes(&packet[..20])
        .checksum()
        .to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    let udp_length = (size_bytes as u16 - 20).to_be_bytes();
    packet[20..28].copy_from_slice(&[0x10, 0, 0x20, 0, udp_length[0], udp_length[1], 0, 0]);
    address_to_port(&mut frame, LAN);
    frame
}

fn set_up(writer: &mut Writer, number: u8, case: &Case) -> Result<(), RigError> {
    put_objects(writer, number, case)?;
    labels::set_up(writer, case, (LAN, WAN), [198, 51, 100, 99])?;
    set_links(writer);
    Ok(())
}

fn put_objects(writer: &mut Writer, number: u8, case: &Case) -> Result<(), RigError> {
    let mut apply = |update| writer.apply(1, update);
    for (id, role) in [(LAN, PortRole::Protected), (WAN, PortRole::Internet)] {
        apply(Update::PutPort(PortSpec {
            id,
            interface: format!("port{}", id.0),
            role,
            vrf: VrfId::MAIN,
            xdp: XdpPreference::Auto,
            require_zero_copy: false,
            mpls: None,
        }))?;
    }
    let me = usize::from(number - 1);
    let (local, remote) = (OUTER[me], OUTER[1 - me]);
    apply(Update::PutLocalAddress(LocalAddress {
        vrf: VrfId::MAIN,
        address: local.into(),
        port: Some(WAN),
    }))?;
    for (port, address) in [(WAN, remote), (WAN, [198, 51, 100, 99]), (LAN, [10, 1, 0, 99])] {
        apply(Update::PutNeighbour(Neighbour {
            port,
            address: address.into(),
            state: NeighbourState::Resolved(neighbour_mac(port)),
        }))?;
    }
    let route = |prefix: IpPrefix, next_hop| {
        Update::PutRoute(RouteSpec {
            vrf: VrfId::MAIN,
            prefix,
            next_hops: vec![next_hop],
            weights: Vec::new(),
        })
    };
    let prefix = |address: [u8; 4], length| IpPrefix::new(address.into(), length);
    let via = |port, gateway: [u8; 4]| NextHop::Port {
        port,
        gateway: Some(gateway.into()),
    };
    let connected = NextHop::Port {
        port: WAN,
        gateway: None,
    };
    if let Ok(outer) = prefix([198, 51, 100, 0], 24) {
        apply(route(outer, connected))?;
    }
    // Where plain packets go: beyond the WAN for forwarding, and to the LAN for what comes out of tunnels.
    let (far_port, far_gateway) = if number == 1 {
        (WAN, [198, 51, 100, 99])
    } else {
        (LAN, [10, 1, 0, 99])
    };
    if let Ok(far) = prefix([10, 128, 0, 0], 9) {
        apply(route(far, via(far_port, far_gateway)))?;
    }
    let Some(algorithm) = case.algorithm else {
        return Ok(());
    };
    let transform = Transform::new(algorithm.encryption, algorithm.integrity)?;
    for index in 0..case.sas {
        let tunnel = TunnelId(index + 1);
        apply(Update::PutTunnel(tunnel_spec(tunnel, local, remote)))?;
        let spec = sa_spec(index, tunnel, transform, local, remote, number == 1);
        let name = spec.reference();
        apply(Update::InstallSa(spec))?;
        if number == 1 {
            apply(Update::SelectOutbound { tunnel, sa: name })?;
            apply(route(
                IpPrefix::host(far_address(index).into()),
                NextHop::Tunnel(tunnel),
            ))?;
        }
    }
    Ok(())
}

fn set_links(writer: &mut Writer) {
    for port in [LAN, WAN] {
        if let Some(slot) = writer.port_slot(port) {
            writer.set_port_link(
                slot,
                PortLink {
                    mtu_bytes: 1600,
                    mac: port_mac(port),
                    up: true,
                    vlan: None,
                },
            );
        }
    }
    writer.settle();
}

fn tunnel_spec(id: TunnelId, local: [u8; 4], remote: [u8; 4]) -> TunnelSpec {
    TunnelSpec {
        id,
        name: format!("tunnel-{}", id.0),
        mode: Mode::Tunnel,
        encapsulation: southbound::Encapsulation::Esp,
        protected: true,
        labels: None,
        inner_vrf: VrfId::MAIN,
        outer_vrf: VrfId::MAIN,
        local: local.into(),
        remote: remote.into(),
        dscp: DscpPolicy::Copy,
        ecn: EcnPolicy::Normal,
        df: DfPolicy::Copy,
        ttl: TtlPolicy::Set(64),
        inner_mtu_bytes: None,
        clamp_mss: true,
        per_worker: false,
    }
}

fn sa_spec(
    index: u32,
    tunnel: TunnelId,
    transform: Transform,
    local: [u8; 4],
    remote: [u8; 4],
    is_outbound: bool,
) -> SaSpec {
    let mut key: Vec<u8> = (0..transform.key_bytes()).map(|at| at as u8 ^ 0x5a).collect();
    // A key of its own for every SA, as in life: a worker finds it in no cache.
    for (byte, digit) in key.iter_mut().zip(index.to_be_bytes()) {
        *byte ^= digit;
    }
    let any = |text: [u8; 4], length| IpPrefix::new(text.into(), length).map(Endpoint::any_port);
    let selectors = match (any([10, 128, 0, 0], 9), any([10, 1, 0, 0], 16)) {
        (Ok(local), Ok(remote)) if !is_outbound => {
            vec![SelectorPair {
                local,
                remote,
                protocol: ProtocolMatch::Any,
            }]
        }
        _ => Vec::new(),
    };
    SaSpec {
        direction: if is_outbound {
            SaDirection::Outbound
        } else {
            SaDirection::Inbound
        },
        spi: 0x1_0000 + index,
        tunnel,
        mode: Mode::Tunnel,
        local: local.into(),
        remote: remote.into(),
        udp: None,
        transform,
        key: KeyMaterial::new(key),
        extended_sequence_numbers: true,
        replay_window: (!is_outbound).then_some(ReplayWindow::DEFAULT),
        selectors,
        lifetime: Lifetime::default(),
        last_sequence: 0,
    }
}
