//! Tunnels as workers see them: rules for the outer header, the SA in use, the way out.

use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use southbound::{
    DfPolicy, DscpPolicy, EcnPolicy, Encapsulation, LabelSpaceId, Mode, TtlPolicy, TunnelId, TunnelSpec,
};

use super::path_mtu::{FLOOR_V4_BYTES, FLOOR_V6_BYTES, PathMtu};
use super::worker_slots::WorkerSlots;
use crate::tables::{AdjacencyIndex, VrfIndex};

/// A tunnel's number, dense and stable while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelIndex(pub(crate) u32);

impl TunnelIndex {
    /// A number of one's own choice, where there are no tables.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn for_tests(number: u32) -> Self {
        Self(number)
    }

    /// The number itself, for keeping things by tunnel.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

const NO_SA: u32 = u32::MAX;

/// How soon a tunnel without an SA may ask again.
const ACQUIRE_INTERVAL_MS: u64 = 5_000;

/// A tunnel: what each packet needs first.
#[repr(C)]
#[derive(Debug)]
pub struct Tunnel {
    // The SA in use: a place in the arena of outbound SAs.
    outbound: AtomicU32,
    // Those of single workers, which come before it.
    worker_slots: WorkerSlots,
    egress: AtomicU32,
    /// The table that decapsulated packets are routed in.
    pub inner_vrf: VrfIndex,
    /// The table that ESP packets are routed in.
    pub outer_vrf: VrfIndex,
    path_mtu: PathMtu,
    egress_mtu_bytes: AtomicU16,
    // Of outer packets that may be fragmented.
    identification: AtomicU16,
    /// What its packets stand in, besides ESP.
    pub encapsulation: Encapsulation,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// Whether its packets are sealed by an SA.
    pub protected: bool,
    /// Whether the MSS of TCP SYNs is lowered to what fits.
    pub clamp_mss: bool,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// ECN on both ways.
    pub ecn: EcnPolicy,
    /// Outer don't-fragment.
    pub df: DfPolicy,
    /// Outer TTL or hop limit.
    pub ttl: TtlPolicy,
    /// Whether each worker that sends asks for an SA of its own.
    pub per_worker: bool,
    /// Largest inner packet, where the operator fixed it.
    pub fixed_inner_mtu_bytes: Option<u16>,
    /// The space of labels that come out of it.
    pub labels: Option<LabelSpaceId>,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// Our outer address.
    pub local: IpAddr,
    /// Its number.
    pub index: TunnelIndex,
    // The next moment at which an acquire may be raised.
    acquire_again_ms: AtomicU64,
    /// Its name in updates.
    pub id: TunnelId,
}

/// Cache lines of a tunnel that each packet needs, wherever the first one begins.
pub(crate) const TUNNEL_LINES: usize = 3;

const _: () = assert!(
    offset_of!(Tunnel, remote) <= 64 * (TUNNEL_LINES - 1),
    "a packet needs no more of a tunnel than is prefetched"
);

impl Tunnel {
    /// A tunnel that has no SA and no way out yet.
    #[must_use]
    pub fn new(spec: &TunnelSpec, index: TunnelIndex, inner_vrf: VrfIndex, outer_vrf: VrfIndex) -> Self {
        Self {
            outbound: AtomicU32::new(NO_SA),
            worker_slots: WorkerSlots::default(),
            egress: AtomicU32::new(AdjacencyIndex::NO_ROUTE.to_bits()),
            egress_mtu_bytes: AtomicU16::new(FLOOR_V6_BYTES),
            path_mtu: PathMtu::default(),
            acquire_again_ms: AtomicU64::new(0),
            identification: AtomicU16::new(0),
            index,
            id: spec.id,
            inner_vrf,
            outer_vrf,
            mode: spec.mode,
            encapsulation: spec.encapsulation,
            protected: spec.protected || spec.encapsulation == Encapsulation::Esp,
            labels: spec.labels.filter(|_| spec.encapsulation != Encapsulation::Esp),
            dscp: spec.dscp,
            ecn: spec.ecn,
            df: spec.df,
            ttl: spec.ttl,
            clamp_mss: spec.clamp_mss,
            per_worker: spec.per_worker,
            fixed_inner_mtu_bytes: spec.inner_mtu_bytes,
            local: spec.local,
            remote: spec.remote,
        }
    }

    /// The same tunnel under changed rules: SA, way out and what was learned go on.
    #[must_use]
    pub(crate) fn succeeding(self, before: &Self) -> Self {
        let path_mtu = if self.remote == before.remote && self.local == before.local {
            before.path_mtu.carry_over()
        } else {
            PathMtu::default()
        };
        Self {
            outbound: AtomicU32::new(before.outbound.load(Ordering::Relaxed)),
            worker_slots: before.worker_slots.carry_over(),
            egress: AtomicU32::new(before.egress.load(Ordering::Relaxed)),
            egress_mtu_bytes: AtomicU16::new(before.egress_mtu_bytes.load(Ordering::Relaxed)),
            path_mtu,
            acquire_again_ms: AtomicU64::new(before.acquire_again_ms.load(Ordering::Relaxed)),
            identification: AtomicU16::new(before.identification.load(Ordering::Relaxed)),
            ..self
        }
    }

