//! Packets put on an interface in a namespace by hand, and those seen there.

use std::os::fd::{AsRawFd, OwnedFd};

use netns::Namespace;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
        sockopt,
    },
};

/// A raw socket on an interface: what it sends goes out there, and it sees what arrives.
pub struct Tap(OwnedFd);

impl Tap {
    /// Opens one in a namespace.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let open = || {
            let address = getifaddrs()?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .ok_or(std::io::ErrorKind::NotFound)?;
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let tap = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            setsockopt(&tap, sockopt::RcvBuf, &(4 << 20))?;
            bind(tap.as_raw_fd(), &address)?;
            Ok(Self(tap))
        };
        namespace.open(open).unwrap()
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
