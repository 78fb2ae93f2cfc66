//! The Debian package on a Debian system: installed, run as its units say, upgraded, removed, purged.
//!
//! The system is a chroot with an overlay over what `packaging/prepare-chroot` keeps, so no service manager runs in it: the
//! test starts the daemons with the users and capabilities that the units name.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod system;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bench::namespace::{Namespace, run};
use bench::process::{Process, wait_until};
use system::{System, package, tree};

fn unit(name: &str) -> String {
    fs::read_to_string(tree().join(format!("packaging/penstock-{name}.service"))).unwrap()
}

/// The last value of a setting of a unit.
fn setting<'u>(unit: &'u str, name: &str) -> &'u str {
    unit.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .next_back()
        .unwrap()
}

/// A minimal Debian system, with what this test does to it.
struct Target(System);

impl std::ops::Deref for Target {
    type Target = System;

    fn deref(&self) -> &System {
        &self.0
    }
}

impl Target {
    #[track_caller]
    fn dpkg(&self, arguments: &str, package: Option<&Path>) {
        if let Some(package) = package {
            fs::copy(package, self.at("/tmp/penstock.deb")).unwrap();
        }
        self.shell(&format!("dpkg {arguments}"));
    }

    /// Owner, group and mode of a path inside, by name.
    fn access(&self, path: &str) -> String {
        self.shell(&format!("stat -c '%U %G %a' {path}"))
            .trim()
            .to_owned()
    }

    /// Starts a daemon in a namespace as its unit says, and waits until it says that it is ready.
    fn start(&self, name: &str, namespace: &Namespace) -> Process {
        let unit = unit(name);
        let notify = self.at(&format!("/run/notify-{name}"));
        let _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o666)).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let bounding: String = setting(&unit, "CapabilityBoundingSet")
            .split(' ')
            .map(|capability| format!(",+{}", capability.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let mut command = namespace.command("chroot");
        command
            .arg(self.root())
            .args(["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin"])
            .arg(format!("NOTIFY_SOCKET=/run/notify-{name}"))
            .args(["setpriv", "--reuid", setting(&unit, "User")])
            .args(["--regid", setting(&unit, "Group"), "--clear-groups"])
            .args(["--inh-caps", &format!("-all{bounding}")])
            .args(["--ambient-caps", &format!("-all{bounding}")])
            .args(["--bounding-set", &format!("-all{bounding}")])
            .args(["--no-new-privs", "--"])
            .arg(setting(&unit, "ExecStart").split(' ').next().unwrap());
        let log = self.place.join(format!("{name}.log"));
        let process = Process::spawn(command, &log).unwrap();
        let mut message = [0; 4096];
        loop {
            match manager.recv(&mut message) {
                Ok(length) if message[..length].starts_with(b"READY=1") => return process,
                Ok(_) => {}
                Err(error) => panic!("{name} is not ready: {error}\n{}", process.log()),
            }
        }
    }
}

