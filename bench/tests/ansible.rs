//! The Ansible roles on Debian systems that may be changed: a chroot over this machine with a sysfs of its own, and a pair of
//! machines of their own namespaces, reached by ssh.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod system;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bench::namespace::{Namespace, run};
use bench::process::wait_until;
use bench::sites::{HOST_B, answers};
use bench::topology::{Links, Topology};
use system::machine::Machine;
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

/// Where the machines of the pair are, beside what `inventory/example.yml` says of them.
const WHERE: &str = r#"---
all:
  children:
    gateways:
      hosts:
        gateway-1: {ansible_host: 198.51.100.1}
        gateway-2: {ansible_host: 198.51.100.2}
      vars:
        ansible_user: root
        ansible_python_interpreter: /usr/bin/python3
        gateway_package: PLACE/penstock.deb
        gateway_dataplane_options: --cores 0
        host_tuning_isolated_cpus: "1"
        # What the machines share with this one stays as it is.
        host_tuning_sysfs_root: /srv/sys
        host_tuning_apply_sysctl: false
        vault_key_to_1: "000102030405060708090a0b0c0d0e0f10111213"
        vault_key_to_2: "101112131415161718191a1b1c1d1e1f20212223"
    monitoring:
      hosts:
        gateway-1: {}
      vars:
        # The machines have no network to take packages from.
        monitoring_install_prometheus: false
        monitoring_manage_services: false
    load_generators:
      hosts:
        gateway-2: {}
      vars:
        load_generator_install_packages: false
        load_generator_load_module: false
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

/// The fake sysfs of a system, as it is before.
fn make_sysfs(system: &System, root: &str) {
    for (path, before, _) in KNOBS {
        let path = system.at(root).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{before}\n")).unwrap();
    }
}

/// Plays `site.yml` from a namespace and returns how many tasks changed something on each host.
fn play_site(namespace: &Namespace, place: &Path, arguments: &[&str]) -> Vec<u32> {
    let mut command = namespace.command("ansible-playbook");
    command
        .args(["-i", "inventory/example.yml", "-i"])
        .arg(place.join("where.yml"))
        .arg("--private-key")
        .arg(place.join("id"))
        .args(arguments)
        .arg("site.yml")
        .current_dir(tree().join("ansible"))
        .env("HOME", place)
        .env("LC_ALL", "C.UTF-8")
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_PIPELINING", "1")
        .env("ANSIBLE_TIMEOUT", "60")
        .env("ANSIBLE_SSH_CONTROL_PATH_DIR", place)
        .env(
            "ANSIBLE_SSH_ARGS",
            "-o ControlMaster=auto -o ControlPersist=15s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        );
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let changed = |line: &str| {
        let (_, rest) = line.split_once("changed=")?;
        rest.split(' ').next()?.parse().ok()
    };
    let changed: Vec<u32> = text.lines().filter_map(changed).collect();
    assert_eq!(changed.len(), 2, "{text}");
    changed
}

#[test]
fn site_yml_brings_up_a_pair_of_gateways_with_a_tunnel_between_them_once() {
    let topology = Topology::new("pair", Links::default()).unwrap();
    topology
        .internet
        .ip("addr add 198.51.100.254/24 dev br0")
        .unwrap();
    let systems = [System::minimal(), System::minimal()];
    let place = systems[0].place.clone();
    fs::rename(package(&place, "0.1.0"), place.join("penstock.deb")).unwrap();
    fs::write(
        place.join("where.yml"),
        WHERE.replace("PLACE", place.to_str().unwrap()),
    )
    .unwrap();
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(place.join("id")))
    .unwrap();
    for system in &systems {
        make_sysfs(system, "/srv/sys");
        fs::create_dir_all(system.at("/root/.ssh")).unwrap();
        fs::copy(place.join("id.pub"), system.at("/root/.ssh/authorized_keys")).unwrap();
    }
    let [one, two] = systems;
    let machines = [
        Machine::boot(one, &topology.gateway_1),
        Machine::boot(two, &topology.gateway_2),
    ];
    let play = |arguments: &[&str]| play_site(&topology.internet, &place, arguments);

    let would_change = play(&["--check"]);
    for (machine, would_change) in machines.iter().zip(would_change) {
        assert!(would_change >= 5, "{would_change}");
        assert!(!machine.system.at("/usr/bin/penstock").exists());
        let governor = machine.system.at("/srv/sys").join(KNOBS[5].0);
        assert_eq!(fs::read_to_string(governor).unwrap().trim(), KNOBS[5].1);
    }

    play(&[]);
    let passes = wait_until(Duration::from_secs(60), || answers(&topology.host_a, HOST_B[0]));
    assert!(passes, "{}\n{}", machines[0].journal(), machines[1].journal());
    for machine in &machines {
        for (path, _, after) in KNOBS {
            let found = fs::read_to_string(machine.system.at("/srv/sys").join(path)).unwrap();
            assert_eq!(found.trim(), *after, "{path}");
        }
        // It started with the options that the inventory has, not with the package's.
        let command_line = machine
            .shell("tr '\\0' ' ' </proc/$(systemctl show --value -p MainPID penstock-dataplane)/cmdline");
        assert!(command_line.contains("--cores 0"), "{command_line}");
        assert_eq!(machine.property("penstock-control", "NRestarts"), "0");
        let holds = |path: &str, text: &str| {
            let found = fs::read_to_string(machine.system.at(path)).unwrap();
            assert!(found.contains(text), "{path}: {found}");
        };
        holds("/etc/default/grub.d/penstock.cfg", "nohz_full=1");
        holds(
            "/etc/tmpfiles.d/penstock-host-tuning.conf",
            "w /sys/class/net/wan/gro_flush_timeout - - - - 200000",
        );
        holds("/etc/sysctl.d/60-penstock.conf", "net.core.bpf_jit_enable = 1");
        let key = machine.shell("stat -c '%U %G %a' /etc/penstock/keys/to-1.key");
        assert_eq!(key.trim(), "penstock-control penstock 600");
    }
    let targets = machines[0]
        .system
        .at("/etc/prometheus/scrape_configs/penstock.yml");
    let targets = fs::read_to_string(targets).unwrap();
    assert!(
        targets.contains(r#"["gateway-1:9185", "gateway-2:9185"]"#),
        "{targets}"
    );
    assert!(machines[1].system.at("/usr/local/lib/penstock/pktgen").exists());

    assert_eq!(play(&[]), [0, 0], "a second time there is nothing to do");
    assert!(answers(&topology.host_a, HOST_B[0]));
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
