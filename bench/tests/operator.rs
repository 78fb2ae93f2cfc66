//! What an operator looks at while two gateways carry traffic: a real Prometheus, a real browser.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bench::gateway::Dataplane;
use bench::http::{get, series};
use bench::process::{Process, wait_until};
use bench::site_to_site::SiteToSite;
use bench::sites::{self, Sites};
use bench::topology::{Links, Topology};

const LIMIT: Duration = Duration::from_secs(30);
const HOST_B: &str = sites::HOST_B[0];

/// Two sites whose gateways tell metrics, and one tunnel more that has no SA: configured, and down.
fn start(stem: &str) -> Sites {
    let tunnel = SiteToSite::new("aes128gcm16", 20).unwrap();
    let configurations = [1, 2].map(|number| {
        format!(
            "[metrics]\n{}[[tunnel]]\nname = \"branch\"\nlocal = \"198.51.100.{number}\"\nremote = \"198.51.100.77\"\n",
            tunnel.configuration(number)
        )
    });
    let topology = Topology::new(stem, Links::default()).unwrap();
    Sites::over(topology, &tunnel, &configurations, &Dataplane::default()).unwrap()
}

fn ping(sites: &Sites, count: u32) -> Result<String, bench::namespace::CommandError> {
    sites
        .topology
        .host_a
        .run(&format!("ping -q -c {count} -i 0.01 -W 1 {HOST_B}"))
}

fn scrape(sites: &Sites, path: &str) -> String {
    get(&sites.topology.gateway_1, path).unwrap()
}

fn monitoring(file: &str) -> String {
    format!("{}/../monitoring/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_prometheus_server_scrapes_a_gateway_that_carries_traffic() {
    let sites = start("prometheus");
    let folder = sites.gateway_1.folder().to_owned();
    std::fs::write(
        folder.join("prometheus.yml"),
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}', '{}']\n\
             scrape_configs:\n\
             - {{job_name: penstock, static_configs: [{{targets: ['127.0.0.1:9185']}}]}}\n\
             - job_name: penstock-tunnels\n\
             \x20 metrics_path: /metrics/tunnels\n\
             \x20 params: {{connection: ['site-.*']}}\n\
             \x20 static_configs: [{{targets: ['127.0.0.1:9185']}}]\n",
            monitoring("recording.yml"),
            monitoring("alerts.yml")
        ),
    )
    .unwrap();
    let mut command = sites.topology.gateway_1.command("prometheus");
    command
        .arg(format!("--config.file={}/prometheus.yml", folder.display()))
        .arg(format!("--storage.tsdb.path={}/tsdb", folder.display()))
        .arg("--web.listen-address=127.0.0.1:9090");
    let server = Process::spawn(command, &folder.join("prometheus.log")).unwrap();
    let query = |expression: &str| -> Option<f64> {
        let text = sites
            .topology
            .gateway_1
            .run(&format!(
                "curl --silent --max-time 5 --get --data-urlencode query={expression} http://127.0.0.1:9090/api/v1/query"
            ))
            .ok()?;
        let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let sent = ping(&sites, 200).unwrap();
    assert!(sent.contains("200 received"), "{sent}");
    let seen = wait_until(LIMIT, || {
        query("penstock_esp_packets_total{direction=\"out\"}").is_some_and(|packets| packets >= 200.0)
            && query("penstock_tunnel_packets_total{connection=\"site-2\",direction=\"in\"}")
                .is_some_and(|packets| packets >= 200.0)
    });
    assert!(seen, "{}", server.log());
    assert_eq!(query("up{job=\"penstock\"}"), Some(1.0));
    assert_eq!(query("penstock_dataplane_up"), Some(1.0));
    assert_eq!(
        query("penstock_children_configured-penstock_children_established"),
        Some(1.0)
    );
    assert_eq!(
        query("count(penstock_tunnel_up)"),
        Some(1.0),
        "the filter chose one"
    );
    // Both pings of the wait, at least, crossed both ports.
    for device in ["lan", "wan"] {
        let packets = query(&format!(
            "sum(penstock_nic_rx_packets_total{{device=\"{device}\"}})"
        ));
        assert!(
            packets.is_some_and(|packets| packets >= 200.0),
            "{device}: {packets:?}"
        );
    }
}

