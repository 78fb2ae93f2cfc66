//! Inbound SAs.

use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use esp_aead::{KeyError, OpenKey, Transform};
use southbound::{Lifetime, Mode, SaRef, SaSpec, UdpEncapsulation};

use super::{Crossing, EspSizes, ReplayState, Selectors, TunnelIndex, Usage, algorithm};
use crate::tables::publish::{Always, Guard, prefetch_front};

/// What of an inbound SA may change while it is used: what each packet needs first.
#[repr(C)]
#[derive(Debug)]
pub struct InboundTerms {
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address, as last told.
    pub remote: IpAddr,
    /// Ports, where ESP travels in UDP.
    pub udp: Option<UdpEncapsulation>,
    /// What may come out of it.
    pub selectors: Selectors,
    // What was last reported by `has_moved`.
    reported: AtomicU64,
    /// Its name.
    pub sa: SaRef,
    /// Cipher and integrity.
    pub transform: southbound::Transform,
    /// Limits of use.
    pub lifetime: Lifetime,
}

/// Cache lines of the terms that each packet needs, wherever the first one begins.
const TERMS_LINES: usize = 2;

const _: () = assert!(
    offset_of!(InboundTerms, selectors) + Selectors::FRONT_BYTES <= 64 * (TERMS_LINES - 1),
    "a packet needs no more of the terms than is prefetched"
);

impl InboundTerms {
    /// Those of `spec`.
    #[must_use]
    pub fn new(spec: &SaSpec) -> Self {
        Self {
            local: spec.local,
            remote: spec.remote,
            udp: spec.udp,
            selectors: Selectors::new(spec.selectors.clone()),
            reported: AtomicU64::new(0),
            sa: spec.reference(),
            transform: spec.transform,
            lifetime: spec.lifetime,
        }
    }

    /// Whether an authentic, fresh packet came from elsewhere than expected and nobody was told of that place
    /// yet: the caller raises [`southbound::Event::PeerMoved`].
    #[inline]
    #[must_use]
    pub fn has_moved(&self, address: IpAddr, port: Option<u16>) -> bool {
        if address == self.remote && port == self.udp.map(|udp| udp.remote_port) {
            return false;
        }
        let place = fingerprint(address, port);
        self.reported.swap(place, Ordering::Relaxed) != place
    }
}

fn fingerprint(address: IpAddr, port: Option<u16>) -> u64 {
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let port = port.map_or(0, |port| u64::from(port) + 1);
    ((bits >> 64) as u64).rotate_left(23) ^ (bits as u64) ^ port << 40 | 1
}

/// An inbound SA: what each packet needs in two cache lines, then the key.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct InboundSa {
    replay: ReplayState,
    usage: Usage,
    tunnel: TunnelIndex,
    spi: u32,
    sizes: EspSizes,
    transport_mode: bool,
    installed_seconds: u32,
    terms: Always<InboundTerms>,
    replay_drops: AtomicU64,
    integrity_failures: AtomicU64,
    selector_drops: AtomicU64,
    key: OpenKey,
}

const _: () = assert!(
    offset_of!(InboundSa, key) <= 128,
    "two cache lines before the key"
);

impl InboundSa {
    /// Installs `spec`, whose sizes and family were checked.
    ///
    /// # Errors
    /// [`KeyError`] where the key does not fit the transform.
    pub fn new(spec: &SaSpec, tunnel: TunnelIndex, now_seconds: u64) -> Result<Self, KeyError> {
        let transform = Transform::new(algorithm(spec.transform), spec.extended_sequence_numbers);
        Ok(Self {
            replay: ReplayState::new(spec.replay_window, spec.extended_sequence_numbers),
            usage: Usage::new(&spec.lifetime),
            tunnel,
            spi: spec.spi,
            sizes: EspSizes::of(spec.transform),
            transport_mode: spec.mode == Mode::Transport,
            installed_seconds: u32::try_from(now_seconds).unwrap_or(u32::MAX),
            terms: Always::new(InboundTerms::new(spec)),
            replay_drops: AtomicU64::new(0),
            integrity_failures: AtomicU64::new(0),
            selector_drops: AtomicU64::new(0),
            key: OpenKey::new(transform, spec.key.expose())?,
        })
    }

