//! The committed XDP object on the running kernel: the verifier takes it, it decides as the host's `classify`
//! does, it attaches, counts, redirects, refuses to displace others and leaves nothing behind. Needs root.
//!
//! Each test is a thread in a network namespace of its own, which ends with it.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod xdp_rig;

use xdp_rig::*;

/// The verifier gives up at a million instructions walked through; older kernels walk more than newer ones.
#[test]
fn the_verifier_is_far_from_its_limit() {
    enter_namespace();
    let mut program = PortProgram::load("port", 1).unwrap();
    let info = program.program().unwrap().info().unwrap();
    let walked = info.verified_instruction_count().unwrap();
    println!(
        "{walked} instructions walked, {} octets of machine code",
        info.size_jitted()
    );
    assert!(walked < 100_000, "{walked}");
}

/// Every fixture, whole and cut short at every octet (the kernel's test run wants an Ethernet header).
#[test]
fn the_loaded_program_decides_as_the_host() {
    enter_namespace();
    let mut tried = 0;
    for role in fixtures::ROLES {
        let port = Port::new(role);
        let mut program = load(&port);
        for fixture in fixtures().iter().filter(|fixture| fixture.role == role) {
            for length in 14..=fixture.frame.len() {
                let frame = &fixture.frame[..length];
                let wanted = classify(SliceCursor::new(frame), &port);
                if length < fixture.needs_bytes {
                    assert_eq!(
                        wanted,
                        Verdict::Pass(Pass::Malformed),
                        "{} at {length}",
                        fixture.name
                    );
                }
                let found = try_frame(&mut program, frame);
                assert_eq!(
                    found,
                    without_sockets(wanted),
                    "{} at {length}: {wanted:?}",
                    fixture.name
                );
                tried += 1;
            }
            assert_eq!(
                classify(SliceCursor::new(&fixture.frame), &port),
                fixture.verdict,
                "{}",
                fixture.name
            );
        }
    }
    assert!(tried > 10_000, "only {tried} frames");
}

#[test]
fn steering_changes_while_the_program_is_loaded() {
    enter_namespace();
    let port = Port::new(Role::INTERNET);
    let mut program = load(&port);
    let fixture = fixtures()
        .into_iter()
        .find(|fixture| fixture.name == "ESP")
        .unwrap();
    let esp = Verdict::Redirect(Redirect::Esp);
    let not_ours = Verdict::Pass(Pass::NotOurs);
    let verdict = |program: &mut PortProgram, wanted| {
        assert_eq!(try_frame(program, &fixture.frame), without_sockets(wanted));
    };
    verdict(&mut program, esp);
    program.set_steering(Role::PROTECTED, MacAddr(OUR_MAC)).unwrap();
    verdict(&mut program, not_ours);
    program
        .set_steering(Role::INTERNET, MacAddr([2, 0, 0, 0, 0, 7]))
        .unwrap();
    verdict(&mut program, not_ours);
    program.set_steering(Role::INTERNET, MacAddr(OUR_MAC)).unwrap();
    verdict(&mut program, esp);

    let address: IpAddr = fixtures::OUR_V4.parse().unwrap();
    program.remove_local(address).unwrap();
    program.remove_local(address).unwrap();
    verdict(&mut program, not_ours);
    program.add_local(address).unwrap();
    program.add_local(address).unwrap();
    verdict(&mut program, esp);
    program.set_local(&BTreeSet::new()).unwrap();
    verdict(&mut program, not_ours);
    program.set_local(&BTreeSet::from([address])).unwrap();
    verdict(&mut program, esp);

    let tagged = fixtures()
        .into_iter()
        .find(|fixture| fixture.name == "ESP in a VLAN for everything")
        .unwrap();
    let vlan = VlanKey {
        outer: 4094,
        inner: 0,
    };
    program.set_vlan_role(vlan, Role::NONE).unwrap();
    program.set_vlan_role(vlan, Role::NONE).unwrap();
    assert_eq!(try_frame(&mut program, &tagged.frame), without_sockets(not_ours));
    program.set_vlan_role(vlan, Role::INTERNET).unwrap();
    assert_eq!(try_frame(&mut program, &tagged.frame), without_sockets(esp));
}

