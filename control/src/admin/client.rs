//! The command line's end of the admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::protocol::{Frame, MAX_FRAME_BYTES, Request};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens, or the socket is closed to this user.
    #[error("the daemon cannot be reached at {0}: {1}")]
    Unreachable(std::path::PathBuf, io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer ended early or was none.
    #[error("the answer broke off: {0}")]
    Broken(io::Error),
}

/// A connection for one request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    limit: Duration,
}

impl Client {
    /// Connects; each frame of an answer must come within `limit`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub fn connect(path: &Path, limit: Duration) -> Result<Self, ClientError> {
        let unreachable = |error| ClientError::Unreachable(path.to_owned(), error);
        let stream = UnixStream::connect(path).map_err(unreachable)?;
        stream.set_read_timeout(Some(limit)).map_err(unreachable)?;
        stream.set_write_timeout(Some(limit)).map_err(unreachable)?;
        Ok(Self { stream, limit })
    }

    /// From now on waits for frames as long as it takes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_without_limit(&self) -> Result<(), ClientError> {
        self.stream.set_read_timeout(None).map_err(ClientError::Broken)
    }

    /// Asks.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask(&mut self, request: &Request) -> Result<(), ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Broken(error.into()))?;
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.stream
            .write_all(&[&length, body.as_slice()].concat())
            .map_err(|error| self.fault(error))
    }

    /// The next frame of the answer; [`Frame::End`] is the last.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn frame(&mut self) -> Result<Frame, ClientError> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length_bytes = u32::from_be_bytes(length) as usize;
        if length_bytes > MAX_FRAME_BYTES {
            return Err(ClientError::Broken(io::Error::other("a frame is too long")));
        }
        let mut body = vec![0; length_bytes];
        self.read(&mut body)?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.into()))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ClientError> {
        self.stream.read_exact(buffer).map_err(|error| self.fault(error))
    }

    fn fault(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut(self.limit),
            _ => ClientError::Broken(error),
        }
    }
}
