//! One trial: a rate for a while, and what came of every frame.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::frame::{self, FCS_BYTES, Mark, Path};
use super::link::{BURST_FRAMES, Buffers, Link, enter};

/// How long the sink waits for the last frames.
const DRAIN: Duration = Duration::from_millis(300);

/// One end of the way.
#[derive(Clone, Debug)]
pub struct Port {
    /// The namespace, where it is not this process's own.
    pub namespace: Option<String>,
    /// The interface.
    pub interface: String,
}

/// Which frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Sizes {
    /// All of one size in bytes, with the check sequence.
    One(usize),
    /// Sizes in turn, so many of each.
    Mix(Vec<(usize, u32)>),
}

impl Sizes {
    /// Mean bytes of a frame.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        match self {
            Self::One(bytes) => *bytes as f64,
            Self::Mix(parts) => {
                let frames: u32 = parts.iter().map(|(_, count)| count).sum();
                let bytes: f64 = parts
                    .iter()
                    .map(|(bytes, count)| *bytes as f64 * f64::from(*count))
                    .sum();
                bytes / f64::from(frames.max(1))
            }
        }
    }

    fn templates(&self, path: &Path) -> Vec<Vec<u8>> {
        match self {
            Self::One(bytes) => vec![frame::build(path, bytes - FCS_BYTES)],
            Self::Mix(parts) => parts
                .iter()
                .flat_map(|(bytes, count)| {
                    let template = frame::build(path, bytes - FCS_BYTES);
                    std::iter::repeat_n(template, *count as usize)
                })
                .collect(),
        }
    }
}

/// What is sent, and how.
#[derive(Clone, Debug)]
pub struct Load {
    /// Sends.
    pub source: Port,
    /// Receives.
    pub sink: Port,
    /// Addresses; the source's own Ethernet address is filled in.
    pub path: Path,
    /// Sizes.
    pub sizes: Sizes,
}

/// What came of a trial.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Frames a second that were wanted.
    pub offered_fps: f64,
    /// Frames a second that the source really sent.
    pub sent_fps: f64,
    /// Seconds of sending.
    pub seconds: f64,
    /// Frames sent.
    pub sent: u64,
    /// Frames received, each counted once.
    pub received: u64,
    /// Frames that came a second time.
    pub duplicated: u64,
    /// Frames that came after one with a higher number of the same flow.
    pub reordered: u64,
    /// Latency in microseconds: least, median, 99 %, 99.9 %, most.
    pub latency_us: [f64; 5],
    /// Longest time between two frames at the sink, in milliseconds.
    pub longest_gap_ms: f64,
    /// The latencies, for plots and sums.
    #[serde(skip)]
    pub latency_ns: Histogram<u64>,
}

impl Outcome {
    /// Frames lost over frames sent.
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        if self.sent == 0 {
            return 1.0;
        }
        self.sent.saturating_sub(self.received) as f64 / self.sent as f64
    }

    /// How long nothing would have gone through, had all that was lost been lost at once ("effective blocked
    /// time"), in milliseconds.
    #[must_use]
    pub fn blocked_ms(&self) -> f64 {
        if self.sent_fps == 0.0 {
            return 0.0;
        }
        self.sent.saturating_sub(self.received) as f64 / self.sent_fps * 1000.0
    }
}

/// Runs one trial of `fps` frames a second.
///
/// # Errors
/// Where a socket is not granted, or the kernel fails.
pub fn run(load: &Load, stream: u32, fps: f64, duration: Duration) -> io::Result<Outcome> {
    let (is_ready, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let sink = scope.spawn(|| {
            if let Some(namespace) = &load.sink.namespace {
                enter(namespace)?;
            }
            let link = Link::open(&load.sink.interface)?;
            is_ready.store(true, Ordering::Release);
            receive(&link, stream, load.path.flows, &is_over)
        });
        let source = scope.spawn(|| {
            if let Some(namespace) = &load.source.namespace {
                enter(namespace)?;
            }
            let link = Link::open(&load.source.interface)?;
            let start = Instant::now();
            while !is_ready.load(Ordering::Acquire) && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let seconds = send(&link, load, stream, fps, duration, &sent);
            std::thread::sleep(DRAIN);
            seconds
        });
        let seconds = join(source);
        is_over.store(true, Ordering::Release);
        let tally = join(sink)?;
        let (seconds, sent) = (seconds?, sent.load(Ordering::Acquire));
        Ok(tally.outcome(fps, seconds, sent))
    })
}

fn join<T>(handle: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    handle
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread of the trial panicked")))
}

fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
    })
}

