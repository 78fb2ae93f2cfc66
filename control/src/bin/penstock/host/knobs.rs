//! The settings that matter, for the interfaces and CPUs at hand.

use std::fs;
use std::path::Path;

use super::Scope;
use super::ethtool::Setting;
use super::knob::{Knob, Source, Wanted};

fn file(path: impl Into<String>) -> Source {
    Source::File(path.into())
}

fn is(value: impl Into<String>) -> Wanted {
    Wanted::Is(value.into())
}

/// Every setting, those that this machine does not have too.
pub(super) fn all(scope: &Scope) -> Vec<Knob> {
    let root = &scope.place.root;
    let mut knobs = machine(scope);
    for cpu in &scope.cores {
        knobs.extend(core(*cpu));
    }
    let interfaces = if scope.interface.is_empty() {
        physical(root)
    } else {
        scope.interface.clone()
    };
    for interface in &interfaces {
        knobs.extend(port(root, interface));
        if !scope.cores.is_empty() {
            knobs.extend(interrupts(root, interface, &scope.cores));
        }
    }
    knobs
}

fn machine(scope: &Scope) -> Vec<Knob> {
    let mut knobs = vec![
        Knob::new(
            "hugepages-2048kB",
            file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
            Wanted::AtLeast(scope.huge_pages.into()),
            "the UMEM lies in them: fewer TLB misses a packet",
        ),
        Knob::new(
            "net.core.bpf_jit_enable",
            file("proc/sys/net/core/bpf_jit_enable"),
            Wanted::AtLeast(1),
            "the XDP program runs as machine code",
        ),
        Knob::new(
            "kernel.unprivileged_bpf_disabled",
            file("proc/sys/kernel/unprivileged_bpf_disabled"),
            Wanted::AtLeast(1),
            "only the dataplane loads programs",
        ),
        Knob::new(
            "net.core.rmem_max",
            file("proc/sys/net/core/rmem_max"),
            Wanted::AtLeast(16 * 1024 * 1024),
            "room for bursts of route changes from the kernel",
        ),
        Knob::new(
            "kernel.nmi_watchdog",
            file("proc/sys/kernel/nmi_watchdog"),
            is("0"),
            "its interrupts disturb the workers",
        ),
        Knob::new(
            "kernel.numa_balancing",
            file("proc/sys/kernel/numa_balancing"),
            is("0"),
            "it takes pages away from the workers to look where they belong",
        ),
        Knob::new(
            "smt",
            Source::ReadOnly("sys/devices/system/cpu/smt/control".into()),
            is("off"),
            "two workers on one core share its crypto unit: leave siblings of workers idle, or boot with nosmt",
        ),
    ];
    for family in ["ipv4", "ipv6"] {
        for (name, least) in [
            ("gc_thresh1", 8192),
            ("gc_thresh2", 32_768),
            ("gc_thresh3", 65_536),
        ] {
            knobs.push(Knob::new(
                format!("net.{family}.neigh.default.{name}"),
                file(format!("proc/sys/net/{family}/neigh/default/{name}")),
                Wanted::AtLeast(least),
                "the kernel resolves the gateway's neighbours",
            ));
        }
    }
    if !scope.cores.is_empty() {
        let list = list(&scope.cores);
        knobs.push(Knob::new(
            "isolated CPUs",
            Source::ReadOnly("sys/devices/system/cpu/isolated".into()),
            is(list),
            "boot with isolcpus=managed_irq,domain,LIST nohz_full=LIST rcu_nocbs=LIST: nothing else runs there",
        ));
        let online = fs::read_to_string(scope.place.root.join("sys/devices/system/cpu/online"))
            .map(|text| parse_list(text.trim()))
            .unwrap_or_default();
        let others: Vec<u16> = online
            .into_iter()
            .filter(|cpu| !scope.cores.contains(cpu))
            .collect();
        if !others.is_empty() {
            knobs.push(Knob::new(
                "workqueue CPUs",
                file("sys/devices/virtual/workqueue/cpumask"),
                is(mask(&others)),
                "the kernel's own work stays off the workers' CPUs",
            ));
        }
    }
    knobs
}

