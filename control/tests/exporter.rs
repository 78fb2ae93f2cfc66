//! The metrics endpoint of the built daemon. Needs root.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod stand;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stand::{Namespace, RecordingDataplane, wait_for};

/// The daemon in a namespace that this thread is in too.
struct Stand {
    folder: std::path::PathBuf,
    control: Child,
    dataplane: RecordingDataplane,
    namespace: Namespace,
}

impl Stand {
    /// With lines of the `[metrics]` table, in which `{folder}` is the stand's folder, and files of mode 0600.
    fn new(metrics: &str, tunnels: &str, files: &[(&str, &str)]) -> Self {
        let namespace = Namespace::new();
        let folder = std::env::temp_dir().join(format!("penstock-{}", namespace.name()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::fs::write(
            folder.join("penstock.toml"),
            format!("[metrics]\n{metrics}\n{tunnels}"),
        )
        .unwrap();
        let dataplane = RecordingDataplane::start(&folder.join("dataplane.sock"), 1);
        let control = spawn(&namespace, &folder);
        namespace.enter();
        wait_for("the endpoint", || TcpStream::connect("127.0.0.1:9185").is_ok());
        Self {
            folder,
            control,
            dataplane,
            namespace,
        }
    }

    fn restart_control(&mut self) {
        self.control.kill().unwrap();
        self.control.wait().unwrap();
        self.control = spawn(&self.namespace, &self.folder);
        wait_for("the endpoint", || TcpStream::connect("127.0.0.1:9185").is_ok());
    }
}

fn spawn(namespace: &Namespace, folder: &std::path::Path) -> Child {
    namespace
        .command(env!("CARGO_BIN_EXE_penstock-control"))
        .args(["--config", &folder.join("penstock.toml").to_string_lossy()])
        .args([
            "--dataplane-socket",
            &folder.join("dataplane.sock").to_string_lossy(),
        ])
        .args(["--admin-socket", &folder.join("admin.sock").to_string_lossy()])
        .args(["--state", &folder.join("state").to_string_lossy()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ask(request: &str) -> String {
    let mut stream = TcpStream::connect("127.0.0.1:9185").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // A server that refuses a long request closes before it has read it all.
    let _ = stream.read_to_string(&mut answer);
    answer
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn get(path: &str, header: &str) -> String {
    ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n"))
}

/// Three tunnels without an SA: configured, and down.
fn tunnels() -> String {
    (1..=3)
        .map(|number| {
            format!(
                "[[tunnel]]\nname = \"site-{number}\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.{}\"\n",
                number + 1
            )
        })
        .collect()
}

#[test]
fn fault_88_only_reading_is_answered_and_a_slow_client_holds_nobody_up() {
    let _stand = Stand::new("", "", &[]);
    wait_for("the dataplane", || ask(GET).contains("penstock_dataplane_up 1"));
    let text = ask(GET);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("penstock_drop_packets_total{reason=\"no_route\",stage=\"fib\"} 42"));
    assert!(text.contains("penstock_netlink_resyncs_total 1"));
    let head = ask(&GET.replace("GET", "HEAD"));
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(ask(&GET.replace("GET", "POST")).starts_with("HTTP/1.1 405"));
    assert!(get("/other", "").starts_with("HTTP/1.1 404"));
    assert!(ask(&format!("GET /{} HTTP/1.1", "x".repeat(20_000))).starts_with("HTTP/1.1 431"));
    // Clients that say nothing are fewer than the places, and lose them after a while.
    let silent: Vec<_> = (0..31)
        .map(|_| TcpStream::connect("127.0.0.1:9185").unwrap())
        .collect();
    assert!(ask(GET).starts_with("HTTP/1.1 200"));
    drop(silent);
}

#[test]
fn tunnels_that_are_configured_and_down_are_seen_and_totals_survive_a_restart_of_control() {
    let mut stand = Stand::new("max_tunnel_series = 14", &tunnels(), &[]);
    wait_for("the tunnels", || {
        get("/metrics", "").contains("penstock_tunnels{state=\"down\"} 3")
    });
    let text = get("/metrics", "");
    for line in [
        "penstock_children_configured 3",
        "penstock_children_established 0",
        "penstock_tunnels{state=\"down\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // Seven samples a tunnel, and room for fourteen.
    let detail = get("/metrics/tunnels", "");
    assert!(
        detail.contains("penstock_metrics_tunnels_suppressed 1\n"),
        "{detail}"
    );
    let chosen = get("/metrics/tunnels?connection=site-%5B3%5D", "");
    assert!(chosen.contains("penstock_tunnel_up{connection=\"site-3\"} 0"));
    assert!(!chosen.contains("site-1"), "{chosen}");
    assert!(get("/metrics/tunnels?connection=(", "").starts_with("HTTP/1.1 400"));
    let total = "penstock_tunnel_bytes_total{connection=\"site-3\",direction=\"out\"} 700";
    assert!(chosen.contains(total), "{chosen}");
    stand.restart_control();
    wait_for("the totals, after a restart", || {
        get("/metrics/tunnels?connection=site-3", "").contains(total)
    });
    assert_eq!(
        stand
            .dataplane
            .find(|update| match update {
                southbound::Update::PutTunnel(tunnel) => Some(tunnel.id),
                _ => None,
            })
            .len(),
        3
    );
}

#[test]
fn the_form_is_negotiated_and_health_is_told() {
    let stand = Stand::new("", "", &[]);
    wait_for("readiness", || get("/readyz", "").starts_with("HTTP/1.1 200"));
    let open = get(
        "/metrics",
        "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5\r\n",
    );
    assert!(open.contains("Content-Type: application/openmetrics-text; version=1.0.0"));
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE penstock_drop_packets counter\n"));
    assert!(open.contains("penstock_drop_packets_total{reason=\"no_route\",stage=\"fib\"} 42\n"));
    let text = get("/metrics", "Accept: text/plain\r\n");
    assert!(text.contains("Content-Type: text/plain; version=0.0.4"));
    assert!(text.contains("# TYPE penstock_drop_packets_total counter\n"));
    let page = get("/", "");
    assert!(
        page.contains("Content-Security-Policy: default-src 'none'"),
        "{page}"
    );
    let Stand { dataplane, .. } = &stand;
    assert_eq!(dataplane.syncs(), 1);
    assert!(get("/healthz", "").contains("ok"));
}

#[test]
fn names_pass_promtool() {
    let _stand = Stand::new("", &tunnels(), &[]);
    wait_for("readiness", || get("/readyz", "").starts_with("HTTP/1.1 200"));
    for path in ["/metrics", "/metrics/tunnels"] {
        let answer = get(path, "");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool of the package prometheus");
        promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success() && said.is_empty(),
            "{path}: {}",
            String::from_utf8_lossy(&said)
        );
    }
}

#[test]
fn over_tls_only_the_user_is_answered_and_nothing_is_answered_in_clear() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&authority).unwrap();
    let stand = Stand::new(
        "certificate_file = \"tls.crt\"\nkey_file = \"tls.key\"\nuser = \"prometheus\"\npassword_file = \"password\"",
        "",
        &[
            ("tls.crt", &certificate.pem()),
            ("tls.key", &authority.serialize_pem()),
            ("password", "swordfish\n"),
        ],
    );
    let curl = |user: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--write-out", "%{http_code}", "--cacert"])
            .arg(stand.folder.join("tls.crt"))
            .args(["--user", user, "https://127.0.0.1:9185/metrics"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let right = curl("prometheus:swordfish");
    assert!(
        right.ends_with("200") && right.contains("penstock_build_info"),
        "{right}"
    );
    for wrong in ["prometheus:guess", "root:swordfish"] {
        let refused = curl(wrong);
        assert!(
            refused.ends_with("401") && !refused.contains("penstock_"),
            "{refused}"
        );
    }
    assert!(!ask(GET).contains("penstock_"), "nothing in clear");
}