/// Sends at an even rate, and returns how long it took. A source that falls behind does not catch up in a burst
/// of more than one call's frames.
fn send(
    link: &Link,
    load: &Load,
    stream: u32,
    fps: f64,
    duration: Duration,
    sent: &AtomicU64,
) -> io::Result<f64> {
    let path = Path {
        source_mac: link.mac(),
        ..load.path
    };
    let templates = load.sizes.templates(&path);
    let burst = ((fps / 5000.0) as usize).clamp(1, BURST_FRAMES);
    let mut frames: Vec<Vec<u8>> = Vec::with_capacity(burst);
    let start = Instant::now();
    let mut number = 0u64;
    // Frames that the rate allowed and the source was too slow for are given up.
    let mut forgiven = 0u64;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= duration {
            break;
        }
        let due = (elapsed.as_secs_f64() * fps) as u64 - forgiven.min((elapsed.as_secs_f64() * fps) as u64);
        if due < number + burst as u64 {
            let wait = (burst as f64 / fps).min(0.001);
            if wait > 0.000_2 {
                std::thread::sleep(Duration::from_secs_f64(wait / 2.0));
            } else {
                std::hint::spin_loop();
            }
            continue;
        }
        forgiven += (due - number).saturating_sub(4 * BURST_FRAMES as u64);
        frames.clear();
        let sent_ns = now_ns();
        for offset in 0..burst as u64 {
            let mut frame = templates[(number + offset) as usize % templates.len()].clone();
            let mark = Mark {
                stream,
                number: number + offset,
                sent_ns,
            };
            frame::stamp(&mut frame, &path, mark);
            frames.push(frame);
        }
        number += link.send(&frames)? as u64;
    }
    sent.store(number, Ordering::Release);
    Ok(start.elapsed().as_secs_f64())
}

/// What the sink has seen.
#[derive(Debug)]
struct Tally {
    received: u64,
    duplicated: u64,
    reordered: u64,
    /// A bit a number.
    seen: Vec<u64>,
    /// The highest number of each flow.
    highest: Vec<Option<u64>>,
    latency_ns: Histogram<u64>,
    last_ns: Option<u64>,
    longest_gap_ns: u64,
}

impl Tally {
    fn new(flows: u16) -> io::Result<Self> {
        Ok(Self {
            received: 0,
            duplicated: 0,
            reordered: 0,
            seen: Vec::new(),
            highest: vec![None; usize::from(flows.max(1))],
            latency_ns: Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?,
            last_ns: None,
            longest_gap_ns: 0,
        })
    }

    fn take(&mut self, mark: Mark, now_ns: u64) {
        // 2^32 frames are an hour at a million a second.
        let Ok(number) = u32::try_from(mark.number) else {
            return;
        };
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        let flow = (mark.number % self.highest.len() as u64) as usize;
        match &mut self.highest[flow] {
            Some(highest) if *highest > mark.number => self.reordered += 1,
            highest => *highest = Some(mark.number),
        }
        self.latency_ns
            .saturating_record(now_ns.saturating_sub(mark.sent_ns).max(1));
        if let Some(last) = self.last_ns {
            self.longest_gap_ns = self.longest_gap_ns.max(now_ns.saturating_sub(last));
        }
        self.last_ns = Some(now_ns);
    }

    fn outcome(self, offered_fps: f64, seconds: f64, sent: u64) -> Outcome {
        let microseconds = |ns: u64| ns as f64 / 1000.0;
        let quantile = |share| microseconds(self.latency_ns.value_at_quantile(share));
        Outcome {
            offered_fps,
            sent_fps: sent as f64 / seconds.max(f64::MIN_POSITIVE),
            seconds,
            sent,
            received: self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
            latency_us: [
                microseconds(self.latency_ns.min()),
                quantile(0.5),
                quantile(0.99),
                quantile(0.999),
                microseconds(self.latency_ns.max()),
            ],
            longest_gap_ms: self.longest_gap_ns as f64 / 1e6,
            latency_ns: self.latency_ns,
        }
    }
}

fn receive(link: &Link, stream: u32, flows: u16, is_over: &AtomicBool) -> io::Result<Tally> {
    let mut tally = Tally::new(flows)?;
    let mut buffers = Buffers::default();
    loop {
        let over = is_over.load(Ordering::Acquire);
        let count = link.receive(&mut buffers, |bytes| {
            if let Some(mark) = frame::read(bytes)
                && mark.stream == stream
            {
                tally.take(mark, now_ns());
            }
        })?;
        if count == 0 {
            if over {
                return Ok(tally);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_counted_once_in_its_order() {
        let mut tally = Tally::new(2).unwrap();
        let mark = |number| Mark {
            stream: 1,
            number,
            sent_ns: 0,
        };
        // Flow 0: 0 4 2 2 6; flow 1: 1 3, and 5 is lost.
        for (time, number) in [0, 1, 4, 3, 2, 2, 6].into_iter().enumerate() {
            tally.take(mark(number), 1000 * (time as u64 + 1));
        }
        let outcome = tally.outcome(7.0, 1.0, 7);
        assert_eq!(
            (outcome.received, outcome.duplicated, outcome.reordered),
            (6, 1, 1)
        );
        assert!((outcome.loss_ratio() - 1.0 / 7.0).abs() < 1e-9);
        assert!((outcome.blocked_ms() - 1000.0 / 7.0).abs() < 1e-6);
        assert!(outcome.latency_us[0] >= 0.9 && outcome.latency_us[4] <= 7.1);
    }
}
