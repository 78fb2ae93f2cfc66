//! The decision on the host, without privileges: the whole table, whole and cut short at every octet.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod fixtures;

use ebpf::classify::classify;
use ebpf::maps::Role;
use ebpf::verdict::{Pass, Verdict};
use fixtures::{Fixture, Port, fixtures};
use wire::SliceCursor;

fn verdict(fixture: &Fixture, frame: &[u8]) -> Verdict {
    classify(SliceCursor::new(frame), &Port::new(fixture.role))
}

#[test]
fn the_table() {
    for fixture in fixtures() {
        assert_eq!(
            verdict(&fixture, &fixture.frame),
            fixture.verdict,
            "{}",
            fixture.name
        );
    }
}

#[test]
fn the_table_has_every_verdict_and_no_name_twice() {
    let table = fixtures();
    for wanted in Verdict::ALL {
        assert!(
            table.iter().any(|fixture| fixture.verdict == wanted),
            "no fixture for {}",
            wanted.name()
        );
    }
    for (at, fixture) in table.iter().enumerate() {
        assert!(
            table[..at].iter().all(|other| other.name != fixture.name),
            "{} twice",
            fixture.name
        );
        assert!(fixtures::ROLES.contains(&fixture.role), "{}", fixture.name);
    }
}

/// Below what the verdict needs a frame is malformed; from there on, its tail does not matter.
#[test]
fn truncated_at_every_octet() {
    for fixture in fixtures() {
        for length in 0..=fixture.frame.len() {
            let wanted = if length < fixture.needs_bytes {
                Verdict::Pass(Pass::Malformed)
            } else {
                fixture.verdict
            };
            assert_eq!(
                verdict(&fixture, &fixture.frame[..length]),
                wanted,
                "{} at {length}",
                fixture.name
            );
        }
    }
}

/// An error about IKE shows its marker only if it quotes that much; what is shorter is judged by the port.
#[test]
fn an_error_about_ike_passes_if_it_shows_the_marker() {
    use fixtures::packet::*;
    let quoted = ipv4(UDP, fixtures::OUR_V4, fixtures::PEER_V4, udp(4500, 4500, ike()));
    let frame = v4(ipv4(
        ICMP,
        fixtures::PEER_V4,
        fixtures::OUR_V4,
        icmp(3, 4, 1400, quoted),
    ));
    let port = Port::new(Role::INTERNET);
    let marker_end = 14 + 20 + 8 + 20 + 8 + 4;
    for length in marker_end - 4..=frame.len() {
        let wanted = if length < marker_end {
            Verdict::Redirect(ebpf::verdict::Redirect::IcmpError)
        } else {
            Verdict::Pass(Pass::Ike)
        };
        assert_eq!(
            classify(SliceCursor::new(&frame[..length]), &port),
            wanted,
            "{length}"
        );
    }
}

/// A port without a role takes nothing, whatever the frame.
#[test]
fn no_role_takes_nothing() {
    for fixture in fixtures() {
        let mut port = Port::new(Role::NONE);
        port.vlans.clear();
        let verdict = classify(SliceCursor::new(&fixture.frame), &port);
        assert!(matches!(verdict, Verdict::Pass(_)), "{}", fixture.name);
    }
}
