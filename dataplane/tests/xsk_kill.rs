//! A dataplane that is killed under traffic leaves nothing behind: the next one binds and forwards. Needs root.
//!
//! The test starts itself a second time as the victim, so it has no harness of its own.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod rig;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rig::{Links, frame, with_gateway};

const VICTIM: &str = "be-the-victim";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [VICTIM, gateway, hosts] => be_the_victim(gateway, hosts),
        // What cargo passes to a harness, such as a filter or `--nocapture`, is of no use here.
        _ => fault_71_a_killed_dataplane_is_followed_by_another(),
    }
}

/// Brings both ports up in namespaces that exist, says so, and forwards until it is killed.
fn be_the_victim(gateway: &str, hosts: &str) {
    let links = Links::of(gateway, hosts, 1);
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        println!("up");
        loop {
            gateway.turn();
        }
    });
}

fn fault_71_a_killed_dataplane_is_followed_by_another() {
    let links = Links::new("kill", 1);
    let taps = [links.tap(1), links.tap(2)];
    for round in 1..=3u32 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([VICTIM, links.gateway.name(), links.hosts.name()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(victim.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "up\n", "round {round}");
        // It forwards, and is killed while it does.
        let deadline = Instant::now() + Duration::from_secs(10);
        taps[1].seen();
        let mut count = 0;
        while !taps[1]
            .seen()
            .iter()
            .any(|frame| rig::number(frame) == Some(round))
        {
            assert!(Instant::now() < deadline, "the victim does not forward");
            for _ in 0..200 {
                count += 1;
                taps[0].send(&frame(1, count % 64, round));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    with_gateway(&links, 1, |gateway| {
        gateway.put(1);
        gateway.put(2);
        gateway.both_up();
        let by_port = [&taps[0], &taps[0], &taps[1]];
        gateway.flows(1, &by_port, 1000);
        gateway.flows(2, &by_port, 2000);
    });
    println!("fault_71_a_killed_dataplane_is_followed_by_another: ok");
}
