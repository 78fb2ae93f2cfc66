//! Raw sockets on one interface.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, bind, recvmmsg,
    sendmmsg, setsockopt, socket, sockopt,
};

/// Frames of one system call.
pub const BURST_FRAMES: usize = 32;

/// Room for frames that wait in the kernel.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// Longest frame that is received.
const MAX_FRAME_BYTES: usize = 2048;

/// A raw socket bound to an interface.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    mac: [u8; 6],
}

/// Moves the calling thread into a network namespace, for as long as it lives.
///
/// # Errors
/// Without root, or where there is none of that name.
pub fn enter(namespace: &str) -> io::Result<()> {
    let file = std::fs::File::open(format!("/run/netns/{namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

impl Link {
    /// Opens `interface` of the calling thread's namespace.
    ///
    /// # Errors
    /// Without root, or where there is no such interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let address = getifaddrs()?
            .filter(|known| known.interface_name == interface)
            .find_map(|known| known.address?.as_link_addr().copied())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface:?}")))?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        // The forced sizes need a capability, the others are cut to the system's limit.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
        }
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self {
            socket,
            mac: address.addr().unwrap_or_default(),
        })
    }

    /// The interface's Ethernet address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends up to [`BURST_FRAMES`] frames; how many went.
    ///
    /// # Errors
    /// The kernel's; a full queue of the interface is no error, and nothing went.
    pub fn send(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        let frames = &frames[..frames.len().min(BURST_FRAMES)];
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(frames.len(), None);
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let addresses = vec![None; frames.len()];
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut headers,
            slices.iter(),
            addresses,
            [],
            MsgFlags::empty(),
        );
        match sent {
            Ok(results) => Ok(results.count()),
            Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what has come, without waiting; `take` gets each frame.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&self, buffers: &mut Buffers, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        let lengths: Vec<usize> = {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
                .0
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let mut headers = MultiHeaders::<LinkAddr>::preallocate(slices.len(), None);
            match recvmmsg(
                self.socket.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            ) {
                Ok(results) => results.map(|message| message.bytes).collect(),
                Err(nix::errno::Errno::EAGAIN) => Vec::new(),
                // Tells that the interface was down for a moment.
                Err(nix::errno::Errno::ENETDOWN) => Vec::new(),
                Err(error) => return Err(error.into()),
            }
        };
        for (length, buffer) in lengths.iter().zip(&buffers.0) {
            take(&buffer[..(*length).min(MAX_FRAME_BYTES)]);
        }
        Ok(lengths.len())
    }
}

/// Room for the frames of one call.
#[derive(Debug)]
pub struct Buffers(Vec<Vec<u8>>);

impl Default for Buffers {
    fn default() -> Self {
        Self(vec![vec![0; MAX_FRAME_BYTES]; BURST_FRAMES])
    }
}
