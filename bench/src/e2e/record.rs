//! What was measured of one carrier, and how the carriers compare.

use std::fmt::Write as _;

use serde::Serialize;

use super::carrier::Carrier;
use super::usage::Usage;

/// TCP over one connection.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tcp {
    /// Payload received, in bytes.
    pub bytes: f64,
    /// How long it took.
    pub seconds: f64,
    /// What the carrier's processes spent meanwhile.
    pub carrier: Usage,
    /// What the whole machine spent: hosts, iperf3 and the kernel's packet handling included.
    pub machine: Usage,
}

impl Tcp {
    /// Payload, in megabits a second.
    #[must_use]
    pub fn megabits_per_second(&self) -> f64 {
        self.bytes * 8.0 / 1e6 / self.seconds
    }

    /// Payload for each second of the carrier's processor time, in megabytes; `None` where it has no process.
    #[must_use]
    pub fn megabytes_per_cpu_second(&self) -> Option<f64> {
        let spent = self.carrier.seconds();
        (spent > 0.0).then(|| self.bytes / 1e6 / spent)
    }
}

/// UDP of one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Udp {
    /// Bytes of the IPv4 packet.
    pub packet_bytes: usize,
    /// The highest rate that was carried without loss in most trials, in packets a second; `None` where none was.
    pub lossless_pps: Option<f64>,
    /// Latency at a tenth of that rate in microseconds: median and 99 %.
    pub latency_us: Option<[f64; 2]>,
}

/// One carrier's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Whose.
    pub carrier: Carrier,
    /// TCP, a record a round.
    pub tcp: Vec<Tcp>,
    /// UDP by size.
    pub udp: Vec<Udp>,
}

impl Record {
    /// The round in the middle, by throughput for each second of processor time.
    #[must_use]
    pub fn median_tcp(&self) -> Option<Tcp> {
        let mut rounds = self.tcp.clone();
        let key = |tcp: &Tcp| {
            tcp.megabytes_per_cpu_second()
                .unwrap_or_else(|| tcp.megabits_per_second())
        };
        rounds.sort_by(|one, other| key(one).total_cmp(&key(other)));
        rounds.get(rounds.len() / 2).copied()
    }
}

/// The records as tables; ratios are of the first record's carrier to the others.
#[must_use]
pub fn markdown(records: &[Record]) -> String {
    let mut text = String::from(
        "| carrier | TCP, Mbit/s | CPU s/GB | of it in the kernel | whole machine, CPU s/GB | MB per CPU s | first carrier's ratio |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let figure = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let efficiency = |record: &Record| record.median_tcp().and_then(|tcp| tcp.megabytes_per_cpu_second());
    let first = records.first().and_then(efficiency);
    for record in records {
        let Some(tcp) = record.median_tcp() else {
            continue;
        };
        let gigabytes = tcp.bytes / 1e9;
        let spent = tcp.carrier.seconds();
        let own = efficiency(record);
        let ratio = first.zip(own).map(|(first, own)| first / own);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {} | {:.2} | {} | {} |",
            record.carrier.name(),
            tcp.megabits_per_second(),
            figure((spent > 0.0).then(|| spent / gigabytes), 2),
            figure(
                (spent > 0.0).then(|| tcp.carrier.kernel_seconds / spent * 100.0),
                0
            ) + " %",
            tcp.machine.seconds() / gigabytes,
            figure(own, 0),
            figure(ratio, 1),
        );
    }
    text += "\n| carrier | packet, bytes | without loss, packets/s | latency at a tenth of it, median and 99 %, µs |\n|---|---|---|---|\n";
    for record in records {
        for udp in &record.udp {
            let latency = udp.latency_us.map_or_else(
                || "-".to_owned(),
                |[median, most]| format!("{median:.0}, {most:.0}"),
            );
            let _ = writeln!(
                text,
                "| {} | {} | {} | {latency} |",
                record.carrier.name(),
                udp.packet_bytes,
                figure(udp.lossless_pps, 0),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(megabytes: f64, cpu_seconds: f64) -> Tcp {
        Tcp {
            bytes: megabytes * 1e6,
            seconds: 10.0,
            carrier: Usage {
                user_seconds: cpu_seconds / 4.0,
                kernel_seconds: cpu_seconds * 3.0 / 4.0,
            },
            machine: Usage {
                user_seconds: 10.0,
                kernel_seconds: 10.0,
            },
        }
    }

    #[test]
    fn the_ratio_is_of_the_rounds_in_the_middle() {
        let record = |carrier, rounds: &[(f64, f64)]| Record {
            carrier,
            tcp: rounds.iter().map(|&(bytes, spent)| round(bytes, spent)).collect(),
            udp: Vec::new(),
        };
        let text = markdown(&[
            record(Carrier::Penstock, &[(1000.0, 10.0), (1000.0, 5.0), (1000.0, 1.0)]),
            record(Carrier::WireguardGo, &[(500.0, 10.0)]),
            record(Carrier::Kernel, &[(2000.0, 0.0)]),
        ]);
        let cells = |name: &str| -> Vec<String> {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("| {name}")))
                .unwrap();
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        assert_eq!(
            cells("Penstock")[2..8],
            ["800", "5.00", "75 %", "20.00", "200", "1.0"]
        );
        assert_eq!(cells("wireguard")[6..8], ["50", "4.0"]);
        assert_eq!(cells("kernel")[2..8], ["1600", "-", "- %", "10.00", "-", "-"]);
    }
}
