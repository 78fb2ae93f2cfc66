//! SAs: installed once, amended while they live, never again under a key that was used.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use southbound::{Event, KeyMaterial, LifetimeKind, Rejection, SaDirection, SaRef, SaSpec};

use super::tunnels::ends_fit;
use super::{Writer, table_full};
use crate::sa::{InboundSa, OutboundSa, TunnelIndex};
use crate::tables::Tables;
use crate::tables::publish::{Full, Guard};
use crate::tables::sad::{Sad, SadWriter};

/// How many keys of removed SAs are remembered.
const REMEMBERED_KEYS: usize = 1 << 18;

/// What tells keys apart without keeping them: salted at each start, so of no use outside.
type Digest = u64;

/// What is kept of an SA beside the SA.
#[derive(Clone, Copy)]
pub(super) struct Record {
    generation: u64,
    digest: Digest,
    pub(super) tunnel: TunnelIndex,
    // The place in the arena, for outbound SAs.
    pub(super) place: u32,
    counter_mode: bool,
}

/// The SAs as the writer keeps them.
pub(super) struct Sas {
    inbound: SadWriter,
    // Inbound SPIs are unique whatever the destination.
    inbound_records: HashMap<u32, Record>,
    outbound_records: HashMap<(IpAddr, u32), Record>,
    // The name of the outbound SA of each key: an SA whose peer moved is known by its key again.
    outbound_by_key: HashMap<Digest, (IpAddr, u32)>,
    salt: RandomState,
    // Keys of counter modes that were ever installed; of removed SAs the latest only.
    used_keys: HashSet<(SaDirection, Digest)>,
    removed_keys: VecDeque<(SaDirection, Digest)>,
    deadlines: BinaryHeap<Reverse<(u64, SaRef)>>,
}

impl Sas {
    pub(super) fn new(sad: Arc<Sad>) -> Self {
        Self {
            inbound: SadWriter::new(sad),
            inbound_records: HashMap::new(),
            outbound_records: HashMap::new(),
            outbound_by_key: HashMap::new(),
            salt: RandomState::new(),
            used_keys: HashSet::new(),
            removed_keys: VecDeque::new(),
            deadlines: BinaryHeap::new(),
        }
    }

    /// Every SA that is older than `generation`.
    pub(super) fn older_than(&self, generation: u64) -> Vec<SaRef> {
        self.iter()
            .filter(|(_, record)| record.generation < generation)
            .map(|(name, _)| name)
            .collect()
    }

    /// The SAs of a tunnel.
    pub(super) fn of_tunnel(&self, tunnel: TunnelIndex) -> Vec<SaRef> {
        self.iter()
            .filter(|(_, record)| record.tunnel == tunnel)
            .map(|(name, _)| name)
            .collect()
    }

