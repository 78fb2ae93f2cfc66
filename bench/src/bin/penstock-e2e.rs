//! Penstock, wireguard-go, strongSwan's userspace ESP and the kernel's plain forwarding, one after the other over the
//! demo's topology: throughput, processor time, packets without loss, latency.

use std::error::Error;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::e2e::carrier::{Carrier, Joined};
use bench::e2e::record::{Record, Tcp, Udp, markdown};
use bench::e2e::usage::Usage;
use bench::iperf::{self, measure};
use bench::load::frame::{FCS_BYTES, Path};
use bench::load::search::{Goal, Trial, search};
use bench::load::summary::Machine;
use bench::load::trial::{Load, Port, Sizes, run};
use bench::sites::{HOST_A, HOST_B};
use clap::Parser;
use serde::Serialize;

/// Compares userspace VPNs end to end.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds of each TCP round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
    /// TCP rounds; all carriers take turns in each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Without UDP
    #[arg(long)]
    tcp_only: bool,
    /// Files NAME.md and NAME.json
    #[arg(long, value_name = "NAME")]
    report: Option<PathBuf>,
}

/// Bytes of the IPv4 packets.
const PACKET_SIZES: [usize; 3] = [64, 512, 1400];

const ETHERNET_BYTES: usize = 14;

/// The most that is offered, in packets a second: more than this machine's source makes.
const MOST_PPS: f64 = 1_000_000.0;

/// A rate is held where most of its seconds are without loss: one lost to the machine's other work decides nothing.
const GOAL: Goal = Goal {
    trial_seconds: 1.0,
    sum_seconds: 3.0,
    width: 0.05,
    ..Goal::NDR
};

/// All that is written down.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    records: Vec<Record>,
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-e2e: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut records: Vec<Record> = Carrier::ALL
        .into_iter()
        .map(|carrier| Record {
            carrier,
            tcp: Vec::new(),
            udp: Vec::new(),
        })
        .collect();
    for round in 0..options.rounds {
        for record in &mut records {
            eprintln!("{}, round {} ...", record.carrier.name(), round + 1);
            let mut joined = record.carrier.join()?;
            record.tcp.push(tcp(&mut joined, options.seconds)?);
            if round == 0 && !options.tcp_only {
                record.udp = PACKET_SIZES
                    .into_iter()
                    .map(|bytes| udp(&joined, bytes))
                    .collect::<Result<_, _>>()?;
            }
        }
    }
    let text = markdown(&records);
    print!("{text}");
    if let Some(name) = &options.report {
        let report = Report {
            machine: Machine::look(),
            records,
        };
        fs::write(
            name.with_extension("json"),
            serde_json::to_string_pretty(&report)?,
        )?;
        fs::write(name.with_extension("md"), text)?;
    }
    Ok(())
}

fn tcp(joined: &mut Joined, seconds: u8) -> Result<Tcp, Box<dyn Error>> {
    let processes = joined.processes();
    let look = || -> io::Result<[Usage; 2]> { Ok([Usage::of(&processes)?, Usage::of_machine()?]) };
    let before = look()?;
    let topology = &joined.topology;
    let measurement = measure(
        &topology.host_a,
        &topology.host_b,
        HOST_B[0],
        iperf::Load::Tcp { streams: 1 },
        seconds,
    )?;
    let after = look()?;
    let seconds = f64::from(seconds);
    Ok(Tcp {
        bytes: measurement.bits_per_second / 8.0 * seconds,
        seconds,
        carrier: after[0] - before[0],
        machine: after[1] - before[1],
    })
}

fn udp(joined: &Joined, packet_bytes: usize) -> Result<Udp, Box<dyn Error>> {
    let load = load(joined, packet_bytes)?;
    let mut stream = 0;
    let mut trial = |rate: f64, seconds: f64| {
        stream += 1;
        run(&load, stream, rate, Duration::from_secs_f64(seconds))
    };
    let found = search(&GOAL, 100.0, MOST_PPS, |rate, seconds| {
        let outcome = trial(rate, seconds)?;
        // The source bounds what is offered: a search above it would never end.
        let is_offered = outcome.sent_fps >= 0.98 * rate;
        Ok(Trial {
            load_fps: rate,
            forwarded_fps: outcome.received as f64 / outcome.seconds,
            loss_ratio: if is_offered { outcome.loss_ratio() } else { 1.0 },
        })
    })?;
    let latency_us = match found.lower_fps {
        Some(rate) => {
            let outcome = trial(rate / 10.0, 3.0)?;
            Some([outcome.latency_us[1], outcome.latency_us[2]])
        }
        None => None,
    };
    Ok(Udp {
        packet_bytes,
        lossless_pps: found.lower_fps,
        latency_us,
    })
}

fn load(joined: &Joined, packet_bytes: usize) -> Result<Load, Box<dyn Error>> {
    let topology = &joined.topology;
    let mac = topology.gateway_1.run("cat /sys/class/net/lan/address")?;
    let mac: Vec<u8> = mac
        .trim()
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()?;
    let port = |namespace: &bench::namespace::Namespace| Port {
        namespace: Some(namespace.name().to_owned()),
        interface: "eth0".to_owned(),
    };
    Ok(Load {
        source: port(&topology.host_a),
        sink: port(&topology.host_b),
        path: Path {
            source_mac: [0; 6],
            destination_mac: mac.try_into().map_err(|_| "no Ethernet address of six bytes")?,
            source: HOST_A[0].parse()?,
            destination: HOST_B[0].parse()?,
            flows: 16,
        },
        sizes: Sizes::One(packet_bytes + ETHERNET_BYTES + FCS_BYTES),
    })
}
