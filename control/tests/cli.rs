//! The verbs of `penstock` that need no daemon.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("penstock-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn penstock(folder: &Folder, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["--socket", "/nonexistent/penstock.sock"])
        .args(arguments)
        .current_dir(&folder.0)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn done(folder: &Folder, arguments: &[&str]) -> String {
    let output = penstock(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn keys_are_random_as_long_as_the_transform_wants_and_never_overwritten() {
    let folder = Folder::new();
    done(&folder, &["keygen", "--out", "a.key"]);
    let key = folder.read("a.key");
    assert_eq!(key.trim().len(), 2 * 20);
    assert_eq!(
        fs::metadata(folder.0.join("a.key")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = penstock(&folder, &["keygen", "--out", "a.key"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(folder.read("a.key"), key);
    let long = done(&folder, &["keygen", "--algorithm", "aes256-sha256"]);
    assert_eq!(long.trim().len(), 2 * 64);
    assert_ne!(
        done(&folder, &["keygen", "--psk"]),
        done(&folder, &["keygen", "--psk"])
    );
    let wrong = penstock(&folder, &["keygen", "--algorithm", "rot13"]);
    assert_eq!(wrong.status.code(), Some(1));
}

#[test]
fn certificates_verify_against_their_authority() {
    let folder = Folder::new();
    let gateway = [
        "pki",
        "gateway",
        "--dir",
        "pki",
        "--name",
        "gw1.example.com",
        "--address",
        "198.51.100.1",
    ];
    let without = penstock(&folder, &gateway);
    assert!(text(&without).contains("penstock pki ca"), "{}", text(&without));
    done(&folder, &["pki", "ca", "--name", "Example VPN", "--dir", "pki"]);
    done(&folder, &gateway);
    done(
        &folder,
        &["pki", "client", "--dir", "pki", "--name", "alice@example.com"],
    );
    for (name, san) in [
        ("gw1.example.com", "DNS:gw1.example.com, IP Address:198.51.100.1"),
        ("alice@example.com", "email:alice@example.com"),
    ] {
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(folder.0.join("pki"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", text(&output));
            text(&output)
        };
        let certificate = format!("{name}.crt");
        openssl(&["verify", "-x509_strict", "-CAfile", "ca.crt", &certificate]);
        let shown = openssl(&["x509", "-in", &certificate, "-noout", "-ext", "subjectAltName"]);
        assert!(shown.contains(san), "{shown}");
        let of_key = openssl(&["pkey", "-in", &format!("{name}.key"), "-pubout"]);
        let of_certificate = openssl(&["x509", "-in", &certificate, "-noout", "-pubkey"]);
        assert_eq!(of_key, of_certificate);
        let mode = fs::metadata(folder.0.join(format!("pki/{name}.key")))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let again = penstock(&folder, &gateway);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
}

/// A machine of four CPUs with two NICs, as files.
fn machine() -> Folder {
    let root = Folder::new();
    for (path, value) in [
        ("proc/sys/kernel/hostname", "edge-7"),
        ("proc/sys/kernel/nmi_watchdog", "1"),
        ("proc/sys/net/core/bpf_jit_enable", "1"),
        ("proc/sys/net/core/rmem_max", "212992"),
        ("proc/irq/40/smp_affinity_list", "0-3"),
        ("sys/devices/system/cpu/online", "0-3"),
        ("sys/devices/system/cpu/isolated", ""),
        (
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
            "powersave",
        ),
        ("sys/devices/virtual/workqueue/cpumask", "f"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0"),
    ] {
        root.write(path, &format!("{value}\n"));
    }
    for nic in ["eth1", "eth2"] {
        root.write(&format!("sys/class/net/{nic}/device/numa_node"), "0\n");
        root.write(&format!("sys/class/net/{nic}/operstate"), "up\n");
        root.write(&format!("sys/class/net/{nic}/napi_defer_hard_irqs"), "0\n");
        for queue in ["rx-0", "rx-1"] {
            root.write(&format!("sys/class/net/{nic}/queues/{queue}/rps_cpus"), "f\n");
        }
    }
    root.write("sys/class/net/eth1/device/msi_irqs/40", "msix\n");
    root
}

#[test]
fn a_host_is_checked_without_change_tuned_and_restored() {
    let root = machine();
    let scope = [
        "--root",
        root.0.to_str().unwrap(),
        "--cores",
        "2,3",
        "--interface",
        "eth1",
    ];
    let check = |expected: i32| -> serde_json::Value {
        let output = penstock(&root, &[&["host", "check", "--json"], &scope[..]].concat());
        assert_eq!(output.status.code(), Some(expected), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let files = [
        ("proc/sys/kernel/nmi_watchdog", "0"),
        (
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
            "performance",
        ),
        ("sys/devices/virtual/workqueue/cpumask", "3"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "128"),
        ("proc/irq/40/smp_affinity_list", "2"),
        ("sys/class/net/eth1/queues/rx-1/rps_cpus", "0"),
        ("sys/class/net/eth1/napi_defer_hard_irqs", "2"),
    ];
    let before: Vec<String> = files.iter().map(|(path, _)| root.read(path)).collect();
    let wrong = |report: &serde_json::Value| {
        report["settings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|setting| setting["ok"] == false)
            .map(|setting| setting["setting"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let found = wrong(&check(2));
    assert!(found.len() >= files.len(), "{found:?}");
    for ((path, _), before) in files.iter().zip(&before) {
        assert_eq!(&root.read(path), before, "a check changes nothing");
    }
    let tuned = penstock(&root, &[&["host", "tune"], &scope[..]].concat());
    assert_eq!(
        tuned.status.code(),
        Some(5),
        "isolation takes a boot: {}",
        text(&tuned)
    );
    for (path, wanted) in files {
        assert_eq!(root.read(path).trim(), wanted, "{path}");
    }
    assert_eq!(wrong(&check(2)), ["isolated CPUs"]);
    assert_eq!(
        root.read("sys/class/net/eth2/napi_defer_hard_irqs").trim(),
        "0",
        "not named"
    );
    // A second run changes nothing, and what was there first is what comes back.
    let again = penstock(&root, &[&["host", "tune"], &scope[..]].concat());
    assert!(!text(&again).contains("->"), "{}", text(&again));
    done(&root, &["host", "restore", "--root", scope[1]]);
    for ((path, _), before) in files.iter().zip(&before) {
        assert_eq!(root.read(path).trim(), before.trim(), "{path}");
    }
    done(&root, &["host", "restore", "--root", scope[1]]);
}

#[test]
fn a_first_configuration_is_written_from_what_the_machine_has_and_is_valid() {
    let root = machine();
    let base = [
        "init",
        "--root",
        root.0.to_str().unwrap(),
        "--out",
        "penstock.toml",
    ];
    done(&root, &[&base[..], &["--lan", "eth1", "--wan", "eth2"]].concat());
    let written = root.read("penstock.toml");
    for expected in [
        "name = \"edge-7\"",
        "interface = \"eth1\"",
        "--cores 2,3",
        "2 receive queues",
    ] {
        assert!(written.contains(expected), "{expected} in {written}");
    }
    let said = done(&root, &["check", "penstock.toml"]);
    assert!(said.contains("2 ports"), "{said}");
    let twice = penstock(&root, &base);
    assert_eq!(twice.status.code(), Some(1), "it never overwrites");
    let unknown = penstock(
        &root,
        &[
            "init", "--root", base[2], "--out", "b.toml", "--lan", "eth9", "--wan", "eth2",
        ],
    );
    assert!(text(&unknown).contains("eth1, eth2"), "{}", text(&unknown));
}

const SWANCTL: &str = r#"
connections {
    site-b {
        version = 2
        local_addrs = 198.51.100.1
        remote_addrs = 198.51.100.2
        proposals = aes256-sha256-modp2048, default
        rekey_time = 4h
        dpd_delay = 30s
        if_id_in = 7
        local { auth = psk
            id = gw1.example.com }
        remote {
            auth = psk
            id = gw2.example.com
        }
        children {
            net {
                local_ts = 10.1.0.0/24
                remote_ts = 10.2.0.0/24
                esp_proposals = aes256gcm16-modp2048
                start_action = trap
                updown = /usr/lib/ipsec/_updown
            }
        }
    }
    old {
        version = 1
    }
}
secrets {
    ike-site-b {
        id-1 = gw1.example.com
        id-2 = gw2.example.com
        secret = "correct horse battery staple"
    }
}
"#;

#[test]
fn a_swanctl_configuration_becomes_one_that_is_valid_and_what_is_lost_is_told() {
    let folder = Folder::new();
    folder.write("swanctl.conf", SWANCTL);
    let output = penstock(
        &folder,
        &["import", "swanctl", "swanctl.conf", "--out", "penstock.toml"],
    );
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    let said = text(&output);
    for lost in ["if_id_in = 7", "updown = /usr/lib/ipsec/_updown", "IKEv1"] {
        assert!(said.contains(lost), "{lost} in {said}");
    }
    assert!(!said.contains("dpd_delay"), "{said}");
    let written = folder.read("penstock.toml");
    assert!(!written.contains("battery"), "{written}");
    let secret = folder.0.join("swanctl-ike-site-b.psk");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    for line in [
        "name = \"site-b\"",
        "start = \"traffic\"",
        "proposals = [\"aes256-sha256-modp2048\"]",
    ] {
        assert!(written.contains(line), "{line} in {written}");
    }
    done(&folder, &["check", "penstock.toml"]);
    folder.write("bad.conf", "connections {\n  a {\n    nonsense\n  }\n}\n");
    let bad = penstock(&folder, &["import", "swanctl", "bad.conf"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad).contains("bad.conf:"), "{}", text(&bad));
}

#[test]
fn a_support_bundle_holds_no_secret_and_says_what_is_missing() {
    let folder = Folder::new();
    folder.write(
        "penstock.toml",
        "[gateway]\nname = \"gw\"\n# psk = \"swordfish\"\npassword = 'swordfish'\n",
    );
    let output = penstock(
        &folder,
        &[
            "support-bundle",
            "--config",
            "penstock.toml",
            "--out",
            "bundle.tar.gz",
        ],
    );
    assert_eq!(output.status.code(), Some(5), "no daemon runs: {}", text(&output));
    assert!(text(&output).contains("without status"));
    let listed = Command::new("tar")
        .args(["--extract", "--to-stdout", "--gzip", "--file", "bundle.tar.gz"])
        .current_dir(&folder.0)
        .output()
        .unwrap();
    let all = text(&listed);
    assert!(all.contains("name = \"gw\"") && all.contains("Linux"), "{all}");
    assert!(!all.contains("swordfish"));
}

#[test]
fn completions_and_manual_pages_are_made_for_every_verb() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            done(&folder, &["completions", shell]).contains("penstock"),
            "{shell}"
        );
    }
    // What bash asks for as somebody types `penstock ho`.
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["--", "penstock", "ho"])
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "1")
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "false")
        .output()
        .unwrap();
    assert_eq!(text(&output).trim(), "host");
    done(&folder, &["man", "man"]);
    for page in [
        "penstock",
        "penstock-show",
        "penstock-host-check",
        "penstock-import-swanctl",
    ] {
        let page = folder.read(&format!("man/{page}.8"));
        assert!(
            page.contains(".TH penstock") && page.contains("SYNOPSIS"),
            "{page}"
        );
    }
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let folder = Folder::new();
    assert_eq!(penstock(&folder, &["status"]).status.code(), Some(3));
    assert_eq!(penstock(&folder, &["frobnicate"]).status.code(), Some(1));
    assert_eq!(penstock(&folder, &["monitor"]).status.code(), Some(3));
    assert_eq!(penstock(&folder, &["trace"]).status.code(), Some(3));
    let top = penstock(&folder, &["top"]);
    assert_eq!(top.status.code(), Some(1), "no terminal: {}", text(&top));
}