    /// Every SA; an inbound one under an unspecified destination, which does not count in its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SaRef, &Record)> {
        let inbound = self.inbound_records.iter().map(|(spi, record)| {
            let name = SaRef {
                direction: SaDirection::Inbound,
                spi: *spi,
                destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            };
            (name, record)
        });
        let outbound = self.outbound_records.iter().map(|((destination, spi), record)| {
            let name = SaRef {
                direction: SaDirection::Outbound,
                spi: *spi,
                destination: *destination,
            };
            (name, record)
        });
        inbound.chain(outbound)
    }

    fn get(&self, name: &SaRef) -> Option<Record> {
        match name.direction {
            SaDirection::Inbound => self.inbound_records.get(&name.spi).copied(),
            SaDirection::Outbound => self.outbound_records.get(&(name.destination, name.spi)).copied(),
        }
    }

    fn put(&mut self, name: &SaRef, record: Record) {
        match name.direction {
            SaDirection::Inbound => self.inbound_records.insert(name.spi, record),
            SaDirection::Outbound => {
                self.outbound_by_key
                    .insert(record.digest, (name.destination, name.spi));
                self.outbound_records.insert((name.destination, name.spi), record)
            }
        };
    }

    /// The outbound SA of this tunnel, SPI and key that stands under another destination.
    fn moved(&self, name: &SaRef, digest: Digest, tunnel: TunnelIndex) -> Option<SaRef> {
        let (destination, spi) = *self.outbound_by_key.get(&digest)?;
        let record = self.outbound_records.get(&(destination, spi))?;
        let is_it = name.direction == SaDirection::Outbound
            && spi == name.spi
            && destination != name.destination
            && record.tunnel == tunnel;
        is_it.then_some(SaRef { destination, ..*name })
    }

    fn len(&self) -> usize {
        self.inbound_records.len() + self.outbound_records.len()
    }

    /// Marks an SA as named by `generation`.
    pub(super) fn mark(&mut self, name: &SaRef, generation: u64) {
        if let Some(record) = self.get(name) {
            self.put(name, Record { generation, ..record });
        }
    }

    /// The place of an outbound SA of a tunnel.
    pub(super) fn outbound_of(&self, name: &SaRef, tunnel: TunnelIndex) -> Option<u32> {
        let record = self.get(name)?;
        (name.direction == SaDirection::Outbound && record.tunnel == tunnel).then_some(record.place)
    }

    /// The tunnel and the place of an outbound SA.
    pub(super) fn outbound(&self, name: &SaRef) -> Option<(TunnelIndex, u32)> {
        let record = self.get(name)?;
        (name.direction == SaDirection::Outbound).then_some((record.tunnel, record.place))
    }

    /// Takes an SA out of the tables; its tunnel no longer uses it.
    pub(super) fn forget(&mut self, tables: &Tables, name: &SaRef, guard: &Guard) {
        let record = match name.direction {
            SaDirection::Inbound => {
                self.inbound.remove(name.spi, guard);
                self.inbound_records.remove(&name.spi)
            }
            SaDirection::Outbound => self.outbound_records.remove(&(name.destination, name.spi)),
        };
        let Some(record) = record else {
            return;
        };
        if self.outbound_by_key.get(&record.digest) == Some(&(name.destination, name.spi)) {
            self.outbound_by_key.remove(&record.digest);
        }
        if name.direction == SaDirection::Outbound {
            tables.outbound.retire(record.place, guard);
        }
        if record.counter_mode {
            self.retire_key((name.direction, record.digest));
        }
    }

    fn retire_key(&mut self, key: (SaDirection, Digest)) {
        self.removed_keys.push_back(key);
        if self.removed_keys.len() > REMEMBERED_KEYS
            && let Some(oldest) = self.removed_keys.pop_front()
        {
            self.used_keys.remove(&oldest);
        }
    }

    fn digest(&self, spec: &SaSpec) -> Digest {
        let mut hasher = self.salt.build_hasher();
        spec.transform.hash(&mut hasher);
        KeyMaterial::expose(&spec.key).hash(&mut hasher);
        hasher.finish()
    }

    /// Raises what lifetimes in seconds have come to.
    pub(super) fn look_at_deadlines(
        &mut self,
        tables: &Tables,
        now_seconds: u64,
        events: &mut Vec<Event>,
        guard: &Guard,
    ) {
        while let Some(Reverse((seconds, _))) = self.deadlines.peek()
            && *seconds <= now_seconds
        {
            let Some(Reverse((_, name))) = self.deadlines.pop() else {
                return;
            };
            let crossing = match name.direction {
                SaDirection::Inbound => tables
                    .sad
                    .get(name.spi, guard)
                    .and_then(|sa| sa.look(now_seconds, guard)),
                SaDirection::Outbound => self
                    .get(&name)
                    .and_then(|record| tables.outbound.get(record.place, guard))
                    .and_then(|sa| sa.look(now_seconds, guard)),
            };
            if let Some(kind @ (LifetimeKind::Soft | LifetimeKind::Hard)) = crossing {
                events.push(Event::LifetimeReached { sa: name, kind });
            }
        }
    }

    /// Notes when somebody must look at the lifetime again.
    fn aim(&mut self, spec: &SaSpec, installed_seconds: u64) {
        let limits = [spec.lifetime.soft.seconds, spec.lifetime.hard.seconds];
        for seconds in limits.into_iter().flatten() {
            self.deadlines.push(Reverse((
                installed_seconds.saturating_add(seconds),
                spec.reference(),
            )));
        }
        // Of SAs that went or changed, deadlines stay behind until they come.
        if self.deadlines.len() > 4 * self.len() + 1024 {
            let mut deadlines: Vec<_> = std::mem::take(&mut self.deadlines).into_vec();
            deadlines.retain(|Reverse((_, name))| self.get(name).is_some());
            deadlines.sort_unstable();
            deadlines.dedup();
            self.deadlines = deadlines.into();
        }
    }
}

impl Writer {
    pub(super) fn install_sa(
        &mut self,
        generation: u64,
        spec: &SaSpec,
        guard: &Guard,
    ) -> Result<(), Rejection> {
        self.check_sa(spec)?;
        let name = spec.reference();
        let Some(tunnel) = self
            .tunnels
            .get(&spec.tunnel)
            .filter(|tunnel| tunnel.spec.is_some())
        else {
            return Err(Rejection::UnknownTunnel(spec.tunnel));
        };
        if !tunnel
            .spec
            .as_ref()
            .is_some_and(|tunnel| ends_fit(tunnel, spec.mode, spec.local, spec.remote))
        {
            return Err(Rejection::Inconsistent(format!(
                "{:?} mode from {} to {} does not fit tunnel {}",
                spec.mode, spec.local, spec.remote, spec.tunnel.0
            )));
        }
        let index = tunnel.index;
        let digest = self.sas.digest(spec);
        // An inbound SA is found by its SPI alone: under another destination it is the same one.
        if let Some(known) = self.sas.get(&name) {
            if known.digest != digest || known.tunnel != index {
                return Err(Rejection::SpiInUse(name));
            }
            self.sas.put(&name, Record { generation, ..known });
            self.amend_sa(known, spec, guard);
            return Ok(());
        }
        // The peer moved (RFC 4555): the same SA under another destination goes on with its sequence numbers.
        if let Some(before) = self.sas.moved(&name, digest, index)
            && let Some(known) = self
                .sas
                .outbound_records
                .remove(&(before.destination, before.spi))
        {
            self.sas.put(&name, Record { generation, ..known });
            if let Some(tunnel) = self.tunnels.get_mut(&spec.tunnel)
                && tunnel.selected == Some(before)
            {
                tunnel.selected = Some(name);
            }
            self.amend_sa(known, spec, guard);
            return Ok(());
        }
        let counter_mode = spec.transform.encryption().is_counter_mode();
        if counter_mode && self.sas.used_keys.contains(&(spec.direction, digest)) {
            return Err(Rejection::Inconsistent(
                "this key was installed before: its sequence numbers are spent (RFC 4106 section 9)"
                    .to_owned(),
            ));
        }
        let place = self.build_sa(spec, index, guard)?;
        let record = Record {
            generation,
            digest,
            tunnel: index,
            place,
            counter_mode,
        };
        self.sas.put(&name, record);
        if counter_mode {
            self.sas.used_keys.insert((spec.direction, digest));
        }
        self.sas.aim(spec, self.now_seconds);
        if let Some(tunnel) = self.tunnels.get_mut(&spec.tunnel) {
            tunnel.sas += 1;
        }
        Ok(())
    }

