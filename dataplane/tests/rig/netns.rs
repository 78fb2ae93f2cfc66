//! Network namespaces that end with the test, and packets put on an interface there by hand.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
        sockopt,
    },
};

/// A network namespace, deleted on drop with everything in it.
pub struct Netns {
    name: String,
    is_ours: bool,
}

impl Netns {
    pub fn new(stem: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("xsk-{stem}-{}-{serial}", std::process::id());
        run(&format!("ip netns add {name}"));
        let netns = Self { name, is_ours: true };
        // No packets but the test's own.
        netns.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        netns
    }

    /// One that another process made, and deletes.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_ours: false,
        }
    }

    /// Runs a command line inside.
    pub fn run(&self, line: &str) {
        run(&format!("ip netns exec {} {line}", self.name));
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves this thread inside, for ever.
    pub fn enter(&self) {
        if !self.name.is_empty() {
            enter(&self.name);
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.is_ours {
            run(&format!("ip netns delete {}", self.name));
        }
    }
}

/// Moves this thread into a namespace, for ever.
pub fn enter(name: &str) {
    setns(
        File::open(format!("/run/netns/{name}")).unwrap(),
        CloneFlags::CLONE_NEWNET,
    )
    .unwrap();
}

pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A raw socket on an interface: what it sends goes out there, and it sees what arrives.
pub struct Tap(OwnedFd);

impl Tap {
    /// Opens one in a namespace.
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let (name, interface) = (netns.name().to_owned(), interface.to_owned());
        std::thread::spawn(move || {
            enter(&name);
            let address = getifaddrs()
                .unwrap()
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .unwrap();
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let tap = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            setsockopt(&tap, sockopt::RcvBuf, &(4 << 20)).unwrap();
            bind(tap.as_raw_fd(), &address).unwrap();
            Self(tap)
        })
        .join()
        .unwrap()
    }

    /// Sends a frame; false when the link is down or full.
    pub fn send(&self, frame: &[u8]) -> bool {
        match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => true,
            Err(Errno::ENETDOWN | Errno::ENOBUFS | Errno::EAGAIN | Errno::ENXIO | Errno::ENODEV) => false,
            Err(errno) => panic!("{errno}"),
        }
    }

    /// Everything seen since, frames that were sent here included.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => frames.push(buffer[..len].to_vec()),
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(_) => return frames,
            }
        }
    }
}
