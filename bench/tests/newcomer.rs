//! The newcomer's path: two bare Debian systems that run systemd, the package, and the commands of the README on one and of
//! `docs/start/ten-minutes.md` on the other, in their order, up to a tunnel that passes traffic and a scrape that shows
//! it. Then what only a real service manager does: it reloads, restarts what dies or hangs, and upgrades control
//! without a lost packet.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod system;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bench::http::{get, series};
use bench::process::{Process, wait_until};
use bench::sites::{HOST_B, answers};
use bench::topology::{Links, Topology};
use system::machine::Machine;
use system::{System, package, tree};

const LIMIT: Duration = Duration::from_secs(60);

/// A page of the tree.
struct Page(String);

impl Page {
    fn read(name: &str) -> Self {
        Self(fs::read_to_string(tree().join(name)).unwrap())
    }

    /// Fenced blocks of a language, in their order.
    fn blocks(&self, language: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = self.0.lines();
        while let Some(line) = lines.next() {
            if line == format!("```{language}") {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                found.push(block.join("\n") + "\n");
            }
        }
        found
    }

    /// The command in the text that begins so.
    fn command(&self, start: &str) -> &str {
        let spans = self.0.split('`');
        spans.into_iter().find(|span| span.starts_with(start)).unwrap()
    }

    /// The connection as the page has it for gw1.
    fn connection(&self) -> String {
        self.blocks("toml").pop().unwrap()
    }
}

/// What a page says for gw1, as gw2 has it.
fn mirrored(text: &str) -> String {
    let mut text = text.replace("gw1", "gw2").replace("site-2", "site-1");
    for (one, other) in [("198.51.100.1", "198.51.100.2"), ("10.1.0.0", "10.2.0.0")] {
        text = text.replace(one, "@").replace(other, one).replace('@', other);
    }
    text
}

fn write_connection(machine: &Machine, name: &str, text: &str) {
    fs::write(machine.system.at("/etc/penstock/conf.d").join(name), text).unwrap();
}

/// gw1 by the README; the commands that look are returned.
fn follow_readme(machine: &Machine) -> String {
    let page = Page::read("README.md");
    let [begin, start, look] = &page.blocks("sh")[..] else {
        panic!("the README has other steps")
    };
    machine.shell(&format!("cd /tmp; {begin}"));
    write_connection(machine, "site-2.toml", &page.connection());
    machine.shell(start);
    look.clone()
}

/// gw2 by the page of ten minutes, with the key that gw1 made; the commands that look are returned.
fn follow_ten_minutes(machine: &Machine, psk: &str) -> String {
    let page = Page::read("docs/start/ten-minutes.md");
    let [install, init, keygen, start, look] = &page.blocks("sh")[..] else {
        panic!("the page has other steps")
    };
    machine.shell(&format!("cd /tmp; {install}"));
    machine.shell(&mirrored(init));
    assert!(keygen.starts_with("penstock keygen --psk"), "{keygen}");
    let copy = page.command("install -o");
    machine.shell(&format!("cd /tmp; umask 077; echo {psk} >site.psk; {copy}"));
    write_connection(machine, "site-1.toml", &mirrored(&page.connection()));
    machine.shell(start);
    mirrored(look)
}

fn deliver(machine: &Machine, package: &Path) {
    fs::copy(
        package,
        machine.system.at("/tmp").join(package.file_name().unwrap()),
    )
    .unwrap();
}

/// Runs the commands that look, each of which has something to show.
fn look(machine: &Machine, commands: &str) {
    for line in commands.lines() {
        assert!(!machine.shell(line).trim().is_empty(), "{line}");
    }
}

