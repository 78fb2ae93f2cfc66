//! What the tests of the XDP program share: namespaces, a wire, and frames put through the loaded program.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    unused_imports,
    reason = "the rig of tests"
)]

#[path = "../../../ebpf/tests/fixtures/mod.rs"]
pub mod fixtures;

pub use std::collections::BTreeSet;
pub use std::fs::File;
pub use std::net::IpAddr;
pub use std::process::{Command, Stdio};
pub use std::time::{Duration, Instant};

pub use aya::programs::{TestRun, TestRunOptions};
pub use dataplane::attach::{AttachError, AttachMode, PortProgram, device};
pub use dataplane::xsk::{BindRequest, CopyPolicy, PortQueue, QueueId, RingSizes, Umem, UmemConfig};
pub use ebpf::classify::classify;
pub use ebpf::maps::{COUNTERS, Counters, MAX_LOCAL_ADDRESSES, NO_SOCKET, Role, VlanKey};
pub use ebpf::verdict::{Drop, Pass, Redirect, Verdict};
pub(crate) use fixtures::packet::OUR_MAC;
pub(crate) use fixtures::{Port, fixtures};
pub use netns::Namespace;
pub use nix::sched::{CloneFlags, setns, unshare};
pub use wire::{MacAddr, SliceCursor};

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;

/// Moves the test's thread, and the commands that it starts, into a new network namespace.
pub fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    run("ip link set lo up");
}

#[track_caller]
pub fn run(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A veth pair: `port`, which the program is for, and `peer` in a namespace of its own, where other hosts are.
pub struct Wire {
    pub peer_namespace: Namespace,
}

impl Wire {
    pub fn new(tag: &str, queues: u32) -> Self {
        let wire = Self {
            peer_namespace: Namespace::new(&format!("xdp-{tag}")).unwrap(),
        };
        run(&format!(
            "ip link add port numrxqueues {queues} numtxqueues {queues} type veth \
             peer name peer numrxqueues {queues} numtxqueues {queues} netns {}",
            wire.peer_namespace.name()
        ));
        run("ip link set port address 02:00:00:00:00:01 up");
        run("ip addr add 10.1.0.1/16 brd + dev port");
        wire.peer("ip link set peer up && ip addr add 10.1.0.5/16 dev peer");
        // Checksums are finished by the sender: what XDP sees would go out as it is.
        wire.peer("ethtool -K peer tx off >/dev/null");
        wire.peer(
            "ip neigh add 10.1.0.1 lladdr 02:00:00:00:00:01 dev peer && ip route add default via 10.1.0.1",
        );
        wire
    }

    #[track_caller]
    pub fn peer(&self, command: &str) -> String {
        run(&format!(
            "ip netns exec {} sh -c '{command}'",
            self.peer_namespace.name()
        ))
    }

    /// Runs in a thread that lives where the other hosts are.
    pub fn run_in_peer(&self, action: impl FnOnce() + Send) {
        std::thread::scope(|threads| {
            let done = threads.spawn(|| {
                self.peer_namespace.enter().unwrap();
                action();
            });
            done.join().unwrap();
        });
    }

    pub fn index(&self) -> u32 {
        device::by_name("port").unwrap().index
    }
}

pub fn load(port: &Port) -> PortProgram {
    let mut program = PortProgram::load("port", 2).unwrap();
    program.set_steering(port.role, MacAddr(OUR_MAC)).unwrap();
    for (vlan, role) in &port.vlans {
        program.set_vlan_role(*vlan, *role).unwrap();
    }
    let v4 = port.local_v4.iter().copied().map(IpAddr::V4);
    let v6 = port.local_v6.iter().copied().map(IpAddr::V6);
    program.set_local(&v4.chain(v6).collect()).unwrap();
    program.set_tunnel_ends(&port.tunnel_ends).unwrap();
    program
}

/// The program's answer to one frame in the kernel's test run, and the counters that moved.
pub fn try_frame(program: &mut PortProgram, frame: &[u8]) -> (u32, Counters) {
    let before = total(program);
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::new()
    };
    let action = program.program().unwrap().test_run(options).unwrap().return_value;
    let mut moved = total(program);
    for (after, before) in moved.iter_mut().zip(before) {
        *after -= before;
    }
    (action, moved)
}

pub fn total(program: &PortProgram) -> Counters {
    let mut sums = [0; COUNTERS];
    for queue in program.verdicts().unwrap() {
        for (sum, count) in sums.iter_mut().zip(queue) {
            *sum += count;
        }
    }
    sums
}

pub fn count_of(program: &PortProgram, verdict: Verdict) -> u64 {
    total(program)[verdict.index()]
}

/// What a port without sockets does, and counts, for a verdict.
pub fn without_sockets(verdict: Verdict) -> (u32, Counters) {
    let mut moved = [0; COUNTERS];
    moved[verdict.index()] = 1;
    let action = match verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Redirect(why) => {
            moved[NO_SOCKET] = 1;
            if why == Redirect::Transit {
                XDP_DROP
            } else {
                XDP_PASS
            }
        }
    };
    (action, moved)
}
