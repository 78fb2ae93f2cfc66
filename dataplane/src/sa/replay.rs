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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn state(width: u32, extended: bool) -> ReplayState {
        ReplayState::new(Some(ReplayWindow::new(width).unwrap()), extended)
    }

    /// A window that has accepted everything up to `top`.
    fn state_at(width: u32, top: u64) -> ReplayState {
        let state = state(width, true);
        state.top.store(top, Ordering::Relaxed);
        let block = top / NUMBERS_PER_WORD;
        for block in (block + 1).saturating_sub(state.words.len() as u64)..=block {
            let place = state.place(block * NUMBERS_PER_WORD);
            let after = (block + 1).saturating_mul(NUMBERS_PER_WORD) - 1;
            let seen = if after <= top {
                BITS
            } else {
                (1 << (top % NUMBERS_PER_WORD + 1)) - 1
            };
            state.words[place.word].store(tagged(place.lap) | seen, Ordering::Relaxed);
        }
        state
    }

    /// Everything accepted so far, remembered forever.
    struct Model {
        accepted: HashSet<u64>,
        start: u64,
        top: u64,
        width: u64,
    }

    impl Model {
        fn new(width: u32) -> Self {
            Self::at(width, 0)
        }

        fn at(width: u32, top: u64) -> Self {
            Self {
                accepted: HashSet::new(),
                start: top,
                top,
                width: u64::from(width),
            }
        }

        fn verdict(&self, number: u64) -> Result<(), Refusal> {
            if number == 0 || number <= self.top && self.top - number >= self.width {
                Err(Refusal::TooOld)
            } else if number <= self.start || self.accepted.contains(&number) {
                Err(Refusal::Replayed)
            } else {
                Ok(())
            }
        }

        fn commit(&mut self, number: u64) -> Result<(), Refusal> {
            self.verdict(number)?;
            self.accepted.insert(number);
            self.top = self.top.max(number);
            Ok(())
        }

        /// RFC 4303 appendix A2: of the candidates with these low bits, the least that is not left of the
        /// window.
        fn infer(&self, low: u32) -> Option<u64> {
            let bottom = i128::from(self.top) - i128::from(self.width) + 1;
            let mut candidate = i128::from(self.top >> 32 << 32) + i128::from(low) - (1 << 32);
            while candidate < bottom {
                candidate += 1 << 32;
            }
            u64::try_from(candidate).ok()
        }
    }

    fn agree(window: &ReplayState, model: &mut Model, number: u64) {
        assert_eq!(window.check(number), model.verdict(number), "check of {number}");
        assert_eq!(window.commit(number), model.commit(number), "commit of {number}");
        assert_eq!(window.top(), model.top);
    }

    #[test]
    fn fault_43_duplicates_edges_and_jumps_for_every_width() {
        for width in (6..=16).map(|log| 1u32 << log) {
            let (window, mut model) = (state(width, true), Model::new(width));
            let wide = u64::from(width);
            let mut base = 1;
            for jump in [
                0,
                1,
                47,
                48,
                49,
                wide - 1,
                wide,
                wide + 1,
                10 * wide,
                1 << 31,
                (1 << 32) - 1,
            ] {
                base += jump;
                let around = [base, base, base + 1, base + wide, base, base + 1, base + 2];
                for number in around {
                    agree(&window, &mut model, number);
                }
                for number in base.saturating_sub(2 * wide).max(1)..base {
                    if number < base - wide.min(base) + 100 || number % 97 == 0 {
                        agree(&window, &mut model, number);
                    }
                }
                base += wide;
            }
        }
    }

    #[test]
    fn fault_44_the_high_half_follows_across_the_wrap_and_the_end_of_all() {
        let window = state_at(64, 0xffff_ff00);
        for number in [0xffff_fff0u64, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005] {
            assert_eq!(window.infer(number as u32), Some(number));
            window.commit(number).unwrap();
        }
        // Late ones from before the wrap are still known as such.
        assert_eq!(window.infer(0xffff_fff1), Some(0xffff_fff1));
        assert_eq!(window.check(0xffff_fff0), Err(Refusal::Replayed));
        assert_eq!(
            state(64, true).infer(0xffff_fff1),
            None,
            "before the first number of all"
        );
        let window = state_at(64, u64::MAX - 3);
        window.commit(u64::MAX).unwrap();
        assert_eq!(window.infer(0), None, "beyond the last number of all");
        assert_eq!(window.commit(u64::MAX), Err(Refusal::Replayed));
    }

    #[test]
    fn a_number_beyond_all_inference_is_refused_at_once() {
        let window = state(64, true);
        assert_eq!(window.commit(u64::MAX), Err(Refusal::TooOld));
        assert_eq!(window.top(), 0);
    }

    #[test]
    fn number_zero_is_never_sent() {
        assert_eq!(state(64, false).commit(0), Err(Refusal::TooOld));
    }

    #[test]
    fn fault_45_a_check_moves_nothing() {
        let window = state(64, false);
        window.commit(5).unwrap();
        window.check(1_000_000).unwrap();
        assert_eq!(window.top(), 5);
        assert_eq!(window.check(1_000_000), Ok(()));
        assert_eq!(window.check(6), Ok(()));
    }

    #[test]
    fn fault_43_without_a_window_everything_passes() {
        let window = ReplayState::new(None, false);
        for number in [5, 5, 1, 0] {
            window.check(number).unwrap();
            window.commit(number).unwrap();
        }
        assert_eq!(window.top(), 5);
    }

    #[test]
    fn a_window_of_1024_takes_little_memory() {
        assert!(state(1024, true).memory_bytes() <= 192);
        assert!(size_of::<ReplayState>() <= 40);
    }

    #[test]
    fn fault_43_each_number_is_accepted_once_by_racing_threads() {
        let window = state(64, true);
        const LAST: u64 = 40_000;
        let accepted: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3u64)
                .map(|worker| {
                    let window = &window;
                    scope.spawn(move || {
                        (1..=LAST)
                            .map(|number| {
                                if worker == 2 {
                                    number.saturating_sub(number % 5)
                                } else {
                                    number
                                }
                            })
                            .filter(|number| window.commit(*number).is_ok())
                            .count() as u64
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!(accepted <= LAST, "{accepted} of {LAST} numbers");
        assert_eq!(window.commit(LAST), Err(Refusal::Replayed));
    }

    proptest! {
        #[test]
        fn fault_43_the_window_agrees_with_a_perfect_memory(
            log in 6u32..13,
            start in prop_oneof![Just(0u64), 0xffff_0000u64..0x1_0001_0000, (u64::MAX - (1 << 33))..(u64::MAX - (1 << 32))],
            moves in proptest::collection::vec(prop_oneof![
                8 => -200i64..200,
                4 => -9000i64..9000,
                1 => 0i64..1 << 25,
            ], 1..400),
        ) {
            let width = 1u32 << log;
            let (window, mut model) = (state_at(width, start), Model::at(width, start));
            let mut at = start;
            for step in moves {
                at = at.saturating_add_signed(step);
                prop_assert_eq!(window.check(at), model.verdict(at));
                prop_assert_eq!(window.commit(at), model.commit(at));
            }
        }

        #[test]
        fn a_batch_is_accepted_as_its_numbers_one_by_one(
            log in 6u32..13,
            start in prop_oneof![Just(0u64), 0xffff_0000u64..0x1_0001_0000, (u64::MAX - (1 << 33))..(u64::MAX - (1 << 32))],
            batches in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![20 => Just(1i64), 4 => -3i64..4, 2 => -300i64..300, 1 => 0i64..1 << 20], 0..65),
                1..20,
            ),
        ) {
            let width = 1u32 << log;
            let (window, mut model) = (state_at(width, start), Model::at(width, start));
            let mut at = start;
            for steps in batches {
                let numbers: Vec<u64> = steps.iter().map(|step| { at = at.saturating_add_signed(*step); at }).collect();
                let mut expected = Committed::default();
                for (bit, number) in numbers.iter().enumerate() {
                    match model.commit(*number) {
                        Ok(()) => expected.accepted |= 1 << bit,
                        Err(Refusal::Replayed) => expected.replayed |= 1 << bit,
                        Err(Refusal::TooOld) => {}
                    }
                }
                prop_assert_eq!(window.commit_all(&numbers), expected);
            }
        }

        #[test]
        fn fault_44_inference_agrees_with_the_rule(
            log in 6u32..17, top in prop_oneof![0u64..1 << 34, any::<u64>()], low in any::<u32>(), near in -70_000i64..70_000, take_near in any::<bool>(),
        ) {
            let width = 1u32 << log;
            let (window, model) = (state_at(width, top), Model::at(width, top));
            let low = if take_near { top.wrapping_add_signed(near) as u32 } else { low };
            prop_assert_eq!(window.infer(low), model.infer(low));
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
