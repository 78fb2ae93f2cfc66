//! Two running gateways that negotiate their tunnel by IKEv2.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::{Command, Stdio};
use std::time::Duration;

use bench::gateway::{Dataplane, Gateway, built};
use bench::namespace::Namespace;
use bench::negotiated::{Negotiated, PSK_FILE};
use bench::pki::KeyKind;
use bench::process::{Process, wait_until};
use bench::topology::{Links, Topology};

const LIMIT: Duration = Duration::from_secs(15);
const SECRET: &str = "a-preshared-key-of-this-test-0123456789";

struct Sites {
    gateway_1: Gateway,
    gateway_2: Gateway,
    topology: Topology,
}

impl Sites {
    fn start(stem: &str, tunnel: &Negotiated, secrets: &[(&str, &str)]) -> Self {
        let topology = Topology::new(stem, Links::default()).unwrap();
        let start = |namespace, number| {
            let text = tunnel.configuration(number);
            Gateway::start(namespace, &text, secrets, Dataplane::default()).unwrap()
        };
        Self {
            gateway_1: start(&topology.gateway_1, 1),
            gateway_2: start(&topology.gateway_2, 2),
            topology,
        }
    }

    fn logs(&self) -> String {
        let show = |gateway: &Gateway| {
            let mut text = gateway.logs();
            for noun in ["ike", "sa", "tunnels", "drops"] {
                text += &gateway
                    .penstock(&["show", noun])
                    .unwrap_or_else(|error| error.to_string());
            }
            text
        };
        format!("{}\n{}", show(&self.gateway_1), show(&self.gateway_2))
    }

    /// Traffic both ways over both families.
    fn assert_joined(&self) {
        let Topology { host_a, host_b, .. } = &self.topology;
        for (host, target) in [
            (host_a, "10.2.0.10"),
            (host_a, "fd02::10"),
            (host_b, "10.1.0.10"),
            (host_b, "fd01::10"),
        ] {
            assert!(
                wait_until(LIMIT, || answers(host, target)),
                "no answer from {target}\n{}",
                self.logs()
            );
        }
    }
}

/// Runs echo requests from `from` to `to` every 10 ms while `meanwhile` goes on; returns how many were lost.
fn lost_during(from: &Namespace, to: &str, count: u32, meanwhile: impl FnOnce()) -> u32 {
    let mut command = from.command("ping");
    command.args(["-q", "-i", "0.01", "-W", "2", "-c", &count.to_string(), to]);
    let ping = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    meanwhile();
    let output = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let received = output
        .lines()
        .find_map(|line| line.split(", ").find_map(|part| part.strip_suffix(" received")));
    count
        - received
            .unwrap_or_else(|| panic!("no summary in {output:?}"))
            .parse::<u32>()
            .unwrap()
}

