//! A network namespace of a test's own, in which whatever fails ends the test.

use std::process::Command;

/// A network namespace; needs root.
#[derive(Debug)]
pub struct Namespace(netns::Namespace);

impl Namespace {
    pub fn new() -> Self {
        Self(netns::Namespace::new("psct").unwrap())
    }

    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Runs `ip` in it and returns what it printed.
    #[track_caller]
    pub fn ip(&self, arguments: &str) -> String {
        self.0.ip(arguments).unwrap()
    }

    /// Runs a batch of `ip` commands in it, as fast as `ip` can.
    #[track_caller]
    pub fn batch(&self, lines: impl Iterator<Item = String>) {
        self.0.batch(lines).unwrap();
    }

    /// A command in it.
    pub fn command(&self, program: &str) -> Command {
        self.0.command(program)
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) {
        self.0.enter().unwrap();
    }

    /// A veth pair whose ends are both in it, up.
    #[track_caller]
    pub fn veth(&self, one: &str, other: &str) {
        self.0.veth(one, other).unwrap();
    }
}
