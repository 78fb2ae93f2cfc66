//! The anti-replay window of an inbound SA (RFC 4303 section 3.4.3) and the inference of the high half of
//! extended sequence numbers (RFC 4303 appendix A2), correct under any number of workers.
//!
//! The window is a ring of words as in RFC 6479. Each word names the lap it belongs to, so that a worker
//! which brings in a new lap clears the word and sets its own bit by one exchange, and nobody has to wait
//! for a neighbour's clearing:
//!
//! ```text
//!  63        48 47                                   0
//! +------------+--------------------------------------+
//! | lap mod 2^16 | a bit for each of 48 numbers        |   number = (lap * words + place) * 48 + bit
//! +------------+--------------------------------------+
//! ```
//!
//! `top` is raised before the word is touched; whoever looks at a word looks at `top` after it. So a word
//! is never more than one lap ahead of a number that is still in the window, and because jumps are taken
//! in steps and every skipped word is brought along, never 2^15 laps behind: the lap's 16 bits suffice.

use crate::sync::{AtomicU64, Ordering};

use southbound::ReplayWindow;

/// Why a sequence number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was accepted before.
    Replayed,
    /// It lies left of the window.
    TooOld,
}

/// What became of a batch's numbers: a bit for each, the first one lowest. Those of neither kind were too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Accepted.
    pub accepted: u64,
    /// Accepted before.
    pub replayed: u64,
}

const NUMBERS_PER_WORD: u64 = 48;
const BITS: u64 = (1 << NUMBERS_PER_WORD) - 1;

/// Farther ahead of `top` than any number that [`ReplayState::infer`] gives.
const BEYOND: u64 = 1 << 33;

/// Most laps that `top` moves in one step; far below the 2^15 at which laps would be mistaken.
const STEP_LAPS: u64 = 1 << 13;

/// Where a sequence number is kept.
#[derive(Clone, Copy)]
struct Place {
    word: usize,
    lap: u64,
    bit: u64,
}

/// The window of one inbound SA.
#[derive(Debug)]
pub struct ReplayState {
    // The highest number accepted.
    top: AtomicU64,
    // Enough words for any `width` consecutive numbers; empty where anti-replay is off.
    words: Box<[AtomicU64]>,
    // 2^64 / words, rounded up: division by multiplication.
    reciprocal: u64,
    width: u32,
    extended: bool,
}

impl ReplayState {
    /// An empty window; `None` accepts every number.
    #[must_use]
    pub fn new(window: Option<ReplayWindow>, extended: bool) -> Self {
        let width = window.map_or(0, ReplayWindow::packets);
        let words = match u64::from(width) {
            0 => 0,
            // `width` consecutive numbers touch at most this many words.
            width => (width - 1).div_ceil(NUMBERS_PER_WORD) + 1,
        };
        Self {
            top: AtomicU64::new(0),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            reciprocal: u64::MAX.checked_div(words).map_or(0, |quotient| quotient + 1),
            width,
            extended,
        }
    }

    /// The whole sequence number of a packet that carries `low` (RFC 4303 appendix A2.2), before the ICV can
    /// be checked. `None` where it would lie before the first number of all.
    #[inline]
    #[must_use]
    pub fn infer(&self, low: u32) -> Option<u64> {
        if !self.extended {
            return Some(u64::from(low));
        }
        let top = self.top.load(Ordering::Relaxed);
        // Without a window there is no left edge: the nearest candidate is taken.
        let width = if self.width == 0 { 1 << 31 } else { self.width };
        let (high, top_low) = (top >> 32, top as u32);
        let bottom = top_low.wrapping_sub(width - 1);
        let high = if top_low >= width - 1 {
            // The window lies in one subspace: what is left of it belongs to the next.
            high + u64::from(low < bottom)
        } else if low >= bottom {
            // The window reaches into the subspace before.
            high.checked_sub(1)?
        } else {
            high
        };
        (high <= u64::from(u32::MAX)).then_some(high << 32 | u64::from(low))
    }

    /// Starts to load the word of the number that a packet with `low` has.
    #[inline]
    pub fn prefetch(&self, low: u32) {
        if let (Some(number), false) = (self.infer(low), self.words.is_empty()) {
            crate::tables::publish::prefetch(&self.words[self.place(number).word]);
        }
    }

    /// Whether `number` could be accepted; changes nothing, and is asked before the ICV is checked.
    ///
    /// # Errors
    /// [`Refusal`].
    #[inline]
    pub fn check(&self, number: u64) -> Result<(), Refusal> {
        // Ahead of the window, as most are: only `commit` can say more.
        if number > self.top.load(Ordering::Relaxed) || self.words.is_empty() {
            return Ok(());
        }
        let place = self.place(number);
        let word = self.words[place.word].load(Ordering::Acquire);
        let top = self.top.load(Ordering::Relaxed);
        if number > top {
            return Ok(());
        }
        if number == 0 || top - number >= u64::from(self.width) {
            return Err(Refusal::TooOld);
        }
        match laps_behind(word, place.lap) {
            0 if word & place.bit != 0 => Err(Refusal::Replayed),
            0.. => Ok(()),
            _ => Err(Refusal::TooOld),
        }
    }

    /// Accepts `number`, exactly once among all workers; only after its ICV was found right.
    ///
    /// # Errors
    /// [`Refusal`] where another worker accepted it, or the window went on, since [`Self::check`]; also for a
    /// number that [`Self::infer`] cannot have given.
    #[inline]
    pub fn commit(&self, number: u64) -> Result<(), Refusal> {
        if self.words.is_empty() {
            self.top.fetch_max(number, Ordering::Relaxed);
            return Ok(());
        }
        if number == 0 || number.saturating_sub(self.top()) > BEYOND {
            return Err(Refusal::TooOld);
        }
        self.advance(number);
        let place = self.place(number);
        self.set(number, place, place.bit)
    }

