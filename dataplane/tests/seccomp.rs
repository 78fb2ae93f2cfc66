//! The filter of system calls, from inside: what is allowed works, what is not is refused or ends the process.
//!
//! A filter is for good and for the whole process, so each case is a process of its own, started from this program.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test ends at the first surprise"
)]

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::thread;

use dataplane::privileges;
use dataplane::seccomp::{Mode, install};
use dataplane::xsk::ethtool;
use nix::sys::signal::Signal;

type Deed = fn() -> io::Result<()>;

/// What a confined process does, by name, and what must come of it in each mode: success, refusal (exit code 2), or
/// death by SIGSYS.
const DEEDS: &[(&str, Deed)] = &[
    ("read-a-file", || File::open("/proc/self/status").map(drop)),
    ("write-a-file", || fs::write("/dev/null", "")),
    ("start-a-program", || Command::new("/bin/true").status().map(drop)),
    ("start-a-thread", || thread::Builder::new().spawn(|| ()).map(drop)),
    ("open-a-unix-socket", || {
        std::os::unix::net::UnixDatagram::unbound().map(drop)
    }),
    ("ask-a-device", || {
        let _socket = UdpSocket::bind("127.0.0.1:0")?;
        ethtool::receive_queues("lo").map(drop).map_err(io::Error::from)
    }),
    ("kill-a-process", || {
        nix::sys::signal::kill(nix::unistd::getppid(), None).map_err(io::Error::from)
    }),
    ("enter-a-namespace", || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }),
    ("abort", || std::process::abort()),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Refused,
    Killed(Signal),
}

/// A deed's end where what is not allowed is refused, and where it kills.
const ENDS: &[(&str, End, End)] = &[
    ("read-a-file", End::Done, End::Done),
    ("ask-a-device", End::Done, End::Done),
    (
        "abort",
        End::Killed(Signal::SIGABRT),
        End::Killed(Signal::SIGABRT),
    ),
    ("write-a-file", End::Refused, End::Killed(Signal::SIGSYS)),
    ("start-a-thread", End::Refused, End::Killed(Signal::SIGSYS)),
    ("open-a-unix-socket", End::Refused, End::Killed(Signal::SIGSYS)),
    ("kill-a-process", End::Refused, End::Killed(Signal::SIGSYS)),
    (
        "enter-a-namespace",
        End::Killed(Signal::SIGSYS),
        End::Killed(Signal::SIGSYS),
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["deed", deed, mode] => std::process::exit(confined(deed, mode)),
        // What cargo passes to a harness, such as a filter or `--nocapture`, is of no use here.
        _ => {
            calls_are_refused_or_fatal_as_the_mode_says();
            every_thread_is_confined_those_that_wait_included();
            println!("seccomp: ok");
        }
    }
}

fn mode_of(name: &str) -> Mode {
    match name {
        "refuse" => Mode::Refuse,
        "kill" => Mode::Kill,
        "log" => Mode::Log,
        "off" => Mode::Off,
        _ => panic!("{name}"),
    }
}

fn confined(deed: &str, mode: &str) -> i32 {
    privileges::give_up(None).unwrap();
    install(mode_of(mode)).unwrap();
    let (_, deed) = DEEDS.iter().find(|(name, _)| *name == deed).unwrap();
    match deed() {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 2,
        Err(_) => 3,
    }
}

fn run(deed: &str, mode: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["deed", deed, mode])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(0), _) => End::Done,
        (Some(2), _) => End::Refused,
        (_, Some(signal)) => End::Killed(Signal::try_from(signal).unwrap()),
        _ => panic!("{status}"),
    }
}

fn calls_are_refused_or_fatal_as_the_mode_says() {
    for (deed, refusing, killing) in ENDS {
        assert_eq!(end_of(run(deed, "refuse")), *refusing, "{deed}, refused");
        assert_eq!(end_of(run(deed, "kill")), *killing, "{deed}, killed");
        let unfiltered = match *deed {
            "abort" => End::Killed(Signal::SIGABRT),
            // For want of the capability.
            "enter-a-namespace" => End::Refused,
            _ => End::Done,
        };
        assert_eq!(end_of(run(deed, "log")), unfiltered, "{deed}, logged");
        assert_eq!(end_of(run(deed, "off")), unfiltered, "{deed}, without a filter");
    }
    // Nothing starts another program: not even the copy of itself that would do it.
    assert_ne!(end_of(run("start-a-program", "refuse")), End::Done);
    assert_eq!(
        end_of(run("start-a-program", "kill")),
        End::Killed(Signal::SIGSYS)
    );
}

/// In this process, and last: it is confined afterwards.
fn every_thread_is_confined_those_that_wait_included() {
    let (end, ended) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let waiting = thread::spawn(move || {
        ready.send(()).unwrap();
        let _ = ended.recv();
        File::create("/dev/null").unwrap_err().kind()
    });
    is_ready.recv().unwrap();
    privileges::give_up(None).unwrap();
    install(Mode::Refuse).unwrap();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
    drop(end);
    assert_eq!(waiting.join().unwrap(), io::ErrorKind::PermissionDenied);
}
