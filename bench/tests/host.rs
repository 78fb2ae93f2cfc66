//! A running gateway as its host sees it: confined, quiet when idle, on whatever pages, drivers and modes there are.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bench::gateway::{Dataplane, Gateway};
use bench::iperf::{Load, measure};
use bench::process::wait_until;
use bench::site_to_site::SiteToSite;
use bench::sites::{HOST_A, HOST_B, Sites, TUNNEL_UP_LIMIT, answers};
use bench::topology::{Links, Topology};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::Value;

/// What `/proc` says of each thread of a process.
fn thread_statuses(process: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .collect()
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim()
}

/// The seconds of processor time that a process has used.
fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name, in parentheses, may hold anything; user and system time are the 14th and 15th field.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64
}

fn ports(gateway: &Gateway) -> Vec<Value> {
    gateway.json(&["show", "ports"]).unwrap()["ports"]
        .as_array()
        .unwrap()
        .clone()
}

/// A gateway's options with these arguments as well.
fn with(arguments: &[&str]) -> Dataplane {
    let mut options = Dataplane::default();
    options
        .arguments
        .extend(arguments.iter().map(|&argument| argument.to_owned()));
    options
}

fn filtered(mode: &str) -> Dataplane {
    Dataplane {
        arguments: ["--seccomp", mode].map(str::to_owned).to_vec(),
        ..Dataplane::default()
    }
}

/// Real traffic both ways, large and small.
fn carry_traffic(sites: &Sites) {
    let (host_a, host_b) = (&sites.topology.host_a, &sites.topology.host_b);
    for (host, targets) in [(host_a, HOST_B), (host_b, HOST_A)] {
        for target in targets {
            host.run(&format!("ping -q -c 5 -i 0.02 -W 5 -s 1300 {target}"))
                .unwrap();
        }
    }
    let tcp = Load::Tcp { streams: 2 };
    let measured = measure(host_a, host_b, HOST_B[0], tcp, 1).unwrap();
    assert!(
        measured.bits_per_second > 10e6,
        "{measured:?}\n{}",
        sites.situation()
    );
}

/// The other tests of running gateways run under the same filter, which there kills at the first call that it lacks.
#[test]
fn every_thread_is_confined_and_the_gateway_comes_and_goes_all_the_same() {
    let mut sites = Sites::plain("confined", &Dataplane::default()).unwrap();
    carry_traffic(&sites);
    let dataplane = sites.gateway_1.dataplane().unwrap();
    let statuses = thread_statuses(dataplane.id());
    assert!(statuses.len() >= 2, "the main thread and a worker: {statuses:?}");
    for status in &statuses {
        assert_eq!(field(status, "Seccomp"), "2", "{status}");
        assert_eq!(field(status, "NoNewPrivs"), "1", "{status}");
        // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_IPC_LOCK 14, CAP_SYS_NICE 23, CAP_BPF 39.
        let allowed = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 23 | 1 << 39;
        for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
            let held = u64::from_str_radix(field(status, set), 16).unwrap();
            assert_eq!(held & !allowed, 0, "{set} in {status}");
        }
    }
    // The last of what a life can hold: ports return, and the end.
    sites.topology.internet.ip("link set g1 down").unwrap();
    sites.topology.internet.ip("link set g1 up").unwrap();
    assert!(wait_until(TUNNEL_UP_LIMIT, || answers(
        &sites.topology.host_a,
        HOST_B[0]
    )));
    let socket = sites.gateway_1.folder().join("dataplane.sock");
    let dataplane = sites.gateway_1.dataplane().unwrap();
    assert!(dataplane.terminate().unwrap().success(), "{}", sites.situation());
    assert!(!socket.exists());
}

#[test]
fn the_default_filter_lets_a_gateway_work_and_without_one_it_says_so() {
    let sites = Sites::plain("refusing", &filtered("refuse")).unwrap();
    carry_traffic(&sites);
    drop(sites);
    let mut sites = Sites::plain("unfiltered", &filtered("off")).unwrap();
    let dataplane = sites.gateway_1.dataplane().unwrap();
    assert!(
        dataplane.log().contains("system calls are not restricted"),
        "{}",
        dataplane.log()
    );
    let statuses = thread_statuses(dataplane.id());
    assert!(statuses.iter().all(|status| field(status, "Seccomp") == "0"));
}

#[test]
fn an_idle_gateway_costs_almost_no_processor_time() {
    let mut sites = Sites::plain("idle", &Dataplane::default()).unwrap();
    let gateway = &mut sites.gateway_1;
    let processes = [gateway.dataplane().unwrap().id(), gateway.control().unwrap().id()];
    let spent = || processes.map(cpu_seconds).iter().sum::<f64>();
    // The last packets of the start are through.
    std::thread::sleep(Duration::from_secs(1));
    let (start, before) = (Instant::now(), spent());
    std::thread::sleep(Duration::from_secs(4));
    let share = (spent() - before) / start.elapsed().as_secs_f64();
    assert!(
        share < 0.05,
        "an idle gateway uses {:.1}% of a core",
        share * 100.0
    );
}

