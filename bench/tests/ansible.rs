//! The Ansible roles on a Debian system that may be changed: a chroot over this machine, with a sysfs of its own.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod system;

use std::fs;
use std::process::Command;

use bench::namespace::run;
use system::{System, package, tree};

const PLAYBOOK: &str = r#"---
- name: Everything on one host
  hosts: localhost
  connection: local
  gather_facts: true
  roles: [host_tuning, gateway, monitoring, load_generator]
  vars:
    ansible_python_interpreter: /usr/bin/python3
    host_tuning_interfaces: [lan, wan]
    host_tuning_hugepages: 64
    host_tuning_isolated_cpus: 2-3
    host_tuning_sysfs_root: /tmp/sys
    host_tuning_apply_sysctl: false
    gateway_package: /tmp/penstock.deb
    gateway_manage_services: false
    gateway_dataplane_options: --cores 2-3
    gateway_ports:
      - {interface: lan, role: protected}
      - {interface: wan, role: internet}
    gateway_tunnels:
      - name: site-2
        local: 198.51.100.1
        remote: 198.51.100.2
        local_ts: [10.1.0.0/24]
        remote_ts: [10.2.0.0/24]
        routes: [10.2.0.0/24]
        sa:
          - {spi_in: 4097, spi_out: 8193, algorithm: aes128gcm16, key_in_file: keys/in, key_out_file: keys/out, esn: true}
    gateway_keys:
      in: "000102030405060708090a0b0c0d0e0f10111213"
      out: "101112131415161718191a1b1c1d1e1f20212223"
    monitoring_install_prometheus: false
    monitoring_manage_services: false
    monitoring_targets: ["gateway-1:9185"]
    load_generator_load_module: false
    load_generator_install_packages: false
"#;

/// Files of the sysfs that the roles see, and what is in them before and after.
const KNOBS: &[(&str, &str, &str)] = &[
    ("class/net/lan/napi_defer_hard_irqs", "0", "2"),
    ("class/net/lan/gro_flush_timeout", "0", "200000"),
    ("class/net/wan/napi_defer_hard_irqs", "2", "2"),
    ("class/net/wan/gro_flush_timeout", "20000", "200000"),
    ("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8", "64"),
    (
        "devices/system/cpu/cpufreq/policy0/scaling_governor",
        "powersave",
        "performance",
    ),
    (
        "devices/system/cpu/cpufreq/policy1/scaling_governor",
        "performance",
        "performance",
    ),
];

/// Runs the playbook and returns how many tasks changed something, and what was printed.
fn play(system: &System, arguments: &str) -> Result<(u32, String), String> {
    let command = format!(
        "cd /tmp/ansible && ANSIBLE_NOCOLOR=1 ANSIBLE_LOCALHOST_WARNING=0 HOME=/tmp LC_ALL=C.UTF-8 \
         ansible-playbook -i localhost, play.yml {arguments} 2>&1 || echo FAILED"
    );
    let text = system.shell(&command);
    if text.trim_end().ends_with("FAILED") {
        return Err(text);
    }
    let changed = text.rsplit("changed=").next().unwrap();
    let changed = changed.split(' ').next().unwrap().parse().unwrap();
    Ok((changed, text))
}

#[test]
fn the_roles_do_what_they_say_once() {
    let system = System::of_this_machine();
    let built = package(&system.place, "0.1.0");
    fs::copy(built, system.at("/tmp/penstock.deb")).unwrap();
    run(Command::new("cp")
        .args(["-r"])
        .arg(tree().join("ansible"))
        .arg(system.at("/tmp")))
    .unwrap();
    // The roles take rules and scripts from the tree beside them.
    for folder in ["monitoring", "bench/pktgen"] {
        let to = system.at("/tmp").join(folder);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp").arg("-r").arg(tree().join(folder)).arg(to)).unwrap();
    }
    fs::write(system.at("/tmp/ansible/play.yml"), PLAYBOOK).unwrap();
    let sysfs = system.at("/tmp/sys");
    for (path, before, _) in KNOBS {
        fs::create_dir_all(sysfs.join(path).parent().unwrap()).unwrap();
        fs::write(sysfs.join(path), format!("{before}\n")).unwrap();
    }
    let knob = |path: &str| fs::read_to_string(sysfs.join(path)).unwrap().trim().to_owned();

    // Looked at only, nothing changes.
    let (would_change, text) = play(&system, "--check --diff").unwrap_or_else(|text| panic!("{text}"));
    assert!(would_change >= 7, "{text}");
    for (path, before, _) in KNOBS {
        assert_eq!(knob(path), *before, "{path} in check mode");
    }
    assert!(
        !system.at("/usr/bin/penstock").exists() && !system.at("/etc/sysctl.d/60-penstock.conf").exists()
    );

    play(&system, "").unwrap_or_else(|text| panic!("{text}"));
    for (path, _, after) in KNOBS {
        assert_eq!(knob(path), *after, "{path}");
    }
    system.shell("setpriv --reuid=penstock-control --regid=penstock --clear-groups penstock check /etc/penstock/penstock.toml");
    assert_eq!(
        system.shell("stat -c '%U %G %a' /etc/penstock/keys/in").trim(),
        "penstock-control penstock 600"
    );
    let holds = |path: &str, text: &str| {
        let found = fs::read_to_string(system.at(path)).unwrap();
        assert!(found.contains(text), "{path}: {found}");
    };
    holds(
        "/etc/default/penstock-dataplane",
        "PENSTOCK_DATAPLANE_OPTIONS=\"--cores 2-3\"",
    );
    holds("/etc/default/grub.d/penstock.cfg", "nohz_full=2-3");
    holds(
        "/etc/tmpfiles.d/penstock-host-tuning.conf",
        "w /sys/class/net/wan/gro_flush_timeout - - - - 200000",
    );
    holds("/etc/sysctl.d/60-penstock.conf", "net.core.bpf_jit_enable = 1");
    holds("/etc/prometheus/scrape_configs/penstock.yml", "gateway-1:9185");
    assert!(system.at("/usr/local/lib/penstock/pktgen").exists());

    // A second time there is nothing to do.
    let (changed, text) = play(&system, "").unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(changed, 0, "{text}");
}

#[test]
fn what_cannot_work_is_named_before_anything_changes() {
    let system = System::of_this_machine();
    run(Command::new("cp")
        .args(["-r"])
        .arg(tree().join("ansible"))
        .arg(system.at("/tmp")))
    .unwrap();
    fs::create_dir_all(system.at("/tmp/sys/class/net/lan")).unwrap();
    fs::write(system.at("/tmp/ansible/play.yml"), PLAYBOOK).unwrap();
    let text = play(&system, "").unwrap_err();
    assert!(text.contains("there is no interface wan"), "{text}");
    assert!(!system.at("/etc/sysctl.d/60-penstock.conf").exists());
    // A wrong type and a wrong choice are refused by the roles' argument specifications.
    for (wrong, complaint) in [
        ("host_tuning_hugepages: many", "host_tuning_hugepages"),
        (
            "host_tuning_interfaces: [], host_tuning_hugepages: 0, gateway_ports: [{interface: lan, role: outside}]",
            "outside",
        ),
    ] {
        let text = play(&system, &format!("-e '{{{wrong}}}'")).unwrap_err();
        assert!(text.contains(complaint), "{wrong}: {text}");
    }
}

#[test]
fn the_roles_are_clean_by_the_rules_of_production() {
    let output = Command::new("ansible-lint")
        .args(["--offline", "--nocolor"])
        .current_dir(tree().join("ansible"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(text.contains("Passed with production profile"), "{text}");
}