    /// [`Self::commit`] for the numbers of a batch, at most 64, in this order; numbers of one word that follow each other
    /// cost one exchange together.
    #[inline]
    pub fn commit_all(&self, numbers: &[u64]) -> Committed {
        let mut committed = Committed::default();
        let mut at = 0;
        while let Some(&first) = numbers.get(at) {
            let start = first - first % NUMBERS_PER_WORD;
            let (mut least, mut most, mut bits, mut count) = (first, first, 0, 0);
            for &number in &numbers[at..] {
                let offset = number.wrapping_sub(start);
                if offset >= NUMBERS_PER_WORD || bits & (1 << offset) != 0 {
                    break;
                }
                let bit = 1 << offset;
                (least, most) = (least.min(number), most.max(number));
                bits |= bit;
                count += 1;
            }
            if self.commit_word(least, most, bits) {
                committed.accepted |= (u64::MAX >> (64 - count)) << at;
            } else {
                for (place, &number) in numbers[at..].iter().take(count).enumerate() {
                    let bit = 1 << (at + place);
                    match self.commit(number) {
                        Ok(()) => committed.accepted |= bit,
                        Err(Refusal::Replayed) => committed.replayed |= bit,
                        Err(Refusal::TooOld) => {}
                    }
                }
            }
            at += count;
        }
        committed
    }

    /// Accepts all of several numbers of one word, or none.
    #[inline]
    fn commit_word(&self, least: u64, most: u64, bits: u64) -> bool {
        if self.words.is_empty() || least == 0 || most.saturating_sub(self.top()) > BEYOND {
            return false;
        }
        // They are closer to each other than any window is wide, so that none gets too old by another.
        self.advance(most);
        self.set(least, self.place(least), bits).is_ok()
    }

    /// Sets the bits of numbers in one word, `least` being the least of them, where none of them is set and none too old.
    #[inline]
    fn set(&self, least: u64, place: Place, bits: u64) -> Result<(), Refusal> {
        let cell = &self.words[place.word];
        let mut word = cell.load(Ordering::Acquire);
        loop {
            // After the word, so that the word's lap is at most that of this `top`.
            if self.top.load(Ordering::Relaxed) - least >= u64::from(self.width) {
                return Err(Refusal::TooOld);
            }
            let new = match laps_behind(word, place.lap) {
                0 if word & bits != 0 => return Err(Refusal::Replayed),
                0 => word | bits,
                1.. => tagged(place.lap) | bits,
                _ => return Err(Refusal::TooOld),
            };
            match cell.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(other) => word = other,
            }
        }
    }

    /// The highest number accepted.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top.load(Ordering::Relaxed)
    }

    /// Numbers after the highest one accepted that the peer can still send.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        let limit = if self.extended {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        limit.saturating_sub(self.top())
    }

    /// Bytes of the window itself.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.words.len() * size_of::<AtomicU64>()
    }

    /// Raises `top` to at least `number`, and brings the words between along.
    fn advance(&self, number: u64) {
        let numbers_per_lap = self.words.len() as u64 * NUMBERS_PER_WORD;
        let mut top = self.top.load(Ordering::Relaxed);
        while top < number {
            let next = number.min(top.saturating_add(STEP_LAPS * numbers_per_lap));
            match self
                .top
                .compare_exchange_weak(top, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    let last = next / NUMBERS_PER_WORD;
                    // The word of `number` itself is the business of `commit`.
                    let end = if next == number { last } else { last + 1 };
                    let first =
                        (top / NUMBERS_PER_WORD + 1).max((last + 1).saturating_sub(self.words.len() as u64));
                    for block in first..end {
                        self.bring_along(block);
                    }
                    top = next;
                }
                Err(other) => top = other,
            }
        }
    }

    /// Clears the word of `block` where it still belongs to an earlier lap.
    fn bring_along(&self, block: u64) {
        let place = self.place(block * NUMBERS_PER_WORD);
        let cell = &self.words[place.word];
        let mut word = cell.load(Ordering::Acquire);
        loop {
            let top_block = self.top.load(Ordering::Relaxed) / NUMBERS_PER_WORD;
            if top_block - block >= self.words.len() as u64 || laps_behind(word, place.lap) <= 0 {
                return;
            }
            match cell.compare_exchange_weak(word, tagged(place.lap), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    #[inline]
    fn place(&self, number: u64) -> Place {
        let words = self.words.len() as u64;
        let block = number / NUMBERS_PER_WORD;
        // The reciprocal is rounded up, so the quotient is right or one too high.
        let mut lap = ((u128::from(block) * u128::from(self.reciprocal)) >> 64) as u64;
        let mut word = block.wrapping_sub(lap.wrapping_mul(words));
        if word >= words {
            lap = lap.wrapping_sub(1);
            word = word.wrapping_add(words);
        }
        Place {
            word: word as usize,
            lap,
            bit: 1 << (number % NUMBERS_PER_WORD),
        }
    }
}

#[inline]
fn tagged(lap: u64) -> u64 {
    lap << NUMBERS_PER_WORD
}

/// How many laps `word` is behind `lap`; negative where it is ahead.
#[inline]
fn laps_behind(word: u64, lap: u64) -> i16 {
    (lap as u16).wrapping_sub((word >> NUMBERS_PER_WORD) as u16) as i16
}

const _: () = assert!(BITS.count_ones() as u64 == NUMBERS_PER_WORD);

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
