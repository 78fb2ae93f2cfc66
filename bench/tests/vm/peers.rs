//! IKE daemons in the machine, on the ESP of its kernel: the root of `bench/vm/peers`, made writable, and Penstock in the
//! place of gateway 2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::process::wait_until;
use bench::topology::{Links, Topology};

use crate::machine::{Machine, Model};
use crate::unanswered;

/// How long a daemon may take to do what it is asked, emulated, beside other work.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where the root of the daemons is in the machine.
const ROOT: &str = "/run/peers/root";

/// A root over the shared one, whose changes are in memory; the folder that the test shares is at `/mnt`.
const MOUNTS: &[&str] = &[
    "modprobe overlay",
    "mkdir -p /mnt/peers /run/peers/upper /run/peers/work /run/peers/root",
    "mount -t 9p -o ro,cache=loose,trans=virtio,version=9p2000.L,msize=262144 peers /mnt/peers",
    "mount -t overlay -o lowerdir=/mnt/peers,upperdir=/run/peers/upper,workdir=/run/peers/work peers /run/peers/root",
    "for f in proc sys dev; do mount --rbind /$f /run/peers/root/$f; done",
    "mount --bind /mnt/share /run/peers/root/mnt",
    "modprobe -a xfrm_user esp4 esp6",
    // What the daemon sends leaves through a tap: nobody but it would finish the checksum.
    "for i in lan wan; do ethtool -K $i tx off; done",
    "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.wan.send_redirects=0",
    // The Internet is behind the other gateway; rules alone lead into tunnels, where a daemon makes no routes.
    "ip route add default via 198.51.100.2",
];

/// A machine with IKE daemons at site 1, and Penstock at site 2.
pub(crate) struct Site {
    pub(crate) penstock: Gateway,
    pub(crate) machine: Machine,
    pub(crate) topology: Topology,
}

impl Site {
    /// Boots the machine, and starts Penstock with a configuration that more terms may replace.
    pub(crate) fn boot(stem: &str, configuration: &str, secrets: &[(&str, &str)]) -> Self {
        let topology = Topology::new(stem, Links::default()).unwrap();
        let machine = Machine::boot(&topology.gateway_1, Model::Virtio);
        for command in MOUNTS {
            machine
                .attempt(command)
                .unwrap_or_else(|error| panic!("{error}\nrun `make test-vm`, which prepares the root"));
        }
        let penstock =
            Gateway::start(&topology.gateway_2, configuration, secrets, Dataplane::default()).unwrap();
        Self {
            penstock,
            machine,
            topology,
        }
    }

    /// Writes a file of the daemons' root that its owner alone reads.
    pub(crate) fn write(&self, path: &str, text: &str) {
        self.machine.hand_over("file", text);
        self.machine
            .run(&format!("install -D -m 600 /mnt/share/file {ROOT}{path}"));
    }

    /// Runs a command in the daemons' root.
    pub(crate) fn inside(&self, command: &str) -> Result<String, String> {
        self.machine.attempt(&format!("chroot {ROOT} {command}"))
    }

    /// Starts a daemon of that root; what it prints goes to a file that [`Self::situation`] shows.
    pub(crate) fn spawn(&self, command: &str) {
        self.machine.run(&format!(
            "setsid chroot {ROOT} {command} >{ROOT}/run/daemon.out 2>&1 &"
        ));
    }

    /// Gives Penstock another configuration.
    pub(crate) fn configure(&self, configuration: &str) {
        self.penstock.configure(configuration).unwrap();
        self.does(&["reload"]);
    }