    /// The SPI.
    #[inline]
    #[must_use]
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// The tunnel whose traffic it carries.
    #[inline]
    #[must_use]
    pub fn tunnel(&self) -> TunnelIndex {
        self.tunnel
    }

    /// Tunnel or transport mode.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.transport_mode {
            Mode::Transport
        } else {
            Mode::Tunnel
        }
    }

    /// The sizes of its transform.
    #[inline]
    #[must_use]
    pub fn sizes(&self) -> EspSizes {
        self.sizes
    }

    /// The key to open with.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &OpenKey {
        &self.key
    }

    /// The anti-replay window.
    #[inline]
    #[must_use]
    pub fn replay(&self) -> &ReplayState {
        &self.replay
    }

    /// What may change while it is used.
    #[inline]
    #[must_use]
    pub fn terms<'g>(&'g self, guard: &'g Guard) -> &'g InboundTerms {
        self.terms.load(guard)
    }

    /// Starts to load what lies behind pointers: the terms, and the window's word for a number with these low bits. The
    /// object itself is there.
    #[inline]
    pub fn prefetch(&self, sequence_low: u32, guard: &Guard) {
        prefetch_front(self.terms(guard), TERMS_LINES);
        self.replay.prefetch(sequence_low);
    }

    /// Whether a hard limit stopped it.
    #[inline]
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.usage.is_expired()
    }

    /// What it has carried.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Counts a run of accepted packets; a limit that was crossed is told once.
    #[inline]
    #[must_use]
    pub fn account(&self, packets: u64, bytes: u64, now_seconds: u64, guard: &Guard) -> Option<Crossing> {
        if self.usage.add(packets, bytes) {
            self.look(now_seconds, guard)
        } else {
            None
        }
    }

    /// Compares use and age with the limits.
    #[must_use]
    pub fn look(&self, now_seconds: u64, guard: &Guard) -> Option<Crossing> {
        self.usage
            .look(&self.terms(guard).lifetime, self.age_seconds(now_seconds))
    }

    /// Seconds since installation.
    #[must_use]
    pub fn age_seconds(&self, now_seconds: u64) -> u64 {
        now_seconds.saturating_sub(u64::from(self.installed_seconds))
    }

    /// Counts packets refused by the window.
    pub fn count_replay_drops(&self, packets: u64) {
        self.replay_drops.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts packets whose ICV was wrong.
    pub fn count_integrity_failures(&self, packets: u64) {
        self.integrity_failures.fetch_add(packets, Ordering::Relaxed);
    }

    /// Counts packets outside the selectors.
    pub fn count_selector_drops(&self, packets: u64) {
        self.selector_drops.fetch_add(packets, Ordering::Relaxed);
    }

    /// Drops by window, ICV and selectors.
    #[must_use]
    pub fn failures(&self) -> [u64; 3] {
        [&self.replay_drops, &self.integrity_failures, &self.selector_drops]
            .map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Takes the changeable parts of `spec` over; tells whether the lifetime changed.
    pub(crate) fn amend(&self, spec: &SaSpec, guard: &Guard) -> bool {
        let lifetime_changed = self.terms(guard).lifetime != spec.lifetime;
        if lifetime_changed {
            self.usage.relax(&spec.lifetime);
        }
        self.terms.replace(InboundTerms::new(spec), guard);
        lifetime_changed
    }

    /// Bytes beside the object itself, as far as they are known.
    #[must_use]
    pub fn heap_bytes(&self, guard: &Guard) -> usize {
        let terms = self.terms(guard);
        self.replay.memory_bytes()
            + size_of::<InboundTerms>()
            + 2 * size_of::<usize>()
            + terms.selectors.memory_bytes()
            + self.key.memory_bytes()
            - size_of::<OpenKey>()
    }
}
