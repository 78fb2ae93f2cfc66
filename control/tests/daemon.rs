//! `penstock-control` and `penstock` as they are built, before a dataplane that remembers. Needs root.

#![allow(clippy::unwrap_used)]

mod stand;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use southbound::{Event, NextHop, PortId, Rejection, SaDirection, SaRef, Update};
use stand::{Namespace, RecordingDataplane, wait_for};

const HEAD: &str = r#"
[gateway]
name = "gw"
[[port]]
interface = "lan"
role = "protected"
[[port]]
interface = "wan"
role = "internet"
"#;

fn tunnel(name: &str, number: u8, algorithm: &str, lines: &str) -> String {
    format!(
        r#"
[[tunnel]]
name = "{name}"
local = "192.0.2.1"
remote = "192.0.2.10{number}"
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.{number}.0.0/24"]
routes = ["10.{number}.0.0/24"]
[[tunnel.sa]]
spi_in = 0x{number}001
spi_out = 0x{number}002
algorithm = "{algorithm}"
key_in_file = "{number}-in.key"
key_out_file = "{number}-out.key"
{lines}
"#
    )
}

/// A folder, a namespace and the daemon in it.
struct Stand {
    folder: PathBuf,
    namespace: Namespace,
    control: Option<Child>,
}

impl Stand {
    fn new(configuration: &str) -> Self {
        let namespace = Namespace::new();
        namespace.veth("lan", "lan-peer");
        namespace.veth("wan", "wan-peer");
        namespace.ip("addr add 10.1.0.1/24 dev lan");
        namespace.ip("addr add 192.0.2.1/24 dev wan");
        namespace.ip("route add default via 192.0.2.254");
        let folder = std::env::temp_dir().join(format!("penstock-{}", namespace.name()));
        fs::create_dir_all(&folder).unwrap();
        let stand = Self {
            folder,
            namespace,
            control: None,
        };
        for number in 2..6u8 {
            stand.key(&format!("{number}-in.key"), number * 2, 20);
            stand.key(&format!("{number}-out.key"), number * 2 + 1, 20);
        }
        stand.configure(configuration);
        stand
    }

    fn key(&self, name: &str, byte: u8, length_bytes: usize) {
        let path = self.folder.join(name);
        fs::write(&path, format!("{byte:02x}").repeat(length_bytes)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn configure(&self, text: &str) {
        fs::write(self.folder.join("penstock.toml"), text).unwrap();
    }

    fn dataplane(&self, instance: u64) -> RecordingDataplane {
        RecordingDataplane::start(&self.folder.join("dataplane.sock"), instance)
    }

    fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("control.log"))
            .unwrap();
        let child = self
            .namespace
            .command(env!("CARGO_BIN_EXE_penstock-control"))
            .arg("--config")
            .arg(self.folder.join("penstock.toml"))
            .arg("--dataplane-socket")
            .arg(self.folder.join("dataplane.sock"))
            .arg("--admin-socket")
            .arg(self.folder.join("admin.sock"))
            .arg("--state")
            .arg(self.folder.join("state"))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.control = Some(child);
    }

    /// Starts the daemon and waits until the dataplane holds everything.
    fn start_settled(&mut self) {
        self.start();
        wait_for("the daemon to settle", || {
            self.status().is_some_and(|status| status["settled"] == true)
        });
    }

