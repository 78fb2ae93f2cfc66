//! Two customers with the same addresses, two provider edges, and MPLS over ESP between them, on this machine alone:
//! starts them, sends real traffic, and proves that the customers do not meet and that nobody in between reads along.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bench::customers::{CUSTOMERS, Host, join};
use bench::eavesdropper::{Eavesdropper, Kind};
use bench::gateway::{Dataplane, Gateway};
use bench::iperf::{Load, measure};
use bench::namespace::Namespace;
use bench::process::wait_until;
use bench::site_to_site::SiteToSite;
use clap::Parser;

/// Shows an L3VPN of two Penstock gateways across an internet of this machine's own.
#[derive(Debug, Parser)]
struct Options {
    /// Leave everything running until Ctrl-C, to look at.
    #[arg(long)]
    hold: bool,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
}

/// Stands in every echo request of a customer: found on the way, it was in clear; found with the other, it crossed.
const MARKERS: [&str; 2] = [
    "7265642d7265642d7265642d72656421",
    "626c75652d626c75652d626c75652121",
];

fn main() -> ExitCode {
    match demonstrate(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-demo-l3vpn: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration of PE 1 or 2.
fn configuration(number: u8) -> String {
    let peer = 3 - number;
    let mut text = format!(
        r#"[gateway]
name = "pe-{number}"

[[port]]
interface = "wan"
role = "internet"

# What carries the labels: GRE in ESP, in transport mode.
[[tunnel]]
name = "pe-{peer}"
encapsulation = "gre"
mpls = true
mode = "transport"
local = "198.51.100.{number}"
remote = "198.51.100.{peer}"

[[tunnel.sa]]
spi_in = 0x{number}001
spi_out = 0x{peer}001
algorithm = "aes128gcm16"
esn = true
key_in_file = "{{folder}}/to-{number}.key"
key_out_file = "{{folder}}/to-{peer}.key"
"#
    );
    for (customer, number_of) in CUSTOMERS.iter().zip(1u8..) {
        // Each PE gives its own label for each VRF.
        let (ours, theirs) = (
            1000 * u32::from(number) + u32::from(number_of),
            1000 * u32::from(peer) + u32::from(number_of),
        );
        // Writing to a String does not fail.
        let _ = write!(
            text,
            r#"
[[vrf]]
name = "{customer}"
table = {number_of}0
label = {ours}

[[port]]
interface = "ce-{customer}"
role = "protected"
vrf = "{customer}"

[[route]]
vrf = "{customer}"
prefix = "192.168.10{peer}.0/24"
next_hops = [{{ tunnel = "pe-{peer}", labels = [{theirs}] }}]

[[route]]
vrf = "{customer}"
prefix = "fd00:10{peer}::/64"
next_hops = [{{ tunnel = "pe-{peer}", labels = [{theirs}] }}]
"#
        );
    }
    text
}

fn demonstrate(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("Making 2 customers - PE 1 - internet - PE 2 - 2 customers ...");
    let name = |part: &str| Namespace::named(format!("penstock-l3vpn-{part}"));
    let (internet, pe_1, pe_2) = (name("net")?, name("pe1")?, name("pe2")?);
    internet.ip("link add br0 type bridge")?;
    internet.ip("link set br0 up")?;
    for (pe, number) in [(&pe_1, 1), (&pe_2, 2)] {
        for interfaces in ["all", "default"] {
            pe.sysctl(&format!("net.ipv4.conf.{interfaces}.rp_filter"), "0")?;
        }
        join(pe, "wan", &internet, &format!("g{number}"))?;
        internet.ip(&format!("link set g{number} master br0"))?;
        pe.ip(&format!("addr add 198.51.100.{number}/24 dev wan"))?;
    }
    let mut sites = Vec::new();
    for (pe, site) in [(&pe_1, 1), (&pe_2, 2)] {
        for customer in CUSTOMERS {
            sites.push(Host::attach(
                name(&format!("{customer}{site}"))?,
                pe,
                customer,
                site,
            )?);
        }
    }
    let (west, east) = sites.split_at(CUSTOMERS.len());
    let keys = SiteToSite::new("aes128gcm16", 20)?;
    let last_core = u16::try_from(std::thread::available_parallelism()?.get() - 1)?;
    let start = |namespace, number: u8| {
        let dataplane = Dataplane {
            cores: vec![if number == 1 { 0 } else { last_core }],
            ..Dataplane::default()
        };
        Gateway::start(namespace, &configuration(number), &keys.secrets(), dataplane)
    };
    let gateways = [("PE 1", start(&pe_1, 1)?), ("PE 2", start(&pe_2, 2)?)];
    let far = Host::addresses(2);
    let up = wait_until(Duration::from_secs(20), || {
        west.iter()
            .all(|host| far.iter().all(|address| host.reaches(*address)))
    });
    if !up {
        let logs: Vec<_> = gateways
            .iter()
            .map(|(_, gateway)| {
                let drops = gateway.penstock(&["show", "drops"]).unwrap_or_default();
                format!("{drops}\n{}", gateway.logs())
            })
            .collect();
        return Err(format!("no answer from the other site\n{}", logs.join("\n")).into());
    }

    println!("Sending, while eavesdroppers listen on the internet and at the customers ...");
    let file = |part: &str| std::env::temp_dir().join(format!("penstock-l3vpn-{part}.pcap"));
    let between = Eavesdropper::listen(&internet, "g1", &file("net"), 160)?;
    let mut ears = Vec::new();
    for (host, customer) in east.iter().zip(CUSTOMERS) {
        ears.push(Eavesdropper::listen(
            &host.namespace,
            "eth0",
            &file(customer),
            160,
        )?);
    }
    for (host, marker) in west.iter().zip(MARKERS) {
        for address in far {
            host.namespace
                .run(&format!("ping -q -c 50 -i 0.02 -p {marker} {address}"))?;
        }
    }
    println!("\nfrom site 1 to site 2                          received");
    for (customer, (from, to)) in CUSTOMERS.iter().zip(west.iter().zip(east)) {
        let load = Load::Tcp { streams: 1 };
        let measured = measure(
            &from.namespace,
            &to.namespace,
            &far[0].to_string(),
            load,
            options.seconds,
        )?;
        println!(
            "  {customer:<5} TCP, 1 connection                    {:>8.1} Mbit/s",
            measured.bits_per_second / 1e6
        );
    }
    let between = between.finish()?;
    let mut captures = Vec::new();
    for ear in ears {
        captures.push(ear.finish()?);
    }
    for part in ["net", CUSTOMERS[0], CUSTOMERS[1]] {
        std::fs::remove_file(file(part))?;
    }
    for (name, gateway) in &gateways {
        println!("\n{name}");
        for table in ["vrf", "mpls", "tunnels", "drops"] {
            println!("{}", gateway.penstock(&["show", table])?.trim_end());
        }
    }

    let bytes = MARKERS.map(unhex);
    println!(
        "\nboth customers are 192.168.101.0/24 and fd00:101::/64 here, 192.168.102.0/24 and fd00:102::/64 there:"
    );
    let mut faults = Vec::new();
    for (index, customer) in CUSTOMERS.iter().enumerate() {
        let other = 1 - index;
        let own = captures[index].contains(&bytes[index]);
        let foreign = captures[index].contains(&bytes[other]);
        println!(
            "  {customer}'s host at site 2 saw {customer}'s marker: {}, {}'s: {}",
            yes(own),
            CUSTOMERS[other],
            yes(foreign)
        );
        if !own || foreign {
            faults.push(format!(
                "{customer}'s site 2 saw what it should not, or not what it should"
            ));
        }
    }
    let (esp, clear) = (between.count(Kind::Esp), between.count(Kind::Clear));
    let is_readable = bytes.iter().any(|marker| between.contains(marker));
    println!(
        "  the internet saw {esp} ESP packets, {clear} in clear, a marker: {}",
        yes(is_readable)
    );
    if esp == 0 || clear > 0 || is_readable {
        faults.push("the internet saw more than ESP".into());
    }
    if !faults.is_empty() {
        return Err(faults.join("; ").into());
    }
    println!("\nproven: the customers did not meet");
    if options.hold {
        hold(&gateways)?;
    }
    Ok(())
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn unhex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn hold(gateways: &[(&str, Gateway)]) -> Result<(), Box<dyn Error>> {
    println!("\nLeft running; Ctrl-C ends it. In another shell, as root:");
    println!("  ip netns exec penstock-l3vpn-red1 ping 192.168.102.10");
    println!("  ip netns exec penstock-l3vpn-net tcpdump -ni g1");
    for (name, gateway) in gateways {
        let socket = gateway.folder().join("control.sock");
        println!(
            "  target/release/penstock --socket {} show vrf    # {name}",
            socket.display()
        );
    }
    bench::process::wait_for_interrupt()?;
    println!("Stopping ...");
    Ok(())
}