    /// An identification for an outer IPv4 packet, another one each time.
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.identification.fetch_add(1, Ordering::Relaxed)
    }

    /// Where outer packets leave; never a midchain back into this tunnel, which is
    /// [`AdjacencyIndex::TUNNEL_LOOP`] instead.
    #[inline]
    #[must_use]
    pub fn egress(&self) -> AdjacencyIndex {
        AdjacencyIndex::from_bits(self.egress.load(Ordering::Acquire))
    }

    /// Largest outer packet in bytes: of the egress port, or less where the path told so.
    #[inline]
    #[must_use]
    pub fn outer_mtu_bytes(&self, now_seconds: u64) -> u16 {
        let egress_bytes = self.egress_mtu_bytes.load(Ordering::Relaxed);
        match self.path_mtu.get(now_seconds) {
            Some(learned_bytes) => learned_bytes.min(egress_bytes),
            None => egress_bytes,
        }
    }

    /// Bytes of the headers that stand before its packets besides ESP's.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> u16 {
        let header_bytes = match self.encapsulation {
            Encapsulation::Esp => return 0,
            Encapsulation::Ip => 0,
            Encapsulation::Gre { key, checksum } => 4 + 4 * (u16::from(key.is_some()) + u16::from(checksum)),
            Encapsulation::Udp => 8,
        };
        header_bytes + if self.remote.is_ipv6() { 40 } else { 20 }
    }

    /// Largest inner packet in bytes, labels included, given what the SA in use lets through an outer packet of a size;
    /// without an SA for a tunnel that is not protected.
    #[inline]
    #[must_use]
    pub fn inner_mtu_bytes(&self, sa: Option<&super::OutboundSa>, now_seconds: u64) -> u16 {
        let outer_bytes = self.outer_mtu_bytes(now_seconds);
        let sealed_bytes = sa.map_or(outer_bytes, |sa| sa.inner_mtu_bytes(outer_bytes));
        let derived_bytes = sealed_bytes.saturating_sub(self.header_bytes());
        match self.fixed_inner_mtu_bytes {
            Some(fixed_bytes) => fixed_bytes.min(derived_bytes),
            None => derived_bytes,
        }
    }

    /// Takes an authenticated ICMP error about an outer packet of `sent_bytes` (RFC 1191, RFC 8201);
    /// `claimed_bytes` is 0 where the router names no value. Returns the new outer MTU where it changed: the
    /// caller raises [`southbound::Event::PathMtuChanged`].
    pub fn learn_path_mtu(&self, claimed_bytes: u16, sent_bytes: u16, now_seconds: u64) -> Option<u16> {
        let current_bytes = self.outer_mtu_bytes(now_seconds);
        self.path_mtu.learn(
            self.remote.is_ipv6(),
            claimed_bytes,
            sent_bytes,
            current_bytes,
            now_seconds,
        )
    }

    /// Whether the caller should raise [`southbound::Event::Acquire`]: once, and again only after a while or
    /// after the SA went.
    #[must_use]
    pub fn should_acquire(&self, now_ms: u64) -> bool {
        let again_ms = self.acquire_again_ms.load(Ordering::Relaxed);
        now_ms >= again_ms
            && self
                .acquire_again_ms
                .compare_exchange(
                    again_ms,
                    now_ms + ACQUIRE_INTERVAL_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Whether the caller should raise [`southbound::Event::WorkerAcquire`] for `worker`, which sends: the tunnel wants
    /// an SA for each, it has none of its own, and did not ask lately.
    #[inline]
    #[must_use]
    pub fn should_acquire_for(&self, worker: u16, now_ms: u64) -> bool {
        self.per_worker
            && self.worker_slots.place(worker).is_none()
            && self.worker_slots.should_acquire(worker, now_ms)
    }

    /// The place of the SA that `worker` uses: its own, or else that of all.
    #[inline]
    pub(crate) fn outbound_place(&self, worker: u16) -> Option<u32> {
        if let Some(place) = self.worker_slots.place(worker) {
            return Some(place);
        }
        let place = self.outbound.load(Ordering::Acquire);
        (place != NO_SA).then_some(place)
    }

    /// The worker whose own SA is at `place`.
    pub(crate) fn worker_of(&self, place: u32) -> Option<u16> {
        self.worker_slots.worker_of(place)
    }

    /// Gives one worker an SA of its own.
    pub(crate) fn select_for(&self, worker: u16, place: u32) {
        self.worker_slots.select(worker, place);
    }

    /// No worker has the SA at `place` for its own any more.
    pub(crate) fn forget_for_workers(&self, place: u32) {
        self.worker_slots.forget(place);
    }

    /// Lets `worker` go on with the SA of all; false where it did so before.
    pub(crate) fn leave_own(&self, worker: u16) -> bool {
        let place = self.worker_slots.place(worker);
        place.inspect(|place| self.worker_slots.forget(*place)).is_some()
    }

    /// Switches to another SA: one store, seen by the next batch.
    pub(crate) fn select(&self, place: Option<u32>) {
        if place.is_none() {
            self.acquire_again_ms.store(0, Ordering::Relaxed);
        }
        self.outbound.store(place.unwrap_or(NO_SA), Ordering::Release);
    }

    /// Tells the way out and its MTU.
    pub(crate) fn set_egress(&self, egress: AdjacencyIndex, mtu_bytes: Option<u16>) {
        let floor_bytes = if self.remote.is_ipv6() {
            FLOOR_V6_BYTES
        } else {
            FLOOR_V4_BYTES
        };
        self.egress_mtu_bytes
            .store(mtu_bytes.unwrap_or(1500).max(floor_bytes), Ordering::Relaxed);
        self.egress.store(egress.to_bits(), Ordering::Release);
    }
}
