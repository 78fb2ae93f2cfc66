//! The search for the highest rate whose loss a goal allows: MLRsearch, reduced to what is needed here.
//!
//! A load is tried again and again until the trials so far decide it: a *lower bound* is a load that would meet
//! the goal even if every trial still missing were bad, an *upper bound* one that would fail it even if they were
//! all good. The interval between the highest lower and the lowest upper bound is halved until it is narrow.

use std::io;

use serde::Serialize;

/// What a load must keep.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Goal {
    /// A trial is bad above this ratio of frames lost.
    pub loss_ratio: f64,
    /// Seconds of each trial.
    pub trial_seconds: f64,
    /// Seconds of trials that decide a load.
    pub sum_seconds: f64,
    /// Share of bad trials that is allowed.
    pub exceed_ratio: f64,
    /// Width of the interval at the end, over its upper bound.
    pub width: f64,
}

impl Goal {
    /// No loss at all.
    pub const NDR: Self = Self {
        loss_ratio: 0.0,
        trial_seconds: 1.0,
        sum_seconds: 21.0,
        exceed_ratio: 0.5,
        width: 0.005,
    };

    /// Half a percent of loss.
    pub const PDR: Self = Self {
        loss_ratio: 0.005,
        ..Self::NDR
    };
}

/// One trial of the search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Frames a second that were offered.
    pub load_fps: f64,
    /// Frames a second that arrived.
    pub forwarded_fps: f64,
    /// Frames lost over frames sent.
    pub loss_ratio: f64,
}

/// What the search found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The highest load that meets the goal; `None` where the least load does not.
    pub lower_fps: Option<f64>,
    /// The lowest load that does not; `None` where the highest load does.
    pub upper_fps: Option<f64>,
    /// The median rate forwarded at the lower bound.
    pub conditional_throughput_fps: f64,
    /// Every trial in order; the first was a warm-up and counts for nothing.
    pub trials: Vec<Trial>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Lower,
    Upper,
    Undecided,
}

fn judge(goal: &Goal, trials: &[Trial], load: f64) -> Verdict {
    let at = |trial: &&Trial| trial.load_fps == load;
    let bad = trials
        .iter()
        .filter(at)
        .filter(|trial| trial.loss_ratio > goal.loss_ratio)
        .count() as f64
        * goal.trial_seconds;
    let all = trials.iter().filter(at).count() as f64 * goal.trial_seconds;
    let whole = all.max(goal.sum_seconds);
    let missing = whole - all;
    if bad > whole * goal.exceed_ratio {
        Verdict::Upper
    } else if bad + missing <= whole * goal.exceed_ratio {
        Verdict::Lower
    } else {
        Verdict::Undecided
    }
}

/// Searches between the loads `least` and `most`; `measure` runs one trial of a load.
///
/// # Errors
/// Those of `measure`.
pub fn search(
    goal: &Goal,
    least: f64,
    most: f64,
    mut measure: impl FnMut(f64, f64) -> io::Result<Trial>,
) -> io::Result<Found> {
    let mut trials = vec![measure(most, goal.trial_seconds)?];
    let (mut lower, mut upper): (Option<f64>, Option<f64>) = (None, None);
    // The first guess is what went through when everything was offered.
    let mut load = trials[0].forwarded_fps.clamp(least, most);
    loop {
        let verdict = loop {
            match judge(goal, &trials[1..], load) {
                Verdict::Undecided => trials.push(measure(load, goal.trial_seconds)?),
                verdict => break verdict,
            }
        };
        match verdict {
            Verdict::Lower => lower = Some(load),
            _ => upper = Some(load),
        }
        load = match (lower, upper) {
            (Some(low), _) if low >= most => break,
            (_, Some(high)) if high <= least => break,
            (Some(low), Some(high)) if high - low <= goal.width * high => break,
            (Some(low), Some(high)) => f64::midpoint(low, high),
            // Further from the guess at each step, until there is a bound on its other side.
            (Some(low), None) => (low * 1.05).max(low + goal.width * low).min(most),
            (None, Some(high)) => (high * 0.8).max(least),
            (None, None) => break,
        };
    }
    let mut forwarded: Vec<f64> = trials[1..]
        .iter()
        .filter(|trial| Some(trial.load_fps) == lower)
        .map(|trial| trial.forwarded_fps)
        .collect();
    forwarded.sort_by(f64::total_cmp);
    Ok(Found {
        lower_fps: lower,
        upper_fps: upper,
        conditional_throughput_fps: forwarded.get(forwarded.len() / 2).copied().unwrap_or(0.0),
        trials,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that forwards `capacity` and loses a few frames in one of `noise` trials.
    fn device(capacity: f64, noise: u32) -> impl FnMut(f64, f64) -> io::Result<Trial> {
        let mut number = 0;
        move |load_fps, _| {
            number += 1;
            let mut forwarded_fps = load_fps.min(capacity);
            if noise != 0 && number % noise == 0 {
                forwarded_fps *= 0.9999;
            }
            Ok(Trial {
                load_fps,
                forwarded_fps,
                loss_ratio: 1.0 - forwarded_fps / load_fps,
            })
        }
    }

    #[test]
    fn the_bounds_enclose_the_capacity_closely() {
        for capacity in [12_345.0, 777_000.0, 999_000.0] {
            let found = search(&Goal::NDR, 1_000.0, 1_000_000.0, device(capacity, 0)).unwrap();
            let (lower, upper) = (found.lower_fps.unwrap(), found.upper_fps.unwrap());
            assert!(lower <= capacity && capacity < upper, "{lower} {upper}");
            assert!((upper - lower) / upper <= Goal::NDR.width);
            assert!(found.trials.len() < 800, "{} trials", found.trials.len());
        }
    }

    #[test]
    fn rare_loss_does_not_decide_and_frequent_loss_does() {
        let found = search(&Goal::NDR, 1_000.0, 1_000_000.0, device(500_000.0, 3)).unwrap();
        assert!(found.lower_fps.unwrap() > 490_000.0);
        let found = search(&Goal::NDR, 1_000.0, 1_000_000.0, device(500_000.0, 1)).unwrap();
        assert_eq!(found.lower_fps, None, "it loses at any load");
        let found = search(&Goal::PDR, 1_000.0, 1_000_000.0, device(500_000.0, 1)).unwrap();
        let lower = found.lower_fps.unwrap();
        assert!((495_000.0..=503_000.0).contains(&lower), "{lower}");
    }

    #[test]
    fn a_device_that_takes_everything_has_no_upper_bound() {
        let found = search(&Goal::NDR, 1.0, 1000.0, device(1e9, 0)).unwrap();
        assert_eq!((found.lower_fps, found.upper_fps), (Some(1000.0), None));
    }
}