#[test]
fn as_many_local_addresses_as_promised_and_no_more() {
    enter_namespace();
    let mut program = PortProgram::load("port", 1).unwrap();
    let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let full: BTreeSet<IpAddr> = (0..MAX_LOCAL_ADDRESSES).map(address).collect();
    program.set_local(&full).unwrap();
    let refused = program.add_local(address(MAX_LOCAL_ADDRESSES)).unwrap_err();
    assert!(
        matches!(refused, AttachError::TooManyAddresses { count: 65_537, .. }),
        "{refused}"
    );
    // A full set moves by one: there is room for the new address once the old one has left.
    let moved: BTreeSet<IpAddr> = (1..=MAX_LOCAL_ADDRESSES).map(address).collect();
    program.set_local(&moved).unwrap();
    let refused = program
        .set_local(&(0..=MAX_LOCAL_ADDRESSES).map(address).collect())
        .unwrap_err();
    assert!(refused.to_string().contains("at most 65536"), "{refused}");
    // The other family has room of its own.
    program.add_local(fixtures::OUR_V6.parse().unwrap()).unwrap();
}

#[test]
fn attaches_in_either_mode_counts_and_detaches() {
    enter_namespace();
    let wire = Wire::new("modes", 2);
    let local: BTreeSet<IpAddr> = ["10.1.0.1", "10.1.255.255"]
        .map(|text| text.parse().unwrap())
        .into();
    let mut program = PortProgram::load("port", 2).unwrap();
    program
        .set_steering(
            Role::PROTECTED.with(Role::INTERNET),
            device::by_name("port").unwrap().mac,
        )
        .unwrap();
    program.set_local(&local).unwrap();
    let (not_ours, transit) = (Verdict::Pass(Pass::NotOurs), Verdict::Redirect(Redirect::Transit));
    let keepalive = Verdict::Drop(Drop::NatKeepalive);

    for (mode, word) in [(AttachMode::Driver, "xdp"), (AttachMode::Generic, "xdpgeneric")] {
        program.attach(wire.index(), mode).unwrap();
        assert_eq!(program.attached(), Some((wire.index(), mode)));
        assert!(matches!(
            program.attach(wire.index(), mode),
            Err(AttachError::Attached { .. })
        ));
        let shown = run("ip link show dev port");
        assert!(shown.contains(&format!(" {word} ")), "{mode:?}: {shown}");
        assert!(
            shown.contains(&format!("id {}", program.program_id().unwrap())),
            "{shown}"
        );

        let before = total(&program);
        wire.peer("ping -c 3 -i 0.05 -W 1 10.1.0.1 >/dev/null");
        wire.peer("ping -c 4 -i 0.05 -W 1 192.0.2.7 >/dev/null || true");
        wire.run_in_peer(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:4500").unwrap();
            socket.send_to(&[0xff], "10.1.0.1:4500").unwrap();
        });
        let after = total(&program);
        let moved = |verdict: Verdict| after[verdict.index()] - before[verdict.index()];
        assert!(moved(not_ours) >= 3, "{mode:?}");
        assert_eq!(moved(transit), 4, "{mode:?}");
        assert_eq!(after[NO_SOCKET] - before[NO_SOCKET], 4, "{mode:?}");
        assert_eq!(moved(keepalive), 1, "{mode:?}");

        program.detach();
        assert_eq!(program.attached(), None);
        assert_eq!(device::by_name("port").unwrap().xdp.any(), None, "{mode:?}");
        wire.peer("ping -c 1 -W 1 10.1.0.1 >/dev/null");
        assert_eq!(total(&program), after, "a detached program counts nothing");
    }

    // A link that is dropped with its program leaves nothing either.
    program.attach(wire.index(), AttachMode::Driver).unwrap();
    std::mem::drop(program);
    assert_eq!(device::by_name("port").unwrap().xdp.any(), None);
}

#[test]
fn a_jumbo_port_takes_the_program() {
    enter_namespace();
    let wire = Wire::new("jumbo", 1);
    wire.peer("ip link set peer mtu 9000");
    run("ip link set port mtu 9000");
    let mut program = PortProgram::load("port", 1).unwrap();
    program.attach(wire.index(), AttachMode::Driver).unwrap();
    wire.peer("ping -c 1 -W 1 -s 8000 -M do 10.1.0.1 >/dev/null");
    assert!(count_of(&program, Verdict::Pass(Pass::NotOurs)) >= 1);
}

