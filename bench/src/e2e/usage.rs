//! Processor time, of processes and of the whole machine.

use std::fs;
use std::io;
use std::ops::{Add, Sub};

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// Seconds of processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// In the programs themselves.
    pub user_seconds: f64,
    /// In the kernel on their behalf; with it, what interrupts did meanwhile.
    pub kernel_seconds: f64,
}

impl Usage {
    /// What the processes have used since they were started, all of their threads together.
    ///
    /// # Errors
    /// Where one has ended.
    pub fn of(processes: &[u32]) -> io::Result<Self> {
        processes.iter().try_fold(Self::default(), |sum, process| {
            let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
            let usage = of_process(&text)
                .ok_or_else(|| io::Error::other(format!("/proc/{process}/stat reads {text:?}")))?;
            Ok(sum + usage)
        })
    }

    /// What the machine's processors have used since it was started.
    ///
    /// # Errors
    /// Without `/proc/stat`.
    pub fn of_machine() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        of_machine(&text).ok_or_else(|| io::Error::other("/proc/stat has no line of all processors"))
    }

    /// Both together.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.user_seconds + self.kernel_seconds
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            user_seconds: self.user_seconds + other.user_seconds,
            kernel_seconds: self.kernel_seconds + other.kernel_seconds,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            user_seconds: self.user_seconds - other.user_seconds,
            kernel_seconds: self.kernel_seconds - other.kernel_seconds,
        }
    }
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)), counted from behind the name, which may hold anything.
fn of_process(text: &str) -> Option<Usage> {
    let (_, behind_name) = text.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    Some(Usage {
        user_seconds: seconds(fields.next()?)?,
        kernel_seconds: seconds(fields.next()?)?,
    })
}

/// The line `cpu` of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq.
fn of_machine(text: &str) -> Option<Usage> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().map_while(seconds).collect();
    match ticks[..] {
        [user, nice, system, _, _, irq, softirq, ..] => Some(Usage {
            user_seconds: user + nice,
            kernel_seconds: system + irq + softirq,
        }),
        _ => None,
    }
}

fn seconds(ticks: &str) -> Option<f64> {
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
    Some(ticks.parse::<f64>().ok()? / ticks_per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_shifts_no_field() {
        let usage = of_process("77 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20").unwrap();
        assert_eq!((usage.user_seconds, usage.kernel_seconds), (2.5, 0.5));
    }

    #[test]
    fn interrupts_count_as_the_kernels_and_waiting_does_not() {
        let usage = of_machine("cpu  100 20 300 9999 8888 4 6 5555 0 0\ncpu0 1 1 1 1 1 1 1\n").unwrap();
        assert_eq!((usage.user_seconds, usage.kernel_seconds), (1.2, 3.1));
        assert!(of_machine("intr 1 2 3").is_none());
    }
}
