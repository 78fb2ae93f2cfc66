//! `penstock init`: a first configuration, from what the machine has.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use control::admin::ExitCode;
use control::config::DEFAULT_PATH;

use crate::secret_file;

/// Write a commented configuration for this machine; asks for what no flag says
#[derive(Args)]
#[command(
    after_help = "Examples:\n  penstock init\n  penstock init --lan eth1 --wan eth2 --name gw1 --out ./penstock.toml"
)]
pub(crate) struct Init {
    /// The interface of the plain side
    #[arg(long, value_name = "INTERFACE")]
    lan: Option<String>,
    /// The interface of the tunnel side
    #[arg(long, value_name = "INTERFACE")]
    wan: Option<String>,
    /// The gateway's name
    #[arg(long)]
    name: Option<String>,
    /// A new file, or one that has nothing but comments, as the package brings it
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    out: PathBuf,
    /// The folder that stands for `/`
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
}

/// An interface and what it can.
struct Nic {
    name: String,
    driver: Option<String>,
    receive_queues: usize,
    node: Option<i32>,
    speed_mbit: Option<u32>,
    is_up: bool,
}

/// The machine.
struct Machine {
    nics: Vec<Nic>,
    cpus: Vec<u16>,
    huge_pages: Option<u32>,
    name: String,
}

impl Init {
    pub(crate) fn run(&self) -> ExitCode {
        let machine = Machine::look(&self.root);
        let outcome = self.choose(&machine).and_then(|(name, lan, wan)| {
            let text = machine.configuration(&name, &lan, &wan);
            if let Some(folder) = self.out.parent() {
                fs::create_dir_all(folder).map_err(|error| error.to_string())?;
            }
            write(&self.out, &text).map_err(|error| error.to_string())
        });
        match outcome {
            Ok(()) => {
                println!(
                    "{} is written. Next: put your tunnel in, then\n  penstock check {}\n  penstock host check",
                    self.out.display(),
                    self.out.display()
                );
                ExitCode::Done
            }
            Err(message) => {
                eprintln!("penstock: {message}");
                ExitCode::Usage
            }
        }
    }

    fn choose(&self, machine: &Machine) -> Result<(String, String, String), String> {
        if io::stdin().is_terminal() && (self.lan.is_none() || self.wan.is_none()) {
            println!("Interfaces of this machine:");
            for nic in &machine.nics {
                println!("  {}", nic.line());
            }
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ask("name of this gateway", &machine.name)?,
        };
        let default = |number: usize| machine.nics.get(number).map_or("", |nic| nic.name.as_str());
        let lan = match &self.lan {
            Some(lan) => lan.clone(),
            None => ask("interface of the plain side", default(0))?,
        };
        let wan = match &self.wan {
            Some(wan) => wan.clone(),
            None => ask("interface of the tunnel side", default(1))?,
        };
        for interface in [&lan, &wan] {
            if !machine.nics.iter().any(|nic| nic.name == *interface) {
                let known: Vec<_> = machine.nics.iter().map(|nic| nic.name.as_str()).collect();
                return Err(format!(
                    "no interface {interface:?}: there are {}",
                    known.join(", ")
                ));
            }
        }
        if lan == wan {
            return Err(format!("{lan} cannot be both sides"));
        }
        Ok((name, lan, wan))
    }
}

/// Writes a new file, or over one that says nothing yet, whose owner and mode stay.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let says_nothing = |before: String| before.parse::<toml::Table>().is_ok_and(|table| table.is_empty());
    if fs::read_to_string(path).is_ok_and(says_nothing) {
        fs::write(path, text)
    } else {
        secret_file::create_public(path, text)
    }
}

/// The answer, or the default where the answer is empty. Without a terminal there is nobody to ask.
fn ask(question: &str, default: &str) -> Result<String, String> {
    if !io::stdin().is_terminal() {
        return if default.is_empty() {
            Err(format!("no {question}: say it by a flag"))
        } else {
            Ok(default.to_owned())
        };
    }
    print!("{question} [{default}]: ");
    let mut line = String::new();
    io::stdout()
        .flush()
        .and_then(|()| io::stdin().lock().read_line(&mut line))
        .map_err(|error| error.to_string())?;
    let answer = line.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

impl Nic {
    fn look(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.to_owned();
        let receive_queues = fs::read_dir(folder.join("queues"))
            .into_iter()
            .flatten()
            .filter(|entry| {
                entry
                    .as_ref()
                    .is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("rx-"))
            })
            .count();
        Some(Self {
            driver: fs::read_link(folder.join("device/driver"))
                .ok()
                .and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
            receive_queues,
            node: read(&folder.join("device/numa_node")).and_then(|text| text.parse().ok()),
            speed_mbit: read(&folder.join("speed")).and_then(|text| text.parse().ok()),
            is_up: read(&folder.join("operstate")).as_deref() == Some("up"),
            name,
        })
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{}: {}, {} receive queues",
            self.name,
            self.driver.as_deref().unwrap_or("virtual"),
            self.receive_queues
        );
        // Writing to a String cannot fail.
        if let Some(speed) = self.speed_mbit {
            let _ = write!(line, ", {speed} Mbit/s");
        }
        if let Some(node @ 0..) = self.node {
            let _ = write!(line, ", NUMA node {node}");
        }
        line.push_str(if self.is_up { ", up" } else { ", down" });
        line
    }
}

