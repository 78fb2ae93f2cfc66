//! Load tests of a gateway: loss, reordering, duplication, latency, throughput, and how long it stands still.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use bench::load::frame::{IMIX, Path, RFC_2544_SIZES};
use bench::load::search::{Goal, Trial, search};
use bench::load::summary::{Case, Machine, Summary, Throughput};
use bench::load::trial::{Load, Outcome, Port, Sizes, run};
use clap::{Args, Parser, Subcommand};

/// Sends numbered, timed frames through a gateway and tells what came of them.
///
/// The source is an interface beside the gateway's plain side, the sink one beside the far gateway's; both are of
/// this machine, in any network namespace.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One rate for a while
    Trial {
        #[command(flatten)]
        way: Way,
        /// Frames a second
        #[arg(long)]
        rate: f64,
        /// Seconds
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
    /// The highest rates without loss (NDR) and with half a percent of it (PDR), by size
    Throughput {
        #[command(flatten)]
        way: Way,
        /// The highest rate that is tried, in frames a second
        #[arg(long, default_value_t = 1_000_000.0)]
        most: f64,
        /// The sizes of RFC 2544, and IMIX, instead of --size
        #[arg(long)]
        all_sizes: bool,
        /// Seconds of trials that decide a load; the standard says 21
        #[arg(long, default_value_t = 21.0)]
        sum_seconds: f64,
        /// Seconds of each trial
        #[arg(long, default_value_t = 1.0)]
        trial_seconds: f64,
        /// Width of the last interval over its upper bound
        #[arg(long, default_value_t = 0.005)]
        width: f64,
        /// Without the search for PDR
        #[arg(long)]
        ndr_only: bool,
    },
    /// One rate for long, told a minute at a time
    Soak {
        #[command(flatten)]
        way: Way,
        /// Frames a second
        #[arg(long)]
        rate: f64,
        /// Minutes
        #[arg(long, default_value_t = 30)]
        minutes: u32,
    },
    /// How long the gateway stands still while a command runs: a reload, a rekey, a restart
    Blocked {
        #[command(flatten)]
        way: Way,
        /// Frames a second
        #[arg(long)]
        rate: f64,
        /// Seconds; the command is run after a third of them
        #[arg(long, default_value_t = 6.0)]
        seconds: f64,
        /// The command
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Way {
    /// The interface that sends
    #[arg(long)]
    source: String,
    /// Its namespace
    #[arg(long)]
    source_netns: Option<String>,
    /// The interface that receives
    #[arg(long)]
    sink: String,
    /// Its namespace
    #[arg(long)]
    sink_netns: Option<String>,
    /// The gateway's Ethernet address on the source's side
    #[arg(long, value_parser = mac)]
    gateway_mac: [u8; 6],
    /// The source's address
    #[arg(long)]
    from: Ipv4Addr,
    /// The sink's address
    #[arg(long)]
    to: Ipv4Addr,
    /// Flows, as source ports
    #[arg(long, default_value_t = 16)]
    flows: u16,
    /// Bytes of a frame with its check sequence, or `imix`
    #[arg(long, default_value = "512")]
    size: String,
    /// What is said of the device under test in the report
    #[arg(long, default_value = "")]
    note: String,
    /// Files NAME.md, NAME.json and plots beside them
    #[arg(long, value_name = "NAME")]
    report: Option<PathBuf>,
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    bytes
        .try_into()
        .map_err(|_| "expected six bytes such as 02:00:00:00:00:01".to_owned())
}

fn sizes(text: &str) -> Result<Sizes, String> {
    if text.eq_ignore_ascii_case("imix") {
        return Ok(Sizes::Mix(IMIX.to_vec()));
    }
    match text.parse() {
        Ok(bytes @ 70..=1518) => Ok(Sizes::One(bytes)),
        _ => Err(format!("{text:?}: expected imix, or 70 to 1518 bytes")),
    }
}

impl Way {
    fn load(&self, sizes: Sizes) -> Load {
        Load {
            source: Port {
                namespace: self.source_netns.clone(),
                interface: self.source.clone(),
            },
            sink: Port {
                namespace: self.sink_netns.clone(),
                interface: self.sink.clone(),
            },
            path: Path {
                source_mac: [0; 6],
                destination_mac: self.gateway_mac,
                source: self.from,
                destination: self.to,
                flows: self.flows.max(1),
            },
            sizes,
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::look(),
            note: self.note.clone(),
            throughput: Vec::new(),
            cases: Vec::new(),
        }
    }

    fn tell(&self, summary: &Summary) -> io::Result<()> {
        print!("{}", summary.markdown());
        match &self.report {
            Some(name) => summary.write(name),
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    match work(&Options::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Numbers of trials, so that a late frame of one is not taken for one of the next.
struct Streams(u32);

impl Streams {
    fn run(&mut self, load: &Load, rate: f64, seconds: f64) -> Result<Outcome, Box<dyn Error>> {
        if !(rate.is_finite() && rate > 0.0 && seconds > 0.0) {
            return Err("expected a rate and seconds above 0".into());
        }
        self.0 = self.0.wrapping_add(1);
        Ok(run(load, self.0, rate, Duration::from_secs_f64(seconds))?)
    }
}

fn work(what: &What) -> Result<(), Box<dyn Error>> {
    let mut streams = Streams(std::process::id() << 8);
    match what {
        What::Trial { way, rate, seconds } => {
            let mut summary = way.summary();
            let outcome = streams.run(&way.load(sizes(&way.size)?), *rate, *seconds)?;
            summary.cases.push(Case::new("trial", outcome));
            way.tell(&summary)?;
        }
        What::Soak { way, rate, minutes } => {
            let mut summary = way.summary();
            let load = way.load(sizes(&way.size)?);
            for minute in 1..=*minutes {
                let outcome = streams.run(&load, *rate, 60.0)?;
                eprintln!("minute {minute}: loss {:.2e}", outcome.loss_ratio());
                summary
                    .cases
                    .push(Case::new(&format!("minute {minute}"), outcome));
            }
            way.tell(&summary)?;
        }
        What::Blocked {
            way,
            rate,
            seconds,
            command,
        } => {
            let mut summary = way.summary();
            let load = way.load(sizes(&way.size)?);
            summary
                .cases
                .push(Case::new("undisturbed", streams.run(&load, *rate, *seconds)?));
            let pause = Duration::from_secs_f64(seconds / 3.0);
            let status = std::thread::scope(|scope| {
                let disturb = scope.spawn(|| {
                    std::thread::sleep(pause);
                    Command::new(&command[0]).args(&command[1..]).status()
                });
                let outcome = streams.run(&load, *rate, *seconds)?;
                summary.cases.push(Case::new(&command.join(" "), outcome));
                disturb
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("the command's thread panicked")))
                    .map_err(|error| -> Box<dyn Error> { format!("{}: {error}", command[0]).into() })
            })?;
            way.tell(&summary)?;
            if !status.success() {
                return Err(format!("{}: {status}", command.join(" ")).into());
            }
        }
        What::Throughput {
            way,
            most,
            all_sizes,
            sum_seconds,
            trial_seconds,
            width,
            ndr_only,
        } => {
            let mut summary = way.summary();
            let cases: Vec<Sizes> = if *all_sizes {
                let mut all: Vec<Sizes> = RFC_2544_SIZES.into_iter().map(Sizes::One).collect();
                all.push(Sizes::Mix(IMIX.to_vec()));
                all
            } else {
                vec![sizes(&way.size)?]
            };
            let goals = [("NDR", Goal::NDR), ("PDR", Goal::PDR)];
            for case in cases {
                let load = way.load(case.clone());
                for (name, goal) in goals.iter().take(if *ndr_only { 1 } else { 2 }) {
                    let goal = Goal {
                        sum_seconds: *sum_seconds,
                        trial_seconds: *trial_seconds,
                        width: *width,
                        ..*goal
                    };
                    let found = search(&goal, 10.0, *most, |rate, seconds| {
                        let outcome = streams
                            .run(&load, rate, seconds)
                            .map_err(|error| io::Error::other(error.to_string()))?;
                        eprintln!("{rate:.0}/s: loss {:.2e}", outcome.loss_ratio());
                        Ok(Trial {
                            load_fps: rate,
                            forwarded_fps: outcome.received as f64 / outcome.seconds,
                            // A source that sent less than was wanted proves nothing of the wanted rate.
                            loss_ratio: if outcome.sent_fps < 0.98 * rate {
                                1.0
                            } else {
                                outcome.loss_ratio()
                            },
                        })
                    })?;
                    summary.throughput.push(Throughput {
                        sizes: match &case {
                            Sizes::One(bytes) => bytes.to_string(),
                            Sizes::Mix(_) => "IMIX".to_owned(),
                        },
                        mean_bytes: case.mean_bytes(),
                        goal: name,
                        found,
                    });
                }
            }
            way.tell(&summary)?;
        }
    }
    Ok(())
}
