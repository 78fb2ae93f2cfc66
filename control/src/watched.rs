//! A descriptor that the runtime watches.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::unix::AsyncFd;

/// Owns `T` and with it one descriptor, the same for its whole life.
#[derive(Debug)]
struct Owned<T>(T);

impl<T: AsFd> AsRawFd for Owned<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A non-blocking descriptor under the runtime's watch.
#[derive(Debug)]
pub(crate) struct Watched<T: AsFd> {
    inner: AsyncFd<Owned<T>>,
}

impl<T: AsFd> Watched<T> {
    /// Must be called within the runtime.
    #[expect(
        deprecated,
        reason = "its successor is an unsafe function whose condition, that the descriptor stays the same \
                  and open, holds for every owner that is never replaced"
    )]
    pub(crate) fn new(inner: T) -> io::Result<Self> {
        Ok(Self {
            inner: AsyncFd::new(Owned(inner))?,
        })
    }

    pub(crate) fn get(&self) -> &T {
        &self.inner.get_ref().0
    }

    /// Reads with `attempt` once there is something; `None` from it means that there was nothing after
    /// all. Safe to cancel.
    pub(crate) async fn read<R>(&self, mut attempt: impl FnMut(&T) -> Option<R>) -> io::Result<R> {
        loop {
            let mut ready = self.inner.readable().await?;
            match attempt(&ready.get_inner().0) {
                Some(result) => return Ok(result),
                None => ready.clear_ready(),
            }
        }
    }

    /// Waits for room to write. Safe to cancel.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.inner.writable().await?.retain_ready();
        Ok(())
    }

    /// Writes with `attempt`; `None` from it means that there was no room, and [`Self::writable`] waits.
    pub(crate) fn try_write<R>(&self, attempt: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        self.inner
            .try_io(tokio::io::Interest::WRITABLE, |owned| {
                attempt(&owned.0).ok_or_else(|| io::ErrorKind::WouldBlock.into())
            })
            .ok()
    }
}
