//! A network namespace with a name of its own, gone with the value.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace; needs root.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    pub fn new() -> Self {
        let name = format!(
            "psct{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run("ip", &format!("netns add {name}"));
        let namespace = Self(name);
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` in it and returns what it printed.
    pub fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.0))
    }

    /// Runs a batch of `ip` commands in it, as fast as `ip` can.
    pub fn batch(&self, lines: impl Iterator<Item = String>) {
        let path = std::env::temp_dir().join(format!("{}-batch", self.0));
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        self.ip(&format!("-batch {}", path.display()));
        std::fs::remove_file(path).unwrap();
    }

    /// A command in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// A veth pair whose ends are both in it, up.
    pub fn veth(&self, one: &str, other: &str) {
        self.ip(&format!("link add name {one} type veth peer name {other}"));
        self.ip(&format!("link set {one} up"));
        self.ip(&format!("link set {other} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[track_caller]
fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