    /// An SA of an earlier control process stays.
    pub(super) fn keep_sa(&mut self, generation: u64, name: &SaRef) -> Result<(), Rejection> {
        self.sas.get(name).ok_or(Rejection::UnknownSa(*name))?;
        self.sas.mark(name, generation);
        Ok(())
    }

    pub(super) fn remove_sa(&mut self, name: &SaRef, guard: &Guard) -> bool {
        let Some(record) = self.sas.get(name) else {
            return false;
        };
        let tunnel = self
            .tables
            .tunnels
            .get(record.tunnel.0)
            .and_then(|slot| slot.load(guard));
        // A batch under way may still count on the SA; it is past its drain time, where there is any rekey.
        let totals = self.sa_totals(name, &record, guard);
        if let Some(tunnel) = tunnel
            && let Some(state) = self.tunnels.get_mut(&tunnel.id)
        {
            state.sas -= 1;
            state.retired += totals;
            if state.selected == Some(*name) {
                state.selected = None;
                // Before it is retired: no batch finds it after this.
                tunnel.select(None);
            }
            if name.direction == SaDirection::Outbound {
                tunnel.forget_for_workers(record.place);
            }
        }
        self.sas.forget(&self.tables, name, guard);
        true
    }

    fn check_sa(&self, spec: &SaSpec) -> Result<(), Rejection> {
        if spec.spi < 256 {
            return Err(Rejection::ReservedSpi(spec.spi));
        }
        let (given, expected) = (spec.key.len_bytes(), spec.transform.key_bytes());
        if given != expected {
            return Err(Rejection::KeyLength {
                given_bytes: u32::try_from(given).unwrap_or(u32::MAX),
                expected_bytes: u32::try_from(expected).unwrap_or(u32::MAX),
            });
        }
        if !spec.extended_sequence_numbers && spec.last_sequence > u64::from(u32::MAX) {
            return Err(Rejection::Inconsistent(format!(
                "sequence number {} without extended sequence numbers",
                spec.last_sequence
            )));
        }
        Ok(())
    }

    /// Puts the SA where workers find it.
    fn build_sa(&mut self, spec: &SaSpec, index: TunnelIndex, guard: &Guard) -> Result<u32, Rejection> {
        let limit = self.tables.limits.sas;
        let key_error = |error: esp_aead::KeyError| Rejection::Inconsistent(error.to_string());
        let full = |_: Full| table_full("SAs", limit);
        match spec.direction {
            SaDirection::Inbound => {
                if self.sas.inbound.len() >= limit {
                    return Err(full(Full));
                }
                let sa = InboundSa::new(spec, index, self.now_seconds).map_err(key_error)?;
                self.sas.inbound.insert(sa, guard).map_err(full)?;
                Ok(0)
            }
            SaDirection::Outbound => {
                if self.sas.outbound_records.len() >= limit {
                    return Err(full(Full));
                }
                let sa = OutboundSa::new(spec, index, self.now_seconds).map_err(key_error)?;
                self.tables.outbound.insert(sa).map_err(full)
            }
        }
    }

    /// The same key again: sequence numbers, window and counters go on.
    fn amend_sa(&mut self, known: Record, spec: &SaSpec, guard: &Guard) {
        let now = self.now_seconds;
        let (lifetime_changed, age_seconds) = match spec.direction {
            SaDirection::Inbound => match self.tables.sad.get(spec.spi, guard) {
                Some(sa) => (sa.amend(spec, guard), sa.age_seconds(now)),
                None => return,
            },
            SaDirection::Outbound => match self.tables.outbound.get(known.place, guard) {
                Some(sa) => (sa.amend(spec, guard), sa.age_seconds(now)),
                None => return,
            },
        };
        if lifetime_changed {
            self.sas.aim(spec, now.saturating_sub(age_seconds));
        }
    }
}