    fn kill(&mut self) {
        let mut child = self.control.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn penstock(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .arg("--socket")
            .arg(self.folder.join("admin.sock"))
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, error) = self.penstock(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{error}");
        serde_json::from_str(&out).unwrap()
    }

    fn status(&self) -> Option<Value> {
        let (code, out, _) = self.penstock(&["--json"]);
        (code == 0).then(|| serde_json::from_str(&out).unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("control.log")).unwrap_or_default()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(mut child) = self.control.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spis(dataplane: &RecordingDataplane) -> Vec<u32> {
    let mut spis = dataplane.find(|update| match update {
        Update::InstallSa(sa) => Some(sa.spi),
        _ => None,
    });
    spis.sort_unstable();
    spis
}

fn route(dataplane: &RecordingDataplane, prefix: &str) -> Option<NextHop> {
    dataplane
        .find(|update| match update {
            Update::PutRoute(route) if route.prefix.to_string() == prefix => Some(route.next_hops[0]),
            _ => None,
        })
        .pop()
}

#[test]
fn everything_reaches_the_dataplane_and_is_shown() {
    let mut stand = Stand::new(&(HEAD.to_owned() + &tunnel("b", 2, "aes128gcm16", "")));
    let dataplane = stand.dataplane(1);
    stand.start_settled();
    assert_eq!(spis(&dataplane), [0x2001, 0x2002]);
    assert!(matches!(
        route(&dataplane, "10.2.0.0/24"),
        Some(NextHop::Tunnel(_))
    ));
    assert!(matches!(
        route(&dataplane, "0.0.0.0/0"),
        Some(NextHop::Port { .. })
    ));
    let chosen = dataplane.find(|update| match update {
        Update::SelectOutbound { sa, .. } => Some(sa.spi),
        _ => None,
    });
    assert_eq!(chosen, [0x2002]);

    let tunnels = stand.json(&["show", "tunnels"]);
    assert_eq!(tunnels["schema"], 1);
    assert_eq!(tunnels["tunnels"][0]["name"], "b");
    let sas = stand.json(&["show", "sa"]);
    assert_eq!(sas["sas"][0]["spi"], "0x00002001");
    assert_eq!(sas["sas"][1]["tunnel"], "b");
    let drops = stand.json(&["show", "drops"]);
    let no_route = drops["drops"]
        .as_array()
        .unwrap()
        .iter()
        .find(|drop| drop["reason"] == "no_route")
        .unwrap();
    assert_eq!(no_route["packets"], 42);
    let (code, table, _) = stand.penstock(&["show", "drops"]);
    assert_eq!(code, 0);
    assert_eq!(table.lines().count(), 2, "{table}");
    let (_, lines, _) = stand.penstock(&["show", "routes", "--json=lines"]);
    assert!(lines.lines().count() >= 4, "{lines}");
    for line in lines.lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["schema"], 1);
    }
    assert_eq!(stand.penstock(&["show", "sa", "nobody"]).0, 6);
    assert_eq!(stand.penstock(&["show", "sa", "b"]).0, 0);
    assert_eq!(stand.penstock(&["show", "nonsense"]).0, 1);
    let (code, table, _) = stand.penstock(&["show", "sa"]);
    assert!(code == 0 && table.starts_with("TUNNEL"), "{table}");

    // The kernel changes, and the dataplane hears of it.
    stand.namespace.ip("route add 203.0.113.0/24 via 192.0.2.9");
    wait_for("the kernel's route", || {
        route(&dataplane, "203.0.113.0/24").is_some()
    });
    // A neighbour is needed, and the kernel is asked.
    let wan = dataplane
        .find(|update| match update {
            Update::PutPort(port) if port.interface == "wan" => Some(port.id),
            _ => None,
        })
        .pop()
        .unwrap();
    dataplane.raise(Event::NeighbourNeeded {
        port: wan,
        address: "192.0.2.9".parse().unwrap(),
    });
    wait_for("the kernel to ask", || {
        stand.namespace.ip("neigh show dev wan").contains("192.0.2.9")
    });
    drop(dataplane);
    wait_for("the loss to be seen", || stand.penstock(&["show", "sa"]).0 == 3);
    stand.kill();
    let (code, _, error) = stand.penstock(&["show", "sa"]);
    assert_eq!(code, 3, "{error}");
}

#[test]
fn fault_77_a_restarted_control_adopts_what_is_there() {
    let text = HEAD.to_owned() + &tunnel("b", 2, "aes128gcm16", "") + &tunnel("c", 3, "aes128gcm16", "");
    let mut stand = Stand::new(&text);
    let dataplane = stand.dataplane(1);
    stand.start_settled();
    let before = dataplane.holds();
    stand.kill();
    assert_eq!(dataplane.holds(), before, "the dataplane keeps everything");
    // Another order of the file must not give things other numbers.
    stand.configure(
        &(HEAD.to_owned() + &tunnel("c", 3, "aes128gcm16", "") + &tunnel("b", 2, "aes128gcm16", "")),
    );
    stand.start_settled();
    assert_eq!(dataplane.syncs(), 2);
    assert_eq!(dataplane.holds(), before);
    assert_eq!(stand.status().unwrap()["refused_tunnels"], Value::Array(vec![]));
}

#[test]
fn fault_78_a_counter_mode_key_is_not_given_to_a_second_dataplane() {
    let cbc = tunnel("cbc", 4, "aes128-sha256", "");
    let text = |flag: &str| HEAD.to_owned() + &tunnel("b", 2, "aes128gcm16", flag) + &cbc;
    let mut stand = Stand::new(&text(""));
    stand.key("4-in.key", 1, 48);
    stand.key("4-out.key", 2, 48);
    let first = stand.dataplane(1);
    stand.start_settled();
    assert_eq!(spis(&first), [0x2001, 0x2002, 0x4001, 0x4002]);
    drop(first);
    let second = stand.dataplane(2);
    wait_for("the second dataplane", || second.syncs() == 1);
    assert_eq!(spis(&second), [0x4001, 0x4002], "only the cipher without nonces");
    // The tunnel is there without an SA: its traffic waits and is dropped, and never goes out in clear.
    assert!(matches!(route(&second, "10.2.0.0/24"), Some(NextHop::Tunnel(_))));
    wait_for("the reason to be shown", || {
        let tunnels = stand.json(&["show", "tunnels", "b"]);
        tunnels["tunnels"][0]["state"] == "refused"
            && tunnels["tunnels"][0]["reasons"][0]
                .as_str()
                .is_some_and(|reason| reason.contains("was in use before the dataplane was restarted"))
    });
    assert!(stand.log().contains("accept_nonce_reuse_risk"));

    // The record survives the control process too.
    stand.kill();
    stand.start_settled();
    assert_eq!(spis(&second), [0x4001, 0x4002]);

    // A new key is taken by a reload.
    stand.key("2-in.key", 0xa1, 20);
    stand.key("2-out.key", 0xa2, 20);
    let (code, _, error) = stand.penstock(&["reload"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(spis(&second).len(), 4);

    // Or the operator says that he accepts the risk.
    drop(second);
    let third = stand.dataplane(3);
    wait_for("the third dataplane", || third.syncs() == 1);
    assert_eq!(spis(&third).len(), 2);
    stand.configure(&text("accept_nonce_reuse_risk = true"));
    let (code, _, error) = stand.penstock(&["reload"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(spis(&third).len(), 4);
    assert!(stand.log().contains("may be revealed"));
}

#[test]
fn a_key_whose_sa_was_removed_does_not_come_back() {
    let with = HEAD.to_owned() + &tunnel("b", 2, "aes128gcm16", "");
    let mut stand = Stand::new(&with);
    let dataplane = stand.dataplane(1);
    stand.start_settled();
    stand.configure(HEAD);
    assert_eq!(stand.penstock(&["reload"]).0, 0);
    wait_for("the SAs to go", || spis(&dataplane).is_empty());
    stand.configure(&with);
    let (code, _, error) = stand.penstock(&["reload"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("was in use, and its SA was removed"), "{error}");
    assert!(spis(&dataplane).is_empty());
    // The same key under another SPI is the same key.
    stand.configure(&with.replace("0x2001", "0x7001").replace("0x2002", "0x7002"));
    let (code, _, error) = stand.penstock(&["reload"]);
    assert_eq!(code, 2, "{error}");
}

#[test]
fn a_reload_applies_the_difference_and_touches_nothing_else() {
    let b = tunnel("b", 2, "aes128gcm16", "");
    let mut stand = Stand::new(&(HEAD.to_owned() + &b));
    let dataplane = stand.dataplane(1);
    stand.start_settled();
    let applied = dataplane.applied();
    stand.configure(&(HEAD.to_owned() + &b + &tunnel("c", 3, "aes128gcm16", "")));
    assert_eq!(stand.penstock(&["reload", "--dry-run"]).0, 0);
    assert_eq!(dataplane.applied(), applied);
    assert_eq!(stand.penstock(&["reload"]).0, 0);
    // Tunnel, two SAs, choice and route.
    assert_eq!(dataplane.applied(), applied + 5);
    stand.configure(&(HEAD.to_owned() + &b));
    assert_eq!(stand.penstock(&["reload"]).0, 0);
    wait_for("the tunnel to go", || spis(&dataplane) == [0x2001, 0x2002]);
    assert!(route(&dataplane, "10.3.0.0/24").is_none());

    // A faulty file changes nothing, by the verb or by the signal.
    stand.configure("[gateway]\ncolour = 1\n");
    let (code, _, error) = stand.penstock(&["reload"]);
    assert_eq!(code, 1);
    assert!(error.contains("penstock.toml:2:1: unknown field"), "{error}");
    assert_eq!(spis(&dataplane), [0x2001, 0x2002]);
    assert!(stand.status().unwrap()["last_reload_error"].is_string());

    stand.configure(&(HEAD.to_owned() + &b + &tunnel("e", 5, "aes128gcm16", "")));
    let child = stand.control.as_ref().unwrap().id();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child).unwrap()),
        nix::sys::signal::Signal::SIGHUP,
    )
    .unwrap();
    wait_for("SIGHUP to reload", || spis(&dataplane).len() == 4);
}

#[test]
fn fault_79_what_the_dataplane_refuses_is_rolled_back_whole() {
    let b = tunnel("b", 2, "aes128gcm16", "");
    let mut stand = Stand::new(&(HEAD.to_owned() + &b));
    let dataplane = stand.dataplane(1);
    stand.start_settled();
    let before = dataplane.holds();
    let refuse_outbound = |number: u8| {
        dataplane.refuse(
            &Update::RemoveSa(SaRef {
                direction: SaDirection::Outbound,
                spi: u32::from(number) << 12 | 2,
                destination: format!("192.0.2.10{number}").parse().unwrap(),
            }),
            Rejection::TableFull {
                table: "SAs".into(),
                limit: 2,
            },
        );
    };
    refuse_outbound(3);
    // The change replaces one tunnel by another: the old one must be whole after the refusal.
    stand.configure(&(HEAD.to_owned() + &tunnel("c", 3, "aes128gcm16", "")));
    let (code, _, error) = stand.penstock(&["reload"]);
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains("full") && error.contains("the old configuration stands"),
        "{error}"
    );
    wait_for("nothing to be half-installed", || dataplane.holds() == before);
    assert_eq!(
        stand.json(&["show", "tunnels"])["tunnels"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    // At the start there is no old configuration: the tunnel stands without either of its SAs.
    refuse_outbound(5);
    stand.kill();
    stand.configure(&(HEAD.to_owned() + &b + &tunnel("e", 5, "aes128gcm16", "")));
    stand.start_settled();
    wait_for("the pair to be refused whole", || {
        spis(&dataplane) == [0x2001, 0x2002]
    });
    let tunnels = stand.json(&["show", "tunnels", "e"]);
    assert!(
        tunnels["tunnels"][0]["reasons"].to_string().contains("full"),
        "{tunnels}"
    );
}

#[test]
fn fault_81_control_waits_for_a_dataplane_that_comes_later() {
    let mut stand = Stand::new(&(HEAD.to_owned() + &tunnel("b", 2, "aes128gcm16", "")));
    stand.start();
    wait_for("the daemon to answer", || stand.status().is_some());
    assert_eq!(stand.status().unwrap()["dataplane"], "down");
    assert_eq!(stand.penstock(&["show", "sa"]).0, 3);
    let dataplane = stand.dataplane(9);
    wait_for("the dataplane to be told", || dataplane.syncs() == 1);
    assert_eq!(spis(&dataplane).len(), 2);
}

#[test]
fn fault_87_strangers_may_look_only_if_they_are_let_in_and_never_change() {
    let mut stand = Stand::new(HEAD);
    let _dataplane = stand.dataplane(1);
    stand.start_settled();
    let socket = stand.folder.join("admin.sock");
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o660);
    // The binary and the folder must be within reach of a user who is not root.
    fs::set_permissions(&stand.folder, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = stand.folder.join("penstock");
    fs::copy(env!("CARGO_BIN_EXE_penstock"), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let as_user = |group: u32, arguments: &[&str]| {
        Command::new(&binary)
            .arg("--socket")
            .arg(&socket)
            .args(arguments)
            .uid(65534)
            .gid(group)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(as_user(65534, &["show", "ports"]), Some(3), "closed to others");
    assert_eq!(as_user(0, &["show", "ports"]), Some(0), "the group may look");
    assert_eq!(as_user(0, &["reload"]), Some(2), "and not change");
}

#[test]
fn fault_84_slow_and_lying_clients_hold_nobody_up() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let mut stand = Stand::new(HEAD);
    let _dataplane = stand.dataplane(1);
    stand.start_settled();
    let socket = stand.folder.join("admin.sock");
    let connect = || UnixStream::connect(&socket).unwrap();
    // Says nothing; lies about its length; asks nonsense; asks and never reads.
    let _silent = connect();
    let mut lying = connect();
    lying.write_all(&u32::MAX.to_be_bytes()).unwrap();
    lying.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = Vec::new();
    lying.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("exceeds the limit"));
    let mut odd = connect();
    odd.write_all(&[0, 0, 0, 2, b'{', b'}']).unwrap();
    answer.clear();
    odd.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("no request"));
    let request = br#"{"verb":"show","noun":"routes"}"#;
    let mut deaf = connect();
    deaf.write_all(&(request.len() as u32).to_be_bytes()).unwrap();
    deaf.write_all(request).unwrap();
    for _ in 0..20 {
        assert_eq!(stand.penstock(&["show", "ports"]).0, 0);
    }
}

#[test]
fn fault_86_no_key_is_in_the_log_the_answers_or_the_record() {
    let mut stand = Stand::new(&(HEAD.to_owned() + &tunnel("b", 2, "aes128gcm16", "")));
    let dataplane = stand.dataplane(1);
    stand.start_settled();
    dataplane.raise(Event::PortChanged { port: PortId(1) });
    let key = "04".repeat(20);
    let everything = [
        stand.log(),
        fs::read_to_string(stand.folder.join("state/key-use.json")).unwrap(),
        stand.penstock(&["show", "sa", "--json"]).1,
        stand.penstock(&["show", "tunnels"]).1,
        stand.penstock(&["--json"]).1,
    ];
    for text in everything {
        assert!(!text.contains(&key) && !text.contains(&"4, ".repeat(6)), "{text}");
    }
    let state = fs::metadata(stand.folder.join("state/key-use.json")).unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o600);
    let child = stand.control.as_ref().unwrap().id();
    // `ip netns exec` becomes the daemon: the same process.
    let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
}
