//! The metrics endpoint of the built daemon. Needs root.

#![allow(clippy::unwrap_used)]

mod stand;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use stand::{Namespace, RecordingDataplane, wait_for};

/// The daemon in a namespace that this thread is in too.
struct Stand {
    folder: std::path::PathBuf,
    control: Child,
    _dataplane: RecordingDataplane,
    _namespace: Namespace,
}

impl Stand {
    fn new() -> Self {
        let namespace = Namespace::new();
        let folder = std::env::temp_dir().join(format!("penstock-{}", namespace.name()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("penstock.toml"), "[metrics]\n").unwrap();
        let dataplane = RecordingDataplane::start(&folder.join("dataplane.sock"), 1);
        let control = namespace
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
            .unwrap();
        namespace.enter();
        wait_for("the endpoint", || TcpStream::connect("127.0.0.1:9185").is_ok());
        Self {
            folder,
            control,
            _dataplane: dataplane,
            _namespace: namespace,
        }
    }
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

#[test]
fn fault_88_only_reading_is_answered_and_a_slow_client_holds_nobody_up() {
    let _stand = Stand::new();
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    wait_for("the dataplane", || ask(get).contains("penstock_dataplane_up 1"));
    let text = ask(get);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("penstock_drop_packets_total{reason=\"no_route\",stage=\"fib\"} 42"));
    assert!(text.contains("penstock_netlink_resyncs_total 1"));
    let head = ask(&get.replace("GET", "HEAD"));
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(ask(&get.replace("GET", "POST")).starts_with("HTTP/1.1 405"));
    assert!(ask(&get.replace("/metrics", "/")).starts_with("HTTP/1.1 404"));
    assert!(ask(&format!("GET /{} HTTP/1.1", "x".repeat(20_000))).starts_with("HTTP/1.1 431"));
    // Clients that say nothing are fewer than the places, and lose them after a while.
    let silent: Vec<_> = (0..7)
        .map(|_| TcpStream::connect("127.0.0.1:9185").unwrap())
        .collect();
    assert!(ask(get).starts_with("HTTP/1.1 200"));
    drop(silent);
}