#[test]
fn xdp_in_generic_mode_by_wish_and_where_a_device_has_no_other() {
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let topology = Topology::new("generic", Links::default()).unwrap();
    // Gateway 2's site is behind a macvlan, whose driver knows no XDP; its wan stays as it is.
    let gateway_2 = &topology.gateway_2;
    for line in [
        "link set lan down",
        "link set lan name under",
        "link set under up",
        "link add lan link under type macvlan mode bridge",
        "link set lan up",
        "addr flush dev under",
        "addr add 10.2.0.1/24 dev lan",
        "addr add fd02::1/64 dev lan nodad",
    ] {
        gateway_2.ip(line).unwrap();
    }
    let forced = tunnel
        .configuration(1)
        .replace("\nrole = ", "\nxdp = \"generic\"\nrole = ");
    let configurations = [forced, tunnel.configuration(2)];
    let sites = Sites::over(topology, &tunnel, &configurations, &Dataplane::default()).unwrap();
    carry_traffic(&sites);
    for port in ports(&sites.gateway_1) {
        assert_eq!(
            (&port["state"], &port["xdp"]),
            (&"up".into(), &"generic".into()),
            "{port}"
        );
        assert_eq!(port["queues"], serde_json::json!(["copy"]), "{port}");
    }
    let ports = ports(&sites.gateway_2);
    let mode =
        |interface: &str| ports.iter().find(|port| port["interface"] == interface).unwrap()["xdp"].clone();
    assert_eq!((mode("lan"), mode("wan")), ("generic".into(), "driver".into()));
    let log = sites.gateway_2.logs();
    assert!(
        log.contains("no XDP in the driver: generic mode is used"),
        "{log}"
    );
}

#[test]
fn required_zero_copy_on_a_device_that_copies_is_refused_with_the_reason() {
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let topology = Topology::new("zc-required", Links::default()).unwrap();
    let text = tunnel.configuration(1);
    let required = text.replace("\nrole = ", "\nrequire_zero_copy = true\nrole = ");
    let start = |text: &str| {
        Gateway::start(&topology.gateway_1, text, &tunnel.secrets(), Dataplane::default()).unwrap()
    };
    for (text, reason) in [
        (
            required.clone(),
            "zero-copy is required, but the driver refuses it for queue 0",
        ),
        (
            required.replace("\nrole = ", "\nxdp = \"generic\"\nrole = "),
            "zero-copy is required, but the XDP program runs in generic mode only",
        ),
    ] {
        let gateway = start(&text);
        assert!(
            wait_until(Duration::from_secs(10), || {
                let ports = ports(&gateway);
                ports.len() == 2 && ports.iter().all(|port| port["state"] == "refused")
            }),
            "{:?}\n{}",
            ports(&gateway),
            gateway.logs()
        );
        for port in ports(&gateway) {
            let error = port["error"].as_str().unwrap_or_default();
            assert!(error.contains(reason), "{port}");
        }
        let log = gateway.logs();
        assert!(
            log.contains("ERROR") && log.contains(&format!("port refused: {reason}")),
            "{log}"
        );
        // Nothing stays attached to a port that is not served.
        let links = topology.gateway_1.ip("link show").unwrap();
        assert!(!links.contains("xdp"), "{links}");
    }
}

#[test]
fn busy_polling_is_refused_where_the_kernel_copies_and_traffic_goes_on() {
    let mut sites = Sites::plain("busy-poll", &with(&["--busy-poll", "20"])).unwrap();
    carry_traffic(&sites);
    let log = sites.gateway_1.dataplane().unwrap().log();
    assert!(log.contains("no busy-polling: the device interrupts"), "{log}");
}

/// Pages of 2 MiB, reserved beyond those that were; given back on drop.
struct HugePages {
    count: u64,
}

fn huge_page_pool() -> PathBuf {
    PathBuf::from("/proc/sys/vm/nr_hugepages")
}

fn memory_figure(name: &str) -> u64 {
    let figures = fs::read_to_string("/proc/meminfo").unwrap();
    field(&figures, name).split(' ').next().unwrap().parse().unwrap()
}

impl HugePages {
    fn reserve(count: u64) -> Self {
        let total = memory_figure("HugePages_Total") + count;
        // Where memory is full of cached files, the kernel needs more than one attempt to make room.
        let has_them = || {
            fs::write(huge_page_pool(), total.to_string()).unwrap();
            fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
            memory_figure("HugePages_Total") >= total
        };
        assert!(
            wait_until(Duration::from_secs(20), has_them),
            "the kernel has no {count} huge pages to give"
        );
        Self { count }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let total = memory_figure("HugePages_Total").saturating_sub(self.count);
        let _ = fs::write(huge_page_pool(), total.to_string());
    }
}