#[test]
fn the_package_installs_runs_upgrades_and_goes() {
    let system = Target(System::minimal());
    let [old, new] = ["0.1.0", "0.2.0"].map(|version| package(&system.place, version));
    system.dpkg("-i /tmp/penstock.deb", Some(&old));

    // Who owns what, and what starts with the system.
    for (path, access) in [
        ("/etc/penstock", "root penstock 750"),
        ("/etc/penstock/penstock.toml", "root penstock 640"),
        ("/etc/penstock/keys", "penstock-control penstock 700"),
        ("/run/penstock", "root penstock 770"),
    ] {
        assert_eq!(system.access(path), access, "{path}");
    }
    for name in ["dataplane", "control"] {
        let link = system.at(&format!(
            "/etc/systemd/system/multi-user.target.wants/penstock-{name}.service"
        ));
        assert!(
            link.symlink_metadata().is_ok(),
            "{} does not start by itself",
            link.display()
        );
    }
    assert_eq!(system.shell("dpkg --verify penstock"), "");
    system.shell("penstock check /etc/penstock/penstock.toml");
    system.shell("systemd-analyze verify --man=no penstock-dataplane.service penstock-control.service");

    // It runs as its users, with a key that only control can read.
    let namespace = Namespace::new("package").unwrap();
    namespace.veth("lan", "lan-peer").unwrap();
    namespace.ip("addr add 10.1.0.1/24 dev lan").unwrap();
    let configuration = fs::read_to_string(system.at("/etc/penstock/penstock.toml")).unwrap();
    let configured = format!("{configuration}\n[[port]]\ninterface = \"lan\"\nrole = \"protected\"\n");
    fs::write(system.at("/etc/penstock/penstock.toml"), &configured).unwrap();
    system.shell("install -d -o penstock-control -g penstock -m 700 /var/lib/penstock");
    let mut dataplane = system.start("dataplane", &namespace);
    let mut control = system.start("control", &namespace);
    let user_of = |process: &Process| fs::metadata(format!("/proc/{}", process.id())).unwrap().uid();
    // An undumpable process's folder is root's whoever it is; its status tells.
    let status = |process: &Process| fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    for process in [&dataplane, &control] {
        let uid = status(process);
        let uid = uid
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap()
            .to_owned();
        assert!(!uid.contains("\t0"), "{uid}, of the folder: {}", user_of(process));
    }
    // Until the dataplane is connected the command line says so, and ends with an error.
    let ports_up = || {
        let ports = system.shell("penstock show ports --json || true");
        ports.replace(' ', "").contains("\"state\":\"up\"")
    };
    assert!(
        wait_until(Duration::from_secs(20), ports_up),
        "{}\n{}\n{}",
        system.shell("penstock show ports"),
        dataplane.log(),
        control.log()
    );

    // An upgrade keeps what the operator wrote, and the dataplane that runs.
    system.dpkg("-i /tmp/penstock.deb", Some(&new));
    assert_eq!(system.shell("dpkg-query -W -f '${Version}' penstock"), "0.2.0");
    assert_eq!(
        fs::read_to_string(system.at("/etc/penstock/penstock.toml")).unwrap(),
        configured
    );
    assert!(control.terminate().unwrap().success(), "{}", control.log());
    let mut control = system.start("control", &namespace);
    assert!(wait_until(Duration::from_secs(20), ports_up), "{}", control.log());
    assert!(dataplane.ended().unwrap().is_none(), "{}", dataplane.log());
    assert!(control.terminate().unwrap().success());
    assert!(dataplane.terminate().unwrap().success(), "{}", dataplane.log());

    // Removed, the configuration stays; purged, nothing does.
    system.dpkg("--remove penstock", None);
    assert!(!system.at("/usr/sbin/penstock-dataplane").exists());
    assert!(system.at("/etc/penstock/penstock.toml").exists());
    system.dpkg("--purge penstock", None);
    let left = system.shell(
        "find / -xdev -path /proc -prune -o -path /tmp -prune -o -name '*penstock*' -print | grep -v /etc/penstock-chroot || true",
    );
    assert_eq!(left, "");
}

/// The exposure that `systemd-analyze security` gives a unit, of ten.
fn exposure(name: &str) -> f64 {
    let path = tree().join(format!("packaging/penstock-{name}.service"));
    let verdict = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&path))
    .unwrap();
    let line = verdict
        .lines()
        .find(|line| line.contains("Overall exposure level"))
        .unwrap();
    let score = line.rsplit(": ").next().unwrap();
    score.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_units_are_sandboxed() {
    let (control, dataplane) = (exposure("control"), exposure("dataplane"));
    assert!(control < 2.0, "control: {control}");
    assert!(dataplane < 4.0, "dataplane: {dataplane}");
    for name in ["control", "dataplane"] {
        let unit = unit(name);
        assert_eq!(setting(&unit, "Type"), "notify-reload");
        assert!(unit.contains("WatchdogSec="), "{name} has no watchdog");
    }
}