#[test]
fn from_two_bare_systems_to_a_tunnel_by_what_the_pages_say_and_through_an_upgrade() {
    let topology = Topology::new("newcomer", Links::default()).unwrap();
    let machines = [&topology.gateway_1, &topology.gateway_2].map(|namespace| {
        // As Linux has it unless told otherwise.
        namespace.sysctl("net.ipv4.ip_forward", "0").unwrap();
        namespace.sysctl("net.ipv6.conf.all.forwarding", "0").unwrap();
        Machine::boot(System::minimal(), namespace)
    });
    let [one, two] = &machines;
    let [old, new] = ["0.1.0", "0.2.0"].map(|version| package(&one.system.place, version));
    deliver(one, &old);
    deliver(two, &old);
    let look_1 = follow_readme(one);
    let psk = one.shell("cat /etc/penstock/keys/site.psk");
    let look_2 = follow_ten_minutes(two, psk.trim());

    let passes = wait_until(LIMIT, || answers(&topology.host_a, HOST_B[0]));
    assert!(
        passes,
        "{}\n{}\n{}",
        one.shell("penstock; penstock log; penstock show ports"),
        one.journal(),
        two.journal()
    );
    // What bash asks for as somebody types `penstock up `: names of this gateway.
    let offered = one.shell(
        "COMPLETE=bash _CLAP_COMPLETE_INDEX=2 _CLAP_COMPLETE_COMP_TYPE=9 _CLAP_COMPLETE_SPACE=false \
         penstock -- penstock up ''",
    );
    assert!(offered.starts_with("site-2"), "{offered}");
    // While there is something to see.
    let mut ping = topology.host_a.command("ping");
    ping.args(["-q", "-i", "0.2", "-w", "60", HOST_B[0]]);
    let ping = Process::spawn(ping, &one.system.place.join("ping.log")).unwrap();
    look(one, &look_1);
    look(two, &look_2);
    let sealed = || {
        let text = get(&topology.gateway_1, "/metrics").unwrap();
        series(&text, "penstock_esp_packets_total{direction=\"out\"}").unwrap()
    };
    assert!(wait_until(LIMIT, || sealed() >= 5.0), "{}", sealed());
    drop(ping);

    the_service_manager_keeps_it_up(&topology, one, &new);
}

/// Restarts, the watchdog and an upgrade, on a gateway whose tunnel is up.
fn the_service_manager_keeps_it_up(topology: &Topology, machine: &Machine, new: &Path) {
    let [dataplane, control] = ["penstock-dataplane.service", "penstock-control.service"];
    for unit in [dataplane, control] {
        assert_eq!(machine.property(unit, "ActiveState"), "active");
        assert_eq!(machine.property(unit, "NRestarts"), "0");
    }
    // An upgrade: control is another process afterwards, the dataplane is not, and every echo was answered.
    let pids = |unit| machine.property(unit, "MainPID");
    let before = [dataplane, control].map(pids);
    let mut ping = topology.host_a.command("ping");
    ping.args(["-q", "-i", "0.02", "-c", "400", "-W", "2", HOST_B[0]]);
    let ping = ping.stdout(Stdio::piped()).spawn().unwrap();
    deliver(machine, new);
    machine.shell("dpkg -i /tmp/penstock_0.2.0_*.deb");
    let after = [dataplane, control].map(pids);
    assert_eq!(before[0], after[0], "the dataplane goes on");
    assert_ne!(before[1], after[1], "control was replaced");
    let sent = ping.wait_with_output().unwrap();
    let sent = String::from_utf8(sent.stdout).unwrap();
    let received: u32 = sent
        .lines()
        .find_map(|line| line.split(", ").nth(1)?.strip_suffix(" received")?.parse().ok())
        .unwrap();
    // The peer forgets the old SAs when it hears of the new ones: what is on its way just then may be lost.
    assert!(received >= 395, "{sent}\n{}", machine.journal());

    // A reload is told to the manager, and a configuration with a fault is refused without harm.
    machine.shell("systemctl reload penstock-control");
    assert_eq!(pids(control), after[1]);
    machine.shell("echo nonsense >/etc/penstock/conf.d/bad.toml");
    assert!(machine.run("penstock reload").is_err());
    machine.shell("rm /etc/penstock/conf.d/bad.toml; penstock reload");

    // What dies is started again, and so is what hangs: the watchdog ends it.
    machine.shell("mkdir -p /run/systemd/system/penstock-control.service.d");
    machine.shell(
        "printf \'[Service]\\nWatchdogSec=3s\\n\' >/run/systemd/system/penstock-control.service.d/test.conf
         systemctl daemon-reload; systemctl restart penstock-control",
    );
    let hung = pids(control);
    machine.shell(&format!("kill -STOP {hung}"));
    let replaced = wait_until(LIMIT, || {
        let pid = pids(control);
        pid != hung && pid != "0" && machine.property(control, "ActiveState") == "active"
    });
    assert!(replaced, "{}", machine.journal());
    assert_eq!(machine.property(control, "NRestarts"), "1");
    machine.shell("systemctl kill --signal=KILL penstock-dataplane");
    let back = wait_until(LIMIT, || {
        machine.property(dataplane, "NRestarts") == "1" && answers(&topology.host_a, HOST_B[0])
    });
    assert!(back, "{}", machine.journal());
    // Asked to end, both do, and stay so.
    machine.shell("systemctl stop penstock-control penstock-dataplane");
    for unit in [dataplane, control] {
        assert_eq!(
            machine.property(unit, "ActiveState"),
            "inactive",
            "{}",
            machine.journal()
        );
        assert_eq!(machine.property(unit, "Result"), "success");
    }
}
