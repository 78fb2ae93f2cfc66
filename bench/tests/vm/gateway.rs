//! Penstock in the machine: the built daemons, as an operator of that machine would run them.

use std::time::Duration;

use bench::process::wait_until;
use serde_json::Value;

use crate::machine::{Machine, QUEUES};

/// How long a daemon may take to answer, emulated.
const START_LIMIT: Duration = Duration::from_secs(40);

const FOLDER: &str = "/run/penstock";
const PROGRAMS: &str = "/mnt/programs";

/// Both daemons in a machine; they end with it.
#[derive(Debug)]
pub(crate) struct Gateway<'m> {
    machine: &'m Machine,
}

impl<'m> Gateway<'m> {
    /// Starts the dataplane with a worker for each queue and these more arguments, and control with this configuration.
    pub(crate) fn start(
        machine: &'m Machine,
        configuration: &str,
        secrets: &[(&str, &str)],
        arguments: &str,
    ) -> Self {
        let gateway = Self { machine };
        machine.run(&format!("mkdir -m 700 {FOLDER}"));
        for (name, secret) in secrets {
            machine.hand_over(name, secret);
            machine.run(&format!("install -m 600 /mnt/share/{name} {FOLDER}/{name}"));
        }
        gateway.configure(configuration);
        let cores: Vec<_> = (0..QUEUES).map(|core| core.to_string()).collect();
        let cores = cores.join(",");
        gateway.spawn(
            "penstock-dataplane",
            &format!("--socket {FOLDER}/dataplane.sock --cores {cores} --frames-per-worker 8192 --seccomp kill {arguments}"),
        );
        gateway.wait_for("the dataplane's socket", || {
            machine
                .attempt(&format!("test -S {FOLDER}/dataplane.sock"))
                .is_ok()
        });
        gateway.spawn(
            "penstock-control",
            &format!(
                "--config {FOLDER}/penstock.toml --dataplane-socket {FOLDER}/dataplane.sock \
                 --admin-socket {FOLDER}/control.sock --state {FOLDER}/state"
            ),
        );
        gateway.wait_for("an answer from control", || gateway.ask("show ports").is_ok());
        gateway
    }

    fn spawn(&self, program: &str, arguments: &str) {
        self.machine.run(&format!(
            "setsid {PROGRAMS}/{program} {arguments} >{FOLDER}/{program}.log 2>&1 & echo $! >{FOLDER}/{program}.pid"
        ));
    }

    /// Replaces the configuration file.
    pub(crate) fn configure(&self, configuration: &str) {
        let text = configuration.replace("{folder}", FOLDER);
        self.machine.hand_over("penstock.toml", &text);
        self.machine
            .run(&format!("cp /mnt/share/penstock.toml {FOLDER}/penstock.toml"));
    }

    /// Runs the command line.
    pub(crate) fn ask(&self, arguments: &str) -> Result<String, String> {
        self.machine.attempt(&format!(
            "{PROGRAMS}/penstock --socket {FOLDER}/control.sock {arguments}"
        ))
    }

    /// The records of a list.
    pub(crate) fn show(&self, list: &str) -> Vec<Value> {
        let text = self
            .ask(&format!("show {list} --json"))
            .unwrap_or_else(|error| panic!("{error}"));
        let document: Value = serde_json::from_str(&text).unwrap();
        document[list].as_array().unwrap().clone()
    }

    /// A port's record.
    pub(crate) fn port(&self, interface: &str) -> Value {
        let ports = self.show("ports");
        let port = ports.iter().find(|port| port["interface"] == interface);
        port.unwrap_or_else(|| panic!("no port {interface}: {ports:?}"))
            .clone()
    }

    /// Waits for a condition, and ends the test with everything worth knowing where it does not come true.
    pub(crate) fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(
            wait_until(START_LIMIT, condition),
            "waited in vain for {what}\n{}",
            self.situation()
        );
    }

    /// Both logs, and what the gateway and its kernel say of themselves.
    pub(crate) fn situation(&self) -> String {
        let mut text = String::new();
        for command in [
            format!("cat {FOLDER}/*.log"),
            format!(
                "for l in ports tunnels workers drops neighbours; do {PROGRAMS}/penstock --socket {FOLDER}/control.sock show $l; done"
            ),
            "ip -s -d link; ip addr; ip route; ip neigh".to_owned(),
            "dmesg | tail -n 40".to_owned(),
        ] {
            let output = self.machine.attempt(&command).unwrap_or_else(|error| error);
            text.push_str(&format!("--- {command}\n{output}\n"));
        }
        text
    }

    /// The process ids of both daemons, which must be the same ones throughout; they must run.
    pub(crate) fn processes(&self) -> String {
        self.machine
            .run(&format!("cat {FOLDER}/*.pid; kill -0 $(cat {FOLDER}/*.pid)"))
    }

    /// Whether each frame of every worker is in exactly one place, and each packet that came has gone.
    pub(crate) fn is_balanced(&self) -> bool {
        let workers = self.show("workers");
        workers.len() == usize::from(QUEUES)
            && workers.iter().all(|worker| {
                let sum = |names: &[&str]| -> u64 {
                    names.iter().map(|name| worker[*name].as_u64().unwrap()).sum()
                };
                sum(&["frames"]) == sum(&["frames_free", "frames_fill", "frames_transmit", "frames_held"])
                    && sum(&["received_packets", "from_host_packets", "generated_packets"])
                        == sum(&[
                            "transmitted_packets",
                            "to_host_packets",
                            "absorbed_packets",
                            "held_packets",
                            "dropped_packets",
                        ])
            })
    }
}
