//! A Debian system to try things on: an overlay in memory over one that stays as it is, entered by chroot.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part, and ends at the first surprise"
)]

pub mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bench::namespace::run;

/// The root of this tree.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// A script of `packaging`.
pub fn script(name: &str) -> Command {
    Command::new(tree().join("packaging").join(name))
}

/// A Debian system to change at will, over the one that is kept.
pub struct System {
    /// A folder in memory, for what the test needs besides.
    pub place: PathBuf,
}

impl System {
    /// The minimal one that `packaging/prepare-chroot` keeps.
    pub fn minimal() -> Self {
        run(&mut script("prepare-chroot")).unwrap();
        let cache = std::env::var("PENSTOCK_CHROOT").unwrap_or("/var/tmp/penstock-chroot".to_owned());
        Self::over(&format!("{cache}/root"))
    }

    /// One that starts as this machine is.
    pub fn of_this_machine() -> Self {
        Self::over("/")
    }

    fn over(lower: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("system-{}-{serial}", std::process::id()));
        fs::create_dir(&place).unwrap();
        // What is written lies in memory: an overlay over an overlay is not had everywhere.
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&place)).unwrap();
        let system = Self { place };
        for folder in ["upper", "work", "root"] {
            fs::create_dir(system.place.join(folder)).unwrap();
        }
        let layers = format!(
            "lowerdir={lower},upperdir={0}/upper,workdir={0}/work",
            system.place.display()
        );
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &layers])
            .arg(system.root()))
        .unwrap();
        for (kind, folder) in [("proc", "proc"), ("devtmpfs", "dev"), ("tmpfs", "run")] {
            run(Command::new("mount")
                .args(["-t", kind, kind])
                .arg(system.root().join(folder)))
            .unwrap();
        }
        system
    }

    /// Its root, seen from outside.
    pub fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// A path inside.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Runs a shell command inside and returns what it printed.
    #[track_caller]
    pub fn shell(&self, command: &str) -> String {
        run(Command::new("chroot")
            .arg(self.root())
            .args(["/bin/sh", "-ec", command])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive"))
        .unwrap()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for mount in ["root/run", "root/dev", "root/proc", "root", ""] {
            let _ = run(Command::new("umount").arg(self.place.join(mount)));
        }
        let _ = fs::remove_dir(&self.place);
    }
}

/// The package of this tree as it was just built, under a version.
pub fn package(folder: &Path, version: &str) -> PathBuf {
    let binaries = bench::gateway::built("penstock").unwrap();
    run(script("build-deb")
        .arg(binaries.parent().unwrap())
        .arg(folder)
        .arg(version))
    .unwrap();
    let packages = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = format!("penstock_{version}_");
    packages
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&wanted))
        .unwrap()
}
