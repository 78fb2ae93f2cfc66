//! Outbound SAs.

use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use esp_aead::{ESP_HEADER_BYTES, KeyError, SealKey, Transform};
use southbound::{Lifetime, Mode, SaRef, SaSpec};

use super::{Crossing, EspSizes, OuterTemplate, Run, SequenceNumbers, TunnelIndex, Usage, algorithm};
use crate::tables::publish::{Always, Guard, prefetch};

/// Pad length and next header (RFC 4303 section 2).
const TRAILER_BYTES: u16 = 2;

const IPV6: u8 = 1;
const UDP: u8 = 2;

fn outer(spec: &SaSpec) -> u8 {
    (u8::from(spec.local.is_ipv6()) * IPV6) | (u8::from(spec.udp.is_some()) * UDP)
}

/// What of an outbound SA may change while it is used.
#[derive(Debug)]
pub struct OutboundTerms {
    /// Its name.
    pub sa: SaRef,
    /// The headers before each packet.
    pub template: OuterTemplate,
    /// Limits of use.
    pub lifetime: Lifetime,
    /// Cipher and integrity.
    pub transform: southbound::Transform,
}

impl OutboundTerms {
    /// Those of `spec`.
    #[must_use]
    pub fn new(spec: &SaSpec) -> Self {
        Self {
            sa: spec.reference(),
            template: OuterTemplate::new(spec),
            lifetime: spec.lifetime,
            transform: spec.transform,
        }
    }
}

/// An outbound SA: what each run of packets needs in two cache lines, then the key.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct OutboundSa {
    sequence: SequenceNumbers,
    usage: Usage,
    terms: Always<OutboundTerms>,
    tunnel: TunnelIndex,
    spi: u32,
    installed_seconds: u32,
    sizes: EspSizes,
    transport_mode: bool,
    // IPV6 and UDP, for sizes.
    outer: AtomicU8,
    near_end_raised: AtomicBool,
    key: SealKey,
}

const _: () = assert!(
    offset_of!(OutboundSa, key) <= 128,
    "two cache lines before the key"
);

impl OutboundSa {
    /// Installs `spec`, whose sizes and family were checked.
    ///
    /// # Errors
    /// [`KeyError`] where the key does not fit the transform.
    pub fn new(spec: &SaSpec, tunnel: TunnelIndex, now_seconds: u64) -> Result<Self, KeyError> {
        let transform = Transform::new(algorithm(spec.transform), spec.extended_sequence_numbers);
        Ok(Self {
            sequence: SequenceNumbers::new(spec.last_sequence, spec.extended_sequence_numbers),
            usage: Usage::new(&spec.lifetime),
            terms: Always::new(OutboundTerms::new(spec)),
            tunnel,
            spi: spec.spi,
            installed_seconds: u32::try_from(now_seconds).unwrap_or(u32::MAX),
            sizes: EspSizes::of(spec.transform),
            transport_mode: spec.mode == Mode::Transport,
            outer: AtomicU8::new(outer(spec)),
            near_end_raised: AtomicBool::new(false),
            key: SealKey::new(transform, spec.key.expose())?,
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

    /// The key to seal with.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &SealKey {
        &self.key
    }

    /// Its name and the headers before each packet.
    #[inline]
    #[must_use]
    pub fn terms<'g>(&'g self, guard: &'g Guard) -> &'g OutboundTerms {
        self.terms.load(guard)
    }

    /// Starts to load the terms, which lie behind a pointer. The object itself is there.
    #[inline]
    pub fn prefetch_terms(&self, guard: &Guard) {
        prefetch(&self.terms(guard).template);
    }

    /// Takes up to `count` sequence numbers, once for each batch.
    #[inline]
    pub fn reserve(&self, count: u32) -> Run {
        self.sequence.reserve(count)
    }

    /// The counter itself.
    #[must_use]
    pub fn sequence(&self) -> &SequenceNumbers {
        &self.sequence
    }

    /// How many numbers are left, told once when they become few: the caller raises
    /// [`southbound::Event::SequenceNearEnd`].
    #[inline]
    #[must_use]
    pub fn near_end(&self) -> Option<u64> {
        if !self.sequence.is_near_end() || self.near_end_raised.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(self.sequence.remaining())
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

    /// Counts a run of sealed packets; a limit that was crossed is told once.
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

    /// The largest packet that fits when the outer packet may have `outer_bytes`: in tunnel mode the inner
    /// packet, in transport mode the packet before ESP, IP header without options included.
    #[inline]
    #[must_use]
    pub fn inner_mtu_bytes(&self, outer_bytes: u16) -> u16 {
        let outer = self.outer.load(Ordering::Relaxed);
        let ip_bytes: u16 = if outer & IPV6 != 0 { 40 } else { 20 };
        let udp_bytes: u16 = if outer & UDP != 0 { 8 } else { 0 };
        let overhead_bytes = ip_bytes
            + udp_bytes
            + ESP_HEADER_BYTES as u16
            + u16::from(self.sizes.iv_bytes)
            + u16::from(self.sizes.icv_bytes);
        let text_bytes =
            outer_bytes.saturating_sub(overhead_bytes) & !(u16::from(self.sizes.align_bytes) - 1);
        let payload_bytes = text_bytes.saturating_sub(TRAILER_BYTES);
        if self.transport_mode {
            payload_bytes + ip_bytes
        } else {
            payload_bytes
        }
    }

    /// Whether the outer packet is IPv6.
    #[inline]
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.outer.load(Ordering::Relaxed) & IPV6 != 0
    }

    /// Takes the changeable parts of `spec` over; tells whether the lifetime changed.
    pub(crate) fn amend(&self, spec: &SaSpec, guard: &Guard) -> bool {
        let lifetime_changed = self.terms(guard).lifetime != spec.lifetime;
        if lifetime_changed {
            self.usage.relax(&spec.lifetime);
        }
        self.outer.store(outer(spec), Ordering::Relaxed);
        self.terms.replace(OutboundTerms::new(spec), guard);
        lifetime_changed
    }

    /// The peer's address of the name.
    #[must_use]
    pub fn destination(&self, guard: &Guard) -> IpAddr {
        self.terms(guard).sa.destination
    }

    /// Bytes beside the object itself, as far as they are known.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of::<OutboundTerms>() + 2 * size_of::<usize>() + self.key.memory_bytes() - size_of::<SealKey>()
    }
}
