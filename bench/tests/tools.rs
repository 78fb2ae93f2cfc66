//! What an operator debugs with, against two running gateways: events, traces, captures, rates, load.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench::gateway::{Dataplane, built};
use bench::process::wait_until;
use bench::sites::{self, Sites};

const LIMIT: Duration = Duration::from_secs(30);
const HOST_B: &str = sites::HOST_B[0];

fn start(stem: &str) -> Sites {
    Sites::plain(stem, &Dataplane::default()).unwrap()
}

fn ping(sites: &Sites, count: u32, to: &str) -> Result<String, bench::namespace::CommandError> {
    sites
        .topology
        .host_a
        .run(&format!("ping -q -c {count} -i 0.05 -W 1 {to}"))
}

/// The command line, left to run.
fn spawn(sites: &Sites, arguments: &[&str]) -> Child {
    Command::new(built("penstock").unwrap())
        .arg("--socket")
        .arg(sites.gateway_1.folder().join("control.sock"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a child printed, until it ended; killed where it does not.
fn finish(mut child: Child) -> String {
    assert!(
        wait_until(LIMIT, || matches!(child.try_wait(), Ok(Some(_)))),
        "it does not end: {:?}",
        child.kill()
    );
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A trace or a capture that has begun.
fn follow(sites: &Sites, arguments: &[&str]) -> Child {
    let mut child = spawn(sites, arguments);
    let mut line = String::new();
    let stderr = child.stderr.as_mut().unwrap();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    assert!(line.contains("following packets"), "{line}");
    child
}

#[test]
fn a_trace_tells_each_stage_and_its_verdict_and_why_a_packet_is_dropped() {
    let sites = start("trace");
    let text = {
        let child = follow(&sites, &["trace", "--host", HOST_B, "--count", "2"]);
        ping(&sites, 5, HOST_B).unwrap();
        finish(child)
    };
    // The request in, sealed, and the reply out of its tunnel, though it came encrypted.
    for expected in [
        "from lan",
        "esp_encap      -> egress",
        "into tunnel site-2",
        "left by wan",
        "from wan",
        "esp_decap      -> ",
        "out of tunnel site-2",
        "left by lan",
        "10.1.0.10 > 10.2.0.10 protocol 1 ICMP type 8",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    // One that is refused: its sender is told, and the trace tells why.
    let child = follow(
        &sites,
        &["trace", "--drops", "--host", "10.9.9.9", "--count", "1"],
    );
    let _ = ping(&sites, 3, "10.9.9.9");
    let text = finish(child);
    assert!(text.contains("ip_forward     -> no_route"), "{text}");
    assert!(text.contains("icmp_error     -> drop"), "{text}");
    assert!(text.contains("DROPPED: no_route"), "{text}");
    // A filter that nothing fits sees nothing; whoever leaves makes room for the next.
    let mut idle = follow(&sites, &["trace", "--host", "192.0.2.99", "--count", "1"]);
    ping(&sites, 3, HOST_B).unwrap();
    assert!(matches!(idle.try_wait(), Ok(None)));
    let second = spawn(&sites, &["trace", "--count", "1"])
        .wait_with_output()
        .unwrap();
    assert_eq!(second.status.code(), Some(2), "one at a time");
    idle.kill().unwrap();
    assert_eq!(finish(idle), "");
    let child = follow(
        &sites,
        &["trace", "--host", HOST_B, "--count", "1", "--json=lines"],
    );
    ping(&sites, 3, HOST_B).unwrap();
    let text = finish(child);
    let record: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(record["schema"], 1, "{record}");
    assert_eq!(record["entry"], "lan", "{record}");
}

#[test]
fn a_capture_holds_the_clear_and_the_encrypted_side_of_the_same_packets() {
    let sites = start("capture");
    let file = sites.gateway_1.folder().join("out.pcapng");
    let path = file.to_str().unwrap().to_owned();
    let capture = follow(
        &sites,
        &["capture", "--host", HOST_B, "--count", "4", "--out", &path],
    );
    ping(&sites, 6, HOST_B).unwrap();
    finish(capture);
    let tshark = |filter: &str| {
        let output = Command::new("tshark")
            .args([
                "-r",
                &path,
                "-Y",
                filter,
                "-T",
                "fields",
                "-e",
                "frame.interface_name",
                "-e",
                "frame.comment",
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let clear = tshark("icmp && ip.dst == 10.2.0.10");
    let sealed = tshark("esp && ip.dst == 198.51.100.2");
    assert!(
        clear.contains("lan\tpacket 1, left by wan, into tunnel site-2"),
        "{clear}"
    );
    assert!(
        sealed.contains("wan\tpacket 1, as it left, into tunnel site-2"),
        "{sealed}"
    );
    let (opened, came) = (
        tshark("icmp && ip.src == 10.2.0.10"),
        tshark("esp && ip.src == 198.51.100.2"),
    );
    assert!(
        opened.contains("lan\tpacket 2, as it left, out of tunnel site-2"),
        "{opened}"
    );
    assert!(came.contains("wan\tpacket 2, left by lan"), "{came}");
}

#[test]
fn monitor_tells_events_as_they_happen_and_the_log_level_changes() {
    let sites = start("monitor");
    let mut monitor = spawn(&sites, &["monitor", "--json=lines", "--count", "1"]);
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    std::thread::sleep(Duration::from_millis(300));
    sites.topology.gateway_1.ip("link set wan down").unwrap();
    let line = lines.next().unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "port_changed", "{event}");
    assert_eq!(event["interface"], "wan");
    assert!(event["time"].as_str().unwrap().ends_with('Z'));
    monitor.wait().unwrap();
    sites.gateway_1.penstock(&["log", "level", "trace"]).unwrap();
    sites
        .gateway_1
        .penstock(&["log", "level", "info,control=warn"])
        .unwrap();
    let refused = sites
        .gateway_1
        .penstock(&["log", "level", "shouting=very"])
        .unwrap_err();
    assert!(refused.to_string().contains("shouting"), "{refused}");
}

#[test]
fn top_shows_rates_in_a_terminal() {
    let sites = start("top");
    let session = format!("penstock-top-{}", std::process::id());
    let tmux = |arguments: &[&str]| {
        let output = Command::new("tmux")
            .args(["-L", &session])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let mut load = sites.topology.host_a.command("ping");
    load.args(["-q", "-i", "0.01", "-s", "1000", "-w", "8", HOST_B]);
    let mut load = load.stdout(Stdio::null()).spawn().unwrap();
    let command = format!(
        "{} --socket {} top; echo ended with $?; sleep 60",
        built("penstock").unwrap().display(),
        sites.gateway_1.folder().join("control.sock").display()
    );
    tmux(&[
        "new-session",
        "-d",
        "-x",
        "120",
        "-y",
        "40",
        "-s",
        "top",
        &command,
    ]);
    let mut screen = String::new();
    let shown = wait_until(Duration::from_secs(8), || {
        screen = tmux(&["capture-pane", "-p", "-t", "top"]);
        screen
            .lines()
            .any(|line| line.contains("site-2") && line.contains("up") && line.contains('k'))
    });
    assert!(shown, "{screen}");
    for heading in ["TUNNEL", "WORKER", "PORT", "DROPPED FOR", "gateway-1", "driver"] {
        assert!(screen.contains(heading), "{heading} in\n{screen}");
    }
    tmux(&["send-keys", "-t", "top", "q"]);
    let ended = wait_until(Duration::from_secs(5), || {
        screen = tmux(&["capture-pane", "-p", "-t", "top"]);
        screen.contains("ended with 0")
    });
    assert!(ended, "{screen}");
    tmux(&["kill-server"]);
    load.wait().unwrap();
}

#[test]
fn penstock_bench_counts_what_goes_through_and_how_long_a_reload_takes() {
    let sites = start("load");
    let mac = sites
        .topology
        .gateway_1
        .run("cat /sys/class/net/lan/address")
        .unwrap();
    let report = sites.gateway_1.folder().join("report");
    let run = |verb: &str, more: &[&str]| {
        let output = Command::new(built("penstock-bench").unwrap())
            .arg(verb)
            .args(["--source", "eth0", "--source-netns", sites.topology.host_a.name()])
            .args(["--sink", "eth0", "--sink-netns", sites.topology.host_b.name()])
            .args(["--gateway-mac", mac.trim(), "--from", "10.1.0.10", "--to", HOST_B])
            .arg("--report")
            .arg(&report)
            .args(more)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let json = std::fs::read_to_string(report.with_extension("json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
        summary
    };
    let trial = run("trial", &["--rate", "1000", "--seconds", "2", "--size", "imix"]);
    let outcome = &trial["cases"][0]["outcome"];
    let (sent, received) = (
        outcome["sent"].as_u64().unwrap(),
        outcome["received"].as_u64().unwrap(),
    );
    assert!(sent > 500 && received > sent / 2 && received <= sent, "{outcome}");
    assert_eq!(outcome["duplicated"], 0);
    assert!(outcome["latency_us"][1].as_f64().unwrap() > 1.0);
    assert!(report.with_extension("latency.svg").exists());
    let markdown = std::fs::read_to_string(report.with_extension("md")).unwrap();
    assert!(markdown.contains("| trial |"), "{markdown}");
    // Packets that the gateways saw are those that were sent through them.
    let socket = sites.gateway_1.folder().join("control.sock");
    let penstock = built("penstock").unwrap();
    let reload = [
        "--rate",
        "500",
        "--seconds",
        "3",
        "--",
        penstock.to_str().unwrap(),
        "--socket",
        socket.to_str().unwrap(),
        "reload",
    ];
    let blocked = run("blocked", &reload);
    let cases = blocked["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    assert!(cases[1]["blocked_ms"].as_f64().unwrap() < 1500.0, "{}", cases[1]);
    let search = run(
        "throughput",
        &[
            "--most",
            "2000",
            "--ndr-only",
            "--sum-seconds",
            "0.6",
            "--trial-seconds",
            "0.3",
            "--width",
            "0.5",
        ],
    );
    let found = &search["throughput"][0]["found"];
    assert!(found["trials"].as_array().unwrap().len() >= 2, "{found}");
    assert!(report.with_extension("throughput.svg").exists());
}
