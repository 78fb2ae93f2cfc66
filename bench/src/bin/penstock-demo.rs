//! Two gateways, two hosts and an internet between them, on this machine alone: starts them, sends real
//! traffic, listens in between, and prints what it saw.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bench::eavesdropper::{Capture, Eavesdropper, Kind};
use bench::gateway::{Dataplane, Gateway};
use bench::iperf::{Load, Measurement, measure};
use bench::negotiated::Negotiated;
use bench::pki::KeyKind;
use bench::process::wait_until;
use bench::topology::{Links, Topology};
use clap::Parser;

/// Shows two Penstock gateways at work between four hosts of this machine's own.
#[derive(Debug, Parser)]
struct Options {
    /// Leave everything running until Ctrl-C, to look at.
    #[arg(long)]
    hold: bool,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
}

/// Stands in every echo request: an eavesdropper who finds it has found clear text.
const MARKER: &[u8] = b"PENSTOCK-IN-CLEAR";

const HOST_A: [&str; 2] = ["10.1.0.10", "fd01::10"];
const HOST_B: [&str; 2] = ["10.2.0.10", "fd02::10"];

fn main() -> ExitCode {
    match demonstrate(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("Making host A - gateway 1 - internet - gateway 2 - host B ...");
    let topology = Topology::named("penstock-demo", Links::default())?;
    println!("Making an authority and a certificate for each gateway ...");
    let (tunnel, secrets) = Negotiated::certified(KeyKind::P256)?;
    let cores = [0, u16::try_from(std::thread::available_parallelism()?.get() - 1)?];
    let start = |namespace, number: u8| {
        let dataplane = Dataplane {
            cores: vec![cores[usize::from(number - 1)]],
            ..Dataplane::default()
        };
        let secrets: Vec<(&str, &str)> = secrets[usize::from(number - 1)]
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        Gateway::start(namespace, &tunnel.configuration(number), &secrets, dataplane)
    };
    let gateway_1 = start(&topology.gateway_1, 1)?;
    let gateway_2 = start(&topology.gateway_2, 2)?;
    let gateways = [("gateway 1", &gateway_1), ("gateway 2", &gateway_2)];

    let up = wait_until(Duration::from_secs(15), || {
        HOST_B
            .iter()
            .all(|host| topology.host_a.run(&format!("ping -c 1 -W 1 {host}")).is_ok())
    });
    if !up {
        return Err(format!(
            "no answer from host B\n{}\n{}",
            gateway_1.logs(),
            gateway_2.logs()
        )
        .into());
    }

    println!("The gateways have negotiated a tunnel by IKEv2:");
    print!("{}", gateway_1.penstock(&["log"])?);
    println!("Sending, while an eavesdropper listens on the internet ...");
    let file = std::env::temp_dir().join(format!("{}.pcap", topology.internet.name()));
    let ear = Eavesdropper::listen(&topology.internet, "g1", &file, 128)?;
    let pings = ping_all(&topology)?;
    let loads = [
        ("TCP, 1 connection", Load::Tcp { streams: 1 }),
        ("TCP, 4 connections", Load::Tcp { streams: 4 }),
        (
            "UDP, 1400 B at 200 Mbit/s",
            Load::Udp {
                bits_per_second: 200_000_000,
                payload_bytes: 1400,
            },
        ),
        (
            "UDP, 64 B at 10 Mbit/s",
            Load::Udp {
                bits_per_second: 10_000_000,
                payload_bytes: 64,
            },
        ),
    ];
    let mut measurements = Vec::new();
    for (name, load) in loads {
        measurements.push((
            name,
            measure(
                &topology.host_a,
                &topology.host_b,
                HOST_B[0],
                load,
                options.seconds,
            )?,
        ));
    }
    let capture = ear.finish()?;
    std::fs::remove_file(&file)?;

    print_traffic(&pings, &measurements);
    for (name, gateway) in gateways {
        println!("\n{name}");
        for table in ["ike", "sa", "ports", "drops"] {
            println!("{}", gateway.penstock(&["show", table])?.trim_end());
        }
    }
    judge(&capture)?;

    if options.hold {
        hold(&topology, &gateways)?;
    }
    Ok(())
}

/// Echo requests both ways over both families; the summaries.
fn ping_all(topology: &Topology) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let pattern: String = MARKER[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut summaries = Vec::new();
    for (host, name, targets) in [
        (&topology.host_a, "host A to host B", HOST_B),
        (&topology.host_b, "host B to host A", HOST_A),
    ] {
        for target in targets {
            let output = host.run(&format!("ping -q -c 20 -i 0.05 -p {pattern} {target}"))?;
            let line = |word: &str| {
                output
                    .lines()
                    .find(|line| line.contains(word))
                    .unwrap_or_default()
            };
            let summary = format!("{}; {}", line("packets transmitted"), line("rtt"));
            summaries.push((format!("{name} ({target})"), summary));
        }
    }
    Ok(summaries)
}

fn print_traffic(pings: &[(String, String)], measurements: &[(&str, Measurement)]) {
    println!("\nthrough the tunnel, host A to host B           received        lost");
    for (
        name,
        Measurement {
            bits_per_second,
            datagrams,
        },
    ) in measurements
    {
        let lost = datagrams.map_or_else(|| "-".to_owned(), |(sent, lost)| format!("{lost} of {sent}"));
        println!("  {name:<38} {:>8.1} Mbit/s  {lost}", bits_per_second / 1e6);
    }
    for (name, summary) in pings {
        println!("  ping {name}: {summary}");
    }
}

/// The point of it all: only ESP crossed the internet.
fn judge(capture: &Capture) -> Result<(), Box<dyn Error>> {
    let (esp, clear) = (capture.count(Kind::Esp), capture.count(Kind::Clear));
    println!("\nthe eavesdropper saw {esp} ESP packets and {clear} in clear");
    if esp == 0 || clear > 0 || capture.contains(&MARKER[..16]) {
        return Err(format!("clear text crossed the internet:\n{}", capture.show_clear()).into());
    }
    Ok(())
}

fn hold(topology: &Topology, gateways: &[(&str, &Gateway)]) -> Result<(), Box<dyn Error>> {
    println!("\nLeft running; Ctrl-C ends it. In another shell, as root:");
    println!("  ip netns exec {} ping {}", topology.host_a.name(), HOST_B[0]);
    println!("  ip netns exec {} tcpdump -ni g1", topology.internet.name());
    for (name, gateway) in gateways {
        let socket = gateway.folder().join("control.sock");
        println!(
            "  target/release/penstock --socket {} show sa    # {name}",
            socket.display()
        );
    }
    bench::process::wait_for_interrupt()?;
    println!("Stopping ...");
    Ok(())
}
