//! The socket to the dataplane, and how often it is tried.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use southbound::{Channel, ChannelError, ToControl, ToDataplane};

use crate::watched::Watched;

/// The pauses between attempts: doubling from 50 ms to 2 s.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next_ms: Self::FIRST_MS,
        }
    }
}

impl Backoff {
    const FIRST_MS: u64 = 50;
    const LAST_MS: u64 = 2000;

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = Duration::from_millis(self.next_ms);
        self.next_ms = (self.next_ms * 2).min(Self::LAST_MS);
        pause
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Connection {
    channel: Watched<Channel>,
}

impl Connection {
    /// Connects to the dataplane's socket; that of a Unix socket needs no waiting.
    ///
    /// # Errors
    /// Where nobody listens, or the kernel says no.
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?).map_err(|error| {
            // A full backlog: as good as nobody there, and tried again.
            if error == Errno::EAGAIN {
                Errno::ECONNREFUSED
            } else {
                error
            }
        })?;
        Self::new(socket)
    }

    /// Takes over a connected, non-blocking socket.
    ///
    /// # Errors
    /// Where the runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            channel: Watched::new(Channel::new(socket))?,
        })
    }

    /// The next message; safe to cancel.
    ///
    /// # Errors
    /// Any but [`ChannelError::WouldBlock`]: the connection is over.
    pub async fn receive(&self) -> Result<(ToControl, Option<OwnedFd>), ChannelError> {
        self.channel
            .read(|channel| match channel.receive() {
                Err(ChannelError::WouldBlock) => None,
                result => Some(result),
            })
            .await?
    }

    /// Waits for room to send; safe to cancel.
    ///
    /// # Errors
    /// Where the runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        self.channel.writable().await
    }

    /// Sends if there is room. After [`ChannelError::WouldBlock`], [`Self::writable`] waits for it.
    ///
    /// # Errors
    /// See [`Channel::send`].
    pub fn try_send(&self, message: &ToDataplane) -> Result<(), ChannelError> {
        self.channel
            .try_write(|channel| match channel.send(message, None) {
                Err(ChannelError::WouldBlock) => None,
                result => Some(result),
            })
            .unwrap_or(Err(ChannelError::WouldBlock))
    }
}