fn spi_in(gateway: &Gateway) -> String {
    let shown = gateway.json(&["show", "ike"]).unwrap();
    shown["ike"][0]["children"][0]["spi_in"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}

#[test]
fn traffic_brings_a_preshared_tunnel_up() {
    let sites = Sites::start("ike-psk", &Negotiated::preshared(), &[(PSK_FILE, SECRET)]);
    sites.assert_joined();
    let shown = sites.gateway_1.json(&["show", "ike"]).unwrap();
    assert_eq!(shown["ike"][0]["state"], "established", "{shown}");
    for (arguments, expected) in [
        (&["rekey", "site-2", "site-2"][..], "site-2 of site-2 is renewed"),
        (&["rekey", "site-2"], "the IKE SA of site-2 is renewed"),
        (&["down", "site-2"], "site-2 is down"),
        (&["up", "site-2"], "site-2 is up"),
    ] {
        let said = sites
            .gateway_1
            .penstock(arguments)
            .unwrap_or_else(|error| panic!("{error}\n{}", sites.logs()));
        assert!(said.contains(expected), "{arguments:?}: {said}");
        sites.assert_joined();
    }
}

#[test]
fn certificates_by_default() {
    let (terms, [first, second]) = Negotiated::certified(KeyKind::P256).unwrap();
    let topology = Topology::new("ike-cert", Links::default()).unwrap();
    let start = |namespace, number, files: &[(String, String)]| {
        let secrets: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        Gateway::start(
            namespace,
            &terms.configuration(number),
            &secrets,
            Dataplane::default(),
        )
        .unwrap()
    };
    let sites = Sites {
        gateway_1: start(&topology.gateway_1, 1, &first),
        gateway_2: start(&topology.gateway_2, 2, &second),
        topology,
    };
    sites.assert_joined();
    let shown = sites.gateway_1.json(&["show", "ike"]).unwrap();
    assert_eq!(shown["ike"][0]["remote_id"], "gateway-2.example", "{shown}");
    assert!(
        shown["ike"][0]["suite"].as_str().unwrap().contains("mlkem768"),
        "{shown}"
    );
}

#[test]
fn fault_77_a_new_control_process_takes_over_while_traffic_flows() {
    let mut sites = Sites::start("ike-control", &Negotiated::preshared(), &[(PSK_FILE, SECRET)]);
    sites.assert_joined();
    let before = spi_in(&sites.gateway_1);
    let host = &sites.topology.host_a;
    let gateway = &mut sites.gateway_1;
    let lost = lost_during(host, "10.2.0.10", 600, || {
        gateway.control().unwrap().kill().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        gateway.start_control().unwrap();
        assert!(wait_until(LIMIT, || spi_in(gateway) != before && !spi_in(gateway).is_empty()));
        std::thread::sleep(Duration::from_millis(500));
    });
    // The peer forgets the old SAs when it hears of the new ones: what is on its way just then may be lost.
    assert!(lost <= 3, "{lost} lost\n{}", sites.logs());
    assert_ne!(spi_in(&sites.gateway_1), before);
    sites.assert_joined();
    assert!(
        wait_until(LIMIT, || {
            let shown = sites.gateway_1.json(&["show", "sa"]).unwrap();
            shown["sas"].as_array().unwrap().len() == 2
        }),
        "old SAs stayed\n{}",
        sites.logs()
    );
}

#[test]
fn fault_51_a_restarted_dataplane_gets_new_keys() {
    let mut sites = Sites::start("ike-dataplane", &Negotiated::preshared(), &[(PSK_FILE, SECRET)]);
    sites.assert_joined();
    let before = spi_in(&sites.gateway_1);
    sites.gateway_1.dataplane().unwrap().kill().unwrap();
    sites.gateway_1.start_dataplane().unwrap();
    sites.assert_joined();
    assert_ne!(spi_in(&sites.gateway_1), before);
    let log = sites.gateway_1.penstock(&["log"]).unwrap();
    assert!(log.contains("negotiated anew"), "{log}");
    assert_eq!(
        log.matches("IKE SA up").count(),
        1,
        "the IKE SA did not need to go\n{log}"
    );
}

#[test]
fn a_reload_touches_only_what_changed() {
    let terms = Negotiated::preshared();
    let mut sites = Sites::start("ike-reload", &terms, &[(PSK_FILE, SECRET)]);
    sites.assert_joined();
    let before = spi_in(&sites.gateway_1);
    let host = &sites.topology.host_a;
    let (gateway_1, gateway_2) = (&mut sites.gateway_1, &mut sites.gateway_2);
    let lost = lost_during(host, "10.2.0.10", 200, || {
        for (gateway, number) in [(&gateway_1, 1), (&gateway_2, 2)] {
            let more = terms.configuration(number)
                + &format!(
                    "[[connection.child]]\nname = \"more\"\nlocal_ts = [\"10.{number}1.0.0/24\"]\nremote_ts = [\"10.{}1.0.0/24\"]\n",
                    3 - number
                );
            gateway.configure(&more).unwrap();
            gateway.penstock(&["reload"]).unwrap();
        }
        let up = gateway_1.penstock(&["up", "site-2", "more"]).unwrap();
        assert!(up.contains("is up"), "{up}");
    });
    assert_eq!(lost, 0, "{}", sites.logs());
    assert_eq!(spi_in(&sites.gateway_1), before, "the first tunnel was touched");
    // What went is closed, and only that.
    sites.gateway_1.configure(&terms.configuration(1)).unwrap();
    sites.gateway_1.penstock(&["reload"]).unwrap();
    assert!(wait_until(LIMIT, || {
        let shown = sites.gateway_1.json(&["show", "ike"]).unwrap();
        shown["ike"][0]["child_names"] == serde_json::json!(["site-2"])
    }));
    assert_eq!(spi_in(&sites.gateway_1), before);
}

/// Every key of the key log, in hexadecimal digits without their prefix.
fn logged_keys(folder: &std::path::Path) -> Vec<String> {
    let mut keys = Vec::new();
    for (table, columns) in [("ikev2_decryption_table", &[2, 3, 5, 6][..]), ("esp_sa", &[5, 7])] {
        for line in std::fs::read_to_string(folder.join(table)).unwrap().lines() {
            let fields: Vec<&str> = line.split(',').map(|field| field.trim_matches('"')).collect();
            let fields = columns
                .iter()
                .map(|column| fields[*column].trim_start_matches("0x"));
            keys.extend(fields.filter(|key| key.len() >= 32).map(str::to_owned));
        }
    }
    keys
}

#[test]
fn no_log_and_no_output_has_a_key_in_it() {
    let mut terms = Negotiated::preshared();
    let mut sites = Sites::start("ike-secrets", &terms, &[(PSK_FILE, SECRET)]);
    terms.file_lines = "[ike]\nkey_log_directory = \"{folder}/keys\"\n".to_owned();
    sites.gateway_1.configure(&terms.configuration(1)).unwrap();
    // Once more, and as talkative as it can be.
    sites.gateway_1.control().unwrap().terminate().unwrap();
    let folder = sites.gateway_1.folder().to_owned();
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", sites.topology.gateway_1.name()])
        .arg(built("penstock-control").unwrap())
        .arg("--config")
        .arg(folder.join("penstock.toml"))
        .arg("--dataplane-socket")
        .arg(folder.join("dataplane.sock"))
        .arg("--admin-socket")
        .arg(folder.join("control.sock"))
        .arg("--state")
        .arg(folder.join("state"))
        .env("PENSTOCK_LOG", "trace");
    let talkative = Process::spawn(command, &folder.join("talkative.log")).unwrap();
    sites.assert_joined();
    for arguments in [&["rekey", "site-2", "site-2"][..], &["rekey", "site-2"]] {
        sites.gateway_1.penstock(arguments).unwrap();
    }
    sites.assert_joined();
    let keys = logged_keys(&folder.join("keys"));
    assert!(
        keys.len() >= 8,
        "two IKE SAs and two pairs have more keys than {}",
        keys.len()
    );
    let spi = spi_in(&sites.gateway_1);
    let table = std::fs::read_to_string(folder.join("keys/esp_sa")).unwrap();
    assert!(table.contains(&spi), "{spi} is not in the key log");
    let mut said = talkative.log();
    assert!(
        said.contains("EVERY KEY IS WRITTEN TO DISK"),
        "no warning\n{said}"
    );
    assert!(
        said.contains("InstallSa") && said.contains("received"),
        "this log is not talkative: {said}"
    );
    for arguments in [
        &["show", "ike"][..],
        &["show", "sa"],
        &["show", "tunnels"],
        &["log"],
        &["status"],
    ] {
        said += &sites.gateway_1.penstock(arguments).unwrap();
        said += &sites.gateway_1.json(arguments).unwrap().to_string();
    }
    for key in keys {
        let bytes: Vec<u8> = (0..key.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap())
            .collect();
        let decimal = format!("{:?}", &bytes[..8]);
        let decimal = decimal.trim_matches(['[', ']']);
        assert!(
            !said.to_lowercase().contains(&key[..16]),
            "a key stands in the log in hexadecimal"
        );
        assert!(!said.contains(decimal), "a key stands in the log in decimal");
    }
    assert!(!said.contains(SECRET), "the preshared key stands in the log");
}