#[test]
fn a_device_without_native_xdp_is_reported_as_such() {
    enter_namespace();
    let mut program = PortProgram::load("lo", 1).unwrap();
    let lo = device::by_name("lo").unwrap().index;
    let refused = program.attach(lo, AttachMode::Driver).unwrap_err();
    assert!(
        matches!(
            refused,
            AttachError::Mode {
                mode: AttachMode::Driver,
                ..
            }
        ),
        "{refused}"
    );
    program.attach(lo, AttachMode::Generic).unwrap();
    assert_eq!(program.attached(), Some((lo, AttachMode::Generic)));

    let mut program = PortProgram::load("nowhere", 1).unwrap();
    let refused = program.attach(9_999, AttachMode::Driver).unwrap_err();
    assert!(
        matches!(refused, AttachError::Device { index: 9_999, .. }),
        "{refused}"
    );
    assert!(device::by_name("nowhere").is_err());
}

/// Another's program, attached by a link or without one, in this or the other mode, stays and is named.
#[test]
fn fault_71_a_foreign_program_is_named_and_left_alone() {
    enter_namespace();
    let wire = Wire::new("foreign", 1);
    let mut ours = PortProgram::load("port", 1).unwrap();
    let mut theirs = PortProgram::load("theirs", 1).unwrap();
    let their_id = theirs.program_id().unwrap();

    for their_mode in [AttachMode::Driver, AttachMode::Generic] {
        theirs.attach(wire.index(), their_mode).unwrap();
        for our_mode in [AttachMode::Driver, AttachMode::Generic] {
            let refused = ours.attach(wire.index(), our_mode).unwrap_err();
            let AttachError::Foreign {
                program_id,
                ref program_name,
                ..
            } = refused
            else {
                panic!("{refused}")
            };
            assert_eq!(
                (program_id, program_name.as_deref()),
                (their_id, Some("penstock_xdp"))
            );
            assert!(
                refused
                    .to_string()
                    .contains(&format!("XDP program {their_id} (penstock_xdp)")),
                "{refused}"
            );
        }
        theirs.detach();
    }

    // By netlink, as `ip link` does, so that no link protects it.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    run("mount --make-rprivate / && mount -t bpf bpf /mnt");
    theirs.program().unwrap().pin("/mnt/theirs").unwrap();
    run("ip link set dev port xdp pinned /mnt/theirs");
    let refused = ours.attach(wire.index(), AttachMode::Driver).unwrap_err();
    assert!(
        matches!(refused, AttachError::Foreign { program_id, .. } if program_id == their_id),
        "{refused}"
    );
    std::mem::drop(ours);
    assert_eq!(
        device::by_name("port").unwrap().xdp.driver,
        Some(their_id),
        "ours took theirs along"
    );

    // Once it is gone the port is free.
    run("ip link set dev port xdp off");
    let mut ours = PortProgram::load("port", 1).unwrap();
    ours.attach(wire.index(), AttachMode::Driver).unwrap();
    // And nobody replaces ours in passing.
    let status = Command::new("ip")
        .args("link set dev port xdp pinned /mnt/theirs".split(' '))
        .output()
        .unwrap();
    assert!(!status.status.success());
    assert_eq!(
        device::by_name("port").unwrap().xdp.driver,
        Some(ours.program_id().unwrap())
    );
}

/// Tells the test below that it is the process to be killed, and which device to attach to.
const VICTIM: &str = "PENSTOCK_TEST_XDP_VICTIM";