impl Machine {
    fn look(root: &Path) -> Self {
        let mut nics: Vec<Nic> = fs::read_dir(root.join("sys/class/net"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Nic::look(&entry.ok()?.path()))
            .filter(|nic| nic.name != "lo" && nic.name != "bonding_masters")
            .collect();
        // Real ones first, by name.
        nics.sort_by(|one, other| {
            (one.driver.is_none(), &one.name).cmp(&(other.driver.is_none(), &other.name))
        });
        let cpus = read(&root.join("sys/devices/system/cpu/online"))
            .map(|text| {
                text.split(',')
                    .filter_map(|part| {
                        let (first, last) = part.split_once('-').unwrap_or((part, part));
                        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
                    })
                    .flatten()
                    .collect()
            })
            .unwrap_or_default();
        Self {
            nics,
            cpus,
            huge_pages: read(&root.join("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"))
                .and_then(|text| text.parse().ok()),
            name: read(&root.join("proc/sys/kernel/hostname")).unwrap_or_else(|| "penstock".into()),
        }
    }

    /// Workers: as many as the ports have queues, and CPUs are there besides the first two.
    fn cores(&self, lan: &str, wan: &str) -> Vec<u16> {
        let queues = self
            .nics
            .iter()
            .filter(|nic| nic.name == lan || nic.name == wan)
            .map(|nic| nic.receive_queues)
            .max()
            .unwrap_or(1)
            .max(1);
        let spare = if self.cpus.len() > 2 { 2 } else { 0 };
        let mut cores: Vec<u16> = self.cpus.iter().copied().skip(spare).take(queues).collect();
        if cores.is_empty() {
            cores.push(0);
        }
        cores
    }

    fn configuration(&self, name: &str, lan: &str, wan: &str) -> String {
        let cores: Vec<String> = self.cores(lan, wan).iter().map(u16::to_string).collect();
        let cores = cores.join(",");
        let describe = |interface: &str| {
            self.nics
                .iter()
                .find(|nic| nic.name == interface)
                .map(Nic::line)
                .unwrap_or_default()
        };
        let pages = match self.huge_pages {
            Some(0) | None => "none: penstock host check says how many",
            Some(_) => "there are some",
        };
        // TOML strings escape as JSON strings do.
        let quoted = serde_json::Value::from(name).to_string();
        format!(
            r#"# Written by `penstock init`. `penstock check` reads it as the daemon would, `penstock reload` applies
# what changed. Every setting is in the configuration reference.
#
# The dataplane has its settings on its command line; for this machine:
#   penstock-dataplane --cores {cores}
# CPUs online: {cpus}; huge pages: {pages}.

[gateway]
name = {quoted}

[admin]
# group = "penstock"                          # may look; root may change

[metrics]                                     # Prometheus and the status page
listen = "127.0.0.1:9185"

# {lan_line}
[[port]]
interface = "{lan}"
role = "protected"                            # the plain side

# {wan_line}
[[port]]
interface = "{wan}"
role = "internet"                             # the tunnel side

# A tunnel keyed by hand. Its keys: penstock keygen --out /etc/penstock/to-peer.key
# [[tunnel]]
# name = "site-b"
# local = "198.51.100.1"
# remote = "198.51.100.2"
# local_ts = ["10.1.0.0/24"]
# remote_ts = ["10.2.0.0/24"]
# routes = ["10.2.0.0/24"]
#
# [[tunnel.sa]]
# spi_in = 0x1001
# spi_out = 0x2001
# algorithm = "aes128gcm16"
# key_in_file = "to-me.key"
# key_out_file = "to-peer.key"
# esn = true
"#,
            cpus = self.cpus.len(),
            lan_line = describe(lan),
            wan_line = describe(wan),
        )
    }
}
