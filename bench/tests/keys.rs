//! Keys in the memory of the running daemons: there while they are in use, and nowhere afterwards.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bench::gateway::Dataplane;
use bench::process::wait_until;
use bench::site_to_site::SiteToSite;
use bench::sites::{HOST_B, Sites, answers};
use bench::topology::Links;

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// Where in a process's writable memory `needle` stands, with the name of the mapping.
fn places(process: u32, needle: &[u8]) -> Vec<String> {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // What is a device's is not to be read so, and a mapping may have gone.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        let mut rest = bytes.as_slice();
        while let Some(at) = rest.iter().position(|&byte| byte == needle[0]) {
            if rest[at..].starts_with(needle) {
                let offset = bytes.len() - rest.len() + at;
                found.push(format!("{:#x} in {line}", from + offset as u64));
            }
            rest = &rest[at + 1..];
        }
    }
    found
}

#[test]
fn fault_53_keys_of_a_removed_tunnel_are_nowhere_in_memory() {
    let tunnel = SiteToSite::new("aes256gcm16", 36).unwrap();
    let mut sites = Sites::start("keys", Links::default(), &tunnel, &Dataplane::default()).unwrap();
    for _ in 0..3 {
        assert!(answers(&sites.topology.host_a, HOST_B[0]));
    }
    // The cipher's key; the salt behind it is too short to look for.
    let keys = tunnel.secrets().map(|(_, hex)| bytes_of(hex)[..32].to_vec());
    let gateway = &mut sites.gateway_1;
    let processes = [gateway.dataplane().unwrap().id(), gateway.control().unwrap().id()];
    for process in processes {
        for key in &keys {
            assert!(
                !places(process, key).is_empty(),
                "this test sees no key that is in use"
            );
        }
    }
    let ports_only = tunnel.configuration(1);
    let ports_only = ports_only.split("[[tunnel]]").next().unwrap();
    gateway.configure(ports_only).unwrap();
    gateway.penstock(&["reload"]).unwrap();
    let left = || -> Vec<String> {
        let both = processes
            .iter()
            .flat_map(|process| keys.iter().map(|key| (*process, key)));
        both.flat_map(|(process, key)| places(process, key)).collect()
    };
    assert!(
        wait_until(Duration::from_secs(10), || left().is_empty()),
        "{:#?}\n{}",
        left(),
        gateway.logs()
    );
}