fn core(cpu: u16) -> Vec<Knob> {
    let folder = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq");
    vec![
        Knob::new(
            format!("cpu{cpu} scaling_governor"),
            file(format!("{folder}/scaling_governor")),
            is("performance"),
            "a worker that sleeps now and then is not slowed down",
        ),
        Knob::new(
            format!("cpu{cpu} energy_performance_preference"),
            file(format!("{folder}/energy_performance_preference")),
            is("performance"),
            "the same, for processors that choose by themselves",
        ),
    ]
}

fn port(root: &Path, interface: &str) -> Vec<Knob> {
    let folder = format!("sys/class/net/{interface}");
    let mut knobs = vec![
        Knob::new(
            format!("{interface} napi_defer_hard_irqs"),
            file(format!("{folder}/napi_defer_hard_irqs")),
            Wanted::AtLeast(2),
            "busy polling instead of interrupts while there is traffic",
        ),
        Knob::new(
            format!("{interface} gro_flush_timeout"),
            file(format!("{folder}/gro_flush_timeout")),
            Wanted::AtLeast(200_000),
            "how long interrupts stay off after a poll, in ns",
        ),
    ];
    for setting in Setting::all() {
        knobs.push(Knob::new(
            format!("{interface} {}", setting.name()),
            Source::Ethtool {
                interface: interface.to_owned(),
                setting,
            },
            is("off"),
            setting.why(),
        ));
    }
    let mut queues: Vec<String> = fs::read_dir(root.join(&folder).join("queues"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    queues.sort();
    for queue in queues.iter().filter(|queue| queue.starts_with("rx-")) {
        let path = format!("{folder}/queues/{queue}/rps_cpus");
        let width = fs::read_to_string(root.join(&path)).map_or(1, |text| text.trim().len());
        let zero: String = fs::read_to_string(root.join(&path)).map_or("0".repeat(width), |text| {
            text.trim()
                .chars()
                .map(|letter| if letter == ',' { ',' } else { '0' })
                .collect()
        });
        knobs.push(Knob::new(
            format!("{interface} {queue} rps_cpus"),
            file(path),
            is(zero),
            "what the kernel keeps must not be moved to the workers' CPUs",
        ));
    }
    knobs
}

/// Interrupts of a NIC's queues belong on the CPUs of the workers that own them.
fn interrupts(root: &Path, interface: &str, cores: &[u16]) -> Vec<Knob> {
    let folder = root.join(format!("sys/class/net/{interface}/device/msi_irqs"));
    let mut numbers: Vec<u32> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .enumerate()
        .map(|(queue, number)| {
            Knob::new(
                format!("{interface} irq {number}"),
                file(format!("proc/irq/{number}/smp_affinity_list")),
                is(cores[queue % cores.len()].to_string()),
                "a queue's interrupt is served where its worker runs",
            )
        })
        .collect()
}

/// Interfaces with a device behind them.
fn physical(root: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root.join("sys/class/net"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry
                .path()
                .join("device")
                .exists()
                .then(|| entry.file_name().into_string().ok())?
        })
        .collect();
    names.sort();
    names
}

/// As the kernel writes lists of CPUs: ranges.
fn list(cpus: &[u16]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for cpu in sorted {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let words: Vec<String> = parts
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    words.join(",")
}

fn parse_list(text: &str) -> Vec<u16> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

/// As the kernel writes masks of CPUs: words of 32 bits, the highest first.
fn mask(cpus: &[u16]) -> String {
    let highest = cpus.iter().copied().max().unwrap_or_default();
    let mut words = vec![0u32; usize::from(highest / 32) + 1];
    for cpu in cpus {
        words[usize::from(cpu / 32)] |= 1 << (cpu % 32);
    }
    let mut text: Vec<String> = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    if let Some(first) = text.first_mut() {
        let trimmed = first.trim_start_matches('0');
        *first = if trimmed.is_empty() {
            "0".into()
        } else {
            trimmed.into()
        };
    }
    text.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_are_as_the_kernel_writes_them() {
        assert_eq!(list(&[3, 2, 5, 4, 9]), "2-5,9");
        assert_eq!(parse_list("0-2,7"), [0, 1, 2, 7]);
        assert_eq!(mask(&[0, 1, 4]), "13");
        assert_eq!(mask(&[0, 33]), "2,00000001");
    }
}