    /// Penstock's command line; its own words where it fails.
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        self.penstock
            .penstock(arguments)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", self.situation()))
    }

    /// Asks Penstock for the connection; an emulated peer may take longer to answer than the command line waits.
    pub(crate) fn up(&self) {
        let said = self.penstock.penstock(&["up", "site"]);
        self.wait_for(&format!("the connection after {said:?}"), || {
            let record = self.ike();
            record["state"] == "established"
                && record["children"].as_array().is_some_and(|list| list.len() == 1)
        });
    }

    /// How often the log says this of the connection.
    pub(crate) fn told(&self, what: &str) -> usize {
        self.does(&["log", "site"]).matches(what).count()
    }

    /// Both ends renew the pair and the IKE SA by these requests, one after another; how many echo requests from
    /// `from` to `to` had no reply meanwhile.
    pub(crate) fn renew(
        &self,
        (from, to): (&Namespace, &str),
        peer_renews_pair: impl Fn(),
        peer_renews_ike: impl Fn(),
    ) -> i64 {
        // The command line does not wait as long as an emulated peer may take.
        let penstock = |arguments: &[&str]| drop(self.penstock.penstock(arguments));
        let step = |what: &str, renew: &dyn Fn()| {
            let before = self.told(what);
            renew();
            self.wait_for(what, || self.told(what) > before);
        };
        lost_during(from, to, || {
            step("net renewed", &|| penstock(&["rekey", "site", "net"]));
            step("net renewed", &peer_renews_pair);
            step("IKE SA renewed", &|| penstock(&["rekey", "site"]));
            step("IKE SA renewed", &peer_renews_ike);
            step("net renewed", &|| penstock(&["rekey", "site", "net"]));
        })
    }

    /// `show ike`, the first record.
    pub(crate) fn ike(&self) -> serde_json::Value {
        self.penstock.json(&["show", "ike"]).unwrap()["ike"][0].clone()
    }

    /// Waits for a condition, and ends the test with everything worth knowing where it does not come true.
    pub(crate) fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(
            wait_until(LIMIT, condition),
            "waited in vain for {what}\n{}",
            self.situation()
        );
    }

    /// The kernel of the machine has no SA and no rule left of a connection.
    pub(crate) fn wait_for_no_sa(&self) {
        self.wait_for("the kernel's SAs to go", || {
            !self.machine.run("ip xfrm state").contains("proto esp")
        });
    }

    /// The hosts of both sites reach each other.
    pub(crate) fn assert_joined(&self) {
        let Topology { host_a, host_b, .. } = &self.topology;
        self.assert_answers(host_a, "10.2.0.10");
        self.assert_answers(host_b, "10.1.0.10");
    }

    pub(crate) fn assert_answers(&self, from: &Namespace, to: &str) {
        self.wait_for(&format!("an answer from {to}"), || {
            from.run(&format!("ping -c 1 -W 2 {to}")).is_ok()
        });
    }

    /// What both ends and the machine's kernel say of themselves.
    pub(crate) fn situation(&self) -> String {
        let mut text = String::new();
        for command in [
            format!("cat {ROOT}/run/*.log {ROOT}/run/daemon.out"),
            "ip -s xfrm state | grep -v -e enc -e auth -e aead".to_owned(),
            "ip xfrm policy; cat /proc/net/xfrm_stat; ip route show table all; ip -s link show wan"
                .to_owned(),
            "dmesg | tail -n 20".to_owned(),
        ] {
            let output = self.machine.attempt(&command).unwrap_or_else(|error| error);
            text += &format!("--- {command}\n{output}\n");
        }
        text += &self.penstock.logs();
        for noun in ["ike", "sa", "tunnels", "routes", "drops", "log"] {
            let arguments: &[&str] = if noun == "log" { &["log"] } else { &["show", noun] };
            text += &self
                .penstock
                .penstock(arguments)
                .unwrap_or_else(|error| error.to_string());
        }
        text
    }
}

/// Runs echo requests from `from` to `to` every 20 ms as long as `meanwhile` goes on; how many had no reply.
fn lost_during(from: &Namespace, to: &str, meanwhile: impl FnOnce()) -> i64 {
    let is_over = AtomicBool::new(false);
    let ping = format!("ping -q -i 0.02 -c 50 {to}");
    let before = unanswered(from);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Its own count of the last ones is none: it does not wait for them as long as emulation may take.
                let _ = from.run(&ping);
            }
        });
        meanwhile();
        is_over.store(true, Ordering::Relaxed);
    });
    wait_until(LIMIT, || unanswered(from) <= before);
    unanswered(from) - before
}
