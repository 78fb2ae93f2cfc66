//! What a scrape costs: its duration with many tunnels up, and a worker's cycles a packet with and without one each
//! second.

use std::error::Error;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bench::gateway::{Dataplane, Gateway};
use bench::http::{get, series};
use bench::load::frame::Path;
use bench::load::trial::{Load, Port, Sizes, run};
use bench::process::wait_until;
use bench::topology::{Links, Topology};
use clap::Parser;

/// Measures what a scrape costs.
#[derive(Debug, Parser)]
struct Options {
    /// Tunnels of the gateway
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tunnels: u32,
    /// Scrapes of each endpoint
    #[arg(long, default_value_t = 20)]
    scrapes: usize,
    /// Frames a second through the gateway while cycles are counted
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Seconds of each count
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-scrape: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let topology = Topology::new("scrape", Links::default())?;
    let (text, secrets) = configuration(options.tunnels)?;
    let secrets: Vec<(&str, &str)> = secrets
        .iter()
        .map(|(name, key)| (name.as_str(), key.as_str()))
        .collect();
    let gateway = Gateway::start(&topology.gateway_1, &text, &secrets, Dataplane::default())?;
    let scrape = |path: &str| get(&topology.gateway_1, path);
    let wanted = f64::from(options.tunnels);
    let up = wait_until(Duration::from_secs(120), || {
        scrape("/metrics").is_ok_and(|text| series(&text, "penstock_children_established") == Some(wanted))
    });
    if !up {
        return Err(format!("the tunnels do not come up\n{}", gateway.logs()).into());
    }
    println!(
        "{} tunnels up\n\n| endpoint | bytes | least, ms | median, ms | most, ms |\n|---|---|---|---|---|",
        options.tunnels
    );
    for path in ["/metrics", "/metrics/tunnels", "/status.json"] {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..options.scrapes.max(1) {
            let command = format!(
                "curl --silent --fail --output /dev/null --write-out %{{time_total}},%{{size_download}} http://127.0.0.1:9185{path}"
            );
            let answer = topology.gateway_1.run(&command)?;
            let (time, size) = answer.split_once(',').ok_or("curl tells no time")?;
            times.push(time.parse::<f64>()? * 1000.0);
            bytes = size.trim().parse::<u64>()?;
        }
        times.sort_by(f64::total_cmp);
        println!(
            "| `{path}` | {bytes} | {:.1} | {:.1} | {:.1} |",
            times[0],
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
    println!("\n| scraped | worker's busy ns a packet | packets |\n|---|---|---|");
    let mac = topology.gateway_1.run("cat /sys/class/net/lan/address")?;
    for (name, is_scraped) in [
        ("not", false),
        ("each second", true),
        ("not", false),
        ("each second", true),
    ] {
        let (busy_ns, packets) = busy(options, &topology, mac.trim(), is_scraped)?;
        println!("| {name} | {:.0} | {packets:.0} |", busy_ns / packets.max(1.0));
    }
    Ok(())
}

/// Busy nanoseconds and packets of the worker while frames are sealed.
fn busy(
    options: &Options,
    topology: &Topology,
    mac: &str,
    is_scraped: bool,
) -> Result<(f64, f64), Box<dyn Error>> {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()?;
    let load = Load {
        source: Port {
            namespace: Some(topology.host_a.name().to_owned()),
            interface: "eth0".into(),
        },
        // Nobody opens what is sealed here: only the gateway's own counters matter.
        sink: Port {
            namespace: Some(topology.host_b.name().to_owned()),
            interface: "eth0".into(),
        },
        path: Path {
            source_mac: [0; 6],
            destination_mac: bytes.try_into().map_err(|_| "no Ethernet address")?,
            source: "10.1.0.10".parse()?,
            destination: "172.16.0.1".parse()?,
            flows: 16,
        },
        sizes: Sizes::One(512),
    };
    let look = || -> Result<(f64, f64), Box<dyn Error>> {
        let text = get(&topology.gateway_1, "/metrics")?;
        let busy = series(&text, "penstock_worker_busy_seconds_total{worker=\"0\"}").unwrap_or(0.0);
        let sealed = series(&text, "penstock_esp_packets_total{direction=\"out\"}").unwrap_or(0.0);
        Ok((busy * 1e9, sealed))
    };
    let before = look()?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if is_scraped {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let _ = get(&topology.gateway_1, "/metrics");
                    let _ = get(&topology.gateway_1, "/metrics/tunnels");
                    std::thread::sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
                }
            });
        }
        let outcome = run(&load, 1, options.rate, Duration::from_secs(options.seconds));
        is_over.store(true, Ordering::Relaxed);
        outcome
    })?;
    let after = look()?;
    Ok((after.0 - before.0, after.1 - before.1))
}

/// A key file: its name and what stands in it.
type KeyFile = (String, String);

/// Tunnels to one peer, each with keys of its own and a route of its own.
fn configuration(tunnels: u32) -> Result<(String, Vec<KeyFile>), Box<dyn Error>> {
    let mut text = String::from(
        "[metrics]\nmax_tunnel_series = 1000000\n\n[[port]]\ninterface = \"lan\"\nrole = \"protected\"\n\n\
         [[port]]\ninterface = \"wan\"\nrole = \"internet\"\n",
    );
    let mut secrets = Vec::new();
    let mut random = File::open("/dev/urandom")?;
    for number in 0..tunnels {
        let mut keys = [[0u8; 20]; 2];
        for (way, key) in ["in", "out"].iter().zip(&mut keys) {
            random.read_exact(key)?;
            let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            secrets.push((format!("{number}-{way}.key"), digits));
        }
        let (high, low) = (number / 256, number % 256);
        write!(
            text,
            "\n[[tunnel]]\nname = \"site-{number:05}\"\nlocal = \"198.51.100.1\"\nremote = \"198.51.100.2\"\n\
             remote_ts = [\"172.{}.{}.{low}/32\"]\nroutes = [\"172.{}.{}.{low}/32\"]\n\n[[tunnel.sa]]\n\
             spi_in = {}\nspi_out = {}\nalgorithm = \"aes128gcm16\"\nkey_in_file = \"{{folder}}/{number}-in.key\"\n\
             key_out_file = \"{{folder}}/{number}-out.key\"\nesn = true\n",
            16 + high / 256,
            high % 256,
            16 + high / 256,
            high % 256,
            0x1_0000 + number,
            0x2_0000 + number,
        )?;
    }
    Ok((text, secrets))
}