#[test]
fn counters_of_a_tunnel_survive_a_restart_of_control_and_a_change_of_its_keys() {
    let mut sites = start("survive");
    ping(&sites, 100).unwrap();
    let name = "penstock_tunnel_packets_total{connection=\"site-2\",direction=\"out\"}";
    let before = series(&scrape(&sites, "/metrics/tunnels"), name).unwrap();
    assert!(before >= 100.0, "{before}");
    sites.gateway_1.control().unwrap().kill().unwrap();
    sites.gateway_1.start_control().unwrap();
    let ready = wait_until(LIMIT, || get(&sites.topology.gateway_1, "/readyz").is_ok());
    assert!(ready, "{}", sites.gateway_1.logs());
    let after = series(&scrape(&sites, "/metrics/tunnels"), name).unwrap();
    assert!(after >= before, "{after} after {before}");
    // Another pair of SAs in place of the old one, which is removed: its packets stay in the sum.
    let folder = sites.gateway_1.folder().to_owned();
    let text = std::fs::read_to_string(folder.join("penstock.toml")).unwrap();
    let text = text
        .replace("spi_in = 0x1001", "spi_in = 0x1002")
        .replace("spi_out = 0x2001", "spi_out = 0x2002")
        .replace("to-1.key", "new-1.key")
        .replace("to-2.key", "new-2.key");
    for name in ["new-1.key", "new-2.key"] {
        let old = std::fs::read_to_string(folder.join(name.replace("new", "to"))).unwrap();
        let new: String = old.chars().rev().collect();
        let path = folder.join(name);
        std::fs::write(&path, new).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    sites.gateway_1.configure(&text).unwrap();
    sites.gateway_1.penstock(&["reload"]).unwrap();
    let spis = sites.gateway_1.penstock(&["show", "sa"]).unwrap();
    assert!(
        spis.contains("0x00002002") && !spis.contains("0x00002001"),
        "{spis}"
    );
    let rekeyed = series(&scrape(&sites, "/metrics/tunnels"), name).unwrap();
    assert!(rekeyed >= after, "{rekeyed} after {after}");
}

/// What Chromium makes of the page, and a picture of it.
fn browse(sites: &Sites, picture: &Path) -> String {
    let profile = sites.gateway_1.folder().join("chromium");
    let run = |last: &[&str]| {
        let mut command: Command = sites.topology.gateway_1.command("timeout");
        command.args(["90", "chromium", "--headless", "--no-sandbox", "--disable-gpu"]);
        command.args(["--disable-quic", "--no-first-run", "--disable-sync"]);
        command.args(["--disable-background-networking", "--disable-component-update"]);
        command.args(["--hide-scrollbars", "--window-size=1280,1250"]);
        // Time enough for two rounds of the page's refresh.
        command.arg("--virtual-time-budget=5000");
        command.arg(format!("--user-data-dir={}", profile.display()));
        let output = command.args(last).arg("http://127.0.0.1:9185/").output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    run(&[&format!("--screenshot={}", picture.display())]);
    run(&["--dump-dom"])
}

#[test]
fn the_status_page_shows_the_gateway_in_a_browser() {
    let sites = start("page");
    let seconds = std::env::var("PENSTOCK_SCREENSHOT").map_or(5, |_| 60);
    let mut load = sites.topology.host_a.command("ping");
    load.args([
        "-q",
        "-i",
        "0.005",
        "-s",
        "1000",
        "-w",
        &seconds.to_string(),
        HOST_B,
    ]);
    let mut load = load.stdout(std::process::Stdio::null()).spawn().unwrap();
    let samples = || {
        let text = scrape(&sites, "/status.json");
        let data: serde_json::Value = serde_json::from_str(&text).unwrap();
        data["history"].as_array().unwrap().len()
    };
    let wanted = if seconds > 5 { 25 } else { 3 };
    assert!(wait_until(Duration::from_secs(70), || samples() >= wanted));
    let kept = std::env::var("PENSTOCK_SCREENSHOT").map(std::path::PathBuf::from);
    let picture = kept
        .clone()
        .unwrap_or_else(|_| sites.gateway_1.folder().join("page.png"));
    let dom = browse(&sites, &picture);
    load.wait().unwrap();
    let header = std::fs::read(&picture).unwrap();
    assert_eq!(&header[1..4], b"PNG");
    assert!(header.len() > 20_000, "a picture of {} bytes", header.len());
    for text in [
        "gateway-1",
        "1 of 2 up",
        "site-2",
        "198.51.100.2",
        "branch",
        "driver",
        "10.2.0.0/24",
        "<path",
    ] {
        assert!(dom.contains(text), "no {text:?} in the page:\n{dom}");
    }
    assert!(
        dom.contains("id=\"fault\" role=\"alert\" style=\"display: none;\""),
        "{dom}"
    );
}

#[test]
fn the_rules_pass_promtool() {
    for arguments in [
        vec!["test".to_owned(), "rules".to_owned(), monitoring("tests.yml")],
        vec![
            "check".to_owned(),
            "rules".to_owned(),
            monitoring("recording.yml"),
            monitoring("alerts.yml"),
        ],
    ] {
        let output = Command::new("promtool").args(&arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
