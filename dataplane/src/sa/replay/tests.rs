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
