//! A [`System`] that runs: systemd is process 1 of its own namespaces, in a network namespace of the test's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bench::namespace::{CommandError, Namespace, run};
use bench::process::{Process, wait_until};

use super::System;

/// How long systemd may take to bring the system up, on a machine that has other things to do.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// Units that would reach out of the namespaces, or that nobody needs.
const MASKED: &[&str] = &[
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "console-getty.service",
    "getty@tty1.service",
    "getty-static.service",
    "e2scrub_reap.service",
];

/// From the outside in: a mount namespace, a cgroup below the root, then the namespaces of a machine.
const BOOT: &str = r#"
root=$0 cgroup=$1
echo $$ >"$cgroup/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --cgroup --uts --ipc /bin/sh -ec '
    mount --make-rprivate /
    umount "$0/run" "$0/dev" "$0/proc"
    mount -t proc proc "$0/proc"
    mount -t sysfs sysfs "$0/sys"
    mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$0/run"
    mount -t tmpfs -o mode=755 tmpfs "$0/dev"
    mkdir "$0/dev/net" "$0/dev/shm" "$0/dev/pts"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$0/dev/pts"
    ln -s pts/ptmx "$0/dev/ptmx"
    ln -s /proc/self/fd "$0/dev/fd"
    mknod -m 666 "$0/dev/null" c 1 3
    mknod -m 666 "$0/dev/zero" c 1 5
    mknod -m 666 "$0/dev/full" c 1 7
    mknod -m 666 "$0/dev/random" c 1 8
    mknod -m 666 "$0/dev/urandom" c 1 9
    mknod -m 666 "$0/dev/tty" c 5 0
    mknod -m 666 "$0/dev/console" c 1 3
    mknod -m 666 "$0/dev/net/tun" c 10 200
    hostname machine
    exec chroot "$0" /usr/bin/env -i container=penstock-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=multi-user.target
' "$root"
"#;

/// A machine; it ends, and everything in it, on drop.
pub struct Machine {
    outer: Process,
    inner: u32,
    cgroups: PathBuf,
    cgroup: PathBuf,
    pub system: System,
}

impl Machine {
    /// Boots the system and waits until it is up.
    pub fn boot(system: System, namespace: &Namespace) -> Self {
        for unit in MASKED {
            symlink("/dev/null", system.at(&format!("/etc/systemd/system/{unit}"))).unwrap();
        }
        // Services may start here.
        fs::remove_file(system.at("/usr/sbin/policy-rc.d")).unwrap();
        let cgroups = system.place.join("cgroups");
        fs::create_dir(&cgroups).unwrap();
        run(Command::new("mount")
            .args(["-t", "cgroup2", "cgroup2"])
            .arg(&cgroups))
        .unwrap();
        let cgroup = cgroups.join(format!("{}-machine", namespace.name()));
        fs::create_dir(&cgroup).unwrap();
        let mut command = namespace.command("/bin/sh");
        command.args(["-ec", BOOT]).arg(system.root()).arg(&cgroup);
        let outer = Process::spawn(command, &system.place.join("machine.log")).unwrap();
        let mut machine = Self {
            inner: 0,
            outer,
            cgroups,
            cgroup,
            system,
        };
        let is_up = wait_until(BOOT_LIMIT, || {
            machine.find_init() && machine.run("systemctl is-active multi-user.target").is_ok()
        });
        assert!(is_up, "{}", machine.outer.log());
        machine
    }

    /// The process that is 1 inside: `unshare`'s only child.
    fn find_init(&mut self) -> bool {
        let outer = self.outer.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
        self.inner = children
            .ok()
            .and_then(|children| children.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        self.inner != 0
    }

    /// Runs a shell command inside, as its root would.
    pub fn run(&self, line: &str) -> Result<String, CommandError> {
        run(Command::new("nsenter")
            .args(["--target", &self.inner.to_string()])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
            ])
            .args([
                "/usr/bin/env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root",
            ])
            .args(["/bin/sh", "-ec", line]))
    }

    /// The same, and what went wrong with the journal beside it.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        self.run(line)
            .unwrap_or_else(|error| panic!("{line}: {error}\n{}", self.journal()))
    }

    /// The last lines of the journal.
    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager -n 80 -o short-monotonic")
            .unwrap_or_else(|error| error.to_string())
    }

    /// A property of a unit.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.shell(&format!("systemctl show --value -p {name} {unit}"))
            .trim()
            .to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Process 1 takes everything inside with it.
        let _ = run(Command::new("kill").args(["-KILL", &self.inner.to_string()]));
        let _ = self.outer.terminate();
        let empty = || {
            fs::read_to_string(self.cgroup.join("cgroup.events"))
                .is_ok_and(|text| text.contains("populated 0"))
        };
        wait_until(Duration::from_secs(10), empty);
        remove(&self.cgroup);
        let _ = run(Command::new("umount").arg(&self.cgroups));
    }
}

/// Removes a cgroup and those below it; its files are the kernel's.
fn remove(cgroup: &std::path::Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
