//! The inbound SAD: an SA by its SPI in two dependent cache misses, one for the entry and one for the SA.
//!
//! Entries are open-addressed words of SPI and place in the arena, so that one store publishes or removes
//! an SA. A table that fills up is copied into a larger one, which takes its place whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::publish::{Always, Arena, Full, Guard, prefetch};
use crate::sa::InboundSa;

/// Never an SPI's entry: SPIs below 256 are reserved (RFC 4303 section 2.1).
const EMPTY: u64 = 0;
const REMOVED: u64 = 1;

const LEAST_ENTRIES: usize = 64;

struct Entries {
    words: Box<[AtomicU64]>,
    shift: u32,
}

impl Entries {
    fn new(count: usize) -> Self {
        let count = count.next_power_of_two().max(LEAST_ENTRIES);
        Self {
            words: (0..count).map(|_| AtomicU64::new(EMPTY)).collect(),
            shift: 32 - count.trailing_zeros(),
        }
    }

    #[inline]
    fn start(&self, spi: u32) -> usize {
        (spi.wrapping_mul(0x9e37_79b1) >> self.shift) as usize
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[at & (self.words.len() - 1)]
    }

    /// The entry of `spi`.
    #[inline]
    fn find(&self, spi: u32) -> Option<(usize, u32)> {
        let start = self.start(spi);
        for at in start..start + self.words.len() {
            let word = self.word(at).load(Ordering::Acquire);
            if (word >> 32) as u32 == spi {
                return Some((at, word as u32));
            }
            if word == EMPTY {
                break;
            }
        }
        None
    }

    /// Puts an entry where `spi` has none; there is room. Returns whether a word was used that never was
    /// before.
    fn put(&self, spi: u32, place: u32) -> bool {
        let start = self.start(spi);
        for at in start..start + self.words.len() {
            let word = self.word(at).load(Ordering::Relaxed);
            if word == EMPTY || word == REMOVED {
                self.word(at)
                    .store(u64::from(spi) << 32 | u64::from(place), Ordering::Release);
                return word == EMPTY;
            }
        }
        unreachable!("the table is kept at most five eighths full")
    }
}

/// The inbound SAs as workers find them.
pub(crate) struct Sad {
    entries: Always<Entries>,
    sas: Arena<InboundSa>,
}

impl Sad {
    /// Room for `limit` SAs; memory is taken as they come.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: Always::new(Entries::new(LEAST_ENTRIES)),
            sas: Arena::new(limit),
        }
    }

    /// The SA of `spi`.
    #[inline]
    pub(crate) fn get<'g>(&'g self, spi: u32, guard: &'g Guard) -> Option<&'g InboundSa> {
        if spi < 256 {
            return None;
        }
        let (_, place) = self.entries.load(guard).find(spi)?;
        self.sas.get(place, guard)
    }

    /// Starts to load the entry of `spi`.
    #[inline]
    pub(crate) fn prefetch_entry(&self, spi: u32, guard: &Guard) {
        let entries = self.entries.load(guard);
        prefetch(entries.word(entries.start(spi)));
    }

    /// Starts to load the SA of `spi`, key and all.
    #[inline]
    pub(crate) fn prefetch_sa(&self, spi: u32, guard: &Guard) {
        if let Some((_, place)) = self.entries.load(guard).find(spi) {
            self.sas.prefetch(place, size_of::<InboundSa>() / 64);
        }
    }

    /// Bytes taken.
    pub(crate) fn memory_bytes(&self, guard: &Guard) -> usize {
        self.sas.memory_bytes() + size_of_val(&*self.entries.load(guard).words)
    }
}

/// The writer's side.
pub(crate) struct SadWriter {
    sad: Arc<Sad>,
    live: usize,
    // Words that are not empty: of SAs, and of removed ones.
    used: usize,
}

impl SadWriter {
    pub(crate) fn new(sad: Arc<Sad>) -> Self {
        Self {
            sad,
            live: 0,
            used: 0,
        }
    }