#[test]
fn fault_71_nothing_of_ours_is_left_after_sigkill() {
    if let Ok(index) = std::env::var(VICTIM) {
        let mut program = PortProgram::load("port", 1).unwrap();
        program
            .attach(index.parse().unwrap(), AttachMode::Driver)
            .unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    enter_namespace();
    let wire = Wire::new("kill", 1);
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fault_71_nothing_of_ours_is_left_after_sigkill"])
        .env(VICTIM, wire.index().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let attached = || device::by_name("port").unwrap().xdp.any().is_some();
    let came = within(Duration::from_secs(20), &attached);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(came, "the other process never attached");
    assert!(
        within(Duration::from_secs(5), &|| !attached()),
        "the program outlived its process"
    );
    // So the port is free at once for the next process.
    PortProgram::load("port", 1)
        .unwrap()
        .attach(wire.index(), AttachMode::Driver)
        .unwrap();
}

/// Tells the test below that it is the process with the service user's rights.
const SERVICE: &str = "PENSTOCK_TEST_XDP_SERVICE";

/// The daemon is no root: the verifier is stricter with it.
#[test]
fn the_service_users_capabilities_suffice() {
    if let Ok(index) = std::env::var(SERVICE) {
        let mut program = load(&Port::new(Role::INTERNET));
        program
            .attach(index.parse().unwrap(), AttachMode::Driver)
            .unwrap();
        program.verdicts().unwrap();
        let mut second = PortProgram::load("port", 2).unwrap();
        let refused = second
            .attach(index.parse().unwrap(), AttachMode::Driver)
            .unwrap_err();
        // Listing programs needs CAP_SYS_ADMIN: the number must do.
        assert!(
            matches!(
                refused,
                AttachError::Foreign {
                    program_name: None,
                    ..
                }
            ),
            "{refused}"
        );
        return;
    }
    enter_namespace();
    let wire = Wire::new("service", 2);
    // Where the service user may read it.
    let copy = std::env::temp_dir().join(format!("xdp-service-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let capabilities = "-all,+net_admin,+net_raw,+bpf,+ipc_lock,+sys_nice";
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .args([
            format!("--inh-caps={capabilities}"),
            format!("--ambient-caps={capabilities}"),
        ])
        .arg(format!("--bounding-set={capabilities}"))
        .arg(&copy)
        .args(["--exact", "the_service_users_capabilities_suffice", "--nocapture"])
        .env(SERVICE, wire.index().to_string())
        .current_dir("/")
        .output()
        .unwrap();
    std::fs::remove_file(&copy).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
}

fn within(limit: Duration, condition: &dyn Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    condition()
}

/// The device goes with the program attached, and returns: the same instance serves it again.
#[test]
fn the_program_survives_its_device() {
    enter_namespace();
    let wire = Wire::new("gone", 1);
    let mut program = PortProgram::load("port", 1).unwrap();
    program.attach(wire.index(), AttachMode::Driver).unwrap();
    run("ip link del port");
    std::mem::drop(wire);
    let wire = Wire::new("back", 1);
    program.detach();
    program.attach(wire.index(), AttachMode::Driver).unwrap();
    wire.peer("ping -c 1 -W 1 10.1.0.1 >/dev/null");
    assert!(count_of(&program, Verdict::Pass(Pass::NotOurs)) >= 1);
}

/// With a socket in the slot the frames come out of its receive ring, and once it is closed they no longer go there.
#[test]
fn a_socket_gets_what_is_taken_and_only_that() {
    enter_namespace();
    let wire = Wire::new("socket", 1);
    let device = device::by_name("port").unwrap();
    let mut program = PortProgram::load("port", 1).unwrap();
    program.set_steering(Role::PROTECTED, device.mac).unwrap();
    program.add_local("10.1.0.1".parse().unwrap()).unwrap();
    program.attach(device.index, AttachMode::Driver).unwrap();

    let umem = Umem::new(&UmemConfig {
        frame_count: 256,
        ..UmemConfig::default()
    })
    .unwrap();
    let mut pool = umem.pool().unwrap();
    let request = BindRequest {
        id: QueueId { port: 0, queue: 0 },
        ifindex: device.index,
        policy: CopyPolicy::BestFirst,
        rings: RingSizes::default(),
        fill_target: 64,
    };
    let mut queue = PortQueue::bind(&umem, &request).unwrap();
    queue.refill(&mut pool);
    program.set_socket(0, queue.as_fd()).unwrap();
    let refused = program.set_socket(1, queue.as_fd()).unwrap_err();
    assert!(
        matches!(
            refused,
            AttachError::Queue {
                queue: 1,
                queues: 1,
                ..
            }
        ),
        "{refused}"
    );

    wire.peer("ping -c 3 -i 0.05 -W 1 192.0.2.7 >/dev/null || true");
    wire.peer("ping -c 2 -i 0.05 -W 1 10.1.0.1 >/dev/null");
    let mut frames = Vec::new();
    queue.receive(64, |frame| frames.push(frame));
    assert_eq!(frames.len(), 3);
    for frame in frames {
        let bytes = frame.bytes();
        assert_eq!(bytes[..6], OUR_MAC);
        assert_eq!(bytes[30..34], [192, 0, 2, 7]);
        pool.put(frame);
    }
    assert_eq!(total(&program)[NO_SOCKET], 0);

    program.clear_socket(0).unwrap();
    program.clear_socket(0).unwrap();
    wire.peer("ping -c 1 -W 1 192.0.2.7 >/dev/null || true");
    assert_eq!(total(&program)[NO_SOCKET], 1);
    program.set_socket(0, queue.as_fd()).unwrap();
    queue.close().reclaim(&mut pool);
    assert!(within(Duration::from_secs(2), &|| {
        let _ = Command::new("ip")
            .args([
                "netns",
                "exec",
                wire.peer_namespace.name(),
                "ping",
                "-c",
                "1",
                "-W",
                "0.1",
                "192.0.2.7",
            ])
            .output();
        total(&program)[NO_SOCKET] > 1
    }));
}