#[test]
fn packet_memory_is_in_huge_pages_where_there_are_some_and_in_small_ones_else() {
    const FRAMES: u32 = 2048;
    let options = |frames_per_worker| Dataplane {
        frames_per_worker,
        ..with(&["--hugepages"])
    };
    let has_huge_pages = |gateway: &Gateway| -> Value {
        gateway.json(&["show", "workers"]).unwrap()["workers"][0]["huge_pages"].clone()
    };
    // Two gateways of 8 MiB each.
    let reserved = HugePages::reserve(8);
    let free = memory_figure("HugePages_Free");
    let sites = Sites::plain("huge", &options(FRAMES)).unwrap();
    assert!(memory_figure("HugePages_Free") <= free - 8);
    carry_traffic(&sites);
    assert_eq!(has_huge_pages(&sites.gateway_1), true, "{}", sites.situation());
    assert_eq!(has_huge_pages(&sites.gateway_2), true);
    drop(sites);
    drop(reserved);

    // More than are free now.
    let frames = u32::try_from((memory_figure("HugePages_Free") + 8) * 512).unwrap();
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let topology = Topology::new("no-huge", Links::default()).unwrap();
    let gateway = Gateway::start(
        &topology.gateway_1,
        &tunnel.configuration(1),
        &tunnel.secrets(),
        options(frames),
    )
    .unwrap();
    assert_eq!(has_huge_pages(&gateway), false);
    let log = gateway.logs();
    assert!(log.contains("no hugepages: normal pages are used"), "{log}");
}

/// What a service manager would hear of a daemon.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, path }
    }

    fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("NOTIFY_SOCKET", self.path.to_string_lossy().into_owned()),
            ("WATCHDOG_USEC", "1000000".to_owned()),
        ]
    }

    /// Waits for a message with this line.
    fn hear(&self, line: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {line}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..length]);
            if message.lines().any(|heard| heard == line) {
                return;
            }
        }
    }

    /// Makes room for what is said next: the queue of a datagram socket holds ten messages, and no more is heard.
    fn forget(&self) {
        let mut buffer = [0; 4096];
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut buffer).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    /// Whether nothing is said for this long.
    fn is_silent(&self, limit: Duration) -> bool {
        let mut buffer = [0; 4096];
        while self.socket.set_nonblocking(true).is_ok() && self.socket.recv(&mut buffer).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
        std::thread::sleep(limit);
        self.socket.set_nonblocking(true).unwrap();
        let silent = self.socket.recv(&mut buffer).is_err();
        self.socket.set_nonblocking(false).unwrap();
        silent
    }
}

/// A worker's thread that stands still until this is dropped, as if it hung; the thread that makes it must drop it.
struct Hung(Pid);

impl Hung {
    fn worker(process: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let worker = threads
            .map(|thread| thread.unwrap().path())
            .find(|thread| {
                fs::read_to_string(thread.join("comm"))
                    .unwrap()
                    .starts_with("worker-")
            })
            .unwrap();
        let thread: i32 = worker.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        Self(thread)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // It stops a moment after it is told to; until then it cannot be let go.
        let _ = wait_until(Duration::from_secs(5), || ptrace::detach(self.0, None).is_ok());
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_life_and_end() {
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let topology = Topology::new("notify", Links::default()).unwrap();
    let folder = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let [dataplane, control] = ["dataplane", "control"].map(|name| Manager::listen(&folder, name));
    let options = Dataplane {
        environment: dataplane.environment().to_vec(),
        control_environment: control.environment().to_vec(),
        ..Dataplane::default()
    };
    let mut gateway = Gateway::start(
        &topology.gateway_1,
        &tunnel.configuration(1),
        &tunnel.secrets(),
        options,
    )
    .unwrap();
    for (manager, process) in [
        (&dataplane, gateway.dataplane().unwrap().id()),
        (&control, gateway.control().unwrap().id()),
    ] {
        manager.hear("READY=1");
        manager.hear("WATCHDOG=1");
        kill(Pid::from_raw(process.cast_signed()), Signal::SIGHUP).unwrap();
        manager.hear("RELOADING=1");
        manager.hear("READY=1");
        manager.hear("WATCHDOG=1");
    }
    // A worker that hangs starves the watchdog, though the main thread is well.
    let process = gateway.dataplane().unwrap().id();
    let worker = Hung::worker(process);
    assert!(
        wait_until(Duration::from_secs(10), || dataplane
            .is_silent(Duration::from_secs(2))),
        "{}",
        gateway.logs()
    );
    assert!(
        gateway
            .dataplane()
            .unwrap()
            .log()
            .contains("the worker stands still")
    );
    drop(worker);
    dataplane.hear("WATCHDOG=1");
    control.forget();
    assert!(gateway.control().unwrap().terminate().unwrap().success());
    control.hear("STOPPING=1");
    dataplane.forget();
    assert!(gateway.dataplane().unwrap().terminate().unwrap().success());
    dataplane.hear("STOPPING=1");
    fs::remove_dir_all(folder).unwrap();
}
