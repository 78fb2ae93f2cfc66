//! `penstock-control` as it is built, between zebra's captured sessions and a dataplane that remembers. Needs
//! root.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod stand;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sched::CloneFlags;
use serde_json::Value;
use southbound::{
    Label, LabelOperation, LabelSpaceId, LabelStack, LabelVia, NextHop, Nhlfe, PortId, Update, VrfId,
};
use stand::{Namespace, RecordingDataplane, wait_for};

const CAPTURE: &[u8] = include_bytes!("../fuzz/seeds/fpm/zebra-next-hops.fpm");

const RED: VrfId = VrfId(1010);

/// The PE of the captures: interface 2 leads to the P router, 3 is the VRF's device, 5 the customer's port.
const CONFIGURATION: &str = r#"
[gateway]
name = "pe1"
[fpm]
listen = "127.0.0.1:2620"
stale_seconds = STALE
[[vrf]]
name = "red"
table = 1010
[[port]]
interface = "e12"
role = "protected"
mpls = true
[[port]]
interface = "ce"
role = "protected"
vrf = "red"
[[label]]
label = 17
action = "discard"
"#;

struct Pe {
    folder: PathBuf,
    namespace: Namespace,
    control: Option<Child>,
}

impl Pe {
    fn new(stale_seconds: u32) -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add e12 index 2 type veth peer name e21 index 12");
        namespace.ip("link add red index 3 type bridge");
        namespace.ip("link add ce index 5 type veth peer name cex index 15");
        for name in ["e12", "e21", "red", "ce", "cex"] {
            namespace.ip(&format!("link set {name} up"));
        }
        namespace.ip("addr add 10.0.12.1/24 dev e12");
        namespace.ip("addr add 10.50.1.1/24 dev ce");
        // The host's own idea of a prefix that zebra tells as well.
        namespace.ip("route add 203.0.113.0/24 via 10.0.12.7");
        let folder = std::env::temp_dir().join(format!("penstock-{}", namespace.name()));
        fs::create_dir_all(&folder).unwrap();
        let configuration = CONFIGURATION.replace("STALE", &stale_seconds.to_string());
        fs::write(folder.join("penstock.toml"), configuration).unwrap();
        Self {
            folder,
            namespace,
            control: None,
        }
    }

    fn start(&mut self) {
        let log = fs::File::create(self.folder.join("control.log")).unwrap();
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_penstock-control"));
        for (option, name) in [
            ("--config", "penstock.toml"),
            ("--dataplane-socket", "dataplane.sock"),
            ("--admin-socket", "admin.sock"),
            ("--state", "state"),
        ] {
            command.arg(option).arg(self.folder.join(name));
        }
        self.control = Some(
            command
                .stdin(Stdio::null())
                .stderr(log.try_clone().unwrap())
                .stdout(log)
                .spawn()
                .unwrap(),
        );
    }

    /// As a crash would end it.
    fn kill(&mut self) {
        let mut control = self.control.take().unwrap();
        control.kill().unwrap();
        control.wait().unwrap();
    }

    /// A connection of zebra's place, in the namespace.
    fn zebra(&self) -> TcpStream {
        let path = format!("/run/netns/{}", self.namespace.name());
        std::thread::spawn(move || {
            nix::sched::setns(fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let mut last = None;
            for _ in 0..200 {
                match TcpStream::connect("127.0.0.1:2620") {
                    Ok(stream) => return stream,
                    Err(error) => last = Some(error),
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            panic!("nobody listens: {last:?}")
        })
        .join()
        .unwrap()
    }

    fn show(&self, noun: &str) -> Vec<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .arg("--socket")
            .arg(self.folder.join("admin.sock"))
            .args(["show", noun, "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer[noun].as_array().unwrap().clone()
    }
}

impl Drop for Pe {
    fn drop(&mut self) {
        if self.control.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("control.log"));
            eprintln!("{}", log.unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn route(dataplane: &RecordingDataplane, vrf: VrfId, prefix: &str) -> Option<Vec<NextHop>> {
    let prefix = prefix.parse().unwrap();
    dataplane
        .find(|update| match update {
            Update::PutRoute(route) if route.vrf == vrf && route.prefix == prefix => {
                Some(route.next_hops.clone())
            }
            _ => None,
        })
        .pop()
}

fn label(dataplane: &RecordingDataplane, value: u32) -> Option<LabelOperation> {
    dataplane
        .find(|update| match update {
            Update::PutIlm(ilm) if ilm.label.value() == value && ilm.space == LabelSpaceId::PLATFORM => {
                Some(ilm.operation.clone())
            }
            _ => None,
        })
        .pop()
}

fn by_p(port: PortId, labels: &[u32]) -> Nhlfe {
    let labels: Vec<_> = labels.iter().map(|value| Label::new(*value).unwrap()).collect();
    let gateway = "10.0.12.2".parse().unwrap();
    Nhlfe::new(
        LabelStack::new(&labels).unwrap(),
        LabelVia::Port { port, gateway },
    )
}

fn core_port(dataplane: &RecordingDataplane) -> PortId {
    let core = dataplane.find(|update| match update {
        Update::PutPort(port) if port.interface == "e12" => Some(port.id),
        _ => None,
    });
    core[0]
}

/// Whether the dataplane has the labelled part of what the capture tells.
fn has_labels(dataplane: &RecordingDataplane, core: PortId) -> bool {
    route(dataplane, RED, "10.50.3.0/24") == Some(vec![NextHop::Labelled(by_p(core, &[17, 80]))])
        && label(dataplane, 80) == Some(LabelOperation::PopAndLookup(RED))
}

#[test]
fn what_zebra_tells_reaches_the_dataplane_and_outlives_its_session_for_the_stale_timer() {
    let mut pe = Pe::new(4);
    let dataplane = RecordingDataplane::start(&pe.folder.join("dataplane.sock"), 1);
    pe.start();
    wait_for("the first synchronisation", || dataplane.syncs() == 1);
    let core = core_port(&dataplane);
    let kernel_route = Some(vec![NextHop::Port {
        port: core,
        gateway: Some("10.0.12.7".parse().unwrap()),
    }]);
    wait_for("the kernel's route", || {
        route(&dataplane, VrfId::MAIN, "203.0.113.0/24") == kernel_route
    });
    // The customer's own network stands in the kernel's main table here, and yet in the VRF's.
    assert!(route(&dataplane, RED, "10.50.1.0/24").is_some());
    assert_eq!(route(&dataplane, VrfId::MAIN, "10.50.1.0/24"), None);

    let told = |dataplane: &RecordingDataplane| {
        has_labels(dataplane, core)
            && route(dataplane, VrfId::MAIN, "203.0.113.0/24") == Some(vec![NextHop::Blackhole])
    };
    let mut zebra = pe.zebra();
    zebra.write_all(CAPTURE).unwrap();
    wait_for("what zebra told", || told(&dataplane));
    assert_eq!(
        route(&dataplane, VrfId::MAIN, "3.3.3.3/32"),
        Some(vec![NextHop::Labelled(by_p(core, &[17]))])
    );
    assert_eq!(
        label(&dataplane, 16),
        Some(LabelOperation::Forward {
            next_hops: vec![by_p(core, &[])],
            weights: vec![]
        })
    );
    assert_eq!(
        label(&dataplane, 17),
        Some(LabelOperation::Discard),
        "the configuration has precedence"
    );
    let shown = pe.show("fpm").pop().unwrap();
    assert_eq!(shown["state"], "connected");
    assert_eq!((&shown["labels"], &shown["malformed"]), (&4.into(), &0.into()));

    // zebra goes and comes again within the stale timer.
    drop(zebra);
    wait_for("the end of the session", || {
        pe.show("fpm")[0]["state"] == "listening"
    });
    assert!(told(&dataplane), "a lost session takes nothing away");
    let mut zebra = pe.zebra();
    zebra.write_all(CAPTURE).unwrap();
    wait_for("the second session's end of stale state", || {
        let shown = &pe.show("fpm")[0];
        shown["sessions"] == 2 && shown["stale"] == 0 && shown["messages"].as_u64() > Some(60)
    });
    assert!(told(&dataplane));

    // It goes for good: its own go, and the kernel's route is back.
    drop(zebra);
    wait_for("the stale timer", || {
        route(&dataplane, RED, "10.50.3.0/24").is_none() && label(&dataplane, 80).is_none()
    });
    wait_for("the kernel's route again", || {
        route(&dataplane, VrfId::MAIN, "203.0.113.0/24") == kernel_route
    });
    assert_eq!(label(&dataplane, 17), Some(LabelOperation::Discard));
}

#[test]
fn fault_77_a_new_control_process_adopts_what_frr_told_the_one_before() {
    let mut pe = Pe::new(6);
    let dataplane = RecordingDataplane::start(&pe.folder.join("dataplane.sock"), 1);
    pe.start();
    wait_for("the first synchronisation", || dataplane.syncs() == 1);
    let core = core_port(&dataplane);
    let mut zebra = pe.zebra();
    zebra.write_all(CAPTURE).unwrap();
    wait_for("what zebra told", || has_labels(&dataplane, core));

    // The process goes, and zebra's connection with it; the next one has only the dataplane to ask.
    pe.kill();
    drop(zebra);
    pe.start();
    wait_for("the second synchronisation", || dataplane.syncs() == 2);
    assert!(has_labels(&dataplane, core), "{:?}", dataplane.holds());
    assert_eq!(
        label(&dataplane, 17),
        Some(LabelOperation::Discard),
        "the configuration's is not FRR's"
    );

    // zebra tells it anew in time: nothing goes with the stale timer.
    let mut zebra = pe.zebra();
    zebra.write_all(CAPTURE).unwrap();
    wait_for("the stale timer", || {
        assert!(has_labels(&dataplane, core));
        pe.show("fpm")[0]["stale_seconds_left"].is_null()
    });
    assert!(has_labels(&dataplane, core));

    // It does not: what was adopted goes with the timer, and the configuration's stays.
    pe.kill();
    drop(zebra);
    pe.start();
    wait_for("the third synchronisation", || dataplane.syncs() == 3);
    assert!(has_labels(&dataplane, core), "{:?}", dataplane.holds());
    wait_for("the stale timer", || {
        route(&dataplane, RED, "10.50.3.0/24").is_none() && label(&dataplane, 80).is_none()
    });
    assert_eq!(label(&dataplane, 17), Some(LabelOperation::Discard));
}

/// A connection that zebra gave up, unknown to us, must not keep its next one out; so the newest counts.
#[test]
fn a_second_connection_takes_the_place_of_the_first() {
    let mut pe = Pe::new(60);
    let dataplane = RecordingDataplane::start(&pe.folder.join("dataplane.sock"), 1);
    pe.start();
    wait_for("the first synchronisation", || dataplane.syncs() == 1);
    let core = core_port(&dataplane);
    let mut first = pe.zebra();
    first.write_all(CAPTURE).unwrap();
    wait_for("what zebra told", || has_labels(&dataplane, core));
    let second = pe.zebra();
    wait_for("the second session", || pe.show("fpm")[0]["sessions"] == 2);
    first
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 0, "the first is closed");
    let shown = pe.show("fpm").pop().unwrap();
    assert_eq!(shown["peer"], second.local_addr().unwrap().to_string());
    assert_eq!(shown["last_fault"], "another session took its place");
    assert!(shown["stale"].as_u64() > Some(0));
    assert!(has_labels(&dataplane, core), "the first one's word stays for now");
}