    /// Makes `sa` findable; its SPI has none yet.
    pub(crate) fn insert(&mut self, sa: InboundSa, guard: &Guard) -> Result<(), Full> {
        let spi = sa.spi();
        let capacity = self.sad.entries.load(guard).words.len();
        if (self.used + 1) * 8 > capacity * 5 {
            self.rebuild(guard);
        }
        let place = self.sad.sas.insert(sa)?;
        if self.sad.entries.load(guard).put(spi, place) {
            self.used += 1;
        }
        self.live += 1;
        Ok(())
    }

    /// Takes the SA of `spi` away; returns whether it was there.
    pub(crate) fn remove(&mut self, spi: u32, guard: &Guard) -> bool {
        let entries = self.sad.entries.load(guard);
        let Some((at, place)) = entries.find(spi) else {
            return false;
        };
        entries.word(at).store(REMOVED, Ordering::Release);
        self.sad.sas.retire(place, guard);
        self.live -= 1;
        true
    }

    /// How many SAs there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Copies what is live into a table of the right size, which takes the old one's place.
    fn rebuild(&mut self, guard: &Guard) {
        let old = self.sad.entries.load(guard);
        // At most half full after the copy even if it doubles by a quarter before the next look.
        let new = Entries::new((self.live + 1) * 8 / 3);
        for word in &old.words {
            let word = word.load(Ordering::Relaxed);
            if word != EMPTY && word != REMOVED {
                new.put((word >> 32) as u32, word as u32);
            }
        }
        self.used = self.live;
        self.sad.entries.replace(new, guard);
    }
}

#[cfg(test)]
mod tests {
    use southbound::{Lifetime, Mode, SaDirection, SaSpec, TunnelId};

    use super::*;
    use crate::sa::TunnelIndex;

    fn sa(spi: u32) -> InboundSa {
        let spec = SaSpec {
            direction: SaDirection::Inbound,
            spi,
            tunnel: TunnelId(1),
            mode: Mode::Tunnel,
            local: "192.0.2.1".parse().unwrap(),
            remote: "192.0.2.2".parse().unwrap(),
            udp: None,
            transform: "aes128gcm16".parse().unwrap(),
            key: southbound::KeyMaterial::new(vec![spi as u8; 20]),
            extended_sequence_numbers: true,
            replay_window: None,
            selectors: vec![],
            lifetime: Lifetime::default(),
            last_sequence: 0,
        };
        InboundSa::new(&spec, TunnelIndex(0), 0).unwrap()
    }

    #[test]
    fn churn_keeps_exactly_what_is_installed_and_the_table_small() {
        let sad = Arc::new(Sad::new(4096));
        let mut writer = SadWriter::new(Arc::clone(&sad));
        let mut guard = Guard::pin();
        for round in 0..40u32 {
            for number in 0..100 {
                writer.insert(sa(0x1000 + round * 100 + number), &guard).unwrap();
            }
            if round > 0 {
                for number in 0..100 {
                    assert!(writer.remove(0x1000 + (round - 1) * 100 + number, &guard));
                }
            }
            for spi in 0x1000..0x1000 + 4100 {
                let expected = (0x1000 + round * 100..0x1000 + round * 100 + 100).contains(&spi);
                let found = sad.get(spi, &guard).map(InboundSa::spi);
                assert_eq!(found, expected.then_some(spi), "round {round}");
            }
            guard.collect();
        }
        assert_eq!(writer.len(), 100);
        assert!(sad.entries.load(&guard).words.len() <= 1024);
        assert!(!writer.remove(0x1000, &guard));
    }

    #[test]
    fn fault_45_reserved_spis_are_never_found() {
        let sad = Sad::new(64);
        let guard = Guard::pin();
        for spi in 0..256 {
            assert!(sad.get(spi, &guard).is_none());
        }
    }

    #[test]
    fn a_full_table_says_so_and_goes_on() {
        let sad = Arc::new(Sad::new(256));
        let mut writer = SadWriter::new(Arc::clone(&sad));
        let guard = Guard::pin();
        for number in 0..256 {
            writer.insert(sa(0x1000 + number), &guard).unwrap();
        }
        assert_eq!(writer.insert(sa(0x9000), &guard), Err(Full));
        assert!(sad.get(0x9000, &guard).is_none());
        assert_eq!(writer.len(), 256);
    }
}
